//! The handshakes of a rotation in a full mesh: when they happen, how long until every pair has a
//! session of the new epoch, what it costs; and the same while a stranger floods a node with
//! initiations.
//!
//! A handshake is seen on the underlay: a response names the initiator's index, which bears the epoch,
//! modulo four. Every pair has light traffic, the product's own probes, so that every pair shakes
//! hands ahead of each epoch. The capture is held against the nodes' own status once per phase.
//!
//! The file is long because phases, capture and report of one promise belong together.

use crate::flood::Flood;
use crate::lab::{self, DURABLE, IN_FORCE, Machine, Raised, logged};
use crate::picture::{self, Panel};
use crate::report::{self, Table, count, ms};
use crate::stamps::{Capture, Message, Wall, wall};
use crate::stats::Sample;
use keys::WgPublicKey;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tests::harness::{CONTROLLER, Mesh};

pub(crate) fn measure() -> bool {
    let nodes: usize = lab::setting("NODES", 50);
    let epoch_seconds: u64 = lab::setting("EPOCH_SECONDS", 5);
    let epochs: u64 = lab::setting("EPOCHS", 12);
    let rate: u64 = lab::setting("FLOOD_RATE", 5_000);
    let machine = Machine::look();
    let _raised = Raised::neighbours(nodes + 1);
    let mut mesh = lab::start(nodes, |builder| {
        builder
            .epoch_seconds(epoch_seconds)
            .controller_setting("lease_seconds", 600)
    });
    mesh.add_host(STRANGER, nodes);
    let stranger = Ipv4Addr::new(
        198,
        18,
        1,
        u8::try_from(nodes + 1).expect("at most 250 nodes"),
    );
    let capture = Capture::open(mesh.underlay(), Some(stranger));
    // Work left over from the start is done when the probes have gone round once.
    watch(&capture, Duration::from_secs(PROBES));
    let length = Duration::from_secs(epoch_seconds * epochs);
    let peace = phase(PEACE, &mesh, &capture, length, None, stranger);
    let victim = mesh.nodes()[0].clone();
    let flood = flood(&mesh, stranger, &victim, rate);
    let flooded = phase(
        FLOOD,
        &mesh,
        &capture,
        length,
        Some((&flood, &victim)),
        stranger,
    );
    drop(flood);
    let phases = [peace, flooded];
    phases
        .iter()
        .for_each(|phase| println!("{}", phase.words()));
    write(&machine, &phases, nodes, epoch_seconds, rate);
    phases.iter().all(Phase::is_fine)
}

fn flood(mesh: &Mesh, stranger: Ipv4Addr, victim: &str, rate: u64) -> Flood {
    let status = lab::node_status(mesh, victim).expect("a node answers");
    let key: WgPublicKey = format!("{}{}", WgPublicKey::PREFIX, status.wireguard)
        .parse()
        .expect("a status has a key");
    let target = SocketAddr::from((Ipv4Addr::new(198, 18, 1, 1), 51_820));
    Flood::initiations(
        mesh.namespace(STRANGER),
        stranger.into(),
        target,
        &key,
        rate,
    )
}

/// Some epochs under the same circumstances.
#[derive(Debug, Serialize)]
struct Phase {
    name: &'static str,
    epochs: Vec<Rotation>,
    cookie_replies: u64,
    cookie_replies_to_the_stranger: u64,
    capture_missed: u32,
    /// Pairs, and those of which a node's status had no session of its epoch, at the end.
    pairs: usize,
    pairs_behind: usize,
    /// Initiations per second that the stranger sent.
    flood_per_second: f64,
    /// Packets that the flooded node dropped meanwhile, by reason.
    victim_dropped: BTreeMap<String, u64>,
    /// Of one processor, in per cent.
    node_cpu_percent: [f64; 3],
    victim_cpu_percent: Option<f64>,
    controller_cpu_percent: f64,
    node_resident_kb: [u64; 3],
    controller_resident_kb: u64,
}

/// One epoch. Times in milliseconds after the first node had it in force; before that: negative.
#[derive(Debug, Serialize)]
struct Rotation {
    epoch: u64,
    published_ms: f64,
    last_in_force_ms: f64,
    first_session_ms: f64,
    last_session_ms: f64,
    /// The last one of a pair with the flooded node.
    last_session_of_victim_ms: Option<f64>,
    pairs_without_session: usize,
    initiations: usize,
    /// The fullest tenth of a second.
    most_in_100_ms: usize,
    /// First initiation of each handshake message count, for the picture.
    #[serde(skip)]
    initiated_ms: Vec<f64>,
}

