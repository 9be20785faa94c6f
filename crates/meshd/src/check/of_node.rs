//! A node: its enrolment, its interface and rights, its benchmark, and the ways to its controller.

use super::Findings;
use super::places::{self, Place};
use crate::founding;
use crate::settings::Settings;
use controller::clock::Now;
use machine::rights::{self, Right};
use machine::routes::Tables;
use machine::{names, programs};
use node::examine::Segment;
use node::{
    Config, Emitter, FirewallMode, InterfaceError, Mtu, Node, OpenError, Standing, TunError,
};
use std::fs::{Metadata, OpenOptions};
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::path::Path;
use wire::HostPort;
use wire::host_port::Host;

pub(super) fn look(place: &Place, config: &Config, settings: &Settings, found: &mut Findings) {
    let segments = enrolment(place, config, found);
    // Let go at once.
    if let Err(error) = Node::bind(config.listen_port) {
        place.cannot_bind("listen_port", &error, found);
    }
    places::metrics(config.metrics_listen, place, found);
    told(place, config, found);
    advertised(config, found);
    controllers(config, found);
    interface(place, config, found);
    beside(place, &segments, found);
    benchmark(config, settings, found);
}

/// Those who are told of the mesh on this machine, without whom a node runs: resolvers, and `wg`.
fn told(place: &Place, config: &Config, found: &mut Findings) {
    let without = "the node would run without";
    if let Some(at) = config.names.listen
        && let Err(error) = UdpSocket::bind(at)
        && !(error.kind() == ErrorKind::AddrInUse && place.is_running)
    {
        let why = format!(
            "no DNS server at {at}: {error}; {without}: choose another address, or \"off\""
        );
        found.warning("dns_listen", why);
    }
    if let Some(file) = &config.names.hosts_file
        && let Err(why) = can_be_written(file)
    {
        let why = format!("cannot write {}: {why}; {without}", file.display());
        found.warning("hosts_file", why);
    }
    if config.names.suffix.is_all_of_a_public_one() {
        let why = format!(
            "{} is a whole top-level domain: this machine would ask the mesh for every name in it; choose a domain that \
             is yours, or mesh.internal",
            config.names.suffix
        );
        found.warning("dns_suffix", why);
    }
    if let Some(folder) = &config.wireguard_dir
        && folder.exists()
        && !folder.is_dir()
    {
        let why = format!(
            "{} is no folder: {without} sockets for `wg show`; choose another, or \"off\"",
            folder.display()
        );
        found.warning("wireguard_dir", why);
    }
    let missing = config.wireguard_dir.as_deref().filter(|it| !it.exists());
    if let Some(folder) = missing
        && !rustix::process::geteuid().is_root()
    {
        let why = format!(
            "{} is not there: `wg show` would not see the node; make it for the daemon's user (RuntimeDirectory=), or \
             set \"off\"",
            folder.display()
        );
        found.warning("wireguard_dir", why);
    }
}

/// Whether a file is there that a block of names can go into.
fn can_be_written(file: &Path) -> Result<(), String> {
    // Opening a FIFO would wait for a reader.
    match file.metadata() {
        Ok(meta) if !meta.is_file() => return Err("it is no regular file".to_owned()),
        Ok(_) => {}
        Err(error) => return Err(error.to_string()),
    }
    let opened = OpenOptions::new().write(true).open(file);
    opened.map(drop).map_err(|error| {
        format!(
            "{error}: let the daemon's user write it, under the shipped unit with ReadWritePaths= too"
        )
    })
}

