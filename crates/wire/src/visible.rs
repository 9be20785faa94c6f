//! Text from elsewhere, made fit to be looked at: names of software and suites, reasons, evidence. A
//! terminal obeys control characters, and characters that nobody sees (U+202E, U+200B) make one text look
//! like another. Both become escapes; letters of any script, and what combines with them, stay.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};

/// One line: everything hidden becomes `\u{…}`, line feeds too.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_hidden, |out, c| {
        let _ = write!(out, "{}", c.escape_unicode());
    })
}

/// Lines that were put together here, so that their line feeds are ours.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(
        text,
        |c| c != '\n' && is_hidden(c),
        |out, c| {
            let _ = write!(out, "{}", c.escape_unicode());
        },
    )
}

/// A JSON document: everything hidden becomes `\uXXXX`, which is the same document. Outside of texts JSON
/// has no hidden characters but white space.
#[must_use]
pub fn json(document: &str) -> Cow<'_, str> {
    escaped(
        document,
        |c| !matches!(c, '\n' | '\r' | '\t') && is_hidden(c),
        |out, c| {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        },
    )
}

/// The first `most` of many, and how many more there are: `a, b and 3 more`. `None` if there are none.
#[must_use]
pub fn few(all: impl IntoIterator<Item = impl Display>, most: usize) -> Option<String> {
    let mut all = all.into_iter();
    let shown: Vec<String> = all.by_ref().take(most).map(|it| it.to_string()).collect();
    let more = match all.count() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!shown.is_empty()).then(|| format!("{}{more}", shown.join(", ")))
}

/// Whether a reader does not see a character, or a terminal does more with it than show it.
#[must_use]
pub fn is_hidden(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    // The standard library escapes these behind a letter: controls, formats, separators, private and
    // unassigned characters, and no letter or accent of any script.
    let mut behind_a_letter = [b'a'; 5];
    let rest = behind_a_letter.split_at_mut(1).1;
    let len = 1 + c.encode_utf8(rest).len();
    let shown = std::str::from_utf8(behind_a_letter.get(..len).unwrap_or_default());
    let is_escaped = shown.is_ok_and(|shown| shown.escape_debug().count() > 2);
    is_escaped || BLANK.iter().any(|range| range.contains(&c))
}

fn escaped(
    text: &str,
    hidden: impl Fn(char) -> bool,
    escape: impl Fn(&mut String, char),
) -> Cow<'_, str> {
    // Nearly all is this, and a status of 10,000 nodes has 15 MB of it.
    let is_plain = |byte: &u8| (b' '..0x7f).contains(byte);
    if text.as_bytes().iter().all(is_plain) || !text.contains(&hidden) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if hidden(c) {
            escape(&mut out, c);
        } else {
            out.push(c);
        }
    }
    out.into()
}

/// Letters and marks that have no look: joiners, fillers, variation selectors.
const BLANK: [std::ops::RangeInclusive<char>; 9] = [
    '\u{34f}'..='\u{34f}',
    '\u{115f}'..='\u{1160}',
    '\u{17b4}'..='\u{17b5}',
    '\u{180b}'..='\u{180f}',
    '\u{2800}'..='\u{2800}',
    '\u{3164}'..='\u{3164}',
    '\u{fe00}'..='\u{fe0f}',
    '\u{ffa0}'..='\u{ffa0}',
    '\u{e0100}'..='\u{e01ef}',
];

#[cfg(test)]
mod tests {
    use super::*;

    const HIDDEN: [char; 14] = [
        '\u{1b}',
        '\u{7f}',
        '\u{9b}',
        '\0',
        '\r',
        '\u{200b}',
        '\u{202e}',
        '\u{2028}',
        '\u{2066}',
        '\u{feff}',
        '\u{ad}',
        '\u{3164}',
        '\u{fe0f}',
        '\u{e0041}',
    ];

    #[test]
    fn what_nobody_sees_is_shown_and_what_is_seen_stays() {
        for hidden in HIDDEN {
            let text = format!("safe{hidden}txt");
            let code = u32::from(hidden);
            assert_eq!(line(&text), format!("safe\\u{{{code:x}}}txt"));
            assert!(!lines(&text).contains(hidden), "{code:x}");
        }
        for text in [
            "score below threshold",
            "Übung \"1\" 'a\\b'",
            "评测 ベンチ тест नमस्ते ไทย e\u{301}",
            "café – 3 µs",
        ] {
            assert!(matches!(line(text), Cow::Borrowed(_)), "{text}");
            assert!(matches!(json(text), Cow::Borrowed(_)), "{text}");
        }
        assert_eq!(line("one\ntwo"), "one\\u{a}two");
        assert_eq!(lines("one\ntwo"), "one\ntwo");
    }

    #[test]
    fn an_escaped_document_is_the_same_document() {
        for hidden in HIDDEN {
            let value = serde_json::json!({ format!("key{hidden}"): [format!("{hidden}text")] });
            let document = format!("{value:#}");
            let shown = json(&document);
            let other = |c: char| c == hidden && c != '\n' && c != '\r';
            assert!(!shown.contains(other), "{:x}", u32::from(hidden));
            let read: serde_json::Value = serde_json::from_str(&shown).unwrap();
            assert_eq!(read, value);
        }
    }
}
