//! The reader: one pass over the text, as deep as its limit, with the path of where it is.

use super::{Value, joined};
use crate::fault::Fault;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Reads a text that holds one value. Values of the outermost object under a name of `pass_over` are not built.
///
/// # Errors
/// [`Fault::Json`], and [`Fault::Field`] for a name that comes twice.
pub(crate) fn read<'a>(text: &'a str, pass_over: &[&str]) -> Result<Value<'a>, Fault> {
    let mut reader = Reader {
        text,
        at: 0,
        path: Vec::new(),
        built: 0,
        names: 0,
        pass_over,
    };
    let value = reader.value(true)?;
    reader.blank();
    match reader.peek() {
        None => Ok(value),
        Some(_) => Err(reader.fault("more text after the value")),
    }
}

struct Reader<'a, 'p> {
    text: &'a str,
    at: usize,
    path: Vec<Step<'a>>,
    /// Values that were built.
    built: usize,
    /// Names of the objects that are being read.
    names: usize,
    pass_over: &'p [&'p str],
}

enum Step<'a> {
    Name(Cow<'a, str>),
    Item(usize),
}

impl<'a> Reader<'a, '_> {
    fn value(&mut self, build: bool) -> Result<Value<'a>, Fault> {
        if self.path.len() > MAX_DEPTH {
            return Err(self.fault("more than 64 lists and objects in each other"));
        }
        self.built += usize::from(build);
        if self.built > MAX_VALUES {
            return Err(self.fault("more than 1048576 values"));
        }
        self.blank();
        let Some(first) = self.peek() else {
            return Err(self.fault("an end where a value has to be"));
        };
        match first {
            b'{' => self.object(build),
            b'[' => self.list(build),
            b'"' => Ok(Value::Text(self.string()?)),
            b'-' | b'0'..=b'9' => self.number(),
            _ => {
                let words = [
                    ("null", Value::Null),
                    ("true", Value::Bool(true)),
                    ("false", Value::Bool(false)),
                    ("NaN", Value::NotFinite("NaN")),
                    ("Infinity", Value::NotFinite("Infinity")),
                ];
                let mut words = words.into_iter();
                let word = words.find(|(word, _)| self.takes(word));
                word.map(|(_, value)| value)
                    .ok_or_else(|| self.fault("something where a value has to be"))
            }
        }
    }

    fn object(&mut self, build: bool) -> Result<Value<'a>, Fault> {
        self.at += 1;
        let mut fields = BTreeMap::new();
        self.blank();
        let mut is_over = self.takes("}");
        while !is_over {
            self.blank();
            if self.peek() != Some(b'"') {
                return Err(self.fault("something where a name has to be"));
            }
            let name = self.string()?;
            self.blank();
            if !self.takes(":") {
                return Err(self.fault("no colon after a name"));
            }
            self.names += 1;
            if self.names > MAX_NAMES {
                return Err(self.fault("more than 262144 names at once"));
            }
            let is_outermost = self.path.is_empty();
            let build = build && !(is_outermost && self.pass_over.contains(&&*name));
            self.path.push(Step::Name(name.clone()));
            let value = self.value(build)?;
            let value = if build { value } else { Value::PassedOver };
            if fields.insert(name, value).is_some() {
                return Err(Fault::field(self.path(), "there twice", ONCE));
            }
            self.path.pop();
            is_over = self.ends("}")?;
        }
        self.names -= fields.len();
        Ok(Value::Object(fields))
    }

    fn list(&mut self, build: bool) -> Result<Value<'a>, Fault> {
        self.at += 1;
        let (mut items, mut count) = (Vec::new(), 0);
        self.blank();
        let mut is_over = self.takes("]");
        while !is_over {
            self.path.push(Step::Item(count));
            let item = self.value(build)?;
            if build {
                items.push(item);
            }
            self.path.pop();
            count += 1;
            is_over = self.ends("]")?;
        }
        Ok(Value::List(items))
    }

    /// Takes the comma after an item, or the end; whether it was the end.
    fn ends(&mut self, end: &str) -> Result<bool, Fault> {
        self.blank();
        if self.takes(end) {
            return Ok(true);
        }
        match self.takes(",") {
            true => Ok(false),
            false => Err(self.fault("neither a comma nor an end after a value")),
        }
    }

    fn number(&mut self) -> Result<Value<'a>, Fault> {
        let begin = self.at;
        self.takes("-");
        if self.takes("Infinity") {
            return Ok(Value::NotFinite("-Infinity"));
        }
        let is_zero = self.takes("0");
        let mut is_number = is_zero || self.digits();
        if self.takes(".") {
            is_number &= self.digits();
        }
        if self.takes("e") || self.takes("E") {
            let _ = self.takes("+") || self.takes("-");
            is_number &= self.digits();
        }
        // A digit after the zero at the front, as in 007, is no JSON either.
        if !is_number || self.peek().is_some_and(|next| next.is_ascii_digit()) {
            return Err(self.fault("no number"));
        }
        Ok(Value::Number(
            self.text.get(begin..self.at).unwrap_or_default(),
        ))
    }

    fn digits(&mut self) -> bool {
        let begin = self.at;
        while self.peek().is_some_and(|next| next.is_ascii_digit()) {
            self.at += 1;
        }
        self.at > begin
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        self.at += 1;
        let (mut begin, mut decoded) = (self.at, String::new());
        loop {
            match self.peek() {
                None => return Err(self.fault("a text without an end")),
                Some(b'"') => {
                    let rest = self.text.get(begin..self.at).unwrap_or_default();
                    self.at += 1;
                    if decoded.is_empty() {
                        return Ok(Cow::Borrowed(rest));
                    }
                    decoded.push_str(rest);
                    return Ok(Cow::Owned(decoded));
                }
                Some(b'\\') => {
                    decoded.push_str(self.text.get(begin..self.at).unwrap_or_default());
                    self.at += 1;
                    decoded.push(self.escaped()?);
                    begin = self.at;
                }
                Some(0..=0x1f) => return Err(self.fault("a control character in a text")),
                Some(_) => self.at += 1,
            }
        }
    }

    fn escaped(&mut self) -> Result<char, Fault> {
        let Some(kind) = self.peek() else {
            return Err(self.fault("a text without an end"));
        };
        self.at += 1;
        Ok(match kind {
            b'"' | b'\\' | b'/' => char::from(kind),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.hex()?;
                let is_high = (0xd800..0xdc00).contains(&high);
                let before = self.at;
                let low = match is_high && self.takes("\\u") {
                    true => self.hex()?,
                    false => 0,
                };
                if (0xdc00..0xe000).contains(&low) {
                    let pair = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                    return Ok(char::from_u32(pair).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                // Python writes half a pair where a model has made one: it is nothing that could be read.
                self.at = before;
                char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            _ => return Err(self.fault("an unknown escape in a text")),
        })
    }

    fn hex(&mut self) -> Result<u32, Fault> {
        let digits = self.text.get(self.at..self.at + 4);
        let digits = digits.filter(|it| it.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let parsed = digits.and_then(|it| u32::from_str_radix(it, 16).ok());
        let parsed = parsed.ok_or_else(|| self.fault("an unknown escape in a text"))?;
        self.at += 4;
        Ok(parsed)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn takes(&mut self, token: &str) -> bool {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let is_next = rest.starts_with(token.as_bytes());
        self.at += if is_next { token.len() } else { 0 };
        is_next
    }

    fn blank(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn path(&self) -> String {
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Name(name) => path = joined(&path, name),
                Step::Item(n) => write!(path, "[{n}]").unwrap_or_default(),
            }
        }
        path
    }

    fn fault(&self, what: &'static str) -> Fault {
        Fault::Json {
            what,
            at: self.at,
            path: self.path(),
        }
    }
}

const ONCE: &str = "a name may occur once in an object";
/// Most lists and objects in each other.
const MAX_DEPTH: usize = 64;
/// Most values that are built.
pub(super) const MAX_VALUES: usize = 1 << 20;
/// Most names of all the objects that are open at once.
pub(super) const MAX_NAMES: usize = 1 << 18;