/// The segments that the node is enrolled in, as far as a start would open them.
fn enrolment(place: &Place, config: &Config, found: &mut Findings) -> Vec<Segment> {
    let (mut standing, mut segments) = (Standing::New, Vec::new());
    if place.has_state {
        match founding::look_at_node(&place.state_dir) {
            Err(fault) => found.error("state_dir", fault),
            Ok(None) => {}
            Ok(Some((identity, wireguard))) => {
                let keys = founding::look_at_wireguard(&place.state_dir);
                let own = (identity.public(), wireguard.public());
                match node::examine(config, own, &keys) {
                    Ok(examined) => {
                        (standing, segments) = (examined.standing, examined.segments);
                    }
                    Err(error) => {
                        found.error("state_dir", error);
                        return segments;
                    }
                }
            }
        }
    }
    match (standing, &config.join) {
        (Standing::Enrolled, _) => {}
        (_, Some(token)) => {
            let now = Now::read().wall.as_second();
            if i64::try_from(token.expires_unix).unwrap_or(i64::MAX) < now {
                found.error("join", OpenError::TokenExpired);
            }
        }
        (Standing::Lost, None) => found.error("join", OpenError::EnrolmentLost),
        // The token may come with the first start.
        (Standing::New, None) => {
            // A fault of the setting itself was noted already.
            if !found.errors.iter().any(|it| it.starts_with("`join`")) {
                found.warning("join", format!("not set: {}", OpenError::NotEnrolled));
            }
        }
    }
    segments
}

/// Others on this machine who have a part of a mesh that the node is in.
fn beside(place: &Place, segments: &[Segment], found: &mut Findings) {
    // The first is that of the settings, which is looked at there.
    for it in segments.iter().skip(1) {
        if !place.is_running && is_link(&it.interface) {
            found.error("interface", TunError::Taken(it.interface.clone()));
        }
    }
    let is_own = |name: &str| place.is_running && segments.iter().any(|it| it.interface == name);
    let (tables, addresses) = (
        Tables::read(),
        machine::addresses::all().unwrap_or_default(),
    );
    for range in segments.iter().flat_map(|it| it.ranges) {
        let mut others = addresses.iter().filter(|it| !is_own(&it.interface));
        if let Some(other) = others.find(|it| range.contains(it.ip)) {
            let address = other.ip;
            let error = InterfaceError::Collision { range, address };
            found.error("interface", format!("{error} ({})", other.interface));
        }
        let routes = tables.networks().filter(|it| it.to.overlaps(&range));
        // A wider one gives way to the mesh's.
        let narrow = routes.filter(|it| it.to.length() >= range.length());
        for it in narrow.filter(|it| !is_own(it.interface)) {
            let why = format!(
                "a route to {} by {} takes packets of the mesh's range {range}: remove it (`ip route del {} dev {}`), or \
                 give the mesh another range",
                it.to, it.interface, it.to, it.interface
            );
            found.warning("interface", why);
        }
    }
}

fn is_link(name: &str) -> bool {
    let links = Path::new("/sys/class/net");
    links.join(name).symlink_metadata().is_ok()
}

fn advertised(config: &Config, found: &mut Findings) {
    for at in &config.advertise {
        if at.ip().is_loopback() {
            found.warning(
                "advertise",
                format!(
                    "{at} leads every peer to itself: give an address of this machine's network"
                ),
            );
        }
    }
    if config.listen_port == 0 && !config.advertise.is_empty() {
        let why =
            "0 takes another port at each start, and `advertise` names fixed ones: give the port";
        found.warning("listen_port", why);
    }
    let forwards = |path| std::fs::read_to_string(path).is_ok_and(|it| it.trim() == "1");
    for (is_v4, file, name) in [
        (true, "/proc/sys/net/ipv4/ip_forward", "net.ipv4.ip_forward"),
        (
            false,
            "/proc/sys/net/ipv6/conf/all/forwarding",
            "net.ipv6.conf.all.forwarding",
        ),
    ] {
        let mut routes = config.advertise_routes.iter();
        if let Some(route) = routes.find(|it| it.address().is_ipv4() == is_v4)
            && !forwards(file)
        {
            let why = format!(
                "{route}: this machine does not forward, so that nobody reaches it: `sysctl -w {name}=1`"
            );
            found.warning("advertise_routes", why);
        }
    }
}

