//! `meshctl node`: the controller's nodes, and an operator's word on them.
//!
//! The file is long because every verb of a node is here, with what it answers.

use crate::answer::Answer;
use crate::client::Client;
use crate::failure::Failure;
use crate::segments;
use crate::table::{DASH, Fields, Rows, or_dash, sentence};
use crate::units;
use crate::words::{self, control, membership, psk, state};
use clap::Subcommand;
use keys::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use wire::admin::{
    BannedKey, BenchmarkStatus, ControllerStatus, DuplicateStatus, EvictRequest, EvictionStatus,
    EvictionsRequest, InstanceStatus, Membership, NodeStatus, Observation, OverrideStatus,
    WaitingStatus,
};
use wire::name::{NodeName, SegmentName};

/// A verb of `meshctl node`.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List every enrolled node.
    List,
    /// Show one node in full.
    Show {
        /// The node's name.
        name: NodeName,
    },
    /// Exclude nodes now, until they are readmitted; several with one epoch.
    Evict {
        /// The nodes' names.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<NodeName>,
        /// Why, for the event log.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Do not ask before many are evicted.
        #[arg(long)]
        yes: bool,
    },
    /// Put a node into a group, or take it out: an evaluator's scope may name groups.
    #[command(subcommand)]
    Group(Group),
    /// Give a node that waits for approval its place.
    Approve {
        /// The name that it would have.
        name: NodeName,
    },
    /// Send a node away that waits for approval.
    Reject {
        /// The name that it would have.
        name: NodeName,
        /// Why, for the event log.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Remove a node for good: its name and addresses are free, its keys are banned.
    Remove {
        /// The node's name.
        name: NodeName,
        /// Why, for the event log.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// List the keys of nodes that were removed for good.
    Banned,
    /// Let the key of a node that was removed enrol again.
    Unban {
        /// The key, `node:…`.
        key: NodeId,
    },
    /// Let a node into a segment: it makes a key there and asks for its place.
    Join {
        /// The node's name.
        name: NodeName,
        /// The segment's name.
        segment: SegmentName,
    },
    /// Take a node out of a segment now, with an epoch that does not have it.
    Leave {
        /// The node's name.
        name: NodeName,
        /// The segment's name.
        segment: SegmentName,
        /// Why, for the event log.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// End an eviction; the node's evidence decides again.
    Readmit {
        /// The node's name.
        name: NodeName,
    },
}

/// A verb of `meshctl node group`.
#[derive(Debug, Subcommand)]
pub(crate) enum Group {
    /// Put a node into a group.
    Add {
        /// The node's name.
        name: NodeName,
        /// The group.
        #[arg(value_parser = group_name)]
        group: String,
    },
    /// Take a node out of a group.
    Remove {
        /// The node's name.
        name: NodeName,
        /// The group.
        #[arg(value_parser = group_name)]
        group: String,
    },
}

fn group_name(text: &str) -> Result<String, &'static str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if (1..=64).contains(&text.len()) && text.chars().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("a group has 1 to 64 letters, digits, dots, dashes and underscores")
    }
}

