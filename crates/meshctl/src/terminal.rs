//! The terminal: how wide it is, whether there is one, and a question before something that is hard to undo.

use rustix::stdio;
use rustix::termios::{isatty, tcgetwinsize};
use std::io::{self, BufRead as _, Write as _};

/// Columns of the terminal that the answer goes to; `None`: it goes elsewhere, and nothing is fitted.
pub(crate) fn width() -> Option<usize> {
    #[cfg(test)]
    if let Some(width) = tests::WIDTH.get() {
        return Some(width);
    }
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

/// Asks, where a person can answer; whether the answer is yes. A program that runs this is not asked, and goes on.
pub(crate) fn confirms(question: &str) -> bool {
    if !is_person() {
        return true;
    }
    // A terminal that is gone answers nothing below.
    let _ = write!(io::stderr(), "{} [y/N] ", wire::visible::line(question));
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    read.is_ok() && matches!(line.trim(), "y" | "Y" | "yes")
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    thread_local! {
        /// The width of the terminal that a test pretends to have.
        pub(super) static WIDTH: Cell<Option<usize>> = const { Cell::new(None) };
    }

    /// The words on a terminal of so many columns.
    pub(crate) fn shown(width: usize, show: impl FnOnce() -> String) -> String {
        WIDTH.set(Some(width));
        let text = show();
        WIDTH.set(None);
        text
    }
}
