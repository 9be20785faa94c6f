//! The lines by which an operator follows a node's epochs: one for each change, none for anything else.

use epoch::Change;
use wire::SegmentName;
use wire::update::LeaseEnd;

/// Tells a change in a segment, which the line names unless it is the one of a mesh that has no other.
pub(crate) fn tell(change: &Change, segment: &SegmentName) {
    let segment = segment.told();
    match change {
        Change::Installed { epoch } => tracing::info!(segment, %epoch, "epoch installed"),
        Change::Activated { epoch, peers } => {
            tracing::info!(segment, %epoch, peers, psk = "****", "APPLIED epoch psk ****");
            tracing::info!(segment, %epoch, membership = "ALLOWED", "MEMBERSHIP=ALLOWED");
        }
        Change::Excluded {
            epoch,
            reason: Some(reason),
        } => {
            tracing::warn!(segment, %epoch, membership = "DENIED", %reason, "MEMBERSHIP=DENIED");
        }
        Change::Excluded {
            epoch,
            reason: None,
        } => {
            tracing::info!(segment, %epoch, "not a member yet: waiting for the next epoch");
        }
        Change::Discarded { epoch } => {
            tracing::debug!(segment, %epoch, "generation before this epoch discarded")
        }
        Change::LeaseEnded {
            epoch,
            then: LeaseEnd::Close,
        } => {
            tracing::error!(segment, %epoch, "the lease is over and no update came: all tunnels closed");
        }
        Change::LeaseEnded {
            epoch,
            then: LeaseEnd::Open,
        } => {
            tracing::error!(segment, %epoch, "the lease is over and no update came: tunnels stay open, as the policy says");
        }
        Change::TimeLost { epoch } => {
            tracing::warn!(segment, %epoch, "more time was lost than the lease had left: all tunnels closed until the controller is heard");
        }
        Change::Duplicate { epoch } => {
            tracing::error!(segment, %epoch, "another machine runs with this node's keys, and was first: all tunnels closed here");
        }
        Change::WeakKey { key } => {
            tracing::warn!(segment, %key, "a member's key is of low order: no tunnel to it")
        }
    }
}
