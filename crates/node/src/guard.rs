//! The keeper of the mesh's interface: a thread that hears from the kernel what happens to it, undoes what somebody
//! else changed (address, MTU, name, link, route; a device that was deleted is made anew), and asks where packets to
//! the peers go. The data threads and their sessions are not disturbed: they get queues of the new device.
//!
//! The thread alone keeps the rights for that. It may wait for the kernel and for the firewall; nobody waits for it.
//!
//! The file is long because all that the keeper does and says is in one loop.

use crate::InterfaceError;
use crate::data::NewQueue;
use crate::io::firewall::FirewallFollower;
use crate::io::host_routes::{HostRoutes, Routes};
use crate::io::icmp::Sockets;
use crate::io::rights::{self, Keep};
use crate::io::tun::{Maker, TunError};
use crate::io::ways::Exits;
use crate::io::{clock, interface, links, networks, ways};
use crate::networks::{Networks, Outcome};
use crate::standing::{self, Condition, Fault, Restraint, Wanted};
use agent::{PeerWays, Target};
use keys::SegmentId;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Sleep, sleep};

/// News of a segment's interface for the shell.
#[derive(Debug)]
pub(crate) enum News {
    /// Where packets to the peers go.
    Ways(Vec<PeerWays>),
    /// The interface is gone and cannot be made anew.
    Lost(TunError),
}

/// The parts that the keeper works with.
pub(crate) struct Parts {
    pub(crate) wanted: Wanted,
    pub(crate) maker: Maker,
    /// One for each data thread.
    pub(crate) queues: Vec<NewQueue>,
    pub(crate) firewall: FirewallFollower,
    /// The routes to narrow peers.
    pub(crate) routes: HostRoutes,
    pub(crate) exits: Arc<Exits>,
    /// Takes sockets for the probes on a new device.
    pub(crate) sockets: mpsc::Sender<Sockets>,
    /// Whose ways to ask for.
    pub(crate) targets: watch::Receiver<Vec<Target>>,
    /// The segment, and the way to the shell.
    pub(crate) segment: SegmentId,
    pub(crate) out: mpsc::Sender<(SegmentId, News)>,
}

/// The way to the keeper; it ends when the last is dropped.
#[derive(Clone)]
pub(crate) struct Guard {
    orders: mpsc::UnboundedSender<Order>,
    condition: watch::Receiver<Condition>,
    networks: watch::Sender<Networks>,
    outcomes: watch::Receiver<Vec<Outcome>>,
}

enum Order {
    /// Another MTU, from now on.
    Mtu(u32, oneshot::Sender<Result<(), InterfaceError>>),
    /// Other routes to narrow peers, and the least packet that super-packets are made for, if it is another.
    Hold(Routes, Option<u32>, oneshot::Sender<io::Result<()>>),
    /// The interface is about to go, as it should.
    Stop(oneshot::Sender<()>),
}

impl Guard {
    /// Starts the thread.
    ///
    /// # Errors
    /// When no thread can be had.
    pub(crate) fn start(parts: Parts) -> io::Result<Self> {
        let (orders, inbox) = mpsc::unbounded_channel();
        let (publish, condition) = watch::channel(Condition::default());
        let (publish_outcomes, outcomes) = watch::channel(Vec::new());
        let (networks, wanted_networks) = watch::channel(Networks::default());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let keep = move || {
            rights::reduce(Keep::INTERFACE);
            let index = Arc::new(AtomicU32::new(parts.wanted.index));
            let keeper = Keeper {
                parts,
                index,
                restraint: Restraint::default(),
                told: Vec::new(),
                asked: Duration::ZERO,
                networks: wanted_networks,
                is_swept: false,
                publish,
                publish_outcomes,
            };
            runtime.block_on(keeper.run(inbox));
        };
        let thread = std::thread::Builder::new().name("meshd-interface".into());
        drop(thread.spawn(keep)?);
        Ok(Self {
            orders,
            condition,
            networks,
            outcomes,
        })
    }

