//! This machine, whatever the daemon says: its clock, its addresses against the mesh's, the rights and devices of a node,
//! IPv6, room on the disk, and the names of controllers.

use super::{Finding, State};
use crate::local::{Local, Role};
use crate::units;
use machine::rights::{self, Right};
use machine::routes::Tables;
use machine::{clock, disk, names, programs};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;
use wire::admin::Status;
use wire::host_port::{Host, HostPort};
use wire::prefix::Prefix;

/// Everything.
pub(super) fn look(local: &Local, status: Option<&Status>) -> Vec<Finding> {
    let mut all = vec![kept()];
    all.extend(collisions(local, status));
    if local.role == Role::Node {
        all.push(daemon_rights(local));
        all.push(tun());
        all.push(nft());
    }
    all.push(ipv6(status));
    all.extend(resolved(local, status));
    all.push(room(local));
    all
}

fn kept() -> Finding {
    match clock::is_kept() {
        Ok(true) => Finding::ok("clock", "a time daemon keeps it, as the kernel says"),
        Ok(false) => Finding::warning(
            "clock",
            "no time daemon keeps it, as the kernel says",
            "run one: `timedatectl set-ntp true`, or install chrony; evidence is refused at 30 s ahead",
        ),
        Err(error) => Finding::unknown(
            "clock",
            format!("the kernel does not say whether it is kept: {error}"),
        ),
    }
}

/// The ranges of the mesh, and the interfaces that have them rightly.
fn ranges(local: &Local, status: Option<&Status>) -> (Vec<Prefix>, Vec<String>) {
    match status {
        Some(Status::Controller(status)) => {
            let texts = status.segments.values().flat_map(|it| [&it.v4, &it.v6]);
            (texts.filter_map(|it| parse(it)).collect(), Vec::new())
        }
        Some(Status::Node(status)) => {
            let own = status.segments.values().map(|it| &it.interface);
            let interfaces = own.chain(&status.interface).map(|it| it.name.clone());
            let interfaces: Vec<String> = interfaces.collect();
            let addresses = machine::addresses::all().unwrap_or_default();
            let mine = addresses.into_iter().filter(|it| {
                interfaces.contains(&it.interface) && machine::addresses::is_wide(&it.ip)
            });
            (mine.map(|it| it.network).collect(), interfaces)
        }
        None => {
            let given = ["mesh_v4", "mesh_v6"]
                .into_iter()
                .filter_map(|it| local.text(it));
            let mut ranges: Vec<Prefix> = given.filter_map(parse).collect();
            let is_default = ranges.is_empty() && local.unknown().is_none();
            if is_default && local.role == Role::Controller {
                ranges.extend(parse(DEFAULT_MESH_V4));
            }
            (ranges, Vec::new())
        }
    }
}

fn parse(range: &str) -> Option<Prefix> {
    let (base, length) = range.split_once('/')?;
    Some(Prefix::around(base.parse().ok()?, length.parse().ok()?))
}

/// Whether the daemon has another network than whoever asks: a namespace, as of a container.
fn is_elsewhere(local: &Local) -> bool {
    let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let theirs = local.pid.and_then(|pid| of(&pid.to_string()));
    theirs.is_some_and(|theirs| of("self").is_some_and(|own| own != theirs))
}

