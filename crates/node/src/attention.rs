//! All that is not well with a node, in sentences that name the way out. They follow from its status, so that the two do
//! not contradict each other.

use wire::admin::{
    Control, FirewallState, FirewallStatus, InterfaceStatus, Membership, NodeDaemonStatus,
    OTHER_CONTROLLER, PeerStatus, SKEWED_MS,
};
use wire::message::NodeFault;
use wire::visible::few;
use wire::{NodeName, SegmentName};

/// One segment of the status.
struct OfSegment<'s> {
    /// Its name, where it has to be told.
    name: Option<&'s SegmentName>,
    membership: Option<Membership>,
    reason: Option<&'s str>,
    interface: Option<&'s InterfaceStatus>,
    peers: Vec<(&'s NodeName, &'s PeerStatus)>,
}

/// Everything, the control channel first. `faults` is what the controller is told besides.
pub(crate) fn of(status: &NodeDaemonStatus, faults: &[NodeFault]) -> Vec<String> {
    let mut all = Vec::new();
    all.extend(control(status));
    all.extend(status.log_fault.clone());
    all.extend(status.duplicate.as_ref().map(|it| {
        format!(
            "another machine runs with this node's keys ({}): enrol one of them with keys of its own",
            it.other.address
        )
    }));
    all.extend(clock(status));
    for segment in segments(status) {
        of_segment(&segment, status.name.as_ref(), &mut all);
    }
    let evidence = status.last_evidence.as_ref();
    let refused = evidence.filter(|it| it.result.starts_with("refused"));
    all.extend(refused.map(|it| format!("the newest evidence was {}", it.result)));
    all.extend(faults.iter().map(|fault| fault.what.clone()));
    let names = status.names.iter().flat_map(|names| &names.faults);
    all.extend(names.cloned());
    let not_placed = status.not_placed.iter();
    all.extend(not_placed.map(|(name, reason)| format!("no place in segment {name}: {reason}")));
    all
}

fn segments(status: &NodeDaemonStatus) -> Vec<OfSegment<'_>> {
    if status.segments.is_empty() {
        return vec![OfSegment {
            name: None,
            membership: status.membership,
            reason: status.reason.as_deref(),
            interface: status.interface.as_ref(),
            peers: status.peers.iter().collect(),
        }];
    }
    let each = status.segments.iter().map(|(name, it)| OfSegment {
        name: Some(name),
        membership: it.membership,
        reason: it.reason.as_deref(),
        interface: Some(&it.interface),
        peers: it.peers.iter().collect(),
    });
    each.collect()
}

fn control(status: &NodeDaemonStatus) -> Option<String> {
    let way_out = "no epoch arrives, and tunnels end with the lease; see that the controller runs and that UDP reaches it";
    match status.control {
        Control::Connected => None,
        Control::Silent => Some(format!("the controller is silent: {way_out}")),
        Control::Disconnected => Some(match &status.control_error {
            Some(error) if error.starts_with(OTHER_CONTROLLER) => {
                format!("the controller is not reached ({error}): {OTHER_WAY_OUT}")
            }
            Some(error) => format!("the controller is not reached ({error}): {way_out}"),
            None => format!("the controller is not reached: {way_out}"),
        }),
    }
}

fn clock(status: &NodeDaemonStatus) -> Option<String> {
    let skew = status.clock_skew_ms?;
    (skew.unsigned_abs() >= SKEWED_MS).then(|| {
        format!(
            "this clock differs from the controller's by {} s: keep both by NTP, or evidence is refused or looks old",
            skew / 1_000
        )
    })
}

fn of_segment(segment: &OfSegment<'_>, own: Option<&NodeName>, all: &mut Vec<String>) {
    let own = own.map_or("NODE", NodeName::as_str);
    let place = match segment.name {
        Some(name) => format!(" in {name}"),
        None => String::new(),
    };
    if segment.membership != Some(Membership::Allowed) {
        let reason = segment.reason.unwrap_or("no epoch has come yet");
        let of = segment
            .name
            .map_or_else(String::new, |it| format!(" --segment {it}"));
        let way_out = match segment.reason {
            Some(reason) if reason.starts_with(EVICTED) => {
                format!(
                    "`meshctl node readmit {own}` at the controller lets it earn its membership again"
                )
            }
            _ => format!("`meshctl explain {own}{of}` at the controller says what it lacks"),
        };
        all.push(format!(
            "this node is no member{place} ({reason}): {way_out}"
        ));
    }
    if let Some(interface) = segment.interface {
        all.extend(
            interface
                .faults
                .iter()
                .map(|it| format!("{}: {it}", interface.name)),
        );
        let socket = interface.wireguard_socket.as_ref();
        let fault = socket.and_then(|it| it.fault.as_ref());
        all.extend(
            fault.map(|fault| format!("`wg show` does not see {}: {fault}", interface.name)),
        );
        let FirewallStatus { state, reason } = &interface.firewall;
        if *state == FirewallState::Failed {
            let reason = reason.as_deref().unwrap_or("no reason is known");
            all.push(format!(
                "the firewall table is not in place ({reason}): mesh addresses may answer to others than members"
            ));
        }
        if interface.fragments {
            all.push(format!(
                "the path to a peer is too narrow for full packets ({} bytes): their datagrams are fragmented",
                interface.underlay_mtu.map_or_else(|| "unknown".to_owned(), |it| it.to_string())
            ));
        }
    }
    for (name, peer) in &segment.peers {
        all.extend(peer.faults.iter().map(|it| format!("{name}: {it}")));
    }
    all.extend(unanswered(segment, &place));
}

