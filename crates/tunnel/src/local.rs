//! This side of all pairs: the means that the tunnel lends its peers for one call. Each room has its own file and
//! its own rules; this only says which there are. Counters, events and endpoints have locks
//! of their own for threads that share the tunnel; the rest takes the tunnel alone.

use crate::agenda::Agenda;
use crate::allowed_ips::PeerId;
use crate::drops::DropCounters;
use crate::events::Events;
use crate::forge::Forge;
use crate::outbox::Outbox;
use crate::traffic::Traffic;
use crate::whereabouts::Endpoints;
use std::collections::BTreeSet;
use std::time::Duration;

pub(crate) struct Local {
    pub(crate) forge: Forge,
    pub(crate) outbox: Outbox,
    pub(crate) agenda: Agenda,
    /// Peers with a handshake or a session: those that have to be looked after by the second.
    pub(crate) awake: BTreeSet<PeerId>,
    pub(crate) drops: DropCounters,
    pub(crate) events: Events,
    pub(crate) endpoints: Endpoints,
    /// The interface's MTU, in bytes.
    pub(crate) mtu: usize,
    /// How long a peer may hear nothing; `None`: for ever.
    pub(crate) keepalive: Option<Duration>,
    /// Carried by peers that are gone.
    pub(crate) carried: Traffic,
    /// Handshakes completed since start.
    pub(crate) handshakes: u64,
}
