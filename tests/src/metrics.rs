//! Metrics as text: a strict reader of what a daemon serves (OpenMetrics 1.0 and the text format 0.0.4, as far as meshd
//! uses them), and of the tables that document it. It shares nothing with the code that writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The description of one metric in a page or a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// `counter` or `gauge`.
    pub kind: String,
    /// Its help text.
    pub help: String,
    /// Its label and all of its values.
    pub label: Option<(String, BTreeSet<String>)>,
    /// Whether it has the label `segment` before that one.
    pub in_segment: bool,
}

/// One scrape.
#[derive(Debug, Clone, Default)]
pub struct Scrape {
    /// Every metric, by its whole name.
    pub metrics: BTreeMap<String, Described>,
    /// Every sample, by name and label value. A name is followed by `@` and the segment's, if that is another one
    /// than `default`.
    pub samples: BTreeMap<(String, Option<String>), f64>,
}

impl Scrape {
    /// Reads a page.
    ///
    /// # Errors
    /// The first line that breaks a rule, and which.
    pub fn read(text: &str) -> Result<Self, String> {
        // OpenMetrics describes a counter without the end of its name; the format before with it, and marks no end.
        let (body, is_open) = match text.strip_suffix("# EOF\n") {
            Some(body) => (body, true),
            None => (text, false),
        };
        if !body.ends_with('\n') {
            return Err("the last line has no end".to_owned());
        }
        let mut scrape = Self::default();
        let (mut help, mut open) = (None, None);
        for line in body.lines() {
            let wrong = |why: &str| format!("{why}: {line}");
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let said = rest.split_once(' ').ok_or_else(|| wrong("no help"))?;
                if help.replace(said).is_some() {
                    return Err(wrong("help without a type before it"));
                }
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (family, kind) = rest.split_once(' ').ok_or_else(|| wrong("no type"))?;
                let (_, help) = help
                    .take()
                    .filter(|(of, _)| *of == family)
                    .ok_or_else(|| wrong("no help before it"))?;
                let name = match (kind, is_open) {
                    ("counter", true) => format!("{family}_total"),
                    _ => family.to_owned(),
                };
                open = Some(scrape.family(name, kind, help).map_err(wrong)?);
            } else {
                let name = open
                    .as_ref()
                    .ok_or_else(|| wrong("a sample before its type"))?;
                scrape.sample(name, line).map_err(wrong)?;
            }
        }
        let of = |key: &str| key.split('@').next().unwrap_or_default().to_owned();
        let sampled = |name: &String| scrape.samples.keys().any(|(key, _)| of(key) == *name);
        match scrape.metrics.keys().find(|name| !sampled(name)) {
            Some(name) => Err(format!("{name} has no sample")),
            None => Ok(scrape),
        }
    }

    /// A metric's value.
    ///
    /// # Panics
    /// When it is not there.
    #[must_use]
    pub fn at(&self, name: &str, label: Option<&str>) -> f64 {
        let key = (name.to_owned(), label.map(str::to_owned));
        let found = self.samples.get(&key).copied();
        found.unwrap_or_else(|| panic!("no sample {key:?}"))
    }

    /// The counters of this scrape that stand lower in a later one, or are gone from it.
    #[must_use]
    pub fn fallen(&self, later: &Self) -> Vec<&(String, Option<String>)> {
        let counters = self.samples.iter().filter(|((name, _), _)| {
            let metric = self.metrics.get(name.split('@').next().unwrap_or_default());
            metric.is_some_and(|metric| metric.kind == "counter")
        });
        let fell = counters.filter(|(key, before)| later.samples.get(*key) < Some(*before));
        fell.map(|(key, _)| key).collect()
    }

    fn family(&mut self, name: String, kind: &str, help: &str) -> Result<String, &'static str> {
        match kind {
            "counter" if name.ends_with("_total") => {}
            "gauge" if !name.ends_with("_total") => {}
            "counter" | "gauge" => return Err("a kind that its name does not say"),
            _ => return Err("neither counter nor gauge"),
        }
        let described = Described {
            kind: kind.into(),
            help: help.into(),
            label: None,
            in_segment: false,
        };
        match self.metrics.insert(name.clone(), described) {
            Some(_) => Err("a family a second time"),
            None => Ok(name),
        }
    }

    fn sample(&mut self, name: &str, line: &str) -> Result<(), &'static str> {
        let (series, value) = line.rsplit_once(' ').ok_or("no value")?;
        let value: f64 = value.parse().map_err(|_| "not a number")?;
        let rest = series
            .strip_prefix(name)
            .ok_or("a sample of another family")?;
        let metric = self.metrics.get_mut(name).ok_or("an unknown family")?;
        let (segment, rest) = match rest.strip_prefix("{segment=\"") {
            None => (None, rest.to_owned()),
            Some(rest) => {
                let (segment, rest) = rest.split_once('"').ok_or("no end of a label")?;
                let rest = match rest {
                    "}" => String::new(),
                    more => format!("{{{}", more.strip_prefix(',').ok_or("no comma")?),
                };
                (Some(segment), rest)
            }
        };
        metric.in_segment = segment.is_some();
        let key = match segment {
            None | Some("default") => name.to_owned(),
            Some(segment) => format!("{name}@{segment}"),
        };
        let label = match &*rest {
            "" => None,
            set => {
                let inside = set
                    .strip_prefix('{')
                    .and_then(|set| set.strip_suffix("\"}"));
                let (key, value) = inside
                    .and_then(|it| it.split_once("=\""))
                    .ok_or("no label")?;
                if value.contains(['"', '\\', '{', ',']) {
                    return Err("more than one plain label");
                }
                let (known, values) = metric
                    .label
                    .get_or_insert_with(|| (key.into(), BTreeSet::new()));
                if known != key {
                    return Err("another label");
                }
                values.insert(value.into());
                Some(value.to_owned())
            }
        };
        match self.samples.insert((key, label), value) {
            Some(_) => Err("a sample a second time"),
            None => Ok(()),
        }
    }
}

