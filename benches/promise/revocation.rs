//! Revocation that nobody outruns: from an operator's word at the controller to the last packet of the
//! evicted node that any survivor delivered.
//!
//! One trial: the node floods every survivor; it is made deaf to the controller, so that it never
//! learns of its eviction and goes on with its live sessions; the eviction is asked for; what still
//! arrives is watched until nothing has for a while; it is readmitted, and the next trial begins a second
//! after every survivor has heard it again.
//!
//! The file is long because trial, watch and report of one promise belong together.

use crate::flood::{self, MARK};
use crate::flooder::{Flood, Flooder};
use crate::lab::{self, DURABLE, IN_FORCE, Machine, Raised, Request, logged, post};
use crate::picture::{self, Panel};
use crate::report::{self, Table, ms};
use crate::stamps::{Ear, Wall, wall};
use crate::stats::Sample;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tests::harness::{Builder, CONTROLLER, Line, Mesh, PATIENCE, mesh::name, now, poll};
use wire::admin::{EpochChange, Membership, NodeStatus};

pub(crate) fn measure() -> bool {
    let trials = lab::setting("TRIALS", 200);
    let sizes: Vec<usize> = lab::settings("NODES", "3 50");
    let round_trips: Vec<u64> = lab::settings("CONTROL_RTT_MS", "0");
    let machine = Machine::look();
    let runs = sizes.into_iter().flat_map(|nodes| {
        let each = round_trips.iter();
        each.map(move |ms| run(nodes, trials, Duration::from_millis(*ms)))
    });
    let runs: Vec<Run> = runs.collect();
    let fine = runs.iter().all(|run| run.failed.is_empty());
    write(&machine, &runs);
    fine
}

/// All trials with one mesh.
#[derive(Debug, Serialize)]
struct Run {
    nodes: usize,
    target_p99_ms: f64,
    epoch_seconds: u64,
    /// Between the controller and each node.
    control_rtt_ms: u64,
    /// A member that floods its controller with this all the time, if there is one.
    accomplice: Option<String>,
    /// Times that it was cut, or turned away.
    accomplice_cut: u64,
    /// Datagrams per second that the evicted node sends to each survivor.
    rate: u64,
    /// Between two datagrams that one survivor delivered while the sender was a member.
    gap_ms_p50: f64,
    gap_ms_p99: f64,
    failed: Vec<String>,
    trials: Vec<Trial>,
}

impl Run {
    /// Its mesh in a few words.
    fn title(&self) -> String {
        let mut title = self.nodes.to_string();
        if self.control_rtt_ms > 0 {
            title += &format!(", {} ms to the controller and back", self.control_rtt_ms);
        }
        if let Some(flood) = &self.accomplice {
            title += &format!(", an accomplice floods it with {flood}");
        }
        title
    }
}

/// One eviction. Times in milliseconds after the moment just before it was asked for.
#[derive(Debug, Serialize)]
struct Trial {
    epoch: u64,
    /// The last datagram that any survivor delivered.
    last_delivery_ms: f64,
    /// The same for the survivor in the middle.
    last_delivery_of_median_survivor_ms: f64,
    /// The controller answered.
    answered_ms: f64,
    /// The eviction was in the controller's log on disk.
    durable_ms: Option<f64>,
    /// The first, the middle and the last survivor said that the new epoch is in force.
    in_force_ms: Option<[f64; 3]>,
    /// Datagrams delivered after the moment of the request, by all survivors.
    delivered: u64,
    /// How long nothing was delivered before the node was readmitted.
    silent_ms: f64,
}

