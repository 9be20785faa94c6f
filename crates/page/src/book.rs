//! The end of the event log, read once for all readers: scores with the decisions on them, by node, and the newest
//! events. It is read only while somebody looks, a page at a time, because the thread that reads it has epochs to
//! publish.

use crate::slim::slim;
use crate::source::{Refusal, Source};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;
use wire::NodeName;
use wire::admin::EventInfo;

/// The book of one log.
#[derive(Debug)]
pub(crate) struct Book<S> {
    source: S,
    pages: Mutex<Pages>,
}

/// The part that was read.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    /// The last event that was read; `None` before the first look.
    read: Option<u64>,
    not_before: Option<Instant>,
    events: VecDeque<EventInfo>,
    /// By the segment's number.
    tracks: BTreeMap<u32, BTreeMap<NodeName, Track>>,
    /// Changes of the threshold in each segment, oldest first.
    thresholds: BTreeMap<u32, VecDeque<(i64, f64)>>,
    runs: BTreeMap<NodeName, VecDeque<Run>>,
}

/// The decisions on one node, oldest first.
type Track = VecDeque<Verdict>;

/// A decision on a node. The log has one only where it differs from the one before.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Verdict {
    /// When, in milliseconds since 1970.
    at: i64,
    epoch: u64,
    score: Option<f64>,
    /// Whether it is a member.
    member: bool,
    /// Whether it stays only because the sanity floor waits for an operator.
    held: bool,
    reason: Option<String>,
}

/// A benchmark run whose evidence was accepted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Run {
    /// When the evidence came, in milliseconds since 1970.
    at: i64,
    overall: Option<f64>,
    suite: String,
}

/// A node's scores over time.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct History<'p> {
    decisions: Vec<&'p Verdict>,
    runs: Vec<&'p Run>,
}

impl<S: Source> Book<S> {
    pub(crate) fn new(source: S) -> Self {
        Self {
            source,
            pages: Mutex::default(),
        }
    }

    /// The book as it is now, or was a moment ago.
    ///
    /// # Errors
    /// The source's.
    pub(crate) async fn open(&self) -> Result<MutexGuard<'_, Pages>, Refusal> {
        let mut pages = self.pages.lock().await;
        let now = Instant::now();
        if pages.not_before.is_some_and(|at| now < at) {
            return Ok(pages);
        }
        let mut after = match pages.read {
            Some(read) => read,
            None => {
                let head = self.source.events(0, 1).await?.head;
                head.saturating_sub(BACKLOG)
            }
        };
        for _ in 0..MAX_LOOKS {
            let list = self.source.events(after, A_LOOK).await?;
            if list.head < after {
                // The log is another one, or an old copy.
                *pages = Pages::default();
                after = list.head.saturating_sub(BACKLOG);
                continue;
            }
            if list.head.saturating_sub(after) > BACKLOG {
                // Nobody has looked for long: what is between is of no interest.
                *pages = Pages::default();
                after = list.head - BACKLOG;
                continue;
            }
            after = list.next.max(after);
            pages.read = Some(after);
            list.events.into_iter().for_each(|event| pages.take(event));
            if after >= list.head {
                break;
            }
        }
        pages.not_before = Some(now + PAUSE);
        Ok(pages)
    }
}

impl Pages {
    fn take(&mut self, event: EventInfo) {
        let at = event.at_utc.parse::<Timestamp>();
        let at = at.map_or(0, Timestamp::as_millisecond);
        let body = &event.body;
        let segment = body["segment"]
            .as_u64()
            .and_then(|it| u32::try_from(it).ok());
        match (event.kind.as_str(), segment) {
            ("decided", Some(segment)) => self.decided(segment, at, body),
            ("policy_changed", Some(segment)) => {
                if let Some(threshold) = body["policy"]["threshold"].as_f64() {
                    let steps = self.thresholds.entry(segment).or_default();
                    push(steps, (at, threshold), MAX_POINTS);
                }
            }
            ("evidence_accepted", _) => self.ran(at, body),
            ("node_removed", _) => {
                if let Some(name) = body["name"].as_str() {
                    self.tracks.values_mut().for_each(|it| {
                        it.retain(|node, _| node.as_str() != name);
                    });
                    self.runs.retain(|node, _| node.as_str() != name);
                }
            }
            _ => {}
        }
        push(&mut self.events, slim(event), MAX_EVENTS);
    }

