//! TUN back ends behind one trait, packet by packet.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Which back end to use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Backend {
    /// The best that works here.
    #[default]
    Auto,
    /// One packet per system call; runs anywhere.
    TunTap,
}

/// A TUN device that is open, and not yet up. Never blocks.
pub(crate) trait Tun: AsRawFd + Send {
    /// The interface's name.
    fn name(&self) -> &str;
    /// What status calls the back end.
    fn backend(&self) -> &'static str;
    /// Reads one packet; `WouldBlock` when there is none.
    fn recv(&self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes one packet.
    fn send(&self, packet: &[u8]) -> io::Result<()>;
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
    /// Anything else.
    #[error("cannot create interface {name}: {source}")]
    Other {
        /// The interface's name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Creates the TUN interface `name`.
pub(crate) fn open(name: &str, backend: Backend) -> Result<Box<dyn Tun>, TunError> {
    let fits = (1..=15).contains(&name.len())
        && !name.contains(|c: char| {
            c == '/' || c == ':' || c == '%' || c.is_whitespace() || c.is_control()
        });
    if !fits || name == "." || name == ".." {
        return Err(TunError::Name(name.to_owned()));
    }
    match backend {
        Backend::Auto | Backend::TunTap => Ok(Box::new(TunTap::open(name)?)),
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

    /// Resolves when there may be a packet to read.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.0
            .readable()
            .await
            .map(|mut ready| ready.retain_ready())
    }

    /// Reads one packet; `WouldBlock` when there is none. Finding none clears the readiness under
    /// which it was looked for, and no other.
    pub(crate) fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0
            .try_io(Interest::READABLE, |device| device.0.recv(buffer))
    }

    /// Writes one packet.
    pub(crate) fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.0.get_ref().0.send(packet)
    }
}

struct TunTap(tun_tap::Iface);

impl TunTap {
    fn open(name: &str) -> Result<Self, TunError> {
        // The driver would hand us a persistent interface of this name; a taken name is an error here.
        if super::interface::index_of(name).is_ok() {
            return Err(TunError::Taken(name.to_owned()));
        }
        let refused = |source: io::Error| match source
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
        };
        let iface =
            tun_tap::Iface::without_packet_info(name, tun_tap::Mode::Tun).map_err(refused)?;
        #[expect(
            unsafe_code,
            reason = "tun_tap owns the descriptor, but does not implement AsFd"
        )]
        // SAFETY: `iface` lives until after this borrow, so the descriptor stays open.
        let fd = unsafe { BorrowedFd::borrow_raw(iface.as_raw_fd()) };
        rustix::io::ioctl_fionbio(fd, true).map_err(|errno| refused(errno.into()))?;
        Ok(Self(iface))
    }
}

impl AsRawFd for TunTap {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Tun for TunTap {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn backend(&self) -> &'static str {
        "tun-tap"
    }

    fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buffer)
    }

    fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.0.send(packet).map(|_| ())
    }
}