/// Runs the command.
pub(crate) async fn run(verb: Verb, client: &Client, answer: &Answer) -> Result<(), Failure> {
    match verb {
        Verb::List => {
            let (reply, status) = client.controller_status().await?;
            if answer.is_json() {
                answer.value(&reply.raw()["nodes"])
            } else {
                answer.text(&table(&status))
            }
        }
        Verb::Show { name } => show(&name, client, answer).await,
        Verb::Evict { names, reason, yes } => {
            // A node that is named twice is evicted once.
            let names = Vec::from_iter(names.into_iter().collect::<BTreeSet<_>>());
            if !yes && names.len() > 1 {
                let (_, status) = client.controller_status().await?;
                let going = names.iter().filter(|it| {
                    let node = status.nodes.get(it);
                    node.is_some_and(|it| it.membership == Membership::Allowed)
                });
                words::confirm_many(going, &status)?;
            }
            let (reply, are) = match &names[..] {
                [name] => {
                    let path = format!("/v1/nodes/{name}/evict");
                    let form = EvictRequest { reason };
                    let reply = client.post_form(&path, &form).await?;
                    (reply, format!("{name} is"))
                }
                names => {
                    let nodes = names.to_vec();
                    let form = EvictionsRequest { nodes, reason };
                    let reply = client.post_form("/v1/evictions", &form).await?;
                    (reply, format!("{} nodes are", names.len()))
                }
            };
            answer.show(&reply, |change| {
                format!("{are} evicted: {}", words::change(&change))
            })
        }
        Verb::Join { name, segment } => {
            let path = format!("/v1/nodes/{name}/segments/{segment}");
            let reply = client.post(&path).await?;
            answer.show(&reply, |_: NodeStatus| {
                format!(
                    "{name} may come into {segment}: it asks for its place when it is connected"
                )
            })
        }
        Verb::Leave {
            name,
            segment,
            reason,
        } => {
            let path = format!("/v1/nodes/{name}/segments/{segment}/leave");
            let reply = client.post_form(&path, &EvictRequest { reason }).await?;
            answer.show(&reply, |change| {
                format!("{name} is out of {segment}: {}", words::change(&change))
            })
        }
        Verb::Group(verb) => {
            let path = |name: &NodeName, group: &str| format!("/v1/nodes/{name}/groups/{group}");
            let (name, reply) = match verb {
                Group::Add { name, group } => {
                    let reply = client.post(&path(&name, &group)).await?;
                    (name, reply)
                }
                Group::Remove { name, group } => {
                    let reply = client.delete(&path(&name, &group)).await?;
                    (name, reply)
                }
            };
            answer.show(&reply, |node: NodeStatus| match node.groups.as_slice() {
                [] => format!("{name} is in no group"),
                groups => format!("{name} is in {}", groups.join(", ")),
            })
        }
        Verb::Approve { name } => {
            let reply = client.post(&format!("/v1/nodes/{name}/approve")).await?;
            answer.show(&reply, |node: NodeStatus| {
                format!("{name} is enrolled: {}, {} {}", node.node, node.v4, node.v6)
            })
        }
        Verb::Reject { name, reason } => {
            let path = format!("/v1/nodes/{name}/reject");
            let reply = client.post_form(&path, &EvictRequest { reason }).await?;
            answer.show(&reply, |waiting: WaitingStatus| {
                format!("{name} is rejected: {}", waiting.node)
            })
        }
        Verb::Remove { name, reason } => {
            let path = format!("/v1/nodes/{name}/remove");
            let reply = client.post_form(&path, &EvictRequest { reason }).await?;
            answer.show(&reply, |change| {
                format!("{name} is removed for good: {}", words::change(&change))
            })
        }
        Verb::Banned => {
            let reply = client.get("/v1/banned").await?;
            answer.show(&reply, |keys: Vec<BannedKey>| banned(&keys))
        }
        Verb::Unban { key } => {
            let reply = client.delete(&format!("/v1/banned/{key}")).await?;
            answer.show(&reply, |key: BannedKey| {
                format!("{} may enrol again, with a token", key.node)
            })
        }
        Verb::Readmit { name } => {
            let reply = client.post(&format!("/v1/nodes/{name}/readmit")).await?;
            answer.show(&reply, |node: NodeStatus| {
                format!(
                    "{name} may earn its membership again; it is {} and {}",
                    membership(node.membership),
                    state(node.state)
                )
            })
        }
    }
}

