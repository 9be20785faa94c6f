//! JUnit XML: one run for a file, whose samples are the test cases that were not skipped.
//!
//! There is no standard, but a common core: `testsuites > testsuite > testcase`, with a child `skipped`,
//! `failure` or `error`; suites nest, and the outermost element may be a suite. Document types and entities are
//! refused: nothing that reports tests needs them.

use crate::File;
use crate::fault::{Fault, shown_text};
use jiff::{SignedDuration, Timestamp};
use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};
use std::collections::BTreeMap;
use wire::evidence::Benchmark;

pub(crate) fn read(text: &str, file: &File<'_>) -> Result<Benchmark, Fault> {
    let report = Report::read(text)?;
    let counts = report.counts;
    let samples = counts.passed + counts.failed + counts.errors;
    if samples == 0 {
        let skipped = counts.skipped;
        return Err(Fault::field(
            "testcase",
            skipped,
            "skipped, and none was run",
        ));
    }
    let suite = match (&file.source.labels.suite, report.name) {
        (None, Some(name)) => name,
        _ => file.suite(),
    };
    let finished_at = report.finished.unwrap_or_else(|| file.time());
    let metrics = [
        ("passed", counts.passed),
        ("failed", counts.failed),
        ("errors", counts.errors),
        ("skipped", counts.skipped),
    ];
    Ok(Benchmark {
        harness: "junit".into(),
        harness_version: None,
        suite_version: file.suite_version(),
        model: None,
        metrics: metrics
            .map(|(name, count)| (name.to_owned(), count as f64))
            .into(),
        lower_is_better: ["failed", "errors", "skipped"].map(str::to_owned).into(),
        overall: Some(counts.passed as f64 / samples as f64),
        samples_total: samples,
        samples_completed: samples,
        started_at: report.started.unwrap_or(finished_at).min(finished_at),
        finished_at,
        nonce: file.nonce(&suite),
        suite,
        log_digest: Some(file.log_digest()),
        mesh: None,
        challenge: None,
    })
}

/// The content of a file, counted.
#[derive(Debug, Default)]
struct Report {
    /// The name of the outermost element, or of the first suite.
    name: Option<String>,
    counts: Counts,
    /// The earliest time that a suite names with its offset.
    started: Option<Timestamp>,
    /// The latest time at which a suite ended, by its time and its duration.
    finished: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    passed: u64,
    failed: u64,
    errors: u64,
    skipped: u64,
}

/// An element that is open.
#[derive(Debug)]
enum Open {
    /// `testsuites` or `testsuite`: how many cases it says it has, and how many it has.
    Suite {
        claimed: Option<u64>,
        cases: u64,
    },
    Case(Outcome),
    /// An element that says nothing here.
    Other,
}

/// How a test case ended; the greater counts where there are several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Passed,
    Skipped,
    Failed,
    Error,
}

impl Report {
    fn read(text: &str) -> Result<Self, Fault> {
        let mut reader = Reader::from_str(text);
        let (mut report, mut open, mut is_over) = (Self::default(), Vec::new(), false);
        loop {
            let at = reader.buffer_position();
            let xml = |what: String| Fault::Xml { what, at };
            match reader
                .read_event()
                .map_err(|error| xml(error.to_string()))?
            {
                Event::Start(element) => {
                    if is_over && open.is_empty() {
                        return Err(xml("a second outermost element".to_owned()));
                    }
                    is_over = true;
                    if open.len() >= MAX_DEPTH {
                        return Err(xml("more than 32 elements in each other".to_owned()));
                    }
                    let element = report.opened(&element, &mut open).map_err(|it| it.at(at))?;
                    open.push(element);
                }
                Event::Empty(element) => {
                    if is_over && open.is_empty() {
                        return Err(xml("a second outermost element".to_owned()));
                    }
                    is_over = true;
                    let element = report.opened(&element, &mut open).map_err(|it| it.at(at))?;
                    report.closed(element, &mut open)?;
                }
                Event::End(_) => {
                    let Some(element) = open.pop() else {
                        return Err(xml("an end without a beginning".to_owned()));
                    };
                    report.closed(element, &mut open)?;
                }
                Event::DocType(_) => {
                    return Err(xml("a document type, which is not read".to_owned()));
                }
                Event::GeneralRef(entity) => {
                    let is_char = entity.is_char_ref();
                    let name = entity.into_inner();
                    if !is_char && !PREDEFINED.contains(&name.as_ref()) {
                        let name = shown_text(name.as_ref());
                        return Err(xml(format!("the entity {name}, which is not read")));
                    }
                }
                Event::Text(text) if open.is_empty() && !text.trim().is_empty() => {
                    return Err(xml("text outside of an element".to_owned()));
                }
                Event::Eof if !open.is_empty() => {
                    return Err(xml("an end inside an element".to_owned()));
                }
                Event::Eof if !is_over => return Err(xml("no element".to_owned())),
                Event::Eof => return Ok(report),
                Event::Text(_)
                | Event::CData(_)
                | Event::Comment(_)
                | Event::Decl(_)
                | Event::PI(_) => {}
            }
        }
    }

