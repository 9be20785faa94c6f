//! Events without what a page does not show: signed envelopes, whole policies, and lists of hundreds of names. A
//! thousand of them stay in memory.

use serde_json::Value;
use wire::admin::EventInfo;

/// The event, made small.
pub(crate) fn slim(mut event: EventInfo) -> EventInfo {
    if let Value::Object(fields) = &mut event.body {
        for name in LEFT_OUT {
            fields.remove(name);
        }
        for value in fields.values_mut() {
            shorten(value);
        }
    }
    event
}

/// Cuts lists and texts.
fn shorten(value: &mut Value) {
    match value {
        Value::Array(all) => {
            // Of verdicts those against a node are the ones that are read.
            if all.len() > MAX_LISTED {
                all.sort_by_key(|it| it["membership"] == "allowed");
                all.truncate(MAX_LISTED);
            }
        }
        Value::Object(all) => {
            let names: Vec<String> = all.keys().skip(MAX_LISTED).cloned().collect();
            for name in names {
                all.remove(&name);
            }
        }
        Value::String(text) => {
            if let Some((at, _)) = text.char_indices().nth(MAX_TEXT) {
                text.truncate(at);
                text.push('…');
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

const LEFT_OUT: [&str; 6] = [
    "envelope",
    "policy",
    "signed",
    "metrics",
    "commitment",
    "nonce",
];
/// Entries of a list.
const MAX_LISTED: usize = 20;
/// Characters of a text.
const MAX_TEXT: usize = 300;
