//! An event in a line: number, time, author, and in words the kind with what is essential. Kinds that this
//! version does not know are shown field by field.

use super::names::Names;
use crate::table::{DASH, clean};
use crate::units;
use serde_json::{Map, Value};
use wire::admin::EventInfo;

/// The line.
pub(super) fn line(event: &EventInfo, names: &Names) -> String {
    let by = event.by.as_deref().unwrap_or(DASH);
    let words = words(&event.kind, &event.body, names);
    let words = words.unwrap_or_else(|| format!("{}{}", event.kind, fields(&event.body)));
    let line = format!("{:>6}  {}  {by:<8}  {words}", event.seq, event.at_utc);
    clean(&line).into_owned()
}

fn words(kind: &str, body: &Value, names: &Names) -> Option<String> {
    let text = |field: &str| body[field].as_str();
    let number = |field: &str| body[field].as_u64();
    let segment = || Some(names.name(body["segment"].as_u64()?));
    let because = text("reason").map_or_else(String::new, |reason| format!(": {reason}"));
    Some(match kind {
        "mesh_created" => format!("mesh created: {}", text("mesh")?),
        "authority_replaced" => format!(
            "authority REPLACED without its word: {} signs from now on, instead of {}",
            text("new")?,
            text("old")?
        ),
        "authority_rotated" => format!(
            "authority rotated: {} signs from now on, by the word of {}",
            text("new")?,
            text("old")?
        ),
        "log_restored" => format!(
            "log RESTORED from a copy of {} events; nodes had seen epoch {}",
            body["copy"]["events"], body["seen"]
        ),
        "log_key_rotated" => format!(
            "log key rotated: {} signs from now on, by the word of {}",
            text("new")?,
            text("old")?
        ),
        "evaluator_rotated" => format!(
            "evaluator key rotated: {}, by the word of {}",
            text("new")?,
            text("old")?
        ),
        "token_created" => {
            let name = text("name").map_or_else(String::new, |name| format!(" for {name}"));
            let uses = match number("uses") {
                None | Some(1) => String::new(),
                Some(uses) => format!(", for {uses} nodes"),
            };
            let segments = body["segments"].as_array().map_or(&[][..], Vec::as_slice);
            let segments = segments.iter().filter_map(|it| names.apart(it.as_u64()?));
            let segments = list("into", segments.collect());
            format!("token {} created{name}{uses}{segments}", text("id")?)
        }
        "token_revoked" => format!("token {} revoked", text("id")?),
        "node_waiting" => format!(
            "{} waits for approval, with token {}: {}",
            text("name")?,
            text("token")?,
            text("node")?
        ),
        "node_rejected" => format!("{} rejected{because}", text("name")?),
        "node_enrolled" => {
            let keys = body["keys"].as_array().map_or(&[][..], Vec::as_slice);
            let segments = keys.iter();
            let segments = segments.filter_map(|it| names.apart(it["segment"].as_u64()?));
            format!(
                "{} enrolled with token {}: {}{}",
                text("name")?,
                text("token")?,
                text("node")?,
                list("in", segments.collect())
            )
        }
        "node_rekeyed" => format!(
            "{} has new keys, with token {}: {}",
            text("name")?,
            text("token")?,
            text("node")?
        ),
        "node_keys_rotated" => format!(
            "{} has new keys, by the word of its old one: {}",
            text("name")?,
            text("node")?
        ),
        "segment_named" => format!(
            "segment {} has the number {}",
            text("name")?,
            number("segment")?
        ),
        "node_invited" => format!("{} may come into {}", text("name")?, segment()?),
        "node_joined_segment" => {
            let segment = names.name(body["key"]["segment"].as_u64()?);
            let word = if body["probation"].is_null() {
                "has another key in"
            } else {
                "came into"
            };
            format!("{} {word} {segment}", text("name")?)
        }
        "node_left_segment" => {
            format!("{} taken out of {}{because}", text("name")?, segment()?)
        }
        "routes_advertised" => {
            let prefixes = body["prefixes"].as_array()?.iter();
            let prefixes: Vec<_> = prefixes.filter_map(Value::as_str).collect();
            let offered = match prefixes.as_slice() {
                [] => "no route".to_owned(),
                some => some.join(", "),
            };
            format!("{} offers {offered}", text("name")?)
        }
        "route_approved" => format!("{} behind {} approved", text("prefix")?, text("name")?),
        "route_withdrawn" => format!("{} behind {} withdrawn", text("prefix")?, text("name")?),
        "node_evicted" => format!("{} evicted{because}", text("name")?),
        "node_readmitted" => format!("{} readmitted", text("name")?),
        "node_removed" => format!(
            "{} removed for good, key {} banned{because}",
            text("name")?,
            text("node")?
        ),
        "key_unbanned" => format!("key {} is banned no more", text("node")?),
        "controller_started" => "controller started".to_owned(),
        "policy_changed" => {
            let of = apart(body, names, "in");
            format!("policy {} is in force{of}", text("digest")?)
        }
        "override_set" => {
            let ruling = match &body["ruling"] {
                Value::String(word) => word.clone(),
                ruling => format!("threshold {}", ruling["threshold"].as_f64()?),
            };
            let (name, seconds) = (text("name")?, number("seconds")?);
            format!("{name} overridden for {seconds} s, {ruling}{because}")
        }
        "override_cleared" => format!("{} is overridden no more", text("name")?),
        "group_changed" => {
            let word = if body["member"].as_bool()? {
                "into"
            } else {
                "out of"
            };
            format!("{} {word} group {}", text("name")?, text("group")?)
        }
        "evidence_accepted" => evidence(body)?,
        "decided" => decided(body, names)?,
        "epoch_published" => published(body, names)?,
        "duplicate_seen" => format!(
            "two machines run with the keys of {}: {} stays, {} is refused",
            text("name")?,
            body["first"]["address"].as_str()?,
            body["other"]["address"].as_str()?
        ),
        _ => return None,
    })
}

