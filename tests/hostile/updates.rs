//! Updates that no node may believe, pushed over a connection that the node does believe: the fake
//! controller holds the real connection key, and for some cases even the authority's.
//!
//! The file is long because each kind of update that must be refused is in it.

use crate::cut_off::netns;
use crate::fake_controller::FakeController;
use crate::node::{Hostile, RecordedUpdate};
use keys::{
    AuthorityId, AuthoritySecret, ControllerSecret, Epoch, EpochSecret, MeshId, NodeId, SegmentId,
    WgPublicKey,
};
use rand_core::OsRng;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use std::path::Path;
use tests::harness::mesh::{CONTROLLER, CONTROLLER_PORT};
use tests::harness::{Mesh, PATIENCE, poll};
use wire::admin::{Control, Membership, NodeDaemonStatus};
use wire::log::LogNews;
use wire::message::Update;
use wire::signed::Signable as _;
use wire::{Digest, EpochUpdate, Excluded, Mark, Place, Signed, ToNode};

/// A node, the update that it has in force, and whoever sits at its controller's address.
struct Scene {
    mesh: Mesh,
    authority: AuthoritySecret,
    /// The last updates, oldest first; the last one is in force.
    genuine: Vec<RecordedUpdate>,
    /// Its secret is [`Self::secret`].
    next: EpochUpdate,
    secret: [u8; 32],
}

/// A case: what is pushed, and the reason with which it has to be refused.
type Case = (&'static str, Update, &'static str);

#[test]
fn a_node_refuses_every_update_that_is_not_its_authoritys_next() {
    let scene = Scene::new();
    let fake = scene.fake(scene.key("connection.key", ControllerSecret::from_base64));
    scene.wait_until("the node is welcomed", || {
        scene.status().control == Control::Connected
    });
    let before = essence(&scene.status());
    for (case, update, reason) in scene.cases() {
        let told = scene.rejections().len();
        fake.push(&ToNode::Update(update));
        scene.wait_until(case, || {
            scene.rejections().len() > told || essence(&scene.status()) != before
        });
        let after = essence(&scene.status());
        assert_eq!(after, before, "{case} has changed the node");
        let said = scene.rejections().last().cloned().unwrap_or_default();
        assert!(said.contains(reason), "{case}: {said}");
    }
    assert_eq!(
        fake.welcomed(),
        1,
        "a refused update has cost the connection"
    );

    // The same way, with nothing wrong: the node goes on, so the refusals above were earned.
    fake.push(&scene.update(&scene.next, &scene.authority, Some(scene.secret)));
    scene.wait_until("the good update is in force", || {
        scene.status().epoch == Some(scene.next.epoch.0)
    });
    fake.stop().expect("it served to the end");
}

