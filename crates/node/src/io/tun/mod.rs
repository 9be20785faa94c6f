//! TUN back ends behind one trait: `tap.rs`, packet by packet, runs anywhere; `vnet.rs` trades
//! super-packets with the kernel.

mod steer;
#[cfg(feature = "tun-tap")]
mod tap;
#[cfg(test)]
mod tests;
mod vnet;

use super::offload::Offloads;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::task::{Context, Poll};
use steer::Steering;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Which back end to use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Backend {
    /// The best that works here.
    #[default]
    Auto,
    /// Super-packets, by `IFF_VNET_HDR`.
    Offload,
    /// One packet per system call; runs anywhere.
    TunTap,
}

/// One queue of a TUN device that is open, and not yet up. Never blocks.
pub(crate) trait Tun: AsRawFd + Send {
    /// The back end's name in the status.
    fn backend(&self) -> &'static str;
    /// Whether a [`offload::VnetHeader`] goes in front of each packet.
    fn has_vnet_header(&self) -> bool;
    /// Reads one packet; `WouldBlock` when there is none.
    fn recv(&self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes one packet, given in slices.
    fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<()>;
}

/// Why there is no TUN device.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The name cannot be an interface's.
    #[error("`{0}` is not an interface name: 1 to 15 bytes without '/', ':' or white space")]
    Name(String),
    /// The name is taken.
    #[error("interface {0} exists already: stop what owns it, or choose another with --interface")]
    Taken(String),
    /// Missing rights.
    #[error("no right to create interface {0}: run as root or with CAP_NET_ADMIN")]
    Denied(String),
    /// The kernel has no TUN driver here.
    #[error("/dev/net/tun is missing: load the module with `modprobe tun`")]
    NoDriver,
    /// The back end was left out.
    #[error("this meshd was built without the tun-tap back end: choose another with --tun-backend")]
    NotBuilt,
    /// Made anew, it has fewer queues than there are threads.
    #[error("interface {0} has {1} queues, and {2} threads carry packets")]
    Queues(String, usize, usize),
    /// Anything else.
    #[error("cannot create interface {name}: {source}")]
    Other {
        /// The interface's name.
        name: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// Makes a TUN interface, and makes it anew when somebody has deleted it.
pub(crate) struct Maker {
    name: String,
    backend: Backend,
    offloads: Arc<Offloads>,
    steering: Steering,
}

impl Maker {
    /// For the interface `name`.
    pub(crate) fn new(name: &str, backend: Backend, offloads: Arc<Offloads>) -> Self {
        Self {
            name: name.to_owned(),
            backend,
            offloads,
            steering: Steering::default(),
        }
    }

    /// Makes the interface with up to `queues` queues; at least one. Needs CAP_NET_ADMIN.
    pub(crate) fn make(&mut self, queues: usize) -> Result<Vec<Box<dyn Tun>>, TunError> {
        let (name, offloads) = (&self.name, &*self.offloads);
        let opened = open(name, self.backend, queues, offloads, &mut self.steering)?;
        // The data threads were told what headers to expect: another one has the same back end.
        self.backend = match opened.first() {
            Some(queue) if queue.has_vnet_header() => Backend::Offload,
            _ => Backend::TunTap,
        };
        Ok(opened)
    }

    /// Makes the interface anew, with as many queues as it had.
    pub(crate) fn make_anew(&mut self, queues: usize) -> Result<Vec<Box<dyn Tun>>, TunError> {
        let opened = self.make(queues)?;
        if opened.len() == queues {
            Ok(opened)
        } else {
            Err(TunError::Queues(self.name.clone(), opened.len(), queues))
        }
    }
}

/// Creates the TUN interface `name` with up to `queues` queues; at least one.
fn open(
    name: &str,
    backend: Backend,
    queues: usize,
    offloads: &Offloads,
    steering: &mut Steering,
) -> Result<Vec<Box<dyn Tun>>, TunError> {
    let fits = (1..=15).contains(&name.len())
        && !name.contains(|c: char| {
            c == '/' || c == ':' || c == '%' || c.is_whitespace() || c.is_control()
        });
    if !fits || name == "." || name == ".." {
        return Err(TunError::Name(name.to_owned()));
    }
    match backend {
        Backend::TunTap => plain(name, offloads),
        Backend::Offload => vnet::open(name, queues, offloads, steering),
        Backend::Auto => match vnet::open(name, queues, offloads, steering) {
            Err(TunError::Other { source, .. }) if cfg!(feature = "tun-tap") => {
                tracing::info!(error = %source, "no super-packets here: the interface goes packet by packet");
                plain(name, offloads)
            }
            opened => opened,
        },
    }
}

fn plain(name: &str, offloads: &Offloads) -> Result<Vec<Box<dyn Tun>>, TunError> {
    offloads.no_vnet_header();
    packet_by_packet(name)
}

#[cfg(feature = "tun-tap")]
fn packet_by_packet(name: &str) -> Result<Vec<Box<dyn Tun>>, TunError> {
    Ok(vec![Box::new(tap::TunTap::open(name)?)])
}

#[cfg(not(feature = "tun-tap"))]
fn packet_by_packet(_: &str) -> Result<Vec<Box<dyn Tun>>, TunError> {
    Err(TunError::NotBuilt)
}

/// The error for what the system said when the interface `name` was to be made.
fn refused(name: &str, source: io::Error) -> TunError {
    match source
        .raw_os_error()
        .map(rustix::io::Errno::from_raw_os_error)
    {
        Some(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => {
            TunError::Denied(name.to_owned())
        }
        Some(rustix::io::Errno::BUSY) => TunError::Taken(name.to_owned()),
        Some(rustix::io::Errno::NOENT | rustix::io::Errno::NODEV) => TunError::NoDriver,
        _ => TunError::Other {
            name: name.to_owned(),
            source,
        },
    }
}

/// A TUN device on a tokio runtime.
pub(crate) struct AsyncTun(AsyncFd<Device>);

/// A sized owner of any back end.
struct Device(Box<dyn Tun>);

impl AsRawFd for Device {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsyncTun {
    /// Must run inside a tokio runtime.
    pub(crate) fn new(tun: Box<dyn Tun>) -> io::Result<Self> {
        #[expect(
            unsafe_code,
            reason = "tokio wants a promise that the descriptor outlives its registration"
        )]
        // SAFETY: the back end owns its descriptor, always names the same one, and is owned by the
        // `AsyncFd`, which deregisters before it drops it.
        let registered =
            unsafe { AsyncFd::register_with_interest(Device(tun), Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// Ready when there may be a packet to read.
    pub(crate) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ready = self.0.poll_read_ready(context);
        ready.map_ok(|mut ready| ready.retain_ready())
    }

    /// Reads one packet or super-packet; `WouldBlock` when there is none. Finding none clears the readiness under
    /// which it was looked for, and no other. A device that somebody has deleted has none: the next one comes from
    /// the keeper of the interface.
    pub(crate) fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0
            .try_io(Interest::READABLE, |device| match device.0.recv(buffer) {
                Err(error) if error.raw_os_error() == Some(libc::EBADFD) => {
                    Err(io::ErrorKind::WouldBlock.into())
                }
                read => read,
            })
    }

    /// Writes one packet, given in slices.
    pub(crate) fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        self.0.get_ref().0.send(slices)
    }

    /// Whether a [`offload::VnetHeader`] goes in front of each packet.
    pub(crate) fn has_vnet_header(&self) -> bool {
        self.0.get_ref().0.has_vnet_header()
    }
}
