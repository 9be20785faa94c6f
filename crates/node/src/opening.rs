//! The opening of a segment: its interface, the rules that guard it, its tunnel, and the thread that keeps the
//! interface. The first ones are opened at the start, on the thread that has the rights for it; a segment that the
//! node joins later is opened by a thread that has kept them.

use crate::data::Opener;
use crate::guard::{Guard, News, Parts};
use crate::io::firewall::{Beside, Firewall, FirewallMode, Scope};
use crate::io::host_routes::HostRoutes;
use crate::io::icmp::Sockets;
use crate::io::interface::{self, InterfaceError};
use crate::io::links;
use crate::io::offload::Offloads;
use crate::io::rights::{self, Keep};
use crate::io::tun::{Backend, Maker, Tun};
use crate::io::ways::Exits;
use crate::persist::key_file;
use crate::standing::{Fault, Wanted};
use crate::uapi::Door;
use crate::underlay::{Fit, Mtu};
use crate::{KeyStore, ServeError, TunError, UnixSockets};
use agent::Target;
use keys::{SegmentId, WgSecret};
use rand::Rng as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tunnel::TunnelId;
use wire::{Place, SegmentName};

/// Everything of the node that a segment is opened with.
#[derive(Clone)]
pub(crate) struct Means {
    pub(crate) data: Opener,
    pub(crate) mtu: Mtu,
    pub(crate) firewall: FirewallMode,
    pub(crate) listen_port: u16,
    pub(crate) probes: bool,
    /// Binds WireGuard sockets, and the directory that they are in; `None`: there are none.
    pub(crate) unix: UnixSockets,
    pub(crate) wireguard_dir: Option<PathBuf>,
    /// For what happens to interfaces.
    pub(crate) news: mpsc::Sender<(SegmentId, News)>,
}

/// Makes interfaces.
#[derive(Clone)]
pub(crate) struct Workshop {
    pub(crate) backend: Backend,
    pub(crate) offloads: Arc<Offloads>,
    /// Queues of each: as many as there are data threads.
    pub(crate) queues: usize,
}

/// An interface that has no addresses yet.
pub(crate) struct Made {
    pub(crate) name: String,
    pub(crate) maker: Maker,
    /// One for each data thread.
    pub(crate) queues: Vec<Box<dyn Tun>>,
}

/// A segment that is open.
pub(crate) struct Opened {
    pub(crate) place: Place,
    pub(crate) wg: WgSecret,
    pub(crate) interface: String,
    pub(crate) backend: &'static str,
    pub(crate) threads: usize,
    pub(crate) tunnel: TunnelId,
    /// Its rules go with this, until they are kept.
    pub(crate) firewall: Firewall,
    pub(crate) guard: Guard,
    pub(crate) exits: Arc<Exits>,
    /// `None`: there are no probes.
    pub(crate) sockets: Option<std::io::Result<Sockets>>,
    /// Sockets on an interface that was made anew.
    pub(crate) fresh: mpsc::Receiver<Sockets>,
    pub(crate) targets: watch::Sender<Vec<Target>>,
    /// Its WireGuard socket; `None`: it has none.
    pub(crate) door: Option<Door>,
}

impl Workshop {
    /// Makes an interface. Needs CAP_NET_ADMIN.
    pub(crate) fn make(&self, name: &str) -> Result<Made, TunError> {
        let mut maker = Maker::new(name, self.backend, Arc::clone(&self.offloads));
        let queues = maker.make(self.queues)?;
        let name = name.to_owned();
        Ok(Made {
            name,
            maker,
            queues,
        })
    }
}

