//! STATUS.md and what is shown: every field of a status is in the document. Holds the document against
//! the types, and no type against anything.

use std::fs::read_to_string;

/// Requests and answers that are no status; INTEGRATION.md has them.
const NOT_STATUS: &[&str] = &[
    "ApiError",
    "Explanation",
    "DecisionStatus",
    "RuleStatus",
    "EvictRequest",
    "RotateRequest",
    "RecoverRequest",
    "Recovered",
    "AuthorityRotated",
    "BannedKey",
    "EvidenceAnswer",
    "EpochChange",
    "TokenRequest",
    "TokenCreated",
    "TokenInfo",
    "EventList",
    "EventInfo",
    "ScoreRequest",
    "HostLine",
    "WgExport",
    "KeptEvidence",
    "OverrideRequest",
    "PolicyRequest",
    "PolicyShown",
    "PolicyApplied",
    "Simulation",
    "Difference",
];

#[test]
fn every_field_of_a_status_is_documented() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let document = read_to_string(format!("{root}/docs/STATUS.md")).expect("the document");
    let source = read_to_string(format!("{root}/crates/wire/src/admin.rs")).expect("the types");
    let fields = fields(&source);
    assert!(fields.len() > 60, "the types are read: {fields:?}");
    let missing = fields.iter().filter(|(_, field)| {
        let names = [format!("`{field}`"), format!(".{field}`")];
        !names.iter().any(|name| document.contains(name))
    });
    let missing: Vec<_> = missing.collect();
    assert!(missing.is_empty(), "not in STATUS.md: {missing:?}");
}

/// Public fields of the structs in `source` that are part of a status, with their struct.
fn fields(source: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut within = None;
    for line in source.lines() {
        if let Some(rest) = line.strip_prefix("pub struct ") {
            let name = rest.split([' ', '{', '<']).next().unwrap_or(rest);
            within = Some(name).filter(|name| !NOT_STATUS.contains(name));
        } else if line == "}" {
            within = None;
        } else if let (Some(name), Some(rest)) = (within, line.strip_prefix("    pub ")) {
            found.extend(rest.split_once(':').map(|(field, _)| (name, field)));
        }
    }
    found
}