impl Phase {
    /// Whether all of it could be seen, and what must hold held.
    fn is_fine(&self) -> bool {
        let complete = self
            .epochs
            .iter()
            .all(|epoch| epoch.pairs_without_session == 0);
        !self.epochs.is_empty()
            && complete
            && self.pairs_behind == 0
            && (self.cookie_replies == 0 || self.name == FLOOD)
            && self.capture_missed == 0
    }

    fn sample(&self, of: impl Fn(&Rotation) -> f64) -> Sample {
        Sample::new(self.epochs.iter().map(of))
    }

    fn words(&self) -> String {
        let last = self.sample(|epoch| epoch.last_session_ms);
        format!(
            "{}: {} epochs, last session {} ms after activation (median), {} at most; {} cookie replies",
            self.name,
            self.epochs.len(),
            ms(last.median()),
            ms(last.max()),
            self.cookie_replies
        )
    }
}

/// Listens for so long.
fn watch(capture: &Capture, length: Duration) -> Vec<Message> {
    let mut messages = Vec::new();
    let end = wall() + Wall::try_from(length.as_nanos()).unwrap_or(0);
    while wall() < end {
        std::thread::sleep(LOOK);
        capture.drain(|message| messages.push(message));
    }
    messages
}

fn phase(
    name: &'static str,
    mesh: &Mesh,
    capture: &Capture,
    length: Duration,
    flood: Option<(&Flood, &str)>,
    stranger: Ipv4Addr,
) -> Phase {
    let nodes = mesh.nodes();
    let pids: Vec<u32> = nodes.iter().map(|node| mesh.pid(node)).collect();
    let controller = mesh.pid(CONTROLLER);
    let times = || -> Vec<f64> {
        pids.iter()
            .chain([&controller])
            .map(|pid| lab::processor_time(*pid))
            .collect()
    };
    let victim = flood.map(|(_, victim)| victim);
    let dropped = || {
        victim
            .and_then(|victim| lab::node_status(mesh, victim).ok())
            .map(|status| status.dropped)
    };
    let _ = capture.missed();
    let (began, times_before, dropped_before) = (wall(), times(), dropped().unwrap_or_default());
    let sent_before = flood.map_or(0, |(flood, _)| flood.sent());
    let messages = watch(capture, length);
    let (ended, times_after, dropped_after) = (wall(), times(), dropped().unwrap_or_default());
    let sent = flood.map_or(0, |(flood, _)| flood.sent()) - sent_before;
    let seconds = (ended - began) as f64 / 1e9;
    let used: Vec<f64> = times_after
        .iter()
        .zip(&times_before)
        .map(|(after, before)| (after - before) / seconds * 100.0)
        .collect();
    let of_nodes = Sample::new(used[..nodes.len()].iter().copied());
    let resident = Sample::new(pids.iter().map(|pid| lab::resident(*pid) as f64));
    let cookies = |to_stranger: bool| {
        let cookies = messages
            .iter()
            .filter(|message| message.kind == COOKIE_REPLY);
        cookies
            .filter(|message| (message.to == IpAddr::V4(stranger)) == to_stranger)
            .count() as u64
    };
    Phase {
        name,
        epochs: rotations(mesh, &messages, (began, ended), victim.is_some()),
        cookie_replies: cookies(false),
        cookie_replies_to_the_stranger: cookies(true),
        capture_missed: capture.missed(),
        pairs: nodes.len() * (nodes.len() - 1) / 2,
        pairs_behind: behind(mesh),
        flood_per_second: sent as f64 / seconds,
        victim_dropped: dropped_after
            .into_iter()
            .map(|(reason, count)| {
                let before = dropped_before.get(&reason).copied().unwrap_or(0);
                (reason, count - before)
            })
            .filter(|(_, count)| *count > 0)
            .collect(),
        node_cpu_percent: [of_nodes.min(), of_nodes.median(), of_nodes.max()],
        victim_cpu_percent: victim.map(|_| used[0]),
        controller_cpu_percent: used[nodes.len()],
        node_resident_kb: [resident.min(), resident.median(), resident.max()].map(|kb| kb as u64),
        controller_resident_kb: lab::resident(controller),
    }
}