    fn decided(&mut self, segment: u32, at: i64, body: &Value) {
        let epoch = body["epoch"].as_u64().unwrap_or_default();
        let tracks = self.tracks.entry(segment).or_default();
        for verdict in body["nodes"].as_array().into_iter().flatten() {
            let Some(name) = name(verdict) else { continue };
            let most = points(tracks.len());
            let track = tracks.entry(name).or_default();
            let verdict = Verdict {
                at,
                epoch,
                score: verdict["score"].as_f64(),
                member: verdict["membership"]
                    .as_str()
                    .is_some_and(|it| it.eq_ignore_ascii_case("allowed")),
                held: verdict["held"].as_bool().unwrap_or_default(),
                reason: verdict["reason"].as_str().map(str::to_owned),
            };
            push(track, verdict, most);
        }
    }

    fn ran(&mut self, at: i64, body: &Value) {
        let Some(name) = name(body) else { return };
        let most = points(self.runs.len());
        let run = Run {
            at,
            overall: body["overall"].as_f64(),
            suite: body["suite"].as_str().unwrap_or_default().to_owned(),
        };
        push(self.runs.entry(name).or_default(), run, most);
    }

    /// One node's scores in the segment of this number; at most so many points of either kind, the newest.
    pub(crate) fn history(&self, segment: u32, name: &NodeName, most: usize) -> History<'_> {
        let track = self.tracks.get(&segment).and_then(|it| it.get(name));
        let runs = self.runs.get(name);
        History {
            decisions: newest(track, most),
            runs: newest(runs, most),
        }
    }

    /// Changes of a segment's threshold: when, in milliseconds since 1970, and to what. Without one in the part of
    /// the log that was read, the one in force has been in force for all of it.
    pub(crate) fn thresholds(&self, segment: u32, in_force: f64) -> Vec<(i64, f64)> {
        match self.thresholds.get(&segment) {
            Some(steps) => steps.iter().copied().collect(),
            None => vec![(0, in_force)],
        }
    }

    /// The newest events that concern a node, or all; oldest first.
    pub(crate) fn events(&self, node: Option<&NodeName>, most: usize) -> Vec<&EventInfo> {
        let wanted = self.events.iter().rev();
        let wanted = wanted.filter(|event| node.is_none_or(|node| concerns(&event.body, node)));
        let mut wanted: Vec<&EventInfo> = wanted.take(most).collect();
        wanted.reverse();
        wanted
    }
}

fn name(body: &Value) -> Option<NodeName> {
    NodeName::try_from(body["name"].as_str()?.to_owned()).ok()
}

