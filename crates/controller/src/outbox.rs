//! Messages that wait to be sent on one connection.
//!
//! Two kinds wait apart. *Words* (updates, answers, refusals) keep their order; a node that lets too many
//! pile up does not read, and loses its connection. *News* (where peers are, and where their packets go) comes after
//! all words, so that it delays no eviction, and does not pile up: of places there is only the note that there are
//! some, until the connection can take them; of ways, the newest of each node, and of so many nodes. What a node that
//! reads nothing holds of the controller's memory is bounded by that: 112 words, of which updates are shared with all.

use keys::{NodeId, SegmentId};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use wire::Way;
use wire::message::{Refusal, ToNode};

/// The engine's end of a connection.
#[derive(Debug)]
pub(crate) enum Outbound {
    /// A message.
    Message(Box<ToNode>),
    /// There is news of places.
    Places,
    /// The last message, then the end.
    Close(Refusal),
}

/// The node does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// One connection's outbox: the shell puts in, the connection's task takes out.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// There is something to take, or nothing more will be.
    wake: Notify,
    /// Nothing more will be put in.
    closed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Each with the segment that it is an update of.
    words: VecDeque<(Option<SegmentId>, Outbound)>,
    /// News of places that the connection has asked for.
    news: VecDeque<ToNode>,
    /// There is more, which it has not asked for yet.
    has_news: bool,
    ways: BTreeMap<(SegmentId, NodeId), [Way; 2]>,
    is_closed: bool,
}

