//! The segments that this node would like to be in, and what the controller said to that. Asks again where the
//! answer may be another one; refuses to make keys, which is the daemon's.

use keys::WgPublicKey;
use std::collections::BTreeMap;
use std::time::Duration;
use wire::{Ask, SegmentName, Unplaced};

/// The segments by name.
#[derive(Debug, Default)]
pub(crate) struct Asks(BTreeMap<SegmentName, Wish>);

#[derive(Debug)]
struct Wish {
    /// The node's key in it.
    wg: WgPublicKey,
    refused: Option<Unplaced>,
    /// When to ask once more, on the boot-time clock.
    again: Option<Duration>,
}

impl Asks {
    /// Takes a segment to ask for.
    pub(crate) fn handle_ask(&mut self, name: SegmentName, wg: WgPublicKey) {
        let wish = Wish {
            wg,
            refused: None,
            again: None,
        };
        self.0.insert(name, wish);
    }

    /// The questions of a connection that begins, for the segments that the node has no place in.
    pub(crate) fn open(&mut self, has_place: impl Fn(&SegmentName) -> bool) -> Vec<Ask> {
        let open = self.0.iter_mut().filter(|(name, _)| !has_place(name));
        open.map(|(name, wish)| wish.ask(name)).collect()
    }

    /// The question for one segment; `None`: there is no key for it yet.
    pub(crate) fn ask(&mut self, name: &SegmentName) -> Option<Ask> {
        let wish = self.0.get_mut(name)?;
        Some(wish.ask(name))
    }

    /// The questions that are to be put once more by now.
    pub(crate) fn due(&mut self, now: Duration) -> Vec<Ask> {
        let is_due = |wish: &Wish| wish.again.is_some_and(|again| again <= now);
        let due = self.0.iter_mut().filter(|(_, wish)| is_due(wish));
        due.map(|(name, wish)| wish.ask(name)).collect()
    }

    /// When the next one is.
    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        self.0.values().filter_map(|wish| wish.again).min()
    }

    /// The controller gives no place there.
    pub(crate) fn handle_refused(&mut self, name: &SegmentName, reason: Unplaced, now: Duration) {
        let Some(wish) = self.0.get_mut(name) else {
            return;
        };
        if wish.refused != Some(reason) {
            tracing::warn!(segment = %name, %reason, "no place in a segment");
        }
        wish.refused = Some(reason);
        wish.again = (reason == Unplaced::Busy).then(|| now + PAUSE);
    }

    /// The node has a place there.
    pub(crate) fn handle_placed(&mut self, name: &SegmentName) {
        if let Some(wish) = self.0.get_mut(name) {
            (wish.refused, wish.again) = (None, None);
        }
    }

    /// The segments that the controller gives no place in, and why.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (&SegmentName, Unplaced)> {
        let wishes = self.0.iter();
        wishes.filter_map(|(name, wish)| Some((name, wish.refused?)))
    }
}

impl Wish {
    fn ask(&mut self, name: &SegmentName) -> Ask {
        self.again = None;
        Ask {
            name: Some(name.clone()),
            wg: self.wg,
        }
    }
}

/// Before a controller that could not write its log is asked again.
const PAUSE: Duration = Duration::from_secs(10);