/// Opens a segment at an interface that was made. On an error nothing of it is left, but the interface as long as
/// `made` was not taken.
///
/// # Errors
/// [`ServeError`].
pub(crate) async fn open(
    means: &Means,
    made: Made,
    (place, wg): (Place, WgSecret),
    beside: Vec<Beside>,
) -> Result<Opened, ServeError> {
    let Made {
        name,
        maker,
        queues,
    } = made;
    interface::refuse_collisions(&name, &place).await?;
    let wanted = wanted(&name, &place, means.mtu)?;
    // Before the addresses are there: at no time do they answer to anybody but the tunnel.
    let scope = Scope {
        interface: name.clone(),
        index: wanted.index,
        v4: place.v4,
        v6: place.v6,
        listen_port: means.listen_port,
        beside,
    };
    let mut firewall = Firewall::start(means.firewall, scope).map_err(ServeError::Data)?;
    firewall.installed().await;
    let mut missing = vec![Fault::Missing(wanted.v4.0.into(), wanted.v4.1)];
    // Without IPv6 the node runs by IPv4; the guard waits for it, and says so.
    if links::ipv6_off(&wanted).is_none() {
        missing.push(Fault::Missing(wanted.v6.0.into(), wanted.v6.1));
    }
    let refused = |source| InterfaceError::Refused {
        name: name.clone(),
        source,
    };
    let configured = links::restore(&wanted, &missing).await;
    configured.map_err(refused)?;

    let (backend, threads) = (
        queues.first().map_or("none", |tun| tun.backend()),
        queues.len(),
    );
    let config = tunnel::Config {
        secret: wg.duplicate(),
        mtu: wanted.mtu as usize,
        seed: rand_core::OsRng.r#gen(),
        inside: agent::inside(&place),
    };
    let opened = means.data.open(config, queues);
    let tunnel = opened.map_err(|error| ServeError::Data(std::io::Error::other(error)))?;
    let (targets, targets_seen) = watch::channel(Vec::new());
    let exits = Arc::new(Exits::default());
    let (sockets, fresh) = mpsc::channel(1);
    let own = [place.v4.0.into(), place.v6.0.into()];
    let parts = Parts {
        wanted,
        maker,
        queues: means.data.queues(tunnel),
        firewall: firewall.follower(),
        routes: HostRoutes::none(&name, own),
        exits: Arc::clone(&exits),
        sockets,
        targets: targets_seen,
        segment: place.segment,
        out: means.news.clone(),
    };
    let guard = match Guard::start(parts) {
        Ok(guard) => guard,
        Err(error) => {
            means.data.close(tunnel);
            return Err(ServeError::Data(error));
        }
    };
    let directory = means.wireguard_dir.as_deref();
    Ok(Opened {
        door: directory.map(|it| Door::bind(&means.unix, it, &name)),
        sockets: means.probes.then(|| Sockets::open(&name)),
        place,
        wg,
        interface: name,
        backend,
        threads,
        tunnel,
        firewall,
        guard,
        exits,
        fresh,
        targets,
    })
}

impl Opened {
    /// Ends what was opened, before anybody has used it.
    pub(crate) async fn undo(self, data: &Opener) {
        self.guard.stop().await;
        data.close(self.tunnel);
        // The rules go with it.
    }
}

/// The interface as it should be.
fn wanted(name: &str, place: &Place, mtu: Mtu) -> Result<Wanted, InterfaceError> {
    let gone = |_| InterfaceError::Gone(name.to_owned());
    Ok(Wanted {
        name: name.to_owned(),
        index: interface::index_of(name).map_err(gone)?,
        v4: place.v4,
        v6: place.v6,
        mtu: Fit::unknown(mtu).mtu,
        queue_len: interface::QUEUE_LEN,
    })
}

/// The name of the interface of a segment that the node did not enrol in first: the configured name without its
/// number, and the segment's name after it, or its number where that would be too long for the kernel. The number
/// follows a dot, which no segment's name has: a segment `4` and the fourth one never want the same name.
pub(crate) fn interface_name(configured: &str, segment: &SegmentName, id: SegmentId) -> String {
    let stem = configured.trim_end_matches(|c: char| c.is_ascii_digit());
    let stem = if stem.is_empty() { "meshd" } else { stem };
    let named = format!("{stem}-{segment}");
    if named.len() <= MAX_NAME {
        return named;
    }
    let number = format!(".{}", id.0);
    let mut stem = stem.to_owned();
    while stem.len() + number.len() > MAX_NAME {
        stem.pop();
    }
    if stem.len() + number.len() == configured.len() && configured.ends_with(&number) {
        // The configured name looks like this one already, and the first segment's interface has it.
        stem.pop();
    }
    stem + &number
}

/// The thread that opens segments while the node runs. It ends when this is dropped.
pub(crate) struct Opening {
    orders: mpsc::UnboundedSender<Order>,
}

enum Order {
    Key(SegmentName),
    Open {
        place: Box<Place>,
        wg: WgSecret,
        interface: String,
        beside: Vec<Beside>,
    },
}

