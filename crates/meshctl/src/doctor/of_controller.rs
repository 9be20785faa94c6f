//! A mesh by its controller's word: alarms, epochs, the ways between nodes, their clocks, versions and benchmarks.

use super::Finding;
use crate::units;
use wire::NodeName;
use wire::admin::{Control, ControllerStatus, Membership, NodeState, NodeStatus, SKEWED_MS};

/// Everything.
pub(super) fn look(status: &ControllerStatus) -> Vec<Finding> {
    let alarms = status.alarms.iter();
    let mut all: Vec<Finding> = alarms
        .map(|it| {
            let (seen, way_out) = super::split(it);
            Finding::wrong("alarm", seen, way_out.unwrap_or(MORE))
        })
        .collect();
    all.extend(epochs(status));
    all.extend(connected(status));
    all.extend(pairs(status));
    all.extend(faults(status));
    all.extend(each(
        status,
        "clock",
        clock,
        "every node's clock is within 10 s of this one",
    ));
    let of_version = |name: &NodeName, node: &NodeStatus| version(name, node, &status.version);
    all.extend(each(
        status,
        "versions",
        of_version,
        "every node has the controller's version",
    ));
    let age = status.policy.max_benchmark_age;
    let of_benchmark =
        |name: &NodeName, node: &NodeStatus| benchmark(name, node, (&status.generated_utc, age));
    all.extend(each(
        status,
        "benchmark",
        of_benchmark,
        "every node has evidence that counts",
    ));
    for (name, it) in &status.waiting {
        let seen = format!("{name} waits for an operator since {}", it.since_utc);
        all.push(Finding::warning(
            "enrolment",
            seen,
            format!("`meshctl node approve {name}`, or reject it"),
        ));
    }
    all
}

fn epochs(status: &ControllerStatus) -> Vec<Finding> {
    let each = status.segments.iter().map(|(name, segment)| {
        let epoch = &segment.epoch;
        let place = if status.segments.len() > 1 { format!("{name}: ") } else { String::new() };
        let left = units::seconds_until(&status.generated_utc, &epoch.expiry_utc).unwrap_or_default();
        let seen = format!("{place}epoch {}, with {} of {} nodes", epoch.id, epoch.members, status.nodes.len());
        if left < -OVERDUE {
            let seen = format!("{seen}, was to end {} ago", units::span(-left));
            return Finding::wrong("epoch", seen, "look at the alarms and the log; a full disk or a stopped machine keeps epochs back");
        }
        if epoch.members == 0 {
            let way_out = "nobody is a member: `meshctl explain NODE` says which rule a node fails; a node without an `emitter` \
                           sends no evidence";
            return Finding::wrong("epoch", seen, way_out);
        }
        if !epoch.held.is_empty() {
            let held: Vec<&str> = epoch.held.iter().map(NodeName::as_str).collect();
            let seen = format!("{seen}; held back from removal: {}", held.join(", "));
            return Finding::warning("epoch", seen, "`meshctl epoch rotate --confirm-removals`, if they are to go");
        }
        Finding::ok("epoch", seen)
    });
    each.collect()
}

fn connected(status: &ControllerStatus) -> Vec<Finding> {
    if status.nodes.is_empty() {
        let way_out =
            "`meshctl token create --name node-a --output node-a.token`, and start a node with it";
        return vec![Finding::warning("nodes", "no node is enrolled", way_out)];
    }
    let of_node = |name: &NodeName, node: &NodeStatus| {
        let heard = match &node.heard_utc {
            Some(heard) => format!("heard {}", units::ago(&status.generated_utc, heard)),
            None => "not heard since this controller's start".to_owned(),
        };
        let way_out = "see that it runs (`meshctl doctor` there), and that UDP passes both ways between it and this machine";
        match node.control {
            Control::Connected => None,
            Control::Silent | Control::Disconnected if node.state == NodeState::Evicted => None,
            Control::Silent => Some(Finding::wrong(
                "nodes",
                format!("{name} is silent, {heard}"),
                way_out,
            )),
            Control::Disconnected => Some(Finding::wrong(
                "nodes",
                format!("{name} is not connected, {heard}"),
                way_out,
            )),
        }
    };
    let count = status.nodes.len();
    let ok = format!("UDP passes both ways to all of {count}");
    each(status, "nodes", of_node, &ok)
}

