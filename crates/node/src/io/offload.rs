//! Which offloads are on, and why the others are not.
//!
//! Each has a switch, is tried at start with something harmless, and is turned off for good when the
//! system refuses it later. Kernels that are known to damage what they are given are recognised.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// The kinds of offload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offload {
    /// TCP super-packets from the TUN device (TSO).
    TunTso,
    /// UDP super-packets from the TUN device (USO).
    TunUso,
    /// TCP super-packets to the TUN device.
    TunTcpMerge,
    /// UDP super-packets to the TUN device.
    TunUdpMerge,
    /// Many datagrams to the UDP socket at once.
    UdpGso,
    /// Many datagrams from the UDP socket at once.
    UdpGro,
}

/// Which offloads the operator allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffloadSwitches {
    /// TCP super-packets on the TUN device, both directions.
    pub tun_tcp: bool,
    /// UDP super-packets on the TUN device, both directions.
    pub tun_udp: bool,
    /// GSO on the UDP socket.
    pub udp_gso: bool,
    /// GRO on the UDP socket.
    pub udp_gro: bool,
}

impl Default for OffloadSwitches {
    fn default() -> Self {
        Self {
            tun_tcp: true,
            tun_udp: true,
            udp_gso: true,
            udp_gro: true,
        }
    }
}

/// Why an offload is off.
#[derive(Debug)]
pub(crate) enum Why {
    /// The operator's word.
    Switch,
    /// The TUN back end goes packet by packet.
    Backend,
    /// The system has it not.
    Unsupported(io::Error),
    /// This kernel damages it.
    Kernel(&'static str),
    /// The system refused it while running.
    Failed(io::Error),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch => f.write_str("off by setting"),
            Self::Backend => f.write_str("the TUN back end goes packet by packet"),
            Self::Unsupported(error) => write!(f, "not supported here: {error}"),
            Self::Kernel(what) => write!(f, "this kernel {what}"),
            Self::Failed(error) => write!(f, "refused while running: {error}"),
        }
    }
}

/// The state of each offload; shared by the data threads.
pub(crate) struct Offloads([State; Offload::ALL.len()]);

struct State {
    is_on: AtomicBool,
    why: Mutex<Option<Why>>,
}

impl Offload {
    const ALL: [Self; 6] = [
        Self::TunTso,
        Self::TunUso,
        Self::TunTcpMerge,
        Self::TunUdpMerge,
        Self::UdpGso,
        Self::UdpGro,
    ];

    /// As status and metrics spell it.
    fn name(self) -> &'static str {
        match self {
            Self::TunTso => "tun_tso",
            Self::TunUso => "tun_uso",
            Self::TunTcpMerge => "tun_tcp_merge",
            Self::TunUdpMerge => "tun_udp_merge",
            Self::UdpGso => "udp_gso",
            Self::UdpGro => "udp_gro",
        }
    }
}

impl Offloads {
    /// Everything that the switches and the kernel's version allow.
    pub(crate) fn new(switches: OffloadSwitches) -> Self {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self::on_kernel(switches, version(&kernel))
    }

    fn on_kernel(switches: OffloadSwitches, kernel: Option<Version>) -> Self {
        let all = Offload::ALL.map(|offload| {
            let allowed = match offload {
                Offload::TunTso | Offload::TunTcpMerge => switches.tun_tcp,
                Offload::TunUso | Offload::TunUdpMerge => switches.tun_udp,
                Offload::UdpGso => switches.udp_gso,
                Offload::UdpGro => switches.udp_gro,
            };
            let damage = kernel.and_then(|kernel| damage(offload, kernel));
            let why = match damage {
                _ if !allowed => Some(Why::Switch),
                Some(what) => Some(Why::Kernel(what)),
                None => None,
            };
            State {
                is_on: AtomicBool::new(why.is_none()),
                why: Mutex::new(why),
            }
        });
        Self(all)
    }

    pub(crate) fn is_on(&self, offload: Offload) -> bool {
        self.0[offload as usize].is_on.load(Ordering::Relaxed)
    }

    /// Turns an offload off for good; says so once.
    pub(crate) fn turn_off(&self, offload: Offload, why: Why) {
        let state = &self.0[offload as usize];
        if state.is_on.swap(false, Ordering::Relaxed) {
            tracing::info!(offload = offload.name(), reason = %why, "offload is off");
            *state.why.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        }
    }

