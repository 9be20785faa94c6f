//! The PSKs of an epoch, derived apart from the member machine: a newcomer costs an X25519, and ten thousand of
//! them half a second, in which the machine must go on hearing updates and the end of its lease. Decides
//! nothing, and knows no time.

use crate::plan::PeerPlan;
use keys::schedule::Side;
use keys::{EpochSecret, NodeId, Psk, Scope, SharedSecret, WgPublicKey, WgSecret};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use wire::{Digest, EpochUpdate, Verified};

/// The derivation of one update's PSKs. [`Self::run`] may take long and belongs on a thread of its own; what
/// comes of it goes to [`crate::Member::handle_derived`].
pub struct Derivation {
    pub(crate) update: Arc<Verified<EpochUpdate>>,
    pub(crate) scope: Scope,
    pub(crate) secret: EpochSecret,
    pub(crate) own: NodeId,
    pub(crate) wg: WgSecret,
    pub(crate) shared: SharedSecrets,
    /// Gone as soon as the machine has no use for the result any more.
    pub(crate) wanted: Weak<()>,
}

/// The PSKs of one update.
pub struct Derived {
    /// The update.
    pub(crate) of: Digest,
    pub(crate) peers: Vec<PeerPlan>,
    /// Members whose key is of low order.
    pub(crate) weak: Vec<WgPublicKey>,
}

/// X25519 with each member's key: it costs fifty times the rest of a PSK, and never changes. All clones are the
/// same table, so that a derivation which is given up has worked for the next one.
#[derive(Clone, Default)]
pub(crate) struct SharedSecrets(Arc<Mutex<HashMap<WgPublicKey, Arc<SharedSecret>>>>);

impl Derivation {
    /// Derives; `None` when nobody wants the result any more.
    pub fn run(self) -> Option<Derived> {
        let Self {
            update,
            scope,
            secret,
            own,
            wg,
            shared,
            wanted,
        } = self;
        let own_key = secret.node_key(scope, &own);
        let own_wg = wg.public();
        let own_side = Side {
            node_key: &own_key,
            wg: &own_wg,
        };
        let mut weak = Vec::new();
        let mut peers = Vec::with_capacity(update.roster.len());
        let own_groups = update.groups_of(&own);
        let others = update.roster.iter().filter(|member| member.node != own);
        // Without a PSK there is no tunnel, whatever else the other side believes.
        let connected = others.filter(|it| update.rules.connect(own_groups, it.groups));
        for member in connected {
            if wanted.strong_count() == 0 {
                return None;
            }
            let Some(shared) = shared.with(&member.wg, &wg) else {
                // With such a key the shared secret is the same for everybody: whoever knows the epoch
                // secret would know the PSK.
                weak.push(member.wg);
                continue;
            };
            let peer_key = secret.node_key(scope, &member.node);
            let peer_side = Side {
                node_key: &peer_key,
                wg: &member.wg,
            };
            peers.push(PeerPlan {
                psk: Psk::derive(scope, &own_side, &peer_side, &shared),
                member: member.clone(),
                shared,
            });
        }
        Some(Derived {
            of: update.digest(),
            peers,
            weak,
        })
    }

    /// How long it takes, in PSKs of peers that are known.
    pub(crate) fn cost(&self) -> usize {
        let known = self.shared.table();
        let others = self.update.roster.iter();
        let others = others.filter(|member| member.node != self.own);
        let newcomers = others.filter(|member| !known.contains_key(&member.wg));
        self.update.roster.len() + newcomers.count() * NEWCOMER_COST
    }
}

impl SharedSecrets {
    /// The secret with a peer; `None` if its key is of low order.
    fn with(&self, peer: &WgPublicKey, own: &WgSecret) -> Option<Arc<SharedSecret>> {
        if let Some(known) = self.table().get(peer) {
            return Some(Arc::clone(known));
        }
        // Not under the lock, which the machine takes too.
        let shared = Arc::new(own.shared_with(peer)?);
        self.table().insert(*peer, Arc::clone(&shared));
        Some(shared)
    }

    /// Forgets all but those of `members`.
    pub(crate) fn retain(&self, members: impl Fn(&WgPublicKey) -> bool) {
        self.table().retain(|key, _| members(key));
    }

    fn table(&self) -> MutexGuard<'_, HashMap<WgPublicKey, Arc<SharedSecret>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Derivation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Derivation({})", self.scope.epoch)
    }
}

impl fmt::Debug for Derived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Derived({} peers)", self.peers.len())
    }
}

/// An X25519 in PSKs: 45 µs to 0.9 µs.
const NEWCOMER_COST: usize = 50;
