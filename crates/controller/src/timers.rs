//! Every timer of the engine, with its reason, and when it is due: all of them are listed here and nowhere
//! else. Refuses to do what is due; [`crate::engine::Engine::handle_timeout`] looks at everything each time.

use crate::connections::Connections;
use crate::effect::ConnectionId;
use crate::journal::Journal;
use crate::segment::Segment;
use crate::segments::Segments;
use epoch::authority;
use keys::SegmentId;
use std::time::Duration;
use wire::NodeName;

/// Something that the engine waits for.
///
/// *Rests* means: not before what failed a moment ago may be tried again (`Journal::retry_at`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Timer {
    /// A published epoch begins. Never rests: it is durable, and begins on the nodes in any case.
    Activation(SegmentId),
    /// The scheduled update is due. Rests, and waits for nodes to prove themselves after a restart.
    Scheduled(SegmentId),
    /// An epoch that is in use cannot be pushed, and another one has to take its place. Rests.
    Recovery(SegmentId),
    /// Somebody may be able to join. Rests.
    Join(SegmentId),
    /// The next member's evidence turns stale where that revokes at once. Rests; there is none while the disk
    /// takes no evidence.
    Revocation(SegmentId),
    /// A connection must have said something that counts.
    Opening(ConnectionId),
    /// A process that may be a node's second has waited for the answer of its first.
    Claim(ConnectionId),
    /// The news of a node that moves too often has waited.
    News(NodeName),
}

/// The earliest timer, on the boot-time clock.
pub(crate) fn next(
    journal: &Journal,
    segments: &Segments,
    connections: &Connections,
) -> Option<(Duration, Timer)> {
    let segments = segments.iter();
    let of_segments = segments.flat_map(|segment| of_segment(segment, journal));
    let openings = connections.openings();
    let openings = openings.map(|(id, deadline)| (deadline, Timer::Opening(id)));
    let claims = connections.claims();
    let claims = claims.map(|(id, due)| (due, Timer::Claim(id)));
    let news = connections.news();
    let news = news.map(|(name, due)| (due, Timer::News(name.clone())));
    let all = of_segments.chain(openings).chain(claims).chain(news);
    all.min_by_key(|(at, _)| *at)
}

fn of_segment(
    segment: &Segment,
    journal: &Journal,
) -> impl Iterator<Item = (Duration, Timer)> + use<> {
    let id = segment.id();
    let rest = journal.retry_at();
    let machine = match segment.machine_due() {
        (at, authority::Timer::Activation) => (at, Timer::Activation(id)),
        (at, authority::Timer::Scheduled) => {
            let at = at.max(rest).max(segment.settles_at());
            (at, Timer::Scheduled(id))
        }
    };
    let recovery = (!segment.is_whole()).then_some((rest, Timer::Recovery(id)));
    let join = segment.joins_at();
    let join = join.map(|at| (at.max(rest), Timer::Join(id)));
    let revocation = revocation_at(segment, journal);
    let revocation = revocation.map(|at| {
        (
            at.max(rest).max(segment.settles_at()),
            Timer::Revocation(id),
        )
    });
    let all = [Some(machine), recovery, join, revocation];
    all.into_iter().flatten()
}

fn revocation_at(segment: &Segment, journal: &Journal) -> Option<Duration> {
    if !segment.revokes_at_once() || journal.log().is_short_of_room() {
        return None;
    }
    segment.judges_at()
}