/// The table under `heading` of docs/OPERATIONS.md, in its order. A label whose values the table does
/// not list has none.
///
/// # Panics
/// When there is no such table.
#[must_use]
pub fn documented(heading: &str) -> Vec<(String, Described)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/OPERATIONS.md");
    let text = std::fs::read_to_string(path).expect("the documentation is there");
    let begin = format!("\n### {heading}\n");
    let (_, rest) = text.split_once(&begin).expect("a heading of its own");
    let table = rest.lines().skip_while(|line| !line.starts_with('|'));
    let rows = table.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(row).collect()
}

fn row(line: &str) -> (String, Described) {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [name, kind, label, help] = cells[..] else {
        panic!("not four cells: {line}")
    };
    let (in_segment, label) = match label.strip_prefix("`segment`") {
        Some(rest) => (true, rest.strip_prefix(", ").unwrap_or(rest)),
        None => (false, label),
    };
    let label = label.split_once(": ").map(|(key, values)| {
        let plain = values.split(", ").filter_map(quoted);
        (
            quoted(key).expect("a label").to_owned(),
            plain.map(str::to_owned).collect(),
        )
    });
    let described = Described {
        kind: kind.into(),
        help: help.into(),
        label,
        in_segment,
    };
    (quoted(name).expect("a metric").to_owned(), described)
}

/// The text between two backticks, if that is all there is.
fn quoted(text: &str) -> Option<&str> {
    let inside = text.strip_prefix('`')?.strip_suffix('`')?;
    (!inside.contains('`')).then_some(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP m_a Things\n# TYPE m_a counter\nm_a_total{k=\"x\"} 3\nm_a_total{k=\"y\"} 0\n\
                        # HELP m_b Time left\n# TYPE m_b gauge\nm_b 1.5\n# EOF\n";

    #[test]
    fn a_page_is_read_and_one_that_breaks_a_rule_is_not() {
        let scrape = Scrape::read(PAGE).unwrap();
        assert_eq!(scrape.at("m_a_total", Some("x")), 3.0);
        assert_eq!(scrape.at("m_b", None), 1.5);
        let both = "m_b{segment=\"default\"} 1.5\nm_b{segment=\"x\"} 2.5";
        let in_two = Scrape::read(&PAGE.replace("m_b 1.5", both)).unwrap();
        assert_eq!(
            (in_two.at("m_b", None), in_two.at("m_b@x", None)),
            (1.5, 2.5)
        );
        let values = BTreeSet::from(["x".to_owned(), "y".to_owned()]);
        assert_eq!(
            scrape.metrics["m_a_total"].label,
            Some(("k".into(), values))
        );
        for (from, to) in [
            ("# EOF\n", ""),
            ("# HELP m_b Time left\n", ""),
            ("m_b 1.5", "m_b much"),
            ("m_b 1.5\n", ""),
            ("m_b 1.5", "m_c 1.5"),
            ("m_b 1.5", "m_b 1.5\nm_b 1.5"),
            ("m_a_total{k=\"y\"}", "m_a{k=\"y\"}"),
            ("m_a_total{k=\"y\"}", "m_a_total{l=\"y\"}"),
            ("gauge", "summary"),
            ("m_b 1.5", "m_b{segment=\"x\"k=\"y\"} 1.5"),
        ] {
            assert!(PAGE.contains(from), "{from}");
            assert!(
                Scrape::read(&PAGE.replace(from, to)).is_err(),
                "{from} → {to}"
            );
        }
    }

    #[test]
    fn a_counter_that_fell_or_went_away_is_found_and_a_gauge_may_fall() {
        let before = Scrape::read(PAGE).unwrap();
        let later = |from, to| Scrape::read(&PAGE.replace(from, to)).unwrap();
        assert!(before.fallen(&before).is_empty());
        assert!(before.fallen(&later("m_b 1.5", "m_b 0.5")).is_empty());
        let key = ("m_a_total".to_owned(), Some("x".to_owned()));
        assert_eq!(before.fallen(&later("\"x\"} 3", "\"x\"} 2")), [&key]);
        assert_eq!(before.fallen(&later("m_a_total{k=\"x\"} 3\n", "")), [&key]);
    }
}