/// Names of controllers that no name server knows: it may later.
fn controllers(config: &Config, found: &mut Findings) {
    let of_token = config
        .join
        .iter()
        .flat_map(|token| token.controllers.iter());
    let of_token: Vec<HostPort> = of_token.filter_map(|it| it.parse().ok()).collect();
    let (setting, all) = if config.controllers.is_empty() {
        ("join", &of_token)
    } else {
        ("controller", &config.controllers)
    };
    for at in all {
        if let Host::Name(name) = &at.host
            && let Err(error) = names::resolve(name, at.port)
        {
            let why = format!(
                "the controller's name `{name}` is not resolved now: {error}; correct it, or give an address"
            );
            found.warning(setting, why);
        }
    }
}

fn interface(place: &Place, config: &Config, found: &mut Findings) {
    let name = &config.interface;
    if !place.is_running && is_link(name) {
        found.error("interface", TunError::Taken(name.clone()));
    }
    match rights::tun() {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            found.errors.push(TunError::NoDriver.to_string());
        }
        Err(error) => found.errors.push(format!(
            "{} cannot be opened as user {}: {error}; give the daemon the device",
            rights::TUN,
            rights::user()
        )),
    }
    let lacks = |right: Right| !rights::has(right);
    if lacks(Right::NetAdmin) {
        found.errors.push(format!(
            "user {}, who runs this check, lacks CAP_NET_ADMIN, without which there is no interface: run it as root if a \
             unit gives the daemon its rights, or grant that right",
            rights::user()
        ));
    }
    if config.probe_every.is_some() && lacks(Right::NetRaw) {
        let why = "peers are not probed without CAP_NET_RAW: grant it, or set 0";
        found.warning("probe_seconds", why);
    }
    if config.data_threads > 1 && lacks(Right::Bpf) {
        let why = format!(
            "{} take CAP_BPF, without which one works: grant it, or set 1",
            config.data_threads
        );
        found.warning("data_threads", why);
    }
    if config.firewall != FirewallMode::Off && programs::find_for_root("nft").is_none() {
        let why = "there is no program `nft`, so that mesh addresses would answer to others than members: install nftables";
        found.warning("firewall", why);
    }
    if let (Mtu::Fixed(mtu), Some(widest)) = (config.mtu, widest_link())
        && u64::from(mtu) + OVERHEAD > widest
    {
        let why = format!(
            "{mtu} and {OVERHEAD} bytes of WireGuard are more than any link here carries ({widest}): set at most {}, or auto",
            widest.saturating_sub(OVERHEAD)
        );
        found.warning("mtu", why);
    }
}

/// The largest MTU of a link that leads out of this machine.
fn widest_link() -> Option<u64> {
    let links = std::fs::read_dir("/sys/class/net").ok()?.flatten();
    let others = links.filter(|link| link.file_name() != "lo");
    let mtus = others.filter_map(|link| {
        let text = std::fs::read_to_string(link.path().join("mtu")).ok()?;
        text.trim().parse().ok()
    });
    mtus.max()
}

