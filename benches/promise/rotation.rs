//! Rotation that nobody notices: what traffic loses when an epoch begins every second, held against
//! the same traffic through a mesh that does not rotate.
//!
//! Two meshes of two nodes are up all the time, one that rotates and one that does not; the runs take
//! turns, and the order turns as well. Three things show that a run rotated: the epochs that began meanwhile,
//! the epochs whose sessions were seen to carry, and the handshakes on the underlay.
//!
//! The file is long because runs, watch and report of one promise belong together.

use crate::lab::{self, Machine, Raised};
use crate::report::{self, Table, count};
use crate::stamps::Capture;
use crate::stats::{Sample, two_proportions};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tests::harness::{Mesh, mesh::name, poll};

pub(crate) fn measure() -> bool {
    let seconds: u64 = lab::setting("SECONDS", 60);
    let rounds: usize = lab::setting("ROUNDS", 3);
    let scenarios: Vec<String> = lab::settings("SCENARIOS", "udp tcp loss");
    let machine = Machine::look();
    let _raised = Raised::buffers();
    let meshes = [ROTATING, STILL].map(|(word, epoch)| (word, prepare(epoch)));
    let mut runs = Vec::new();
    for scenario in SCENARIOS
        .iter()
        .filter(|scenario| scenarios.iter().any(|s| s == scenario.name))
    {
        if scenario.loss_percent > 0 {
            meshes
                .iter()
                .for_each(|(_, mesh)| lose(mesh, scenario.loss_percent));
        }
        for round in 0..rounds {
            for turn in 0..meshes.len() {
                let (word, mesh) = &meshes[(round + turn) % meshes.len()];
                let run = run(mesh, word, scenario, round, seconds);
                println!("{}, round {}: {}", scenario.name, round + 1, run.words());
                runs.push(run);
            }
        }
    }
    let fine = runs
        .iter()
        .all(|run| run.failed.is_none() && run.rotated_as_it_should(seconds));
    write(&machine, &runs, seconds);
    fine
}

/// A kind of traffic.
struct Scenario {
    name: &'static str,
    title: &'static str,
    client: &'static [&'static str],
    /// Datagrams that the underlay loses, of a hundred.
    loss_percent: u32,
}

/// One run of iperf3 through one of the meshes.
#[derive(Debug, Default, Serialize)]
struct Run {
    scenario: &'static str,
    mesh: &'static str,
    round: usize,
    failed: Option<String>,
    /// Epochs that began at both nodes while the traffic ran.
    epochs_begun: u64,
    /// Different epochs whose session was the newest between the nodes when they were looked at.
    epochs_seen_in_use: usize,
    initiations: u64,
    responses: u64,
    cookie_replies: u64,
    bits_per_second: f64,
    sent: u64,
    lost: u64,
    out_of_order: u64,
    retransmits: u64,
    /// Datagrams that the underlay lost on purpose, both ways, handshakes included.
    underlay_lost: u64,
    underlay_passed: u64,
    /// Packets that the nodes did not carry, by reason, where that is not zero.
    dropped: BTreeMap<String, u64>,
    /// Datagrams that found a socket's buffer full, both nodes.
    socket_buffer_full: u64,
    /// Packets that found the TUN device's queue full, both nodes.
    tun_queue_full: u64,
    processor_seconds: f64,
}

impl Run {
    fn words(&self) -> String {
        if let Some(reason) = &self.failed {
            return format!("{}: FAILED: {reason}", self.mesh);
        }
        format!(
            "{}: {:.0} Mbit/s, {} of {} lost, {} retransmits, {} epochs begun, {} seen in use, {} handshakes",
            self.mesh,
            self.bits_per_second / 1e6,
            self.lost,
            self.sent,
            self.retransmits,
            self.epochs_begun,
            self.epochs_seen_in_use,
            self.responses
        )
    }

    /// A run without rotations must not pass for one, nor the other way round.
    fn rotated_as_it_should(&self, seconds: u64) -> bool {
        let least = seconds.saturating_mul(8) / 10;
        if self.mesh == ROTATING.0 {
            self.epochs_begun >= least
                && self.responses >= least
                && self.epochs_seen_in_use as u64 >= least / 2
        } else {
            self.epochs_begun == 0
        }
    }
}

