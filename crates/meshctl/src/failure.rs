//! Why a command did not succeed: who refused, what to do next, and the exit code that says so.

use std::fmt::{self, Display};
use std::io::{self, Write as _};
use std::process::ExitCode;

/// Why a command did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The daemon, or this tool on its behalf, said no.
    Refused(Words),
    /// Nobody could be asked, or the answer makes no sense.
    Broken(Words),
    /// The answer itself has said what is wrong.
    Said,
    /// The reader of stdout went away, which is its right.
    Closed,
}

/// An error, and a hint at the way out.
#[derive(Debug)]
pub(crate) struct Words {
    error: String,
    hint: String,
}

impl Failure {
    /// A refusal.
    pub(crate) fn refused(error: impl Display, hint: impl Display) -> Self {
        Self::Refused(Words::new(error, hint))
    }

    /// A breakage.
    pub(crate) fn broken(error: impl Display, hint: impl Display) -> Self {
        Self::Broken(Words::new(error, hint))
    }

    /// Whether the same may succeed later: nobody was there, or the daemon was stopping.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Broken(_) => true,
            Self::Refused(_) | Self::Said | Self::Closed => false,
        }
    }

    /// The error in words.
    pub(crate) fn words(&self) -> &str {
        match self {
            Self::Refused(words) | Self::Broken(words) => &words.error,
            Self::Said | Self::Closed => "",
        }
    }

    /// A failed write to stdout.
    pub(crate) fn stdout(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::broken(
                format!("cannot write the answer: {error}"),
                "check where stdout goes",
            ),
        }
    }

    /// Says it on stderr, as JSON if the answer was to be JSON, and gives the exit code.
    pub(crate) fn report(&self, json: bool) -> ExitCode {
        let (words, code) = match self {
            Self::Refused(words) => (words, REFUSED),
            Self::Broken(words) => (words, BROKEN),
            Self::Said => return ExitCode::from(REFUSED),
            Self::Closed => return ExitCode::SUCCESS,
        };
        let Words { error, hint } = words;
        let said = if json {
            serde_json::json!({ "error": error, "hint": hint, "code": code }).to_string()
        } else {
            format!("error: {error}\nhint: {hint}")
        };
        // Nobody is left to tell when stderr is gone as well.
        let _ = writeln!(io::stderr(), "{said}");
        ExitCode::from(code)
    }
}

impl Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(Words { error, hint }) | Self::Broken(Words { error, hint }) => {
                write!(out, "{error}; {hint}")
            }
            Self::Said => out.write_str("the answer says it"),
            Self::Closed => out.write_str("the reader went away"),
        }
    }
}

impl Words {
    fn new(error: impl Display, hint: impl Display) -> Self {
        let line = |text: String| crate::table::clean(text.trim_end()).into_owned();
        Self {
            error: line(error.to_string()),
            hint: line(hint.to_string()),
        }
    }
}

const REFUSED: u8 = 1;
const BROKEN: u8 = 2;
