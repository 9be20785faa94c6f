//! Where words go: the answer to stdout, in text or as JSON; remarks to stderr.

use crate::client::Reply;
use crate::failure::Failure;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io::{self, Write as _};

/// Writes one command's answer.
#[derive(Debug)]
pub(crate) struct Answer {
    json: bool,
}

impl Answer {
    /// Answers as JSON if `json`, else in text.
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether the answer is to be JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints the reply as it came, or what `render` makes of its form.
    pub(crate) fn show<T: DeserializeOwned>(
        &self,
        reply: &Reply,
        render: impl FnOnce(T) -> String,
    ) -> Result<(), Failure> {
        if self.json {
            self.value(reply.raw())
        } else {
            self.text(&render(reply.form()?))
        }
    }

    /// Prints `value`, indented.
    pub(crate) fn value(&self, value: &Value) -> Result<(), Failure> {
        self.json(&format!("{value:#}"))
    }

    /// Prints JSON, of which nothing is hidden from who reads it.
    pub(crate) fn json(&self, document: &str) -> Result<(), Failure> {
        print(&wire::visible::json(document))
    }

    /// Prints lines, ended by one line feed.
    pub(crate) fn text(&self, text: &str) -> Result<(), Failure> {
        print(&wire::visible::lines(text))
    }

    /// Prints a line byte by byte as it is, because whoever reads it computes its hash.
    pub(crate) fn exact(&self, line: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{line}")
            .and_then(|()| stdout.flush())
            .map_err(|error| Failure::stdout(&error))
    }

    /// Clears the terminal, before it is shown again.
    pub(crate) fn clear(&self) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        write!(stdout, "\x1b[H\x1b[2J\x1b[3J")
            .and_then(|()| stdout.flush())
            .map_err(|error| Failure::stdout(&error))
    }

    /// Remarks on stderr; a remark that nobody reads is no failure.
    pub(crate) fn remark(&self, text: &str) {
        let _ = writeln!(io::stderr(), "{}", crate::table::clean(text));
    }
}

fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}", text.trim_end_matches('\n'))
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::stdout(&error))
}
