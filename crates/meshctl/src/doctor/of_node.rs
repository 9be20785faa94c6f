//! A node by its own word: whether UDP passes to and from the controller and each peer, membership, clock, MTU, interface,
//! firewall and benchmark.

use super::Finding;
use crate::units;
use std::collections::BTreeMap;
use wire::NodeName;
use wire::admin::{
    Control, FirewallState, InterfaceState, InterfaceStatus, Membership, NodeDaemonStatus,
    PeerStatus, PingStatus, SKEWED_MS,
};

/// Everything.
pub(super) fn look(status: &NodeDaemonStatus) -> Vec<Finding> {
    let mut all = vec![control(status)];
    all.extend(status.log_fault.as_ref().map(|it| {
        Finding::wrong("log", it.clone(), "`meshctl controller recover`, if an old copy was restored; else ask who has the controller")
    }));
    all.extend(status.duplicate.as_ref().map(|it| {
        Finding::wrong(
            "identity",
            format!(
                "another machine runs with this node's keys, at {}",
                it.other.address
            ),
            "stop one of them, and enrol it with keys of its own",
        )
    }));
    all.push(skew(status));
    if status.segments.is_empty() {
        let of = Member {
            place: String::new(),
            membership: status.membership,
            reason: status.reason.as_deref(),
            lease: status.lease_seconds,
            interface: status.interface.as_ref(),
            peers: &status.peers,
        };
        segment(&of, status, &mut all);
    }
    for (name, it) in &status.segments {
        let of = Member {
            place: format!("in {name}: "),
            membership: it.membership,
            reason: it.reason.as_deref(),
            lease: it.lease_seconds,
            interface: Some(&it.interface),
            peers: &it.peers,
        };
        segment(&of, status, &mut all);
    }
    for (name, reason) in &status.not_placed {
        let way_out = format!(
            "`meshctl node join NODE {name}` at the controller, or take it out of `segments`"
        );
        all.push(Finding::warning(
            "membership",
            format!("no place in segment {name}: {reason}"),
            way_out,
        ));
    }
    all.push(benchmark(status));
    all.extend(names(status));
    all
}

/// The mesh's names on this machine.
fn names(status: &NodeDaemonStatus) -> Vec<Finding> {
    let Some(names) = &status.names else {
        return Vec::new();
    };
    if names.faults.is_empty() {
        let seen = format!("nodes that resolve in {}: {}", names.suffix, names.names);
        return vec![Finding::ok("names", seen)];
    }
    let faults = names.faults.iter();
    let each = faults.map(|it| {
        Finding::warning(
            "names",
            it.clone(),
            "the mesh goes on without: `meshctl hosts` has the names meanwhile",
        )
    });
    each.collect()
}

/// A node in one of its segments.
struct Member<'s> {
    /// In front of what is seen, where there are several.
    place: String,
    membership: Option<Membership>,
    reason: Option<&'s str>,
    lease: Option<f64>,
    interface: Option<&'s InterfaceStatus>,
    peers: &'s BTreeMap<NodeName, PeerStatus>,
}

fn control(status: &NodeDaemonStatus) -> Finding {
    let at = status.controller.as_deref().unwrap_or("no address yet");
    let heard = match status.control_heard_seconds {
        Some(seconds) => format!("heard {} ago", units::span(seconds)),
        None => "not heard since the start".to_owned(),
    };
    let why = match &status.control_error {
        Some(error) => format!(" ({error})"),
        None => String::new(),
    };
    let way_out = "see that the controller runs, that its address is right (`controller`, or the token's), and that UDP \
                   passes both ways: `tcpdump -ni any udp` on both machines shows which way it does not";
    match status.control {
        Control::Connected => Finding::ok(
            "controller",
            format!("UDP passes both ways to {at}, {heard}"),
        ),
        Control::Silent => Finding::wrong(
            "controller",
            format!("{at} is silent, {heard}{why}"),
            way_out,
        ),
        Control::Disconnected => Finding::wrong(
            "controller",
            format!("{at} is not reached, {heard}{why}"),
            way_out,
        ),
    }
}

