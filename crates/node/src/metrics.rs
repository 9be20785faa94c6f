//! The node's metrics: each declared once, and filled from what agent and data plane show when somebody
//! asks. Decides nothing, and nothing reads them but a scrape.

use crate::data::{Common, IoFailures, Snapshot};
use crate::emitter::Health;
use crate::naming;
use crate::standing::{Condition, Fault};
use agent::{Agent, Counts, InSegment};
use epoch::member::View;
use exposition::{Page, Tally};
use keys::Epoch;
use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;
use tunnel::{DropReason, Drops, PeerSnapshot, Traffic};
use wire::rules::MAX_RULES;

exposition::metrics! {
    /// The version that runs; always 1
    BUILD_INFO: Gauge = "meshd_build_info" by "version";
    /// Number of the epoch in force here; 0 before the first
    EPOCH: Gauge = "meshd_epoch_current" in segment;
    /// Whether this node is a member of that epoch; 0 too when its lease is over and the policy closes
    MEMBER: Gauge = "meshd_member" in segment;
    /// Time until the lease ends; 0 when it has, and before the first epoch
    LEASE: Gauge = "meshd_lease_remaining_seconds" in segment;
    /// Updates that the controller pushed, by what became of them
    EPOCH_UPDATES: Counter = "meshd_epoch_updates_total" by "result";
    /// Whether the control channel is up, and the controller was heard there within seven seconds
    CONTROL: Gauge = "meshd_control_connected";
    /// How often the control channel came up
    CONTROL_CONNECTIONS: Counter = "meshd_control_connections_total";
    /// The controller's answers to this node's evidence
    EVIDENCE: Counter = "meshd_evidence_total" by "result";
    /// Runs of the benchmark, or changes of its files, by whether they gave a result
    BENCHMARK_RUNS: Counter = "meshd_benchmark_runs_total" by "result";
    /// Whether the benchmark gives no results now; status says why not
    BENCHMARK_FAILING: Gauge = "meshd_benchmark_failing";
    /// Everybody else whom the epoch in force names, by what this node has with them
    PEERS: Gauge = "meshd_peers" by "state" in segment;
    /// Members by the IP versions on which they answered the last probe of the last five minutes
    PROBED: Gauge = "meshd_probed_peers" by "answered" in segment;
    /// Mesh addresses of the others, by where this machine's routes send packets for them
    WAYS: Gauge = "meshd_peer_routes" by "way" in segment;
    /// Things that are wrong with the mesh's interface, by kind
    INTERFACE_FAULTS: Gauge = "meshd_interface_faults" by "kind" in segment;
    /// Inner packets that were carried, by direction
    PACKETS: Counter = "meshd_tunnel_packets_total" by "direction" in segment;
    /// Their bytes
    BYTES: Counter = "meshd_tunnel_bytes_total" by "direction" in segment;
    /// Handshakes that were completed
    HANDSHAKES: Counter = "meshd_tunnel_handshakes_total" in segment;
    /// Age of the oldest session with a member, since its handshake; 0 without any
    HANDSHAKE_AGE: Gauge = "meshd_oldest_handshake_seconds" in segment;
    /// Packets that were not carried, by reason; those for which there is no tunnel have no segment
    DROPPED: Counter = "meshd_tunnel_dropped_packets_total" by "reason" in segment;
    /// Packets that each traffic rule has let in since the rules are in force, and those that the rules refused
    RULES: Counter = "meshd_rule_packets_total" by "rule" in segment;
    /// Packets that the kernel did not take, by what was tried
    IO_FAILURES: Counter = "meshd_io_failures_total" by "kind";
    /// Whether an offload is in use; status says why not
    OFFLOAD: Gauge = "meshd_offload_enabled" by "offload";
    /// Questions to the DNS server of the mesh's names, by what became of them
    DNS_QUERIES: Counter = "meshd_dns_queries_total" by "answer";
    /// Threads that carry packets
    DATA_THREADS: Gauge = "meshd_data_threads";
}

/// The observations of the node as a whole.
pub(crate) struct OfNode<'a> {
    pub(crate) agent: &'a Agent,
    pub(crate) benchmark: &'a Health,
    /// For how long the controller has not been heard.
    pub(crate) silence: Option<Duration>,
    pub(crate) names: &'a naming::Counts,
    pub(crate) data: Common,
}

/// The observations that a page is made of.
struct Observed<'a> {
    connected: bool,
    benchmark: &'a Health,
    counts: &'a Counts,
    names: &'a naming::Counts,
    data: Common,
    /// By number.
    segments: Vec<InOne<'a>>,
}

