//! Where the two machines meet: each [`epoch::Command`] that concerns the data plane becomes one call
//! of the tunnel.

use epoch::{Command, PeerPlan};
use keys::WgPublicKey;
use std::net::IpAddr;
use std::time::Duration;
use tunnel::{PeerSpec, Tunnel};

/// Carries out `command`; returns the keys that no tunnel is possible with.
pub(crate) fn apply(tunnel: &mut Tunnel, command: Command, now: Duration) -> Vec<WgPublicKey> {
    match command {
        Command::Install {
            epoch,
            peers,
            lead,
            closes_at,
        } => {
            let peers = peers.into_iter().map(|PeerPlan { member, psk }| {
                let allowed = vec![IpAddr::V4(member.v4), IpAddr::V6(member.v6)];
                (
                    PeerSpec {
                        key: member.wg,
                        allowed,
                    },
                    psk,
                )
            });
            return tunnel.install(epoch, peers.collect(), lead, closes_at, now);
        }
        Command::Activate { epoch } => tunnel.activate(epoch, now),
        Command::DiscardPrevious => tunnel.discard_previous(),
        Command::Close => tunnel.close(),
        // The agent's own affairs: they never reach the data plane.
        Command::Persist(_) | Command::Acknowledge { .. } | Command::Report(_) => {}
    }
    Vec::new()
}
