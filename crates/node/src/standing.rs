//! How the mesh's interface should be, how the kernel says that it is, and what is wrong with it. Also how often
//! somebody else's changes are undone: at once, and more rarely while they go on. Touches nothing.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use wire::admin::InterfaceState;
use wire::message::InterfaceReport;

/// The interface as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    /// By this the kernel knows it, whatever it is called.
    pub(crate) index: u32,
    /// Its IPv4 address and the length of the mesh's range.
    pub(crate) v4: (Ipv4Addr, u8),
    /// The same for IPv6.
    pub(crate) v6: (Ipv6Addr, u8),
    /// In bytes.
    pub(crate) mtu: u32,
    /// Packets that may wait in it.
    pub(crate) queue_len: u32,
}

/// The interface as the kernel shows it, and what else concerns the mesh's ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// `None`: there is none of that index here.
    pub(crate) link: Option<Link>,
    /// Its addresses.
    pub(crate) own: Vec<(IpAddr, u8)>,
    /// Addresses of the mesh's ranges on other interfaces, with the interface's name.
    pub(crate) foreign: Vec<(IpAddr, String)>,
    /// Why the interface can have no IPv6 address, if it cannot.
    pub(crate) ipv6_off: Option<String>,
}

/// The interface itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) name: String,
    pub(crate) is_up: bool,
    pub(crate) mtu: u32,
    pub(crate) queue_len: u32,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// It was deleted, or moved to another network namespace.
    Gone,
    /// It has another name.
    Renamed(String),
    /// It was set down.
    Down,
    /// An address is missing.
    Missing(IpAddr, u8),
    /// The IPv6 address is missing because IPv6 is off, for this reason: nothing that this daemon may change.
    NoIpv6(Ipv6Addr, u8, String),
    /// Another MTU than it was given.
    Mtu { is: u32, should: u32 },
    /// Another queue length than it was given.
    QueueLen { is: u32, should: u32 },
    /// Another interface has an address of the mesh.
    Foreign(IpAddr, String),
    /// The kernel does not say.
    Unseen(String),
}

impl Fault {
    /// Every kind, as the metric spells it.
    pub(crate) const KINDS: [&'static str; 9] = [
        "gone",
        "renamed",
        "down",
        "address_missing",
        "no_ipv6",
        "mtu",
        "queue_length",
        "foreign_address",
        "unseen",
    ];

    /// Which of [`Self::KINDS`] it is.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Renamed(_) => "renamed",
            Self::Down => "down",
            Self::Missing(..) => "address_missing",
            Self::NoIpv6(..) => "no_ipv6",
            Self::Mtu { .. } => "mtu",
            Self::QueueLen { .. } => "queue_length",
            Self::Foreign(..) => "foreign_address",
            Self::Unseen(_) => "unseen",
        }
    }

    /// Whether the daemon can do something about it.
    pub(crate) fn is_ours_to_mend(&self) -> bool {
        match self {
            Self::Gone
            | Self::Renamed(_)
            | Self::Down
            | Self::Missing(..)
            | Self::Mtu { .. }
            | Self::QueueLen { .. } => true,
            Self::NoIpv6(..) | Self::Foreign(..) | Self::Unseen(_) => false,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => write!(f, "is gone"),
            Self::Renamed(name) => write!(f, "is called {name}"),
            Self::Down => write!(f, "is down"),
            Self::Missing(address, len) => write!(f, "{address}/{len} is missing"),
            Self::NoIpv6(address, len, why) => {
                write!(f, "{address}/{len} is missing: IPv4 only, because {why}")
            }
            Self::Mtu { is, should } => write!(f, "has MTU {is} instead of {should}"),
            Self::QueueLen { is, should } => {
                write!(f, "has queue length {is} instead of {should}")
            }
            Self::Foreign(address, link) => write!(
                f,
                "{link} has {address}, an address of the mesh range: remove it there"
            ),
            Self::Unseen(why) => write!(f, "the kernel does not say how it is: {why}"),
        }
    }
}

