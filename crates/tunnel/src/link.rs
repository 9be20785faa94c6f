//! One handshake and, once it is confirmed, its session: a boringtun `Tunn`, and the index at which
//! the other side reaches it. Refuses to say a message again more than once.

use crate::cookie::{self, Cookie};
use crate::indices::Index;
use crate::limits::*;
use crate::outer::Route;
use boringtun::noise::Tunn;
use keys::WgPublicKey;
use std::time::Duration;

/// A `Tunn` of one handshake, and its index.
pub(crate) struct Link {
    pub(crate) tunn: Box<Tunn>,
    pub(crate) index: Index,
    /// When the first message of the handshake was sent or answered.
    begun: Duration,
    /// This side's message of the handshake, while it may be refused.
    sent: Option<Sent>,
}

struct Sent {
    to: Route,
    message: Vec<u8>,
    /// Once is enough: a side that refuses its own cookie refuses it again.
    is_repeated: bool,
}

/// A handshake that is confirmed.
pub(crate) struct Session {
    pub(crate) link: Link,
    /// On the side that answered, when it did: no later than the initiator's.
    pub(crate) established: Duration,
    /// Whether this side initiated it.
    pub(crate) initiator: bool,
}

impl Link {
    pub(crate) fn new(tunn: Tunn, index: Index, now: Duration) -> Self {
        Self {
            tunn: Box::new(tunn),
            index,
            begun: now,
            sent: None,
        }
    }

    /// Keeps this side's message of the handshake, which goes to `to`: as it is to be sent.
    pub(crate) fn send(&mut self, to: Route, message: &[u8], cookie: Option<&Cookie>) -> Vec<u8> {
        let mut message = message.to_vec();
        if let Some(cookie) = cookie {
            cookie::prove(cookie, &mut message);
        }
        self.sent = Some(Sent {
            to,
            message: message.clone(),
            is_repeated: false,
        });
        message
    }

    /// The cookie in a reply to that message.
    pub(crate) fn open_cookie(&self, peer: &WgPublicKey, reply: &[u8]) -> Option<Cookie> {
        cookie::open_reply(peer, reply, &self.sent.as_ref()?.message)
    }

    /// The message with the cookie, once, and where it goes: nobody has opened it yet.
    pub(crate) fn send_again(&mut self, cookie: &Cookie) -> Option<(Route, Vec<u8>)> {
        // Nobody has opened it, so that a second copy with a cookie is no replay. More than one copy would
        // let a stranger who replays cookie replies have this side send as often as it likes.
        let sent = self.sent.as_mut().filter(|sent| !sent.is_repeated)?;
        sent.is_repeated = true;
        cookie::prove(cookie, &mut sent.message);
        Some((sent.to, sent.message.clone()))
    }

    /// Whether the side that initiated it may still send on it: the keepalive that was to confirm it at
    /// once may be lost.
    pub(crate) fn may_be_confirmed(&self, now: Duration) -> bool {
        now.saturating_sub(self.begun) < REJECT_AFTER_TIME
    }

    /// The session of this handshake, which is confirmed now.
    pub(crate) fn confirmed(mut self, initiator: bool, now: Duration) -> Session {
        // From here on no cookie reply to its message means anything: none may have it sent again.
        self.sent = None;
        Session {
            established: if initiator { now } else { self.begun },
            link: self,
            initiator,
        }
    }
}

impl Session {
    /// Whether a packet that is sent on it will arrive before the other side takes it for too old.
    pub(crate) fn sends(&self, now: Duration) -> bool {
        now.saturating_sub(self.established) < SEND_FOR
    }

    pub(crate) fn opens(&self, now: Duration) -> bool {
        now.saturating_sub(self.established) < REJECT_AFTER_TIME
    }
}
