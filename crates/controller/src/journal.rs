//! The one way to durable state: the event log, the fold of what is in it, and whether the log takes what it
//! is given. Refuses to fold anything that is not durable: nobody has a `&mut Fleet` but this file.

use crate::by::By;
use crate::changed::Changed;
use crate::clock::{Now, Step, Steps};
use crate::connections::Kept;
use crate::effect::Output;
use crate::event::Event;
use crate::fleet::Fleet;
use crate::log::{Log, LogError, NewEpoch, is_evidence};
use keys::{Epoch, LogSecret, SegmentId};
use std::borrow::Cow;
use std::time::Duration;
use wire::log::{LogEnd, LogNews};
use wire::{Mark, NodeName, ToNode};

/// The log and its fold.
#[derive(Debug)]
pub(crate) struct Journal {
    log: Log,
    fleet: Fleet,
    writing: Writing,
    contradiction: Option<Contradiction>,
    steps: Steps,
    /// The grounds of judgements that have changed since somebody asked.
    changed: Changed,
}

/// Whether the log took what it was given last, and until when what failed is left alone.
///
/// ```text
///            failed                     written
/// Working ──────────► Failing ◄──────► Resting
///    └── back_off ───────────────────────▲
/// ```
///
/// A rest that is over is as good as none. Evidence is not counted here: it comes all the time, and if its
/// failures put off what else is to be written, a full disk would stop epochs for which there is room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writing {
    /// It took everything, and nothing failed a moment ago.
    Working,
    /// It did not take the last thing.
    Failing {
        /// When the timers try again.
        retry_at: Duration,
    },
    /// It takes what it is given, but something failed a moment ago.
    Resting {
        /// When the timers try again.
        retry_at: Duration,
    },
}

/// A node's proof that the authority signed an epoch on another log than this one.
#[derive(Debug)]
pub(crate) struct Contradiction {
    pub(crate) node: NodeName,
    pub(crate) segment: SegmentId,
    pub(crate) epoch: Epoch,
}

impl Contradiction {
    fn new(node: &NodeName, mark: &Mark) -> Self {
        Self {
            node: node.clone(),
            segment: mark.segment,
            epoch: mark.epoch,
        }
    }
}

/// Nothing was written, and nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the event log cannot be written")]
pub struct Unwritten;

impl Journal {
    /// A log with its fold.
    pub(crate) fn new(log: Log, fleet: Fleet, steps: Steps) -> Self {
        Self {
            steps,
            changed: Changed::Anything,
            log,
            fleet,
            writing: Writing::Working,
            contradiction: None,
        }
    }

    /// The fold of what is durable.
    pub(crate) fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Takes a reading of both clocks; whether the wall clock was set.
    pub(crate) fn handle_clocks(&mut self, now: Now) -> bool {
        let is_set = self.steps.handle_reading(now);
        if is_set {
            self.changed = Changed::Anything;
        }
        is_set
    }

    /// The grounds of judgements that have changed since the last call.
    pub(crate) fn take_changed(&mut self) -> Changed {
        std::mem::take(&mut self.changed)
    }

    /// The newest step of the wall clock, as long as it may matter.
    pub(crate) fn step(&self, now: Now) -> Option<Step> {
        self.steps.newest(now)
    }

