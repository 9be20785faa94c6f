//! How things look: tables without lines, and labelled fields. Refuses hidden characters: names,
//! reasons and versions come from other machines, and a terminal obeys what it is shown.

use crate::terminal;
use ratatui::text::Span;
use std::borrow::Cow;
use std::fmt::Display;

/// A table: a header, then a row per thing; columns are two spaces apart. On a terminal it is not wider than that:
/// wide columns are folded, columns that can be spared are left out, or each row becomes a block of lines.
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

    /// The table, no wider than that: with columns that are folded at spaces, else without those that can be spared, else a
    /// block of lines for each row. Nothing is cut.
    fn fitted(&self, width: Option<usize>) -> String {
        let all: Vec<usize> = (0..self.header.len()).collect();
        let Some(width) = width else {
            let natural = all.iter().map(|it| self.widest(*it)).collect::<Vec<_>>();
            return self.table(&all, &natural);
        };
        if let Some(widths) = self.widths(&all, width) {
            return self.table(&all, &widths);
        }
        // A narrow terminal would lose most of a row, for which a block has room.
        let spare = if width < NARROW { &[] } else { self.spare };
        let (mut shown, mut left_out) = (all, Vec::new());
        for name in spare {
            shown.retain(|column| self.header[*column] != *name);
            left_out.push(*name);
            if let Some(widths) = self.widths(&shown, width) {
                let words = format!(
                    "(too narrow for {}: a wider terminal, or --json)",
                    left_out.join(", ")
                );
                let note = folded(&words, Some(width)).join("\n");
                return format!("{}{note}\n", self.table(&shown, &widths));
            }
        }
        self.blocks(width)
    }

    /// The widths of these columns in so wide a terminal, the widest folded first; `None`: one would be narrower than its
    /// words.
    fn widths(&self, shown: &[usize], width: usize) -> Option<Vec<usize>> {
        let mut widths: Vec<usize> = shown.iter().map(|it| self.widest(*it)).collect();
        let least: Vec<usize> = shown.iter().map(|it| self.least(*it)).collect();
        let room = width.checked_sub(GAP * shown.len().saturating_sub(1))?;
        while widths.iter().sum::<usize>() > room {
            let foldable = (0..shown.len()).filter(|it| widths[*it] > least[*it]);
            let widest = foldable.max_by_key(|it| widths[*it])?;
            widths[widest] -= 1;
        }
        Some(widths)
    }

    fn table(&self, shown: &[usize], widths: &[usize]) -> String {
        let mut text = String::new();
        for row in std::iter::once(&self.header).chain(&self.rows) {
            let cells = shown.iter().zip(widths);
            let cells: Vec<Vec<String>> = cells
                .map(|(column, width)| folded(&row[*column], Some(*width)))
                .collect();
            let height = cells.iter().map(Vec::len).max().unwrap_or(1);
            for at in 0..height {
                let mut line = String::new();
                for (cell, width) in cells.iter().zip(widths) {
                    let part = cell.get(at).map_or("", String::as_str);
                    let padding = (width + GAP).saturating_sub(columns(part));
                    line.push_str(part);
                    line.push_str(&" ".repeat(padding));
                }
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
        text
    }

    /// A block for each row: the name of each column with its value, folded.
    fn blocks(&self, width: usize) -> String {
        let blocks = self.rows.iter().map(|row| {
            let cells = self.header.iter().zip(row);
            let lines = cells.map(|(name, value)| {
                let words = format!("{name}: {value}");
                let (first, rest) = (folded(&words, Some(width)), width.saturating_sub(GAP));
                // The other lines are indented, and folded once more for that.
                match first.split_first() {
                    Some((head, tail)) if !tail.is_empty() => {
                        let behind = words[head.len()..].trim_start();
                        let behind = folded(behind, Some(rest)).join("\n  ");
                        format!("{head}\n  {behind}\n")
                    }
                    _ => format!("{words}\n"),
                }
            });
            lines.collect::<String>()
        });
        blocks.collect::<Vec<_>>().join("\n")
    }

    fn cells(&self, column: usize) -> impl Iterator<Item = &str> {
        let rows = self.rows.iter().chain([&self.header]);
        rows.map(move |row| row[column].as_str())
    }

    fn widest(&self, column: usize) -> usize {
        self.cells(column).map(columns).max().unwrap_or(0)
    }

    /// The least width of a column: short ones are not folded, and no word is broken.
    fn least(&self, column: usize) -> usize {
        let words = self.cells(column).flat_map(str::split_whitespace);
        let longest = words.map(columns).max().unwrap_or(0);
        self.widest(column).min(longest.max(FOLDED))
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
        self.fitted(terminal::width())
    }

    /// The lines, no wider than that; what does not fit goes on in lines of its own.
    fn fitted(&self, columns: Option<usize>) -> String {
        let width = self.fields.iter().map(|(l, _)| l.len()).max().unwrap_or(0);
        let indent = width + GAP;
        let each = self.fields.iter().map(|(label, value)| {
            let room = columns.map(|it| it.saturating_sub(indent).max(1));
            let lines = folded(value, room);
            let between = format!("\n{}", " ".repeat(indent));
            format!("{label:width$}  {}\n", lines.join(&between))
        });
        each.collect()
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

/// The columns of a terminal that a text takes.
pub(crate) fn columns(text: &str) -> usize {
    Span::raw(text).width()
}

/// A text in lines of at most `width` columns, folded at spaces; a word that is wider is broken. Without a width it is one
/// line.
pub(crate) fn folded(text: &str, width: Option<usize>) -> Vec<String> {
    let Some(width) = width.filter(|it| columns(text) > *it) else {
        return vec![text.to_owned()];
    };
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split(' ') {
        let gap = usize::from(!line.is_empty());
        if columns(&line) + gap + columns(word) <= width {
            line.push_str(&" ".repeat(gap));
            line.push_str(word);
            continue;
        }
        if !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
        for c in word.chars() {
            line.push(c);
            if columns(&line) > width && line.chars().count() > 1 {
                line.pop();
                lines.push(std::mem::replace(&mut line, c.to_string()));
            }
        }
    }
    lines.push(line);
    lines
}

/// A sentence in lines that fit the terminal.
pub(crate) fn sentence(text: &str) -> String {
    folded(&clean(text), terminal::width()).join("\n")
}

/// Spaces between columns.
const GAP: usize = 2;
/// A terminal of fewer columns loses no column.
const NARROW: usize = 70;
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

    /// A table whose words and whose widest line are checked at each width.
    fn check(rows: &Rows) {
        let words = |text: &str| {
            let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            words.sort();
            words
        };
        for width in [40, 60, 80, 120, 500] {
            let text = rows.fitted(Some(width));
            for line in text.lines() {
                assert!(columns(line) <= width, "{width}: {line}\n{text}");
            }
            let is_whole = !text.contains("(too narrow for");
            assert!(is_whole || width >= NARROW, "{width}: {text}");
            let longest = rows.rows.iter().flatten().flat_map(|it| it.split(' '));
            for word in longest.filter(|it| is_whole && columns(it) < width - GAP) {
                assert!(
                    words(&text).iter().any(|it| it == word),
                    "{width}: `{word}` is lost:\n{text}"
                );
            }
            let lines = text.lines().count();
            let bytes: usize = rows.rows.iter().flatten().map(String::len).sum();
            assert!(lines < 40 + bytes / 8, "{width}: a letter a line:\n{text}");
        }
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
        check(&rows);
        let wide = Rows {
            spare: &["A"],
            ..Rows::new(&["A", "B", "C", "D"])
        };
        let mut wide = wide;
        wide.row(["a".repeat(30), "b".repeat(30), "c".repeat(12), "d d".into()]);
        let text = wide.fitted(Some(75));
        assert!(
            text.contains("(too narrow for A:") && !text.contains("aaa"),
            "{text}"
        );
        let text = wide.fitted(Some(40));
        assert!(text.contains("A: aaa") && text.contains("D: d d"), "{text}");
    }

    #[test]
    fn every_shape_of_table_fits_every_terminal() {
        let time = "2031-01-01T00:00:48Z";
        let key = format!("node:{}", "ab".repeat(32));
        let refused = "failed: no tunnel: this node is denied, score below threshold (12 s ago)";
        let mut tokens = Rows::new(&[
            "ID", "STATE", "USES", "NAME", "SEGMENTS", "USED BY", "CREATED", "EXPIRES",
        ]);
        tokens.row([
            "tok-0123456789ab".into(),
            "used".into(),
            "1 of 1".into(),
            "node-a".into(),
            "-".into(),
            "node-a".into(),
            time.into(),
            time.into(),
        ]);
        let mut peers =
            Rows::new(&["PEER", "PING v4", "PING v6", "TX", "REASON"]).sparing(&["TX", "PING v6"]);
        peers.row([
            "node-b".into(),
            refused.into(),
            refused.into(),
            "1.5 KiB".into(),
            "score below threshold".into(),
        ]);
        let mut banned = Rows::new(&["KEY", "WAS", "SINCE", "BY", "REASON"]);
        banned.row([
            key.clone(),
            "node-c".into(),
            time.into(),
            "uid 0".into(),
            "its keys were stolen from a backup".into(),
        ]);
        let mut rules = Rows::new(&["RULE", "VALUE", "HOLDS"]);
        rules.row([
            "the newest evidence is at most 120 s old".into(),
            "none was handed in".into(),
            "NO".into(),
        ]);
        let mut runs = Rows::new(&[
            "SUITE",
            "HARNESS",
            "SIGNED BY",
            "FINISHED",
            "SAMPLES",
            "OVERALL",
        ]);
        runs.row([
            "mock-safety 1".into(),
            "mock".into(),
            key,
            time.into(),
            "200".into(),
            "0.912".into(),
        ]);
        let mut wide = Rows::new(&["NAME", "WORDS"]);
        wide.row(["漢字漢字".into(), "漢字 ".repeat(40).trim_end().into()]);
        for rows in [&tokens, &peers, &banned, &rules, &runs, &wide] {
            check(rows);
        }
    }

    #[test]
    fn fields_go_on_below_themselves() {
        let mut fields = Fields::default();
        fields.field(
            "offloads",
            "a b c d e f g h i j k l m n o p q r s t u v w x y z",
        );
        fields.field("node", format!("node-a, node:{}", "ab".repeat(32)));
        let text = fields.fitted(Some(40));
        assert!(text.lines().all(|line| columns(line) <= 40), "{text}");
        assert!(
            text.lines()
                .skip(1)
                .filter(|it| it.starts_with("          "))
                .count()
                >= 3,
            "{text}"
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