#[test]
fn updates_that_come_twice_late_or_out_of_order_change_a_node_once_and_never_back() {
    let scene = Scene::new();
    let fake = scene.fake(scene.key("connection.key", ControllerSecret::from_base64));
    scene.wait_until("the node is welcomed", || {
        scene.status().control == Control::Connected
    });
    let said = |words: &str| {
        let log = scene.mesh.log(NODE);
        log.lines().filter(|line| line.contains(words)).count()
    };
    // Before its first evidence it may have been told that it is none of the members.
    let denied_before = said("MEMBERSHIP=DENIED");
    let push = |update: &EpochUpdate| {
        fake.push(&scene.update(update, &scene.authority, Some(scene.secret)));
    };
    let unchanged = |what: &str, refused: usize| {
        let before = essence(&scene.status());
        // Pushes are taken in order: once this one is refused, those before it were taken.
        push(&EpochUpdate {
            mesh: MeshId([7; 16]),
            ..scene.next.clone()
        });
        scene.wait_until(what, || {
            let last = scene.rejections().last().cloned().unwrap_or_default();
            last.contains("another mesh") && scene.rejections().len() > refused
        });
        let after = (essence(&scene.status()), scene.rejections().len());
        assert_eq!(after, (before, refused + 1), "{what}");
        after.1
    };
    let in_force = |update: &EpochUpdate| {
        scene.wait_until("it is in force", || {
            scene.status().epoch == Some(update.epoch.0)
        });
    };

    let now = &scene.genuine.last().expect("it was recorded").update;
    fake.push(&ToNode::Update(scene.again(now)));
    let refused = unchanged("the one in force, once more", 0);

    let second = scene.after(&scene.next, 1);
    let third = scene.after(&second, 1);
    (0..3).for_each(|_| push(&scene.next));
    in_force(&scene.next);
    push(&scene.next);
    let refused = unchanged("the next one, four times", refused);
    push(&third);
    in_force(&third);
    push(&second);
    push(&scene.next);
    push(&third);
    let refused = unchanged("two of before, and one more time the same", refused + 2);

    // One that waits for its time, one that comes too late for that, one that supersedes it.
    let waiting = EpochUpdate {
        activate_in_ms: 3_600_000,
        ..scene.after(&third, 2)
    };
    let late = scene.after(&third, 1);
    let at_once = EpochUpdate {
        activate_in_ms: 0,
        ..scene.after(&waiting, 1)
    };
    push(&waiting);
    scene.wait_until("it waits", || {
        scene.status().next_epoch == Some(waiting.epoch.0)
    });
    push(&late);
    push(&waiting);
    let refused = unchanged("one that was overtaken", refused + 1);
    push(&at_once);
    in_force(&at_once);
    push(&waiting);
    let refused = unchanged("one that was superseded", refused + 1);

    // The node's own eviction, and then its old membership again, secret and all.
    let without = scene.without_node(&scene.after(&at_once, 1));
    push(&without);
    push(&without);
    in_force(&without);
    assert_eq!(scene.status().membership, Some(Membership::Denied));
    push(&at_once);
    push(&without);
    push(&third);
    unchanged("its memberships of before", refused + 2);
    assert_eq!(scene.status().membership, Some(Membership::Denied));
    let log = scene.mesh.log(NODE);
    let denied = said("MEMBERSHIP=DENIED") - denied_before;
    assert_eq!(denied, 1, "it is told once");
    for update in [&scene.next, &third, &waiting, &at_once, &without] {
        let epoch = format!("epoch installed epoch={}", update.epoch);
        let lines = log.lines().filter(|line| line.ends_with(&epoch));
        assert_eq!(lines.count(), 1, "{epoch}");
    }
    fake.stop().expect("it served to the end");
}

#[test]
fn a_peer_of_which_an_update_says_nothing_at_all_is_gone() {
    let scene = Scene::new();
    let fake = scene.fake(scene.key("connection.key", ControllerSecret::from_base64));
    scene.wait_until("the node is welcomed", || {
        scene.status().control == Control::Connected
    });
    let peer = scene.status().peers.into_values().next();
    let peer = peer.expect("the recorder is a member");
    assert_eq!(peer.membership, Membership::Allowed);
    let own = scene.node();
    let mut alone = scene.next.clone();
    alone.roster.retain(|member| member.node == own);
    assert_eq!((alone.roster.len(), alone.excluded.len()), (1, 0));
    fake.push(&scene.update(&alone, &scene.authority, Some(scene.secret)));
    scene.wait_until("it is in force", || {
        scene.status().epoch == Some(alone.epoch.0)
    });
    assert!(scene.status().peers.is_empty());
    let to_peer = ["ping", "-c", "1", "-W", "1", &peer.v4.to_string()];
    assert!(!scene.mesh.exec(NODE, &to_peer).status.success());
    let metrics = scene.mesh.meshctl(NODE, &["metrics"]).stdout;
    let metrics = String::from_utf8(metrics).expect("text");
    let dropped = metrics.lines().find(|line| line.contains("\"no_route\""));
    assert!(
        dropped.is_some_and(|line| !line.ends_with(" 0")),
        "the packet met no peer: {dropped:?}"
    );
    fake.stop().expect("it served to the end");
}

