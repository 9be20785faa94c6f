//! `meshctl status`: the mesh, as its controller sees it; or one node, as it sees itself.

use crate::answer::Answer;
use crate::client::Client;
use crate::failure::Failure;
use crate::node;
use crate::segments;
use crate::table::{DASH, Fields, Rows, or_dash, sentence};
use crate::terminal;
use crate::units;
use crate::verdict;
use crate::words::{self, control, held, membership};
use std::collections::BTreeMap;
use std::time::Duration;
use wire::admin::{
    Control, ControllerStatus, FirewallState, FirewallStatus, InterfaceState, InterfaceStatus,
    Membership, NodeDaemonStatus, NodeRoutes, NodeSegmentStatus, PeerStatus, PingStatus,
    RulesInForce, Status,
};
use wire::rules::Traffic;
use wire::{NodeName, SegmentName};

/// `meshctl status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show it again every so many seconds, until interrupted.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = clap::value_parser!(u32).range(1..=3600))]
    watch: Option<u32>,
}

/// Runs the command.
pub(crate) async fn run(args: &Args, client: &Client, answer: &Answer) -> Result<(), Failure> {
    let Some(seconds) = args.watch else {
        return show(client, answer).await;
    };
    let every = Duration::from_secs(u64::from(seconds));
    loop {
        if !answer.is_json() && terminal::width().is_some() {
            answer.clear()?;
        }
        match show(client, answer).await {
            // A daemon that restarts is waited for.
            Err(failure) if failure.may_pass() => drop(failure.report(answer.is_json())),
            other => other?,
        }
        tokio::time::sleep(every).await;
    }
}

async fn show(client: &Client, answer: &Answer) -> Result<(), Failure> {
    let reply = client.get("/v1/status").await?;
    answer.show(&reply, |status| match status {
        Status::Controller(status) => controller(&status),
        Status::Node(status) => daemon(&status),
    })
}

/// The epoch in force and the policy, as fields.
pub(crate) fn epoch_fields(status: &ControllerStatus) -> Fields {
    let (now, epoch) = (&status.generated_utc, &status.epoch);
    let until = |then: &str| words::until(now, then);
    let mut fields = Fields::default();
    fields.field(
        "epoch",
        format!("{}, ends {}", epoch.id, until(&epoch.expiry_utc)),
    );
    fields.field(
        "members",
        format!("{} of {}", epoch.members, status.nodes.len()),
    );
    fields.maybe(
        "next",
        epoch
            .next
            .as_ref()
            .map(|next| format!("epoch {}, begins {}", next.id, until(&next.activates_utc))),
    );
    fields.maybe("held", held(&epoch.held));
    fields.field("policy", words::policy(&status.policy));
    fields
}

pub(crate) fn controller(status: &ControllerStatus) -> String {
    let has_several = segments::has_several(status);
    let fields = if has_several {
        Fields::default()
    } else {
        epoch_fields(status)
    };
    let segments = if has_several {
        format!("{}\n", segments::table(status))
    } else {
        String::new()
    };
    format!(
        "{}\n{}\n{}\n{segments}{}{}",
        verdict::of_mesh(status),
        sentence(&format!(
            "controller of {}, meshd {}, {}",
            status.mesh, status.version, status.generated_utc
        )),
        fields.render(),
        node::table(status),
        node::waiting(status),
    )
}

/// A node that is in the one segment of a mesh without others is shown as a whole, any other one segment by segment.
pub(crate) fn daemon(status: &NodeDaemonStatus) -> String {
    let now = &status.generated_utc;
    let own = match status.control {
        Control::Connected => {
            "the controller is there, and this node's peers answer as far as they were asked"
        }
        Control::Silent | Control::Disconnected => "as far as this node can tell",
    };
    let verdict = verdict::told(own, &status.attention, &status.version);
    let mut parts = vec![format!("{verdict}\n{}", daemon_fields(status).render())];
    if status.segments.is_empty() {
        parts.push(peers(&status.peers, now));
        parts.extend(dropped(&status.dropped));
        parts.extend(status.rules.as_ref().map(rules));
    }
    for (name, segment) in &status.segments {
        parts.push(segment_fields(name, segment).render());
        parts.push(peers(&segment.peers, now));
        parts.extend(dropped(&segment.dropped));
        parts.extend(segment.rules.as_ref().map(rules));
    }
    parts.join("\n")
}