fn run(nodes: usize, trials: usize, round_trip: Duration) -> Run {
    let _raised = Raised::neighbours(nodes);
    let epoch_seconds = lab::setting("EPOCH_SECONDS", 60);
    let far = Far::new(round_trip);
    let mesh = lab::start_with(
        nodes,
        |builder| far.settings(nodes, builder.epoch_seconds(epoch_seconds)),
        |mesh| far.connect(mesh),
    );
    let (mut mesh, _line) = mesh;
    let accomplice = Accomplice::start(&mut mesh, far.controller());
    let rate = lab::setting(
        "RATE",
        (ALL_PER_SECOND / (nodes as u64 - 1)).min(EACH_PER_SECOND),
    );
    let mut stage = Stage::new(mesh, rate);
    let mut run = Run {
        nodes,
        target_p99_ms: target(nodes, accomplice.is_some(), round_trip),
        epoch_seconds,
        control_rtt_ms: u64::try_from(round_trip.as_millis()).unwrap_or(u64::MAX),
        accomplice: accomplice.as_ref().map(|it| it.flood.clone()),
        accomplice_cut: 0,
        rate,
        gap_ms_p50: 0.0,
        gap_ms_p99: 0.0,
        failed: Vec::new(),
        trials: Vec::new(),
    };
    for number in 0..trials {
        match stage.trial(number) {
            Ok(trial) => {
                println!(
                    "{nodes} nodes, {}/{trials}: last delivery after {:.2} ms",
                    number + 1,
                    trial.last_delivery_ms
                );
                run.trials.push(trial);
            }
            Err(reason) => {
                println!("{nodes} nodes, {}/{trials}: FAILED: {reason}", number + 1);
                run.failed.push(format!("trial {}: {reason}", number + 1));
            }
        }
    }
    stage.add_phases(&mut run.trials);
    let gaps = Sample::new(stage.ears.gaps.iter().map(|gap| *gap as f64 / 1e6));
    (run.gap_ms_p50, run.gap_ms_p99) = (gaps.median(), gaps.percentile(99.0));
    if let Some(accomplice) = accomplice {
        run.accomplice_cut = accomplice.flooder.cut();
        let ended = accomplice.flooder.stop();
        run.failed
            .extend(ended.err().map(|error| format!("the accomplice: {error}")));
    }
    run
}

/// The promise: the news takes half a round trip at least, and a lost datagram another.
fn target(nodes: usize, has_accomplice: bool, round_trip: Duration) -> f64 {
    let near = if nodes <= FEW && !has_accomplice {
        25.0
    } else {
        100.0
    };
    near + round_trip.as_secs_f64() * 1e3
}

/// The way to the controller, if it is a long one.
struct Far {
    round_trip: Duration,
}

impl Far {
    fn new(round_trip: Duration) -> Self {
        Self { round_trip }
    }

    fn is_there(&self) -> bool {
        !self.round_trip.is_zero()
    }

    /// Where nodes find the controller.
    fn controller(&self) -> SocketAddr {
        if self.is_there() {
            LINE_AT
        } else {
            CONTROLLER_AT
        }
    }

    fn settings(&self, nodes: usize, mut builder: Builder) -> Builder {
        if !self.is_there() {
            return builder;
        }
        builder = builder.every_node_setting("controller", format!("[\"{LINE_AT}\"]"));
        // The controller sees them all at the line's end.
        for (index, node) in tests::harness::mesh::node_names(nodes)
            .into_iter()
            .enumerate()
        {
            let own = format!("[\"198.18.1.{}:51820\"]", index + 1);
            builder = builder.node_setting(&node, "advertise", own);
        }
        builder
    }

    fn connect(&self, mesh: &mut Mesh) -> Option<Line> {
        mesh.add_host("line", LINE_INDEX);
        let delay = self.round_trip / 2;
        let at = mesh.namespace("line");
        self.is_there()
            .then(|| Line::start(at, LINE_AT, CONTROLLER_AT, delay))
    }
}

/// A member that has no tunnel, and floods its controller for as long as it is there.
struct Accomplice {
    flood: String,
    flooder: Flooder,
}

impl Accomplice {
    /// With the flood that `ACCOMPLICE` names; it was a member before.
    fn start(mesh: &mut Mesh, controller: SocketAddr) -> Option<Self> {
        let named = std::env::var("ACCOMPLICE").ok()?;
        let flood = Flood::ALL
            .into_iter()
            .find(|flood| format!("{flood:?}").eq_ignore_ascii_case(&named))
            .unwrap_or_else(|| panic!("ACCOMPLICE is one of {:?}", Flood::ALL));
        mesh.add_host(ACCOMPLICE, ACCOMPLICE_INDEX);
        let token = mesh.token(ACCOMPLICE).parse().expect("a token");
        let flooder = Flooder::start(mesh.namespace(ACCOMPLICE), token, controller);
        let is_member = || {
            let status = lab::controller_status(mesh).ok();
            let accomplice = status.and_then(|mut status| status.nodes.remove(&name(ACCOMPLICE)));
            accomplice.is_some_and(|node| node.membership == Membership::Allowed)
        };
        assert!(poll(PATIENCE, is_member), "the accomplice is no member");
        flooder.begin(flood);
        Some(Self {
            flood: format!("{flood:?}"),
            flooder,
        })
    }
}