/// Those of one segment.
struct InOne<'a> {
    name: &'a str,
    epoch: Option<Epoch>,
    member: bool,
    lease: Option<Duration>,
    peers: Tally<PeerState>,
    probed: Tally<Answered>,
    /// By the tunnel, elsewhere, unknown.
    ways: [u64; 3],
    condition: Condition,
    traffic: Traffic,
    handshakes: u64,
    /// Of the oldest session.
    handshake_age: Duration,
    /// By rule.
    passed: Vec<u64>,
    refused: u64,
    drops: Drops,
}

/// Everything that is measured, as it is now; `segments` in the order of their numbers.
pub(crate) fn page(
    node: &OfNode<'_>,
    segments: &[(InSegment<'_>, Condition, &Snapshot)],
    boot: Duration,
) -> Page {
    fn in_one<'a>(
        (seen, condition, data): &(InSegment<'a>, Condition, &Snapshot),
        boot: Duration,
    ) -> InOne<'a> {
        let view = seen.view();
        InOne {
            name: seen.place().segment_name.as_str(),
            epoch: view.update.map(|update| update.epoch),
            member: seen.is_member().unwrap_or(false),
            lease: view.lease_end.map(|end| end.saturating_sub(boot)),
            peers: peers(*seen, &view, data),
            probed: probed(*seen, &view),
            ways: seen.ways_count(),
            condition: condition.clone(),
            traffic: data.traffic,
            handshakes: data.handshakes,
            handshake_age: data
                .peers
                .iter()
                .filter_map(|peer| peer.session_age)
                .max()
                .unwrap_or_default(),
            passed: data.passed.clone().unwrap_or_default(),
            refused: refused(&data.own_drops),
            drops: data.own_drops.clone(),
        }
    }
    let silence = node.silence;
    let observed = Observed {
        connected: node.agent.control().is_up()
            && silence.is_none_or(|silence| silence < quic::pulse::SILENT_AFTER),
        benchmark: node.benchmark,
        counts: node.agent.counts(),
        names: node.names,
        data: node.data.clone(),
        segments: segments.iter().map(|it| in_one(it, boot)).collect(),
    };
    observed.page()
}

/// Packets that the rules refused.
fn refused(drops: &Drops) -> u64 {
    let reasons = [
        DropReason::NoRule,
        DropReason::StrayFragment,
        DropReason::StrayIcmpError,
        DropReason::Unreadable,
    ];
    reasons.map(|reason| drops.get(reason)).iter().sum()
}

/// The numbers of rules, from 1, in the order of the policy.
fn numbers() -> impl Iterator<Item = &'static str> {
    static NUMBERS: LazyLock<Vec<String>> =
        LazyLock::new(|| (1..=MAX_RULES).map(|number| number.to_string()).collect());
    NUMBERS.iter().map(String::as_str)
}

fn peers(agent: InSegment<'_>, view: &View<'_>, data: &Snapshot) -> Tally<PeerState> {
    let mut peers = Tally::new(&PeerState::ALL);
    let Some(update) = view.update else {
        return peers;
    };
    let own = agent.place().node;
    let by_key: HashMap<_, _> = data.peers.iter().map(|peer| (peer.key, peer)).collect();
    for member in update.roster.iter().filter(|member| member.node != own) {
        let seen = by_key.get(&member.wg).copied();
        if agent.apart(&member.node).is_some() {
            continue;
        }
        peers.count(PeerState::of(update.epoch, seen));
    }
    for _ in update.excluded.iter().filter(|it| it.node != own) {
        peers.count(PeerState::Excluded);
    }
    peers
}

fn probed(agent: InSegment<'_>, view: &View<'_>) -> Tally<Answered> {
    let mut probed = Tally::new(&Answered::ALL);
    let members = view.update.into_iter().flat_map(|update| &update.roster);
    for member in members.filter(|member| member.node != agent.place().node) {
        probed.count(match agent.ping(&member.node) {
            Some(pings) => Answered::of(pings.v4.is_ok(), pings.v6.is_ok()),
            None => Answered::NotAsked,
        });
    }
    probed
}

