//! `meshctl events`: the controller's event log, one short line per event, a page at a time or as it grows.

use crate::answer::Answer;
use crate::client::Client;
use crate::failure::Failure;
use clap::Args as ClapArgs;
use jiff::Timestamp;
use names::Names;
use std::time::Duration;
use wire::admin::{EventInfo, EventList};
use wire::name::NodeName;

mod names;
mod words;

/// Which events.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Begin behind this sequence number; by default, show the newest events.
    #[arg(long, value_name = "SEQ")]
    after: Option<u64>,
    /// Most events to show at first.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1000))]
    limit: u64,
    /// Only events that concern this node.
    #[arg(long, value_name = "NAME")]
    node: Option<NodeName>,
    /// Only events of this kind, as in `node_evicted`.
    #[arg(long, value_name = "KIND", value_parser = kind)]
    kind: Option<String>,
    /// None from before this time: RFC 3339, or how long ago, as in `2h` or `30m`.
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// None from after this time.
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
    /// Go on showing new events, also across restarts of the controller; with --json, one object a line.
    #[arg(long, conflicts_with = "until")]
    follow: bool,
}

/// Runs the command.
pub(crate) async fn run(args: &Args, client: &Client, answer: &Answer) -> Result<(), Failure> {
    let log = Log {
        client,
        filter: filter(args),
    };
    let (list, after) = match args.after {
        Some(after) => log.first(after, args.limit).await?,
        None => log.newest(args.limit).await?,
    };
    let needs_names = args.follow || list.events.iter().any(names::has_segment);
    let mut names = if needs_names && !answer.is_json() {
        log.names().await
    } else {
        Names::default()
    };
    if !args.follow {
        return if answer.is_json() {
            answer.json(&json(&list))
        } else {
            answer.text(&match list.events.as_slice() {
                [] => "No events.".into(),
                events => lines(events, &names),
            })
        };
    }
    let mut show = |events: &[EventInfo]| match (events, answer.is_json()) {
        ([], _) => Ok(()),
        (events, true) => answer.json(&json_lines(events)),
        (events, false) => {
            names.learn(events);
            answer.text(&lines(events, &names))
        }
    };
    show(&list.events)?;
    log.follow(after, POLL, show, |remark| answer.remark(remark))
        .await
}

/// The log, as far as a filter shows it.
struct Log<'c> {
    client: &'c Client,
    /// Behind `limit` in a query.
    filter: String,
}

impl Log<'_> {
    /// The names of the segments. Without an answer there are none: events are worth showing with numbers too.
    async fn names(&self) -> Names {
        let status = self.client.controller_status().await;
        status.map_or_else(|_| Names::default(), |(_, status)| Names::of(&status))
    }

    /// One page, as the controller gives it: it may be short of events although more follow.
    async fn page(&self, after: u64, limit: u64) -> Result<EventList, Failure> {
        let filter = &self.filter;
        let path = format!("/v1/events?after={after}&limit={limit}{filter}");
        self.client.get(&path).await?.form()
    }

    /// The first events behind `after`, at most `limit`, and how far the log was read for them.
    async fn first(&self, after: u64, limit: u64) -> Result<(EventList, u64), Failure> {
        let mut list = self.page(after, limit).await?;
        let mut read = after;
        while list.next > read && list.next < list.head && (list.events.len() as u64) < limit {
            read = list.next;
            let rest = limit - list.events.len() as u64;
            let more = self.page(read, rest).await?;
            list.events.extend(more.events);
            (list.head, list.next) = (more.head, more.next);
        }
        let read = list.next;
        Ok((list, read))
    }

    /// The newest events, at most `limit`, and how far the log was read: to its end.
    async fn newest(&self, limit: u64) -> Result<(EventList, u64), Failure> {
        let head = self.page(0, 1).await?.head;
        let (mut list, mut end) = (
            EventList {
                events: Vec::new(),
                head,
                next: head,
            },
            head,
        );
        // Without a filter one step is all there is, because every event counts.
        let is_whole = self.filter.is_empty();
        let step = if is_whole { limit } else { STEP };
        while end > 0 && (list.events.len() as u64) < limit {
            let after = end.saturating_sub(step);
            let mut window = self.first(after, step).await?.0.events;
            window.retain(|event| event.seq <= end);
            window.append(&mut list.events);
            list.events = window;
            end = if is_whole { 0 } else { after };
        }
        let surplus = list
            .events
            .len()
            .saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
        list.events.drain(..surplus);
        Ok((list, head))
    }

    /// Shows what comes behind `after`, for ever. A controller that is away is waited for, and its return is
    /// said once.
    async fn follow(
        &self,
        mut after: u64,
        pause: Duration,
        mut show: impl FnMut(&[EventInfo]) -> Result<(), Failure>,
        mut remark: impl FnMut(&str),
    ) -> Result<(), Failure> {
        let mut away = false;
        loop {
            let list = match self.page(after, FOLLOWED).await {
                Ok(list) => list,
                Err(failure) if failure.may_pass() => {
                    if !std::mem::replace(&mut away, true) {
                        remark("the controller is away: waiting for it");
                    }
                    tokio::time::sleep(pause).await;
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            if std::mem::take(&mut away) {
                remark(&format!(
                    "the controller is back: going on behind event {after}"
                ));
            }
            if list.head < after {
                let head = list.head;
                remark(&format!(
                    "the log ends with event {head}, before event {after}, which was shown: it is another \
                     log, or an old copy; going on behind event {head}"
                ));
                after = head;
                continue;
            }
            show(&list.events)?;
            after = list.next.max(after);
            if after >= list.head {
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// The filter as the rest of a query.
fn filter(args: &Args) -> String {
    let node = args.node.as_ref().map(|node| format!("&node={node}"));
    let kind = args.kind.as_ref().map(|kind| format!("&kind={kind}"));
    let since = args.since.map(|since| format!("&since={since}"));
    let until = args.until.map(|until| format!("&until={until}"));
    [node, kind, since, until].into_iter().flatten().collect()
}

fn lines(events: &[EventInfo], names: &Names) -> String {
    let lines = events.iter().map(|event| words::line(event, names));
    let lines: Vec<String> = lines.collect();
    lines.join("\n")
}

fn json(list: &EventList) -> String {
    let value = serde_json::to_value(list).expect("the admin forms have text keys only");
    format!("{value:#}")
}

fn json_lines(events: &[EventInfo]) -> String {
    let lines: Vec<String> = events
        .iter()
        .map(|event| serde_json::to_string(event).expect("the admin forms have text keys only"))
        .collect();
    lines.join("\n")
}

/// Accepts what needs no escaping in a query.
fn kind(text: &str) -> Result<String, &'static str> {
    let plain = |b: u8| b.is_ascii_lowercase() || b == b'_';
    if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("not a kind of event: small letters and `_`, as in `evidence_accepted`")
    }
}

/// A time, or how long ago it was by this machine's clock.
pub(crate) fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let ago: Result<jiff::SignedDuration, _> = text.parse();
    let at = ago
        .ok()
        .and_then(|ago| Timestamp::now().checked_sub(ago.abs()).ok());
    at.ok_or_else(|| {
        "not a time: RFC 3339 as in `2026-11-26T03:00:00Z`, or how long ago as in `90m`".to_owned()
    })
}

/// Pause between looks at a log that has not grown.
const POLL: Duration = Duration::from_secs(1);
/// Events that are looked through at a time, from the newest backwards.
const STEP: u64 = 1_000;
/// Events at a time while the log is followed.
const FOLLOWED: u64 = 1_000;

#[cfg(test)]
mod tests;
