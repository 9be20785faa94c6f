//! The parts of a node that one segment has to itself: its key, its tunnel, its interface and what watches over
//! that. A packet, an MTU or a probe of one segment never meets those of another; the data threads, the UDP port and
//! the control channel are the node's.

use crate::data::{DataCommand, DataPlane, Snapshot};
use crate::guard::Guard;
use crate::underlay::Underlay;
use agent::{DataChange, Target};
use keys::{Epoch, WgPublicKey, WgSecret};
use tokio::sync::watch;
use tunnel::TunnelId;
use zeroize::Zeroizing;

/// One segment of this node.
pub(crate) struct Segment {
    pub(crate) wg: WgSecret,
    /// Its tunnel in the data plane.
    pub(crate) tunnel: TunnelId,
    /// Its interface, and the paths of its packets.
    pub(crate) underlay: Underlay,
    /// Keeps the interface.
    pub(crate) guard: Guard,
    /// Whom to probe in it.
    pub(crate) targets: watch::Sender<Vec<Target>>,
}

impl Segment {
    /// The data plane with this segment's tunnel as observed; `None` when it has ended.
    pub(crate) async fn snapshot(&self, data: &DataPlane) -> Option<Snapshot> {
        data.snapshot(self.tunnel).await
    }

    /// Changes the tunnel.
    pub(crate) fn change(&self, data: &DataPlane, change: DataChange) {
        data.send(DataCommand::Change(self.tunnel, change));
    }

    /// The interface has another MTU, in bytes.
    pub(crate) fn change_mtu(&self, data: &DataPlane, mtu: u32) {
        data.send(DataCommand::Mtu(self.tunnel, mtu as usize));
    }

    /// The PSK in force with one peer, base64; `None` without a tunnel to it.
    pub(crate) async fn export_psk(
        &self,
        data: &DataPlane,
        peer: WgPublicKey,
    ) -> Option<(Epoch, Zeroizing<String>)> {
        data.export_psk(self.tunnel, peer).await
    }

    /// Ends the segment here: nobody makes its interface anew, and when this returns its keys and sessions are gone
    /// and nothing of it passes any more. The interface goes with the threads' queues.
    pub(crate) async fn leave(&self, data: &DataPlane) {
        self.guard.stop().await;
        data.close(self.tunnel);
    }
}