/// Everything that is wrong, in order.
pub(crate) fn faults(wanted: &Wanted, seen: &Seen) -> Vec<Fault> {
    let foreign = seen.foreign.iter().cloned();
    let foreign = foreign.map(|(address, link)| Fault::Foreign(address, link));
    let Some(link) = &seen.link else {
        return std::iter::once(Fault::Gone).chain(foreign).collect();
    };
    let mut faults = Vec::new();
    if link.name != wanted.name {
        faults.push(Fault::Renamed(link.name.clone()));
    }
    if !link.is_up {
        faults.push(Fault::Down);
    }
    let ((v4, v4_len), (v6, v6_len)) = (wanted.v4, wanted.v6);
    if !seen.own.contains(&(v4.into(), v4_len)) {
        faults.push(Fault::Missing(v4.into(), v4_len));
    }
    if !seen.own.contains(&(v6.into(), v6_len)) {
        faults.push(match &seen.ipv6_off {
            Some(why) => Fault::NoIpv6(v6, v6_len, why.clone()),
            None => Fault::Missing(v6.into(), v6_len),
        });
    }
    if link.mtu != wanted.mtu {
        let (is, should) = (link.mtu, wanted.mtu);
        faults.push(Fault::Mtu { is, should });
    }
    if link.queue_len != wanted.queue_len {
        let (is, should) = (link.queue_len, wanted.queue_len);
        faults.push(Fault::QueueLen { is, should });
    }
    faults.extend(foreign);
    faults
}

/// The families that the interface carries, IPv4 and IPv6: it is up and has the family's address.
pub(crate) fn carries(wanted: &Wanted, seen: &Seen) -> [bool; 2] {
    let is_up = seen.link.as_ref().is_some_and(|link| link.is_up);
    let has = |address, len| is_up && seen.own.contains(&(address, len));
    [
        has(wanted.v4.0.into(), wanted.v4.1),
        has(wanted.v6.0.into(), wanted.v6.1),
    ]
}

/// How the interface stands, for whoever asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) state: InterfaceState,
    pub(crate) faults: Vec<Fault>,
    /// Which families it carries: IPv4, IPv6.
    pub(crate) carries: [bool; 2],
}

impl Condition {
    pub(crate) fn of(wanted: &Wanted, seen: &Seen) -> Self {
        let faults = faults(wanted, seen);
        let carries = carries(wanted, seen);
        let state = match carries {
            [false, false] => InterfaceState::Unusable,
            _ if faults.is_empty() => InterfaceState::Ok,
            _ => InterfaceState::Impaired,
        };
        Self {
            state,
            faults,
            carries,
        }
    }

    /// The kernel does not say.
    pub(crate) fn unseen(error: &std::io::Error) -> Self {
        Self {
            state: InterfaceState::Unknown,
            faults: vec![Fault::Unseen(error.to_string())],
            carries: [false, false],
        }
    }

    /// For this node's status, where the interface is named beside them.
    pub(crate) fn words(&self) -> Vec<String> {
        self.faults.iter().map(ToString::to_string).collect()
    }

    /// For the controller, which knows the interface by nothing else.
    pub(crate) fn report(&self, interface: &str) -> InterfaceReport {
        let named = |fault: &Fault| match fault {
            Fault::Gone
            | Fault::Renamed(_)
            | Fault::Down
            | Fault::Mtu { .. }
            | Fault::QueueLen { .. } => format!("{interface} {fault}"),
            Fault::Missing(..) | Fault::NoIpv6(..) | Fault::Foreign(..) | Fault::Unseen(_) => {
                format!("{interface}: {fault}")
            }
        };
        InterfaceReport {
            unusable: self.state == InterfaceState::Unusable,
            faults: self.faults.iter().map(named).collect(),
        }
    }
}

/// Whether to undo another change yet: some at once, and then one in [`PACE`]. An operator who tries things out is
/// answered at once, and a program that changes the interface again and again does not keep this one busy.
#[derive(Debug, Default)]
pub(crate) struct Restraint {
    /// When all that was done would be paid for, on the boot-time clock.
    paid: Duration,
}

impl Restraint {
    /// Whether a repair may be now.
    pub(crate) fn allows(&self, now: Duration) -> bool {
        now >= self.next()
    }

    /// When the next may be.
    pub(crate) fn next(&self) -> Duration {
        self.paid.saturating_sub(PACE * (AT_ONCE - 1))
    }

    /// A repair is made.
    pub(crate) fn repaired(&mut self, now: Duration) {
        self.paid = self.paid.max(now) + PACE;
    }
}