#[test]
fn a_node_drops_a_connection_that_carries_garbage_and_stays_as_it_is() {
    let scene = Scene::new();
    let fake = scene.fake(scene.key("connection.key", ControllerSecret::from_base64));
    scene.wait_until("the node is welcomed", || {
        scene.status().control == Control::Connected
    });
    let before = essence(&scene.status());
    let good = scene.update(&scene.next, &scene.authority, Some(scene.secret));
    let payload = postcard::to_stdvec(&good).expect("an update encodes");
    let half = payload[..payload.len() / 2].to_vec();
    let longer = [&payload[..], b"tail"].concat();
    for (frame_type, garbage) in [(3, half), (3, longer), (3, Vec::new()), (9, payload)] {
        let welcomed = fake.welcomed();
        fake.push_raw(frame_type, garbage);
        scene.wait_until("the node has come back", || {
            fake.welcomed() > welcomed && scene.status().control == Control::Connected
        });
        assert_eq!(
            essence(&scene.status()),
            before,
            "garbage has changed the node"
        );
    }
    fake.stop().expect("it served to the end");
}

#[test]
fn a_node_does_not_talk_to_a_controller_with_another_key() {
    let scene = Scene::new();
    let before = essence(&scene.status());
    let fake = scene.fake(ControllerSecret::generate(&mut OsRng));
    scene.wait_until("the node has tried twice", || {
        fake.spurned() >= 2 || fake.welcomed() > 0
    });
    assert_eq!(fake.welcomed(), 0, "the node has said hello to a stranger");
    let status = scene.status();
    assert_eq!(status.control, Control::Disconnected);
    assert_eq!(essence(&status), before);
    fake.stop().expect("it served to the end");
}

impl Scene {
    /// A node in an epoch that lasts, its controller gone, and its last updates.
    fn new() -> Self {
        let builder = Mesh::builder()
            .nodes(1)
            .epoch_seconds(3600)
            .lease_seconds(7200);
        let mut mesh = builder.probation_epochs(0).start();
        mesh.add_host("node-r", 1);
        let token = mesh.token("node-r").parse().expect("a token");
        let recorder = Hostile::start(&netns(&mesh, "node-r"), token, 0.95).expect("it enrols");
        let is_member = |update: &RecordedUpdate| update.secret.is_some();
        let came = poll(PATIENCE, || {
            if recorder
                .updates()
                .iter()
                .filter(|update| is_member(update))
                .count()
                >= 3
            {
                return true;
            }
            mesh.rotate_now();
            false
        });
        assert!(came, "the recorder hears of no epoch");
        mesh.stop(CONTROLLER);
        wait_until_settled(&mesh, &recorder);
        let mut genuine = recorder.updates();
        genuine.retain(is_member);
        genuine.sort_by_key(|update| update.update.epoch);
        recorder.stop().expect("it ran to the end");

        let in_force = genuine.last().expect("there are three");
        let secret = EpochSecret::generate(&mut OsRng);
        let next = EpochUpdate {
            epoch: in_force.update.epoch.next(),
            previous: in_force.signed.digest(),
            commitment: secret.commitment(),
            activate_in_ms: 200,
            ..in_force.update.clone()
        };
        let authority = key_in(&mesh, "authority.key", AuthoritySecret::from_base64);
        Self {
            mesh,
            authority,
            genuine,
            next,
            secret: *secret.expose(),
        }
    }