fn skew(status: &NodeDaemonStatus) -> Finding {
    let Some(skew) = status.clock_skew_ms else {
        return Finding::unknown("clock", "not compared: the controller is not connected");
    };
    let seen = format!("{skew:+} ms against the controller's");
    let way_out = "keep both clocks by NTP: evidence that is 30 s ahead is refused, and evidence from behind looks old";
    match skew.unsigned_abs() {
        ms if ms >= REFUSED_MS => Finding::wrong("clock", seen, way_out),
        ms if ms >= SKEWED_MS => Finding::warning("clock", seen, way_out),
        _ => Finding::ok("clock", seen),
    }
}

fn segment(of: &Member<'_>, status: &NodeDaemonStatus, all: &mut Vec<Finding>) {
    let place = &of.place;
    all.push(match (of.membership, of.lease) {
        (Some(Membership::Allowed), Some(lease)) if lease < SHORT_LEASE => Finding::warning(
            "membership",
            format!(
                "{place}member, and the lease ends in {}",
                units::span(lease)
            ),
            "no epoch has come for long: see `controller` above; tunnels end with the lease",
        ),
        (Some(Membership::Allowed), _) => Finding::ok("membership", format!("{place}member")),
        (Some(Membership::Denied) | None, _) => {
            let reason = of.reason.unwrap_or("no epoch has come yet");
            let name = status.name.as_ref().map_or("NODE", NodeName::as_str);
            Finding::wrong(
                "membership",
                format!("{place}no member: {reason}"),
                format!("`meshctl explain {name}` at the controller says which rule it fails"),
            )
        }
    });
    if let Some(it) = of.interface {
        interface(place, it, all);
    }
    if of.membership == Some(Membership::Allowed) {
        peers(of, all);
    }
}

fn interface(place: &str, it: &InterfaceStatus, all: &mut Vec<Finding>) {
    let name = &it.name;
    let faults = match it.faults.is_empty() {
        true => String::new(),
        false => format!(": {}", it.faults.join("; ")),
    };
    let seen = format!("{place}{name}{faults}");
    let way_out =
        "the node puts right what is its own; remove the route, address or rule that is named";
    all.push(match it.state {
        InterfaceState::Ok => Finding::ok("interface", seen),
        InterfaceState::Impaired => {
            Finding::warning("interface", format!("{seen}; some packets pass"), way_out)
        }
        InterfaceState::Unusable => {
            Finding::wrong("interface", format!("{seen}; no packet passes"), way_out)
        }
        InterfaceState::Unknown => {
            Finding::unknown("interface", format!("{seen}; the kernel has not said"))
        }
    });
    let underlay = it
        .underlay_mtu
        .map_or_else(|| "not known yet".to_owned(), |it| it.to_string());
    let seen = format!(
        "{place}{} inside; the narrowest path to a peer carries {underlay}",
        it.mtu
    );
    all.push(if it.fragments {
        let way_out = "full packets are sent in fragments: widen the path, or set a smaller `mtu` where it may be";
        Finding::warning("mtu", seen, way_out)
    } else {
        Finding::ok("mtu", seen)
    });
    let reason = it
        .firewall
        .reason
        .as_deref()
        .unwrap_or("no reason is known");
    all.push(match it.firewall.state {
        FirewallState::Active => Finding::ok(
            "firewall",
            format!("{place}the table inet meshd-{name} is in place"),
        ),
        FirewallState::Off => Finding::warning(
            "firewall",
            format!("{place}switched off: mesh addresses may answer to others than members"),
            "remove `firewall = \"off\"`, unless you keep them out yourself",
        ),
        FirewallState::Failed => Finding::wrong(
            "firewall",
            format!("{place}the table is not in place ({reason})"),
            "install nftables, and give the daemon CAP_NET_ADMIN: it tries again every 10 s",
        ),
    });
}

