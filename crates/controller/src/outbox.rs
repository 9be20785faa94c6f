//! Messages that wait to be sent on one connection.
//!
//! Two kinds wait apart. *Words* (updates, answers, refusals) keep their order; a node that lets too many
//! pile up does not read, and loses its connection. *News* (where peers are, and where their packets go) are
//! maps: the newest of each node, however often it changed meanwhile. News is bounded by the number of nodes, so that no
//! member can fill another's outbox by moving; and words go first, so that it delays no eviction.

use keys::NodeId;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use wire::Way;
use wire::message::{Refusal, ToNode};

/// The engine's end of a connection.
#[derive(Debug)]
pub(crate) enum Outbound {
    /// A message.
    Message(Box<ToNode>),
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
    words: VecDeque<Outbound>,
    news: BTreeMap<NodeId, Vec<SocketAddr>>,
    ways: BTreeMap<NodeId, [Way; 2]>,
    is_closed: bool,
}

impl Outbox {
    /// Puts a message or the end into the outbox.
    pub(crate) fn put(&self, outbound: Outbound) -> Result<(), Full> {
        let mut state = self.state();
        match outbound {
            Outbound::Message(message) => match *message {
                ToNode::Endpoints { entries } => state.news.extend(entries),
                ToNode::Ways { node, ways } => drop(state.ways.insert(node, ways)),
                message => {
                    if matches!(message, ToNode::Update(_)) {
                        state.forget_old_updates();
                    }
                    if state.words.len() >= WORDS {
                        return Err(Full);
                    }
                    let message = Box::new(message);
                    state.words.push_back(Outbound::Message(message));
                }
            },
            close @ Outbound::Close(_) => state.words.push_back(close),
        }
        drop(state);
        self.wake.notify_one();
        Ok(())
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
    /// A node that is far behind needs the epoch in force and the one on its way, not each that was: in an
    /// incident, one eviction after another must not cut off those who are slow to read.
    fn forget_old_updates(&mut self) {
        let is_update = |word: &Outbound| matches!(word, Outbound::Message(m) if matches!(**m, ToNode::Update(_)));
        let mut left = self.words.iter().filter(|word| is_update(word)).count();
        self.words.retain(|word| {
            let is_old = is_update(word) && left > UPDATES;
            left -= usize::from(is_old);
            !is_old
        });
    }

    /// Words before news; and news in pieces, so that a word waits for one piece at most.
    fn next(&mut self) -> Option<Outbound> {
        if let Some(word) = self.words.pop_front() {
            return Some(word);
        }
        let mut entries = Vec::new();
        while entries.len() < PIECE {
            let Some(entry) = self.news.pop_first() else {
                break;
            };
            entries.push(entry);
        }
        if entries.is_empty() {
            let (node, ways) = self.ways.pop_first()?;
            return Some(Outbound::Message(Box::new(ToNode::Ways { node, ways })));
        }
        Some(Outbound::Message(Box::new(ToNode::Endpoints { entries })))
    }
}

/// Words that may wait for one node.
const WORDS: usize = 64;
/// Updates that may wait beside the newest.
const UPDATES: usize = 3;
/// Nodes in one piece of news: up to 20 kB.
const PIECE: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(node: u8, port: u16) -> Outbound {
        let entries = vec![(NodeId([node; 32]), vec![([192, 0, 2, 1], port).into()])];
        Outbound::Message(Box::new(ToNode::Endpoints { entries }))
    }

    fn word() -> Outbound {
        let refused = None;
        let digest = [0; 32];
        Outbound::Message(Box::new(ToNode::EvidenceResult { digest, refused }))
    }

    #[tokio::test]
    async fn news_is_the_newest_of_each_node_and_comes_after_words() {
        let outbox = Outbox::default();
        for port in 1..=10_000 {
            outbox.put(moved(7, port)).unwrap();
        }
        outbox.put(moved(8, 1)).unwrap();
        outbox.put(word()).unwrap();
        outbox.close();
        let first = outbox.take().await.unwrap();
        assert!(
            matches!(first, Outbound::Message(m) if matches!(*m, ToNode::EvidenceResult { .. }))
        );
        let Some(Outbound::Message(news)) = outbox.take().await else {
            panic!("no news");
        };
        let ToNode::Endpoints { entries } = *news else {
            panic!("no news");
        };
        let ports: Vec<u16> = entries.iter().map(|(_, at)| at[0].port()).collect();
        assert_eq!(ports, [10_000, 1]);
        assert!(outbox.take().await.is_none());
    }

    #[tokio::test]
    async fn a_node_that_does_not_read_is_found_out_by_words_alone() {
        let outbox = Outbox::default();
        for _ in 0..WORDS {
            outbox.put(word()).unwrap();
        }
        assert_eq!(outbox.put(word()), Err(Full));
        assert_eq!(outbox.put(moved(1, 1)), Ok(()));
        // The end is always told.
        assert_eq!(outbox.put(Outbound::Close(Refusal::Busy)), Ok(()));
    }

    fn update(epoch: u64) -> Outbound {
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
            segment: update.segment,
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

    #[tokio::test]
    async fn news_of_many_nodes_comes_in_pieces_that_words_overtake() {
        let outbox = Outbox::default();
        for node in 0..=255 {
            outbox.put(moved(node, 1)).unwrap();
        }
        let size = |outbound: Option<Outbound>| match outbound {
            Some(Outbound::Message(message)) => match *message {
                ToNode::Endpoints { entries } => entries.len(),
                _ => 0,
            },
            _ => panic!("nothing"),
        };
        assert_eq!(size(outbox.take().await), PIECE);
        outbox.put(word()).unwrap();
        assert_eq!(size(outbox.take().await), 0, "the word");
        assert_eq!(size(outbox.take().await), 256 - PIECE);
    }
}