    fn cases(&self) -> Vec<Case> {
        let next = &self.next;
        let secret = Some(self.secret);
        let other = AuthoritySecret::generate(&mut OsRng);
        let own = self.node();
        let changed = |change: &dyn Fn(&mut EpochUpdate)| {
            let mut update = next.clone();
            change(&mut update);
            self.bare(&update, &self.authority, secret)
        };
        let [older, in_force] = [2, 1].map(|back| &self.genuine[self.genuine.len() - back]);
        vec![
            (
                "another authority's",
                self.bare(next, &other, secret),
                "not trusted here",
            ),
            (
                "another authority's under the name of the right one",
                self.patched(next, &other, |parts| parts.signer = self.authority.public()),
                "does not verify",
            ),
            (
                "an older one, replayed",
                older.again(),
                "was already accepted",
            ),
            (
                "another one for the epoch in force",
                changed(&|update| {
                    update.epoch = in_force.update.epoch;
                    update.previous = in_force.update.previous;
                }),
                "does not continue the history",
            ),
            (
                "one that follows another history",
                changed(&|update| update.previous = Digest([7; 32])),
                "does not continue the history",
            ),
            (
                "one of another mesh",
                changed(&|update| update.mesh = MeshId([7; 16])),
                "for another mesh or segment",
            ),
            (
                "one of another segment",
                changed(&|update| update.segment = SegmentId(7)),
                "for another mesh or segment",
            ),
            (
                "a truncated one",
                self.patched(next, &self.authority, |parts| {
                    parts.payload.truncate(parts.payload.len() / 2);
                }),
                "does not verify",
            ),
            (
                "a truncated one that is signed as it is",
                self.patched(next, &self.authority, |parts| {
                    parts.payload.truncate(parts.payload.len() / 2);
                    parts.sign(&self.authority);
                }),
                "malformed payload",
            ),
            (
                "one that has a member among the excluded",
                self.patched(next, &self.authority, |parts| {
                    let mut update = next.clone();
                    update.excluded = excluding(next);
                    parts.payload = postcard::to_stdvec(&update).expect("it encodes");
                    parts.sign(&self.authority);
                }),
                "a member is excluded too",
            ),
            (
                "one without its secret",
                self.bare(next, &self.authority, None),
                "without its secret",
            ),
            (
                "one with another secret",
                self.bare(next, &self.authority, Some([7; 32])),
                "does not fit the update's commitment",
            ),
            (
                "one with another key for the node itself",
                changed(&|update| {
                    let mut roster = update.roster.iter_mut();
                    let own = roster.find(|member| member.node == own);
                    own.expect("it is a member").wg = WgPublicKey([9; 32]);
                }),
                "another WireGuard key",
            ),
            (
                "one whose lease is over",
                Update {
                    age_ms: next.activate_in_ms + next.lease_ms,
                    ..self.bare(next, &self.authority, secret)
                },
                "is over",
            ),
        ]
    }

    /// The recorded one, as it was sent.
    fn again(&self, update: &EpochUpdate) -> Update {
        let of_epoch = |recorded: &&RecordedUpdate| recorded.update.epoch == update.epoch;
        let recorded = self.genuine.iter().find(of_epoch).expect("it was recorded");
        recorded.again()
    }

    /// One that is so many epochs after `update`, and continues it if it is the next.
    fn after(&self, update: &EpochUpdate, epochs: u64) -> EpochUpdate {
        let signed = Signed::sign(update, &self.authority).expect("it keeps the rules");
        EpochUpdate {
            epoch: Epoch(update.epoch.0 + epochs),
            previous: signed.digest(),
            ..self.next.clone()
        }
    }

    /// The same with the node among the excluded.
    fn without_node(&self, update: &EpochUpdate) -> EpochUpdate {
        let mut without = update.clone();
        let own = self.node();
        let of_node = |member: &wire::Member| member.node == own;
        let at = without.roster.iter().position(of_node);
        let member = without.roster.remove(at.expect("it is a member"));
        without.excluded = vec![Excluded {
            node: member.node,
            name: member.name,
            v4: member.v4,
            v6: member.v6,
            reason: "evicted".into(),
        }];
        without
    }

    fn bare(
        &self,
        update: &EpochUpdate,
        authority: &AuthoritySecret,
        secret: Option<[u8; 32]>,
    ) -> Update {
        let signed = Signed::sign(update, authority).expect("it keeps the rules");
        // The log is the one that the node has seen.
        let genuine = self.genuine.last().expect("it was recorded");
        let known = genuine.mark.verify(&[self.authority.public()]);
        let known = known.expect("it is genuine");
        let mark = Mark {
            mesh: update.mesh,
            segment: update.segment,
            epoch: update.epoch,
            update: signed.digest(),
            log: known.log,
            log_key: known.log_key,
        };
        Update {
            log: LogNews {
                from: known.log.events,
                proof: Vec::new(),
                ..genuine.log.clone()
            },
            mark: Signed::sign(&mark, authority).expect("it keeps the rules"),
            signed,
            secret: secret.map(EpochSecret::from_bytes),
            age_ms: 0,
        }
    }

    fn update(
        &self,
        update: &EpochUpdate,
        authority: &AuthoritySecret,
        secret: Option<[u8; 32]>,
    ) -> ToNode {
        ToNode::Update(self.bare(update, authority, secret))
    }

