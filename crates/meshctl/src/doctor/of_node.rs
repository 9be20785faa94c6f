//! A node by its own word: whether UDP passes to and from the controller and each peer, membership, clock, MTU, interface,
//! firewall and benchmark.

use super::Finding;
use crate::local::Local;
use crate::units;
use std::collections::BTreeMap;
use wire::NodeName;
use wire::admin::{
    Control, FirewallState, InterfaceState, InterfaceStatus, Membership, NodeDaemonStatus,
    OTHER_CONTROLLER, PeerStatus, PingStatus, SKEWED_MS,
};

/// Everything.
pub(super) fn look(status: &NodeDaemonStatus, local: &Local) -> Vec<Finding> {
    if status.name.is_none() {
        return not_enrolled(status);
    }
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
    all.push(benchmark(status, local));
    all.extend(names(status));
    all
}

/// A node without a place has nothing else to be looked at.
fn not_enrolled(status: &NodeDaemonStatus) -> Vec<Finding> {
    let each = status.attention.iter().map(|it| {
        let (seen, way_out) = super::split(it);
        let way_out = way_out.unwrap_or("the node's log says how each attempt ends");
        Finding::wrong("enrolment", seen, way_out)
    });
    let mut all: Vec<Finding> = each.collect();
    if all.is_empty() {
        let way_out = "the node's log says how each attempt to enrol ends";
        all.push(Finding::wrong(
            "enrolment",
            "this node is not enrolled",
            way_out,
        ));
    }
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
    let is_other = |it: &String| it.starts_with(OTHER_CONTROLLER);
    if status.control != Control::Connected && status.control_error.as_ref().is_some_and(is_other) {
        let way_out = "UDP passes; if the mesh was founded anew, give this node a token of the new controller (`join`), else \
                       bring back the old controller's state, or correct its address (`controller`)";
        return Finding::wrong(
            "controller",
            format!("{at} is not this node's controller{why}"),
            way_out,
        );
    }
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
    let way_out = way_out_of(&it.faults);
    all.push(match it.state {
        InterfaceState::Ok if !it.faults.is_empty() => Finding::warning("interface", seen, way_out),
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

/// The way out of an interface's faults: by what is in them, because most name nothing that could be removed.
fn way_out_of(faults: &[String]) -> String {
    let mut all: Vec<&str> = Vec::new();
    let has = |words: &str| faults.iter().any(|it| it.contains(words));
    if has("IPv4 only") {
        all.push("IPv6 is off on this machine: `sysctl -w net.ipv6.conf.all.disable_ipv6=0`, if it is wanted");
    }
    if has("remove ") {
        all.push("remove what is named");
    }
    let is_own = |it: &String| !it.contains("IPv4 only") && !it.contains("remove ");
    if all.is_empty() || faults.iter().any(is_own) {
        all.push("the node puts it right within 10 s: where it comes back, another program here changes the interface");
    }
    all.join("; ")
}

/// The way out of a fault of the way to a peer.
fn way_out_of_way(fault: &str) -> String {
    let address = fault.split(' ').next().unwrap_or_default();
    match address.parse::<std::net::IpAddr>() {
        Ok(address) => {
            let off = match (address, fault.contains("nowhere")) {
                (std::net::IpAddr::V6(_), true) => ", where IPv6 is on here (see `ipv6`)",
                _ => "",
            };
            format!(
                "`ip route get {address}` here shows the route or rule that takes it: remove that{off}"
            )
        }
        Err(_) => "give both an address of one family, or remove what is named".to_owned(),
    }
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
            way_out_of_way(fault),
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
            let way_out = if cause.starts_with(UNSENT) {
                format!(
                    "this machine did not send it: see whether {family} is on here, and `interface`"
                )
            } else {
                format!(
                    "see whether {family} is on at {name}, and whether its firewall drops echoes"
                )
            };
            Some(Finding::warning(
                "peers",
                format!(
                    "{place}{name}: one echo is answered, and the one over {family} inside the mesh is not ({cause})"
                ),
                way_out,
            ))
        }
        (Some(_), false, Some(failed)) => {
            let cause = failed.cause.as_deref().unwrap_or("no answer");
            let heard = if peer.rx_bytes > 0 {
                "packets come from it"
            } else {
                "nothing has come from it"
            };
            let way_out = if cause.starts_with(UNSENT) {
                "this machine did not send it: see `interface` and `addresses` here".to_owned()
            } else {
                format!(
                    "{way_out}; if it is well, its own firewall may drop echoes on the mesh's interface"
                )
            };
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

fn benchmark(status: &NodeDaemonStatus, local: &Local) -> Finding {
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
        if status.control != Control::Connected {
            let seen = "nothing was sent, because there is no connection to the controller";
            return Finding::unknown("benchmark", seen);
        }
        let emitter = local.text("emitter").filter(|it| *it != "none");
        let Some(emitter) = emitter else {
            return without_emitter(is_member, local);
        };
        let seen = format!("no evidence was sent since the start, and `emitter` is `{emitter}`");
        let way_out = "a first run may still go on; else the daemon's log says what it waits for";
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

/// A node that has sent no evidence, and has no emitter as far as its settings are known.
fn without_emitter(is_member: bool, local: &Local) -> Finding {
    let seen = "no evidence was sent since the start";
    let way_out = match local.unknown() {
        None => "set `emitter`: without evidence a node is a member only where an evaluator vouches for it".to_owned(),
        Some(why) => format!("see whether `emitter` is set: {why}"),
    };
    if is_member {
        Finding::warning("benchmark", seen, way_out)
    } else {
        Finding::wrong("benchmark", seen, way_out)
    }
}

/// Begins the cause of an echo that did not leave this machine.
const UNSENT: &str = "not sent";
/// The suite of the mock emitter.
const MOCK_SUITE: &str = "mock-safety";
/// A clock by which evidence is refused, in milliseconds.
const REFUSED_MS: u64 = 30_000;
/// A lease that ends soon, in seconds.
const SHORT_LEASE: f64 = 15.0;
/// Peers that are shown one by one.
const MAX_SHOWN: usize = 10;

#[cfg(test)]
mod tests;