fn evidence(body: &Value) -> Option<String> {
    let score = match body["overall"].as_f64() {
        Some(score) => format!("{} in ", units::score(score)),
        None => String::new(),
    };
    Some(format!(
        "{}: evidence {score}{} {} by {}, signed by {}",
        body["name"].as_str()?,
        body["suite"].as_str()?,
        body["suite_version"].as_str()?,
        body["harness"].as_str()?,
        short(body["signer"].as_str()?)
    ))
}

fn decided(body: &Value, names: &Names) -> Option<String> {
    let nodes = body["nodes"].as_array()?;
    let denied = nodes.iter().filter(|node| {
        let membership = node["membership"].as_str().unwrap_or_default();
        !membership.eq_ignore_ascii_case("allowed")
    });
    let denied = denied.filter_map(|node| {
        let reason = node["reason"].as_str();
        Some(named(node["name"].as_str()?, reason))
    });
    let judged = match nodes.len() {
        1 => "1 node judged".to_owned(),
        n => format!("{n} nodes judged"),
    };
    let out = list("out", denied.collect());
    let of = apart(body, names, "of");
    Some(format!("epoch {}{of}: {judged}{out}", body["epoch"]))
}

fn published(body: &Value, names: &Names) -> Option<String> {
    let joined = body["joined"].as_array()?.iter();
    let joined = joined.filter_map(|name| Some(name.as_str()?.to_owned()));
    let removed = body["removed"].as_object()?.iter();
    let removed = removed.map(|(name, reason)| named(name, reason.as_str()));
    Some(format!(
        "epoch {}{} published ({}), members {}{}{}",
        body["epoch"],
        apart(body, names, "of"),
        body["cause"].as_str()?,
        body["members"],
        list("in", joined.collect()),
        list("out", removed.collect())
    ))
}

/// ` of training`, where there are several segments; else nothing.
fn apart(body: &Value, names: &Names, word: &str) -> String {
    let name = body["segment"].as_u64().and_then(|it| names.apart(it));
    name.map_or_else(String::new, |name| format!(" {word} {name}"))
}

fn named(name: &str, reason: Option<&str>) -> String {
    match reason.filter(|reason| !reason.is_empty()) {
        Some(reason) => format!("{name} ({reason})"),
        None => name.to_owned(),
    }
}

/// `; out: a (no benchmark), b`, or nothing.
fn list(label: &str, items: Vec<String>) -> String {
    let shown = wire::visible::few(items, MAX_LISTED);
    shown.map_or_else(String::new, |shown| format!("; {label}: {shown}"))
}

/// A key by its first digits.
fn short(key: &str) -> String {
    match key.char_indices().nth(MAX_KEY_LEN) {
        Some((cut, _)) => format!("{}…", &key[..cut]),
        None => key.to_owned(),
    }
}

/// An unknown kind: its fields.
fn fields(body: &Value) -> String {
    let empty = Map::new();
    let fields = body.as_object().unwrap_or(&empty).iter();
    fields
        .map(|(key, value)| format!("  {key}={}", value_in_short(value)))
        .collect()
}

