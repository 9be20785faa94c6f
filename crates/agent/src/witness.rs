//! The controller's log, as far as this node has seen it. A node is a witness: it takes an update only with a
//! checkpoint of a log that extends the one it has kept. A controller that rewrote its log, or shows different
//! logs to different nodes, is refused by each node that has seen the other one.

use keys::{AuthorityId, Epoch, MeshId, SegmentId};
use ledger::note::{Note, Verifier};
use ledger::proof::{MAX_PROOF, check_consistency};
use ledger::{Checkpoint, Hash};
use std::collections::BTreeSet;
use std::time::Duration;
use wire::log::{LogEnd, LogNews, LogRestored, MAX_CHECKPOINT_LEN};
use wire::{Mark, Verified};

/// The newest checkpoint that this node has kept.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    kept: Option<LogEnd>,
    /// The checkpoint itself and the log's key, since the first update of this run.
    checkpoint: Option<(Note, Verifier)>,
    /// Why the last update was refused, for the status.
    fault: Option<String>,
    /// The one before was not.
    is_news: bool,
    /// When to ask again, because more was held back since; and how long to wait after that.
    again: Option<(Duration, Duration)>,
    /// How often in a row the answer was no better.
    answers: u8,
    /// The updates that were held back since the proof was asked for last. One that comes again is the answer.
    held_back: BTreeSet<(SegmentId, Epoch)>,
}

/// A checkpoint with the cosignature of a node that has kept it.
#[derive(Debug, Clone)]
pub struct Cosigned {
    /// The signed note.
    pub note: String,
    /// The log's key with its name, `NAME+ID+KEY`.
    pub log: String,
    /// The node's key with its name, the same way.
    pub witness: String,
}

/// Why a log is not believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unbelievable {
    /// The mark is not the authority's.
    #[error("the mark that names the log is not to be believed: {0}")]
    Mark(wire::VerifyError),
    /// The checkpoint is not the log's.
    #[error("the checkpoint of the controller's log is not to be believed: {0}")]
    Checkpoint(String),
    /// It is proved to extend another end of the log than the one that was kept, which may be the fault of an update
    /// that did not arrive: asked for anew.
    #[error(
        "the log that it names is proved from event {from} on, and this node knows it to event {kept}: asking anew"
    )]
    Unproven {
        /// Where the proof begins.
        from: u64,
        /// Where it should.
        kept: u64,
        /// The update that it came with.
        about: (SegmentId, Epoch),
        /// Whether to ask now: updates that were on their way when the proof was asked for anew come before the answer.
        ask: bool,
    },
    /// It does not extend the log that was seen.
    #[error(
        "the controller's log was rewritten, cut or forked: its end is {has}, and it does not extend the log \
         that this node has seen, whose end was {kept} ({why}). If the controller was restored from a copy, \
         `meshctl controller recover` says so to the nodes"
    )]
    Fork {
        /// The end that it has now.
        has: Ending,
        /// The end that was seen.
        kept: Ending,
        /// The part of the proof that fails.
        why: String,
    },
}

/// A log's end, in words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ending(LogEnd);

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let LogEnd { events, root } = self.0;
        write!(f, "{events} events with root {}", Hash(root.0))
    }
}

impl Witness {
    pub(crate) fn new(kept: Option<LogEnd>) -> Self {
        Self {
            kept,
            ..Self::default()
        }
    }

    /// The end of the log by the newest checkpoint that was kept.
    pub(crate) fn kept(&self) -> Option<LogEnd> {
        self.kept
    }

    /// The newest checkpoint that was kept, and the log's key; `None` before the first update of this run.
    pub(crate) fn checkpoint(&self) -> Option<&(Note, Verifier)> {
        self.checkpoint.as_ref()
    }

    /// Why the controller's log is refused, as of the last update.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Whether that is the first since one was not refused.
    pub(crate) fn is_news(&self) -> bool {
        self.is_news
    }