/// The epochs that were published and in force within the window.
fn rotations(
    mesh: &Mesh,
    messages: &[Message],
    (began, ended): (Wall, Wall),
    flooded: bool,
) -> Vec<Rotation> {
    let nodes = mesh.nodes();
    let published = logged(mesh, CONTROLLER, DURABLE);
    let in_force: Vec<_> = nodes
        .iter()
        .map(|node| logged(mesh, node, IN_FORCE))
        .collect();
    let whole = published.iter().filter_map(|(epoch, at)| {
        let said: Option<Vec<Wall>> = in_force
            .iter()
            .map(|times| times.get(epoch).copied())
            .collect();
        let said = said?;
        let (first, last) = (*said.iter().min()?, *said.iter().max()?);
        // Until the next is published; the one that the window cuts off is left aside.
        let until = *published.get(&(epoch + 1))?;
        (*at > began && until < ended).then_some((*epoch, *at, first, last, until))
    });
    whole
        .map(|(epoch, at, first, last, until)| {
            let after = |at: Wall| (at - first) as f64 / 1e6;
            let tag = u32::try_from(epoch % 4).expect("it is below four");
            let of_epoch = |kind: u8| {
                messages.iter().filter(move |message| {
                    let tagged = message.initiator_index >> 8 & 3 == tag;
                    message.kind == kind && tagged && (at..until).contains(&message.at)
                })
            };
            let mut sessions: BTreeMap<(u16, u16), Wall> = BTreeMap::new();
            for message in of_epoch(RESPONSE) {
                let (one, other) = (number(message.from), number(message.to));
                let earliest = sessions
                    .entry((one.min(other), one.max(other)))
                    .or_insert(message.at);
                *earliest = message.at.min(*earliest);
            }
            let initiated: Vec<f64> = of_epoch(INITIATION)
                .map(|message| after(message.at))
                .collect();
            let with_victim = sessions
                .iter()
                .filter(|((one, _), _)| *one == VICTIM)
                .map(|(_, at)| after(*at));
            let with_victim = Sample::new(with_victim);
            let times = Sample::new(sessions.values().map(|at| after(*at)));
            Rotation {
                epoch,
                published_ms: after(at),
                last_in_force_ms: after(last),
                first_session_ms: times.min(),
                last_session_ms: times.max(),
                last_session_of_victim_ms: flooded.then(|| with_victim.max()),
                pairs_without_session: nodes.len() * (nodes.len() - 1) / 2 - sessions.len(),
                initiations: initiated.len(),
                most_in_100_ms: fullest(&initiated),
                initiated_ms: initiated,
            }
        })
        .collect()
}

/// A node by its address on the underlay, which ends with its number.
fn number(address: IpAddr) -> u16 {
    match address {
        IpAddr::V4(v4) => v4.octets()[3].into(),
        IpAddr::V6(v6) => v6.segments()[7],
    }
}

/// The most that any tenth of a second holds, wherever it begins.
fn fullest(times: &[f64]) -> usize {
    let times = Sample::new(times.iter().copied());
    let times = times.values();
    let within = |at: usize| times[at..].partition_point(|time| *time < times[at] + BUCKET);
    (0..times.len()).map(within).max().unwrap_or(0)
}

/// Pairs of which a node's status has no session of the epoch that it has in force. Looked at when
/// no epoch is on its way at any node.
fn behind(mesh: &Mesh) -> usize {
    let calm = tests::harness::poll(Duration::from_secs(60), || {
        let status = lab::controller_status(mesh).ok();
        status.is_some_and(|status| {
            let began: Option<jiff::Timestamp> = status.epoch.activated_utc.parse().ok();
            let age = began.map_or(0, |began| wall() / 1_000_000 - began.as_millisecond());
            status.epoch.next.is_none() && (500..1_500).contains(&age)
        })
    });
    if !calm {
        return usize::MAX;
    }
    let mut behind = BTreeSet::new();
    for node in mesh.nodes() {
        let Ok(status) = lab::node_status(mesh, &node) else {
            return usize::MAX;
        };
        for (peer, peer_status) in &status.peers {
            if peer_status.session_epoch != status.epoch {
                let peer = peer.as_str().to_owned();
                behind.insert((node.clone().min(peer.clone()), node.clone().max(peer)));
            }
        }
    }
    behind.len()
}

