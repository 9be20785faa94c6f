//! The parts of a node that one segment has to itself: its key, its tunnel, its interface and what watches over
//! that. A packet, an MTU or a probe of one segment never meets those of another; the data threads, the UDP port and
//! the control channel are the node's.

use crate::admin::Request;
use crate::data::{DataCommand, DataPlane, Ruler, Snapshot};
use crate::guard::Guard;
use crate::io::firewall::{Beside, Firewall};
use crate::io::icmp::{Echo, Sockets};
use crate::io::udp::PathErrors;
use crate::networks::Terms;
use crate::opening::Opened;
use crate::probe::{self, Prober};
use crate::uapi::Served;
use crate::underlay::{Fit, Interface, Mtu, Underlay};
use agent::{DataChange, Round, Target};
use keys::{Epoch, SegmentId, WgPublicKey, WgSecret};
use rand::Rng as _;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tunnel::TunnelId;
use wire::Place;
use zeroize::Zeroizing;

/// One segment of this node.
pub(crate) struct Segment {
    /// Where the node belongs in it.
    pub(crate) place: Place,
    pub(crate) wg: WgSecret,
    /// Its tunnel in the data plane.
    pub(crate) tunnel: TunnelId,
    /// Its interface, and the paths of its packets.
    pub(crate) underlay: Underlay,
    /// Keeps the interface.
    pub(crate) guard: Guard,
    /// Keeps mesh addresses to the tunnel.
    firewall: Firewall,
    /// Whom to probe in it.
    pub(crate) targets: watch::Sender<Vec<Target>>,
    /// Its WireGuard socket; `None`: it has none.
    pub(crate) served: Option<Served>,
}

/// Everything that the segments of a node are run with.
pub(crate) struct Common {
    pub(crate) mtu: Mtu,
    pub(crate) listen_port: u16,
    pub(crate) path_errors: PathErrors,
    /// How often peers are probed; `None`: never.
    pub(crate) probe_every: Option<Duration>,
    pub(crate) rounds: mpsc::Sender<(SegmentId, Round)>,
    /// For those that ask at a WireGuard socket.
    pub(crate) requests: mpsc::Sender<Request>,
    /// For networks behind nodes.
    pub(crate) terms: Terms,
}

impl Segment {
    /// Runs a segment that was opened; probes begin. Must run inside a tokio runtime.
    pub(crate) fn run(mut opened: Opened, data: &DataPlane, common: &Common) -> Self {
        opened.firewall.keep();
        // Before the first epoch: it says which of its networks count here.
        let terms = &common.terms;
        let networks = DataCommand::Networks(opened.tunnel, terms.ranges(), terms.accepts);
        data.send(networks);
        let fit = Fit::unknown(common.mtu);
        let interface = Interface {
            name: opened.interface,
            mtu: fit.mtu,
            underlay_mtu: fit.underlay,
            fragments: fit.fragments,
            backend: opened.backend,
            listen_port: common.listen_port,
            threads: opened.threads,
        };
        let subjects = probe::Subjects {
            targets: opened.targets.subscribe(),
            exits: opened.exits,
            fresh: opened.fresh,
            segment: opened.place.segment,
        };
        let means = (data.ruler(opened.tunnel), opened.place.v4.0);
        if let (Some(sockets), Some(every)) = (opened.sockets, common.probe_every) {
            probe(sockets, means, every, (subjects, common.rounds.clone()));
        }
        let segment = opened.place.segment;
        let served = opened
            .door
            .map(|door| door.serve(segment, common.requests.clone()));
        let guard = opened.guard.clone();
        let (watch, path_errors) = (opened.firewall.watch(), common.path_errors.clone());
        Self {
            underlay: Underlay::new(common.mtu, (interface, guard), watch, path_errors),
            place: opened.place,
            wg: opened.wg,
            tunnel: opened.tunnel,
            guard: opened.guard,
            firewall: opened.firewall,
            targets: opened.targets,
            served,
        }
    }

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

    /// This segment, as the rules of another one's interface name it.
    pub(crate) fn beside(&self) -> Beside {
        Beside::new(&self.underlay.interface().name, &self.place)
    }

    /// These are the node's other segments from now on: nothing goes from one to the other.
    pub(crate) fn keep_apart_from(&self, others: Vec<Beside>) {
        self.firewall.set_beside(others);
    }

    /// Ends the segment here: when this returns, its keys and sessions are gone and nothing of it passes any more. What
    /// is left to be waited for: then nobody makes its interface anew. The rules are for [`Firewall::stop`], which may
    /// take a moment.
    pub(crate) fn leave(self, data: &DataPlane) -> impl Future<Output = Firewall> + Send + use<> {
        data.opener().close(self.tunnel);
        drop(self.served);
        async move {
            self.guard.stop().await;
            self.firewall
        }
    }
}

/// Starts the probes, if they can be had.
fn probe(
    sockets: std::io::Result<Sockets>,
    (ruler, own): (Ruler, std::net::Ipv4Addr),
    every: Duration,
    (subjects, out): (probe::Subjects, mpsc::Sender<(SegmentId, Round)>),
) {
    let open = |sockets| Echo::new(sockets, rand_core::OsRng.r#gen());
    match sockets.and_then(open) {
        Ok(echo) => {
            let prober = Prober { echo, ruler, own };
            drop(tokio::spawn(probe::run(prober, subjects, every, out)));
        }
        Err(error) => {
            tracing::warn!(%error, "peers are not probed: raw ICMP needs CAP_NET_RAW");
        }
    }
}