    /// Holds the log that comes with an update against the one that was seen, and keeps its end.
    pub(crate) fn handle_news(
        &mut self,
        mesh: MeshId,
        mark: &wire::Signed<Mark>,
        news: &LogNews,
        trusted: &[AuthorityId],
        now: Duration,
    ) -> Result<(), Unbelievable> {
        let held = self.hold(mesh, mark, news, trusted);
        match held {
            Ok((end, checkpoint)) => {
                self.handle_session();
                self.checkpoint = Some(checkpoint);
                if self.fault.take().is_some() {
                    tracing::info!("the controller's log is again the one that this node knows");
                }
                self.kept = Some(end);
                Ok(())
            }
            Err(Unbelievable::Unproven {
                from, kept, about, ..
            }) => {
                let is_answer = !self.held_back.insert(about);
                self.answers += u8::from(is_answer);
                let ask = is_answer || self.again.is_none();
                if ask {
                    self.held_back = BTreeSet::from([about]);
                    self.again = Some((now + ASK_AGAIN, ASK_AGAIN));
                }
                Err(Unbelievable::Unproven {
                    from,
                    kept,
                    about,
                    ask,
                })
            }
            Err(error) => {
                self.is_news = self.fault.replace(error.to_string()).is_none();
                Err(error)
            }
        }
    }

    /// When [`Self::handle_timeout`] is due, on the boot-time clock.
    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        self.again.map(|(at, _)| at)
    }

    /// Whether to ask for the proof once more: the answer was left out itself, or the question was.
    pub(crate) fn handle_timeout(&mut self, now: Duration) -> bool {
        let Some((_, wait)) = self.again.filter(|(at, _)| *at <= now) else {
            return false;
        };
        // A controller that has no better answer is not asked for ever.
        let wait = (wait * 2).min(ASK_AT_LEAST);
        self.again = Some((now + wait, wait));
        true
    }

    /// The next proof begins where the controller has been told that it should.
    pub(crate) fn handle_session(&mut self) {
        self.again = None;
        self.answers = 0;
        self.held_back.clear();
    }

    /// Takes the log that comes with an update which is of no use, if it is proved: the controller goes on from there,
    /// and its next proof would else begin elsewhere. An old message that is sent again proves nothing, and harms nothing.
    pub(crate) fn handle_aside(
        &mut self,
        mesh: MeshId,
        mark: &wire::Signed<Mark>,
        news: &LogNews,
        trusted: &[AuthorityId],
    ) {
        if let Ok((end, checkpoint)) = self.hold(mesh, mark, news, trusted) {
            // It may be the answer to what was asked.
            self.handle_session();
            self.checkpoint = Some(checkpoint);
            self.kept = Some(end);
        }
    }

    fn hold(
        &self,
        mesh: MeshId,
        mark: &wire::Signed<Mark>,
        news: &LogNews,
        trusted: &[AuthorityId],
    ) -> Result<(LogEnd, (Note, Verifier)), Unbelievable> {
        let mark = mark.verify(trusted).map_err(Unbelievable::Mark)?;
        let (has, checkpoint) = checkpoint(&mark, news).map_err(Unbelievable::Checkpoint)?;
        let Some(kept) = self.kept else {
            return Ok((has, checkpoint));
        };
        if news.from != kept.events && news.restored.is_none() && self.answers < ASKS {
            return Err(Unbelievable::Unproven {
                from: news.from,
                kept: kept.events,
                about: (mark.segment, mark.epoch),
                ask: false,
            });
        }
        let why = match extends(news.from, &kept, &has, &news.proof) {
            Ok(()) => return Ok((has, checkpoint)),
            Err(why) => why,
        };
        let fork = Unbelievable::Fork {
            has: Ending(has),
            kept: Ending(kept),
            why,
        };
        let restored = news.restored.as_ref();
        let restored = restored.and_then(|it| it.verify(trusted).ok());
        match restored.filter(|it| it.mesh == mesh) {
            Some(restored) if goes_on_from(&restored, news, &has) => {
                tracing::warn!(
                    seen = %Ending(kept),
                    copy = %Ending(restored.copy),
                    now = %Ending(has),
                    "the controller was restored from a copy, as an operator says with the authority's key: what \
                     its log had after that copy is gone from it"
                );
                Ok((has, checkpoint))
            }
            _ => Err(fork),
        }
    }
}

