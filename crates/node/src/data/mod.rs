//! The data plane: threads that carry packets, and the one among them that also does the rest.
//!
//! ```text
//! agent ──commands──▶ main thread ──write lock──▶ FrontDoor ◀──read lock── every thread, per turn
//! ```
//!
//! Each thread is a direct loop over its own UDP socket and its own queue of each segment's TUN device:
//! `worker.rs`. The main thread also takes the agent's commands, before packets, and looks after the tunnels'
//! timers. A segment that is joined is another tunnel behind the front door and another device, and one that is
//! left is gone when [`DataPlane::close`] returns; the others carry on. The
//! kernel keeps a sender's datagrams on one socket (`io/udp.rs`) and what goes to a destination on one
//! TUN queue (`io/tun/steer.rs`): no flow is reordered, and peers spread over threads.

mod batch;
#[cfg(test)]
mod tests;
mod worker;

use crate::io::clock;
use crate::io::offload::Offloads;
use crate::io::refusals::Refusals;
use crate::io::rights::{self, Keep};
use crate::io::tun::Tun;
use agent::DataChange;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use keys::{Epoch, WgPublicKey};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::timeout;
use tunnel::{
    Carrier, Drops, FrontDoor, OpenError, PeerSnapshot, Range, Traffic, Tunnel, TunnelId,
};
use worker::Worker;
use zeroize::Zeroizing;

/// The agent's command to the data plane.
pub(crate) enum DataCommand {
    /// Another epoch, or other places of peers: the change itself under one write lock, so that no packet passes
    /// between its parts; what only makes ready for it before, a little at a time.
    Change(TunnelId, DataChange),
    /// The interface's MTU from now on.
    Mtu(TunnelId, usize),
    /// The system goes another way to these places than before.
    Moved(Vec<SocketAddr>),
    /// How long a peer may hear nothing from now on.
    Keepalive(Option<Duration>),
    /// The networks behind this node that it carries packets for, and whether it takes part in those behind peers.
    Networks(TunnelId, Vec<Range>, bool),
    /// Send this packet in a datagram that nobody fragments, or not at all.
    Measure(TunnelId, Vec<u8>),
    /// Observe the data plane, and of its tunnels this one.
    Snapshot(TunnelId, oneshot::Sender<Snapshot>),
    /// The PSK in force with one peer, base64: for an operator's explicit export.
    ExportPsk(
        TunnelId,
        WgPublicKey,
        oneshot::Sender<Option<(Epoch, Zeroizing<String>)>>,
    ),
}

/// The data plane as observed: one tunnel, and what all have in common.
pub(crate) struct Snapshot {
    pub(crate) common: Common,
    pub(crate) peers: Vec<PeerSnapshot>,
    /// Of the tunnel alone.
    pub(crate) own_drops: Drops,
    pub(crate) traffic: Traffic,
    pub(crate) handshakes: u64,
    /// Packets that each rule of the segment has let in; `None`: there are no rules.
    pub(crate) passed: Option<Vec<u64>>,
}

impl Snapshot {
    /// Packets of the tunnel that were dropped, and those that the front door dropped before it knew for which tunnel
    /// they were.
    pub(crate) fn drops(&self) -> Drops {
        let mut drops = self.common.drops.clone();
        drops.add(&self.own_drops);
        drops
    }
}

/// The parts of the data plane that all tunnels have in common, as observed.
#[derive(Clone)]
pub(crate) struct Common {
    /// Of the front door, before it knew for which tunnel they were.
    pub(crate) drops: Drops,
    pub(crate) io: IoFailures,
    /// Every offload by name, and why it is off if it is.
    pub(crate) offloads: Vec<(&'static str, Option<String>)>,
    pub(crate) threads: usize,
}

/// Packets that the system did not take.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct IoFailures {
    pub(crate) tun_write: u64,
    pub(crate) udp_send: u64,
}

/// Another TUN queue for a thread, or one less.
pub(crate) enum DeviceChange {
    /// A queue of the device of a tunnel that was opened.
    Open(TunnelId, Box<dyn Tun>),
    /// A queue of a device that was made anew.
    Replace(TunnelId, Box<dyn Tun>),
    /// The tunnel is closed, and its queue goes.
    Close(TunnelId),
}

/// The way of a new TUN queue of one tunnel's device to its thread.
#[derive(Clone)]
pub(crate) struct NewQueue {
    tunnel: TunnelId,
    to: mpsc::UnboundedSender<DeviceChange>,
}