/// Repairs in a row.
const AT_ONCE: u32 = 10;
/// The time that each costs.
const PACE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            name: "meshd0".into(),
            index: 7,
            v4: ("10.76.0.2".parse().unwrap(), 16),
            v6: ("fd00::2".parse().unwrap(), 64),
            mtu: 1420,
            queue_len: 4000,
        }
    }

    fn right() -> Seen {
        let wanted = wanted();
        Seen {
            link: Some(Link {
                name: wanted.name,
                is_up: true,
                mtu: wanted.mtu,
                queue_len: wanted.queue_len,
            }),
            own: vec![
                (wanted.v4.0.into(), wanted.v4.1),
                ("fe80::1".parse().unwrap(), 64),
                (wanted.v6.0.into(), wanted.v6.1),
            ],
            foreign: Vec::new(),
            ipv6_off: None,
        }
    }

    fn said(change: impl FnOnce(&mut Seen)) -> (InterfaceState, Vec<String>) {
        let mut seen = right();
        change(&mut seen);
        let condition = Condition::of(&wanted(), &seen);
        let faults = condition.faults.iter();
        assert!(faults.clone().all(|it| Fault::KINDS.contains(&it.kind())));
        let told = condition.report("meshd0").faults;
        assert!(told.iter().all(|it| it.starts_with("meshd0")), "{told:?}");
        (condition.state, condition.words())
    }

    fn is(state: InterfaceState, fault: &str) -> (InterfaceState, Vec<String>) {
        (state, vec![fault.to_owned()])
    }

    #[test]
    fn each_thing_that_somebody_can_change_is_named_and_what_passes_nothing_is_unusable() {
        use InterfaceState::{Impaired, Ok, Unusable};
        fn link(change: impl FnOnce(&mut Link)) -> impl FnOnce(&mut Seen) {
            |seen| change(seen.link.as_mut().unwrap())
        }
        assert_eq!(said(|_| {}), (Ok, vec![]));
        assert_eq!(said(|seen| seen.link = None), is(Unusable, "is gone"));
        assert_eq!(said(link(|it| it.is_up = false)), is(Unusable, "is down"));
        let renamed = said(link(|it| it.name = "other".into()));
        assert_eq!(renamed, is(Impaired, "is called other"));
        let narrow = said(link(|it| it.mtu = 1300));
        assert_eq!(narrow, is(Impaired, "has MTU 1300 instead of 1420"));
        let short = said(link(|it| it.queue_len = 1));
        assert_eq!(short, is(Impaired, "has queue length 1 instead of 4000"));
        let no_v4 = said(|seen| seen.own.retain(|(it, _)| it.is_ipv6()));
        assert_eq!(no_v4, is(Impaired, "10.76.0.2/16 is missing"));
        // The address alone is not enough: its length makes the route.
        let other_len = said(|seen| seen.own[0].1 = 32);
        assert_eq!(other_len, is(Impaired, "10.76.0.2/16 is missing"));
        let (state, faults) = said(|seen| seen.own.clear());
        assert_eq!((state, faults.len()), (Unusable, 2));
        let foreign = ("10.76.0.9".parse().unwrap(), "eth1".to_owned());
        let (state, faults) = said(|seen| seen.foreign.push(foreign));
        assert_eq!(state, Impaired);
        assert!(faults[0].contains("eth1 has 10.76.0.9"), "{faults:?}");
    }

    #[test]
    fn without_ipv6_the_node_goes_on_and_waits_for_it() {
        let mut seen = right();
        seen.own.truncate(1);
        seen.ipv6_off = Some("it is off".into());
        let condition = Condition::of(&wanted(), &seen);
        assert_eq!(condition.state, InterfaceState::Impaired);
        let [fault] = &condition.faults[..] else {
            panic!("{:?}", condition.faults)
        };
        assert!(!fault.is_ours_to_mend());
        assert_eq!(
            fault.to_string(),
            "fd00::2/64 is missing: IPv4 only, because it is off"
        );
        assert_eq!(carries(&wanted(), &seen), [true, false]);
        seen.ipv6_off = None;
        let condition = Condition::of(&wanted(), &seen);
        assert!(condition.faults[0].is_ours_to_mend(), "it has come");
    }

    #[test]
    fn whoever_changes_the_interface_in_a_loop_is_answered_ever_more_rarely() {
        let mut restraint = Restraint::default();
        let (start, step) = (Duration::from_secs(1_000), Duration::from_millis(100));
        let (mut now, mut repairs) = (start, 0);
        while now < start + Duration::from_secs(600) {
            if restraint.allows(now) {
                restraint.repaired(now);
                repairs += 1;
            }
            now += step;
            if now == start + Duration::from_secs(1) {
                assert_eq!(repairs, AT_ONCE, "an operator's changes are undone at once");
            }
        }
        assert_eq!(repairs, AT_ONCE + 59);
        assert!(!restraint.allows(now - step));
        // Once it is over, changes are undone at once again.
        now += PACE * AT_ONCE;
        for _ in 0..AT_ONCE {
            assert!(restraint.allows(now));
            restraint.repaired(now);
        }
        assert_eq!(restraint.next(), now + PACE);
    }
}
