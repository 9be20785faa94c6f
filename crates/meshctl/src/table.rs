//! How things look: tables without lines, and labelled fields. Refuses hidden characters: names,
//! reasons and versions come from other machines, and a terminal obeys what it is shown.

use crate::terminal;
use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use std::borrow::Cow;
use std::fmt::Display;

/// A table: a header, then a row per thing; columns are two spaces apart. On a terminal it is not wider than that: the
/// last column is folded, and columns that can be spared are left out.
#[derive(Debug)]
pub(crate) struct Rows {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    /// Columns that can be spared, the least important first.
    spare: &'static [&'static str],
}

/// Labelled values, one a line, with the values aligned.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    fields: Vec<(&'static str, String)>,
}

impl Rows {
    /// An empty table.
    pub(crate) fn new(header: &[&str]) -> Self {
        Self {
            header: header.iter().map(|it| (*it).to_owned()).collect(),
            rows: Vec::new(),
            spare: &[],
        }
    }

    /// The same, without these columns on a terminal that is too narrow, the first of them first.
    pub(crate) fn sparing(self, spare: &'static [&'static str]) -> Self {
        Self { spare, ..self }
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        let cells = cells.iter().map(|cell| clean(cell).into_owned());
        self.rows.push(cells.collect());
    }

    /// The table, or `otherwise` if it has no row.
    pub(crate) fn render(&self, otherwise: &str) -> String {
        if self.rows.is_empty() {
            return format!("{otherwise}\n");
        }
        self.fitted(terminal::width())
    }

    /// The table, no wider than that.
    fn fitted(&self, width: Option<usize>) -> String {
        let mut shown: Vec<usize> = (0..self.header.len()).collect();
        let mut left_out = Vec::new();
        for name in self.spare {
            if width.is_none_or(|width| self.least(&shown) <= width) {
                break;
            }
            shown.retain(|column| self.header[*column] != *name);
            left_out.push(*name);
        }
        let pick = |row: &[String]| shown.iter().map(|it| row[*it].clone()).collect::<Vec<_>>();
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header(pick(&self.header));
        table.add_rows(self.rows.iter().map(|row| pick(row)));
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        if let Some(width) = width {
            // The padding of the last column is trimmed.
            let columns = u16::try_from(width + 2).unwrap_or(u16::MAX);
            table.set_width(columns);
            table.set_content_arrangement(ContentArrangement::Dynamic);
            for (column, index) in table.column_iter_mut().zip(&shown) {
                if Some(index) != shown.last() {
                    let widest = u16::try_from(self.widest(*index) + 2).unwrap_or(u16::MAX);
                    column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(widest)));
                }
            }
        }
        let mut text = format!("{}\n", table.trim_fmt());
        if !left_out.is_empty() {
            let names = left_out.join(", ");
            text.push_str(&format!(
                "(too narrow for {names}: a wider terminal, or --json)\n"
            ));
        }
        text
    }

    fn widest(&self, column: usize) -> usize {
        let cells = self.rows.iter().chain([&self.header]);
        cells
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    }

    /// The width that these columns need, with the last one folded as far as it may be.
    fn least(&self, shown: &[usize]) -> usize {
        let Some((last, others)) = shown.split_last() else {
            return 0;
        };
        let others = others.iter().map(|it| self.widest(*it) + 2);
        others.sum::<usize>() + self.widest(*last).min(FOLDED)
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

/// Columns that a folded text keeps.
const FOLDED: usize = 24;
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
    fn a_table_is_no_wider_than_its_terminal_and_says_what_it_leaves_out() {
        let mut rows =
            Rows::new(&["NODE", "PSK", "ADDRESS", "REASON"]).sparing(&["PSK", "ADDRESS"]);
        let reason = "score below threshold, and the evidence is older than the policy allows";
        rows.row([
            "node-a".into(),
            "valid".into(),
            "10.76.0.2".into(),
            reason.into(),
        ]);
        let whole = rows.fitted(None);
        assert!(
            whole.contains(reason) && whole.lines().count() == 2,
            "{whole}"
        );
        for width in [30, 40, 50, 60, 80, 200] {
            let text = rows.fitted(Some(width));
            let table = text.lines().filter(|line| !line.starts_with('('));
            let widest = table.map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= width, "{width}: {text}");
            let told = |name: &str| text.contains(&format!("too narrow for {name}"));
            assert_eq!(told("PSK"), width < 50, "{width}: {text}");
            assert!(text.contains("node-a") && text.contains("score"), "{text}");
        }
        assert!(
            rows.fitted(Some(30))
                .contains("too narrow for PSK, ADDRESS:")
        );
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
