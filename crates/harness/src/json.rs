//! JSON as harnesses write it, with every trap named: a name twice in an object, NaN and Infinity, depth,
//! counts without end. (`serde_json` takes the last of two values of one name, and says "expected value" at
//! Python's NaN.)
//!
//! [`read`] builds the values that a format looks at. Those under the names that it passes over, as the samples
//! of a run, are checked and not built: memory is bounded by [`reader::MAX_VALUES`] and not by the text.

mod reader;
#[cfg(test)]
mod tests;

pub(crate) use reader::read;

use crate::fault::{Fault, shown_text};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    /// As it stands in the text.
    Number(&'a str),
    /// `NaN`, `Infinity` or `-Infinity`, which Python writes and JSON does not have.
    NotFinite(&'a str),
    Text(Cow<'a, str>),
    List(Vec<Self>),
    Object(BTreeMap<Cow<'a, str>, Self>),
    /// Checked and not built.
    PassedOver,
}

impl Value<'_> {
    /// The path and the token of a number that is none, if there is one.
    pub(crate) fn not_finite(&self) -> Option<(String, &str)> {
        match self {
            Self::NotFinite(token) => Some((String::new(), token)),
            Self::List(items) => items.iter().enumerate().find_map(|(n, item)| {
                let (path, token) = item.not_finite()?;
                Some((format!("[{n}]{path}"), token))
            }),
            Self::Object(fields) => fields.iter().find_map(|(name, value)| {
                let (path, token) = value.not_finite()?;
                Some((format!(".{name}{path}"), token))
            }),
            _ => None,
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Number(token) | Self::NotFinite(token) if token.len() <= 40 => {
                (*token).to_owned()
            }
            Self::Number(_) | Self::NotFinite(_) => "a long number".to_owned(),
            Self::Text(text) => shown_text(text),
            Self::List(items) => format!("a list of {}", items.len()),
            Self::Object(_) | Self::PassedOver => "an object".to_owned(),
        }
    }
}

/// A value with its path, which errors name.
#[derive(Debug, Clone)]
pub(crate) struct Field<'v, 'a> {
    path: String,
    value: Option<&'v Value<'a>>,
}

impl<'v, 'a> Field<'v, 'a> {
    /// The outermost value.
    pub(crate) fn root(value: &'v Value<'a>) -> Self {
        Self {
            path: String::new(),
            value: Some(value),
        }
    }

    /// The value under a name; of what is no object there is none.
    pub(crate) fn get(&self, name: &str) -> Field<'v, 'a> {
        let value = match self.value {
            Some(Value::Object(fields)) => fields.get(name),
            _ => None,
        };
        Field {
            path: joined(&self.path, name),
            value,
        }
    }

    /// Whether it is there and not null.
    pub(crate) fn is_there(&self) -> bool {
        !matches!(self.value, None | Some(Value::Null))
    }

    pub(crate) fn text(&self) -> Result<&'v str, Fault> {
        match self.value {
            Some(Value::Text(text)) => Ok(text),
            _ => Err(self.fault("not a text")),
        }
    }

    /// A text, if it is there.
    pub(crate) fn maybe_text(&self) -> Result<Option<&'v str>, Fault> {
        self.is_there().then(|| self.text()).transpose()
    }

    /// A text, or a number as it stands in the text.
    pub(crate) fn text_or_number(&self) -> Result<&'v str, Fault> {
        match self.value {
            Some(Value::Number(token)) => Ok(token),
            Some(Value::Text(text)) => Ok(text),
            _ => Err(self.fault("neither a text nor a number")),
        }
    }

    pub(crate) fn count(&self) -> Result<u64, Fault> {
        let parsed = match self.value {
            Some(Value::Number(token)) => token.parse().ok(),
            _ => None,
        };
        parsed.ok_or_else(|| self.fault("not a whole number"))
    }

    pub(crate) fn number(&self) -> Result<f64, Fault> {
        let parsed = match self.value {
            Some(Value::Number(token)) => token.parse().ok(),
            Some(Value::NotFinite(_)) => None,
            _ => return Err(self.fault("not a number")),
        };
        let finite = parsed.filter(|number: &f64| number.is_finite());
        finite.ok_or_else(|| self.fault("not a finite number"))
    }

    /// A yes or no; `false` if it is not there.
    pub(crate) fn flag(&self) -> Result<bool, Fault> {
        match self.value {
            Some(Value::Bool(value)) => Ok(*value),
            None | Some(Value::Null) => Ok(false),
            Some(_) => Err(self.fault("neither true nor false")),
        }
    }

    /// The items of a list; none if it is not there.
    pub(crate) fn items(&self) -> Result<Vec<Field<'v, 'a>>, Fault> {
        let items = match self.value {
            Some(Value::List(items)) => items,
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(_) => return Err(self.fault("not a list")),
        };
        let items = items.iter().enumerate().map(|(n, value)| Field {
            path: format!("{}[{n}]", self.path),
            value: Some(value),
        });
        Ok(items.collect())
    }

    /// The names and values of an object, in the names' order.
    pub(crate) fn entries(&self) -> Result<Vec<(&'v str, Field<'v, 'a>)>, Fault> {
        let Some(Value::Object(fields)) = self.value else {
            return Err(self.fault("not an object"));
        };
        let entries = fields.iter().map(|(name, value)| {
            let field = Field {
                path: joined(&self.path, name),
                value: Some(value),
            };
            (&**name, field)
        });
        Ok(entries.collect())
    }

    /// The value, if it is a text.
    pub(crate) fn is_text(&self, expected: &str) -> bool {
        matches!(self.value, Some(Value::Text(text)) if text == expected)
    }

    /// Says that this field breaks a rule.
    pub(crate) fn fault(&self, rule: &'static str) -> Fault {
        let value = self.value.map_or("missing".to_owned(), Value::shown);
        Fault::field(self.path.clone(), value, rule)
    }
}

fn joined(path: &str, name: &str) -> String {
    let name: String = name
        .chars()
        .filter(|it| !it.is_control())
        .take(80)
        .collect();
    match path {
        "" => name,
        path => format!("{path}.{name}"),
    }
}