    /// How the interface stands.
    pub(crate) fn condition(&self) -> Condition {
        self.condition.borrow().clone()
    }

    /// The networks behind peers, and which of them packets of this machine are routed to.
    pub(crate) fn outcomes(&self) -> Vec<Outcome> {
        self.outcomes.borrow().clone()
    }

    /// Routes packets to networks behind peers, and to none but these.
    pub(crate) fn route(&self, networks: Networks) {
        self.networks.send_if_modified(|before| {
            let changed = *before != networks;
            *before = networks;
            changed
        });
    }

    /// Gives the interface another MTU, which it keeps from then on.
    pub(crate) async fn set_mtu(&self, mtu: u32) -> Result<(), InterfaceError> {
        let (answer, set) = oneshot::channel();
        // A keeper that has ended answers nothing.
        let _ = self.orders.send(Order::Mtu(mtu, answer));
        let ended = || InterfaceError::Gone("of the mesh".to_owned());
        set.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Holds packets to peers to these MTUs, in bytes, and makes super-packets for packets of `least` bytes.
    pub(crate) async fn hold(&self, routes: Routes, least: Option<u32>) -> io::Result<()> {
        let (answer, held) = oneshot::channel();
        // A keeper that has ended answers nothing.
        let _ = self.orders.send(Order::Hold(routes, least, answer));
        let ended = || io::Error::other("the keeper of the interface has ended");
        held.await.unwrap_or_else(|_| Err(ended()))
    }

    /// The interface is about to go: from now on nobody makes it anew. Waits for a repair that is under way, but
    /// not for long.
    pub(crate) async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.orders.send(Order::Stop(done)).is_ok() {
            let _ = tokio::time::timeout(STOP, stopped).await;
        }
    }
}

struct Keeper {
    parts: Parts,
    /// For the watch.
    index: Arc<AtomicU32>,
    restraint: Restraint,
    /// The faults that an operator was told of.
    told: Vec<Fault>,
    /// When the ways were asked for, on the boot-time clock.
    asked: Duration,
    /// Those that are to be routed.
    networks: watch::Receiver<Networks>,
    /// Whether routes of an earlier process are gone.
    is_swept: bool,
    publish: watch::Sender<Condition>,
    publish_outcomes: watch::Sender<Vec<Outcome>>,
}

enum Wake {
    Order(Order),
    /// Something may have changed.
    News,
    /// Other peers.
    Targets,
    /// Other networks behind them, or another underlay.
    Networks,
    Time,
}

/// All that the keeper waits for.
struct Wakes {
    inbox: mpsc::UnboundedReceiver<Order>,
    news: mpsc::Receiver<()>,
    /// When the look without news is due. Only a look moves it: peers that come and go would put it off for ever.
    due: Pin<Box<Sleep>>,
}

impl Wakes {
    /// The next one; `None`: nobody is left to give orders.
    async fn next(
        &mut self,
        networks: &mut watch::Receiver<Networks>,
        targets: &mut watch::Receiver<Vec<Target>>,
    ) -> Option<Wake> {
        tokio::select! {
            biased;
            order = self.inbox.recv() => order.map(Wake::Order),
            Some(()) = self.news.recv() => Some(Wake::News),
            () = &mut self.due => Some(Wake::Time),
            Ok(()) = networks.changed() => Some(Wake::Networks),
            Ok(()) = targets.changed() => Some(Wake::Targets),
        }
    }

    /// A look was made: the next one without news is due after `pause`.
    fn looked(&mut self, pause: Duration) {
        self.due.set(sleep(pause));
    }
}

