//! `meshctl events`: the controller's event log, a page at a time or as it grows.

use crate::answer::Answer;
use crate::client::Client;
use crate::failure::Failure;
use crate::table::clean;
use clap::Args as ClapArgs;
use serde_json::Value;
use std::time::Duration;
use wire::admin::{EventInfo, EventList};

/// Which events.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Begin behind this sequence number; by default, show the newest events.
    #[arg(long, value_name = "SEQ")]
    after: Option<u64>,
    /// Most events to show at first.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1000))]
    limit: u64,
    /// Go on showing new events; with --json, one object a line.
    #[arg(long)]
    follow: bool,
}

/// Runs the command.
pub(crate) async fn run(args: &Args, client: &Client, answer: &Answer) -> Result<(), Failure> {
    let mut after = match args.after {
        Some(after) => after,
        None => newest(client).await?.saturating_sub(args.limit),
    };
    let reply = client.get(&page(after, args.limit)).await?;
    if !args.follow {
        return answer.show(&reply, |list: EventList| match list.events.as_slice() {
            [] => "No events.".into(),
            events => lines(events),
        });
    }
    let mut list: EventList = reply.form()?;
    loop {
        if let Some(last) = list.events.last() {
            after = last.seq;
            if answer.is_json() {
                answer.json(&json_lines(&list.events))?;
            } else {
                answer.text(&lines(&list.events))?;
            }
        }
        if after >= list.head {
            tokio::time::sleep(POLL).await;
        }
        list = client.get(&page(after, args.limit)).await?.form()?;
    }
}

async fn newest(client: &Client) -> Result<u64, Failure> {
    let list: EventList = client.get(&page(0, 1)).await?.form()?;
    Ok(list.head)
}

fn page(after: u64, limit: u64) -> String {
    format!("/v1/events?after={after}&limit={limit}")
}

fn lines(events: &[EventInfo]) -> String {
    let lines: Vec<String> = events.iter().map(line).collect();
    lines.join("\n")
}

fn line(event: &EventInfo) -> String {
    let mut line = format!("{:>6}  {}  {}", event.seq, event.at_utc, event.kind);
    match &event.body {
        Value::Object(fields) => {
            for (key, value) in fields {
                line.push_str(&format!("  {key}={}", short(value)));
            }
        }
        Value::Null => {}
        other => line.push_str(&format!("  {}", short(other))),
    }
    clean(&line).into_owned()
}

/// A value as JSON, with quotes only where they are needed, and cut where it is long: an envelope
/// would hide everything else.
fn short(value: &Value) -> String {
    let mut text = match value {
        Value::String(text) if !text.contains([' ', '"']) => text.clone(),
        other => other.to_string(),
    };
    if let Some((cut, _)) = text.char_indices().nth(MAX_VALUE_LEN) {
        text.truncate(cut);
        text.push('…');
    }
    text
}

fn json_lines(events: &[EventInfo]) -> String {
    let lines: Vec<String> = events
        .iter()
        .map(|event| serde_json::to_string(event).expect("the admin forms have text keys only"))
        .collect();
    lines.join("\n")
}

/// Longest value of a line, in characters; --json shows all of it.
const MAX_VALUE_LEN: usize = 160;
/// Pause between looks at a log that has not grown.
const POLL: Duration = Duration::from_secs(1);
