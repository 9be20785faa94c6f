//! Which queue of a multi-queue TUN device a packet goes to: one queue for one destination, always.
//!
//! The driver's own choice moves a flow to whatever queue its last answer came in by, in the middle of
//! the flow, and so reorders it. Instead a program of eight instructions looks at the last two bytes of
//! the destination address (which are the same in a member's IPv4 and IPv6 address): all that goes to
//! a peer is read, sealed and sent by one thread, in order.

use rustix::ioctl::{Setter, opcode};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// The program, loaded once: a device that is made anew gets it when the right to load another is given up.
#[derive(Debug, Default)]
pub(super) struct Steering(Option<OwnedFd>);

impl Steering {
    /// Makes the device choose queues by destination. Needs CAP_BPF the first time, and a kernel that has
    /// `TUNSETSTEERINGEBPF` (Linux 4.16).
    pub(super) fn by_destination(&mut self, device: &File) -> io::Result<()> {
        let program = match self.0.take() {
            Some(program) => program,
            None => load()?,
        };
        let program = self.0.insert(program);
        #[expect(unsafe_code, reason = "an ioctl that no library wraps")]
        // SAFETY: TUNSETSTEERINGEBPF reads an `int`, the descriptor of a program; it takes a reference.
        unsafe {
            let attach = Setter::<TUNSETSTEERINGEBPF, RawFd>::new(program.as_raw_fd());
            rustix::ioctl::ioctl(device, attach)?;
        }
        Ok(())
    }
}

/// One eBPF instruction (RFC 9669, section 3): opcode, registers, offset, immediate value.
#[repr(C)]
struct Instruction {
    opcode: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(opcode: u8, registers: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        opcode,
        registers,
        offset,
        immediate,
    }
}

/// The driver takes the result modulo the number of queues. A load beyond the packet returns 0.
const PROGRAM: [Instruction; 8] = [
    // r6 = r1: where packet loads look for the packet
    instruction(0xBF, 0x16, 0, 0),
    // r0 = first byte; r0 >>= 4: the IP version
    instruction(0x30, 0, 0, 0),
    instruction(0x77, 0, 0, 4),
    // if r0 == 6, skip two
    instruction(0x15, 0, 2, 6),
    // r0 = last two bytes of the IPv4 destination; return
    instruction(0x28, 0, 0, 18),
    instruction(0x95, 0, 0, 0),
    // r0 = last two bytes of the IPv6 destination; return
    instruction(0x28, 0, 0, 38),
    instruction(0x95, 0, 0, 0),
];

/// `union bpf_attr` (linux/bpf.h), as far as BPF_PROG_LOAD needs it.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel: u32,
    flags: u32,
}

fn load() -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let attributes = Load {
        kind: BPF_PROG_TYPE_SOCKET_FILTER,
        count: PROGRAM.len() as u32,
        instructions: PROGRAM.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel: 0,
        flags: 0,
    };
    #[expect(unsafe_code, reason = "a system call that no library here wraps")]
    // SAFETY: the attributes, the instructions and the license live through the call, and the sizes
    // are theirs; what is not named of the union counts as zero (bpf(2)).
    let descriptor = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const attributes,
            size_of::<Load>(),
        )
    };
    let Ok(descriptor @ 0..) = RawFd::try_from(descriptor) else {
        return Err(io::Error::last_os_error());
    };
    #[expect(unsafe_code, reason = "a system call that no library here wraps")]
    // SAFETY: the call has just returned this descriptor, and nobody else knows it.
    let program = unsafe { OwnedFd::from_raw_fd(descriptor) };
    Ok(program)
}

const TUNSETSTEERINGEBPF: rustix::ioctl::Opcode = opcode::read::<i32>(b'T', 224);
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TYPE_SOCKET_FILTER: u32 = 1;