impl Keeper {
    async fn run(mut self, inbox: mpsc::UnboundedReceiver<Order>) {
        let (changed, news) = mpsc::channel(1);
        let interest = links::Interest {
            wanted: self.parts.wanted.clone(),
            index: Arc::clone(&self.index),
        };
        tokio::spawn(links::watch(interest, changed));
        let mut wakes = Wakes {
            inbox,
            news,
            due: Box::pin(sleep(INTERVAL)),
        };
        // Before the first look nobody knows by which device packets would leave, and every way is unknown.
        if let Err(lost) = self.look().await {
            self.lost(lost).await;
            return;
        }
        wakes.looked(self.pause());
        loop {
            let networks = &mut self.networks;
            let Some(wake) = wakes.next(networks, &mut self.parts.targets).await else {
                return;
            };
            let mut ask = true;
            match wake {
                Wake::Order(Order::Stop(done)) => {
                    drop(done);
                    return;
                }
                Wake::Order(Order::Mtu(mtu, answer)) => {
                    let _ = answer.send(self.set_mtu(mtu).await);
                    continue;
                }
                Wake::Order(Order::Hold(routes, least, answer)) => {
                    let _ = answer.send(self.hold(routes, least).await);
                    continue;
                }
                Wake::Networks => {
                    self.follow_networks().await;
                    continue;
                }
                Wake::Targets => {}
                Wake::News => {
                    // Changes come in flocks.
                    sleep(SETTLED).await;
                    let _ = wakes.news.try_recv();
                    if let Err(lost) = self.look().await {
                        self.lost(lost).await;
                        return;
                    }
                    wakes.looked(self.pause());
                }
                Wake::Time => {
                    let before = self.publish.borrow().carries;
                    if let Err(lost) = self.look().await {
                        self.lost(lost).await;
                        return;
                    }
                    wakes.looked(self.pause());
                    // While something is wrong, there is a look every second; a large mesh has many ways.
                    let is_news = before != self.publish.borrow().carries;
                    ask = is_news || clock::boot() >= self.asked + INTERVAL;
                }
            }
            if !ask {
                continue;
            }
            self.asked = clock::boot();
            let targets = self.parts.targets.borrow_and_update().clone();
            let ways = ways::ask(&self.parts.exits, &targets).await;
            if !self.tell_ways(ways, &mut wakes.inbox).await {
                return;
            }
        }
    }

    async fn lost(&self, error: TunError) {
        let Parts { segment, out, .. } = &self.parts;
        let _ = out.send((*segment, News::Lost(error))).await;
    }

    /// Tells the shell, unless it is gone or says stop. The shell may be waiting for an order of its own to be
    /// carried out, and hear nothing until then: orders go on.
    async fn tell_ways(
        &mut self,
        ways: Vec<PeerWays>,
        inbox: &mut mpsc::UnboundedReceiver<Order>,
    ) -> bool {
        let (segment, out) = (self.parts.segment, self.parts.out.clone());
        loop {
            let order = tokio::select! {
                room = out.reserve() => {
                    return room.map(|room| room.send((segment, News::Ways(ways)))).is_ok();
                }
                Some(order) = inbox.recv() => order,
            };
            match order {
                Order::Stop(done) => {
                    drop(done);
                    return false;
                }
                Order::Mtu(mtu, answer) => {
                    let _ = answer.send(self.set_mtu(mtu).await);
                }
                Order::Hold(routes, least, answer) => {
                    let _ = answer.send(self.hold(routes, least).await);
                }
            }
        }
    }

    /// Until the next look without news.
    fn pause(&self) -> Duration {
        let until_repair = self.restraint.next().saturating_sub(clock::boot());
        if self.told.is_empty() && until_repair.is_zero() {
            return INTERVAL;
        }
        until_repair.clamp(SOON, INTERVAL)
    }

    async fn hold(&mut self, routes: Routes, least: Option<u32>) -> io::Result<()> {
        if let Some(least) = least
            && let Err(error) = interface::set_segments(&self.parts.wanted.name, least).await
        {
            tracing::debug!(%error, "super-packets are not made for narrow paths");
        }
        self.parts.routes.follow(routes).await
    }

    async fn set_mtu(&mut self, mtu: u32) -> Result<(), InterfaceError> {
        let before = std::mem::replace(&mut self.parts.wanted.mtu, mtu);
        let set = links::set_mtu(&self.parts.wanted).await;
        if set.is_err() {
            self.parts.wanted.mtu = before;
        }
        set
    }

