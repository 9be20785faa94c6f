//! The data plane: threads that carry packets, and the one among them that also does the rest.
//!
//! ```text
//! agent ──commands──▶ main thread ──write lock──▶ Tunnel ◀──read lock── every thread, per turn
//! ```
//!
//! Each thread is a direct loop over its own TUN queue and its own UDP socket: `worker.rs`. The main
//! thread also takes the agent's commands, before packets, and looks after the tunnel's timers. The
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
use tunnel::{Carrier, Drops, FrontDoor, PeerSnapshot, Traffic, Tunnel};
use worker::Worker;
use zeroize::Zeroizing;

/// The agent's command to the data plane.
pub(crate) enum DataCommand {
    /// Another epoch, or other places of peers: the change itself under one write lock, so that no packet passes
    /// between its parts; what only makes ready for it before, a little at a time.
    Change(DataChange),
    /// The interface's MTU from now on.
    Mtu(usize),
    /// The system goes another way to these places than before.
    Moved(Vec<SocketAddr>),
    /// How long a peer may hear nothing from now on.
    Keepalive(Option<Duration>),
    /// Send this packet in a datagram that nobody fragments, or not at all.
    Measure(Vec<u8>),
    /// Observe the data plane.
    Snapshot(oneshot::Sender<Snapshot>),
    /// The PSK in force with one peer, base64: for an operator's explicit export.
    ExportPsk(
        WgPublicKey,
        oneshot::Sender<Option<(Epoch, Zeroizing<String>)>>,
    ),
}

/// The data plane as observed.
pub(crate) struct Snapshot {
    pub(crate) peers: Vec<PeerSnapshot>,
    pub(crate) drops: Drops,
    pub(crate) io: IoFailures,
    pub(crate) traffic: Traffic,
    pub(crate) handshakes: u64,
    /// Every offload by name, and why it is off if it is.
    pub(crate) offloads: Vec<(&'static str, Option<String>)>,
    pub(crate) threads: usize,
    /// Packets that each rule of the segment has let in; `None`: there are no rules.
    pub(crate) passed: Option<Vec<u64>>,
}

/// Packets that the system did not take.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct IoFailures {
    pub(crate) tun_write: u64,
    pub(crate) udp_send: u64,
}

/// The way of a new TUN queue to its thread.
pub(crate) type NewQueue = mpsc::UnboundedSender<Box<dyn Tun>>;

/// The agent's end of the data threads.
pub(crate) struct DataPlane {
    commands: mpsc::UnboundedSender<DataCommand>,
    /// Dropped to end the threads that have no commands.
    stop: watch::Sender<()>,
    /// One for each thread: takes a queue of a device that was made anew.
    queues: Vec<NewQueue>,
    ended: FuturesUnordered<oneshot::Receiver<io::Result<()>>>,
}

/// Sends packets past the TUN device, in datagrams that nobody fragments.
pub(crate) struct Ruler(mpsc::WeakUnboundedSender<DataCommand>);

impl Ruler {
    /// Sends one, if its peer has a session.
    pub(crate) fn send(&self, packet: Vec<u8>) {
        if let Some(commands) = self.0.upgrade() {
            // A data plane that has ended measures nothing.
            let _ = commands.send(DataCommand::Measure(packet));
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
    /// Starts a thread for each queue and its socket. They end when this is dropped.
    pub(crate) fn start(
        door: FrontDoor,
        queues: Vec<(Box<dyn Tun>, std::net::UdpSocket)>,
        offloads: Arc<Offloads>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            carrier: Carrier::new(door),
            offloads,
            refusals: Refusals::open(),
            threads: queues.len(),
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
            queues: Vec::new(),
            ended: FuturesUnordered::new(),
        };
        for (number, (tun, udp)) in queues.into_iter().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let (ending, ended) = oneshot::channel();
            let (queue, fresh) = mpsc::unbounded_channel();
            let (shared, inbox, stopped) = (Arc::clone(&shared), inbox.take(), stopped.clone());
            let run = move || {
                // Device and socket are open: packets need no rights.
                rights::reduce(Keep::NOTHING);
                let result = runtime.block_on(async {
                    let worker = Worker::new(Arc::clone(&shared), tun, udp)?;
                    match inbox {
                        Some(inbox) => run_main(worker, &shared, inbox, fresh).await,
                        None => run_other(worker, stopped, fresh).await,
                    }
                });
                // Nobody listens any more when the agent has ended first.
                let _ = ending.send(result);
            };
            let thread = std::thread::Builder::new().name(format!("meshd-data{number}"));
            thread.spawn(run)?;
            plane.queues.push(queue);
            plane.ended.push(ended);
        }
        Ok(plane)
    }

    /// Where the queues of a device that was made anew go, one to each thread. Sessions stay as they are.
    pub(crate) fn queues(&self) -> Vec<NewQueue> {
        self.queues.clone()
    }

    pub(crate) fn send(&self, command: DataCommand) {
        // A data plane that has ended is noticed in `ended`.
        let _ = self.commands.send(command);
    }

