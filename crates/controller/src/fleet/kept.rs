//! The evidence that is kept of one node: the newest run per suite, harness and signer, and as much of earlier
//! ones as new evidence is held against.

use super::ageing::Ageing;
use crate::clock::{Now, steps_back};
use crate::event::Accepted;
use jiff::Timestamp;
use policy::{Evidence, Run};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use wire::evidence::{Benchmark, Signer};

/// All that is kept of one node.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Records {
    /// By signer, harness and suite. Boxed: a map has room for eleven, and most nodes have one.
    kept: BTreeMap<String, Box<Kept>>,
    /// The one that was accepted last.
    newest: Option<String>,
}

/// Evidence of one suite, harness and signer.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    /// The newest that was accepted.
    run: Run,
    /// When it was.
    ageing: Ageing,
    /// Accepted evidence, oldest first, as far as new evidence is held against it.
    past: VecDeque<Past>,
}

/// Evidence that was accepted.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Past {
    finished_at: Timestamp,
    nonce: String,
    /// The earliest time that the calendar was set back to since.
    set_back_to: Option<Timestamp>,
}

impl Records {
    /// The newest of each, the run that finished last first.
    pub(super) fn evidence(&self, now: Now) -> Vec<Evidence<'_>> {
        let all = self.kept.values().map(|kept| Evidence {
            run: &kept.run,
            accepted_for: kept.ageing.age(now),
            set_back_to: kept.set_back_to(now),
        });
        let mut all: Vec<_> = all.collect();
        all.sort_by_key(|it| std::cmp::Reverse(it.run.finished_at));
        all
    }

    /// The run that was accepted last.
    pub(super) fn newest(&self) -> Option<&Run> {
        Some(&self.kept.get(self.newest.as_ref()?)?.run)
    }

    /// When the newest run of the same suite, harness and signer finished, of those whose time has come; and
    /// whether the nonce was used.
    pub(super) fn history(
        &self,
        run: &Benchmark,
        signer: &Signer,
        now: Now,
    ) -> (Option<Timestamp>, bool) {
        let used = |past: &Past| past.nonce.eq_ignore_ascii_case(&run.nonce);
        // A run whose time had not come, now or when the calendar was set back, is no measure of what is newer:
        // it would keep out every honest one until its time comes. Its nonce stays used.
        let is_measure = |past: &&Past| {
            let to = past.set_back_to.map_or(now.wall, |to| to.min(now.wall));
            past.finished_at <= to
        };
        let same = self.kept.get(&key(signer, &run.harness, &run.suite));
        let measures = same.into_iter().flat_map(|kept| &kept.past);
        let measures = measures.filter(is_measure);
        let last = measures.map(|past| past.finished_at).max();
        let mut all = self.kept.values().flat_map(|kept| &kept.past);
        (last, all.any(used))
    }

    /// Whether one more suite, harness or signer would push out what may still count: the one whose run finished
    /// first leaves, and with it what is known of replays.
    pub(super) fn is_full_for(
        &self,
        run: &Benchmark,
        signer: &Signer,
        counts_from: Timestamp,
    ) -> bool {
        let is_known = self
            .kept
            .contains_key(&key(signer, &run.harness, &run.suite));
        let mut finished = self.kept.values().map(|kept| kept.run.finished_at);
        !is_known && self.kept.len() >= MOST_KEPT && finished.all(|at| at >= counts_from)
    }

    pub(super) fn accept(&mut self, at: Timestamp, accepted: &Accepted) {
        let key = key(&accepted.signer, &accepted.harness, &accepted.suite);
        if self.kept.len() >= MOST_KEPT && !self.kept.contains_key(&key) {
            let first = self
                .kept
                .iter()
                .min_by_key(|(_, kept)| kept.run.finished_at);
            if let Some(first) = first.map(|(key, _)| key.clone()) {
                self.kept.remove(&first);
            }
        }
        let (run, boot_ms) = (accepted.run(), accepted.boot_ms);
        let ageing = Ageing::Counted { at, boot_ms };
        let kept = self.kept.entry(key.clone()).or_insert_with(|| {
            Box::new(Kept {
                run: run.clone(),
                ageing,
                past: VecDeque::new(),
            })
        });
        (kept.run, kept.ageing) = (run, ageing);
        kept.remember(accepted);
        self.newest = Some(key);
    }

    /// The log shows that the calendar was set back.
    pub(super) fn clock_set_back(&mut self, to: Timestamp) {
        for past in self.kept.values_mut().flat_map(|kept| &mut kept.past) {
            past.set_back_to = Some(past.set_back_to.map_or(to, |before| before.min(to)));
        }
    }

    /// The controller was started: see [`Ageing::restart`].
    pub(super) fn restart(&mut self, last: Option<Timestamp>, start: Now) {
        for kept in self.kept.values_mut() {
            kept.ageing = kept.ageing.restart(last, start);
        }
    }
}

impl Kept {
    /// The earliest time that the calendar was set back to since the newest was accepted, whether the log shows
    /// it yet or not.
    fn set_back_to(&self, now: Now) -> Option<Timestamp> {
        let at = self.ageing.at();
        let since = at.filter(|at| steps_back(*at, now.wall)).map(|_| now.wall);
        let logged = self.past.back().and_then(|past| past.set_back_to);
        [logged, since].into_iter().flatten().min()
    }

    fn remember(&mut self, accepted: &Accepted) {
        self.past.push_back(Past {
            finished_at: accepted.finished_at,
            nonce: accepted.nonce.clone(),
            set_back_to: None,
        });
        if self.past.len() > REMEMBERED {
            // A run that finished later was accepted by a clock that was ahead. Its time is yet to come, and
            // with its nonce forgotten it could come again then.
            let is_past = |past: &Past| past.finished_at < accepted.finished_at;
            let first = self.past.iter().position(is_past);
            let surplus = (self.past.len() > MOST).then_some(0);
            if let Some(at) = first.or(surplus) {
                self.past.remove(at);
            }
        }
    }
}

fn key(signer: &Signer, harness: &str, suite: &str) -> String {
    // Neither text holds a control character.
    match signer {
        Signer::Node(_) => format!("self\t{harness}\t{suite}"),
        Signer::Evaluator(key) => format!("{key}\t{harness}\t{suite}"),
    }
}

/// Suites, harnesses and signers of which a node's newest run is kept.
pub(super) const MOST_KEPT: usize = 32;
/// Evidence that is remembered of each. A run from before the newest needs no memory: evidence must be of
/// a later run, so that an old envelope is refused by its time.
const REMEMBERED: usize = 64;
/// The same where the calendar was set back: as long as the time of a run is yet to come, it is remembered.
const MOST: usize = 256;
