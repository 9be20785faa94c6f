//! A process that writes the log is killed at random points, again and again: each time the log opens, verifies
//! as a whole, and has everything that was acknowledged, batch by batch.
//!
//! 20 kills by default; `RECORD_KILLS=1000 cargo test -p record --test kills` for a long run, which prints its
//! figures with `--nocapture`. SIGKILL takes the process, not the machine: that a commit outlives the power is
//! `synchronous = FULL`, and is not shown here.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use keys::LogSecret;
use ledger::note::Verifier;
use record::audit::verify_copy;
use record::open::Item;
use record::retention::KIND;
use record::{Entry, NewEntry, Store, Trust, open};
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

const ORIGIN: &str = "test/kills";
/// Kills until a new log is begun: its beginning is a point like any other.
const KILLS_PER_LOG: usize = 50;

#[test]
fn a_log_whose_writer_is_killed_opens_and_has_lost_nothing_that_was_acknowledged() {
    let kills: usize = match std::env::var("RECORD_KILLS") {
        Ok(text) => text.parse().expect("RECORD_KILLS is a number"),
        Err(_) => 20,
    };
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut tally = Tally::default();
    let mut log = Log::new();
    for n in 1..=kills {
        log.live_and_die(&mut random, &mut tally);
        log.verify(&mut tally);
        if n % KILLS_PER_LOG == 0 || n == kills {
            tally.entries += log.head;
            log = Log::new();
        }
    }
    println!("{kills} kills: {tally:?}");
    assert!(
        tally.acknowledged > 0,
        "no life was long enough to write: {tally:?}"
    );
}

/// The process that is killed. It is a test only because a test binary can start no other program that knows
/// [`record`]: alone, it has nothing to do.
#[test]
#[ignore = "the other test starts it, to kill it"]
fn a_writer_that_never_ends() {
    let path = PathBuf::from(std::env::var_os(PATH).expect("the other test starts this one"));
    let seed = std::env::var(SEED).unwrap().parse().unwrap();
    let mut random = Random(seed);
    let mut store = open(&path, trust(), |_| true).unwrap();
    store.found(ORIGIN);
    say("open", &store);
    loop {
        match random.below(20) {
            0 => {
                let state = store.head().seq.to_string();
                store.keep_snapshot(state.as_bytes()).unwrap();
                say("snapshot", &store);
            }
            1 => {
                let pruned = store.prune("evidence", i64::MAX, 2000, 0).unwrap();
                say(
                    if pruned.is_some() {
                        "pruned"
                    } else {
                        "nothing to prune"
                    },
                    &store,
                );
            }
            _ => {
                let first = store.head().seq + 1;
                let last = first + random.below(7);
                let entries: Vec<_> = (first..=last).map(|seq| entry(seq, seq == last)).collect();
                let stored = store.append(&entries, |transaction| {
                    let row = (last.cast_signed(), [0u8; 8]);
                    transaction.execute("DELETE FROM epochs", ())?;
                    let insert = "INSERT INTO epochs VALUES (1, ?1, ?2, ?2)";
                    transaction.execute(insert, row)?;
                    Ok(())
                });
                stored.unwrap();
                say("appended", &store);
            }
        }
    }
}

/// Acknowledges the head, as the controller does only after the commit.
fn say(done: &str, store: &Store) {
    let head = store.head();
    let hash: String = head.hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "\n{ACK} {} {hash} {done}", head.seq).unwrap();
    stdout.flush().unwrap();
}

/// The entry of a number; the last of its batch says so.
fn entry(seq: u64, is_last: bool) -> NewEntry {
    let kind = if seq.is_multiple_of(3) {
        "decision"
    } else {
        "evidence"
    };
    NewEntry {
        at_unix_ms: 1_700_000_000_000 + seq.cast_signed(),
        by: seq.is_multiple_of(5).then(|| "uid:0".to_owned()),
        kind: kind.to_owned(),
        body: format!(
            "{{\"n\":{seq},\"last\":{is_last},\"more\":\"{}\"}}",
            "x".repeat(200)
        ),
    }
}

fn trust() -> Trust {
    let text = format!("{}=", "B".repeat(42) + "A");
    let secret = LogSecret::from_base64(&text).unwrap();
    Trust { secret, next: None }
}

/// A log, and what is known of it from the acknowledgements of all its writers.
struct Log {
    dir: tempfile::TempDir,
    /// The newest that was acknowledged: a number of entries with its root, in hex.
    acknowledged: (u64, String),
    /// The newest that was found.
    head: u64,
}

#[derive(Debug, Default)]
struct Tally {
    /// Commits that were acknowledged.
    acknowledged: u64,
    /// Entries in all logs, at their ends.
    entries: u64,
    /// Lives that ended before the log was open.
    before_open: u64,
    /// Lives after which the log had more than was acknowledged: killed between the commit and its word.
    unsaid: u64,
    /// Snapshots and prunings that were acknowledged.
    snapshots: u64,
    pruned: u64,
    /// Lives that left a write-ahead log behind, which the next one took up.
    unfinished: u64,
}