    /// The way for packets that paths are measured with; it keeps no thread from ending.
    pub(crate) fn ruler(&self) -> Ruler {
        Ruler(self.commands.downgrade())
    }

    /// The data plane as observed; `None` when it has ended.
    pub(crate) async fn snapshot(&self) -> Option<Snapshot> {
        let (answer, snapshot) = oneshot::channel();
        self.send(DataCommand::Snapshot(answer));
        snapshot.await.ok()
    }

    /// The PSK in force with one peer, base64; `None` without a tunnel to it.
    pub(crate) async fn export_psk(&self, peer: WgPublicKey) -> Option<(Epoch, Zeroizing<String>)> {
        let (answer, psk) = oneshot::channel();
        self.send(DataCommand::ExportPsk(peer, answer));
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
        drop((self.commands, self.stop));
        // A thread has closed its queue and its socket before it says how it ended.
        let all = self.ended.for_each(|_| std::future::ready(()));
        if timeout(STOP_TIME, all).await.is_err() {
            tracing::warn!("a data thread does not end: it is left behind");
        }
    }
}

/// Carries packets until the plane is stopped.
async fn run_other(
    mut worker: Worker,
    mut stopped: watch::Receiver<()>,
    mut fresh: mpsc::UnboundedReceiver<Box<dyn Tun>>,
) -> io::Result<()> {
    loop {
        tokio::select! {
            biased;
            // An error means that the sender is gone.
            _ = stopped.changed() => return Ok(()),
            Some(tun) = fresh.recv() => {
                worker.replace(tun)?;
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
    mut fresh: mpsc::UnboundedReceiver<Box<dyn Tun>>,
) -> io::Result<()> {
    enum Wake {
        Command(Option<DataCommand>),
        Queue(Box<dyn Tun>),
        Timeout,
        Packets,
    }
    worker.probe_tun();
    loop {
        let deadline = look_after(&worker, shared);
        let wake = tokio::select! {
            // Commands first: a revocation does not wait behind traffic.
            biased;
            command = inbox.recv() => Wake::Command(command),
            Some(tun) = fresh.recv() => Wake::Queue(tun),
            ready = worker.ready() => ready.map(|()| Wake::Packets)?,
            () = clock::until(deadline, LONGEST_SLEEP) => Wake::Timeout,
            () = shared.deadline.notified() => Wake::Timeout,
        };
        match wake {
            Wake::Command(None) => return Ok(()),
            Wake::Command(Some(DataCommand::Measure(packet))) => worker.measure(packet),
            Wake::Command(Some(DataCommand::Change(change))) => {
                for step in change.steps() {
                    let mut tunnel = shared.carrier.write();
                    let refused = step.carry_out(&mut tunnel, clock::boot());
                    worker.flush(&mut tunnel);
                    drop(tunnel);
                    for key in refused {
                        tracing::warn!(%key, "no tunnel is possible with this key");
                    }
                    // Else the lock could be taken again before the other threads have seen it free.
                    std::thread::yield_now();
                }
            }
            Wake::Command(Some(DataCommand::Snapshot(answer))) => {
                // An answer that nobody waits for any more is dropped.
                let _ = answer.send(snapshot(&shared.carrier.read(), shared));
            }
            Wake::Command(Some(command)) => {
                let mut tunnel = shared.carrier.write();
                carry_out(command, &mut tunnel);
                worker.flush(&mut tunnel);
            }
            Wake::Queue(tun) => worker.replace(tun)?,
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
    let mut tunnel = shared.carrier.write();
    tunnel.handle_timeout(now);
    worker.flush(&mut tunnel);
    tunnel.poll_timeout()
}

fn carry_out(command: DataCommand, tunnel: &mut Tunnel) {
    match command {
        DataCommand::Mtu(mtu) => tunnel.set_mtu(mtu),
        DataCommand::Moved(to) => {
            tunnel.leave_routes(&to.into_iter().map(Into::into).collect());
        }
        DataCommand::Keepalive(every) => tunnel.set_keepalive(every),
        // The thread's own: each takes the tunnel as it needs it.
        DataCommand::Change(_) | DataCommand::Measure(_) | DataCommand::Snapshot(_) => {}
        DataCommand::ExportPsk(key, answer) => {
            let psk = tunnel
                .current_psk(&key)
                .map(|(epoch, psk)| (epoch, psk.expose_base64()));
            let _ = answer.send(psk);
        }
    }
}

/// Others carry meanwhile: with thousands of peers it takes a while.
fn snapshot(tunnel: &Tunnel, shared: &Shared) -> Snapshot {
    let io = IoFailures {
        tun_write: shared.tun_write.load(Ordering::Relaxed),
        udp_send: shared.udp_send.load(Ordering::Relaxed),
    };
    Snapshot {
        peers: tunnel.snapshot(clock::boot()),
        drops: tunnel.drops(),
        io,
        traffic: tunnel.traffic(),
        handshakes: tunnel.handshakes(),
        offloads: shared.offloads.states(),
        threads: shared.threads,
        passed: tunnel.passed_by_rule(),
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
