//! A member that is cut off: not one of its packets is delivered to a survivor any more, and not one
//! inner packet reaches it, however it goes on.

use crate::node::{Conduct, Count, Hostile};
use crate::witness::{Seen, Witness};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tests::harness::{self, Mesh, mesh::name, ping, poll};
use wire::admin::Membership;

/// Two real survivors, one hostile member, and what the survivors' kernels see of it.
pub(crate) struct Scene {
    pub(crate) mesh: Mesh,
    pub(crate) hostile: Hostile,
    witnesses: Vec<Witness>,
}

/// The traffic that has got through, in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Through {
    /// To each survivor: IPv4, IPv6, under a false address.
    pub(crate) to_survivors: Vec<(u64, u64, u64)>,
    /// Inner packets to the hostile node.
    pub(crate) delivered: u64,
    /// Handshakes of the hostile node.
    completed: u64,
}

#[test]
fn a_node_that_ignores_its_exclusion_gets_no_packet_through_for_epochs() {
    let mut scene = Scene::new(5);
    scene.control();
    scene.hostile.set_score(0.1);
    scene.wait_until_denied();
    let first = scene.mesh.epoch();
    scene.attack(Duration::from_secs(21), |mesh| mesh.epoch() >= first + 3);
}

#[test]
fn an_evicted_node_gets_no_packet_through_from_the_moment_that_the_survivors_know() {
    let mut scene = Scene::new(60);
    scene.mesh.rotate_now();
    scene.control();
    let evicted = harness::now();
    let change = scene.mesh.evict(HOSTILE);
    assert!(change.excluded.contains_key(&name(HOSTILE)), "{change:?}");
    scene.wait_until_denied();
    assert!(evicted.elapsed() < EVICTION, "{:?}", evicted.elapsed());
    scene.mesh.rotate_now();
    scene.attack(Duration::from_secs(10), |_| true);
}

impl Scene {
    pub(crate) fn new(epoch_seconds: u64) -> Self {
        let builder = Mesh::builder().nodes(SURVIVORS.len()).probation_epochs(0);
        let mut mesh = builder.epoch_seconds(epoch_seconds).start();
        mesh.add_host(HOSTILE, SURVIVORS.len());
        let token = mesh.token(HOSTILE).parse().expect("a token");
        let hostile = Hostile::start(&netns(&mesh, HOSTILE), token, 0.95).expect("it enrols");
        let own: Vec<IpAddr> = hostile.scope.addresses().into();
        let witness = |survivor| Witness::new(&netns(&mesh, survivor), own.clone());
        let witnesses = SURVIVORS.map(|survivor| witness(survivor).expect("a packet socket"));
        Self {
            mesh,
            hostile,
            witnesses: witnesses.into(),
        }
    }

    /// While it is a member, the same counters see its packets, and the arsenal's handshakes succeed:
    /// what stays at zero later is no deafness.
    pub(crate) fn control(&mut self) {
        self.wait_for(
            "the hostile node is a member and heard on both families",
            |scene| {
                let heard = |seen: Seen| seen.v4 >= 20 && seen.v6 >= 20;
                let mut witnesses = scene.witnesses.iter();
                witnesses.all(|witness| heard(witness.seen().expect("it counts")))
                    && scene.hostile.count(Count::Delivered) >= 80
            },
        );
        self.hostile.set_conduct(Conduct::Attack);
        let before = self.hostile.count(Count::Completed);
        self.wait_for("its extra handshakes succeed", |scene| {
            scene.hostile.count(Count::Completed) >= before + 4
        });
        self.hostile.set_conduct(Conduct::Member);
        // The epochs after that find it with one session per survivor again, and with old PSKs.
        let enough = self.mesh.epoch() + 2;
        self.wait_for("some epochs of membership", |scene| {
            if scene.mesh.epoch() < enough {
                scene.mesh.rotate_now();
            }
            scene.mesh.epoch() >= enough
        });
        let before = self.through();
        self.wait_for(
            "its sessions of the epoch in force carry packets",
            |scene| {
                let now = scene.through();
                let pairs = now.to_survivors.iter().zip(&before.to_survivors);
                pairs
                    .into_iter()
                    .all(|(now, before)| now.0 >= before.0 + 10 && now.1 >= before.1 + 10)
                    && now.delivered >= before.delivered + 40
            },
        );
        let spoofed: u64 = self.through().to_survivors.iter().map(|to| to.2).sum();
        assert_eq!(spoofed, 0, "packets under a false address were delivered");
    }

    pub(crate) fn wait_until_denied(&mut self) {
        self.wait_for("both survivors have the exclusion in force", |scene| {
            scene.is_denied()
        });
    }