/// A value as JSON, with quotes only where they are needed, and cut where it is long: an envelope
/// would hide everything else.
fn value_in_short(value: &Value) -> String {
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

/// Longest value of a line, in characters; --json shows all of it.
const MAX_VALUE_LEN: usize = 60;
/// Characters of a key: the role, and enough digits to tell keys apart.
const MAX_KEY_LEN: usize = 24;
/// Names in a list; --json shows all of them.
const MAX_LISTED: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(kind: &str, by: Option<&str>, body: Value) -> EventInfo {
        EventInfo {
            seq: 7,
            at_utc: "2031-01-01T00:00:00Z".into(),
            by: by.map(str::to_owned),
            kind: kind.into(),
            body,
            leaf: String::new(),
        }
    }

    fn shown(kind: &str, by: Option<&str>, body: Value) -> String {
        line(&event(kind, by, body), &Names::default())
    }

    #[test]
    fn a_segment_is_shown_by_its_name_where_there_are_several() {
        let published = json!({
            "segment": 0, "epoch": 9, "cause": "join", "members": 2, "joined": [], "removed": {},
        });
        // Nothing is known of segments, or there is none but the default: as ever.
        let mut names = Names::default();
        let words = |kind: &str, body: &Value, names: &Names| {
            let line = line(&event(kind, None, body.clone()), names);
            line.split_once("-         ").unwrap().1.to_owned()
        };
        let plain = "epoch 9 published (join), members 2";
        assert_eq!(words("epoch_published", &published, &names), plain);
        let named = |segment: u64, name: &str| {
            let body = json!({ "segment": segment, "name": name });
            event("segment_named", None, body)
        };
        names.learn(&[named(0, "default")]);
        assert_eq!(words("epoch_published", &published, &names), plain);
        names.learn(&[named(1, "inference")]);
        let of_default = "epoch 9 of default published (join), members 2";
        assert_eq!(words("epoch_published", &published, &names), of_default);
        let decided = json!({ "segment": 1, "epoch": 3, "nodes": [] });
        let is = "epoch 3 of inference: 0 nodes judged";
        assert_eq!(words("decided", &decided, &names), is);
        let joined = json!({ "name": "a", "key": { "segment": 1, "wg": "00" }, "probation": 2 });
        let is = "a came into inference";
        assert_eq!(words("node_joined_segment", &joined, &names), is);
        let left = json!({ "name": "a", "segment": 1, "reason": "over" });
        let is = "a taken out of inference: over";
        assert_eq!(words("node_left_segment", &left, &names), is);
        let token = json!({ "id": "t", "name": null, "uses": 1, "segments": [0, 1] });
        let is = "token t created; into: default, inference";
        assert_eq!(words("token_created", &token, &names), is);
        let enrolled = json!({
            "name": "a", "token": "t", "node": "k", "keys": [{ "segment": 0 }, { "segment": 1 }],
        });
        let is = "a enrolled with token t: k; in: default, inference";
        assert_eq!(words("node_enrolled", &enrolled, &names), is);
        // A segment that the controller has no more.
        let invited = json!({ "name": "a", "segment": 7 });
        let is = "a may come into segment 7";
        assert_eq!(words("node_invited", &invited, &names), is);
    }

    #[test]
    fn an_eviction_shows_its_author_and_its_reason_on_one_line() {
        let body = json!({"name": "node-a", "reason": "lies\nabout \u{1b}[2J"});
        let line = shown("node_evicted", Some("uid:1000"), body);
        assert_eq!(
            line,
            "     7  2031-01-01T00:00:00Z  uid:1000  node-a evicted: lies\\u{a}about \\u{1b}[2J"
        );
    }

    #[test]
    fn an_epoch_says_who_came_and_who_went_and_why() {
        let body = json!({
            "epoch": 9, "cause": "eviction", "members": 2, "joined": ["c"],
            "removed": {"a": "evicted by an operator"}, "update": "00",
        });
        let line = shown("epoch_published", None, body);
        let words = "-         epoch 9 published (eviction), members 2; in: c; out: a (evicted by an operator)";
        assert!(line.ends_with(words), "{line}");
    }

    #[test]
    fn a_kind_of_another_version_is_shown_by_its_fields_cut_short() {
        let body = json!({"name": "node-a", "what": "x".repeat(500)});
        let line = shown("node_married", None, body);
        assert!(
            line.contains("node_married  name=node-a  what=xxx"),
            "{line}"
        );
        assert!(line.chars().count() < 200, "{line}");
        // A known kind without the fields that it should have is no reason to fail.
        let line = shown("node_evicted", None, json!({"who": "b"}));
        assert!(line.contains("node_evicted  who=b"), "{line}");
    }
}