/// The table of nodes.
pub(crate) fn table(status: &ControllerStatus) -> String {
    if segments::has_several(status) {
        return by_segment(status);
    }
    let mut rows = Rows::new(&HEADER).sparing(&["EPOCH", "PSK", "ADDRESS", "MEMBERSHIP", "AGE"]);
    for (name, node) in &status.nodes {
        let benchmark = node.last_benchmark.as_ref();
        rows.row([
            name.to_string(),
            membership(node.membership).into(),
            state(node.state).into(),
            or_dash(
                node.score
                    .or_else(|| benchmark.and_then(|b| b.overall))
                    .map(units::score),
            ),
            or_dash(benchmark.map(|b| units::age(&status.generated_utc, &b.timestamp))),
            psk(node.psk).into(),
            heard(node, &status.generated_utc),
            or_dash(node.epoch),
            node.v4.to_string(),
            or_dash(node.reason.as_ref()),
        ]);
    }
    rows.render("No nodes are enrolled; `meshctl token create` admits one.")
}

/// The table of nodes, a row for each segment that a node is in.
fn by_segment(status: &ControllerStatus) -> String {
    let mut rows =
        Rows::new(&HEADER_BY_SEGMENT).sparing(&["EPOCH", "PSK", "ADDRESS", "MEMBERSHIP", "AGE"]);
    let now = &status.generated_utc;
    for (name, node) in &status.nodes {
        let benchmark = node.last_benchmark.as_ref();
        let age = or_dash(benchmark.map(|b| units::age(now, &b.timestamp)));
        for (segment, it) in &node.segments {
            rows.row([
                name.to_string(),
                segment.to_string(),
                membership(it.membership).into(),
                state(it.state).into(),
                or_dash(it.score.map(units::score)),
                age.clone(),
                or_dash(it.psk.map(psk)),
                heard(node, now),
                or_dash(it.epoch),
                it.v4.to_string(),
                or_dash(it.reason.as_ref()),
            ]);
        }
        if node.segments.is_empty() {
            let dash = || DASH.to_owned();
            rows.row([
                name.to_string(),
                dash(),
                membership(node.membership).into(),
                state(node.state).into(),
                dash(),
                age,
                dash(),
                heard(node, now),
                dash(),
                dash(),
                node.reason
                    .clone()
                    .unwrap_or_else(|| "in no segment".to_owned()),
            ]);
        }
    }
    rows.render("No nodes are enrolled; `meshctl token create` admits one.")
}

/// The nodes that wait for an operator's approval; empty if none does.
pub(crate) fn waiting(status: &ControllerStatus) -> String {
    if status.waiting.is_empty() {
        return String::new();
    }
    let mut rows = Rows::new(&["WAITING", "KEY", "TOKEN", "SINCE", "FROM"]);
    for (name, waiting) in &status.waiting {
        let name = match waiting.replaces {
            true => format!("{name} (new keys)"),
            false => name.to_string(),
        };
        rows.row([
            name,
            waiting.node.clone(),
            waiting.token.clone(),
            units::ago(&status.generated_utc, &waiting.since_utc),
            or_dash(waiting.address),
        ]);
    }
    let hint = "`meshctl node approve NAME` gives one its place, `node reject NAME` sends it away.";
    format!("\n{}{}\n", rows.render(""), sentence(hint))
}

pub(crate) fn banned(keys: &[BannedKey]) -> String {
    let mut rows = Rows::new(&["KEY", "WAS", "SINCE", "BY", "REASON"]);
    for key in keys {
        rows.row([
            key.node.clone(),
            key.name.to_string(),
            key.at_utc.clone(),
            or_dash(key.by.as_ref()),
            or_dash(key.reason.as_ref()),
        ]);
    }
    rows.render("No keys are banned.")
}