/// Members whose packets to each other do not arrive, by their reports.
fn pairs(status: &ControllerStatus) -> Vec<Finding> {
    let is_member = |name: &NodeName| {
        let node = status.nodes.get(name);
        node.is_some_and(|it| {
            it.membership == Membership::Allowed && it.control == Control::Connected
        })
    };
    let mut bad = Vec::new();
    let mut well = 0_usize;
    for (name, node) in status.nodes.iter().filter(|(name, _)| is_member(name)) {
        for (peer, seen) in node.observes.iter().filter(|(peer, _)| is_member(peer)) {
            let way_out =
                format!("`meshctl doctor` on {name} and {peer} says which way does not work");
            if let Some(fault) = seen.faults.first() {
                let seen = format!("{name} to {peer}: {fault}");
                bad.push(Finding::wrong("pairs", seen, way_out));
            } else if seen.session_epoch.is_none() {
                bad.push(Finding::wrong(
                    "pairs",
                    format!("{name} to {peer}: no session"),
                    way_out,
                ));
            } else if seen.rtt_v4_ms.is_none() && seen.rtt_v6_ms.is_none() {
                bad.push(Finding::warning(
                    "pairs",
                    format!("{name} to {peer}: a session, and no echo answered"),
                    way_out,
                ));
            } else {
                well += 1;
            }
        }
    }
    let mut all = Vec::new();
    if well > 0 {
        let seen = format!("echoes are answered in {well} of the directions that members report");
        all.push(Finding::ok("pairs", seen));
    } else if bad.is_empty() {
        all.push(Finding::unknown(
            "pairs",
            "no member has reported on another",
        ));
    }
    all.extend(few("pairs", bad));
    all
}

/// The words of connected nodes about themselves: their interfaces, benchmarks and disks.
fn faults(status: &ControllerStatus) -> Vec<Finding> {
    let of_node = |(name, node): (&NodeName, &NodeStatus)| {
        let way_out = format!("`meshctl doctor` on {name}");
        let each = node.faults.iter().map(|it| {
            let seen = format!("{name}: {it}");
            Finding::wrong("faults", seen, way_out.clone())
        });
        each.collect::<Vec<_>>()
    };
    let connected = status.nodes.iter();
    let connected = connected.filter(|(_, node)| node.control == Control::Connected);
    let bad: Vec<Finding> = connected.flat_map(of_node).collect();
    if bad.is_empty() && !status.nodes.is_empty() {
        return vec![Finding::ok(
            "faults",
            "no connected node reports one of its own",
        )];
    }
    few("faults", bad)
}

fn clock(name: &NodeName, node: &NodeStatus) -> Option<Finding> {
    let skew = node.clock_skew_ms?;
    (skew.unsigned_abs() >= SKEWED_MS).then(|| {
        let seen = format!("{name}: {skew:+} ms against this one");
        Finding::warning("clock", seen, "keep both by NTP: evidence that is 30 s ahead is refused, and evidence from behind looks old")
    })
}

fn version(name: &NodeName, node: &NodeStatus, ours: &str) -> Option<Finding> {
    let theirs = node.software.as_deref().filter(|it| *it != ours)?;
    let seen = format!("{name} has {theirs}, the controller {ours}");
    Some(Finding::warning(
        "versions",
        seen,
        "upgrade node by node; two versions of the protocol work together",
    ))
}

fn benchmark(name: &NodeName, node: &NodeStatus, (now, limit): (&str, u64)) -> Option<Finding> {
    if node.state == NodeState::Evicted || node.control != Control::Connected {
        return None;
    }
    let way_out = format!("`meshctl explain {name}`, and `meshctl doctor` there");
    let Some(newest) = &node.last_benchmark else {
        return Some(Finding::warning(
            "benchmark",
            format!("{name} has sent no evidence"),
            way_out,
        ));
    };
    if let Some(fault) = node.faults.iter().find(|it| it.contains("benchmark")) {
        let seen = format!("{name}: {fault}");
        return Some(Finding::warning("benchmark", seen, way_out));
    }
    let age = -units::seconds_until(now, &newest.timestamp)?;
    (age > limit as f64).then(|| {
        let (age, limit) = (units::span(age), units::span(limit as f64));
        let seen = format!("{name}: the newest run is {age} old, and counts for {limit}");
        Finding::warning("benchmark", seen, way_out)
    })
}