impl NewQueue {
    /// Sends a queue of a device that was made anew. A thread that has ended is noticed by the shell.
    pub(crate) fn send(&self, queue: Box<dyn Tun>) {
        let _ = self.to.send(DeviceChange::Replace(self.tunnel, queue));
    }
}

/// Why a data plane takes no further tunnel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AddError {
    /// It could not be kept apart.
    #[error(transparent)]
    Tunnel(#[from] OpenError),
    /// Each thread writes to a queue of its own.
    #[error(
        "the interface has {queues} queues, and {threads} threads carry packets: set data_threads to {queues}"
    )]
    Queues {
        /// Of the device.
        queues: usize,
        /// Of the data plane.
        threads: usize,
    },
}

/// The agent's end of the data threads.
pub(crate) struct DataPlane {
    commands: mpsc::UnboundedSender<DataCommand>,
    /// Dropped to end the threads that have no commands.
    stop: watch::Sender<()>,
    opener: Opener,
    ended: FuturesUnordered<oneshot::Receiver<io::Result<()>>>,
}

/// Opens tunnels in the data plane, and closes them. It keeps no thread from ending.
#[derive(Clone)]
pub(crate) struct Opener {
    shared: Arc<Shared>,
    /// One for each thread: takes queues of devices.
    devices: Vec<mpsc::UnboundedSender<DeviceChange>>,
}

/// Sends packets of one tunnel past its TUN device, in datagrams that nobody fragments.
pub(crate) struct Ruler(TunnelId, mpsc::WeakUnboundedSender<DataCommand>);

impl Ruler {
    /// Sends one, if its peer has a session.
    pub(crate) fn send(&self, packet: Vec<u8>) {
        if let Some(commands) = self.1.upgrade() {
            // A data plane that has ended measures nothing.
            let _ = commands.send(DataCommand::Measure(self.0, packet));
        }
    }
}

/// The common state of the data threads.
struct Shared {
    carrier: Carrier,
    offloads: Arc<Offloads>,
    refusals: Refusals,
    threads: usize,
    /// Packets that the system did not take.
    tun_write: AtomicU64,
    udp_send: AtomicU64,
    /// Another thread may have brought the tunnel's next deadline forward.
    deadline: Notify,
}

impl DataPlane {
    /// Starts a thread for each socket, without any tunnel. They end when this is dropped.
    pub(crate) fn start(
        handshakes_per_second: u64,
        sockets: Vec<std::net::UdpSocket>,
        offloads: Arc<Offloads>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            carrier: Carrier::new(FrontDoor::new(handshakes_per_second)),
            offloads,
            refusals: Refusals::open(),
            threads: sockets.len(),
            tun_write: AtomicU64::new(0),
            udp_send: AtomicU64::new(0),
            deadline: Notify::new(),
        });
        let (commands, inbox) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(());
        let mut inbox = Some(inbox);
        let mut plane = Self {
            commands,
            stop,
            opener: Opener {
                shared: Arc::clone(&shared),
                devices: Vec::new(),
            },
            ended: FuturesUnordered::new(),
        };
        for (number, udp) in sockets.into_iter().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let (ending, ended) = oneshot::channel();
            let (device, devices) = mpsc::unbounded_channel();
            let (shared, inbox, stopped) = (Arc::clone(&shared), inbox.take(), stopped.clone());
            let run = move || {
                // Devices come open, and the socket is: packets need no rights.
                rights::reduce(Keep::NOTHING);
                let result = runtime.block_on(async {
                    let worker = Worker::new(Arc::clone(&shared), udp)?;
                    match inbox {
                        Some(inbox) => run_main(worker, &shared, inbox, devices).await,
                        None => run_other(worker, stopped, devices).await,
                    }
                });
                // Nobody listens any more when the agent has ended first.
                let _ = ending.send(result);
            };
            let thread = std::thread::Builder::new().name(format!("meshd-data{number}"));
            thread.spawn(run)?;
            plane.opener.devices.push(device);
            plane.ended.push(ended);
        }
        Ok(plane)
    }

    /// The way to open tunnels, and to close them.
    pub(crate) fn opener(&self) -> Opener {
        self.opener.clone()
    }

    pub(crate) fn send(&self, command: DataCommand) {
        // A data plane that has ended is noticed in `ended`.
        let _ = self.commands.send(command);
    }

    /// The way for packets that paths are measured with; it keeps no thread from ending.
    pub(crate) fn ruler(&self, tunnel: TunnelId) -> Ruler {
        Ruler(tunnel, self.commands.downgrade())
    }

    /// The data plane with one tunnel as observed; `None` when it has ended, or the tunnel is closed.
    pub(crate) async fn snapshot(&self, tunnel: TunnelId) -> Option<Snapshot> {
        let (answer, snapshot) = oneshot::channel();
        self.send(DataCommand::Snapshot(tunnel, answer));
        snapshot.await.ok()
    }

    /// The parts that all tunnels have in common, as observed.
    pub(crate) fn common(&self) -> Common {
        let shared = &self.opener.shared;
        common(&shared.carrier.read(), shared)
    }

    /// The PSK in force with one peer, base64; `None` without a tunnel to it.
    pub(crate) async fn export_psk(
        &self,
        tunnel: TunnelId,
        peer: WgPublicKey,
    ) -> Option<(Epoch, Zeroizing<String>)> {
        let (answer, psk) = oneshot::channel();
        self.send(DataCommand::ExportPsk(tunnel, peer, answer));
        psk.await.ok().flatten()
    }

    /// Resolves when the data plane has failed.
    pub(crate) async fn failed(&mut self) -> io::Error {
        match self.ended.next().await {
            Some(Ok(Err(error))) => error,
            Some(Ok(Ok(())) | Err(_)) | None => io::Error::other("a data thread ended"),
        }
    }

    /// Ends the threads and waits for them a little: when this returns, the interface is gone, or goes with
    /// the process.
    pub(crate) async fn stop(self) {
        drop((self.commands, self.stop, self.opener));
        // A thread has closed its queue and its socket before it says how it ended.
        let all = self.ended.for_each(|_| std::future::ready(()));
        if timeout(STOP_TIME, all).await.is_err() {
            tracing::warn!("a data thread does not end: it is left behind");
        }
    }
}

