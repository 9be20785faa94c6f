//! Names of segments: an event has a segment's number, which keys and signatures have and which no other name gets.

use serde_json::Value;
use std::collections::BTreeMap;
use wire::SegmentName;
use wire::admin::{ControllerStatus, EventInfo};

/// The names that are known, by number.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<u64, String>);

impl Names {
    /// The names of a controller's segments.
    pub(super) fn of(status: &ControllerStatus) -> Self {
        let segments = status.segments.iter();
        Self(
            segments
                .map(|(name, it)| (it.id.into(), name.to_string()))
                .collect(),
        )
    }

    /// Takes names over from events that give a segment its number.
    pub(super) fn learn(&mut self, events: &[EventInfo]) {
        for event in events.iter().filter(|event| event.kind == "segment_named") {
            let (number, name) = (event.body["segment"].as_u64(), event.body["name"].as_str());
            let known = number.zip(name);
            self.0
                .extend(known.map(|(number, name)| (number, name.to_owned())));
        }
    }

    /// A segment in words: its name, or its number where the name is not known, as that of a segment that the controller
    /// has no more.
    pub(super) fn name(&self, number: u64) -> String {
        let unknown = || format!("segment {number}");
        self.0.get(&number).cloned().unwrap_or_else(unknown)
    }

    /// The segment of an event, where there are several to tell apart.
    pub(super) fn apart(&self, number: u64) -> Option<String> {
        let default = SegmentName::default();
        let has_named = self.0.values().any(|name| name != default.as_str());
        (has_named || number != 0).then(|| self.name(number))
    }
}

/// Whether an event has a segment's number, so that names are of use.
pub(super) fn has_segment(event: &EventInfo) -> bool {
    let body = &event.body;
    let numbers = [
        &body["segment"],
        &body["key"]["segment"],
        &body["keys"],
        &body["segments"],
    ];
    numbers.into_iter().any(|it| *it != Value::Null)
}