fn dropped(counts: &BTreeMap<String, u64>) -> Option<String> {
    let drops: Vec<String> = counts
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    let words = sentence(&format!("packets dropped: {}", drops.join(", ")));
    (!drops.is_empty()).then(|| format!("{words}\n"))
}

/// The rules of the node's segment, with the packets that each has let in here.
fn rules(rules: &RulesInForce) -> String {
    let or_none = |groups: &[String]| match groups {
        [] => "none".to_owned(),
        groups => groups.join(", "),
    };
    let mut fields = Fields::default();
    fields.field(
        "traffic",
        match rules.traffic {
            Traffic::Allow => "everything passes between members that connect",
            Traffic::Deny => "nothing passes but answers, echo requests, and what a rule allows",
        }
        .to_owned(),
    );
    fields.field("groups", or_none(&rules.groups));
    if !rules.hub.is_empty() {
        fields.field("hubs", rules.hub.join(", "));
    }
    if rules.allow.is_empty() {
        return fields.render();
    }
    let mut rows = Rows::new(&["PACKETS", "RULE"]);
    for it in &rules.allow {
        rows.row([it.packets.to_string(), it.rule.clone()]);
    }
    format!("{}\n{}", fields.render(), rows.render("No rules."))
}

fn daemon_fields(status: &NodeDaemonStatus) -> Fields {
    let mut fields = Fields::default();
    let name = status
        .name
        .as_ref()
        .map_or("(not enrolled)", |n| n.as_str());
    fields.field(
        "node",
        format!("{name}, {}, meshd {}", status.node, status.version),
    );
    let is_whole = status.segments.is_empty();
    if is_whole {
        let words = own_membership(status.membership, status.reason.as_deref());
        fields.field("membership", words);
    }
    fields.field("control", control_words(status));
    fields.maybe("LOG FAULT", status.log_fault.clone());
    fields.maybe("DUPLICATE", status.duplicate.as_ref().map(node::duplicate));
    if is_whole {
        epoch(
            &mut fields,
            status.epoch,
            status.next_epoch,
            status.lease_seconds,
        );
        if let Some(it) = &status.interface {
            interface(&mut fields, it);
        }
    }
    fields.maybe("keepalive", keepalive(status));
    if is_whole {
        route_fields(&mut fields, status.routes.as_ref());
        fields.field(
            "addresses",
            format!("{} {}", or_dash(status.v4), or_dash(status.v6)),
        );
    }
    fields.maybe(
        "evidence",
        status.last_evidence.as_ref().map(|e| {
            format!(
                "{} in {} {}, {}: {}",
                or_dash(e.overall.map(units::score)),
                e.suite,
                e.suite_version,
                units::ago(&status.generated_utc, &e.sent_utc),
                e.result
            )
        }),
    );
    fields.maybe(
        "benchmark",
        status.benchmark.as_ref().map(|it| {
            let since = units::ago(&status.generated_utc, &it.since_utc);
            format!("no results (failing since {since}): {}", it.cause)
        }),
    );
    fields.maybe(
        "clock",
        status
            .clock_skew_ms
            .map(|ms| format!("{ms:+} ms against the controller's")),
    );
    for (name, reason) in &status.not_placed {
        fields.field("not placed", format!("in {name}: {reason}"));
    }
    fields
}

/// A node in one of its segments, as fields.
fn segment_fields(name: &SegmentName, segment: &NodeSegmentStatus) -> Fields {
    let mut fields = Fields::default();
    fields.field("segment", name);
    let words = own_membership(segment.membership, segment.reason.as_deref());
    fields.field("membership", words);
    let (now, next) = (segment.epoch, segment.next_epoch);
    epoch(&mut fields, now, next, segment.lease_seconds);
    interface(&mut fields, &segment.interface);
    route_fields(&mut fields, segment.routes.as_ref());
    fields.field("addresses", format!("{} {}", segment.v4, segment.v6));
    fields
}

