//! The start of a node that is enrolled: data threads, then the tasks around the agent, then the shell
//! that runs it. Opens what is left to open, and then gives the rights up that this took.

use crate::announcement::Announcement;
use crate::data::{DataCommand, DataPlane, Ruler};
use crate::emitter;
use crate::guard::{Guard, Parts};
use crate::heard::Heard;
use crate::io;
use crate::io::firewall::Firewall;
use crate::io::host_routes::HostRoutes;
use crate::io::icmp::{Echo, Sockets};
use crate::io::offload::Offloads;
use crate::io::rights::{self, Keep};
use crate::io::tun::Tun;
use crate::io::udp::PathErrors;
use crate::io::ways::Exits;
use crate::keepalive::Watch;
use crate::persist::{Enrolment, Keeper};
use crate::probe::{self, Prober};
use crate::segment::Segment;
use crate::session::{self, Introduction, Session, Shown};
use crate::shell::{Inputs, Shell};
use crate::standing::Wanted;
use crate::underlay::{Fit, Interface, Underlay};
use crate::{Config, Node, ServeError, admin};
use agent::{Agent, Round};
use keys::WgSecret;
use quic::Dialer;
use rand::Rng as _;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tunnel::TunnelId;
use wire::{Instance, Place};

/// Everything that runs from here on; nothing waits yet.
pub(crate) fn start(
    node: Node,
    enrolment: Enrolment,
    wanted: Wanted,
    firewall: &Firewall,
) -> Result<(Shell, Inputs), ServeError> {
    let listen_port = node.listen_port();
    let Node {
        config,
        identity,
        wg,
        state,
        memory,
        queues,
        offloads,
        maker,
        admin,
        metrics,
        ..
    } = node;
    let place = enrolment.place(identity.public());
    let interface = interface(&config, &queues, listen_port);
    let name = interface.name.clone();
    let (queues, sockets) = queues.into_iter().unzip();
    let (data, path_errors) = carry(sockets, offloads)?;
    let tunnel = open(&data, &wg, &place, interface.mtu, queues)?;
    let own = [place.v4.0.into(), place.v6.0.into()];
    let keepalive = Watch::new(config.keepalive);
    data.send(DataCommand::Keepalive(keepalive.every()));

    let (targets, targets_seen) = watch::channel(Vec::new());
    let exits = Arc::new(Exits::default());
    let (sockets, fresh) = mpsc::channel(1);
    let parts = Parts {
        wanted,
        maker,
        queues: data.queues(tunnel),
        firewall: firewall.follower(),
        routes: HostRoutes::none(&name, own),
        exits: Arc::clone(&exits),
        sockets,
        targets: targets_seen.clone(),
    };
    let (guard, news) = Guard::start(parts).map_err(ServeError::Data)?;
    let (watch, interface_guard) = (firewall.watch(), guard.clone());
    let underlay = Underlay::new(config.mtu, (interface, interface_guard), watch, path_errors);

    let remembered = memory.of(enrolment.mesh);
    let mark = remembered.and_then(|newest| newest.mark.clone());
    let log = remembered.and_then(|newest| newest.log);
    let (announced, shown) = watch::channel(Shown {
        newest: mark.clone(),
        log,
        ..Shown::default()
    });
    let dialer = Dialer::bind(&identity, enrolment.controller)?;
    let introduction = Introduction {
        node: identity.public(),
        mesh: enrolment.mesh,
        authorities: enrolment.authorities.clone(),
        listen_port,
        advertised: config.advertise.clone(),
        shown,
        instance: Instance::new(
            enrolment.mesh,
            &io::clock::boot_id(),
            state.lock(),
            rand_core::OsRng.r#gen(),
        ),
        inside: agent::inside(&place),
    };
    let addresses = match config.controllers {
        none if none.is_empty() => enrolment.controllers.clone(),
        some => some.iter().map(ToString::to_string).collect(),
    };
    let session = converse(dialer, addresses, introduction);

    let emitting = emitter::start(config.emitter, config.emit_every).map_err(ServeError::Data)?;
    let (requests_out, requests) = mpsc::channel(QUEUE);
    let admin = tokio::net::UnixListener::from_std(admin).map_err(ServeError::Admin)?;
    serve_clients(admin, metrics, config.clients, requests_out);

    let subjects = probe::Subjects {
        targets: targets_seen,
        exits,
        fresh,
    };
    let means = (name.as_str(), data.ruler(tunnel), place.v4.0);
    let rounds = probe(means, config.probe_every, subjects);
    let (underlay_out, links) = mpsc::channel(1);
    tokio::spawn(io::mtu::watch(underlay_out));

    let high_water = memory.high_water(enrolment.mesh);
    let seen = state.seen_runs()?;
    let keeper = Keeper::start(state, memory, enrolment.mesh).map_err(ServeError::Data)?;
    // Every socket is open: what is left to do with the interface is the guard's.
    rights::reduce(Keep::FILES);
    let agent = Agent::new(agent::Config {
        identity,
        wg: wg.duplicate(),
        place,
        authorities: enrolment.authorities.clone(),
        high_water,
        mark,
        log,
        seen,
        derive_at_once: epoch::DERIVE_AT_ONCE,
    });
    let segment = Segment {
        wg,
        tunnel,
        underlay,
        guard,
        targets,
    };
    let shell = Shell {
        agent,
        enrolment,
        keeper,
        data,
        segment,
        emitter: emitting.running,
        benchmark: emitting.health,
        outbox: None,
        heard: Heard::default(),
        underlay_changed: false,
        keepalive,
        announcement: Announcement::new(config.advertise),
        mock_mean: emitting.mock_mean,
        announced,
        derivations: JoinSet::new(),
    };
    let inputs = Inputs {
        session,
        emissions: emitting.emissions,
        rounds,
        requests,
        underlay: links,
        guard: news,
    };
    Ok((shell, inputs))
}