/// Members that answered no echo, over neither IP version. One that has no tunnels itself hears of nobody, and by no fault
/// of theirs.
fn unanswered(segment: &OfSegment<'_>, place: &str) -> Option<String> {
    if segment.membership != Some(Membership::Allowed) {
        return None;
    }
    let is_dead = |peer: &PeerStatus| {
        let pings = [&peer.ping_v4, &peer.ping_v6];
        let mut asked = pings.into_iter().flatten().peekable();
        asked.peek().is_some() && !asked.any(|it| it.ok)
    };
    let members = segment.peers.iter();
    let members = members.filter(|(_, it)| it.membership == Membership::Allowed);
    let dead = members.filter(|(_, it)| is_dead(it) && it.faults.is_empty());
    let shown = few(dead.map(|(name, _)| name), MAX_NAMED)?;
    Some(format!(
        "members{place} that do not answer: {shown}; see that they run, and that UDP passes between their endpoints \
         and this machine"
    ))
}

/// How the reason begins for which an operator excludes a node.
const EVICTED: &str = "evicted";
/// The way out where another controller answers.
const OTHER_WAY_OUT: &str = "UDP passes, and no epoch arrives; if the mesh was founded anew, give this node a token \
of the new controller (`join`), else bring back the old controller's state, or correct its address (`controller`)";
/// Members that a sentence names.
const MAX_NAMED: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use wire::message::NodeFaultKind;

    fn well() -> Value {
        json!({
            "schema": 1, "version": "0.1.0", "generated_utc": "2031-01-01T00:00:00Z", "node": "node:00",
            "name": "node-a", "wireguard": "", "v4": null, "v6": null, "control": "connected",
            "controller": null, "membership": "ALLOWED", "epoch": 7, "next_epoch": null,
            "lease_seconds": 90.0, "interface": null, "last_evidence": null, "dropped": {},
            "peers": { "node-b": {
                "node": "node:01", "membership": "ALLOWED", "v4": "10.76.0.3", "v6": "fd00::3",
                "wireguard": "", "endpoint": null, "session_epoch": 7, "lag": 0, "handshake_seconds": 1.0,
                "tx_bytes": 0, "rx_bytes": 0, "ping_v6": null,
                "ping_v4": { "ok": true, "rtt_ms": 0.5, "at_utc": "2031-01-01T00:00:00Z" }
            }}
        })
    }

    fn told(status: Value, faults: &[NodeFault]) -> Vec<String> {
        of(&serde_json::from_value(status).unwrap(), faults)
    }

    #[test]
    fn a_node_to_which_nothing_happened_has_nothing_to_say() {
        assert_eq!(told(well(), &[]), [] as [&str; 0]);
    }

    #[test]
    fn another_controller_is_no_missing_one() {
        let mut status = well();
        status["control"] = json!("disconnected");
        status["control_error"] = json!(format!("{OTHER_CONTROLLER}: its key is another"));
        let told = told(status, &[]);
        let is_so =
            told[0].contains("a token of the new controller") && !told[0].contains("UDP reaches");
        assert!(is_so, "{told:?}");
    }

    #[test]
    fn each_trouble_has_a_sentence_of_its_own() {
        let changes: [(&str, Value, &str); 7] = [
            (
                "/control",
                json!("silent"),
                "the controller is silent: no epoch arrives",
            ),
            ("/membership", json!("DENIED"), "this node is no member"),
            ("/clock_skew_ms", json!(-12_000), "by -12 s"),
            ("/log_fault", json!("the log was cut"), "the log was cut"),
            (
                "/peers/node-b/ping_v4/ok",
                json!(false),
                "do not answer: node-b;",
            ),
            (
                "/peers/node-b/faults",
                json!(["goes by eth1"]),
                "node-b: goes by eth1",
            ),
            (
                "/not_placed",
                json!({ "tooling": "no such segment" }),
                "segment tooling: no such",
            ),
        ];
        for (at, value, words) in changes {
            let mut status = well();
            let (parent, field) = at.rsplit_once('/').unwrap();
            status.pointer_mut(parent).unwrap()[field] = value;
            let told = told(status, &[]);
            assert!(told.len() == 1 && told[0].contains(words), "{at}: {told:?}");
        }
        for (membership, reason, left) in [
            ("DENIED", "score below threshold", 90.0),
            ("DENIED", "evicted", 90.0),
            ("DENIED", "the lease is over and no update came", 0.0),
        ] {
            let mut status = well();
            status["membership"] = json!(membership);
            status["reason"] = json!(reason);
            status["lease_seconds"] = json!(left);
            status["peers"]["node-b"]["ping_v4"]["ok"] = json!(false);
            let told = told(status, &[]);
            let way_out = match reason {
                "evicted" => "`meshctl node readmit node-a`",
                _ => "`meshctl explain node-a`",
            };
            assert!(
                told.len() == 1 && told[0].contains(way_out),
                "that its peers do not answer is no fault of theirs: {told:?}"
            );
        }
        let fault = NodeFault::new(NodeFaultKind::State, "the disk is full");
        assert_eq!(told(well(), &[fault]), ["the disk is full"]);
    }
}