impl Opener {
    /// Opens a tunnel, which has no peers yet, and gives each thread a queue of its device.
    ///
    /// # Errors
    /// [`AddError`]; then nothing has changed, and the device is gone.
    pub(crate) fn open(
        &self,
        config: tunnel::Config,
        queues: Vec<Box<dyn Tun>>,
    ) -> Result<TunnelId, AddError> {
        let (queues_len, threads) = (queues.len(), self.devices.len());
        if queues_len != threads {
            let queues = queues_len;
            return Err(AddError::Queues { queues, threads });
        }
        let tunnel = self.shared.carrier.write().open(config)?;
        for (to, queue) in self.devices.iter().zip(queues) {
            // A thread that has ended is noticed in `failed`.
            let _ = to.send(DeviceChange::Open(tunnel, queue));
        }
        Ok(tunnel)
    }

    /// Closes a tunnel: its keys and sessions are gone when this returns, and nothing of it passes any more. Its
    /// device goes as soon as each thread has looked up.
    pub(crate) fn close(&self, tunnel: TunnelId) {
        self.shared.carrier.write().close(tunnel);
        for to in &self.devices {
            let _ = to.send(DeviceChange::Close(tunnel));
        }
    }

    /// Where the queues of a tunnel's device that was made anew go, one to each thread. Sessions stay as they
    /// are.
    pub(crate) fn queues(&self, tunnel: TunnelId) -> Vec<NewQueue> {
        let queue = |to: &mpsc::UnboundedSender<DeviceChange>| NewQueue {
            tunnel,
            to: to.clone(),
        };
        self.devices.iter().map(queue).collect()
    }
}

/// Carries packets until the plane is stopped.
async fn run_other(
    mut worker: Worker,
    mut stopped: watch::Receiver<()>,
    mut devices: mpsc::UnboundedReceiver<DeviceChange>,
) -> io::Result<()> {
    loop {
        tokio::select! {
            biased;
            // An error means that the sender is gone.
            _ = stopped.changed() => return Ok(()),
            Some(change) = devices.recv() => {
                worker.handle_device(change)?;
                continue;
            }
            ready = worker.ready() => ready?,
        }
        worker.carry().await?;
    }
}

