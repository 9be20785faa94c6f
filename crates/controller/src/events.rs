//! A page of the event log for operators: which of its entries they asked for. Reads a bounded part of the log
//! per question, because the thread that answers has epochs to publish.

use crate::log::{Log, LogError};
use crate::request::Page;
use jiff::Timestamp;
use serde_json::Value;
use wire::admin::{EventInfo, EventList};

/// The events that a page asks for. It may hold fewer than there are, or none at all, with more to come:
/// [`EventList::next`] says how far the log was read.
pub(crate) fn page(log: &Log, page: &Page) -> Result<EventList, LogError> {
    let limit = usize::try_from(page.limit.min(LOOKED_AT)).unwrap_or(usize::MAX);
    let looked_at = if page.is_whole() {
        page.limit.min(LOOKED_AT)
    } else {
        LOOKED_AT
    };
    let mut list = log.page(page.after, looked_at)?;
    let read = list.events.last().map(|event| event.seq);
    list.events.retain(|event| page.wants(event));
    let is_cut = list.events.len() > limit;
    list.events.truncate(limit);
    let shown = list.events.last().map(|event| event.seq);
    let end = page.after.max(list.head);
    // With nothing left to read there is nothing left to ask for, even where old entries have gone.
    list.next = if is_cut { shown } else { read }.unwrap_or(end);
    Ok(list)
}

impl Page {
    /// Whether it leaves nothing out.
    fn is_whole(&self) -> bool {
        let Self {
            node,
            kind,
            since,
            until,
            ..
        } = self;
        node.is_none() && kind.is_none() && since.is_none() && until.is_none()
    }

    fn wants(&self, event: &EventInfo) -> bool {
        let at = event.at_utc.parse::<Timestamp>();
        let is_after = |since: Timestamp| at.as_ref().is_ok_and(|at| *at >= since);
        let is_before = |until: Timestamp| at.as_ref().is_ok_and(|at| *at <= until);
        self.kind.as_ref().is_none_or(|kind| event.kind == *kind)
            && self.since.is_none_or(is_after)
            && self.until.is_none_or(is_before)
            && self
                .node
                .as_ref()
                .is_none_or(|node| concerns(&event.body, node.as_str()))
    }
}

/// Whether an event names a node, in one of the fields that hold names.
fn concerns(body: &Value, node: &str) -> bool {
    let is_it = |value: &Value| match value {
        Value::String(name) => name == node,
        Value::Object(verdict) => verdict.get("name").is_some_and(|name| name == node),
        _ => false,
    };
    let named = |field: &str| match &body[field] {
        Value::Array(names) => names.iter().any(is_it),
        Value::Object(reasons) => reasons.contains_key(node),
        name => is_it(name),
    };
    NAMING.into_iter().any(named)
}

/// The fields of all events that hold names of nodes.
const NAMING: [&str; 5] = ["name", "node", "nodes", "joined", "removed"];
/// Entries that are read for one question.
const LOOKED_AT: u64 = 1_000;