fn collisions(local: &Local, status: Option<&Status>) -> Vec<Finding> {
    if is_elsewhere(local) {
        let seen = "the daemon runs in another network namespace than this meshctl, which does not see its addresses and routes";
        let way_out = "run it there: in the container, or by `ip netns exec`".to_owned();
        return vec![Finding::new(
            "addresses",
            State::Unknown,
            seen,
            Some(way_out),
        )];
    }
    let (ranges, mine) = ranges(local, status);
    if ranges.is_empty() {
        return vec![Finding::unknown(
            "addresses",
            "the mesh's ranges are not known here",
        )];
    }
    let (tables, addresses) = (
        Tables::read(),
        machine::addresses::all().unwrap_or_default(),
    );
    let mut found = Vec::new();
    for range in &ranges {
        // A node on a controller's machine has the range by right.
        let is_mine = |interface: &str, network: &Prefix| {
            mine.iter().any(|it| it == interface) || (network == range && is_tun(interface))
        };
        let others = addresses.iter().filter(|it| range.contains(it.ip));
        for it in others.filter(|it| !is_mine(&it.interface, &it.network)) {
            found.push(Finding::wrong(
                "addresses",
                format!("{} of {} lies in the mesh's range {range}", it.ip, it.interface),
                "give that interface another address, or the mesh another range (`mesh_v4`, `mesh_v6`), before nodes enrol",
            ));
        }
        let routes = tables.networks().filter(|it| it.to.overlaps(range));
        for it in
            routes.filter(|it| it.to.length() >= range.length() && !is_mine(it.interface, &it.to))
        {
            found.push(Finding::wrong(
                "addresses",
                format!(
                    "a route to {} by {} takes packets of the mesh's range {range}",
                    it.to, it.interface
                ),
                format!(
                    "remove it (`ip route del {} dev {}`), or give the mesh another range",
                    it.to, it.interface
                ),
            ));
        }
    }
    if found.is_empty() {
        let shown: Vec<String> = ranges.iter().map(ToString::to_string).collect();
        found.push(Finding::ok(
            "addresses",
            format!(
                "no other address or route of this machine in {}",
                shown.join(", ")
            ),
        ));
    }
    found
}

fn is_tun(interface: &str) -> bool {
    Path::new("/sys/class/net")
        .join(interface)
        .join("tun_flags")
        .exists()
}

/// The rights of the thread that keeps the interface, or of this user where no daemon runs.
fn daemon_rights(local: &Local) -> Finding {
    let Some(pid) = local.pid else {
        let lacks = !rights::has(Right::NetAdmin);
        let seen = format!(
            "user {}, who asks, has {}CAP_NET_ADMIN; no daemon runs to be looked at",
            rights::user(),
            if lacks { "not " } else { "" }
        );
        return Finding::unknown("rights", seen);
    };
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let threads = tasks.into_iter().flatten().flatten();
    let keeper = threads.filter_map(|it| {
        let name = std::fs::read_to_string(it.path().join("comm")).ok()?;
        (name.trim() == KEEPER).then(|| std::fs::read_to_string(it.path().join("status")).ok())?
    });
    let Some(status) = keeper.into_iter().next() else {
        let seen =
            "the thread that keeps the interface is not there yet, or not shown to this user";
        return Finding::unknown("rights", seen);
    };
    let effective = status.lines().find_map(|it| it.strip_prefix("CapEff:"));
    let Some(effective) = effective.and_then(|it| u64::from_str_radix(it.trim(), 16).ok()) else {
        return Finding::unknown(
            "rights",
            "the kernel does not show the daemon's capabilities",
        );
    };
    let missing: Vec<&str> = [(NET_ADMIN, Right::NetAdmin), (NET_RAW, Right::NetRaw)]
        .into_iter()
        .filter(|(bit, _)| effective & bit == 0)
        .map(|(_, right)| right.name())
        .collect();
    if missing.is_empty() {
        return Finding::ok(
            "rights",
            "the daemon keeps CAP_NET_ADMIN and CAP_NET_RAW where it needs them",
        );
    }
    let missing = missing.join(" and ");
    Finding::wrong(
        "rights",
        format!("the daemon runs without {missing}"),
        format!("grant {missing} to its unit (AmbientCapabilities=), and restart it"),
    )
}

fn tun() -> Finding {
    match rights::tun() {
        Ok(()) => Finding::ok("tun", format!("{} is there", rights::TUN)),
        Err(error) if error.kind() == ErrorKind::NotFound => Finding::wrong(
            "tun",
            format!("there is no {}", rights::TUN),
            "load the driver: `modprobe tun`; a container has to be given the device",
        ),
        Err(error) => Finding::unknown(
            "tun",
            format!("this user may not open {}: {error}", rights::TUN),
        ),
    }
}

fn nft() -> Finding {
    match programs::find_for_root("nft") {
        Some(path) => Finding::ok("nft", format!("{} is there", path.display())),
        None => Finding::warning(
            "nft",
            "there is no program `nft`: mesh addresses may answer to others than members",
            "install nftables; the node then makes its table within 10 s",
        ),
    }
}