/// The findings about nodes, or that there is none.
fn each(
    status: &ControllerStatus,
    area: &'static str,
    of: impl Fn(&NodeName, &NodeStatus) -> Option<Finding>,
    ok: &str,
) -> Vec<Finding> {
    let bad: Vec<Finding> = status
        .nodes
        .iter()
        .filter_map(|(name, node)| of(name, node))
        .collect();
    if bad.is_empty() && !status.nodes.is_empty() {
        return vec![Finding::ok(area, ok)];
    }
    few(area, bad)
}

/// The first few, and how many more there are.
fn few(area: &'static str, mut all: Vec<Finding>) -> Vec<Finding> {
    all.sort_by_key(|it| std::cmp::Reverse(it.state));
    let more = all.len().saturating_sub(MAX_SHOWN);
    let worst = all.get(MAX_SHOWN).map(|it| it.state);
    all.truncate(MAX_SHOWN);
    if let Some(state) = worst {
        let way_out = Some("`meshctl status` shows them all".to_owned());
        all.push(Finding::new(
            area,
            state,
            format!("and {more} more"),
            way_out,
        ));
    }
    all
}

/// The way out where a sentence names none.
const MORE: &str = "`meshctl status` has more";
/// An epoch that should have ended so many seconds ago.
const OVERDUE: f64 = 5.0;
/// Nodes that are shown one by one.
const MAX_SHOWN: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;
    use serde_json::{Value, json};

    fn node(faults: &Value, observes: &Value) -> Value {
        json!({
            "node": "node:1", "membership": "ALLOWED", "state": "ACTIVE",
            "last_benchmark": {
                "overall": 0.9, "timestamp": "2031-01-01T00:00:48Z", "suite": "s", "suite_version": "1",
                "signer": "self", "digest": "sha256:00"
            },
            "psk": "valid", "control": "connected", "v4": "10.90.0.2", "v6": "fd00::2", "wireguard": "", "endpoints": [],
            "epoch": 12, "probation_left": 0, "enrolled_utc": "2031-01-01T00:00:00Z", "faults": faults,
            "observes": observes
        })
    }

    fn found(nodes: &Value) -> Vec<Finding> {
        let status = json!({
            "schema": 1, "version": "0.1.0", "mesh": "mesh:00", "generated_utc": "2031-01-01T00:01:00Z",
            "epoch": {
                "id": 12, "activated_utc": "2031-01-01T00:00:42Z", "expiry_utc": "2031-01-01T00:01:42Z",
                "secret_hash": "sha256:01", "update": "sha256:02", "members": 2
            },
            "policy": { "threshold": 0.7, "max_benchmark_age": 120, "epoch_seconds": 60, "digest": "sha256:03" },
            "nodes": nodes
        });
        look(&serde_json::from_value(status).unwrap())
    }

    fn of<'f>(all: &'f [Finding], area: &str) -> Vec<(State, &'f str)> {
        let of_area = all.iter().filter(|it| it.area == area);
        of_area.map(|it| (it.state, it.seen.as_str())).collect()
    }

    #[test]
    fn a_nodes_own_faults_are_no_pairs_and_its_benchmark_is_not_well() {
        let failing = "its benchmark gives no results since 7: it hangs";
        let full = "what it has to remember is not written: No space left on device";
        let all = found(&json!({
            "node-a": node(&json!([failing, full]), &json!({})), "node-b": node(&json!([]), &json!({}))
        }));
        let told = of(&all, "faults");
        assert!(
            told.len() == 2 && told.iter().all(|it| it.0 == State::Wrong),
            "{all:?}"
        );
        assert_eq!(of(&all, "benchmark").len(), 1);
        assert_eq!(of(&all, "benchmark")[0].0, State::Warning);
        assert_eq!(
            of(&all, "pairs"),
            [(State::Unknown, "no member has reported on another")]
        );
    }

    #[test]
    fn a_pair_that_was_reported_on_is_not_unknown() {
        let seen = json!({ "node-b": {
            "session_epoch": null, "rtt_v4_ms": null, "rtt_v6_ms": null, "at_utc": "2031-01-01T00:00:59Z"
        }});
        let all = found(&json!({
            "node-a": node(&json!([]), &seen), "node-b": node(&json!([]), &json!({}))
        }));
        assert_eq!(
            of(&all, "pairs"),
            [(State::Wrong, "node-a to node-b: no session")]
        );
    }
}
