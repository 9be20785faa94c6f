//! How things look: tables without lines, and labelled fields. Refuses hidden characters: names,
//! reasons and versions come from other machines, and a terminal obeys what it is shown.

use comfy_table::{Table, presets};
use std::borrow::Cow;
use std::fmt::Display;

/// A table: a header, then a row per thing; columns are two spaces apart.
#[derive(Debug)]
pub(crate) struct Rows {
    table: Table,
}

/// Labelled values, one a line, with the values aligned.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    fields: Vec<(&'static str, String)>,
}

impl Rows {
    /// An empty table.
    pub(crate) fn new(header: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_header(header);
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self { table }
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.table
            .add_row(cells.iter().map(|cell| clean(cell)).collect::<Vec<_>>());
    }

    /// The table, or `otherwise` if it has no row.
    pub(crate) fn render(&self, otherwise: &str) -> String {
        if self.table.is_empty() {
            format!("{otherwise}\n")
        } else {
            format!("{}\n", self.table.trim_fmt())
        }
    }
}

impl Fields {
    /// Adds a field.
    pub(crate) fn field(&mut self, label: &'static str, value: impl Display) {
        self.fields
            .push((label, clean(&value.to_string()).into_owned()));
    }

    /// Adds a field if there is a value.
    pub(crate) fn maybe(&mut self, label: &'static str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.field(label, value);
        }
    }

    /// The lines.
    pub(crate) fn render(&self) -> String {
        let width = self.fields.iter().map(|(l, _)| l.len()).max().unwrap_or(0);
        self.fields
            .iter()
            .map(|(label, value)| format!("{label:width$}  {value}\n"))
            .collect()
    }
}

/// Shows what is there, or `-`.
pub(crate) fn or_dash(value: Option<impl Display>) -> String {
    value.map_or_else(|| DASH.into(), |value| value.to_string())
}

/// `text` as one line, with hidden characters made visible and harmless.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    wire::visible::line(text)
}

/// Stands where there is nothing.
pub(crate) const DASH: &str = "-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_do_not_end_in_spaces() {
        let mut rows = Rows::new(&["NODE", "STATE"]);
        rows.row(["node-abc".into(), "ACTIVE".into()]);
        rows.row(["b".into(), "".into()]);
        assert_eq!(
            rows.render("none"),
            "NODE      STATE\nnode-abc  ACTIVE\nb\n"
        );
        assert_eq!(Rows::new(&["NODE"]).render("none"), "none\n");
    }

    #[test]
    fn a_remote_machine_cannot_steer_the_terminal() {
        assert_eq!(
            clean("a\u{1b}[2Jb\u{9b}1m\nc"),
            "a\\u{1b}[2Jb\\u{9b}1m\\u{a}c"
        );
        assert!(matches!(clean("score below threshold"), Cow::Borrowed(_)));
    }
}
