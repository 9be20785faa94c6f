//! The offloading back end: a multi-queue TUN device with `IFF_VNET_HDR`, which hands out and takes
//! super-packets (Linux, `Documentation/networking/tuntap.rst`; `linux/if_tun.h`).
//!
//! Made with the driver's own ioctls: which offloads are asked for must be ours to say, one by one.

use super::steer::Steering;
use super::{Tun, TunError, refused};
use crate::io::offload::{Offload, Offloads, Why};
use rustix::ioctl::{IntegerSetter, Setter, opcode};
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};

struct Vnet(File);

/// Creates the interface with up to `queues` queues.
pub(super) fn open(
    name: &str,
    queues: usize,
    offloads: &Offloads,
    steering: &mut Steering,
) -> Result<Vec<Box<dyn Tun>>, TunError> {
    let first = queue(name, IFF_TUN_EXCL).map_err(|source| refused(name, source))?;
    ask_for(&first.0, offloads).map_err(|source| refused(name, source))?;
    let queues = match steering.by_destination(&first.0) {
        Err(error) if queues > 1 => {
            tracing::info!(%error, "one data thread: more would need the right to load a BPF program");
            1
        }
        _ => queues,
    };
    let mut opened: Vec<Box<dyn Tun>> = vec![Box::new(first)];
    while opened.len() < queues {
        match queue(name, 0) {
            Ok(next) => opened.push(Box::new(next)),
            Err(error) => {
                tracing::info!(%error, queues = opened.len(), "the interface has fewer queues than were asked for");
                break;
            }
        }
    }
    Ok(opened)
}

/// One more queue of the interface.
fn queue(name: &str, flags: u16) -> io::Result<Vnet> {
    let device = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    rustix::io::ioctl_fionbio(&device, true)?;
    let mut request = Request {
        name: [0; 16],
        flags: IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE | flags,
        rest: [0; 22],
    };
    let named = request.name.iter_mut().zip(name.bytes());
    named.for_each(|(to, from)| *to = from);
    #[expect(unsafe_code, reason = "an ioctl that no library wraps")]
    // SAFETY: TUNSETIFF reads a `struct ifreq`, which `Request` has the layout of.
    unsafe {
        rustix::ioctl::ioctl(&device, Setter::<TUNSETIFF, Request>::new(request))?;
    }
    Ok(Vnet(device))
}

/// Asks the kernel for super-packets, for as many kinds as it has and the switches allow.
fn ask_for(device: &File, offloads: &Offloads) -> io::Result<()> {
    if offloads.is_on(Offload::TunUso)
        && let Err(error) = set_offload(device, wanted(offloads))
    {
        offloads.turn_off(Offload::TunUso, Why::Unsupported(error));
    }
    if let Err(error) = set_offload(device, wanted(offloads)) {
        offloads.turn_off(Offload::TunTso, Why::Unsupported(error));
        set_offload(device, 0)?;
    }
    Ok(())
}

fn wanted(offloads: &Offloads) -> usize {
    let mut flags = 0;
    if offloads.is_on(Offload::TunTso) {
        flags |= TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    }
    if offloads.is_on(Offload::TunUso) {
        flags |= TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6;
    }
    flags
}

fn set_offload(device: &File, flags: usize) -> io::Result<()> {
    #[expect(unsafe_code, reason = "an ioctl that no library wraps")]
    // SAFETY: TUNSETOFFLOAD takes its flags as an integer, and reads no memory.
    unsafe {
        rustix::ioctl::ioctl(device, IntegerSetter::<TUNSETOFFLOAD>::new_usize(flags))?;
    }
    Ok(())
}

impl AsRawFd for Vnet {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Tun for Vnet {
    fn backend(&self) -> &'static str {
        "offload"
    }

    fn has_vnet_header(&self) -> bool {
        true
    }

    fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.0, buffer)?)
    }

    fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        rustix::io::writev(&self.0, slices)?;
        Ok(())
    }
}

/// `struct ifreq` (linux/if.h), as far as TUNSETIFF reads it.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

const TUNSETIFF: rustix::ioctl::Opcode = opcode::write::<i32>(b'T', 202);
const TUNSETOFFLOAD: rustix::ioctl::Opcode = opcode::write::<u32>(b'T', 208);
const IFF_TUN: u16 = 0x0001;
const IFF_MULTI_QUEUE: u16 = 0x0100;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;
const IFF_TUN_EXCL: u16 = 0x8000;
const TUN_F_CSUM: usize = 0x01;
const TUN_F_TSO4: usize = 0x02;
const TUN_F_TSO6: usize = 0x04;
const TUN_F_TSO_ECN: usize = 0x08;
const TUN_F_USO4: usize = 0x20;
const TUN_F_USO6: usize = 0x40;