fn ipv6(status: Option<&Status>) -> Finding {
    let read = |path: &str| std::fs::read_to_string(path);
    let is_off = match read("/proc/sys/net/ipv6/conf/all/disable_ipv6") {
        Ok(value) => value.trim() == "1",
        Err(_) => true,
    };
    let (has_v4, has_v6) = Tables::read().has_default();
    let way = match (has_v4, has_v6) {
        (true, true) => "IPv4 and IPv6 lead out of this network",
        (true, false) => "only IPv4 leads out of this network",
        (false, true) => "only IPv6 leads out of this network",
        (false, false) => "no default route leads out of this network",
    };
    let is_node = matches!(status, Some(Status::Node(_)) | None);
    if is_off && is_node {
        return Finding::warning(
            "ipv6",
            format!("IPv6 is off here, so that the mesh has IPv4 alone; {way}"),
            "`sysctl -w net.ipv6.conf.all.disable_ipv6=0`, if it is wanted: the node takes its address then",
        );
    }
    let on = if is_off { "off" } else { "on" };
    Finding::ok("ipv6", format!("IPv6 is {on}; {way}"))
}

/// The names by which a controller is to be found.
fn resolved(local: &Local, status: Option<&Status>) -> Vec<Finding> {
    let (mut places, setting) = match local.role {
        Role::Controller => (local.list("advertise"), "advertise"),
        Role::Node => (local.list("controller"), "controller"),
    };
    if let Some(Status::Node(status)) = status {
        places.extend(status.controller.as_deref());
    }
    let mut found = Vec::new();
    let mut asked = Vec::new();
    for place in places {
        let Ok(place) = place.parse::<HostPort>() else {
            continue;
        };
        let Host::Name(name) = &place.host else {
            continue;
        };
        if asked.contains(name) {
            continue;
        }
        asked.push(name.clone());
        found.push(match names::resolve(name, place.port) {
            Ok(all) => {
                let all: Vec<String> = all.iter().map(|it| it.ip()).map(|it: IpAddr| it.to_string()).collect();
                Finding::ok("dns", format!("the controller's name {name} is {}", all.join(", ")))
            }
            Err(error) => Finding::wrong(
                "dns",
                format!("the controller's name {name} is not resolved: {error}"),
                format!("mend the name server (`resolvectl query {name}`), or give an address in `{setting}`"),
            ),
        });
    }
    if let Some(why) = local.unknown() {
        let seen = format!("{why}: they may name the controller");
        found.push(Finding::new(
            "dns",
            State::Unknown,
            seen,
            Some(ASK_AS_ROOT.to_owned()),
        ));
    } else if found.is_empty() {
        found.push(Finding::ok(
            "dns",
            "no name is needed: the controller is found by address",
        ));
    }
    found
}

fn room(local: &Local) -> Finding {
    let place = match local.state_dir() {
        Ok(place) => place,
        Err(why) => {
            let seen = format!("the state directory is not known: {why}");
            return Finding::new("disk", State::Unknown, seen, Some(ASK_AS_ROOT.to_owned()));
        }
    };
    let shown = place.shown.display();
    let room = match disk::room(&place.read) {
        Ok(room) => room,
        Err(error) => return Finding::unknown("disk", format!("{shown}: {error}")),
    };
    let seen = format!(
        "{shown}: {} of {} free",
        units::bytes(room.free),
        units::bytes(room.total)
    );
    if room.is_read_only {
        let way_out = "mount the file system for writing, or move `state_dir`";
        return Finding::wrong("disk", format!("{seen}, read-only"), way_out);
    }
    match room.free {
        free if free < NO_ROOM => Finding::wrong(
            "disk",
            seen,
            "make room: the daemon cannot keep what it decides or is told",
        ),
        free if free < LITTLE_ROOM => Finding::warning("disk", seen, "make room before it is full"),
        _ => Finding::ok("disk", seen),
    }
}

/// The way to settings that are not shown.
const ASK_AS_ROOT: &str = "ask as root or as the daemon's user, while the daemon runs";
/// The thread of a node that keeps its interface.
const KEEPER: &str = "meshd-interface";
/// Bits of `CAP_NET_ADMIN` and `CAP_NET_RAW` in a set (linux/capability.h).
const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
/// In bytes.
const NO_ROOM: u64 = 1 << 20;
const LITTLE_ROOM: u64 = 64 << 20;
/// The default of `mesh_v4`.
const DEFAULT_MESH_V4: &str = "10.76.0.0/15";