impl Log {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            acknowledged: (0, String::new()),
            head: 0,
        }
    }

    fn path(&self) -> PathBuf {
        record::store::path_in(self.dir.path())
    }

    /// Starts a writer, kills it at a random point, and keeps its newest word.
    fn live_and_die(&mut self, random: &mut Random, tally: &mut Tally) {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                "a_writer_that_never_ends",
                "--nocapture",
            ])
            .env(PATH, self.path())
            .env(SEED, random.next().to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = writer.stdout.take().unwrap();
        let (opened, is_open) = channel();
        let reader = std::thread::spawn(move || {
            let mut lines = Vec::new();
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(line) = line.strip_prefix(ACK) {
                    let _ = opened.send(());
                    lines.push(line.trim().to_owned());
                }
            }
            lines
        });
        if random.below(4) == 0 {
            // From its very start on: it opens, verifies and takes up what the last one left.
            std::thread::sleep(Duration::from_micros(random.below(15_000)));
        } else {
            let _ = is_open.recv();
            std::thread::sleep(Duration::from_micros(random.below(60_000)));
        }
        let ended = writer.try_wait().unwrap();
        writer.kill().unwrap();
        let output = writer.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(ended.is_none(), "the writer ended by itself: {said}");
        let lines = reader.join().unwrap();
        tally.before_open += u64::from(lines.is_empty());
        for line in &lines {
            let words: Vec<_> = line.splitn(3, ' ').collect();
            let [seq, hash, done] = words.try_into().unwrap();
            let seq: u64 = seq.parse().unwrap();
            assert!(
                seq >= self.acknowledged.0,
                "{line} after {:?}",
                self.acknowledged
            );
            if done == "open" && seq == self.acknowledged.0 && seq > 0 {
                assert_eq!(hash, self.acknowledged.1);
            }
            match done {
                "appended" => tally.acknowledged += 1,
                "snapshot" => tally.snapshots += 1,
                "pruned" => tally.pruned += 1,
                _ => {}
            }
            self.acknowledged = (seq, hash.to_owned());
        }
    }

    /// Opens it and holds everything against what it must be.
    fn verify(&mut self, tally: &mut Tally) {
        let path = self.path();
        let (seq, hash) = &self.acknowledged;
        let side = path.with_file_name("controller.db-wal");
        tally.unfinished += u64::from(std::fs::metadata(side).is_ok_and(|it| it.len() > 0));
        let mut from = 0;
        let mut behind = Vec::new();
        let store = open(&path, trust(), |item| {
            match item {
                Item::State { seq, state } => {
                    assert_eq!(state, seq.to_string().into_bytes(), "the snapshot is whole");
                    from = seq;
                }
                Item::Entry(entry) => behind.push(entry.seq),
            }
            true
        });
        let store = store.unwrap_or_else(|error| panic!("acknowledged {seq}: {error}"));
        let head = store.head().seq;
        assert!(
            behind.iter().copied().eq(from + 1..=head),
            "behind {from}: {behind:?}"
        );
        assert!(head >= *seq, "{seq} were acknowledged, {head} are there");
        tally.unsaid += u64::from(head > *seq);
        if *seq > 0 {
            let root = store.root_at(*seq).unwrap().unwrap();
            let root: String = root.0.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(root, *hash, "the first {seq} entries are others");
        }
        let query = "SELECT coalesce(max(epoch), 0) FROM epochs";
        let beside: i64 = store
            .database()
            .query_row(query, [], |row| row.get(0))
            .unwrap();
        for seq in [head.min(1), head / 2, head]
            .into_iter()
            .filter(|seq| *seq > 0)
        {
            store.prove(seq).unwrap();
        }
        drop(store);
        self.head = head;
        if head == 0 {
            return;
        }
        let (last_written, ends, there) = everything(&path, head);
        // The newest entry may have left, if it was in a complete tile before a snapshot.
        if there.contains(&beside.cast_unsigned()) {
            let row = "the row that was written with the entries";
            assert_eq!(beside, last_written.cast_signed(), "{row}");
            assert!(
                ends,
                "the last batch is torn: it ends with entry {last_written}"
            );
        }
        let missing = (1..=head).filter(|seq| !there.contains(seq) && seq.is_multiple_of(3));
        assert_eq!(missing.count(), 0, "decisions never leave");
    }
}

/// Verifies all of the log; the last entry that a writer wrote and whether its batch ends with it, and all numbers
/// that are there.
fn everything(path: &Path, head: u64) -> (u64, bool, BTreeSet<u64>) {
    let verifier = Verifier::new(ORIGIN, trust().secret.public()).unwrap();
    let mut there = BTreeSet::new();
    let (mut last_written, mut ends) = (0, true);
    let audit = verify_copy(path, &verifier, |it: &Entry| {
        there.insert(it.seq);
        if it.kind == KIND {
            return;
        }
        (last_written, ends) = (it.seq, it.body.contains("\"last\":true"));
        let wanted = entry(it.seq, ends);
        assert_eq!(
            (&it.body, it.at_unix_ms),
            (&wanted.body, wanted.at_unix_ms),
            "{}",
            it.seq
        );
        assert_eq!((&it.kind, &it.by), (&wanted.kind, &wanted.by), "{}", it.seq);
    });
    let audit = audit.unwrap_or_else(|error| panic!("{head} entries: {error}"));
    assert_eq!(audit.size, head);
    (last_written, ends, there)
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

const PATH: &str = "RECORD_KILLS_PATH";
const SEED: &str = "RECORD_KILLS_SEED";
const ACK: &str = "acknowledged";