impl Observed<'_> {
    fn page(&self) -> Page {
        let mut page = Page::default();
        page.put_each(BUILD_INFO, [(env!("CARGO_PKG_VERSION"), true)]);
        let all = &self.segments;
        let epoch = |it: &InOne<'_>| it.epoch.map_or(0, |epoch| epoch.0);
        let lease = |it: &InOne<'_>| it.lease.unwrap_or_default().as_secs_f64();
        page.put_in(EPOCH, all, |it| (it.name, epoch(it)));
        page.put_in(MEMBER, all, |it| (it.name, it.member));
        page.put_in(LEASE, all, |it| (it.name, lease(it)));
        let Counts {
            control_connections,
            updates_accepted,
            updates_unverified,
            updates_rejected,
            evidence_accepted,
            evidence_refused,
        } = *self.counts;
        let updates = [
            ("accepted", updates_accepted),
            ("unverified", updates_unverified),
            ("rejected", updates_rejected),
        ];
        page.put_each(EPOCH_UPDATES, updates);
        page.put(CONTROL, self.connected);
        page.put(CONTROL_CONNECTIONS, control_connections);
        let evidence = [
            ("accepted", evidence_accepted),
            ("refused", evidence_refused),
        ];
        page.put_each(EVIDENCE, evidence);
        let Health {
            succeeded,
            failed,
            failing,
        } = self.benchmark;
        let runs = [("succeeded", *succeeded), ("failed", *failed)];
        page.put_each(BENCHMARK_RUNS, runs);
        page.put(BENCHMARK_FAILING, failing.is_some());
        page.put_each_in(PEERS, all, |it| {
            (it.name, it.peers.iter().map(|(it, n)| (it.name(), n)))
        });
        page.put_each_in(PROBED, all, |it| {
            (it.name, it.probed.iter().map(|(it, n)| (it.name(), n)))
        });
        page.put_each_in(WAYS, all, |it| {
            let [tunnel, elsewhere, unknown] = it.ways;
            let ways = [
                ("tunnel", tunnel),
                ("elsewhere", elsewhere),
                ("unknown", unknown),
            ];
            (it.name, ways)
        });
        page.put_each_in(INTERFACE_FAULTS, all, |it| {
            let faults = &it.condition.faults;
            let of = |kind| faults.iter().filter(|fault| fault.kind() == kind).count();
            (it.name, Fault::KINDS.map(|kind| (kind, of(kind) as u64)))
        });
        let packets = |it: &Traffic| [("sent", it.tx_packets), ("received", it.rx_packets)];
        page.put_each_in(PACKETS, all, |it| (it.name, packets(&it.traffic)));
        let bytes = |it: &Traffic| [("sent", it.tx_bytes), ("received", it.rx_bytes)];
        page.put_each_in(BYTES, all, |it| (it.name, bytes(&it.traffic)));
        page.put_in(HANDSHAKES, all, |it| (it.name, it.handshakes));
        page.put_in(HANDSHAKE_AGE, all, |it| {
            (it.name, it.handshake_age.as_secs_f64())
        });
        let drops = all.iter().map(|it| (it.name, &it.drops));
        // Of those the tunnel is not known, nor the segment.
        let drops: Vec<_> = drops.chain([("", &self.data.drops)]).collect();
        page.put_each_in(DROPPED, &drops, |(name, drops)| {
            (*name, drops.iter().map(|(reason, n)| (reason.name(), n)))
        });
        page.put_each_in(RULES, all, |it| {
            let passed = numbers().zip(it.passed.iter().copied());
            (it.name, passed.chain([("refused", it.refused)]))
        });
        let IoFailures {
            tun_write,
            udp_send,
        } = self.data.io;
        page.put_each(
            IO_FAILURES,
            [("tun_write", tun_write), ("udp_send", udp_send)],
        );
        let offloads = self.data.offloads.iter();
        page.put_each(OFFLOAD, offloads.map(|(name, off)| (*name, off.is_none())));
        page.put_each(DNS_QUERIES, self.names.each());
        page.put(DATA_THREADS, self.data.threads as u64);
        page
    }
}

/// The state of another node, by this node's session with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PeerState {
    /// A live session of the epoch in force.
    Current,
    /// A live session of an older epoch.
    Lagging,
    /// None: broken, or there was nothing to send yet.
    NoSession,
    /// It is no member.
    Excluded,
}

impl PeerState {
    const ALL: [Self; 4] = [
        Self::Current,
        Self::Lagging,
        Self::NoSession,
        Self::Excluded,
    ];

    /// Of a member of `epoch`.
    fn of(epoch: Epoch, seen: Option<&PeerSnapshot>) -> Self {
        match seen.and_then(|peer| peer.session_epoch) {
            Some(session) if session < epoch => Self::Lagging,
            Some(_) => Self::Current,
            None => Self::NoSession,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Lagging => "lagging",
            Self::NoSession => "no_session",
            Self::Excluded => "excluded",
        }
    }
}

