//! The packet-by-packet back end, on `tun-tap`.

use super::{Tun, TunError};
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

pub(super) struct TunTap(tun_tap::Iface);

impl TunTap {
    pub(super) fn open(name: &str) -> Result<Self, TunError> {
        // The driver would hand us a persistent interface of this name; a taken name is an error here.
        if crate::io::interface::index_of(name).is_ok() {
            return Err(TunError::Taken(name.to_owned()));
        }
        let refused = |source| super::refused(name, source);
        let iface =
            tun_tap::Iface::without_packet_info(name, tun_tap::Mode::Tun).map_err(refused)?;
        let tap = Self(iface);
        rustix::io::ioctl_fionbio(tap.fd(), true).map_err(|errno| refused(errno.into()))?;
        Ok(tap)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        #[expect(
            unsafe_code,
            reason = "tun_tap owns the descriptor, but does not implement AsFd"
        )]
        // SAFETY: the interface owns the descriptor and lives as long as the borrow.
        unsafe {
            BorrowedFd::borrow_raw(self.0.as_raw_fd())
        }
    }
}

impl AsRawFd for TunTap {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Tun for TunTap {
    fn backend(&self) -> &'static str {
        "tun-tap"
    }

    fn has_vnet_header(&self) -> bool {
        false
    }

    fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buffer)
    }

    fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        rustix::io::writev(self.fd(), slices)?;
        Ok(())
    }
}