fn peers(of: &Member<'_>, all: &mut Vec<Finding>) {
    let place = &of.place;
    let members: Vec<_> = of
        .peers
        .iter()
        .filter(|(_, it)| it.membership == Membership::Allowed && it.reason.is_none())
        .collect();
    let mut well = 0;
    let mut bad = Vec::new();
    for (name, peer) in &members {
        match judged(place, name, peer) {
            None => well += 1,
            Some(finding) => bad.push(finding),
        }
    }
    if well > 0 {
        let words = if well == 1 {
            "1 peer".to_owned()
        } else {
            format!("{well} peers")
        };
        all.push(Finding::ok(
            "peers",
            format!("{place}UDP passes both ways to {words}, and echoes are answered"),
        ));
    }
    if members.is_empty() {
        all.push(Finding::unknown(
            "peers",
            format!("{place}no other member to talk to"),
        ));
    }
    // The gravest first, and not a thousand of them.
    bad.sort_by_key(|it| std::cmp::Reverse(it.state));
    let more = bad.len().saturating_sub(MAX_SHOWN);
    all.extend(bad.into_iter().take(MAX_SHOWN));
    if more > 0 {
        all.push(Finding::warning(
            "peers",
            format!("{place}and {more} more"),
            "`meshctl status` shows them all",
        ));
    }
}

/// Why a peer is not well; `None`: it is.
fn judged(place: &str, name: &NodeName, peer: &PeerStatus) -> Option<Finding> {
    let at = peer
        .endpoint
        .map_or_else(|| "no address known".to_owned(), |it| it.to_string());
    if let Some(fault) = peer.faults.first() {
        return Some(Finding::wrong(
            "peers",
            format!("{place}{name}: {fault}"),
            "remove the route, address or rule that is named, or give both an address of one family",
        ));
    }
    let pings: Vec<&PingStatus> = [&peer.ping_v4, &peer.ping_v6]
        .into_iter()
        .flatten()
        .collect();
    let answered = pings.iter().any(|it| it.ok);
    let failed = pings.iter().find(|it| !it.ok);
    let way_out = format!(
        "see that it runs, and that UDP passes between this machine and {at}: one side at least has to be reached from \
         the other; behind a translator set `advertise`"
    );
    match (peer.session_epoch, answered, failed) {
        (Some(_), true, None) => None,
        (Some(_), true, Some(failed)) => {
            let cause = failed.cause.as_deref().unwrap_or("no answer");
            let family = if peer.ping_v4.as_ref().is_some_and(|it| !it.ok) {
                "IPv4"
            } else {
                "IPv6"
            };
            Some(Finding::warning(
                "peers",
                format!(
                    "{place}{name}: one echo is answered, and the one over {family} inside the mesh is not ({cause})"
                ),
                format!(
                    "see whether {family} is on at {name}, and whether its firewall drops echoes"
                ),
            ))
        }
        (Some(_), false, Some(failed)) => {
            let cause = failed.cause.as_deref().unwrap_or("no answer");
            let heard = if peer.rx_bytes > 0 {
                "packets come from it"
            } else {
                "nothing has come from it"
            };
            let way_out = format!(
                "{way_out}; if it is well, its own firewall may drop echoes on the mesh's interface"
            );
            Some(Finding::wrong(
                "peers",
                format!("{place}{name}: a session, and no echo answered ({cause}); {heard}"),
                way_out,
            ))
        }
        (None, _, Some(_)) => Some(Finding::wrong(
            "peers",
            format!(
                "{place}{name}: no handshake with {at}: UDP does not pass one way or the other"
            ),
            way_out,
        )),
        (Some(_), false, None) => Some(Finding::unknown(
            "peers",
            format!("{place}{name}: a session with {at}, and no echo asked for lately"),
        )),
        (None, _, None) => Some(Finding::unknown(
            "peers",
            format!("{place}{name}: nothing was sent to it lately"),
        )),
    }
}