    /// Has the kernel's routes be those of the networks, and says what became of each. The kernel's own routes may
    /// have changed, and somebody may have removed one of ours.
    async fn follow_networks(&mut self) {
        let wanted = &self.parts.wanted;
        let exit = networks::Exit {
            index: wanted.index,
            own: [wanted.v4.0.into(), wanted.v6.0.into()],
            carries: self.publish.borrow().carries,
        };
        let networks = self.networks.borrow_and_update().clone();
        let outcomes = match networks::follow(exit, &networks).await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                tracing::debug!(%error, "routes to networks behind peers cannot be looked at");
                return;
            }
        };
        self.is_swept = true;
        self.publish_outcomes.send_if_modified(|before| {
            let changed = *before != outcomes;
            if changed {
                tell_outcomes(before, &outcomes);
            }
            *before = outcomes;
            changed
        });
    }

    /// Looks, and puts right what is wrong if it is time to.
    async fn look(&mut self) -> Result<(), TunError> {
        let may = self.restraint.allows(clock::boot());
        let mut condition = self.condition().await;
        self.publish(&condition);
        let mend = condition.faults.iter().any(Fault::is_ours_to_mend);
        let mut mended = Vec::new();
        if mend && may {
            self.restraint.repaired(clock::boot());
            let before = condition.faults;
            let failed = self.mend(&before).await?;
            condition = self.condition().await;
            self.publish(&condition);
            let is_over = |fault: &&Fault| !condition.faults.contains(fault);
            mended = before.iter().filter(is_over).map(words).collect();
            if let Some(error) = failed
                && condition.faults != self.told
            {
                tracing::warn!(%error, "the interface cannot be put right; trying on");
            }
        }
        if may {
            mended.extend(self.routes(&condition).await);
        }
        if !self.is_swept || !self.networks.borrow().behind_peers.is_empty() {
            self.follow_networks().await;
        }
        if !mended.is_empty() {
            let interface = &self.parts.wanted.name;
            let mended = mended.join(", ");
            tracing::warn!(
                interface,
                mended,
                "somebody changed the interface: put right"
            );
        }
        // Faults that come and go while a repair has to wait are told when it need not.
        if may {
            self.tell(condition.faults);
        }
        Ok(())
    }

    async fn condition(&self) -> Condition {
        let wanted = &self.parts.wanted;
        match links::look(wanted).await {
            Ok(seen) => {
                let carries = standing::carries(wanted, &seen);
                self.parts.exits.set(wanted.index, carries);
                Condition::of(wanted, &seen)
            }
            Err(error) => {
                self.parts.exits.set(wanted.index, [false, false]);
                Condition::unseen(&error)
            }
        }
    }

    fn publish(&self, condition: &Condition) {
        self.publish.send_if_modified(|before| {
            let changed = before != condition;
            before.clone_from(condition);
            changed
        });
    }

    /// Puts right what is wrong; why that failed, if it did.
    async fn mend(&mut self, faults: &[Fault]) -> Result<Option<io::Error>, TunError> {
        if faults.contains(&Fault::Gone) {
            self.make_anew().await?;
            let wanted = &self.parts.wanted;
            let ((v4, v4_len), (v6, v6_len)) = (wanted.v4, wanted.v6);
            let mut missing = vec![Fault::Missing(v4.into(), v4_len)];
            if links::ipv6_off(wanted).is_none() {
                missing.push(Fault::Missing(v6.into(), v6_len));
            }
            let set = links::restore(wanted, &missing).await;
            self.open_sockets().await;
            return Ok(set.err());
        }
        Ok(links::restore(&self.parts.wanted, faults).await.err())
    }

    /// Another device of the same name, to which the data threads go over.
    async fn make_anew(&mut self) -> Result<(), TunError> {
        let queues = self.parts.maker.make_anew(self.parts.queues.len())?;
        let name = &self.parts.wanted.name;
        let index = interface::index_of(name).map_err(|source| TunError::Other {
            name: name.clone(),
            source,
        })?;
        self.parts.wanted.index = index;
        self.index.store(index, Ordering::Relaxed);
        // Before the addresses are there: at no time do they answer to anybody but the tunnel.
        self.parts.firewall.follow(index);
        for (to, queue) in self.parts.queues.iter().zip(queues) {
            to.send(queue);
        }
        Ok(())
    }

    async fn open_sockets(&self) {
        if self.parts.sockets.is_closed() {
            return;
        }
        match Sockets::open(&self.parts.wanted.name) {
            Ok(sockets) => drop(self.parts.sockets.send(sockets).await),
            Err(error) => {
                tracing::warn!(%error, "peers are not probed any more: raw ICMP needs CAP_NET_RAW");
            }
        }
    }

    /// Puts the routes of the mesh's ranges back; which were missing.
    async fn routes(&mut self, condition: &Condition) -> Vec<String> {
        let wanted = &self.parts.wanted;
        match links::restore_routes(wanted, condition.carries).await {
            Ok(restored) => {
                if !restored.is_empty() {
                    self.restraint.repaired(clock::boot());
                }
                let route = |range: String| format!("the route to {range} was missing");
                restored.into_iter().map(route).collect()
            }
            Err(error) => {
                tracing::debug!(%error, "routes cannot be put back");
                Vec::new()
            }
        }
    }

    /// One line for each change.
    fn tell(&mut self, faults: Vec<Fault>) {
        if faults == self.told {
            return;
        }
        let interface = &self.parts.wanted.name;
        if faults.is_empty() {
            tracing::info!(interface, "the interface is as it should be again");
        } else {
            let faults: Vec<String> = faults.iter().map(words).collect();
            let faults = faults.join(", ");
            tracing::warn!(interface, faults, "the interface is not as it should be");
        }
        self.told = faults;
    }
}

