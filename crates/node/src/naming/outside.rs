//! The thread that tells others on this machine of the names: systemd-resolved and a hosts file. It waits for disks and
//! programs, and nobody waits for it but, a little, the stop.

use super::hosts_file;
use super::resolved::Resolver;
use super::{NamesConfig, Told};
use crate::io::interface::index_of;
use crate::io::rights::{self, Keep};
use names::Zone;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use wire::admin::ResolverState;

/// The running thread. It ends when those who tell it of names are gone.
pub(crate) struct Outside {
    state: watch::Receiver<State>,
    ended: oneshot::Receiver<()>,
}

/// How the others stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) resolver: ResolverState,
    pub(crate) resolver_fault: Option<String>,
    pub(crate) hosts_fault: Option<String>,
}

impl Outside {
    /// Starts the thread, if there is anybody to tell. `listen`: where the DNS server is.
    pub(crate) fn start(
        config: &NamesConfig,
        listen: Option<SocketAddr>,
        tag: &str,
        mut told: watch::Receiver<Told>,
    ) -> std::io::Result<Option<Self>> {
        let resolver = listen.filter(|_| config.resolved).map(Resolver::new);
        let file = config.hosts_file.clone().map(|path| HostsFile {
            path,
            tag: tag.to_owned(),
        });
        if resolver.is_none() && file.is_none() {
            return Ok(None);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (out, state) = watch::channel(State::default());
        let (ending, ended) = oneshot::channel();
        let run = move || {
            rights::reduce(Keep::FILES);
            runtime.block_on(async {
                let mut worker = Worker {
                    resolver,
                    file,
                    out,
                    resolver_knows: None,
                    looks: 0,
                };
                loop {
                    let now = told.borrow_and_update().clone();
                    worker.tell(&now).await;
                    tokio::select! {
                        changed = told.changed() => if changed.is_err() { break },
                        () = tokio::time::sleep(LOOK_EVERY) => {}
                    }
                }
                worker.withdraw();
            });
            // Nobody waits any more where the stop was over first.
            let _ = ending.send(());
        };
        let thread = std::thread::Builder::new().name("meshd-names".into());
        drop(thread.spawn(run)?);
        Ok(Some(Self { state, ended }))
    }

    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Waits for the end of the thread.
    pub(crate) async fn stop(self, time: Duration) {
        if timeout(time, self.ended).await.is_err() {
            tracing::warn!("names may be left in the hosts file: its disk does not answer");
        }
    }
}

struct HostsFile {
    path: PathBuf,
    tag: String,
}

struct Worker {
    resolver: Option<Resolver>,
    file: Option<HostsFile>,
    out: watch::Sender<State>,
    /// The news that systemd-resolved has; the setting goes with its interface.
    resolver_knows: Option<News>,
    looks: u32,
}

/// The words for systemd-resolved.
#[derive(PartialEq, Eq)]
struct News {
    interface: String,
    /// Its number: an interface that was made anew has another.
    index: u32,
    domains: Vec<String>,
}

impl Worker {
    async fn tell(&mut self, told: &Told) {
        let mut state = self.out.borrow().clone();
        if let Some(file) = &self.file {
            state.hosts_fault = file.write(&lines(&told.zone)).err();
        }
        self.looks = self.looks.wrapping_add(1);
        // Without an interface there is no link to tell it of.
        let news = told.interface.as_ref().and_then(|interface| {
            Some(News {
                interface: interface.clone(),
                index: index_of(interface).ok()?,
                domains: domains(&told.zone),
            })
        });
        if let (Some(resolver), Some(news)) = (&self.resolver, news) {
            let is_news = self.resolver_knows.as_ref() != Some(&news);
            if !is_news && !self.looks.is_multiple_of(ASK_AT) {
                return self.publish(state);
            }
            let tell = resolver.tell(&news.interface, &news.domains, is_news);
            let (is_told, fault) = match tell.await {
                Ok(ResolverState::Told) => (ResolverState::Told, None),
                Ok(state) => (state, None),
                Err(fault) => (ResolverState::Failed, Some(fault)),
            };
            self.resolver_knows = (is_told == ResolverState::Told).then_some(news);
            (state.resolver, state.resolver_fault) = (is_told, fault);
        }
        self.publish(state);
    }

    fn withdraw(&self) {
        if let Some(Err(fault)) = self.file.as_ref().map(|file| file.write("")) {
            tracing::warn!(%fault, "names are left in the hosts file");
        }
    }

    /// A fault is said when it comes, and when it has gone.
    fn publish(&self, state: State) {
        let before = self.out.send_replace(state.clone());
        let pairs = [
            (before.hosts_fault, state.hosts_fault),
            (before.resolver_fault, state.resolver_fault),
        ];
        for (before, now) in pairs {
            match (before, now) {
                (None, Some(fault)) => {
                    tracing::warn!(%fault, "names of the mesh do not reach this machine's resolver");
                }
                (Some(_), None) => {
                    tracing::info!("names of the mesh reach this machine's resolver again")
                }
                (None, None) | (Some(_), Some(_)) => {}
            }
        }
    }
}

impl HostsFile {
    fn write(&self, lines: &str) -> Result<(), String> {
        hosts_file::write(&self.path, &self.tag, lines)
            .map_err(|error| format!("hosts_file {}: {error}", self.path.display()))
    }
}

/// The lines of a hosts file.
fn lines(zone: &Zone) -> String {
    let mut text = String::new();
    for line in zone.lines() {
        // A `String` takes all that is written to it.
        let _ = writeln!(text, "{}\t{}", line.address, line.names.join(" "));
    }
    text
}

/// The domains for which the server is asked: the suffix, which completes single labels too, and the reverse zones.
fn domains(zone: &Zone) -> Vec<String> {
    let reverse = zone.reverse_zones().into_iter();
    let reverse = reverse.map(|zone| format!("~{zone}"));
    std::iter::once(zone.suffix().to_string())
        .chain(reverse)
        .collect()
}

/// Others change the file, or make the interface anew.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Every so many looks systemd-resolved is asked whether it still knows: once a minute.
const ASK_AT: u32 = 12;
