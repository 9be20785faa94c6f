//! Tables in Markdown, and where files go.

use std::fmt;
use std::path::{Path, PathBuf};

/// A table.
pub(crate) struct Table(Vec<Vec<String>>);

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        let rule = head.iter().map(|_| "---".to_owned()).collect();
        Self(vec![
            head.iter().map(|&word| word.to_owned()).collect(),
            rule,
        ])
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self
            .0
            .iter()
            .map(|row| format!("| {} |", row.join(" | ")))
            .collect();
        f.write_str(&lines.join("\n"))
    }
}

/// Milliseconds, as exact as makes sense.
pub(crate) fn ms(value: f64) -> String {
    if value.is_nan() {
        "none".into()
    } else if value.abs() < 100.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.0}")
    }
}

/// A whole number with separators.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).unwrap_or_default())
        .collect();
    groups.join(",")
}

/// JSON, with a line per entry of its lists.
pub(crate) fn json(value: &serde_json::Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

/// Writes a file of results into `OUT`, or docs/benchmarks.
pub(crate) fn write(name: &str, content: &str) {
    let benches = Path::new(env!("CARGO_MANIFEST_DIR"));
    let default = benches.parent().unwrap_or(benches).join("docs/benchmarks");
    let folder = std::env::var_os("OUT").map_or(default, PathBuf::from);
    let path = folder.join(name);
    let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, content));
    match written {
        Ok(()) => println!("wrote {}", path.display()),
        // The figures are worth more than the file.
        Err(error) => println!("{}: {error}\n{content}", path.display()),
    }
}