fn benchmark(config: &Config, settings: &Settings, found: &mut Findings) {
    if let Some(user) = config.emitter.other_user()
        && let Err(error) = user.check(&config.state_dir)
    {
        found.error("benchmark_user", error);
    }
    match &config.emitter {
        Emitter::None => {
            // A fault of the setting itself was noted already.
            if !found.errors.iter().any(|it| it.contains("emitter")) {
                let why = "none: this node sends no evidence, and is a member only where an evaluator vouches for it: choose \
                           command, file or directory, or mock to try the mesh";
                found.warning("emitter", why);
            }
        }
        Emitter::Mock { .. } => {
            let why = "mock draws scores and proves nothing: put a benchmark in its place before you trust a membership";
            found.warning("emitter", why);
        }
        Emitter::Command { argv, user, .. } => {
            let program = argv.first().map_or("", String::as_str);
            let path = Path::new(program);
            let is_there = match user {
                // Another user's rights are seen at the first run.
                Some(_) if program.contains('/') => path.is_file(),
                _ => programs::find(program).is_some(),
            };
            if !is_there {
                let why = match path.symlink_metadata() {
                    Ok(_) if path.is_dir() => "is a folder: name the program",
                    Ok(_) => "may not be run by this user: `chmod +x` makes it a program",
                    Err(_) if program.contains('/') => {
                        "does not exist: install it, or correct the path"
                    }
                    Err(_) => "is in no folder of PATH: install it, or give its whole path",
                };
                found.error("benchmark_command", format!("`{program}` {why}"));
            }
        }
        Emitter::File { path, .. } => {
            let way_out = "is no regular file, and would not be read: name a file";
            read_from("benchmark_file", path, (Metadata::is_file, way_out), found);
        }
        Emitter::Directory { path, .. } => {
            let way_out = "is no folder: name the folder, or use the file emitter";
            read_from(
                "benchmark_directory",
                path,
                (Metadata::is_dir, way_out),
                found,
            );
        }
    }
    idle(&config.emitter, settings, found);
}

/// A path that results are read from: whether it is of the kind that it should be, and the words for it if not.
fn read_from(
    setting: &str,
    path: &Path,
    (is_right, way_out): (fn(&Metadata) -> bool, &str),
    found: &mut Findings,
) {
    let shown = path.display();
    match path.metadata() {
        Ok(meta) if is_right(&meta) => {}
        Ok(_) => found.error(setting, format!("{shown} {way_out}")),
        Err(error) => {
            let why = format!("{shown}: {error}; this node sends no evidence before it is there");
            found.warning(setting, why);
        }
    }
}

/// Settings of an emitter that is not the one in use.
fn idle(emitter: &Emitter, settings: &Settings, found: &mut Findings) {
    let (name, reads) = match emitter {
        Emitter::None => ("none", false),
        Emitter::Mock { .. } => ("mock", false),
        Emitter::Command { .. } => ("command", true),
        Emitter::File { .. } => ("file", true),
        Emitter::Directory { .. } => ("directory", true),
    };
    let is = |it: &str| name == it;
    for (setting, is_given, is_used) in [
        ("mock_mean", settings.mock_mean.is_some(), is("mock")),
        ("mock_jitter", settings.mock_jitter.is_some(), is("mock")),
        (
            "emit_seconds",
            settings.emit_seconds.is_some(),
            is("mock") || is("command"),
        ),
        (
            "benchmark_command",
            settings.benchmark_command.is_some(),
            is("command"),
        ),
        (
            "benchmark_timeout_seconds",
            settings.benchmark_timeout_seconds.is_some(),
            is("command"),
        ),
        (
            "benchmark_user",
            settings.benchmark_user.is_some(),
            is("command"),
        ),
        (
            "benchmark_file",
            settings.benchmark_file.is_some(),
            is("file"),
        ),
        (
            "benchmark_directory",
            settings.benchmark_directory.is_some(),
            is("directory"),
        ),
        (
            "benchmark_format",
            settings.benchmark_format.is_some(),
            reads,
        ),
        ("benchmark_suite", settings.benchmark_suite.is_some(), reads),
        (
            "benchmark_suite_version",
            settings.benchmark_suite_version.is_some(),
            reads,
        ),
        ("benchmark_only", settings.benchmark_only.is_some(), reads),
    ] {
        if is_given && !is_used {
            let why = format!(
                "has no effect, because `emitter` is \"{name}\": remove it, or choose the emitter that it is for"
            );
            found.warning(setting, why);
        }
    }
}

/// Bytes that WireGuard adds over IPv4.
const OVERHEAD: u64 = 60;