/// A node's membership, by its own word.
fn own_membership(of: Option<Membership>, reason: Option<&str>) -> String {
    match (of, reason) {
        (None, None) => "none yet".into(),
        (None, Some(reason)) => format!("none: {reason}"),
        (Some(m), None) => membership(m).to_owned(),
        (Some(m), Some(reason)) => format!("{}: {reason}", membership(m)),
    }
}

/// The epochs that a node has, and for how long.
fn epoch(fields: &mut Fields, now: Option<u64>, next: Option<u64>, lease_seconds: Option<f64>) {
    fields.field("epoch", or_dash(now));
    fields.maybe("next epoch", next);
    fields.field(
        "lease",
        lease_seconds.map_or(DASH.into(), |s| {
            let verb = if s < 0.0 { "ended" } else { "ends" };
            format!("{verb} {}", units::relative(s))
        }),
    );
}

fn interface(fields: &mut Fields, interface: &InterfaceStatus) {
    let (name, state) = (&interface.name, interface_state(interface.state));
    let (mtu, backend, port) = (interface.mtu, &interface.backend, interface.listen_port);
    fields.field(
        "interface",
        format!("{name}{state}, MTU {mtu}, {backend}, UDP port {port}"),
    );
    for fault in &interface.faults {
        fields.field("fault", fault.clone());
    }
    fields.field("offloads", offloads(interface));
    fields.field("firewall", firewall(interface));
    fields.maybe("underlay", underlay(interface));
}

/// Whether packets pass the interface, where there is something to say.
fn interface_state(state: InterfaceState) -> &'static str {
    match state {
        InterfaceState::Ok | InterfaceState::Unknown => "",
        InterfaceState::Impaired => ", IMPAIRED",
        InterfaceState::Unusable => ", UNUSABLE",
    }
}

/// The offloads that are on, and those that are off, each with its reason.
fn offloads(interface: &InterfaceStatus) -> String {
    let each = interface
        .offloads
        .iter()
        .map(|offload| match &offload.reason {
            None => offload.name.clone(),
            Some(reason) => format!("no {} ({reason})", offload.name),
        });
    let threads = units::count(interface.threads, "thread", "threads");
    format!("{}; {threads}", each.collect::<Vec<_>>().join(", "))
}

/// Whether mesh addresses are kept to the tunnel.
fn firewall(interface: &InterfaceStatus) -> String {
    let FirewallStatus { state, reason } = &interface.firewall;
    let words = match state {
        FirewallState::Active => "active",
        FirewallState::Off => "off",
        FirewallState::Failed => "failed: mesh addresses may answer to others than members",
    };
    match reason {
        None => words.to_owned(),
        Some(reason) => format!("{words} ({reason})"),
    }
}

/// The networks behind nodes, a field each.
fn route_fields(fields: &mut Fields, routes: Option<&NodeRoutes>) {
    for line in routes.into_iter().flat_map(self::routes) {
        fields.field("route", line);
    }
}

fn routes(routes: &NodeRoutes) -> Vec<String> {
    let words = |reason: &Option<String>| match reason {
        Some(reason) => format!(": {reason}"),
        None => String::new(),
    };
    let own = routes.own.iter().map(|it| {
        let state = if it.in_force {
            "carried"
        } else {
            "not in force"
        };
        format!(
            "{} behind this node, {state}{}",
            it.prefix,
            words(&it.reason)
        )
    });
    let peers = routes.peers.iter().map(|it| {
        let state = if it.routed { "routed" } else { "NOT ROUTED" };
        format!(
            "{} behind {}, {state}{}",
            it.prefix,
            it.node,
            words(&it.reason)
        )
    });
    own.chain(peers).collect()
}

/// Whether peers hear from the node even if it has nothing to say.
fn keepalive(status: &NodeDaemonStatus) -> Option<String> {
    let every = status.keepalive.map(|it| format!("every {it} s"));
    match (every, status.mapped) {
        (every, None) => every,
        (every, Some(mapped)) => {
            let every = every.unwrap_or_else(|| "off".to_owned());
            Some(format!("{every}, behind an address translator ({mapped})"))
        }
    }
}