fn write(machine: &Machine, phases: &[Phase], nodes: usize, epoch_seconds: u64, rate: u64) {
    let mut times = Table::new(&[
        "",
        "epochs",
        "lead, ms",
        "first session, ms",
        "last session, ms (median)",
        "(max)",
        "last with the flooded node (max)",
        "pairs left out",
        "initiations per epoch and pair",
        "most in 100 ms",
    ]);
    let mut costs = Table::new(&[
        "",
        "CPU per node, % of a processor (min, median, max)",
        "flooded node",
        "controller",
        "memory per node, MB (min, median, max)",
        "controller",
        "cookie replies to nodes",
        "to the stranger",
        "flood, per s",
        "dropped by the flooded node",
    ]);
    for phase in phases {
        let last = phase.sample(|epoch| epoch.last_session_ms);
        let victim = Sample::new(
            phase
                .epochs
                .iter()
                .filter_map(|epoch| epoch.last_session_of_victim_ms),
        );
        let pairs = phase.pairs as f64;
        times.row([
            phase.name.to_owned(),
            phase.epochs.len().to_string(),
            ms(-phase.sample(|epoch| epoch.published_ms).median()),
            ms(phase.sample(|epoch| epoch.first_session_ms).median()),
            ms(last.median()),
            ms(last.max()),
            if victim.len() == 0 {
                "–".into()
            } else {
                ms(victim.max())
            },
            phase
                .epochs
                .iter()
                .map(|epoch| epoch.pairs_without_session)
                .sum::<usize>()
                .to_string(),
            format!(
                "{:.3}",
                phase
                    .sample(|epoch| epoch.initiations as f64 / pairs)
                    .median()
            ),
            format!(
                "{:.0}",
                phase.sample(|epoch| epoch.most_in_100_ms as f64).max()
            ),
        ]);
        let dropped: Vec<String> = phase
            .victim_dropped
            .iter()
            .map(|(reason, n)| format!("{reason} {}", count(*n)))
            .collect();
        let percent = |value: f64| format!("{value:.1}");
        let mb = |kb: u64| format!("{:.1}", kb as f64 / 1_024.0);
        costs.row([
            phase.name.to_owned(),
            phase.node_cpu_percent.map(percent).join(", "),
            phase.victim_cpu_percent.map_or("–".into(), percent),
            percent(phase.controller_cpu_percent),
            phase.node_resident_kb.map(mb).join(", "),
            mb(phase.controller_resident_kb),
            phase.cookie_replies.to_string(),
            count(phase.cookie_replies_to_the_stranger),
            format!("{:.0}", phase.flood_per_second),
            dropped.join(", "),
        ]);
    }
    let mut words = vec![
        "# The handshakes of a rotation".to_owned(),
        format!(
            "Written by `cargo bench --bench promise -- storm`. {}",
            machine.words()
        ),
        format!(
            "{nodes} nodes, {} pairs, all on this machine, an epoch every {epoch_seconds} s. Times are after the first \
             node had the epoch in force, so that a negative one is before anybody needed the session. In `flood` a \
             stranger sends one node up to {rate} initiations a second with a valid MAC1, all from one address.",
            nodes * (nodes - 1) / 2
        ),
        times.to_string(),
        costs.to_string(),
        "![Initiations around an activation](storm.svg)".to_owned(),
    ];
    for phase in phases {
        words.push(format!(
            "{}: asked once at the end, the nodes had {} of {} pairs on a session of another epoch than the one in \
             force; the capture missed {} messages.",
            phase.name, phase.pairs_behind, phase.pairs, phase.capture_missed
        ));
    }
    report::write("storm.md", &(words.join("\n\n") + "\n"));
    let json = serde_json::json!({
        "machine": machine, "nodes": nodes, "epoch_seconds": epoch_seconds, "phases": phases,
    });
    report::write("storm.json", &report::json(&json));
    let panels: Vec<Panel> = phases
        .iter()
        .map(|phase| panel(phase, epoch_seconds))
        .collect();
    let title = format!("Initiations around an activation, {nodes} nodes");
    report::write(
        "storm.svg",
        &picture::histograms(&title, &machine.words(), &panels),
    );
}

/// Initiations per tenth of a second, mean of the epochs.
fn panel(phase: &Phase, epoch_seconds: u64) -> Panel {
    let from = (phase.sample(|epoch| epoch.published_ms).min() / BUCKET).floor() * BUCKET;
    let length = epoch_seconds as f64 * 1e3;
    let mut bars = vec![0.0; (length.max(BUCKET) / BUCKET) as usize];
    for time in phase.epochs.iter().flat_map(|epoch| &epoch.initiated_ms) {
        if let Some(bar) = bars.get_mut(((time - from) / BUCKET) as usize) {
            *bar += 1.0 / phase.epochs.len() as f64;
        }
    }
    Panel::of_bars(
        format!(
            "{}: initiations per 100 ms, mean of {} epochs",
            phase.name,
            phase.epochs.len()
        ),
        "milliseconds after the first node had the epoch in force".into(),
        (from, BUCKET),
        bars,
        vec![(0.0, "in force".into())],
    )
}

const PEACE: &str = "peace";
const FLOOD: &str = "flood";
const STRANGER: &str = "stranger";
/// The number at the end of the first node's address.
const VICTIM: u16 = 1;
const INITIATION: u8 = 1;
const RESPONSE: u8 = 2;
const COOKIE_REPLY: u8 = 3;
const BUCKET: f64 = 100.0;
const LOOK: Duration = Duration::from_millis(50);
/// Seconds until every pair has had a probe.
const PROBES: u64 = 12;