/// One node as labelled fields; `now` is when the controller made its answer. With `by_segment`, without those that it has
/// in each of its segments.
pub(crate) fn fields(name: &NodeName, node: &NodeStatus, now: &str, by_segment: bool) -> Fields {
    let mut fields = Fields::default();
    // A node without a key in any segment is in none, and has no address.
    let is_nowhere = node.segments.is_empty() && node.wireguard.is_empty();
    let by_segment = by_segment || is_nowhere;
    fields.field("node", format!("{name}, {}", node.node));
    if is_nowhere {
        fields.field("state", state(node.state));
        fields.maybe("reason", node.reason.as_ref());
    }
    let permitted: Vec<_> = node.permitted.iter().map(ToString::to_string).collect();
    fields.maybe(
        "may come into",
        (!permitted.is_empty()).then(|| permitted.join(", ")),
    );
    if !by_segment {
        fields.field("membership", membership(node.membership));
        fields.field("state", state(node.state));
        fields.maybe("reason", node.reason.as_ref());
    }
    fields.maybe(
        "evicted",
        node.eviction.as_ref().map(|it| eviction(it, now)),
    );
    fields.maybe("OVERRIDDEN", node.overriding.as_ref().map(overriding));
    fields.maybe("DUPLICATE", node.duplicate.as_ref().map(duplicate));
    if !node.faults.is_empty() {
        fields.field("interface", faults(&node.faults));
    }
    fields.maybe("evidence", node.last_benchmark.as_ref().map(benchmark));
    if by_segment {
        fields.field("control", heard(node, now));
    } else {
        fields.field(
            "control",
            format!("{}; PSK {}", heard(node, now), psk(node.psk)),
        );
        fields.field("epoch", or_dash(node.epoch));
        fields.field(
            "probation",
            match node.probation_left {
                0 => "over".into(),
                1 => "1 scheduled rotation".into(),
                n => format!("{n} scheduled rotations"),
            },
        );
    }
    fields.maybe(
        "groups",
        (!node.groups.is_empty()).then(|| node.groups.join(", ")),
    );
    if !by_segment {
        fields.field("addresses", format!("{} {}", node.v4, node.v6));
    }
    let endpoints: Vec<String> = node.endpoints.iter().map(ToString::to_string).collect();
    fields.maybe(
        "endpoints",
        (!endpoints.is_empty()).then(|| endpoints.join(", ")),
    );
    if !by_segment {
        fields.field("wireguard", &node.wireguard);
    }
    fields.maybe(
        "clock",
        node.clock_skew_ms
            .map(|ms| format!("{ms:+} ms against the controller's")),
    );
    fields.maybe("software", node.software.as_ref());
    fields.field("enrolled", &node.enrolled_utc);
    fields
}

/// An operator's ruling, in a line.
pub(crate) fn overriding(it: &OverrideStatus) -> String {
    let threshold = it.threshold.map_or_else(String::new, |it| format!(" {it}"));
    let by = it.by.as_deref().unwrap_or("somebody");
    format!(
        "{}{threshold} until {}, by {by}: {}",
        it.ruling, it.until_utc, it.reason
    )
}

/// Two machines with one key, and the way out.
pub(crate) fn duplicate(duplicate: &DuplicateStatus) -> String {
    let process = |it: &InstanceStatus| {
        let InstanceStatus { address, boot, run } = it;
        format!("{} (boot {boot}, run {run})", address.ip())
    };
    format!(
        "two machines run with this node's keys: {} was first and stays, {} is kept out, last at {}; stop one of \
         them, or empty the state directory of the copy and enrol it with a token of its own",
        process(&duplicate.first),
        process(&duplicate.other),
        duplicate.seen_utc,
    )
}

async fn show(name: &NodeName, client: &Client, answer: &Answer) -> Result<(), Failure> {
    let (reply, status) = client.controller_status().await?;
    let node = status.nodes.get(name).ok_or_else(|| {
        Failure::refused(
            format!("no node is called {name}"),
            "`meshctl node list` lists them",
        )
    })?;
    if answer.is_json() {
        answer.value(&reply.raw()["nodes"][name.as_str()])
    } else {
        let (now, by_segment) = (&status.generated_utc, segments::has_several(&status));
        let mut parts = vec![fields(name, node, now, by_segment).render()];
        if by_segment {
            parts.push(segments::of_node(node));
            // A node's own fields are of the first of its segments.
            let home = home(&status, node);
            parts.extend(node.segments.iter().map(|(name, it)| {
                let seen = match home == Some(name) {
                    true => observations(node, now),
                    false => peers(&it.observes, now),
                };
                format!("Its peers in {name}:\n{seen}")
            }));
        } else {
            parts.push(observations(node, now));
        }
        answer.text(&parts.join("\n"))
    }
}

