//! The terminal: how wide it is, whether there is one, and a question before something that is hard to undo.

use crate::failure::Failure;
use rustix::stdio;
use rustix::termios::{isatty, tcgetwinsize};
use std::io::{self, BufRead as _, Write as _};

/// Columns of the terminal that the answer goes to; `None`: it goes elsewhere, and nothing is fitted.
pub(crate) fn width() -> Option<usize> {
    let stdout = stdio::stdout();
    if !isatty(stdout) {
        return None;
    }
    let columns = tcgetwinsize(stdout).ok()?.ws_col;
    (columns > 0).then_some(usize::from(columns))
}

/// Whether a person is there to be asked.
pub(crate) fn is_person() -> bool {
    isatty(stdio::stdin()) && isatty(stdio::stderr())
}

/// Asks, where a person can answer. A program that runs this is not asked, and goes on.
///
/// # Errors
/// Refused, if the answer is not yes.
pub(crate) fn confirm(question: &str) -> Result<(), Failure> {
    if !is_person() {
        return Ok(());
    }
    // A terminal that is gone answers nothing below.
    let _ = write!(io::stderr(), "{} [y/N] ", crate::table::clean(question));
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    match (read, line.trim()) {
        (Ok(_), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Failure::refused(
            "nothing was changed",
            "answer `y`, or give --yes, to go on",
        )),
    }
}