/// A mesh with its flood.
struct Stage {
    // The flood ends before its mesh.
    _flood: flood::Flood,
    ears: Ears,
    evicted: String,
    survivors: Vec<String>,
    /// When each eviction was asked for, by its epoch.
    asked: BTreeMap<u64, Wall>,
    mesh: Mesh,
}

impl Stage {
    fn new(mesh: Mesh, rate: u64) -> Self {
        let mut survivors = mesh.nodes();
        // The accomplice has no tunnel, and nobody to hear.
        let evicted = survivors.pop().expect("a mesh has nodes");
        let status = lab::controller_status(&mesh).expect("the controller answers");
        let address = |node: &String| status.nodes[&name(node)].v4.into();
        let ears = survivors
            .iter()
            .map(|node| Ear::open(mesh.namespace(node), address(node), PORT));
        let ears = Ears::new(ears.collect());
        let targets = survivors
            .iter()
            .map(|node| (address(node), PORT).into())
            .collect();
        let flood =
            flood::Flood::inside(mesh.namespace(&evicted), address(&evicted), targets, rate);
        nft(&mesh, &evicted, "add table inet deaf");
        nft(
            &mesh,
            &evicted,
            "add chain inet deaf in { type filter hook input priority 0; }",
        );
        Self {
            _flood: flood,
            ears,
            evicted,
            survivors,
            asked: BTreeMap::new(),
            mesh,
        }
    }

    fn trial(&mut self, number: usize) -> Result<Trial, String> {
        self.wait_until_heard()?;
        // The handshakes of two epochs a second would be another measurement. Evictions fall anywhere
        // between two datagrams and between two timers.
        std::thread::sleep(REST + Duration::from_millis((number as u64 * 37) % 101));
        self.deafen(true);
        let trial = self.evict(if number.is_multiple_of(LONG_EVERY) {
            LONG_WATCH
        } else {
            WATCH
        });
        self.deafen(false);
        let readmitted: io::Result<NodeStatus> = post(&self.mesh, &self.path("readmit"), "");
        if let Err(error) = readmitted.and_then(|_| self.hurry()) {
            return Err(format!("not readmitted: {error}"));
        }
        trial
    }

    fn evict(&mut self, watch: Duration) -> Result<Trial, String> {
        let wrong = |error: io::Error| format!("not evicted: {error}");
        let request =
            Request::new(&self.mesh, CONTROLLER, "POST", &self.path("evict"), "").map_err(wrong)?;
        self.ears.listen();
        let asked = wall();
        let change: EpochChange = request.send().map_err(wrong)?;
        let answered = wall();
        self.ears.count_from(asked);
        let watch_ns = Wall::try_from(watch.as_nanos()).unwrap_or(Wall::MAX);
        let silent = poll(STILL_DELIVERS, || {
            self.ears.listen();
            wall() - self.ears.last().max(answered) >= watch_ns
        });
        if !silent {
            return Err(format!(
                "still delivered {} s later",
                STILL_DELIVERS.as_secs()
            ));
        }
        self.asked.insert(change.epoch, asked);
        let after = |at: Wall| (at - asked) as f64 / 1e6;
        Ok(Trial {
            epoch: change.epoch,
            last_delivery_ms: after(self.ears.last()),
            last_delivery_of_median_survivor_ms: Sample::new(
                self.ears.last.iter().map(|at| after(*at)),
            )
            .median(),
            answered_ms: after(answered),
            durable_ms: None,
            in_force_ms: None,
            delivered: self.ears.counted,
            silent_ms: (wall() - self.ears.last()) as f64 / 1e6,
        })
    }

    /// Where the time goes, from what the daemons logged.
    fn add_phases(&self, trials: &mut [Trial]) {
        let durable = logged(&self.mesh, CONTROLLER, DURABLE);
        let in_force: Vec<_> = self
            .survivors
            .iter()
            .map(|node| logged(&self.mesh, node, IN_FORCE))
            .collect();
        for trial in trials {
            let after = |at: Wall| (at - self.asked[&trial.epoch]) as f64 / 1e6;
            trial.durable_ms = durable.get(&trial.epoch).map(|at| after(*at));
            let said: Option<Vec<f64>> = in_force
                .iter()
                .map(|times| times.get(&trial.epoch).map(|at| after(*at)))
                .collect();
            trial.in_force_ms = said.map(|said| {
                let said = Sample::new(said);
                [said.min(), said.median(), said.max()]
            });
        }
    }