    fn opened(&mut self, element: &BytesStart<'_>, open: &mut [Open]) -> Result<Open, Wrong> {
        let name = element.local_name();
        let attributes = Attributes::of(element)?;
        match (name.as_ref(), open.last_mut()) {
            ("testsuites", None) | ("testsuite", None | Some(Open::Suite { .. })) => {
                let named = attributes
                    .get("name")
                    .filter(|name| !name.trim().is_empty());
                self.name = self.name.take().or(named.cloned());
                self.take_times(&attributes);
                let claimed = attributes.get("tests").map(|count| {
                    let parsed = count.trim().parse();
                    parsed.map_err(|_| Wrong::field("tests", count, "not a whole number"))
                });
                Ok(Open::Suite {
                    claimed: claimed.transpose()?,
                    cases: 0,
                })
            }
            ("testcase", Some(Open::Suite { .. })) => {
                let status = attributes.get("status").map(String::as_str);
                // GoogleTest marks so what it did not run.
                Ok(Open::Case(match status {
                    Some("notrun" | "disabled" | "skipped") => Outcome::Skipped,
                    _ => Outcome::Passed,
                }))
            }
            (child, Some(Open::Case(outcome))) => {
                let said = match child {
                    "skipped" => Outcome::Skipped,
                    "failure" => Outcome::Failed,
                    "error" => Outcome::Error,
                    _ => Outcome::Passed,
                };
                *outcome = said.max(*outcome);
                Ok(Open::Other)
            }
            (name, None) => {
                let rule = "neither `testsuites` nor `testsuite`";
                Err(Wrong::field("outermost element", name, rule))
            }
            ("testsuites" | "testsuite" | "testcase", Some(Open::Other)) => Err(Wrong::Xml(
                "a suite or a test case in another element".into(),
            )),
            (_, Some(_)) => Ok(Open::Other),
        }
    }

    fn closed(&mut self, element: Open, open: &mut [Open]) -> Result<(), Fault> {
        let count = match element {
            Open::Other => 0,
            Open::Case(outcome) => {
                let counts = &mut self.counts;
                *match outcome {
                    Outcome::Passed => &mut counts.passed,
                    Outcome::Skipped => &mut counts.skipped,
                    Outcome::Failed => &mut counts.failed,
                    Outcome::Error => &mut counts.errors,
                } += 1;
                1
            }
            Open::Suite { claimed, cases } => {
                // Fewer cases than are claimed: something has cut the file. There may be more of them, because
                // pytest writes a second one for a failure in the teardown.
                let claimed = claimed.unwrap_or(0);
                if cases < claimed {
                    let rule = "more test cases than the file has";
                    return Err(Fault::field("tests", claimed, rule));
                }
                cases
            }
        };
        if let Some(Open::Suite { cases, .. }) = open.last_mut() {
            *cases += count;
        }
        Ok(())
    }

    /// A time without an offset is of a zone that nobody knows here, and says nothing.
    fn take_times(&mut self, attributes: &Attributes) {
        let Some(started) = attributes.get("timestamp").and_then(|it| it.parse().ok()) else {
            return;
        };
        let seconds = attributes.get("time").and_then(|it| it.parse().ok());
        let seconds = seconds.filter(|it: &f64| (0.0..MAX_RUN_SECONDS).contains(it));
        let took = SignedDuration::from_secs_f64(seconds.unwrap_or(0.0));
        let finished: Timestamp = started;
        let finished = finished.checked_add(took).unwrap_or(Timestamp::MAX);
        self.started = Some(self.started.map_or(started, |it| it.min(started)));
        self.finished = self.finished.max(Some(finished));
    }
}

/// Why an element is refused.
enum Wrong {
    Xml(String),
    Field(Fault),
}

impl Wrong {
    fn field(field: &str, value: &str, rule: &'static str) -> Self {
        Self::Field(Fault::field(field, shown_text(value), rule))
    }

    fn at(self, at: u64) -> Fault {
        match self {
            Self::Xml(what) => Fault::Xml { what, at },
            Self::Field(fault) => fault,
        }
    }
}

/// The attributes of an element that are looked at here.
struct Attributes(BTreeMap<&'static str, String>);

impl Attributes {
    fn of(element: &BytesStart<'_>) -> Result<Self, Wrong> {
        let mut found = BTreeMap::new();
        // An attribute that comes twice is an error of the iterator's.
        for (count, attribute) in element.attributes().enumerate() {
            // Each is held against all before it.
            if count == MAX_ATTRIBUTES {
                return Err(Wrong::Xml("more than 64 attributes of an element".into()));
            }
            let attribute = attribute.map_err(|error| Wrong::Xml(error.to_string()))?;
            let key = attribute.key.as_ref();
            let known = KNOWN.iter().find(|name| **name == key);
            let value = attribute.normalized_value(XmlVersion::Explicit1_0);
            let value = value.map_err(|error| Wrong::Xml(error.to_string()))?;
            if let Some(name) = known {
                found.insert(*name, value.into_owned());
            }
        }
        Ok(Self(found))
    }

    fn get(&self, name: &str) -> Option<&String> {
        self.0.get(name)
    }
}

const KNOWN: [&str; 5] = ["name", "tests", "timestamp", "time", "status"];
const PREDEFINED: [&str; 5] = ["lt", "gt", "amp", "apos", "quot"];
const MAX_DEPTH: usize = 32;
const MAX_ATTRIBUTES: usize = 64;
const MAX_RUN_SECONDS: f64 = 365.0 * 86_400.0;