impl Outbox {
    /// Puts a message or the end into the outbox.
    pub(crate) fn put(&self, outbound: Outbound) -> Result<(), Full> {
        let mut state = self.state();
        match outbound {
            Outbound::Message(message) => match *message {
                ToNode::Ways {
                    segment,
                    node,
                    ways,
                } => {
                    // A way that is left out is said again with the next report.
                    let of = (segment, node);
                    if state.ways.len() < WAYS || state.ways.contains_key(&of) {
                        state.ways.insert(of, ways);
                    }
                }
                message => {
                    let of = updates(&message);
                    if let Some(segment) = of {
                        state.forget_old_updates(segment);
                    }
                    if state.words.len() >= WORDS {
                        return Err(Full);
                    }
                    let message = Box::new(message);
                    state.words.push_back((of, Outbound::Message(message)));
                }
            },
            Outbound::Places => state.has_news = true,
            close @ Outbound::Close(_) => state.words.push_back((None, close)),
        }
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// Puts in the news of places that was asked for.
    pub(crate) fn put_news(&self, news: Vec<ToNode>) {
        self.state().news.extend(news);
        self.wake.notify_one();
    }

    /// Nothing more is put in.
    pub(crate) fn close(&self) {
        self.state().is_closed = true;
        self.wake.notify_one();
        self.closed.notify_one();
    }

    /// Resolves once nothing more is put in.
    pub(crate) async fn closed(&self) {
        while !self.state().is_closed {
            self.closed.notified().await;
        }
    }

    /// The next thing to send; `None` when there is nothing and nothing will be.
    pub(crate) async fn take(&self) -> Option<Outbound> {
        loop {
            {
                let mut state = self.state();
                if let Some(next) = state.next() {
                    return Some(next);
                }
                if state.is_closed {
                    return None;
                }
            }
            // A permit is kept for a wake-up that comes between the look and the wait.
            self.wake.notified().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A node that is far behind needs the epoch in force and the one on its way of each segment, not each that was: in
    /// an incident, one eviction after another must not cut off those who are slow to read. The proof of the log that
    /// came with one that is left out is asked for anew.
    fn forget_old_updates(&mut self, segment: SegmentId) {
        let is_update = |of: &Option<SegmentId>| *of == Some(segment);
        let mut left = self.words.iter().filter(|(of, _)| is_update(of)).count();
        self.words.retain(|(of, _)| {
            let is_old = is_update(of) && left > UPDATES;
            left -= usize::from(is_old);
            !is_old
        });
    }

    /// Words before news; and news in pieces, so that a word waits for one piece at most.
    fn next(&mut self) -> Option<Outbound> {
        if let Some((_, word)) = self.words.pop_front() {
            return Some(word);
        }
        if let Some(piece) = self.news.pop_front() {
            if self.news.is_empty() {
                // News is large and rare, and the room for it would stay with every connection.
                self.news = VecDeque::new();
            }
            return Some(Outbound::Message(Box::new(piece)));
        }
        if std::mem::take(&mut self.has_news) {
            return Some(Outbound::Places);
        }
        let ((segment, node), ways) = self.ways.pop_first()?;
        Some(Outbound::Message(Box::new(ToNode::Ways {
            segment,
            node,
            ways,
        })))
    }
}

/// The segment that a message is an update of.
fn updates(message: &ToNode) -> Option<SegmentId> {
    let mark = match message {
        ToNode::Update(update) => &update.mark,
        ToNode::Changes(changed) => &changed.mark,
        _ => return None,
    };
    mark.peek().map(|mark| mark.segment)
}

/// Words that may wait for one node: some updates of each of its segments among them.
const WORDS: usize = 48 + (UPDATES + 1) * wire::segment::MAX_SEGMENTS;
/// Updates of a segment that may wait beside the newest.
const UPDATES: usize = 3;
/// Nodes of whose ways one node is told at a time.
const WAYS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn places(count: usize) -> ToNode {
        let entries = vec![(NodeId([7; 32]), Vec::new()); count];
        ToNode::Endpoints {
            entries: wire::endpoints::Entries::new(&entries),
            mark: None,
        }
    }

    fn ways(node: u16) -> Outbound {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&node.to_be_bytes());
        let (node, ways) = (NodeId(id), [Way::Unknown, Way::Unknown]);
        Outbound::Message(Box::new(ToNode::Ways {
            segment: SegmentId::FIRST,
            node,
            ways,
        }))
    }

    fn word() -> Outbound {
        let refused = None;
        let digest = [0; 32];
        Outbound::Message(Box::new(ToNode::EvidenceResult { digest, refused }))
    }

    #[tokio::test]
    async fn news_is_asked_for_once_and_comes_in_pieces_that_words_overtake() {
        let outbox = Outbox::default();
        for _ in 0..10_000 {
            outbox.put(Outbound::Places).unwrap();
        }
        outbox.put(word()).unwrap();
        assert!(matches!(outbox.take().await, Some(Outbound::Message(_))));
        assert!(matches!(outbox.take().await, Some(Outbound::Places)));
        outbox.put_news(vec![places(1), places(2)]);
        outbox.put(Outbound::Places).unwrap();
        let is_news = |it: &Option<Outbound>| matches!(it, Some(Outbound::Message(m)) if matches!(**m, ToNode::Endpoints { .. }));
        assert!(is_news(&outbox.take().await));
        outbox.put(word()).unwrap();
        assert!(!is_news(&outbox.take().await), "the word");
        assert!(is_news(&outbox.take().await));
        outbox.close();
        assert!(
            matches!(outbox.take().await, Some(Outbound::Places)),
            "more came"
        );
        assert!(outbox.take().await.is_none());
    }

    #[tokio::test]
    async fn ways_of_any_number_of_nodes_take_a_bounded_room() {
        let outbox = Outbox::default();
        for node in 0..10_000 {
            outbox.put(ways(node)).unwrap();
        }
        outbox.close();
        let mut count = 0;
        while outbox.take().await.is_some() {
            count += 1;
        }
        assert_eq!(count, WAYS);
    }

    #[tokio::test]
    async fn a_node_that_does_not_read_is_found_out_by_words_alone() {
        let outbox = Outbox::default();
        for _ in 0..WORDS {
            outbox.put(word()).unwrap();
        }
        assert_eq!(outbox.put(word()), Err(Full));
        assert_eq!(outbox.put(Outbound::Places), Ok(()));
        // The end is always told.
        assert_eq!(outbox.put(Outbound::Close(Refusal::Busy)), Ok(()));
    }

    fn update(epoch: u64) -> Outbound {
        update_of(SegmentId::FIRST, epoch)
    }

    fn update_of(segment: SegmentId, epoch: u64) -> Outbound {
        use rand_core::OsRng;
        let authority = keys::AuthoritySecret::generate(&mut OsRng);
        let update = wire::fixtures::update(epoch, Vec::new());
        let log_end = wire::log::LogEnd {
            events: 1,
            root: wire::Digest::default(),
        };
        let log = wire::log::LogNews {
            checkpoint: String::new(),
            from: 0,
            proof: Vec::new(),
            restored: None,
        };
        let mark = wire::Mark {
            mesh: update.mesh,
            segment,
            epoch: update.epoch,
            update: wire::Digest::default(),
            log: log_end,
            log_key: keys::LogId([1; 32]),
        };
        Outbound::Message(Box::new(ToNode::Update(wire::message::Update {
            signed: wire::Signed::sign(&update, &authority).unwrap(),
            secret: None,
            age_ms: epoch,
            mark: wire::Signed::sign(&mark, &authority).unwrap(),
            log,
        })))
    }

    #[tokio::test]
    async fn a_node_that_is_slow_to_read_gets_the_newest_of_many_updates() {
        let outbox = Outbox::default();
        outbox.put(word()).unwrap();
        for epoch in 1..=500 {
            outbox.put(update(epoch)).unwrap();
        }
        outbox.close();
        let mut epochs = Vec::new();
        while let Some(Outbound::Message(message)) = outbox.take().await {
            if let ToNode::Update(update) = *message {
                epochs.push(update.age_ms);
            }
        }
        assert_eq!(epochs, [497, 498, 499, 500]);
    }

    /// Updates of all come with proofs that build on each other: none is left out for another segment's.
    #[tokio::test]
    async fn updates_of_one_segment_leave_room_for_those_of_the_others() {
        let outbox = Outbox::default();
        for epoch in 1..=4 {
            for segment in 0..16 {
                outbox.put(update_of(SegmentId(segment), epoch)).unwrap();
            }
        }
        for _ in 0..48 {
            outbox.put(word()).unwrap();
        }
        outbox.close();
        let mut updates = 0;
        while let Some(Outbound::Message(message)) = outbox.take().await {
            updates += u32::from(matches!(*message, ToNode::Update(_)));
        }
        assert_eq!(updates, 4 * 16);
    }
}