    fn path(&self, what: &str) -> String {
        format!("/v1/nodes/{}/{what}", self.evicted)
    }

    /// An epoch at once, which the readmitted node is in.
    fn hurry(&self) -> io::Result<EpochChange> {
        post(&self.mesh, "/v1/epoch/rotate", "{\"now\": true}")
    }

    fn wait_until_heard(&mut self) -> Result<(), String> {
        let (began, mut hurried) = (wall(), now());
        let heard = poll(HEARD_AGAIN, || {
            self.ears.listen();
            // Its evidence may have been too old just then.
            if hurried.elapsed() > Duration::from_secs(5) {
                hurried = now();
                let _ = self.hurry();
            }
            self.ears.last.iter().all(|last| *last > began)
        });
        if heard {
            Ok(())
        } else {
            Err("not every survivor hears the node that is to be evicted".into())
        }
    }

    /// Whether the node hears its controller; it goes on talking to it.
    fn deafen(&self, deaf: bool) {
        if deaf {
            for controller in [CONTROLLER_AT, LINE_AT] {
                let rule = format!("add rule inet deaf in ip saddr {} drop", controller.ip());
                nft(&self.mesh, &self.evicted, &rule);
            }
            nft(
                &self.mesh,
                &self.evicted,
                "add rule inet deaf in ip6 saddr fd00:6d65:7368::1 drop",
            );
        } else {
            nft(&self.mesh, &self.evicted, "flush chain inet deaf in");
        }
    }
}