fn prepare(epoch_seconds: u64) -> Mesh {
    let mesh = lab::start(2, |builder| {
        let builder = builder.epoch_seconds(epoch_seconds);
        builder.controller_setting("max_benchmark_age", 3_600)
    });
    for node in mesh.nodes() {
        mesh.namespace(&node).ip("link set meshd0 txqueuelen 4000");
    }
    mesh
}

/// From now on the underlay loses so many of a hundred WireGuard datagrams, each for itself: a batch
/// of them is taken apart before it comes to where they are lost.
fn lose(mesh: &Mesh, percent: u32) {
    for node in mesh.nodes() {
        mesh.namespace(&node).ip("link set eth0 gso_max_segs 1");
    }
    let rule = format!("udp dport 51820 numgen random mod 100 < {percent} counter drop");
    for line in [
        "add table bridge loss",
        "add chain bridge loss forward { type filter hook forward priority 0; }",
        &format!("add rule bridge loss forward {rule}"),
        "add rule bridge loss forward udp dport 51820 counter",
    ] {
        let mut command = mesh.underlay().command("nft");
        let output = command
            .args(line.split(' '))
            .output()
            .expect("this needs `nft`");
        assert!(
            output.status.success(),
            "nft {line}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// Packets that the underlay has lost on purpose, and packets that it has let pass.
fn lost_on_purpose(mesh: &Mesh) -> (u64, u64) {
    let mut command = mesh.underlay().command("nft");
    let output = command
        .args(["-j", "list", "table", "bridge", "loss"])
        .output();
    let answer: Option<Value> = output
        .ok()
        .and_then(|output| serde_json::from_slice(&output.stdout).ok());
    let rules = answer
        .as_ref()
        .and_then(|answer| answer["nftables"].as_array());
    let counts: Vec<u64> = rules
        .into_iter()
        .flatten()
        .flat_map(|entry| entry["rule"]["expr"].as_array().into_iter().flatten())
        .filter_map(|part| part["counter"]["packets"].as_u64())
        .collect();
    match counts[..] {
        [lost, passed] => (lost, passed),
        _ => (0, 0),
    }
}

/// iperf3 asks for its streams with one datagram, which the underlay may lose: then once more.
fn run(mesh: &Mesh, word: &'static str, scenario: &Scenario, round: usize, seconds: u64) -> Run {
    let mut run = try_run(mesh, word, scenario, round, seconds);
    for _ in 1..ATTEMPTS {
        let reason = run.failed.as_deref().unwrap_or_default();
        if !UNCONNECTED.iter().any(|words| reason.contains(words)) {
            break;
        }
        run = try_run(mesh, word, scenario, round, seconds);
    }
    run
}

fn try_run(
    mesh: &Mesh,
    word: &'static str,
    scenario: &Scenario,
    round: usize,
    seconds: u64,
) -> Run {
    let mut run = Run {
        scenario: scenario.name,
        mesh: word,
        round,
        ..Run::default()
    };
    let capture = Capture::open(mesh.underlay(), None);
    let before = Counters::read(mesh);
    let mut seen = [BTreeSet::new(), BTreeSet::new()];
    let iperf = iperf(mesh, scenario, seconds, || {
        capture.drain(|message| match message.kind {
            1 => run.initiations += 1,
            2 => run.responses += 1,
            _ => run.cookie_replies += 1,
        });
        for (node, seen) in mesh.nodes().iter().zip(&mut seen) {
            let status = lab::node_status(mesh, node);
            let peers = status
                .into_iter()
                .flat_map(|status| status.peers.into_values());
            seen.extend(peers.filter_map(|peer| peer.session_epoch));
        }
    });
    let after = Counters::read(mesh);
    after.since(&before, &mut run);
    run.epochs_seen_in_use = seen[0].intersection(&seen[1]).count();
    if let Err(reason) = iperf.and_then(|said| figures(scenario, &said, &mut run)) {
        run.failed = Some(reason);
    }
    run
}

/// Counters that only ever grow.
struct Counters {
    epochs: [u64; 2],
    dropped: BTreeMap<String, u64>,
    socket_buffer_full: u64,
    tun_queue_full: u64,
    processor_seconds: f64,
    underlay: (u64, u64),
}

impl Counters {
    fn read(mesh: &Mesh) -> Self {
        let nodes = mesh.nodes();
        let statuses = [0, 1].map(|at| lab::node_status(mesh, &nodes[at]).expect("a node answers"));
        let mut dropped = BTreeMap::new();
        for (reason, count) in statuses.iter().flat_map(|status| &status.dropped) {
            *dropped.entry(reason.clone()).or_default() += count;
        }
        let pids: Vec<u32> = nodes.iter().map(|node| mesh.pid(node)).collect();
        Self {
            epochs: [0, 1].map(|at| statuses[at].epoch.unwrap_or(0)),
            dropped,
            socket_buffer_full: pids
                .iter()
                .map(|pid| udp_counter(*pid, "RcvbufErrors"))
                .sum(),
            tun_queue_full: pids.iter().map(|pid| tun_drops(*pid)).sum(),
            processor_seconds: pids.iter().map(|pid| lab::processor_time(*pid)).sum(),
            underlay: lost_on_purpose(mesh),
        }
    }

    fn since(&self, before: &Self, run: &mut Run) {
        let begun = [0, 1].map(|at| self.epochs[at] - before.epochs[at]);
        run.epochs_begun = begun.into_iter().min().unwrap_or(0);
        let grown = self.dropped.iter().map(|(reason, count)| {
            (
                reason.clone(),
                count - before.dropped.get(reason).copied().unwrap_or(0),
            )
        });
        run.dropped = grown.filter(|(_, count)| *count > 0).collect();
        run.socket_buffer_full = self.socket_buffer_full - before.socket_buffer_full;
        run.tun_queue_full = self.tun_queue_full - before.tun_queue_full;
        run.processor_seconds = self.processor_seconds - before.processor_seconds;
        run.underlay_lost = self.underlay.0 - before.underlay.0;
        run.underlay_passed = self.underlay.1 - before.underlay.1;
    }
}

/// A counter of the UDP sockets in the namespace of a process.
fn udp_counter(pid: u32, wanted: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/snmp")).unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        return 0;
    };
    let mut both = names.split(' ').zip(values.split(' '));
    let found = both.find(|(name, _)| *name == wanted);
    found.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}

/// Packets that the TUN device of a process had no room for on their way to it.
fn tun_drops(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("meshd0:"));
    let field = line.and_then(|line| line.split_whitespace().nth(11));
    field.and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// iperf3 from the first node to the second. `look` is called a few times a second meanwhile.
fn iperf(
    mesh: &Mesh,
    scenario: &Scenario,
    seconds: u64,
    mut look: impl FnMut(),
) -> Result<Value, String> {
    let nodes = mesh.nodes();
    let status = lab::node_status(mesh, &nodes[0]).map_err(|error| error.to_string())?;
    let to = status
        .peers
        .get(&name(&nodes[1]))
        .ok_or("the nodes do not know each other")?
        .v4
        .to_string();
    let mut server = mesh.command(&nodes[1], "iperf3");
    let _server = Ended(start(server.args(["-s", "-1", "-B", &to]), Stdio::null())?);
    // Until it listens.
    std::thread::sleep(LISTENS);
    let mut client = mesh.command(&nodes[0], "iperf3");
    client
        .args(["-c", &to, "-J", "-t", &seconds.to_string()])
        .args(scenario.client);
    let file = mesh.folder().join("iperf.json");
    let output = std::fs::File::create(&file).map_err(|error| error.to_string())?;
    let mut client = Ended(start(&mut client, output.into())?);
    let ended = poll(Duration::from_secs(seconds) + CONNECTS, || {
        std::thread::sleep(LOOK);
        look();
        client.0.try_wait().is_ok_and(|status| status.is_some())
    });
    if !ended {
        return Err("iperf3 does not end".into());
    }
    let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
    let said: Value =
        serde_json::from_str(&text).map_err(|error| format!("iperf3 said: {error}"))?;
    match said["error"].as_str() {
        None => Ok(said),
        Some(error) => Err(format!("iperf3: {error}")),
    }
}

fn start(command: &mut Command, output: Stdio) -> Result<Child, String> {
    let command = command
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(Stdio::null());
    command
        .spawn()
        .map_err(|error| format!("this needs `iperf3`: {error}"))
}

/// A process that does not outlive this.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn figures(scenario: &Scenario, said: &Value, run: &mut Run) -> Result<(), String> {
    let end = &said["end"];
    let received = &end["sum_received"];
    run.bits_per_second = received["bits_per_second"]
        .as_f64()
        .ok_or("iperf3 gave no rate")?;
    if scenario.client.contains(&"-u") {
        let number = |of: &Value, field: &str| of[field].as_u64();
        run.sent = number(&end["sum_sent"], "packets").ok_or("iperf3 gave no packets")?;
        run.lost = number(received, "lost_packets").ok_or("iperf3 gave no losses")?;
        run.out_of_order = number(&end["streams"][0]["udp"], "out_of_order").unwrap_or(0);
    } else {
        run.retransmits = end["sum_sent"]["retransmits"].as_u64().unwrap_or(0);
    }
    if run.bits_per_second > 0.0 {
        Ok(())
    } else {
        Err("nothing arrived".into())
    }
}

fn write(machine: &Machine, runs: &[Run], seconds: u64) {
    let mut words = vec![
        "# Rotation that nobody notices".to_owned(),
        format!(
            "Written by `cargo bench --bench promise -- rotation`. {}",
            machine.words()
        ),
        format!(
            "iperf3 for {seconds} s from one node to another, through a mesh with an epoch every second (`{}`) and \
             through one of an hour's epochs (`{}`), in turns. `epochs` began while the traffic ran; `in use` are \
             those whose session was seen to be the newest at both ends, looked at a few times a second; \
             `handshakes` are responses on the underlay.",
            ROTATING.0, STILL.0
        ),
    ];
    for scenario in &SCENARIOS {
        let of: Vec<&Run> = runs
            .iter()
            .filter(|run| run.scenario == scenario.name)
            .collect();
        if of.is_empty() {
            continue;
        }
        words.push(format!("## {}", scenario.title));
        words.push(table(scenario, &of));
        words.push(if scenario.client.contains(&"-u") {
            losses(&of)
        } else {
            throughput(&of)
        });
        let unexpected = of.iter().filter(|run| !run.rotated_as_it_should(seconds));
        words.extend(unexpected.map(|run| {
            format!(
                "DOES NOT COUNT: round {}, {}: it did not rotate as it should.",
                run.round + 1,
                run.mesh
            )
        }));
    }
    report::write("rotation.md", &(words.join("\n\n") + "\n"));
    let json = serde_json::json!({ "machine": machine, "seconds": seconds, "runs": runs });
    report::write("rotation.json", &report::json(&json));
}

fn table(scenario: &Scenario, runs: &[&Run]) -> String {
    let udp = scenario.client.contains(&"-u");
    let figures = if udp {
        ["sent", "lost", "lost, %"]
    } else {
        ["retransmits", "", ""]
    };
    let head = [
        "Round",
        "mesh",
        "Mbit/s",
        figures[0],
        figures[1],
        figures[2],
        "epochs",
        "in use",
        "handshakes",
        "dropped by the nodes",
        "full: socket, TUN queue",
        "daemons' CPU, s",
    ];
    let mut table = Table::new(&head);
    for run in runs {
        let mut cells = vec![(run.round + 1).to_string(), run.mesh.to_owned()];
        if let Some(reason) = &run.failed {
            cells.push(format!("FAILED: {reason}"));
            table.row(cells);
            continue;
        }
        cells.push(format!("{:.1}", run.bits_per_second / 1e6));
        if udp {
            let share = run.lost as f64 / run.sent as f64 * 100.0;
            cells.extend([count(run.sent), count(run.lost), format!("{share:.4}")]);
        } else {
            cells.extend([count(run.retransmits), String::new(), String::new()]);
        }
        let dropped: Vec<String> = run
            .dropped
            .iter()
            .map(|(reason, n)| format!("{reason} {n}"))
            .collect();
        cells.extend([
            run.epochs_begun.to_string(),
            run.epochs_seen_in_use.to_string(),
            run.responses.to_string(),
            if dropped.is_empty() {
                "0".into()
            } else {
                dropped.join(", ")
            },
            format!("{}, {}", run.socket_buffer_full, run.tun_queue_full),
            format!("{:.1}", run.processor_seconds),
        ]);
        table.row(cells);
    }
    table.to_string()
}

fn losses(runs: &[&Run]) -> String {
    let of = |mesh: &str| {
        let runs = runs
            .iter()
            .filter(|run| run.mesh == mesh && run.failed.is_none());
        runs.fold((0, 0), |(lost, sent), run| {
            (lost + run.lost, sent + run.sent)
        })
    };
    let (rotating, still) = (of(ROTATING.0), of(STILL.0));
    let share = |(lost, sent): (u64, u64)| lost as f64 / sent as f64 * 100.0;
    let difference = match two_proportions(rotating, still) {
        Some((z, p)) => format!(
            "two-proportion z test: z = {z:.2}, two-sided p {}",
            probability(p)
        ),
        None => "nothing to test".into(),
    };
    let on_purpose: u64 = runs.iter().map(|run| run.underlay_lost).sum();
    let passed: u64 = runs.iter().map(|run| run.underlay_passed).sum();
    let underlay = if on_purpose + passed > 0 {
        let share = on_purpose as f64 / (on_purpose + passed) as f64 * 100.0;
        format!(
            " The underlay lost {share:.3} % of all WireGuard datagrams, handshakes included, on purpose."
        )
    } else {
        String::new()
    };
    format!(
        "All rounds: rotating {} of {} lost ({:.4} %), still {} of {} ({:.4} %); {difference}.{underlay}",
        count(rotating.0),
        count(rotating.1),
        share(rotating),
        count(still.0),
        count(still.1),
        share(still)
    )
}

fn probability(p: f64) -> String {
    if p < 0.0001 {
        "< 0.0001".into()
    } else {
        format!("= {p:.4}")
    }
}

fn throughput(runs: &[&Run]) -> String {
    let of = |mesh: &'static str| {
        runs.iter()
            .filter(move |run| run.mesh == mesh && run.failed.is_none())
    };
    let ratios = of(ROTATING.0).filter_map(|run| {
        let still = of(STILL.0).find(|still| still.round == run.round)?;
        Some(run.bits_per_second / still.bits_per_second)
    });
    let ratios = Sample::new(ratios);
    let all = |mesh| Sample::new(of(mesh).map(|run| run.bits_per_second)).median() / 1e6;
    let retransmits = |mesh| of(mesh).map(|run| run.retransmits).sum::<u64>();
    let verdict = if ratios.median() >= TCP_TARGET {
        "met"
    } else {
        "MISSED"
    };
    format!(
        "Rotating over still, median of the rounds' ratios: {:.3} ({:.3} to {:.3}); target at least {TCP_TARGET}: \
         {verdict}. Medians: {:.0} and {:.0} Mbit/s. Retransmits: {} and {}.",
        ratios.median(),
        ratios.min(),
        ratios.max(),
        all(ROTATING.0),
        all(STILL.0),
        retransmits(ROTATING.0),
        retransmits(STILL.0)
    )
}

const SCENARIOS: [Scenario; 3] = [
    Scenario {
        name: "udp",
        title: "UDP, 500 Mbit/s",
        client: &["-u", "-b", "500M", "-l", "1300", "-w", "4M"],
        loss_percent: 0,
    },
    Scenario {
        name: "tcp",
        title: "TCP, one stream",
        client: &[],
        loss_percent: 0,
    },
    Scenario {
        name: "loss",
        title: "UDP, 50 Mbit/s, while the underlay loses 5 % at random",
        client: &["-u", "-b", "50M", "-l", "1300", "-w", "4M"],
        loss_percent: 5,
    },
];
/// Word and epoch in seconds.
const ROTATING: (&str, u64) = ("rotating", 1);
const STILL: (&str, u64) = ("still", 3_600);
const TCP_TARGET: f64 = 0.97;
const LOOK: Duration = Duration::from_millis(200);
/// iperf3 waits half a minute for the answer to its first datagram.
const CONNECTS: Duration = Duration::from_secs(60);
const LISTENS: Duration = Duration::from_millis(500);
const ATTEMPTS: usize = 6;
const UNCONNECTED: [&str; 2] = ["unable to connect", "unable to read from stream socket"];
