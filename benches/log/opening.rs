//! How long the log of a mesh of 100 nodes takes to open, with a snapshot and without, and how much it grows: evidence
//! of each node every 30 s, and an epoch every 60.

use crate::mesh::{Mesh, accepted};
use crate::report::{Table, count};
use crate::stats::Sample;
use crate::{load, setting};
use anyhow::ensure;
use controller::clock::Now;
use controller::event::{Event, Published, Verdict};
use controller::fleet::Fleet;
use controller::log::{Log, Opened, path_in};
use jiff::{SignedDuration, Timestamp};
use keys::{Epoch, SegmentId};
use policy::{Membership, Standing, State};
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::time::Duration;
use tests::harness::now;
use wire::Digest;

/// Measures everything; prints a table.
pub(crate) fn measure(is_test: bool) -> anyhow::Result<()> {
    let size = Size {
        nodes: if is_test { 10 } else { 100 },
        events: setting("EVENTS", if is_test { 6_000 } else { 1_000_000 }),
        behind: if is_test { 1_000 } else { BEHIND_SNAPSHOT },
    };
    let rounds = setting("ROUNDS", if is_test { 1 } else { 3 });
    let minutes = size.events / size.a_minute();
    let start =
        Timestamp::now().checked_sub(SignedDuration::from_mins(minutes.cast_signed() + 60))?;
    let before = load();
    let (mesh, opened) = Mesh::found(size.nodes, start)?;
    let begun = now();
    let log = fill(&mesh, opened, &size, start)?;
    println!(
        "{} events written in {:.0} s; load before: {before}",
        count(log.head().seq),
        begun.elapsed().as_secs_f64()
    );
    log.store().wipe();
    drop(log);
    let full = file_len(&mesh)?;

    let with = opening_times(&mesh, rounds)?;
    let snapshot = Snapshot::take(&mesh)?;
    let without = opening_times(&mesh, rounds)?;
    snapshot.put_back(&mesh)?;
    let mut table = Table::new(&["Opening", "s"]);
    let behind = format!(
        "with a snapshot, and {} events behind it",
        count(size.behind)
    );
    for (name, sample) in [(behind.as_str(), with), ("without a snapshot", without)] {
        let (median, least, most) = (sample.median(), sample.min(), sample.max());
        let cells = [
            name.to_owned(),
            format!("{median:.2} ({least:.2}–{most:.2})"),
        ];
        table.row(cells);
    }
    println!("\n{table}\n");

    let Opened {
        mut log, mut fleet, ..
    } = mesh.resume()?;
    let written = log.head().seq;
    let left = prune(&mut log, &mut fleet)?;
    let lots = log.head().seq - written;
    drop(log);
    // What leaves makes room for what comes: the file itself shrinks only so.
    database(&mesh)?.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE);")?;
    let lean = file_len(&mesh)?;
    drop(mesh.resume()?);
    size.report(written, (full, lean), (left, lots));
    Ok(())
}

struct Size {
    nodes: usize,
    events: u64,
    /// How many of them come after the snapshot.
    behind: u64,
}

impl Size {
    /// Two pieces of evidence of each node, the decision, and the epoch.
    fn a_minute(&self) -> u64 {
        2 * self.nodes as u64 + 2
    }

    fn report(&self, written: u64, (full, lean): (u64, u64), (left, lots): (u64, u64)) {
        let per = |bytes: u64, events: u64| bytes as f64 / events as f64;
        println!(
            "{} bytes for {} events: {:.0} each",
            count(full),
            count(written),
            per(full, written)
        );
        println!(
            "{} pieces of evidence left in {lots} lots; {} bytes remain",
            count(left),
            count(lean)
        );
        // What stays when all evidence has left that can: the evidence behind the snapshot is still there.
        let gone = per(full - lean, left);
        let a_day = 24 * 60 * self.a_minute();
        let nodes = self.nodes as f64;
        let kept = per(full, written) * a_day as f64 / nodes;
        let evidence = gone * (24 * 60 * 2) as f64;
        println!(
            "for each node and day: {:.2} MB while its evidence is kept, {:.3} MB for ever",
            kept / 1e6,
            (kept - evidence) / 1e6
        );
    }
}