/// Whether a node's name stands anywhere in an event.
fn concerns(value: &Value, node: &NodeName) -> bool {
    match value {
        Value::String(text) => text == node.as_str(),
        Value::Array(all) => all.iter().any(|it| concerns(it, node)),
        Value::Object(all) => all
            .iter()
            .any(|(key, it)| key == node.as_str() || concerns(it, node)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn push<T>(into: &mut VecDeque<T>, value: T, most: usize) {
    into.push_back(value);
    while into.len() > most {
        into.pop_front();
    }
}

fn newest<T>(of: Option<&VecDeque<T>>, most: usize) -> Vec<&T> {
    let Some(all) = of else { return Vec::new() };
    all.iter().skip(all.len().saturating_sub(most)).collect()
}

/// Points that each of so many nodes may have.
fn points(nodes: usize) -> usize {
    (ALL_POINTS / nodes.max(1)).clamp(MIN_POINTS, MAX_POINTS)
}

/// Events before the log's end that are read at the first look.
const BACKLOG: u64 = 20_000;
/// Events that are asked for at a time.
const A_LOOK: u64 = 1_000;
/// Questions for one reader: the backlog, and some events that came meanwhile.
const MAX_LOOKS: u64 = BACKLOG / A_LOOK + 2;
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// Events that are kept.
const MAX_EVENTS: usize = 1_000;
/// Points of one node, …
const MAX_POINTS: usize = 240;
/// … however many nodes there are, …
const MIN_POINTS: usize = 16;
/// … and of all: 20 MB at most.
const ALL_POINTS: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use wire::SegmentName;
    use wire::admin::{EventList, Explanation};

    /// A log of so many events, in which event 7k is a decision on node-a, and every other is evidence of it.
    #[derive(Clone)]
    struct Log {
        head: Arc<AtomicU64>,
        asked: Arc<AtomicU64>,
    }

    impl Log {
        fn of(head: u64) -> Self {
            Self {
                head: Arc::new(head.into()),
                asked: Arc::default(),
            }
        }
    }

    fn event(seq: u64) -> EventInfo {
        let at = Timestamp::from_second(seq.try_into().unwrap()).unwrap();
        let (kind, body) = if seq.is_multiple_of(7) {
            let verdict =
                json!({"name": "node-a", "membership": "denied", "score": 0.5, "reason": "low"});
            (
                "decided",
                json!({"segment": 0, "epoch": seq, "nodes": [verdict]}),
            )
        } else {
            let body = json!({"name": "node-a", "overall": 0.9, "suite": "s", "envelope": "x"});
            ("evidence_accepted", body)
        };
        EventInfo {
            seq,
            at_utc: at.to_string(),
            by: None,
            kind: kind.to_owned(),
            body,
            leaf: String::new(),
        }
    }

    impl Source for Log {
        async fn explain(
            &self,
            _: NodeName,
            _: Option<SegmentName>,
        ) -> Result<Explanation, Refusal> {
            Err(Refusal::new(404, "none", "none"))
        }

        async fn events(&self, after: u64, limit: u64) -> Result<EventList, Refusal> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let head = self.head.load(Ordering::Relaxed);
            let last = head.min(after + limit);
            Ok(EventList {
                events: (after + 1..=last).map(event).collect(),
                head,
                next: last.max(after.min(head)),
            })
        }
    }

    fn node() -> NodeName {
        NodeName::try_from("node-a".to_owned()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_log_is_read_once_for_all_and_bounded() {
        let log = Log::of(50_000);
        let book = Book::new(log.clone());
        {
            let pages = book.open().await.unwrap();
            let events = pages.events(None, usize::MAX);
            assert_eq!(events.len(), MAX_EVENTS);
            assert_eq!(events.last().unwrap().seq, 50_000);
            assert!(events.iter().all(|it| it.body["envelope"].is_null()));
            let history = pages.history(0, &node(), usize::MAX);
            assert_eq!(history.decisions.len(), MAX_POINTS);
            assert_eq!(history.runs.len(), MAX_POINTS);
            let newest = history.decisions.last().unwrap();
            assert_eq!((newest.epoch, newest.score), (49_994, Some(0.5)));
            assert!(!newest.member);
            assert_eq!(pages.history(0, &node(), 3).decisions.len(), 3);
            assert_eq!(pages.thresholds(0, 0.7), [(0, 0.7)]);
        }
        let asked = log.asked.load(Ordering::Relaxed);
        drop(book.open().await.unwrap());
        assert_eq!(log.asked.load(Ordering::Relaxed), asked);
        log.head.store(50_001, Ordering::Relaxed);
        tokio::time::advance(PAUSE).await;
        let pages = book.open().await.unwrap();
        assert_eq!(pages.events(Some(&node()), 1)[0].seq, 50_001);
        assert_eq!(log.asked.load(Ordering::Relaxed), asked + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_became_shorter_is_read_anew() {
        let log = Log::of(30);
        let book = Book::new(log.clone());
        assert_eq!(book.open().await.unwrap().events(None, 100).len(), 30);
        log.head.store(10, Ordering::Relaxed);
        tokio::time::advance(PAUSE).await;
        let pages = book.open().await.unwrap();
        let events = pages.events(None, 100);
        assert_eq!(events.iter().map(|it| it.seq).max(), Some(10));
        assert_eq!(events.len(), 10);
    }
}
