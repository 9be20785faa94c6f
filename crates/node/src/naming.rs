//! The names of the mesh on this machine: who resolves, by what is in force here, and those who are told of it: the
//! DNS server on a loopback address, systemd-resolved, and a hosts file. The shell hands a whole [`Zone`] over with the
//! change that cuts a peer off, and none of those can hold the shell up or end it.

mod hosts_file;
mod outside;
mod resolved;
mod server;

pub(crate) use server::Counts;

use agent::Agent;
use keys::{Epoch, SegmentId};
use names::{Host, Suffix, Zone};
use outside::Outside;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use wire::Place;
use wire::admin::{HostLine, NamesStatus, ResolverState};

/// The settings of names.
#[derive(Debug, Clone)]
pub struct NamesConfig {
    /// A loopback address for the DNS server, UDP and TCP; `None`: there is none.
    pub listen: Option<SocketAddr>,
    /// The domain that names end in.
    pub suffix: Suffix,
    /// Whether systemd-resolved is told of the server, where it runs.
    pub resolved: bool,
    /// A hosts file to keep a block of names in; `None`: none.
    pub hosts_file: Option<PathBuf>,
}

/// Names whose sockets are bound, as far as that was possible.
pub(crate) struct Bound {
    config: NamesConfig,
    sockets: Option<Result<server::Sockets, String>>,
}

impl Bound {
    /// Binds the DNS server's sockets: before the rights are given up that a low port takes. A fault is said here,
    /// once, and stands in the status.
    pub(crate) fn bind(config: NamesConfig) -> Self {
        let sockets = config.listen.map(|at| {
            let bound = server::Sockets::bind(at).map_err(|error| {
                format!(
                    "no DNS server at {at}: {error}; choose another address with dns_listen, or \"off\""
                )
            });
            if let Err(fault) = &bound {
                tracing::warn!(%fault, "names of the mesh do not resolve by DNS");
            }
            bound
        });
        Self { config, sockets }
    }

    /// Answers from now on, and keeps the hosts file. Must run inside a tokio runtime. `tag` tells this daemon's block
    /// in that file from another's.
    ///
    /// # Errors
    /// When no thread can be had.
    pub(crate) fn start(self, tag: &str) -> std::io::Result<Naming> {
        let zone = Arc::new(Zone::new(self.config.suffix.clone(), &[], Vec::new()));
        let (told, seen) = watch::channel(Told {
            zone,
            interface: None,
        });
        let counts = Arc::new(Counts::default());
        let mut fault = None;
        let mut listen = None;
        match self.sockets {
            None => {}
            Some(Err(error)) => fault = Some(error),
            Some(Ok(sockets)) => {
                listen = Some(sockets.address());
                let desk = server::Desk::new(seen.clone(), Arc::clone(&counts));
                if let Err(error) = sockets.serve(desk) {
                    fault = Some(format!("the DNS server cannot be started: {error}"));
                }
            }
        }
        let outside = Outside::start(&self.config, listen, tag, seen)?;
        Ok(Naming {
            config: self.config,
            listen,
            fault,
            told,
            basis: Vec::new(),
            counts,
            outside,
        })
    }
}

/// The zone in force, and the interface that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) zone: Arc<Zone>,
    pub(crate) interface: Option<String>,
}

/// The names, while the node runs. The server ends when this is dropped.
pub(crate) struct Naming {
    config: NamesConfig,
    listen: Option<SocketAddr>,
    fault: Option<String>,
    told: watch::Sender<Told>,
    /// The things that the zone was made of.
    basis: Vec<Basis>,
    counts: Arc<Counts>,
    outside: Option<Outside>,
}

/// Everything of one segment that its names follow from.
#[derive(PartialEq, Eq)]
struct Basis {
    segment: SegmentId,
    epoch: Option<Epoch>,
    is_member: bool,
    place: Place,
}

impl Naming {
    /// Takes over who resolves now. `home` is the segment whose nodes have short names, and `interface` its interface.
    pub(crate) fn follow(
        &mut self,
        agent: &Agent,
        home: Option<SegmentId>,
        interface: Option<&str>,
    ) {
        let basis: Vec<Basis> = agent
            .segments()
            .map(|seen| Basis {
                segment: seen.id(),
                epoch: seen.view().update.map(|update| update.epoch),
                is_member: seen.is_member() == Some(true),
                place: seen.place().clone(),
            })
            .collect();
        let is_same = self.told.borrow().interface.as_deref() == interface;
        if basis == self.basis && is_same {
            return;
        }
        self.basis = basis;
        let zone = Arc::new(zone(self.config.suffix.clone(), agent, home));
        let interface = interface.map(str::to_owned);
        let told = Told { zone, interface };
        // Most epochs change no name.
        self.told.send_if_modified(|before| {
            let is_news = *before != told;
            *before = told;
            is_news
        });
    }

    /// How names stand.
    pub(crate) fn status(&self) -> NamesStatus {
        let outside = self.outside.as_ref();
        let outside = outside.map_or_else(outside::State::default, Outside::state);
        let faults = [
            self.fault.clone(),
            outside.resolver_fault,
            outside.hosts_fault,
        ];
        NamesStatus {
            suffix: self.config.suffix.to_string(),
            names: self.told.borrow().zone.len() as u64,
            listen: self.listen,
            resolver: if self.config.resolved && self.listen.is_some() {
                outside.resolver
            } else {
                ResolverState::Off
            },
            hosts_file: self.config.hosts_file.clone(),
            faults: faults.into_iter().flatten().collect(),
        }
    }

    /// The lines of a hosts file.
    pub(crate) fn lines(&self) -> Vec<HostLine> {
        let lines = self.told.borrow().zone.lines().into_iter();
        let line = |it: names::Line| HostLine {
            address: it.address,
            names: it.names,
        };
        lines.map(line).collect()
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Takes the names out of the hosts file, if the disk lets it in this time.
    pub(crate) async fn stop(self, time: Duration) {
        drop(self.told);
        if let Some(outside) = self.outside {
            outside.stop(time).await;
        }
    }
}

/// The nodes that resolve: the members that this node has tunnels with, and itself, which does without any mesh.
fn zone(suffix: Suffix, agent: &Agent, home: Option<SegmentId>) -> Zone {
    let (mut hosts, mut ranges) = (Vec::new(), Vec::new());
    for seen in agent.segments() {
        let place = seen.place();
        let host = |name: &wire::NodeName, v4, v6| Host {
            name: name.clone(),
            segment: place
                .segment_name
                .told()
                .map(|_| place.segment_name.clone()),
            is_home: home == Some(place.segment),
            v4,
            v6,
        };
        ranges.push((IpAddr::V4(place.v4.0), place.v4.1));
        ranges.push((IpAddr::V6(place.v6.0), place.v6.1));
        hosts.push(host(&place.name, place.v4.0, place.v6.0));
        let is_member = seen.is_member() == Some(true);
        let update = seen.view().update.filter(|_| is_member);
        let roster = update.into_iter().flat_map(|update| &update.roster);
        let others = roster.filter(|it| it.node != place.node);
        // A member without a tunnel, where neither is a hub, would only be waited for.
        let reached = others.filter(|it| seen.apart(&it.node).is_none());
        hosts.extend(reached.map(|it| host(&it.name, it.v4, it.v6)));
    }
    Zone::new(suffix, &hosts, ranges)
}
