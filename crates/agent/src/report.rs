//! The lines by which an operator follows a node's epochs: one for each change, none for anything else.

use epoch::Change;
use wire::update::LeaseEnd;

/// Tells a change.
pub(crate) fn tell(change: &Change) {
    match change {
        Change::Installed { epoch } => tracing::info!(%epoch, "epoch installed"),
        Change::Activated { epoch, peers } => {
            tracing::info!(%epoch, peers, psk = "****", "APPLIED epoch psk ****");
            tracing::info!(%epoch, membership = "ALLOWED", "MEMBERSHIP=ALLOWED");
        }
        Change::Excluded {
            epoch,
            reason: Some(reason),
        } => {
            tracing::warn!(%epoch, membership = "DENIED", %reason, "MEMBERSHIP=DENIED");
        }
        Change::Excluded {
            epoch,
            reason: None,
        } => {
            tracing::info!(%epoch, "not a member yet: waiting for the next epoch");
        }
        Change::Discarded { epoch } => {
            tracing::debug!(%epoch, "generation before this epoch discarded")
        }
        Change::LeaseEnded {
            epoch,
            then: LeaseEnd::Close,
        } => {
            tracing::error!(%epoch, "the lease is over and no update came: all tunnels closed");
        }
        Change::LeaseEnded {
            epoch,
            then: LeaseEnd::Open,
        } => {
            tracing::error!(%epoch, "the lease is over and no update came: tunnels stay open, as the policy says");
        }
        Change::TimeLost { epoch } => {
            tracing::warn!(%epoch, "more time was lost than the lease had left: all tunnels closed until the controller is heard");
        }
        Change::Duplicate { epoch } => {
            tracing::error!(%epoch, "another machine runs with this node's keys, and was first: all tunnels closed here");
        }
        Change::WeakKey { key } => {
            tracing::warn!(%key, "a member's key is of low order: no tunnel to it")
        }
    }
}
