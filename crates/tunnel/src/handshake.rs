//! The steps of a handshake between one peer and this side: which generation an initiation means, the
//! answer to it, and the response that completes one of ours. Admission has let the message in; here it
//! must prove itself.

use crate::drops::DropReason;
use crate::generation::Generation;
use crate::initiation::Claimed;
use crate::limits::*;
use crate::local::Local;
use crate::outbox::Transmit;
use crate::outer::Route;
use crate::peer::Peer;
use boringtun::noise::TunnResult;
use boringtun::noise::errors::WireGuardError;
use keys::Epoch;
use std::time::Duration;

/// Answers an initiation whose sender is claimed to be `peer`.
pub(crate) fn answer(
    peer: &mut Peer,
    claimed: &Claimed,
    index: u32,
    from: Route,
    datagram: &[u8],
    now: Duration,
    local: &mut Local,
) -> Result<(), DropReason> {
    let key = (peer.id, peer.key);
    let (role, cookie) = (peer.role, peer.cookie(now));
    let generation = match choose(peer, claimed, index, now) {
        Ok(generation) => generation,
        Err(Unanswered::Dropped(reason)) => return Err(reason),
        Err(Unanswered::Old(epoch)) => {
            // Not answered, because it may be a recording; but a peer whose clock was set back makes no
            // other. The one that it cannot prove itself with, this side makes, and only the peer itself
            // can answer that.
            peer.initiate_back(epoch, now, local);
            return Err(DropReason::Replayed);
        }
    };
    // Chosen, and so authentic and news: a recording could else hold back this side's own initiations.
    if role.yields() {
        generation.step_back(now);
    }

    let mut response = [0; MIN_BUFFER];
    // Also if it comes to nothing below: the answer is then there to be dropped by the second.
    local.awake.insert(key.0);
    let link = generation.responder(key, now, &mut local.forge);
    let answered = link
        .tunn
        .decapsulate(Some(from.path.ip()), datagram, &mut response);
    match answered {
        TunnResult::WriteToNetwork(message) => {
            let payload = link.send(from, message, cookie.as_ref());
            // An initiation may be a recording, or held back on its way, and after a start nothing tells.
            // Followed at once, it would draw the peer's packets to whoever repeats it: a peer whose
            // place is known moves only once data, or a response, has come from another.
            if peer.whereabouts.target().is_none() {
                peer.heard(from, 0, now, local);
            }
            peer.heard_news(now);
            peer.reschedule(local);
            local.outbox.put(Transmit::handshake(key.0, from, payload));
            Ok(())
        }
        TunnResult::Err(error) => Err(handshake_reason(&error)),
        _ => Err(DropReason::BadHandshake),
    }
}

/// Why an initiation is not answered.
enum Unanswered {
    Dropped(DropReason),
    /// It names this epoch and was never shown before, but others of this epoch were that are newer.
    Old(Epoch),
}

impl From<DropReason> for Unanswered {
    fn from(reason: DropReason) -> Self {
        Self::Dropped(reason)
    }
}

/// Completes the handshake that this side initiated at `index`, with the other side's response.
pub(crate) fn complete(
    peer: &mut Peer,
    index: u32,
    from: Route,
    datagram: &[u8],
    now: Duration,
    local: &mut Local,
) -> Result<(), DropReason> {
    let tunn = peer
        .owner_of(index)
        .and_then(|generation| generation.initiator_at(index));
    let tunn = tunn.ok_or(DropReason::UnknownIndex)?;
    let mut keepalive = [0; MIN_BUFFER];
    match tunn.decapsulate(Some(from.path.ip()), datagram, &mut keepalive) {
        TunnResult::WriteToNetwork(message) => {
            let payload = message.to_vec();
            // A response is fresh: it answers an ephemeral key of ours. The peer is where it came from.
            peer.heard(from, 0, now, local);
            // The keepalive confirms the session, and must leave before the packets that waited: the
            // other side may not send on it until something has come.
            local.outbox.put(Transmit::to_peer(peer.id, from, payload));
            peer.confirm(index, true, now, local);
            Ok(())
        }
        TunnResult::Err(error) => Err(handshake_reason(&error)),
        _ => Err(DropReason::BadHandshake),
    }
}

/// The generation that an initiation means, its timestamp checked and remembered; and whether the
/// timestamp is news.
///
/// An index that the PSK determines names its generation, and the timestamp is held against that
/// generation's newest: a stepped wall clock cannot stop a rotation. Any other index is a stock
/// WireGuard's, or a recording: `current` answers, at a bounded rate, and only to a timestamp that
/// `Stamps` take for news.
fn choose<'a>(
    peer: &'a mut Peer,
    claimed: &Claimed,
    index: u32,
    now: Duration,
) -> Result<&'a mut Generation, Unanswered> {
    // Until the timestamp opens, the sender is nobody: its static key can be sealed by anyone.
    let timestamp = claimed
        .timestamp(&peer.shared)
        .ok_or(DropReason::BadHandshake)?;
    let key = peer.key;
    let named = peer
        .generations
        .iter_mut()
        .find(|generation| generation.recognises(index, &key))
        .map(|generation| generation.epoch);
    // Shown before anything else is checked, and to all generations alike: the index is under MAC1
    // alone, so that a recording can be given the name of another generation, or none. Answered, it
    // would cost an X25519 each time and, at worst, move the peer's first endpoint.
    let is_news = match named {
        Some(_) => peer.stamps.show_named(timestamp),
        None => peer.stamps.show_unnamed(timestamp),
    };
    if !is_news {
        return Err(DropReason::Replayed.into());
    }
    if named.is_none() && !peer.stock.take(now) {
        return Err(DropReason::NoGeneration.into());
    }
    let generation = match named {
        Some(epoch) => peer
            .generations
            .iter_mut()
            .find(|generation| generation.epoch == epoch),
        None => peer.generations.current.as_mut(),
    };
    let generation = generation.ok_or(DropReason::NoGeneration)?;
    // Within one generation timestamps only grow. Answered out of order, initiations that were held back
    // would each make an answer, and push out the one that the pair is about to confirm.
    if named.is_some() && timestamp <= generation.newest {
        return Err(Unanswered::Old(generation.epoch));
    }
    generation.newest = generation.newest.max(timestamp);
    Ok(generation)
}

/// In a handshake message, bytes that do not open were sealed with another PSK, or forged.
fn handshake_reason(error: &WireGuardError) -> DropReason {
    match reason(error) {
        DropReason::BadAead => DropReason::BadHandshake,
        other => other,
    }
}

/// Why boringtun refused a message.
pub(crate) fn reason(error: &WireGuardError) -> DropReason {
    match error {
        WireGuardError::DuplicateCounter
        | WireGuardError::InvalidCounter
        | WireGuardError::WrongTai64nTimestamp => DropReason::Replayed,
        WireGuardError::InvalidAeadTag => DropReason::BadAead,
        WireGuardError::InvalidMac => DropReason::BadMac,
        WireGuardError::UnderLoad => DropReason::UnderLoad,
        WireGuardError::NoCurrentSession | WireGuardError::WrongIndex => DropReason::UnknownIndex,
        WireGuardError::InvalidPacket => DropReason::Malformed,
        _ => DropReason::BadHandshake,
    }
}