/// The end that the log's key and the authority both sign.
fn checkpoint(mark: &Verified<Mark>, news: &LogNews) -> Result<(LogEnd, (Note, Verifier)), String> {
    if news.checkpoint.len() > MAX_CHECKPOINT_LEN || news.proof.len() > MAX_PROOF {
        return Err("it is larger than any".to_owned());
    }
    let note = Note::parse(news.checkpoint.as_bytes()).map_err(|error| error.to_string())?;
    let origin = note.text().split('\n').next().unwrap_or_default();
    let log = Verifier::new(origin, mark.log_key).map_err(|error| error.to_string())?;
    let checkpoint = Checkpoint::verify(&note, &log).map_err(|error| error.to_string())?;
    // This node's own word would stand among whatever else the controller put there, in anybody's name.
    if note.signatures().iter().any(|line| line.name != origin) {
        return Err("somebody else than the log signed it too".to_owned());
    }
    let end = LogEnd {
        events: checkpoint.size,
        root: wire::Digest(checkpoint.root.0),
    };
    if end == mark.log {
        Ok((end, (note, log)))
    } else {
        Err("it is of another end of the log than the authority's mark".to_owned())
    }
}

fn extends(from: u64, kept: &LogEnd, has: &LogEnd, proof: &[[u8; 32]]) -> Result<(), String> {
    if from != kept.events {
        return Err(format!("it proves only what follows event {from}"));
    }
    let proof: Vec<Hash> = proof.iter().copied().map(Hash).collect();
    let end = |end: &LogEnd| (end.events, Hash(end.root.0));
    check_consistency(end(kept), end(has), &proof).map_err(|error| error.to_string())
}

/// Whether the log goes on from the copy that the authority names.
fn goes_on_from(restored: &Verified<LogRestored>, news: &LogNews, has: &LogEnd) -> bool {
    extends(news.from, &restored.copy, has, &news.proof).is_ok()
}

/// How often in a row the answer may begin elsewhere than at the end that was kept: that is no fork yet, because another
/// update may have been left out meanwhile.
const ASKS: u8 = 4;
/// An answer may be left out itself, where a controller has much to say: the first time after which to ask again.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// And the longest.
const ASK_AT_LEAST: Duration = Duration::from_secs(64);

#[cfg(test)]
mod tests {
    use super::*;
    use keys::{AuthoritySecret, LogSecret};
    use ledger::Tree;
    use ledger::proof::{Nodes, consistency};
    use rand_core::OsRng;
    use std::convert::Infallible;
    use wire::{Digest, Signed};

    const MESH: MeshId = MeshId([7; 16]);
    const NOW: Duration = Duration::from_secs(100);

    /// A log that can be forked.
    #[derive(Clone)]
    struct Log(Vec<Hash>);

    impl Nodes for Log {
        type Error = Infallible;

        fn node(&self, level: u8, index: u64) -> Result<Hash, Infallible> {
            let width = 1u64 << level;
            let mut tree = Tree::default();
            let leaves = &self.0[(index * width) as usize..][..width as usize];
            leaves.iter().for_each(|leaf| tree.append(*leaf, |_| {}));
            Ok(tree.root())
        }
    }

    impl Log {
        fn new(entries: &[&str]) -> Self {
            let leaf = |entry: &&str| Hash::of_entry(entry.as_bytes());
            Self(entries.iter().map(leaf).collect())
        }

        fn end(&self) -> LogEnd {
            let mut tree = Tree::default();
            self.0.iter().for_each(|leaf| tree.append(*leaf, |_| {}));
            LogEnd {
                events: tree.size(),
                root: Digest(tree.root().0),
            }
        }
    }

    struct Controller {
        authority: AuthoritySecret,
        key: LogSecret,
    }

    impl Controller {
        fn new() -> Self {
            Self {
                authority: AuthoritySecret::generate(&mut OsRng),
                key: LogSecret::generate(&mut OsRng),
            }
        }

        fn says(&self, log: &Log, from: u64) -> (Signed<Mark>, LogNews) {
            self.says_of(SegmentId::FIRST, log, from)
        }

        fn says_of(&self, segment: SegmentId, log: &Log, from: u64) -> (Signed<Mark>, LogNews) {
            let end = log.end();
            let mark = Mark {
                mesh: MESH,
                segment,
                epoch: Epoch(1),
                update: Digest([1; 32]),
                log: end,
                log_key: self.key.public(),
            };
            let checkpoint = Checkpoint {
                origin: "test/log".into(),
                size: end.events,
                root: Hash(end.root.0),
                extensions: Vec::new(),
            };
            let proof = consistency(log, from, end.events).unwrap();
            let news = LogNews {
                checkpoint: checkpoint.sign(&self.key).unwrap().to_string(),
                from,
                proof: proof.iter().map(|hash| hash.0).collect(),
                restored: None,
            };
            (Signed::sign(&mark, &self.authority).unwrap(), news)
        }