/// The first of a node's segments, by their numbers.
fn home<'s>(status: &'s ControllerStatus, node: &NodeStatus) -> Option<&'s SegmentName> {
    let own = status.segments.iter();
    let own = own.filter(|(name, _)| node.segments.contains_key(*name));
    own.min_by_key(|(_, segment)| segment.id)
        .map(|(name, _)| name)
}

/// An operator's word that excludes a node; `now` is when the controller made its answer.
fn eviction(eviction: &EvictionStatus, now: &str) -> String {
    let EvictionStatus { at_utc, by, reason } = eviction;
    let by = by.as_deref().unwrap_or("an operator");
    let reason = reason.as_deref().unwrap_or("no reason was given");
    format!("{} by {by} ({at_utc}): {reason}", units::ago(now, at_utc))
}

/// Its control connection, and when it was last heard there.
fn heard(node: &NodeStatus, now: &str) -> String {
    let ahead = node.heard_utc.as_ref();
    let ahead = ahead.and_then(|then| units::seconds_until(now, then));
    control(node.control, ahead.map(|ahead| -ahead))
}

fn observations(node: &NodeStatus, now: &str) -> String {
    let shown = peers(&node.observes, now);
    match &node.observed_utc {
        Some(then) => format!("Reported {}:\n{shown}", units::ago(now, then)),
        None => shown,
    }
}

/// The words of a node about its peers in one segment.
pub(crate) fn peers(observes: &BTreeMap<NodeName, Observation>, now: &str) -> String {
    let mut rows = Rows::new(&[
        "PEER",
        "SESSION EPOCH",
        "HANDSHAKE",
        "LOST",
        "PING v4",
        "PING v6",
        "SAID",
        "FAULTS",
    ]);
    for (peer, seen) in observes {
        let tunnel = seen.tunnel;
        let handshake = tunnel.and_then(|it| it.handshake_seconds);
        rows.row([
            peer.to_string(),
            or_dash(seen.session_epoch),
            or_dash(handshake.map(|seconds| units::span(seconds as f64))),
            or_dash(tunnel.map(|it| format!("{} of {}", it.lost, it.echoes))),
            or_dash(seen.rtt_v4_ms.map(units::milliseconds)),
            or_dash(seen.rtt_v6_ms.map(units::milliseconds)),
            units::ago(now, &seen.at_utc),
            faults(&seen.faults),
        ]);
    }
    rows.render("It has reported no peers since it connected.")
}

fn faults(faults: &[String]) -> String {
    match faults {
        [] => DASH.to_owned(),
        faults => faults.join("; "),
    }
}

fn benchmark(benchmark: &BenchmarkStatus) -> String {
    format!(
        "{} in {} {} at {}, vouched for by {}, {}",
        or_dash(benchmark.overall.map(units::score)),
        benchmark.suite,
        benchmark.suite_version,
        benchmark.timestamp,
        benchmark.signer,
        benchmark.digest
    )
}

const HEADER: [&str; 10] = [
    "NODE",
    "MEMBERSHIP",
    "STATE",
    "SCORE",
    "AGE",
    "PSK",
    "CONTROL",
    "EPOCH",
    "ADDRESS",
    "REASON",
];

const HEADER_BY_SEGMENT: [&str; 11] = [
    "NODE",
    "SEGMENT",
    "MEMBERSHIP",
    "STATE",
    "SCORE",
    "AGE",
    "PSK",
    "CONTROL",
    "EPOCH",
    "ADDRESS",
    "REASON",
];