    /// A signed update, changed where its type does not let anybody in.
    fn patched(
        &self,
        update: &EpochUpdate,
        authority: &AuthoritySecret,
        change: impl FnOnce(&mut Parts),
    ) -> Update {
        let good = self.bare(update, authority, Some(self.secret));
        let bytes = postcard::to_stdvec(&good.signed).expect("it encodes");
        let mut parts: Parts = postcard::from_bytes(&bytes).expect("the same form");
        change(&mut parts);
        let bytes = postcard::to_stdvec(&parts).expect("it encodes");
        Update {
            signed: postcard::from_bytes(&bytes).expect("the same form"),
            ..good
        }
    }

    fn fake(&self, secret: ControllerSecret) -> FakeController {
        let address = ([0, 0, 0, 0], CONTROLLER_PORT).into();
        // As anybody could have it who has read it once: it is no secret.
        let place = Signed::sign(&self.place(), &self.authority).expect("it keeps the rules");
        FakeController::start(
            &netns(&self.mesh, CONTROLLER),
            address,
            secret,
            self.node(),
            place,
        )
    }

    /// The node's place, as it keeps it.
    fn place(&self) -> Place {
        crate::places::place(&self.mesh, self.node())
    }

    fn node(&self) -> NodeId {
        self.status().node.parse().expect("an identity")
    }

    fn status(&self) -> NodeDaemonStatus {
        self.mesh.node_status(NODE)
    }

    fn key<T, E: std::fmt::Debug>(&self, file: &str, read: impl Fn(&str) -> Result<T, E>) -> T {
        key_in(&self.mesh, file, read)
    }

    /// The lines in which the node has refused an update.
    fn rejections(&self) -> Vec<String> {
        let log = self.mesh.log(NODE);
        let lines = log.lines().filter(|line| line.contains("update rejected"));
        lines.map(str::to_owned).collect()
    }

    fn wait_until(&self, what: &str, condition: impl FnMut() -> bool) {
        assert!(
            poll(PATIENCE, condition),
            "not in time: {what}\n{}",
            self.mesh.log(NODE)
        );
    }
}

/// Waits until node and recorder have the same epoch in force and none on its way.
fn wait_until_settled(mesh: &Mesh, recorder: &Hostile) {
    let settled = poll(PATIENCE, || {
        let status = mesh.node_status(NODE);
        let newest = recorder
            .updates()
            .iter()
            .map(|update| update.update.epoch)
            .max();
        status.epoch.map(Epoch) == newest
            && status.next_epoch.is_none()
            && status.control == Control::Disconnected
    });
    assert!(settled, "node and recorder differ");
}

/// The part of a status that an update could change.
fn essence(status: &NodeDaemonStatus) -> String {
    let peers = status.peers.iter().map(|(name, peer)| {
        format!(
            "{name} {:?} {:?} {:?}",
            peer.membership, peer.wireguard, peer.reason
        )
    });
    format!(
        "{:?} {:?} {:?} {:?} {:?}",
        status.epoch,
        status.next_epoch,
        status.membership,
        status.reason,
        peers.collect::<Vec<_>>()
    )
}

/// The first member, as an excluded node.
fn excluding(update: &EpochUpdate) -> Vec<Excluded> {
    let member = update.roster.first().expect("somebody is a member");
    vec![Excluded {
        node: member.node,
        name: member.name.clone(),
        v4: member.v4,
        v6: member.v6,
        reason: "test".into(),
    }]
}

fn key_in<T, E: std::fmt::Debug>(
    mesh: &Mesh,
    file: &str,
    read: impl Fn(&str) -> Result<T, E>,
) -> T {
    let path = mesh.state_dir(CONTROLLER).join(file);
    let text =
        std::fs::read_to_string(Path::new(&path)).expect("the controller keeps its keys there");
    read(&text).expect("a key")
}

/// [`Signed`] as it travels, its fields open.
#[derive(Serialize, Deserialize)]
struct Parts {
    #[serde(with = "serde_bytes")]
    payload: Vec<u8>,
    signer: AuthorityId,
    #[serde(with = "serde_bytes")]
    signature: [u8; 64],
}

impl Parts {
    fn sign(&mut self, authority: &AuthoritySecret) {
        let digest: [u8; 32] = sha2::Sha256::digest(&self.payload).into();
        self.signature = authority.sign(EpochUpdate::LABEL, &digest).0;
    }
}

const NODE: &str = "node-a";