fn nft(mesh: &Mesh, host: &str, rule: &str) {
    let output = mesh.exec(
        host,
        &[&["nft"], &rule.split(' ').collect::<Vec<_>>()[..]].concat(),
    );
    assert!(
        output.status.success(),
        "nft {rule}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The flood as the survivors hear it.
struct Ears {
    ears: Vec<Ear>,
    /// When each heard it last.
    last: Vec<Wall>,
    /// Nanoseconds between two datagrams, where nobody was evicted in between.
    gaps: Vec<Wall>,
    counted: u64,
    count_from: Wall,
}

impl Ears {
    fn new(ears: Vec<Ear>) -> Self {
        let last = vec![0; ears.len()];
        Self {
            ears,
            last,
            gaps: Vec::new(),
            counted: 0,
            count_from: Wall::MAX,
        }
    }

    fn listen(&mut self) {
        for (ear, last) in self.ears.iter().zip(&mut self.last) {
            ear.drain(|at, datagram| {
                if !datagram.starts_with(&MARK[..8]) {
                    return;
                }
                self.counted += u64::from(at >= self.count_from);
                if at - *last < LONGEST_GAP && self.gaps.len() < MOST_GAPS {
                    self.gaps.push(at - *last);
                }
                *last = at.max(*last);
            });
        }
    }

    /// Counts what arrives from `at` on, unless it has been taken already.
    fn count_from(&mut self, at: Wall) {
        self.counted = 0;
        self.count_from = at;
    }

    fn last(&self) -> Wall {
        self.last.iter().copied().max().unwrap_or(0)
    }
}

fn write(machine: &Machine, runs: &[Run]) {
    let mut times = Table::new(&[
        "Nodes",
        "trials",
        "p50, ms",
        "p90, ms",
        "p99, ms",
        "max, ms",
        "target, p99",
        "",
    ]);
    let mut phases = Table::new(&["Nodes", "", "p50, ms", "p99, ms", "max, ms"]);
    for run in runs {
        let sample = Sample::new(run.trials.iter().map(|trial| trial.last_delivery_ms));
        let p99 = sample.percentile(99.0);
        let verdict = if !run.failed.is_empty() {
            format!("{} failed", run.failed.len())
        } else if p99 <= run.target_p99_ms {
            "met".into()
        } else {
            "MISSED".into()
        };
        times.row([
            run.title(),
            sample.len().to_string(),
            ms(sample.median()),
            ms(sample.percentile(90.0)),
            ms(p99),
            ms(sample.max()),
            format!("{} ms", run.target_p99_ms),
            verdict,
        ]);
        let mut phase = |what: &str, values: Vec<f64>| {
            let sample = Sample::new(values);
            let figures = [sample.median(), sample.percentile(99.0), sample.max()].map(ms);
            phases.row([&[run.title(), what.to_owned()][..], &figures[..]].concat());
        };
        let all = |of: fn(&Trial) -> Option<f64>| run.trials.iter().filter_map(of).collect();
        phase(
            "durable in the controller's log",
            all(|trial| trial.durable_ms),
        );
        phase(
            "in force at the first survivor",
            all(|trial| trial.in_force_ms.map(|at| at[0])),
        );
        phase(
            "in force at the middle survivor",
            all(|trial| trial.in_force_ms.map(|at| at[1])),
        );
        phase(
            "in force at the last survivor",
            all(|trial| trial.in_force_ms.map(|at| at[2])),
        );
        phase(
            "operator has the answer",
            all(|trial| Some(trial.answered_ms)),
        );
        phase(
            "last delivery, middle survivor",
            all(|trial| Some(trial.last_delivery_of_median_survivor_ms)),
        );
        phase(
            "last delivery, any survivor",
            all(|trial| Some(trial.last_delivery_ms)),
        );
    }
    let mut words = vec![
        "# Revocation that nobody outruns".to_owned(),
        format!("Written by `cargo bench --bench promise -- revocation`. {}", machine.words()),
        "From the moment just before the eviction is asked for on the controller's socket, which is before the \
         decision, to the last packet of the evicted node that any survivor delivered to its TUN device, by the \
         kernel's receive time. The evicted node does not learn of its eviction and sends on all the time."
            .to_owned(),
        times.to_string(),
        "![Histogram](revocation.svg)".to_owned(),
    ];
    for run in runs {
        let silent = run
            .trials
            .iter()
            .map(|trial| trial.silent_ms)
            .fold(f64::INFINITY, f64::min);
        words.push(format!(
            "{}: {} packets a second to each survivor, so one every {} ms on average, which is the resolution; \
             of the gaps between those that were delivered, 99 in 100 were below {} ms. After the last delivery \
             nothing more came for at least {silent:.0} ms, when the node was readmitted.",
            run.title(),
            run.rate,
            ms(1e3 / run.rate as f64),
            ms(run.gap_ms_p99),
        ));
        words.extend(
            run.failed
                .iter()
                .map(|failure| format!("FAILED: {failure}")),
        );
    }
    words.push("## Where the time goes".to_owned());
    words.push("Milliseconds after the same moment, from the daemons' logs.".to_owned());
    words.push(phases.to_string());
    report::write("revocation.md", &(words.join("\n\n") + "\n"));
    let json = serde_json::json!({ "machine": machine, "runs": runs });
    report::write("revocation.json", &report::json(&json));
    let panels: Vec<Panel> = runs.iter().map(panel).collect();
    let title = "From the operator's word to the last packet of the evicted node";
    report::write(
        "revocation.svg",
        &picture::histograms(title, &machine.words(), &panels),
    );
}

fn panel(run: &Run) -> Panel {
    let values: Vec<f64> = run
        .trials
        .iter()
        .map(|trial| trial.last_delivery_ms)
        .collect();
    let p99 = Sample::new(values.clone()).percentile(99.0);
    Panel::of_values(
        format!("{} nodes, {} evictions", run.title(), run.trials.len()),
        "milliseconds".into(),
        &values,
        vec![
            (p99, format!("p99 {} ms", ms(p99))),
            (
                run.target_p99_ms,
                format!("target {} ms", run.target_p99_ms),
            ),
        ],
    )
}

const PORT: u16 = 9_000;
const ACCOMPLICE: &str = "accomplice";
const ACCOMPLICE_INDEX: usize = 251;
const LINE_INDEX: usize = 252;
const LINE_AT: SocketAddr = at([198, 18, 1, 253]);
const CONTROLLER_AT: SocketAddr = at([198, 18, 0, 1]);
/// After the epoch that readmitted the node: its handshakes take 0.3 s, and 0.8 s at most.
const REST: Duration = Duration::from_millis(1_000);
const FEW: usize = 3;
const EACH_PER_SECOND: u64 = 2_000;
const ALL_PER_SECOND: u64 = 10_000;
const WATCH: Duration = Duration::from_millis(300);
const LONG_WATCH: Duration = Duration::from_secs(2);
/// Every so many trials the silence is watched for longer.
const LONG_EVERY: usize = 20;
const STILL_DELIVERS: Duration = Duration::from_secs(15);
const HEARD_AGAIN: Duration = Duration::from_secs(40);
/// Between two datagrams of one flood; more is an eviction.
const LONGEST_GAP: Wall = 100_000_000;
const MOST_GAPS: usize = 2_000_000;

const fn at([a, b, c, d]: [u8; 4]) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), 7443)
}