/// Writes the mesh's history: `size.events` events from `start` on, and a snapshot so many events before the end.
fn fill(mesh: &Mesh, opened: Opened, size: &Size, start: Timestamp) -> anyhow::Result<Log> {
    let Opened {
        mut log, mut fleet, ..
    } = opened;
    let mut history = History {
        mesh,
        size,
        epoch: 0,
        run: 1 << 32,
        update: Digest::default(),
    };
    let mut minute = 0;
    let mut has_snapshot = false;
    while log.head().seq < size.events {
        minute += 1;
        for half in 0..2 {
            let at = start.checked_add(SignedDuration::from_secs(minute * 60 + half * 30))?;
            let mut events = history.evidence(at)?;
            if half == 1 {
                events.extend(history.epoch(at));
            }
            let left = size.events - log.head().seq;
            events.truncate(usize::try_from(left)?);
            log.append(at, None, &events, &[])?;
            events.iter().for_each(|event| fleet.apply(at, None, event));
            // As the controller does, with evidence kept for ever.
            if !has_snapshot && log.head().seq + size.behind >= size.events {
                has_snapshot = true;
                keep_snapshot(&mut log, &fleet, at);
            }
        }
    }
    ensure!(log.store().snapshot_seq() > 0, "there is no snapshot");
    Ok(log)
}

fn keep_snapshot(log: &mut Log, fleet: &Fleet, wall: Timestamp) {
    let boot = Duration::from_secs(1);
    log.retain(fleet, Duration::ZERO, Now { boot, wall });
}

/// Everything that happens in a mesh where one node is quarantined and comes back in turn.
struct History<'m> {
    mesh: &'m Mesh,
    size: &'m Size,
    epoch: u64,
    run: u64,
    update: Digest,
}

impl History<'_> {
    fn evidence(&mut self, at: Timestamp) -> anyhow::Result<Vec<Event>> {
        let mut events = Vec::new();
        for node in &self.mesh.nodes {
            self.run += 1;
            let finished = at.checked_sub(SignedDuration::from_millis(300))?;
            let envelope = self
                .mesh
                .evidence(node, self.run, Some(self.update), finished)?;
            events.push(accepted(node, self.run, envelope, finished));
        }
        Ok(events)
    }

    /// A decision and its epoch. In every tenth one node leaves, and in the one after it comes back.
    fn epoch(&mut self, at: Timestamp) -> [Event; 2] {
        self.epoch += 1;
        let epoch = Epoch(self.epoch);
        let mut number = [0; 32];
        number[..8].copy_from_slice(&self.epoch.to_be_bytes());
        self.update = Digest(number);
        let turn = usize::try_from(self.epoch / 10).unwrap_or_default() % self.size.nodes;
        let name = self.mesh.nodes[turn].name.clone();
        let reason = "score 0.64 is below the threshold 0.70";
        let verdict = |is_in: bool| Verdict {
            name: name.clone(),
            membership: if is_in {
                Membership::Allowed
            } else {
                Membership::Denied
            },
            state: if is_in {
                State::Active
            } else {
                State::Quarantined
            },
            reason: (!is_in).then(|| reason.to_owned()),
            score: Some(if is_in { 0.91 } else { 0.64 }),
            evidence: Some(self.update.to_string()),
            standing: if is_in {
                Standing::In { failures: 0 }
            } else {
                Standing::Out { passes: 0 }
            },
            probation_left: 0,
            held: false,
        };
        let (nodes, joined, removed) = match self.epoch % 10 {
            0 => {
                let removed = BTreeMap::from([(name.clone(), reason.to_owned())]);
                (vec![verdict(false)], Vec::new(), removed)
            }
            1 if self.epoch > 1 => (vec![verdict(true)], vec![name.clone()], BTreeMap::new()),
            _ => (Vec::new(), Vec::new(), BTreeMap::new()),
        };
        let decided = Event::Decided {
            segment: SegmentId::FIRST,
            epoch,
            scheduled: true,
            cause: "scheduled".into(),
            confirmed: false,
            boot_ms: 1,
            nodes,
        };
        let published = Event::EpochPublished(Box::new(Published {
            segment: SegmentId::FIRST,
            epoch,
            cause: "scheduled".into(),
            in_force: Some(Epoch(self.epoch - 1)),
            update: self.update,
            commitment: Digest(number).to_string(),
            policy: self.update.to_string(),
            members: self.size.nodes - removed.len(),
            joined,
            removed,
            activate_in_ms: 5_000,
            epoch_ms: 60_000,
            boot_ms: at.as_millisecond(),
            boot_id: "6f0e3b52-6c63-4b0e-9d62-3a5cf6b1a0aa".into(),
        }));
        [decided, published]
    }
}

