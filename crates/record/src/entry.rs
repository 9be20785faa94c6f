//! One entry, and the bytes of it that the tree is over: one line of JSON, which is what an export prints, so
//! that whoever has the line can compute the hash with any tool.
//!
//! ```text
//! {"seq":7,"at_unix_ms":1700000000000,"by":"uid:0","kind":"node_evicted","body":{…}}
//! ```
//!
//! `by` is missing where nobody asked for it. `body` is as it was written, byte by byte.

use ledger::Hash;

/// An entry to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEntry {
    /// When, in milliseconds since 1970.
    pub at_unix_ms: i64,
    /// At whose word; `None`: at nobody's.
    pub by: Option<String>,
    /// Its kind, a word.
    pub kind: String,
    /// Its content, as JSON on one line.
    pub body: String,
}

/// An entry in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number, from 1.
    pub seq: u64,
    /// When, in milliseconds since 1970.
    pub at_unix_ms: i64,
    /// At whose word.
    pub by: Option<String>,
    /// Its kind.
    pub kind: String,
    /// Its content, as JSON.
    pub body: String,
}

impl Entry {
    /// The line that the tree is over.
    pub fn line(&self) -> String {
        line(
            self.seq,
            self.at_unix_ms,
            self.by.as_deref(),
            (&self.kind, &self.body),
        )
    }

    /// The hash of its leaf.
    pub fn leaf(&self) -> Hash {
        Hash::of_entry(self.line().as_bytes())
    }
}

/// The line of an entry with these columns.
pub(crate) fn line(
    seq: u64,
    at_unix_ms: i64,
    by: Option<&str>,
    (kind, body): (&str, &str),
) -> String {
    let mut line = format!("{{\"seq\":{seq},\"at_unix_ms\":{at_unix_ms}");
    if let Some(by) = by {
        line.push_str(",\"by\":");
        push_text(&mut line, by);
    }
    line.push_str(",\"kind\":");
    push_text(&mut line, kind);
    line.push_str(",\"body\":");
    line.push_str(body);
    line.push('}');
    line
}

fn push_text(line: &mut String, text: &str) {
    line.push_str(&serde_json::Value::from(text).to_string());
}