/// The families on which the last echoes of a member came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answered {
    Both,
    Ipv4,
    Ipv6,
    Neither,
    /// Nobody has asked of late: in a large mesh not every round asks everybody.
    NotAsked,
}

impl Answered {
    const ALL: [Self; 5] = [
        Self::Both,
        Self::Ipv4,
        Self::Ipv6,
        Self::Neither,
        Self::NotAsked,
    ];

    fn of(v4: bool, v6: bool) -> Self {
        match (v4, v6) {
            (true, true) => Self::Both,
            (true, false) => Self::Ipv4,
            (false, true) => Self::Ipv6,
            (false, false) => Self::Neither,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Neither => "neither",
            Self::NotAsked => "not_asked",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::offload::{OffloadSwitches, Offloads};
    use exposition::{Metric, Value};
    use keys::WgPublicKey;
    use std::collections::BTreeSet;
    use tunnel::{Drops, Traffic};

    /// Every value of every label.
    const VALUES: &[(Metric, &str)] = &[
        (BUILD_INFO, env!("CARGO_PKG_VERSION")),
        (EPOCH_UPDATES, "accepted unverified rejected"),
        (EVIDENCE, "accepted refused"),
        (BENCHMARK_RUNS, "succeeded failed"),
        (PEERS, "current lagging no_session excluded"),
        (PROBED, "both ipv4 ipv6 neither not_asked"),
        (
            DROPPED,
            "malformed no_route no_endpoint no_session no_generation endpoint_inside_mesh \
             source_not_allowed destination_not_allowed \
             unknown_index unknown_peer bad_mac bad_handshake bad_aead replayed too_large \
             under_load lease_over no_rule stray_fragment stray_icmp_error unreadable",
        ),
        (WAYS, "tunnel elsewhere unknown"),
        (
            INTERFACE_FAULTS,
            "gone renamed down address_missing no_ipv6 mtu queue_length foreign_address unseen",
        ),
        (PACKETS, "sent received"),
        (BYTES, "sent received"),
        (RULES, "refused"),
        (IO_FAILURES, "tun_write udp_send"),
        (
            OFFLOAD,
            "tun_tso tun_uso tun_tcp_merge tun_udp_merge udp_gso udp_gro",
        ),
        (DNS_QUERIES, "found empty no_name refused malformed dropped"),
    ];

    fn nothing() -> Common {
        Common {
            drops: Drops::default(),
            io: IoFailures::default(),
            offloads: all_off(),
            threads: 0,
        }
    }

    fn all_off() -> Vec<(&'static str, Option<String>)> {
        let switches = OffloadSwitches {
            tun_tcp: false,
            tun_udp: false,
            udp_gso: false,
            udp_gro: false,
        };
        Offloads::new(switches).states()
    }

    const WELL: Health = Health {
        succeeded: 0,
        failed: 0,
        failing: None,
    };

    fn unasked() -> &'static naming::Counts {
        static UNASKED: LazyLock<naming::Counts> = LazyLock::new(naming::Counts::default);
        &UNASKED
    }

    /// A node that has just started, in one segment.
    fn started(counts: &Counts) -> Observed<'_> {
        let first = InOne {
            name: "default",
            epoch: None,
            member: false,
            lease: None,
            peers: Tally::new(&PeerState::ALL),
            probed: Tally::new(&Answered::ALL),
            ways: [0; 3],
            // An interface of which nothing is wrong.
            condition: Condition {
                state: wire::admin::InterfaceState::Ok,
                faults: Vec::new(),
                carries: [true, true],
            },
            traffic: Traffic::default(),
            handshakes: 0,
            handshake_age: Duration::ZERO,
            passed: Vec::new(),
            refused: 0,
            drops: Drops::default(),
        };
        Observed {
            connected: false,
            benchmark: &WELL,
            counts,
            names: unasked(),
            data: nothing(),
            segments: vec![first],
        }
    }