    /// The log, to be read.
    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// The fold as it would be with `events`, for a decision that is to become durable together with them.
    pub(crate) fn foresee(&self, events: &[Event], now: Now) -> Cow<'_, Fleet> {
        let mut fleet = Cow::Borrowed(&self.fleet);
        for event in events {
            fleet.to_mut().apply(now.wall, None, event);
        }
        fleet
    }

    /// Makes events durable, with the epochs that they publish, and only then folds them. On an error nothing
    /// has changed: the caller must tell nobody.
    pub(crate) fn commit(
        &mut self,
        by: Option<By>,
        events: &[Event],
        epochs: &[NewEpoch<'_>],
        output: &mut Output,
        now: Now,
    ) -> Result<(), Unwritten> {
        let evidence = epochs.is_empty() && is_evidence(events);
        let written = self.log.append(now.wall, by, events, epochs);
        match written {
            Ok(()) if evidence => {}
            Ok(()) => self.succeeded(),
            Err(_) if evidence => return Err(Unwritten),
            Err(error) => {
                self.failed(&error, now);
                return Err(Unwritten);
            }
        }
        for event in events {
            self.fleet.apply(now.wall, by, event);
            match event {
                Event::EvidenceAccepted(accepted) => self.changed.add(&accepted.name),
                Event::NodeEnrolled { name, .. } | Event::NodeJoinedSegment { name, .. } => {
                    self.changed.add(name);
                }
                // Nobody is judged by them.
                Event::RoutesAdvertised { .. }
                | Event::RouteApproved { .. }
                | Event::RouteWithdrawn { .. } => {}
                _ => self.changed = Changed::Anything,
            }
        }
        for event in events.iter().filter(|event| changes_keys(event)) {
            match event {
                Event::NodeEnrolled { node, .. } => output.add_key(*node),
                _ => output.change_keys(),
            }
        }
        output.touch();
        Ok(())
    }

    /// Gives the log a new key, and folds the event that says so.
    pub(crate) fn rotate_log_key(
        &mut self,
        by: Option<By>,
        new: LogSecret,
        output: &mut Output,
        now: Now,
    ) -> Result<(), Unwritten> {
        let (old, new_public) = (self.log.store().key(), new.public());
        let event = Event::LogKeyRotated {
            old,
            new: new_public,
        };
        if let Err(error) = self.log.rotate_key(now.wall, by, new, &event) {
            self.failed(&error, now);
            return Err(Unwritten);
        }
        self.succeeded();
        self.fleet.apply(now.wall, by, &event);
        tracing::info!(%old, new = %new_public, "the event log has a new key");
        output.touch();
        Ok(())
    }

    /// The words of the authorities before, for a node that may not know the one of today; `None`: there are none.
    pub(crate) fn words_of_authorities(&self) -> Option<ToNode> {
        let successions = self.fleet.successions().to_vec();
        (!successions.is_empty()).then_some(ToNode::Authorities { successions })
    }

    /// Whether the log took what it was given last.
    pub(crate) fn is_writable(&self) -> bool {
        match self.writing {
            Writing::Working | Writing::Resting { .. } => true,
            Writing::Failing { .. } => false,
        }
    }

    /// Nothing that failed is tried again before this; zero if nothing did. Operators and nodes are not held to
    /// it: each of their attempts is one, and is answered.
    pub(crate) fn retry_at(&self) -> Duration {
        match self.writing {
            Writing::Working => Duration::ZERO,
            Writing::Failing { retry_at } | Writing::Resting { retry_at } => retry_at,
        }
    }

    /// Something failed for another reason than the log, and would fail again at once.
    pub(crate) fn back_off(&mut self, now: Now) {
        let retry_at = now.boot + RETRY;
        self.writing = match self.writing {
            Writing::Working | Writing::Resting { .. } => Writing::Resting { retry_at },
            Writing::Failing { .. } => Writing::Failing { retry_at },
        };
    }

    /// See [`Log::tidy`].
    pub(crate) fn tidy(&mut self, keep_evidence: Duration, now: Now) {
        self.log.tidy(self.fleet.nodes().len(), now.boot);
        if self.log.is_short_of_room() {
            return;
        }
        if let Some(event) = self.log.retain(&self.fleet, keep_evidence, now) {
            self.fleet.apply(now.wall, None, &event);
        }
    }

    #[cfg(test)]
    pub(crate) fn retain(&mut self, keep: Duration, snapshot: bool, now: Now) {
        if snapshot {
            self.log.snapshot(&self.fleet);
        }
        self.tidy(keep, now);
    }

    /// A node shows a mark that the authority signed in this mesh.
    ///
    /// A mark says which events the log held when it was signed. A log that holds other ones was cut, or is an
    /// old copy: evictions may be missing from it, and the evicted would be members again. That stays an alarm
    /// until an operator recovers, or the controller is started anew, however many epochs follow.
    pub(crate) fn witness(&mut self, node: &NodeName, mark: &Mark, output: &mut Output) {
        // A log that cannot be read does not speak for itself: the alarm is raised then too, since a false one
        // costs an operator a look, and a missing one hides an eviction that was lost.
        let is_ours = self.log.extends(&mark.log).unwrap_or(false);
        let standings = self.fleet.standings(mark.segment);
        if is_ours || standings.lost() >= Some(mark.epoch) {
            return;
        }
        if let Some(before) = self.contradiction() {
            // An operator who recovers needs the newest epoch of all, and one line in the log is enough.
            if before.epoch < mark.epoch {
                self.contradiction = Some(Contradiction::new(node, mark));
                output.touch();
            }
            return;
        }
        let known = standings.newest_epoch();
        tracing::error!(
            node = %node,
            seen = mark.epoch.0,
            newest = known.map_or(0, |(_, published)| published.epoch.0),
            "the node holds an epoch that this authority signed on another log than this one: the \
             log is an old copy, or was cut; evictions may be missing from it"
        );
        self.contradiction = Some(Contradiction::new(node, mark));
        output.touch();
    }

    /// The log as a node knows it, by its own word: whatever that is worth, it decides only where a proof for
    /// that node begins.
    pub(crate) fn kept(&self, end: Option<LogEnd>) -> Kept {
        match end {
            None => Kept::Nothing,
            Some(end) if self.log.extends(&end).unwrap_or(false) => Kept::Events(end.events),
            Some(_) => Kept::Another,
        }
    }

    /// The log's newest checkpoint for a node, with the proof that it extends the log which the node knows. Where
    /// that is another one, there is no such proof: the node is told which copy the log was restored from, if an
    /// operator said so.
    pub(crate) fn news_for(&self, kept: Kept) -> Result<LogNews, LogError> {
        let restored = self.fleet.restored();
        match (kept, restored) {
            (Kept::Nothing, _) | (Kept::Another, None) => self.log.news_since(0),
            (Kept::Events(events), _) => self.log.news_since(events),
            (Kept::Another, Some(restored)) => Ok(LogNews {
                restored: Some(Box::new(restored.clone())),
                ..self.log.news_since(self.fleet.restored_at())?
            }),
        }
    }

    /// The proof of another log with the newest epoch, since the start, unless an operator has recovered.
    pub(crate) fn contradiction(&self) -> Option<&Contradiction> {
        let contradiction = self.contradiction.as_ref();
        contradiction.filter(|it| self.fleet.standings(it.segment).lost() < Some(it.epoch))
    }

    fn succeeded(&mut self) {
        if let Writing::Failing { retry_at } = self.writing {
            tracing::info!("the event log can be written again");
            self.writing = Writing::Resting { retry_at };
        }
    }

    fn failed(&mut self, error: &LogError, now: Now) {
        if self.is_writable() {
            tracing::error!(%error, "the event log cannot be written: what is in force \
                stays so, everything else is refused until it can");
        }
        let retry_at = now.boot + RETRY;
        self.writing = Writing::Failing { retry_at };
    }
}

/// Whether the keys of enrolled nodes are others after this event.
fn changes_keys(event: &Event) -> bool {
    matches!(
        event,
        Event::NodeEnrolled { .. }
            | Event::NodeRekeyed { .. }
            | Event::NodeWaiting { .. }
            | Event::NodeRejected { .. }
            | Event::NodeRemoved { .. }
    )
}

/// After a failure.
const RETRY: Duration = Duration::from_secs(1);