    pub(crate) fn is_denied(&self) -> bool {
        self.has(Membership::Denied)
    }

    /// Whether the survivors have it as a peer.
    pub(crate) fn is_peer(&self) -> bool {
        self.has(Membership::Allowed)
    }

    fn has(&self, membership: Membership) -> bool {
        SURVIVORS.iter().all(|survivor| {
            let status = self.mesh.node_status(survivor);
            let peer = status.peers.get(&name(HOSTILE));
            peer.is_some_and(|peer| peer.membership == membership)
        })
    }

    /// Attacks for at least `at_least`, until `enough` says so, and nothing gets through.
    fn attack(&mut self, at_least: Duration, mut enough: impl FnMut(&Mesh) -> bool) {
        // Everything that was sent before the cut is read two rounds later, or never.
        let rounds = self.hostile.count(Count::Rounds);
        self.wait_for(
            "the hostile node has read what came before the cut",
            |scene| scene.hostile.count(Count::Rounds) >= rounds + 2,
        );
        let (before, dropped) = (self.through(), self.dropped());
        let attacks = ATTACKS.map(|kind| self.hostile.count(kind));
        let answers = self.hostile.count(Count::Answers);
        let pinger = self.mesh.keep_pinging(SURVIVORS[0], SURVIVORS[1]);
        self.hostile.set_conduct(Conduct::Attack);
        let begun = harness::now();
        let own = self.hostile.scope.addresses();
        let mut unanswered = 0;
        while begun.elapsed() < at_least || !enough(&self.mesh) {
            assert!(
                begun.elapsed() < at_least + harness::PATIENCE,
                "the epochs do not go on"
            );
            for (survivor, to) in SURVIVORS.iter().zip(own) {
                let answered = ping::once(self.mesh.namespace(survivor), to);
                assert!(!answered, "{survivor} has an answer from {to}");
                unanswered += 1;
            }
            assert!(self.hostile.is_running(), "the hostile node ended");
        }
        assert_eq!(self.through(), before, "something got through");
        assert!(self.is_denied(), "the survivors have let it in again");
        assert_eq!(
            self.hostile.count(Count::Answers),
            answers,
            "a survivor answers a stranger"
        );

        // It did try, the survivors did notice, and they went on as ever.
        for (kind, before) in ATTACKS.into_iter().zip(attacks) {
            let tried = self.hostile.count(kind) - before;
            assert!(tried >= 100, "only {tried} of {kind:?}");
        }
        for (survivor, (before, now)) in SURVIVORS.iter().zip(dropped.iter().zip(self.dropped())) {
            assert!(
                now >= before + 500,
                "{survivor} has dropped only {}",
                now - before
            );
        }
        let losses = pinger.stop();
        assert!(
            losses.sent >= 20 && unanswered >= 4,
            "{losses:?}, {unanswered}"
        );
        assert_eq!(
            losses.lost, 0,
            "the survivors' own traffic suffered: {losses:?}"
        );
    }

    pub(crate) fn through(&self) -> Through {
        let seen = |witness: &Witness| witness.seen().expect("it counts");
        let seen = self.witnesses.iter().map(seen);
        Through {
            to_survivors: seen.map(|seen| (seen.v4, seen.v6, seen.spoofed)).collect(),
            delivered: self.hostile.count(Count::Delivered),
            completed: self.hostile.count(Count::Completed),
        }
    }

    /// Packets that each survivor has dropped because of a stranger.
    pub(crate) fn dropped(&self) -> Vec<u64> {
        let of = |survivor: &&str| {
            let dropped = self.mesh.node_status(survivor).dropped;
            STRANGERS.iter().map(|reason| dropped[*reason]).sum()
        };
        SURVIVORS.iter().map(of).collect()
    }

    pub(crate) fn wait_for(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let came = poll(harness::PATIENCE, || {
            condition(self) || !self.hostile.is_running()
        });
        assert!(self.hostile.is_running(), "the hostile node ended");
        assert!(came, "not in time: {what}; {:?}", self.through());
    }
}

pub(crate) fn netns(mesh: &Mesh, host: &str) -> PathBuf {
    Path::new("/run/netns").join(mesh.namespace(host).name())
}

pub(crate) const SURVIVORS: [&str; 2] = ["node-a", "node-b"];
pub(crate) const HOSTILE: &str = "node-c";
const ATTACKS: [Count; 5] = [
    Count::LiveData,
    Count::ForgedIndex,
    Count::Handshake,
    Count::ForgedTag,
    Count::Replay,
];
/// Reasons for which a stranger's datagrams are dropped.
const STRANGERS: [&str; 2] = ["unknown_index", "unknown_peer"];
/// From the operator's word to the survivors' data planes.
const EVICTION: Duration = Duration::from_secs(3);