    #[test]
    fn every_metric_is_exported_from_zero_and_named_by_the_rule() {
        let counts = Counts::default();
        let page = started(&counts).page();
        let made: Vec<Metric> = page.families().map(|(metric, _)| *metric).collect();
        assert_eq!(made, ALL, "each once, in the order of their declaration");
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len(), "no name twice");
        for (metric, samples) in page.families() {
            assert!(metric.is_well_named(), "{}", metric.name);
            assert!(!metric.help.ends_with('.'), "{}", metric.name);
            let zero = |value: &Value| [Value::Count(0), Value::Amount(0.0)].contains(value);
            let zeros = samples.iter().all(|it| zero(&it.value));
            assert!(zeros || *metric == BUILD_INFO, "{}", metric.name);
            let is_of_none = |it: &&exposition::Sample| it.segment.as_deref() == Some("");
            let of_none: Vec<_> = samples.iter().filter(is_of_none).collect();
            assert!(of_none.is_empty() || *metric == DROPPED, "{}", metric.name);
            let in_one = samples.iter().filter(|it| !is_of_none(it));
            let labels: Vec<_> = in_one.filter_map(|it| it.label).collect();
            let expected = VALUES.iter().find(|(it, _)| it == metric);
            let expected = expected.map_or("", |(_, values)| *values);
            assert_eq!(labels.join(" "), expected, "{}", metric.name);
            assert_eq!(
                metric.label.is_some(),
                !labels.is_empty(),
                "{}",
                metric.name
            );
            assert!(!samples.is_empty(), "{}", metric.name);
        }
    }

    #[test]
    fn what_is_observed_is_what_is_shown() {
        let mut counts = Counts::default();
        counts.updates_rejected += 1;
        counts.evidence_refused += 1;
        counts.control_connections = 3;
        let mut observed = started(&counts);
        observed.data.io.udp_send = 7;
        observed.connected = true;
        let mut other = started(&counts).segments.remove(0);
        other.name = "training";
        other.epoch = Some(Epoch(3));
        let first = &mut observed.segments[0];
        first.epoch = Some(Epoch(12));
        first.member = true;
        first.lease = Some(Duration::from_millis(1_500));
        first.peers.count(PeerState::Lagging);
        first.probed.count(Answered::Ipv6);
        first.handshake_age = Duration::from_secs(2);
        first.ways = [3, 1, 0];
        first.condition.faults.push(Fault::Down);
        first.passed = vec![5, 0];
        first.refused = 2;
        observed.segments.push(other);
        let text = observed.page().text(exposition::Format::OpenMetrics);
        let standing: Vec<_> = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.ends_with(" 0"))
            .collect();
        let build = format!(
            "meshd_build_info{{version=\"{}\"}} 1",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(
            standing,
            [
                &build,
                "meshd_epoch_current{segment=\"default\"} 12",
                "meshd_epoch_current{segment=\"training\"} 3",
                "meshd_member{segment=\"default\"} 1",
                "meshd_lease_remaining_seconds{segment=\"default\"} 1.5",
                "meshd_lease_remaining_seconds{segment=\"training\"} 0.0",
                "meshd_epoch_updates_total{result=\"rejected\"} 1",
                "meshd_control_connected 1",
                "meshd_control_connections_total 3",
                "meshd_evidence_total{result=\"refused\"} 1",
                "meshd_peers{segment=\"default\",state=\"lagging\"} 1",
                "meshd_probed_peers{segment=\"default\",answered=\"ipv6\"} 1",
                "meshd_peer_routes{segment=\"default\",way=\"tunnel\"} 3",
                "meshd_peer_routes{segment=\"default\",way=\"elsewhere\"} 1",
                "meshd_interface_faults{segment=\"default\",kind=\"down\"} 1",
                "meshd_oldest_handshake_seconds{segment=\"default\"} 2.0",
                "meshd_oldest_handshake_seconds{segment=\"training\"} 0.0",
                "meshd_rule_packets_total{segment=\"default\",rule=\"1\"} 5",
                "meshd_rule_packets_total{segment=\"default\",rule=\"refused\"} 2",
                "meshd_io_failures_total{kind=\"udp_send\"} 7",
            ]
        );
    }

    #[test]
    fn a_peer_is_current_only_with_a_session_of_the_epoch_in_force() {
        let with = |session_epoch| PeerSnapshot {
            key: WgPublicKey([1; 32]),
            endpoint: None,
            session_epoch,
            session_age: None,
            next_ready: false,
            tx_bytes: 0,
            rx_bytes: 0,
        };
        let state = |session| PeerState::of(Epoch(7), Some(&with(session)));
        assert_eq!(state(Some(Epoch(7))), PeerState::Current);
        assert_eq!(state(Some(Epoch(6))), PeerState::Lagging);
        assert_eq!(state(None), PeerState::NoSession);
        assert_eq!(PeerState::of(Epoch(7), None), PeerState::NoSession);
    }
}
