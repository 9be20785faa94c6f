//! Counts what the kernel of a survivor sees of the hostile node: a packet socket in the survivor's
//! namespace, on all its interfaces. Outside the tunnel the marks are encrypted, so whatever is
//! counted was delivered on a TUN interface.

use crate::packets::{Trace, trace};
use anyhow::{Context as _, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Protocol, Socket, Type};
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

/// A packet socket that a thread keeps empty, and what it has counted so far.
pub(crate) struct Witness {
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    socket: Socket,
    own: Vec<IpAddr>,
    seen: Seen,
    failure: Option<std::io::Error>,
    over: bool,
}

/// Inner packets that were delivered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// IPv4 packets from the hostile node's address.
    pub(crate) v4: u64,
    /// IPv6 packets from the hostile node's address.
    pub(crate) v6: u64,
    /// Its packets under somebody else's address.
    pub(crate) spoofed: u64,
    /// All packets, whoever sent them: the socket is not deaf.
    pub(crate) all: u64,
}

impl Witness {
    /// Listens in the network namespace `netns` for packets of a node with the addresses `own`.
    pub(crate) fn new(netns: &Path, own: Vec<IpAddr>) -> anyhow::Result<Self> {
        let all = Protocol::from(i32::from(ETH_P_ALL.to_be()));
        let socket = inside(netns, move || {
            Socket::new(Domain::PACKET, Type::DGRAM, Some(all))
        })??;
        socket.set_nonblocking(true)?;
        let state = State {
            socket,
            own,
            seen: Seen::default(),
            failure: None,
            over: false,
        };
        let state = Arc::new(Mutex::new(state));
        let shared = state.clone();
        let thread = std::thread::spawn(move || {
            while !locked(&shared).drain() {
                std::thread::sleep(DRAIN_EVERY);
            }
        });
        Ok(Self {
            state,
            thread: Some(thread),
        })
    }

    /// The deliveries until now; the kernel hands packets over in the order of delivery.
    pub(crate) fn seen(&self) -> anyhow::Result<Seen> {
        let mut state = locked(&self.state);
        state.drain();
        match state.failure.take() {
            Some(failure) => Err(failure).context("packet socket"),
            None => Ok(state.seen),
        }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        locked(&self.state).over = true;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl State {
    /// Counts what waits. True when there is nothing more to come.
    fn drain(&mut self) -> bool {
        let mut packet = [0; 2048];
        loop {
            match (&self.socket).read(&mut packet) {
                Ok(len) => self.count(&packet[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return self.over,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failure = Some(error);
                    return true;
                }
            }
        }
    }

    fn count(&mut self, packet: &[u8]) {
        self.seen.all += 1;
        match trace(packet, &self.own) {
            Trace::From if packet[0] >> 4 == 4 => self.seen.v4 += 1,
            Trace::From => self.seen.v6 += 1,
            Trace::Spoofed => self.seen.spoofed += 1,
            Trace::None => {}
        }
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no drain panics")
}

/// Runs `work` on a thread inside the network namespace `netns`. Sockets stay where they were made.
pub(crate) fn inside<T: Send + 'static>(
    netns: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    let namespace =
        File::open(netns).with_context(|| format!("no namespace {}", netns.display()))?;
    let thread = std::thread::spawn(move || {
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace.as_fd(), network)?;
        Ok(work())
    });
    let result: rustix::io::Result<T> = thread
        .join()
        .map_err(|_| anyhow!("panicked in {netns:?}"))?;
    result.context("setns")
}

/// Often enough that the socket's buffer never fills.
const DRAIN_EVERY: Duration = Duration::from_millis(2);
/// `linux/if_ether.h`.
const ETH_P_ALL: u16 = 3;