fn interface(
    config: &Config,
    queues: &[(Box<dyn Tun>, std::net::UdpSocket)],
    listen_port: u16,
) -> Interface {
    let fit = Fit::unknown(config.mtu);
    Interface {
        name: config.interface.clone(),
        mtu: fit.mtu,
        underlay_mtu: fit.underlay,
        fragments: fit.fragments,
        backend: queues.first().map_or("none", |(tun, _)| tun.backend()),
        listen_port,
        threads: queues.len(),
    }
}

/// Keeps the control channel; its news.
fn converse(
    dialer: Dialer,
    addresses: Vec<String>,
    introduction: Introduction,
) -> mpsc::Receiver<Session> {
    let (events, session) = mpsc::channel(QUEUE);
    tokio::spawn(session::run(dialer, addresses, introduction, events));
    session
}

/// Serves clients and scrapers until the node stops, each without the other.
fn serve_clients(
    socket: tokio::net::UnixListener,
    metrics: Option<exposition::Listener>,
    clients: usize,
    requests: mpsc::Sender<admin::Request>,
) {
    let desk = ::admin::Desk::new(requests.clone(), admin::WORDS);
    let router = ::admin::router(admin::routes(), desk.clone());
    let scraped = requests.clone();
    tokio::spawn(async move {
        tokio::select! {
            never = ::admin::serve_metrics(metrics, desk) => match never {},
            () = scraped.closed() => {}
        }
    });
    tokio::spawn(async move {
        tokio::select! {
            never = ::admin::serve(socket, router, clients) => match never {},
            () = requests.closed() => {}
        }
    });
}

/// Starts the threads that carry packets, without any tunnel yet.
fn carry(
    sockets: Vec<std::net::UdpSocket>,
    offloads: Arc<Offloads>,
) -> Result<(DataPlane, PathErrors), ServeError> {
    let path_errors = PathErrors::to(sockets.iter()).map_err(ServeError::Data)?;
    let data = DataPlane::start(HANDSHAKES_PER_SECOND, sockets, offloads);
    Ok((data.map_err(ServeError::Data)?, path_errors))
}

/// Opens the tunnel of a segment, which has no peers yet, at its device.
fn open(
    data: &DataPlane,
    wg: &WgSecret,
    place: &Place,
    mtu: u32,
    queues: Vec<Box<dyn Tun>>,
) -> Result<TunnelId, ServeError> {
    let config = tunnel::Config {
        secret: wg.duplicate(),
        mtu: mtu as usize,
        seed: rand_core::OsRng.r#gen(),
        inside: agent::inside(place),
    };
    let opened = data.open(config, queues);
    opened.map_err(|error| ServeError::Data(std::io::Error::other(error)))
}

/// Starts the probes, where there are to be any; their rounds.
fn probe(
    (interface, ruler, own): (&str, Ruler, Ipv4Addr),
    every: Option<Duration>,
    subjects: probe::Subjects,
) -> mpsc::Receiver<Round> {
    let (out, rounds) = mpsc::channel(QUEUE);
    let Some(every) = every else { return rounds };
    let open = |sockets| Echo::new(sockets, rand_core::OsRng.r#gen());
    match Sockets::open(interface).and_then(open) {
        Ok(echo) => {
            let prober = Prober { echo, ruler, own };
            drop(tokio::spawn(probe::run(prober, subjects, every, out)));
        }
        Err(error) => {
            tracing::warn!(%error, "peers are not probed: raw ICMP needs CAP_NET_RAW");
        }
    }
    rounds
}

/// Initiations per second from the endpoints of peers above which they must prove their address. With
/// all that is opened besides (the table in `tunnel::admission`) it is 3,750 at most, 19 µs of X25519
/// each: under a tenth of a core for whoever holds no key of a member.
const HANDSHAKES_PER_SECOND: u64 = 1_000;
/// Messages that may wait between a task and the agent.
const QUEUE: usize = 64;