/// One line for each network that is new, is gone or stands otherwise.
fn tell_outcomes(before: &[Outcome], after: &[Outcome]) {
    for outcome in after.iter().filter(|it| !before.contains(it)) {
        let (prefix, node) = (outcome.network.prefix, &outcome.network.node);
        match &outcome.unrouted {
            None => {
                tracing::info!(%prefix, %node, "packets are routed to the network behind a peer")
            }
            Some(why) => {
                tracing::warn!(%prefix, %node, %why, "no packets are routed to the network behind a peer")
            }
        }
    }
    let stays = |it: &&Outcome| after.iter().any(|other| other.network == it.network);
    for outcome in before.iter().filter(|it| !stays(it)) {
        let (prefix, node) = (outcome.network.prefix, &outcome.network.node);
        tracing::info!(%prefix, %node, "the network is behind the peer no more");
    }
}

fn words(fault: &Fault) -> String {
    fault.to_string()
}

/// How long after news to look: they come in flocks.
const SETTLED: Duration = Duration::from_millis(100);
/// How often to look without news, and while something is wrong.
const INTERVAL: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_secs(1);
/// The longest wait for a repair that is under way when the node stops.
const STOP: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_other_wake_puts_off_the_look_that_is_due_without_news() {
        let (_orders, inbox) = mpsc::unbounded_channel();
        let (_changed, news) = mpsc::channel(1);
        let (networks, mut networks_seen) = watch::channel(Networks::default());
        let (targets, mut targets_seen) = watch::channel(Vec::new());
        let mut wakes = Wakes {
            inbox,
            news,
            due: Box::pin(sleep(INTERVAL)),
        };
        wakes.looked(Duration::from_millis(1));
        let until_look = async {
            loop {
                // Others come all the time.
                targets.send_replace(Vec::new());
                networks.send_replace(Networks::default());
                let wake = wakes.next(&mut networks_seen, &mut targets_seen).await;
                if let Some(Wake::Time) = wake {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        let looked = tokio::time::timeout(INTERVAL, until_look).await;
        assert!(looked.is_ok(), "no look was due in {INTERVAL:?}");
    }
}