/// How long opening takes, in seconds.
fn opening_times(mesh: &Mesh, rounds: usize) -> anyhow::Result<Sample> {
    let mut times = Vec::new();
    for _ in 0..rounds {
        let start = now();
        let opened = mesh.resume()?;
        times.push(start.elapsed().as_secs_f64());
        ensure!(!opened.fleet.nodes().is_empty(), "nothing was read");
    }
    Ok(Sample::new(times))
}

/// The log's snapshot, taken out of it.
struct Snapshot {
    seq: i64,
    root: Vec<u8>,
    state: Vec<u8>,
    signature: Vec<u8>,
}

impl Snapshot {
    fn take(mesh: &Mesh) -> anyhow::Result<Self> {
        let database = database(mesh)?;
        let query = "SELECT seq, root, state, signature FROM snapshot";
        let snapshot = database.query_row(query, [], |row| {
            Ok(Self {
                seq: row.get(0)?,
                root: row.get(1)?,
                state: row.get(2)?,
                signature: row.get(3)?,
            })
        })?;
        database.execute("DELETE FROM snapshot", [])?;
        Ok(snapshot)
    }

    fn put_back(self, mesh: &Mesh) -> anyhow::Result<()> {
        database(mesh)?.execute(
            "INSERT INTO snapshot (one, seq, root, state, signature) VALUES (1, ?1, ?2, ?3, ?4)",
            (self.seq, self.root, self.state, self.signature),
        )?;
        Ok(())
    }
}

/// Lets all evidence leave that can; returns how much did.
fn prune(log: &mut Log, fleet: &mut Fleet) -> anyhow::Result<u64> {
    let begun = now();
    let wall = Timestamp::now();
    let (mut boot, mut left, mut lots) = (Duration::from_secs(1), 0, 0_u32);
    let mut longest = Duration::ZERO;
    loop {
        let start = now();
        let event = log.retain(fleet, Duration::from_secs(1), Now { boot, wall });
        longest = longest.max(start.elapsed());
        let Some(Event::EntriesPruned(pruned)) = event else {
            break;
        };
        fleet.apply(wall, None, &Event::EntriesPruned(pruned.clone()));
        left += pruned.count;
        lots += 1;
        // The controller pauses for a second, in which it serves.
        boot += Duration::from_secs(1);
    }
    let took = begun.elapsed().as_secs_f64();
    println!(
        "a lot of evidence leaves in {:.1} ms (mean; at most {:.1})",
        took * 1e3 / f64::from(lots.max(1)),
        longest.as_secs_f64() * 1e3
    );
    Ok(left)
}

fn database(mesh: &Mesh) -> anyhow::Result<Connection> {
    Ok(Connection::open(path_in(&mesh.state()))?)
}

fn file_len(mesh: &Mesh) -> anyhow::Result<u64> {
    Ok(std::fs::metadata(path_in(&mesh.state()))?.len())
}

/// The most events that a start reads behind a snapshot: after so many the controller keeps the next one.
const BEHIND_SNAPSHOT: u64 = 65_535;
