//! The start of a node that is enrolled: data threads, then the tasks around the agent, then the shell
//! that runs it. Opens what is left to open, and then gives the rights up that this took.

use crate::announcement::Announcement;
use crate::data::{DataCommand, DataPlane};
use crate::emitter;
use crate::heard::Heard;
use crate::io;
use crate::io::firewall::Beside;
use crate::io::offload::Offloads;
use crate::io::rights::{self, Keep};
use crate::io::udp::PathErrors;
use crate::keepalive::Watch;
use crate::networks::Terms;
use crate::opening::{self, Made, Means, Opened, Opening};
use crate::persist::{Enrolment, Keeper};
use crate::segment::{Common, Segment};
use crate::session::{self, Introduction, Session, Shown};
use crate::shell::{Inputs, Shell};
use crate::{Node, ServeError, admin, interfaces};
use agent::{Agent, SegmentConfig};
use keys::WgSecret;
use quic::Dialer;
use rand::Rng as _;
use service::Service;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use wire::{Ask, Instance, Place};

/// Everything that runs from here on; nothing waits yet.
pub(crate) async fn start(
    node: Node,
    enrolment: Enrolment,
    (requests_out, requests): (mpsc::Sender<admin::Request>, mpsc::Receiver<admin::Request>),
    service: Service,
) -> Result<(Shell, Inputs), ServeError> {
    let listen_port = node.listen_port();
    let Node {
        config,
        identity,
        wg,
        further,
        keys,
        unix,
        state,
        memory,
        sockets,
        made,
        workshop,
        naming,
        ..
    } = node;
    let (data, path_errors) = carry(sockets, Arc::clone(&workshop.offloads))?;
    let (news_out, news) = mpsc::channel(QUEUE);
    let means = Means {
        data: data.opener(),
        mtu: config.mtu,
        firewall: config.firewall,
        listen_port,
        probes: config.probe_every.is_some(),
        unix,
        wireguard_dir: config.wireguard_dir,
        news: news_out,
    };
    let mut made = made;
    // A node that has just enrolled has made the first interface alone.
    let names = interfaces(&config.interface, &enrolment.segments);
    if !made
        .iter()
        .zip(&names)
        .all(|(made, name)| made.name == *name)
    {
        // It has no place in the segment that it asked for first, whose interface this would be.
        made.clear();
    }
    for name in names.iter().skip(made.len()) {
        made.push(workshop.make(name).map_err(ServeError::Tun)?);
    }
    let segment = |it| {
        let place: Place = enrolment.place(it);
        let key = if it.by_name {
            further.get(&it.name)
        } else {
            Some(&wg)
        };
        let key = key.ok_or_else(|| ServeError::Data(std::io::Error::other("a key is missing")));
        Ok::<_, ServeError>((place, key?.duplicate()))
    };
    let places: Result<Vec<_>, _> = enrolment.segments.iter().map(segment).collect();
    let opened = open_all(&means, made, places?).await?;

    let keepalive = Watch::new(config.keepalive);
    let log = memory.log(enrolment.mesh);
    let (announced, shown) = watch::channel(Shown {
        newest: memory.marks(enrolment.mesh),
        log,
        inside: agent::inside_all(opened.iter().map(|it| &it.place)),
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
    };
    let addresses = match config.controllers {
        none if none.is_empty() => enrolment.controllers.clone(),
        some => some.iter().map(ToString::to_string).collect(),
    };
    let controllers = session::literal(&addresses);
    let session = converse(dialer, addresses, introduction);

    let emitting = emitter::start(config.emitter, config.emit_every).map_err(ServeError::Data)?;
    let (underlay_out, links) = mpsc::channel(1);
    tokio::spawn(io::mtu::watch(underlay_out));

    let (rounds_out, rounds) = mpsc::channel(QUEUE);
    let common = Common {
        mtu: config.mtu,
        listen_port,
        path_errors,
        probe_every: config.probe_every,
        rounds: rounds_out,
        requests: requests_out,
        terms: Terms {
            offers: config.advertise_routes,
            accepts: config.accept_routes,
        },
    };
    let seen = state.seen_runs()?;
    let of_segment = |opened: &Opened| {
        let (mesh, segment) = (enrolment.mesh, opened.place.segment);
        SegmentConfig {
            place: opened.place.clone(),
            wg: opened.wg.duplicate(),
            high_water: memory.high_water(mesh, segment),
            mark: memory.of(mesh, segment).and_then(|it| it.mark.clone()),
        }
    };
    let agent = Agent::new(agent::Config {
        identity,
        name: enrolment.name.clone(),
        mesh: enrolment.mesh,
        authorities: enrolment.authorities.clone(),
        segments: opened.iter().map(of_segment).collect(),
        asks: config
            .segments
            .iter()
            .filter_map(|name| {
                Some(Ask {
                    name: Some(name.clone()),
                    wg: further.get(name)?.public(),
                })
            })
            .collect(),
        log,
        seen,
        derive_at_once: epoch::DERIVE_AT_ONCE,
    });
    let keeper = Keeper::start(state, memory.clone(), enrolment.mesh).map_err(ServeError::Data)?;
    let unwritten = keeper.fault();
    let naming = naming.start(&config.interface).map_err(ServeError::Data)?;
    let opener = Opening::start(means, workshop, keys).map_err(ServeError::Data)?;
    // Every socket is open: what is left to do with interfaces is for threads of their own.
    rights::reduce(Keep::FILES);
    let run = |opened: Opened| (opened.place.segment, Segment::run(opened, &data, &common));
    let segments: BTreeMap<_, _> = opened.into_iter().map(run).collect();
    data.send(DataCommand::Keepalive(keepalive.every()));
    let mut shell = Shell {
        agent,
        enrolment,
        memory,
        keeper,
        segments,
        common,
        opening: opener.0,
        being_opened: 0,
        keys: further,
        interface: config.interface,
        data,
        emitter: emitting.running,
        benchmark: emitting.health,
        outbox: None,
        heard: Heard::default(),
        underlay_changed: false,
        networks_changed: false,
        offered: BTreeSet::new(),
        unwritten,
        said: Vec::new(),
        controllers,
        keepalive,
        announcement: Announcement::new(config.advertise),
        mock_mean: emitting.mock_mean,
        announced,
        naming,
        derivations: JoinSet::new(),
        service,
        told_at: Duration::ZERO,
    };
    shell.keep_apart();
    shell.follow_names();
    let inputs = Inputs {
        session,
        emissions: emitting.emissions,
        rounds,
        requests,
        underlay: links,
        guard: news,
        opened: opener.1,
    };
    Ok((shell, inputs))
}

/// Opens the segments that a node is in, one after the other, each beside those before it.
async fn open_all(
    means: &Means,
    made: Vec<Made>,
    places: Vec<(Place, WgSecret)>,
) -> Result<Vec<Opened>, ServeError> {
    let mut all: Vec<Opened> = Vec::with_capacity(made.len());
    for (made, place) in made.into_iter().zip(places) {
        let before = all.iter();
        let beside = before.map(|it| Beside::new(&it.interface, &it.place));
        let beside = beside.collect();
        all.push(opening::open(means, made, place, beside).await?);
    }
    Ok(all)
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
pub(crate) fn serve_clients(
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

/// Initiations per second from the endpoints of peers above which they must prove their address. With
/// all that is opened besides (the table in `tunnel::admission`) it is 3,750 at most, 19 µs of X25519
/// each: under a tenth of a core for whoever holds no key of a member.
const HANDSHAKES_PER_SECOND: u64 = 1_000;
/// Messages that may wait between a task and the agent.
pub(crate) const QUEUE: usize = 64;