/// The outcome of an order.
pub(crate) enum Outcome {
    /// The key of a segment, or why there is none.
    Key(SegmentName, Result<WgSecret, String>),
    /// An open segment.
    Opened(Box<Opened>),
    /// One that could not be opened.
    Failed(Box<Place>, String),
}

impl Opening {
    /// Starts the thread. Its outcomes.
    ///
    /// # Errors
    /// When no thread can be had.
    pub(crate) fn start(
        means: Means,
        workshop: Workshop,
        keys: KeyStore,
    ) -> std::io::Result<(Self, mpsc::UnboundedReceiver<Outcome>)> {
        let (orders, mut inbox) = mpsc::unbounded_channel();
        let (out, outcomes) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let open = move || {
            rights::reduce(Keep::INTERFACE.and(Keep::FILES));
            runtime.block_on(async {
                while let Some(order) = inbox.recv().await {
                    let outcome = carry_out(&means, &workshop, &keys, order).await;
                    if let Err(unsent) = out.send(outcome)
                        && let Outcome::Opened(opened) = unsent.0
                    {
                        opened.undo(&means.data).await;
                    }
                }
            });
        };
        let thread = std::thread::Builder::new().name("meshd-segments".into());
        drop(thread.spawn(open)?);
        Ok((Self { orders }, outcomes))
    }

    /// Has the key for a segment found or made.
    pub(crate) fn want_key(&self, segment: SegmentName) {
        // The thread ends only with the sender.
        let _ = self.orders.send(Order::Key(segment));
    }

    /// Has a segment opened, beside others.
    pub(crate) fn want(&self, place: Place, wg: WgSecret, interface: String, beside: Vec<Beside>) {
        let _ = self.orders.send(Order::Open {
            place: Box::new(place),
            wg,
            interface,
            beside,
        });
    }
}

async fn carry_out(means: &Means, workshop: &Workshop, keys: &KeyStore, order: Order) -> Outcome {
    match order {
        Order::Key(segment) => {
            let key = keys.0(&key_file(&segment));
            Outcome::Key(segment, key)
        }
        Order::Open {
            place,
            wg,
            interface,
            beside,
        } => {
            let mut made = workshop.make(&interface);
            // One of this name that was left a moment ago may still be on its way out.
            for _ in 0..TRIES {
                if !matches!(made, Err(TunError::Taken(_))) {
                    break;
                }
                tokio::time::sleep(PAUSE).await;
                made = workshop.make(&interface);
            }
            let opened = match made {
                Ok(made) => open(means, made, ((*place).clone(), wg), beside)
                    .await
                    .map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match opened {
                Ok(opened) => Outcome::Opened(Box::new(opened)),
                Err(error) => Outcome::Failed(place, error),
            }
        }
    }
}

/// How often, and how long apart, an interface is tried whose name is taken.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);
/// The longest name of an interface, in bytes (IFNAMSIZ without the zero).
const MAX_NAME: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_named_after_its_segment_as_far_as_the_kernel_has_room() {
        let name = |configured, segment: &str, id| {
            let name = interface_name(configured, &segment.parse().unwrap(), SegmentId(id));
            assert!(name.len() <= MAX_NAME, "{name}");
            name
        };
        assert_eq!(name("meshd0", "inference", 1), "meshd-inference");
        assert_eq!(name("meshd0", "data-pipelines", 12), "meshd.12");
        assert_eq!(name("0", "training", 3), "meshd-training");
        assert_eq!(name("a-long-name-000", "training", 3), "a-long-name-.3");
        assert_eq!(name("fifteen-letters", "training", 14), "fifteen-lett.14");
    }

    #[test]
    fn no_two_segments_want_the_same_interface() {
        for configured in [
            "meshd0",
            "meshd.4",
            "meshd-4",
            "meshd--0",
            "fifteen-lett.14",
            "abcdefghijklm.4",
        ] {
            let mut names = vec![configured.to_owned()];
            for (segment, id) in [
                ("averylongsegmentname", 4),
                ("anotherlongsegmentname", 14),
                ("4", 5),
                ("14", 6),
                ("a-4", 7),
            ] {
                names.push(interface_name(
                    configured,
                    &segment.parse().unwrap(),
                    SegmentId(id),
                ));
            }
            let wanted = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), wanted, "{names:?}");
        }
    }
}