        fn tell(&self, witness: &mut Witness, log: &Log, from: u64) -> Result<(), Unbelievable> {
            let (mark, news) = self.says(log, from);
            witness.handle_news(MESH, &mark, &news, &[self.authority.public()], NOW)
        }
    }

    #[test]
    fn an_update_of_no_use_tells_of_the_log_and_one_that_is_sent_again_of_nothing() {
        let controller = Controller::new();
        let mut witness = Witness::default();
        let log = Log::new(&["a", "b", "c"]);
        controller.tell(&mut witness, &log, 0).unwrap();
        let old = controller.says(&log, 0);
        let longer = Log::new(&["a", "b", "c", "d"]);
        let aside = |witness: &mut Witness, (mark, news): &(Signed<Mark>, LogNews)| {
            witness.handle_aside(MESH, mark, news, &[controller.authority.public()]);
        };
        aside(&mut witness, &controller.says(&longer, 3));
        assert_eq!(witness.kept(), Some(longer.end()));
        for _ in 0..10 {
            aside(&mut witness, &old);
        }
        let fork = controller.says(&Log::new(&["a", "b", "c", "x", "e"]), 4);
        aside(&mut witness, &fork);
        assert_eq!(
            (witness.kept(), witness.fault()),
            (Some(longer.end()), None)
        );
        controller
            .tell(&mut witness, &Log::new(&["a", "b", "c", "d", "e"]), 4)
            .unwrap();
    }

    #[test]
    fn a_log_that_grows_is_followed_and_one_that_forks_is_refused_with_both_ends() {
        let controller = Controller::new();
        let mut witness = Witness::default();
        controller
            .tell(&mut witness, &Log::new(&["a", "b", "c"]), 0)
            .unwrap();
        let long = Log::new(&["a", "b", "c", "d", "e"]);
        controller.tell(&mut witness, &long, 3).unwrap();
        controller.tell(&mut witness, &long, 5).unwrap();
        assert_eq!(witness.kept(), Some(long.end()));
        for fork in [
            Log::new(&["a", "b", "c", "d"]),
            Log::new(&["a", "b", "c", "x", "e"]),
            Log::new(&["a", "b", "c", "x", "e", "f", "g"]),
        ] {
            for from in [0, 3, 4, 5] {
                if from > fork.end().events {
                    continue;
                }
                let mut error = controller.tell(&mut witness, &fork, from).unwrap_err();
                for _ in 0..=ASKS {
                    if from != 5 && matches!(error, Unbelievable::Unproven { .. }) {
                        assert_eq!(witness.fault(), None, "an update may have been lost");
                        error = controller.tell(&mut witness, &fork, from).unwrap_err();
                    }
                }
                let error = error.to_string();
                let (has, kept) = (Ending(fork.end()), Ending(long.end()));
                assert!(error.contains(&has.to_string()), "{error}");
                assert!(error.contains(&kept.to_string()), "{error}");
                assert_eq!(witness.fault(), Some(error.as_str()));
            }
        }
        assert_eq!(
            witness.kept(),
            Some(long.end()),
            "it keeps what it has seen"
        );
        controller.tell(&mut witness, &long, 5).unwrap();
        assert_eq!(witness.fault(), None);
        let (note, log) = witness.checkpoint().expect("it has seen one");
        assert_eq!(Checkpoint::verify(note, log).unwrap().size, 5);
        // Updates in between were lost on the way: the proof is asked for anew.
        let longer = Log::new(&["a", "b", "c", "d", "e", "f"]);
        let asked = controller.tell(&mut witness, &longer, 3);
        assert!(matches!(
            asked,
            Err(Unbelievable::Unproven {
                from: 3,
                kept: 5,
                ask: true,
                ..
            })
        ));
        controller.tell(&mut witness, &longer, 5).unwrap();
        assert_eq!(witness.kept(), Some(longer.end()));
    }