    /// The TUN device has no super-packets at all.
    pub(crate) fn no_vnet_header(&self) {
        use Offload::{TunTcpMerge, TunTso, TunUdpMerge, TunUso};
        for offload in [TunTso, TunUso, TunTcpMerge, TunUdpMerge] {
            let state = &self.0[offload as usize];
            if state.is_on.swap(false, Ordering::Relaxed) {
                *state.why.lock().unwrap_or_else(PoisonError::into_inner) = Some(Why::Backend);
            }
        }
    }

    /// Every offload by name, and why it is off if it is.
    pub(crate) fn states(&self) -> Vec<(&'static str, Option<String>)> {
        let why = |state: &State| {
            let why = state.why.lock().unwrap_or_else(PoisonError::into_inner);
            why.as_ref().map(ToString::to_string)
        };
        let all = Offload::ALL.iter().zip(&self.0);
        all.map(|(offload, state)| (offload.name(), why(state)))
            .collect()
    }
}

/// Major, minor and patch number of a kernel.
type Version = (u32, u32, u32);

/// The damage that a kernel is known to do to an offload.
fn damage(offload: Offload, kernel: Version) -> Option<&'static str> {
    match offload {
        // tailscale #19777.
        Offload::UdpGso if ((7, 0, 0)..=(7, 1, 4)).contains(&kernel) => {
            Some("damages batches of datagrams of equal length (Linux 7.0 to 7.1.4)")
        }
        // tailscale #13041.
        Offload::TunTcpMerge | Offload::TunUdpMerge
            if [(6, 1, 103), (6, 6, 44), (6, 10, 3)].contains(&kernel) =>
        {
            Some("refuses super-packets that are in order (Linux 6.1.103, 6.6.44, 6.10.3)")
        }
        Offload::UdpGro if kernel < (5, 12, 0) => {
            Some("does not receive batches reliably (Linux before 5.12)")
        }
        Offload::TunTso
        | Offload::TunUso
        | Offload::TunTcpMerge
        | Offload::TunUdpMerge
        | Offload::UdpGso
        | Offload::UdpGro => None,
    }
}

/// The version in what the kernel calls its release: `6.18.4-2-generic`.
fn version(release: &str) -> Option<Version> {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().ok());
    let (major, minor) = (numbers.next()??, numbers.next()??);
    let patch = numbers.next().flatten().unwrap_or(0);
    Some((major, minor, patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        assert_eq!(version("6.18.44-fc-v657\n"), Some((6, 18, 44)));
        assert_eq!(version("7.1.4"), Some((7, 1, 4)));
        assert_eq!(version("6.2-rc1"), Some((6, 2, 0)));
        assert_eq!(version("next"), None);
    }

    #[test]
    fn kernels_that_damage_batches_are_recognised_and_others_left_alone() {
        let on = |offload, kernel| {
            let all = Offloads::on_kernel(OffloadSwitches::default(), Some(kernel));
            all.is_on(offload)
        };
        for (kernel, is_on) in [
            ((6, 18, 0), true),
            ((7, 0, 0), false),
            ((7, 1, 4), false),
            ((7, 1, 5), true),
        ] {
            assert_eq!(on(Offload::UdpGso, kernel), is_on, "{kernel:?}");
        }
        for (kernel, is_on) in [((6, 6, 43), true), ((6, 6, 44), false), ((6, 6, 45), true)] {
            assert_eq!(on(Offload::TunTcpMerge, kernel), is_on, "{kernel:?}");
            assert_eq!(on(Offload::TunUdpMerge, kernel), is_on, "{kernel:?}");
        }
        assert!(!on(Offload::UdpGro, (5, 11, 99)));
    }

    #[test]
    fn status_says_what_is_off_and_why() {
        let switches = OffloadSwitches {
            udp_gso: false,
            ..OffloadSwitches::default()
        };
        let offloads = Offloads::on_kernel(switches, None);
        offloads.turn_off(
            Offload::TunUso,
            Why::Failed(io::Error::from_raw_os_error(22)),
        );
        let states = offloads.states();
        let reason = |name: &str| {
            let found = states.iter().find(|(other, _)| *other == name);
            found.expect("every offload is listed").1.clone()
        };
        assert_eq!(reason("udp_gso").as_deref(), Some("off by setting"));
        assert!(reason("tun_uso").is_some_and(|why| why.starts_with("refused while running")));
        assert_eq!(reason("tun_tso"), None);
    }
}
