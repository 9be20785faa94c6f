//! A controller: its address, its ranges, its policies against time, and its event log.

use super::Findings;
use super::places::{self, Place};
use crate::founding;
use controller::{Config, Controller};
use machine::routes::Tables;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use wire::Prefix;

pub(super) fn look(place: &Place, config: Config, found: &mut Findings) {
    // Let go at once.
    if let Err(error) = Controller::bind(config.listen) {
        place.cannot_bind("listen", &error, found);
    }
    if config.listen.port() == 0 {
        let why = "port 0 takes another one at each start, and nodes know the one of their tokens: give the port";
        found.warning("listen", why);
    }
    places::metrics(config.metrics_listen, place, found);
    places::page(config.page.as_ref(), place, found);
    if config.advertise.is_empty() && config.listen.ip().is_unspecified() {
        let why = "not set, and `listen` is any address of this machine: no token can be created before it says where \
                   nodes reach this controller, as in advertise = [\"mesh.example.net:7443\"]";
        found.warning("advertise", why);
    }
    ages(&config, found);
    ranges(&config, found);
    if place.has_state {
        log(place, config, found);
    }
}

/// Evidence that is too old before the next decision.
fn ages(config: &Config, found: &mut Findings) {
    for segment in &config.segments {
        let (policy, epoch) = (&segment.policy, segment.policy.epoch_seconds);
        let probation = u64::from(policy.probation_epochs).saturating_mul(epoch);
        if probation > LONG_PROBATION {
            let why = format!(
                "{} epochs are {} days in which a new node is a member without evidence: give fewer",
                policy.probation_epochs,
                probation / 86_400
            );
            found.warning("probation_epochs", why);
        }
        for requirement in policy.requirements().iter() {
            let age = requirement.max_age_seconds;
            if age >= epoch {
                continue;
            }
            let (setting, of) = if requirement.name.is_empty() {
                ("max_benchmark_age", String::new())
            } else {
                (
                    "max_age_seconds",
                    format!(" of requirement {:?}", requirement.name),
                )
            };
            let why = format!(
                "{age}{of} is shorter than an epoch (`epoch_seconds` is {epoch}): a node whose benchmark does not run \
                 every {age} s loses its membership; make it at least {}",
                epoch.saturating_mul(2)
            );
            found.warning(setting, why);
        }
    }
}

/// Ranges that are somebody else's already.
fn ranges(config: &Config, found: &mut Findings) {
    let (tables, own) = (
        Tables::read(),
        machine::addresses::all().unwrap_or_default(),
    );
    for segment in &config.segments {
        let v4 = Prefix::around(IpAddr::V4(segment.mesh_v4.0), segment.mesh_v4.1);
        let v6 = segment
            .mesh_v6
            .map(|(base, length)| Prefix::around(IpAddr::V6(base), length));
        for (setting, range) in [("mesh_v4", Some(v4)), ("mesh_v6", v6)] {
            let Some(range) = range else {
                continue;
            };
            if !PRIVATE.iter().any(|it| inside(&range, it)) {
                let why = format!(
                    "{range} is not a private range: it hides machines of the Internet from every node; choose one \
                     within 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10, or fd00::/8"
                );
                found.warning(setting, why);
            }
            // A node of this mesh on the same machine has a route of exactly this range by a TUN interface.
            let is_own = |to: Prefix, interface: &str| to == range && is_tun(interface);
            let addresses = own.iter();
            let addresses =
                addresses.filter(|it| range.contains(it.ip) && !is_own(it.network, &it.interface));
            for it in addresses {
                let why = format!(
                    "{range} has {} in it, an address of this machine's {}: choose a range that nobody uses",
                    it.ip, it.interface
                );
                found.warning(setting, why);
            }
            let routes = tables.networks();
            for route in routes.filter(|it| it.to.overlaps(&range) && !is_own(it.to, it.interface))
            {
                let why = format!(
                    "{range} overlaps {}, for which this machine has a route by {}: choose a range that nobody uses",
                    route.to, route.interface
                );
                found.warning(setting, why);
            }
        }
    }
}

fn inside(range: &Prefix, of: &(IpAddr, u8)) -> bool {
    let of = Prefix::around(of.0, of.1);
    of.contains(range.address()) && range.length() >= of.length()
}

fn is_tun(interface: &str) -> bool {
    Path::new("/sys/class/net")
        .join(interface)
        .join("tun_flags")
        .exists()
}

/// Private addresses (RFC 1918, RFC 6598, RFC 4193).
const PRIVATE: [(IpAddr, u8); 5] = [
    (IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 0)), 8),
    (IpAddr::V4(std::net::Ipv4Addr::new(172, 16, 0, 0)), 12),
    (IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 0, 0)), 16),
    (IpAddr::V4(std::net::Ipv4Addr::new(100, 64, 0, 0)), 10),
    (
        IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0)),
        8,
    ),
];

/// The event log, as a start would find it: an engine starts on a copy.
fn log(place: &Place, config: Config, found: &mut Findings) {
    let keys = match founding::look_at_controller(&place.state_dir, config.adopt_log.is_some()) {
        Ok(Some(keys)) => keys,
        Ok(None) => return,
        Err(faults) => {
            for fault in faults {
                found.error("state_dir", fault);
            }
            return;
        }
    };
    let unexamined = |why: String| format!("the event log was not examined: {why}");
    if place.is_running {
        found
            .notes
            .push(unexamined("the daemon has it open".to_owned()));
        return;
    }
    let copied = match copy(&place.state_dir) {
        Ok(Some(copied)) => copied,
        Ok(None) => {
            let why = format!(
                "it is larger than {} MiB; `meshctl log verify` examines it",
                MAX_COPY >> 20
            );
            found.notes.push(unexamined(why));
            return;
        }
        Err(error) => {
            found
                .warnings
                .push(unexamined(format!("it could not be copied: {error}")));
            return;
        }
    };
    let config = Config {
        state_dir: copied.path().to_owned(),
        ..config
    };
    if let Err(error) = controller::rehearse(config, keys) {
        let copy = copied.path().display().to_string();
        let original = place.state_dir.display().to_string();
        found.error("state_dir", error.to_string().replace(&copy, &original));
    }
}

/// The files of the mesh in a private directory that goes when it is dropped; `None`: they are too large for that.
fn copy(state_dir: &Path) -> io::Result<Option<tempfile::TempDir>> {
    let files = founding::mesh_files().map(|name| state_dir.join(name));
    let files: Vec<_> = files.filter(|path| path.is_file()).collect();
    let sizes = files
        .iter()
        .map(|path| path.metadata().map(|meta| meta.len()));
    let size: u64 = sizes.sum::<io::Result<u64>>()?;
    if size > MAX_COPY {
        return Ok(None);
    }
    let folder = tempfile::tempdir()?;
    for path in files {
        let name = path.file_name().unwrap_or_default();
        std::fs::copy(&path, folder.path().join(name))?;
    }
    Ok(Some(folder))
}

/// In seconds: a month.
const LONG_PROBATION: u64 = 30 * 86_400;
/// Largest event log that is examined, in bytes.
const MAX_COPY: u64 = 256 << 20;