fn underlay(interface: &InterfaceStatus) -> Option<String> {
    let mtu = interface.underlay_mtu?;
    Some(if interface.fragments {
        format!("MTU {mtu}: too narrow for full packets, their datagrams are fragmented")
    } else {
        format!("MTU {mtu}")
    })
}

fn control_words(status: &NodeDaemonStatus) -> String {
    let mut words = control(status.control, status.control_heard_seconds);
    if let Some(address) = &status.controller {
        words = format!("{words}, {address}");
    }
    if let Some(error) = &status.control_error {
        words = format!("{words}: {error}");
    }
    words
}

fn peers(peers: &BTreeMap<NodeName, PeerStatus>, now: &str) -> String {
    let mut rows = Rows::new(&PEER_HEADER).sparing(&PEER_SPARE);
    for (name, peer) in peers {
        rows.row([
            name.to_string(),
            membership(peer.membership).into(),
            session(peer),
            or_dash(
                peer.handshake_seconds
                    .map(|s| format!("{} ago", units::span(s))),
            ),
            ping(peer, peer.ping_v4.as_ref(), now),
            ping(peer, peer.ping_v6.as_ref(), now),
            units::bytes(peer.tx_bytes),
            units::bytes(peer.rx_bytes),
            or_dash(peer.endpoint),
            or_dash(peer.reason.as_ref()),
        ]);
    }
    let faults = peers.iter().flat_map(|(name, peer)| {
        let faults = peer.faults.iter();
        faults.map(move |fault| format!("{name}: {fault}"))
    });
    let mut fields = Fields::default();
    for fault in faults {
        fields.field("fault     ", fault);
    }
    rows.render("No peers.") + &fields.render()
}

fn session(peer: &PeerStatus) -> String {
    match (peer.session_epoch, peer.lag) {
        (Some(epoch), Some(lag)) if lag > 0 => format!("{epoch} ({lag} behind)"),
        (epoch, _) => or_dash(epoch),
    }
}

/// An echo to a peer, with its age if it is not of the last seconds; a dash where there is no tunnel that it could take, of
/// which the peer's reason is the cause.
pub(crate) fn ping(peer: &PeerStatus, ping: Option<&PingStatus>, now: &str) -> String {
    let is_without_tunnel = ping.is_some_and(|it| {
        let cause = it.cause.as_deref().unwrap_or_default();
        !it.ok && cause.starts_with(NO_TUNNEL)
    });
    if is_without_tunnel && peer.reason.is_some() {
        return DASH.to_owned();
    }
    let Some(ping) = ping else {
        return "not probed".into();
    };
    let result = match (ping.ok, ping.rtt_ms, &ping.cause) {
        (true, None, _) => "ok".into(),
        (true, Some(rtt), _) => units::milliseconds(rtt),
        (false, _, None) => "failed".into(),
        (false, _, Some(cause)) => format!("failed: {cause}"),
    };
    let ahead = units::seconds_until(now, &ping.at_utc);
    if ahead.is_some_and(|ahead| ahead <= -OLD_PING) {
        format!("{result} ({})", units::ago(now, &ping.at_utc))
    } else {
        result
    }
}

/// Begins the cause of an echo for which there was no tunnel.
const NO_TUNNEL: &str = "no tunnel";
/// Seconds after which an echo is shown with its age.
const OLD_PING: f64 = 10.0;

/// Columns of peers that a narrow terminal does without.
const PEER_SPARE: [&str; 6] = [
    "TX",
    "RX",
    "SESSION EPOCH",
    "MEMBERSHIP",
    "ENDPOINT",
    "PING v6",
];
const PEER_HEADER: [&str; 10] = [
    "PEER",
    "MEMBERSHIP",
    "SESSION EPOCH",
    "HANDSHAKE",
    "PING v4",
    "PING v6",
    "TX",
    "RX",
    "ENDPOINT",
    "REASON",
];