fn benchmark(status: &NodeDaemonStatus) -> Finding {
    let now = &status.generated_utc;
    if let Some(it) = &status.benchmark {
        let since = units::ago(now, &it.since_utc);
        return Finding::wrong(
            "benchmark",
            format!("no results, failing since {since}: {}", it.cause),
            "run it by hand as the daemon's user, or `benchmark_user`; INTEGRATION.md says what it has to print",
        );
    }
    let is_member = status.membership == Some(Membership::Allowed);
    let Some(it) = &status.last_evidence else {
        let seen = "no evidence was sent since the start";
        let way_out = "set `emitter`: without evidence a node is a member only where an evaluator vouches for it";
        return if is_member {
            Finding::warning("benchmark", seen, way_out)
        } else {
            Finding::wrong("benchmark", seen, way_out)
        };
    };
    let seen = format!(
        "{} {}, {}: {}",
        it.suite,
        it.suite_version,
        units::ago(now, &it.sent_utc),
        it.result
    );
    if it.result.starts_with("refused") || it.result.starts_with("not sent") {
        let way_out =
            "INTEGRATION.md, \"What is refused, and why\", has the way out for each reason";
        Finding::wrong("benchmark", seen, way_out)
    } else if it.suite == MOCK_SUITE {
        let way_out =
            "it draws scores and proves nothing: put a benchmark of yours in its place (`emitter`)";
        Finding::warning("benchmark", seen, way_out)
    } else {
        Finding::ok("benchmark", seen)
    }
}

/// The suite of the mock emitter.
const MOCK_SUITE: &str = "mock-safety";
/// A clock by which evidence is refused, in milliseconds.
const REFUSED_MS: u64 = 30_000;
/// A lease that ends soon, in seconds.
const SHORT_LEASE: f64 = 15.0;
/// Peers that are shown one by one.
const MAX_SHOWN: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;
    use serde_json::json;

    /// A peer with a session or without, and with these answers to its echoes.
    fn peer(session: bool, v4: Option<bool>, v6: Option<bool>, faults: &[&str]) -> PeerStatus {
        let ping = |ok: Option<bool>| {
            ok.map(|ok| json!({"ok": ok, "rtt_ms": null, "at_utc": "2026-01-01T00:00:00Z"}))
        };
        let peer = json!({
            "node": "node:1", "membership": "ALLOWED", "v4": "10.76.0.2", "v6": "fd00::2", "wireguard": null,
            "endpoint": "192.0.2.2:51820", "session_epoch": session.then_some(7), "lag": null,
            "handshake_seconds": null, "tx_bytes": 1, "rx_bytes": 0, "ping_v4": ping(v4), "ping_v6": ping(v6),
            "faults": faults,
        });
        serde_json::from_value(peer).unwrap()
    }

    #[test]
    fn each_way_in_which_a_peer_is_not_reached_is_told_apart() {
        let (yes, no) = (Some(true), Some(false));
        for (peer, state, words) in [
            (peer(true, yes, yes, &[]), State::Ok, ""),
            (peer(true, yes, None, &[]), State::Ok, ""),
            (peer(true, yes, no, &[]), State::Warning, "over IPv6"),
            (peer(true, no, yes, &[]), State::Warning, "over IPv4"),
            (
                peer(true, no, no, &[]),
                State::Wrong,
                "nothing has come from it",
            ),
            (
                peer(false, no, None, &[]),
                State::Wrong,
                "no handshake with 192.0.2.2:51820",
            ),
            (peer(true, None, None, &[]), State::Unknown, "no echo"),
            (
                peer(false, None, None, &[]),
                State::Unknown,
                "nothing was sent",
            ),
            (peer(true, yes, yes, &["by eth1"]), State::Wrong, "by eth1"),
        ] {
            let found = judged("", &"node-b".parse().unwrap(), &peer);
            let (is, seen) = found.map_or((State::Ok, String::new()), |it| (it.state, it.seen));
            assert_eq!(is, state, "{peer:?}");
            assert!(seen.contains(words), "{seen}");
        }
    }
}
