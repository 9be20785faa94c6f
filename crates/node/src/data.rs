//! The data loop: one thread that owns the tunnel, the TUN device and the UDP socket.
//!
//! ```text
//! TUN ──read──▶ Tunnel::handle_tun ──seal──▶ UDP        commands from the agent come by a channel and
//! UDP ──recv──▶ Tunnel::handle_udp ──open──▶ TUN        take effect between two packets
//! ```
//!
//! Each wake-up drains a batch from whatever is readable. No packet is queued here and none is
//! allocated for; packets that wait for a session are the tunnel's, and bounded there.

use crate::apply::apply;
use crate::io::clock;
use crate::io::tun::{AsyncTun, Tun};
use crate::io::udp::Udp;
use keys::{Epoch, WgPublicKey};
use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tunnel::{Drops, Event, Inbound, Outbound, PeerSnapshot, Tunnel};
use zeroize::Zeroizing;

/// What the agent asks of the data plane.
pub(crate) enum DataCommand {
    /// One step of an epoch's life.
    Epoch(epoch::Command),
    /// Where peers are said to be.
    Endpoints(Vec<(WgPublicKey, Vec<SocketAddr>)>),
    /// What there is to see.
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
}

/// Packets that the system did not take.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct IoFailures {
    pub(crate) tun_write: u64,
    pub(crate) udp_send: u64,
}

/// The agent's end of the data thread.
pub(crate) struct DataPlane {
    commands: mpsc::UnboundedSender<DataCommand>,
    ended: oneshot::Receiver<io::Result<()>>,
    thread: JoinHandle<()>,
}

impl DataPlane {
    /// Starts the thread. It ends when this is dropped.
    pub(crate) fn start(
        tunnel: Tunnel,
        tun: Box<dyn Tun>,
        udp: std::net::UdpSocket,
    ) -> io::Result<Self> {
        let (commands, inbox) = mpsc::unbounded_channel();
        let (ending, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("meshd-data".into())
            .spawn(move || {
                let result =
                    runtime.block_on(async { Loop::new(tunnel, tun, udp)?.run(inbox).await });
                // Nobody listens any more when the agent has ended first.
                let _ = ending.send(result);
            })?;
        Ok(Self {
            commands,
            ended,
            thread,
        })
    }

    pub(crate) fn send(&self, command: DataCommand) {
        // A data plane that has ended is noticed in `ended`.
        let _ = self.commands.send(command);
    }

    /// What there is to see; `None` when the data plane has ended.
    pub(crate) async fn snapshot(&self) -> Option<Snapshot> {
        let (answer, snapshot) = oneshot::channel();
        self.send(DataCommand::Snapshot(answer));
        snapshot.await.ok()
    }

    /// Resolves when the data plane has failed.
    pub(crate) async fn failed(&mut self) -> io::Error {
        match (&mut self.ended).await {
            Ok(Err(error)) => error,
            Ok(Ok(())) | Err(_) => io::Error::other("the data thread ended"),
        }
    }

    /// Ends the thread and waits for it: when this returns, the interface is gone.
    pub(crate) fn stop(self) {
        drop(self.commands);
        // A panic of the thread has been reported where it happened.
        let _ = self.thread.join();
    }
}

struct Loop {
    tunnel: Tunnel,
    tun: AsyncTun,
    udp: Udp,
    failures: IoFailures,
    /// Plaintext on the way out, with room for padding; datagram on the way in.
    input: Box<[u8; BUFFER]>,
    /// Datagram on the way out; plaintext on the way in.
    output: Box<[u8; BUFFER]>,
}

impl Loop {
    fn new(tunnel: Tunnel, tun: Box<dyn Tun>, udp: std::net::UdpSocket) -> io::Result<Self> {
        Ok(Self {
            tunnel,
            tun: AsyncTun::new(tun)?,
            udp: Udp::new(udp)?,
            failures: IoFailures::default(),
            input: Box::new([0; BUFFER]),
            output: Box::new([0; BUFFER]),
        })
    }

    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<DataCommand>) -> io::Result<()> {
        enum Wake {
            Command(Option<DataCommand>),
            Timeout,
            Packets,
        }
        loop {
            // Looked at on every turn: under load a sleep of no length never gets to complete.
            let now = clock::boot();
            if self.tunnel.poll_timeout().is_some_and(|at| at <= now) {
                self.tunnel.handle_timeout(now);
            }
            self.flush();
            let wake = tokio::select! {
                // Commands first: a revocation does not wait behind traffic.
                biased;
                command = inbox.recv() => Wake::Command(command),
                ready = self.udp.readable() => ready.map(|()| Wake::Packets)?,
                ready = self.tun.readable() => ready.map(|()| Wake::Packets)?,
                () = until(self.tunnel.poll_timeout()) => Wake::Timeout,
            };
            match wake {
                Wake::Command(None) => return Ok(()),
                Wake::Command(Some(command)) => self.command(command),
                Wake::Timeout => {}
                // Both directions, whichever woke us: neither starves the other.
                Wake::Packets => {
                    self.drain_udp();
                    self.drain_tun()?;
                }
            }
        }
    }