/// The same, and the agent's commands, and time.
async fn run_main(
    mut worker: Worker,
    shared: &Shared,
    mut inbox: mpsc::UnboundedReceiver<DataCommand>,
    mut devices: mpsc::UnboundedReceiver<DeviceChange>,
) -> io::Result<()> {
    enum Wake {
        Command(Option<DataCommand>),
        Device(DeviceChange),
        Timeout,
        Packets,
    }
    loop {
        let deadline = look_after(&worker, shared);
        let wake = tokio::select! {
            // Devices first, so that a command finds the tunnel's; then commands: a revocation does not wait
            // behind traffic.
            biased;
            Some(change) = devices.recv() => Wake::Device(change),
            command = inbox.recv() => Wake::Command(command),
            ready = worker.ready() => ready.map(|()| Wake::Packets)?,
            () = clock::until(deadline, LONGEST_SLEEP) => Wake::Timeout,
            () = shared.deadline.notified() => Wake::Timeout,
        };
        match wake {
            Wake::Command(None) => return Ok(()),
            Wake::Command(Some(DataCommand::Measure(tunnel, packet))) => {
                worker.measure(tunnel, packet);
            }
            Wake::Command(Some(DataCommand::Change(id, change))) => {
                for step in change.steps() {
                    let mut door = shared.carrier.write();
                    // Of a tunnel that was closed meanwhile there is nothing to change.
                    let Some(tunnel) = door.tunnel_mut(id) else {
                        break;
                    };
                    let refused = step.carry_out(tunnel, clock::boot());
                    worker.flush(&mut door);
                    drop(door);
                    for key in refused {
                        tracing::warn!(%key, "no tunnel is possible with this key");
                    }
                    // Else the lock could be taken again before the other threads have seen it free.
                    std::thread::yield_now();
                }
            }
            Wake::Command(Some(DataCommand::Snapshot(id, answer))) => {
                let door = shared.carrier.read();
                if let Some(tunnel) = door.tunnel(id) {
                    // An answer that nobody waits for any more is dropped.
                    let _ = answer.send(snapshot(&door, tunnel, shared));
                }
            }
            Wake::Command(Some(command)) => {
                let mut door = shared.carrier.write();
                carry_out(command, &mut door);
                worker.flush(&mut door);
            }
            Wake::Device(change) => {
                if worker.handle_device(change)? {
                    worker.probe_tun();
                }
            }
            Wake::Timeout => {}
            Wake::Packets => worker.carry().await?,
        }
    }
}

/// Does what is due; when the next thing is. Looked at on every turn: under load a sleep of no length
/// never gets to complete.
fn look_after(worker: &Worker, shared: &Shared) -> Option<Duration> {
    let now = clock::boot();
    let deadline = shared.carrier.read().poll_timeout();
    if deadline.is_none_or(|at| at > now) {
        return deadline;
    }
    let mut door = shared.carrier.write();
    door.handle_timeout(now);
    worker.flush(&mut door);
    door.poll_timeout()
}

fn carry_out(command: DataCommand, door: &mut FrontDoor) {
    match command {
        DataCommand::Mtu(id, mtu) => {
            if let Some(tunnel) = door.tunnel_mut(id) {
                tunnel.set_mtu(mtu);
            }
        }
        DataCommand::Moved(to) => {
            let to = to.into_iter().map(Into::into).collect();
            door.tunnels()
                .for_each(|(_, tunnel)| tunnel.leave_routes(&to));
        }
        DataCommand::Networks(id, offered, accepts) => {
            if let Some(tunnel) = door.tunnel_mut(id) {
                tunnel.agree_to_networks(offered, accepts);
            }
        }
        DataCommand::Keepalive(every) => {
            for (_, tunnel) in door.tunnels_mut() {
                tunnel.set_keepalive(every);
            }
        }
        // The thread's own: each takes the door as it needs it.
        DataCommand::Change(..) | DataCommand::Measure(..) | DataCommand::Snapshot(..) => {}
        DataCommand::ExportPsk(id, key, answer) => {
            let psk = door
                .tunnel_mut(id)
                .and_then(|tunnel| tunnel.current_psk(&key))
                .map(|(epoch, psk)| (epoch, psk.expose_base64()));
            let _ = answer.send(psk);
        }
    }
}

/// Others carry meanwhile: with thousands of peers it takes a while.
fn snapshot(door: &FrontDoor, tunnel: &Tunnel, shared: &Shared) -> Snapshot {
    Snapshot {
        common: common(door, shared),
        peers: tunnel.snapshot(clock::boot()),
        own_drops: tunnel.drops(),
        traffic: tunnel.traffic(),
        handshakes: tunnel.handshakes(),
        passed: tunnel.passed_by_rule(),
    }
}

fn common(door: &FrontDoor, shared: &Shared) -> Common {
    Common {
        drops: door.drops(),
        io: IoFailures {
            tun_write: shared.tun_write.load(Ordering::Relaxed),
            udp_send: shared.udp_send.load(Ordering::Relaxed),
        },
        offloads: shared.offloads.states(),
        threads: shared.threads,
    }
}

fn count(counter: &AtomicU64, packets: u64) {
    if packets > 0 {
        counter.fetch_add(packets, Ordering::Relaxed);
    }
}

/// tokio's clock stands still while the machine sleeps, and the boot clock does not: timers of the tunnel
/// are looked at this often at least.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
const STOP_TIME: Duration = Duration::from_millis(500);
