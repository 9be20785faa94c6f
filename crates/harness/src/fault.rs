//! Why a result is refused: the field, its value, and the rule or the way out.

use jiff::Timestamp;
use wire::evidence::EvidenceError;

/// Why a result is refused.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It could not be read.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// It is longer than is read.
    #[error("over {0} bytes long")]
    TooLong(u64),
    /// There is nothing.
    #[error("empty")]
    Empty,
    /// It is text of another encoding.
    #[error("{0}, but must be UTF-8")]
    Encoding(&'static str),
    /// It is not JSON.
    #[error("no JSON: {what} at byte {at}{}", path_of(.path))]
    Json {
        /// The rule that is broken there.
        what: &'static str,
        /// The offset in the text.
        at: usize,
        /// The value that is being read.
        path: String,
    },
    /// It is not a zip archive that is read here.
    #[error("no log of Inspect: the archive {0}")]
    Archive(&'static str),
    /// It is not XML.
    #[error("no JUnit XML: {what} at byte {at}")]
    Xml {
        /// The rule that is broken there.
        what: String,
        /// The offset in the text.
        at: u64,
    },
    /// A field is not what it has to be.
    #[error("`{field}` is {value}: {rule}")]
    Field {
        /// The field's path.
        field: String,
        /// Its value, shortened.
        value: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// The harness is still writing it.
    #[error("the run has not ended")]
    Unfinished,
    /// It is not of our own form.
    #[error("no benchmark result: {0}")]
    Own(#[source] serde_json::Error),
    /// It breaks a rule of evidence.
    #[error(transparent)]
    Rule(#[from] EvidenceError),
    /// It is of a time that has not come.
    #[error("finished at {finished}, {seconds} s in the future: check the clocks")]
    Future {
        /// When the run finished, as it says.
        finished: Timestamp,
        /// How far that lies ahead.
        seconds: u64,
    },
    /// None of its suites is wanted.
    #[error("it has none of the suites that are wanted, but {found}")]
    NotWanted {
        /// The suites that it has.
        found: String,
    },
    /// It gives too many runs.
    #[error("it has {0} runs, but at most 64 are taken: name the suites that are wanted")]
    TooManyRuns(usize),
}

impl Fault {
    /// A field that breaks a rule.
    pub(crate) fn field(
        field: impl Into<String>,
        value: impl ToString,
        rule: &'static str,
    ) -> Self {
        Self::Field {
            field: field.into(),
            value: value.to_string(),
            rule,
        }
    }

    /// Whether the same bytes may be taken at another time.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Io(_) | Self::Future { .. })
    }

    /// Whether it may be a part of a result that is still being written.
    pub fn may_be_half(&self) -> bool {
        match self {
            Self::Empty
            | Self::Json { .. }
            | Self::Archive(_)
            | Self::Xml { .. }
            | Self::Unfinished => true,
            Self::Io(_)
            | Self::TooLong(_)
            | Self::Encoding(_)
            | Self::Field { .. }
            | Self::Own(_)
            | Self::Rule(_)
            | Self::Future { .. }
            | Self::NotWanted { .. }
            | Self::TooManyRuns(_) => false,
        }
    }

    /// Names in a sentence, the first few of them.
    pub(crate) fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
        let mut shown = Vec::new();
        for name in names {
            if shown.len() == SHOWN_NAMES {
                shown.push("…".to_owned());
                break;
            }
            shown.push(shown_text(name));
        }
        match shown.is_empty() {
            true => "none at all".to_owned(),
            false => shown.join(", "),
        }
    }
}

/// A text as an error shows it: quoted, without control characters, and not long.
pub(crate) fn shown_text(text: &str) -> String {
    match text.char_indices().nth(SHOWN_LEN) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
    }
}

fn path_of(path: &str) -> String {
    match path {
        "" => String::new(),
        path => format!(", in `{path}`"),
    }
}

const SHOWN_LEN: usize = 60;
const SHOWN_NAMES: usize = 8;