    fn command(&mut self, command: DataCommand) {
        let now = clock::boot();
        // An answer that nobody waits for any more is dropped.
        match command {
            DataCommand::Epoch(command) => {
                for key in apply(&mut self.tunnel, command, now) {
                    tracing::warn!(%key, "no tunnel is possible with this key");
                }
            }
            DataCommand::Endpoints(entries) => {
                for (key, endpoints) in entries {
                    self.tunnel.set_endpoints(&key, endpoints, now);
                }
            }
            DataCommand::Snapshot(answer) => {
                let (peers, drops) = (self.tunnel.snapshot(now), self.tunnel.drops().clone());
                let _ = answer.send(Snapshot {
                    peers,
                    drops,
                    io: self.failures,
                });
            }
            DataCommand::ExportPsk(key, answer) => {
                let psk = self
                    .tunnel
                    .current_psk(&key)
                    .map(|(epoch, psk)| (epoch, psk.expose_base64()));
                let _ = answer.send(psk);
            }
        }
    }

    fn drain_tun(&mut self) -> io::Result<()> {
        for _ in 0..BATCH {
            let room = &mut self.input[..BUFFER - tunnel::PADDING];
            let len = match self.tun.recv(room) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let now = clock::boot();
            let outbound =
                self.tunnel
                    .handle_tun(&mut self.input[..], len, &mut self.output[..], now);
            if let Outbound::Send { to, len } = outbound
                && self.udp.send(to, &self.output[..len]).is_err()
            {
                self.failures.udp_send += 1;
            }
        }
        Ok(())
    }

    fn drain_udp(&mut self) {
        for _ in 0..BATCH {
            let (len, from) = match self.udp.recv(&mut self.input[..]) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // An ICMP error of an earlier datagram; the next call goes on.
                Err(_) => continue,
            };
            let inbound = self.tunnel.handle_udp(
                from,
                &self.input[..len],
                &mut self.output[..],
                clock::boot(),
            );
            if let Inbound::Deliver { len } = inbound
                && self.tun.send(&self.output[..len]).is_err()
            {
                self.failures.tun_write += 1;
            }
        }
    }

    /// Sends what the tunnel has to say of its own, and tells what changed.
    fn flush(&mut self) {
        while let Some(transmit) = self.tunnel.poll_transmit() {
            if self.udp.send(transmit.to, &transmit.payload).is_err() {
                self.failures.udp_send += 1;
            }
        }
        while let Some(event) = self.tunnel.poll_event() {
            match event {
                Event::Handshake {
                    peer,
                    epoch,
                    initiator,
                } => {
                    tracing::debug!(%peer, %epoch, initiator, "session established");
                }
                Event::Endpoint { peer, endpoint } => {
                    tracing::debug!(%peer, %endpoint, "endpoint changed")
                }
            }
        }
    }
}

/// Sleeps until a time on the boot clock; for ever without one. Looks again once a minute, because
/// tokio's clock stands still while the machine sleeps and the boot clock does not.
async fn until(at: Option<Duration>) {
    match at {
        Some(at) => tokio::time::sleep(at.saturating_sub(clock::boot()).min(LONGEST_SLEEP)).await,
        None => std::future::pending().await,
    }
}

/// Packets per wake-up before commands and the other direction get their turn.
const BATCH: usize = 64;
/// The largest datagram and then some.
const BUFFER: usize = 1 << 16;
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