    #[test]
    fn however_many_updates_are_on_their_way_the_proof_is_asked_for_once() {
        let controller = Controller::new();
        let mut witness = Witness::default();
        let log = Log::new(&["a", "b", "c", "d"]);
        controller.tell(&mut witness, &log, 0).unwrap();
        let longer = Log::new(&["a", "b", "c", "d", "e"]);
        let asks = |witness: &mut Witness, segment| {
            let (mark, news) = controller.says_of(SegmentId(segment), &longer, 5);
            let trusted = [controller.authority.public()];
            match witness.handle_news(MESH, &mark, &news, &trusted, NOW) {
                Err(Unbelievable::Unproven { ask, .. }) => ask,
                other => panic!("{other:?}"),
            }
        };
        let asked: Vec<bool> = (0..16).map(|segment| asks(&mut witness, segment)).collect();
        assert!(asked[0] && !asked[1..].contains(&true), "{asked:?}");
        assert_eq!(witness.fault(), None);
        // The answer may have been left out, and nothing else may come.
        assert!(!witness.handle_timeout(NOW));
        let at = witness.poll_timeout().expect("something was held back");
        assert!(witness.handle_timeout(at));
        assert_eq!(witness.poll_timeout(), Some(at + 2 * ASK_AGAIN));
        controller.tell(&mut witness, &longer, 4).unwrap();
        assert_eq!(witness.kept(), Some(longer.end()));
        assert_eq!(witness.poll_timeout(), None);
        // An answer that is as bad as what was asked about is asked about again.
        let shorter = controller.says(&Log::new(&["a", "b", "c"]), 0);
        let trusted = [controller.authority.public()];
        for _ in 0..=ASKS {
            let error = witness.handle_news(MESH, &shorter.0, &shorter.1, &trusted, NOW);
            assert!(
                matches!(error, Err(Unbelievable::Unproven { ask: true, .. })),
                "{error:?}"
            );
        }
        let error = witness.handle_news(MESH, &shorter.0, &shorter.1, &trusted, NOW);
        assert!(matches!(error, Err(Unbelievable::Fork { .. })), "{error:?}");
    }

    #[test]
    fn the_checkpoint_is_the_logs_and_the_marks() {
        let controller = Controller::new();
        let log = Log::new(&["a", "b"]);
        let trusted = [controller.authority.public()];
        let hold = |mark: &Signed<Mark>, news: &LogNews| {
            Witness::default().handle_news(MESH, mark, news, &trusted, NOW)
        };
        let (mark, news) = controller.says(&log, 0);
        assert!(hold(&mark, &news).is_ok());
        let (_, of_another) = controller.says(&Log::new(&["a"]), 0);
        assert!(hold(&mark, &of_another).is_err(), "another end");
        let other = Controller::new();
        let (foreign, by_another) = other.says(&log, 0);
        assert!(hold(&mark, &by_another).is_err(), "another log's key");
        assert!(hold(&foreign, &by_another).is_err(), "another authority");
        let mut with_more = news.clone();
        with_more.checkpoint.push_str("— node-a AAAAAAA=\n");
        assert!(hold(&mark, &with_more).is_err(), "a line of another name");
        let mut large = news.clone();
        large.proof = vec![[0; 32]; MAX_PROOF + 1];
        assert!(hold(&mark, &large).is_err());
        let mut long = news;
        long.checkpoint.push_str(&"x".repeat(MAX_CHECKPOINT_LEN));
        assert!(hold(&mark, &long).is_err());
    }

    #[test]
    fn a_copy_is_gone_back_to_by_the_authoritys_word_alone() {
        let controller = Controller::new();
        let trusted = [controller.authority.public()];
        let seen = Log::new(&["a", "b", "c", "d"]);
        let (copy, now) = (
            Log::new(&["a", "b"]),
            Log::new(&["a", "b", "restored", "e"]),
        );
        let word = |copy: &Log, mesh, authority: &AuthoritySecret| {
            let restored = LogRestored {
                mesh,
                copy: copy.end(),
                unix_ms: 1,
            };
            Some(Box::new(Signed::sign(&restored, authority).unwrap()))
        };
        let other = AuthoritySecret::generate(&mut OsRng);
        let told = |restored| {
            let mut witness = Witness::new(Some(seen.end()));
            let (mark, news) = controller.says(&now, 2);
            let news = LogNews { restored, ..news };
            witness.handle_news(MESH, &mark, &news, &trusted, NOW)
        };
        assert!(told(None).is_err());
        assert!(
            told(word(&copy, MESH, &other)).is_err(),
            "another authority's"
        );
        assert!(told(word(&copy, MeshId([8; 16]), &controller.authority)).is_err());
        let elsewhere = Log::new(&["a", "x"]);
        assert!(told(word(&elsewhere, MESH, &controller.authority)).is_err());
        assert!(told(word(&copy, MESH, &controller.authority)).is_ok());
    }
}
