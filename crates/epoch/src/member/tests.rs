//! The member machine against its commands, in virtual time.
//!
//! The file is long because each rule has a test.

use super::*;
use keys::{AuthoritySecret, Commitment};
use rand_core::OsRng;
use std::collections::HashMap;
use wire::fixtures::{self, MESH};
use wire::rules::Groups;
use wire::{Digest, Excluded, Signed};

mod apart;

const T0: Duration = Duration::from_secs(1_000);

struct Mesh {
    authority: AuthoritySecret,
    wg: Vec<WgSecret>,
    digest: Digest,
    epoch: u64,
}

impl Mesh {
    fn new() -> Self {
        let wg = (0..3).map(|_| WgSecret::generate(&mut OsRng)).collect();
        Self {
            authority: AuthoritySecret::generate(&mut OsRng),
            wg,
            digest: Digest::default(),
            epoch: 0,
        }
    }

    fn machine(&self, node: usize, high_water: HighWater) -> Member {
        let wg = WgSecret::from_base64(&self.wg[node].expose_base64()).unwrap();
        let identity = Identity {
            node: id(node),
            wg,
            mesh: MESH,
            segment: SegmentId::FIRST,
        };
        Member::new(identity, high_water)
    }

    fn draft(&self, members: &[usize]) -> EpochUpdate {
        // Nodes count from zero here, and addresses from 2, as in a mesh.
        let number = |node: usize| node as u8 + 2;
        let member = |node: &usize| wire::Member {
            node: id(*node),
            wg: self.wg[*node].public(),
            ..fixtures::member(number(*node))
        };
        let excluded = |node| Excluded {
            node: id(node),
            ..fixtures::excluded(number(node))
        };
        let others = (0..3).filter(|node| !members.contains(node));
        EpochUpdate {
            previous: self.digest,
            excluded: others.map(excluded).collect(),
            commitment: secret(self.epoch + 1).commitment(),
            ..fixtures::update(self.epoch + 1, members.iter().map(member).collect())
        }
    }

    fn sign(&mut self, draft: &EpochUpdate) -> Verified<EpochUpdate> {
        let signed = Signed::sign(draft, &self.authority).unwrap();
        self.digest = signed.digest();
        self.epoch = draft.epoch.0;
        signed.verify(&[self.authority.public()]).unwrap()
    }

    fn publish(&mut self, members: &[usize]) -> Verified<EpochUpdate> {
        let draft = self.draft(members);
        self.sign(&draft)
    }
}

fn id(node: usize) -> NodeId {
    NodeId([node as u8 + 1; 32])
}

fn secret(epoch: u64) -> EpochSecret {
    EpochSecret::from_bytes([epoch as u8; 32])
}

/// The machine's commands, in words; the parts of one change stand in one line.
fn commands(machine: &mut Member) -> Vec<String> {
    let installed = |it: Install| {
        format!(
            "install {} peers {} lead {} until {:?}",
            it.epoch,
            it.peers.len(),
            it.lead.as_millis(),
            it.closes_at.map(|t| t.as_secs())
        )
    };
    let turned = |turn| match turn {
        Turn::Begin(epoch) => format!("begin {epoch}"),
        Turn::DiscardPrevious => "discard".into(),
        Turn::Close => "close".into(),
    };
    let name = |command| match command {
        Command::Data(EpochChange {
            keep,
            install,
            turn,
        }) => {
            let kept = keep.map(|it| {
                let at_once = if it.at_once { " at once" } else { "" };
                format!("keep {}{at_once}", it.members.len())
            });
            let parts = kept.into_iter().chain(install.map(installed));
            let parts = parts.chain(turn.map(turned));
            Some(parts.collect::<Vec<_>>().join(", "))
        }
        Command::Derive(_) => Some("derive".into()),
        Command::Agent(Notice::Persist(high)) => Some(format!("persist {}", high.epoch)),
        Command::Agent(Notice::Acknowledge { epoch, phase }) => {
            Some(format!("ack {epoch} {phase:?}"))
        }
        Command::Agent(Notice::Report(_)) => None,
    };
    std::iter::from_fn(|| machine.poll_command())
        .filter_map(name)
        .collect()
}

#[test]
fn an_epoch_lives_from_install_to_discard() {
    let mut mesh = Mesh::new();
    let mut a = mesh.machine(0, HighWater::default());
    a.handle_update(
        mesh.publish(&[0, 1, 2]),
        Some(secret(1)),
        Duration::ZERO,
        T0,
    )
    .unwrap();
    assert_eq!(
        commands(&mut a),
        [
            "install 1 peers 2 lead 5000 until Some(1305)",
            "ack 1 Installed"
        ]
    );
    assert_eq!(a.poll_timeout(), Some(T0 + Duration::from_secs(5)));
    a.handle_timeout(T0 + Duration::from_secs(5));
    assert_eq!(
        commands(&mut a),
        ["begin 1", "ack 1 Activated", "persist 1"]
    );
    a.handle_timeout(T0 + Duration::from_secs(7));
    assert_eq!(commands(&mut a), ["discard"]);
    assert_eq!(a.view().update.unwrap().epoch, Epoch(1));
}

#[test]
fn the_two_sides_of_a_pair_get_the_same_psk_and_no_two_pairs_do() {
    let mut mesh = Mesh::new();
    let update = mesh.publish(&[0, 1, 2]);
    let mut psks = HashMap::new();
    for node in 0..3 {
        let mut machine = mesh.machine(node, HighWater::default());
        machine
            .handle_update(update.clone(), Some(secret(1)), Duration::ZERO, T0)
            .unwrap();
        for command in std::iter::from_fn(|| machine.poll_command()) {
            let Command::Data(change) = command else {
                continue;
            };
            for plan in change.install.into_iter().flat_map(|it| it.peers) {
                let peer = plan.member.node.0[0] as usize - 1;
                psks.insert((node, peer), *plan.psk.expose());
            }
        }
    }
    assert_eq!(psks.len(), 6);
    assert_eq!(psks[&(0, 1)], psks[&(1, 0)]);
    assert_eq!(psks.values().collect::<HashSet<_>>().len(), 3);
}

#[test]
fn two_members_that_are_no_hubs_get_no_psk_for_each_other() {
    let mut mesh = Mesh::new();
    let mut draft = mesh.draft(&[0, 1, 2]);
    draft.rules.groups = vec!["hub".into()];
    draft.rules.hubs = Groups(1);
    draft.roster[2].groups = Groups(1);
    let update = mesh.sign(&draft);
    for (node, peers) in [(0, vec![3]), (1, vec![3]), (2, vec![1, 2])] {
        let mut machine = mesh.machine(node, HighWater::default());
        machine
            .handle_update(update.clone(), Some(secret(1)), Duration::from_secs(5), T0)
            .unwrap();
        let (mut installed, mut said) = (Vec::new(), Vec::new());
        for command in std::iter::from_fn(|| machine.poll_command()) {
            match command {
                Command::Data(change) => installed.extend(change.install),
                Command::Agent(Notice::Report(Change::Activated { peers, .. })) => {
                    said.push(peers);
                }
                Command::Agent(_) => {}
                Command::Derive(_) => panic!("so few are derived at once"),
            }
        }
        let [install] = &installed[..] else {
            panic!("{installed:?}")
        };
        let planned: Vec<u8> = install.peers.iter().map(|it| it.member.node.0[0]).collect();
        assert_eq!(planned, peers, "node {node}");
        assert_eq!(said, [peers.len()]);
        assert_eq!(
            (&*install.rules, install.own),
            (&draft.rules, draft.roster[node].groups)
        );
    }
}

#[test]
fn an_excluded_node_needs_no_secret_and_closes_at_activation() {
    let mut mesh = Mesh::new();
    let mut c = mesh.machine(2, HighWater::default());
    c.handle_update(
        mesh.publish(&[0, 1, 2]),
        Some(secret(1)),
        Duration::from_secs(5),
        T0,
    )
    .unwrap();
    commands(&mut c);
    c.handle_update(
        mesh.publish(&[0, 1]),
        None,
        Duration::ZERO,
        T0 + Duration::from_secs(55),
    )
    .unwrap();
    assert_eq!(
        commands(&mut c),
        [
            "discard",
            "install 2 peers 0 lead 5000 until Some(1360)",
            "ack 2 Installed"
        ],
        "it stays a member until then"
    );
    c.handle_timeout(T0 + Duration::from_secs(60));
    assert_eq!(commands(&mut c), ["close", "ack 2 Dark", "persist 2"]);
}

#[test]
fn what_is_due_begins_before_a_newer_update_is_taken() {
    let mut mesh = Mesh::new();
    let mut a = mesh.machine(0, HighWater::default());
    let at = |second| T0 + Duration::from_secs(second);
    for (epoch, roster, second) in [(1, &[0, 1, 2][..], 5), (2, &[0, 1], 55), (3, &[0, 1], 65)] {
        // It sleeps from before the second begins until the third is there.
        let update = mesh.publish(roster);
        a.handle_update(update, Some(secret(epoch)), Duration::ZERO, at(second))
            .unwrap();
    }
    assert_eq!(a.view().update.unwrap().epoch, Epoch(2));
    assert_eq!(a.view().next.unwrap().epoch, Epoch(3));
}

#[test]
fn a_late_update_counts_from_its_signing() {
    let mut mesh = Mesh::new();
    let mut a = mesh.machine(0, HighWater::default());
    a.handle_update(
        mesh.publish(&[0, 1]),
        Some(secret(1)),
        Duration::from_secs(65),
        T0,
    )
    .unwrap();
    let expected = [
        "install 1 peers 1 lead 0 until Some(1240), begin 1",
        "ack 1 Activated",
        "persist 1",
    ];
    assert_eq!(commands(&mut a), expected);
    let mut late = mesh.machine(0, HighWater::default());
    let over = late.handle_update(
        mesh.publish(&[0, 1]),
        Some(secret(2)),
        Duration::from_secs(305),
        T0,
    );
    assert_eq!(over, Err(UpdateError::LeaseOver(Epoch(2))));
}

#[test]
fn nothing_old_foreign_or_forked_is_taken() {
    let mut mesh = Mesh::new();
    let first = mesh.publish(&[0, 1]);
    let mut foreign = mesh.draft(&[0, 1]);
    foreign.mesh = MeshId([9; 16]);
    let second = mesh.publish(&[0, 1]);
    let mut a = mesh.machine(0, HighWater::default());
    let mut take = |update: &Verified<EpochUpdate>, epoch: u64| {
        a.handle_update(update.clone(), Some(secret(epoch)), Duration::ZERO, T0)
    };
    assert_eq!(take(&second, 2), Ok(()));
    assert_eq!(take(&second, 2), Ok(()), "twice is once");
    assert_eq!(
        take(&first, 1),
        Err(UpdateError::Old {
            have: Epoch(2),
            got: Epoch(1)
        })
    );

    let mut other = mesh.draft(&[0]);
    other.epoch = Epoch(2);
    let fork = Signed::sign(&other, &mesh.authority)
        .unwrap()
        .verify(&[mesh.authority.public()])
        .unwrap();
    assert_eq!(take(&fork, 2), Err(UpdateError::Forked(Epoch(2))));
    let mut astray = mesh.draft(&[0, 1]);
    astray.previous = Digest([9; 32]);
    let astray = Signed::sign(&astray, &mesh.authority)
        .unwrap()
        .verify(&[mesh.authority.public()])
        .unwrap();
    assert_eq!(take(&astray, 3), Err(UpdateError::Forked(Epoch(3))));
    let foreign = Signed::sign(&foreign, &mesh.authority)
        .unwrap()
        .verify(&[mesh.authority.public()])
        .unwrap();
    assert_eq!(take(&foreign, 2), Err(UpdateError::Foreign));
    assert_eq!(commands(&mut a).len(), 2, "only one of them did anything");
}

#[test]
fn a_member_without_the_right_secret_or_key_takes_nothing() {
    let mut mesh = Mesh::new();
    let update = mesh.publish(&[0, 1]);
    let mut a = mesh.machine(0, HighWater::default());
    let none = a.handle_update(update.clone(), None, Duration::ZERO, T0);
    assert_eq!(none, Err(UpdateError::NoSecret(Epoch(1))));
    let wrong = a.handle_update(update.clone(), Some(secret(9)), Duration::ZERO, T0);
    assert_eq!(wrong, Err(UpdateError::WrongSecret(Epoch(1))));
    mesh.wg[0] = WgSecret::generate(&mut OsRng);
    let mut rekeyed = mesh.machine(0, HighWater::default());
    let key = rekeyed.handle_update(update.clone(), Some(secret(1)), Duration::ZERO, T0);
    assert_eq!(key, Err(UpdateError::WrongKey(Epoch(1))));
    assert!(commands(&mut a).is_empty());
    assert_eq!(
        a.handle_update(update, Some(secret(1)), Duration::ZERO, T0),
        Ok(()),
        "and is not stuck"
    );
}

#[test]
fn a_restarted_node_takes_the_epoch_in_force_again_but_nothing_older() {
    let mut mesh = Mesh::new();
    let first = mesh.publish(&[0, 1]);
    let second = mesh.publish(&[0, 1]);
    let high = HighWater {
        epoch: Epoch(2),
        digest: second.digest(),
    };
    let mut a = mesh.machine(0, high);
    let old = a.handle_update(first, Some(secret(1)), Duration::ZERO, T0);
    assert_eq!(
        old,
        Err(UpdateError::Old {
            have: Epoch(2),
            got: Epoch(1)
        })
    );
    assert_eq!(
        a.handle_update(second, Some(secret(2)), Duration::ZERO, T0),
        Ok(())
    );
    assert_eq!(
        commands(&mut a),
        [
            "install 2 peers 1 lead 5000 until Some(1305)",
            "ack 2 Installed"
        ]
    );
}

#[test]
fn what_a_reconnect_brings_again_is_neither_news_nor_an_error() {
    let mut mesh = Mesh::new();
    let (first, second) = (mesh.publish(&[0, 1]), mesh.publish(&[0, 1]));
    let mut a = mesh.machine(0, HighWater::default());
    a.handle_update(first.clone(), Some(secret(1)), Duration::from_secs(5), T0)
        .unwrap();
    a.handle_update(second.clone(), Some(secret(2)), Duration::ZERO, T0)
        .unwrap();
    commands(&mut a);
    assert_eq!(
        a.handle_update(first, Some(secret(1)), Duration::from_secs(6), T0),
        Ok(())
    );
    assert_eq!(
        a.handle_update(second, Some(secret(2)), Duration::ZERO, T0),
        Ok(())
    );
    assert!(commands(&mut a).is_empty());
}

#[test]
fn an_early_epoch_supersedes_the_one_that_waits() {
    let mut mesh = Mesh::new();
    let mut a = mesh.machine(0, HighWater::default());
    a.handle_update(
        mesh.publish(&[0, 1, 2]),
        Some(secret(1)),
        Duration::from_secs(5),
        T0,
    )
    .unwrap();
    a.handle_update(
        mesh.publish(&[0, 1, 2]),
        Some(secret(2)),
        Duration::ZERO,
        T0,
    )
    .unwrap();
    let mut now = mesh.draft(&[0, 1]);
    now.activate_in_ms = 0;
    let now = mesh.sign(&now);
    a.handle_update(now, Some(secret(3)), Duration::ZERO, T0)
        .unwrap();
    commands(&mut a);
    assert_eq!(a.view().update.unwrap().epoch, Epoch(3));
    a.handle_timeout(T0 + Duration::from_secs(5));
    assert_eq!(
        a.view().update.unwrap().epoch,
        Epoch(3),
        "epoch 2 never begins"
    );
    assert_eq!(commands(&mut a), ["discard"]);
}

#[test]
fn the_lease_ends_closed_or_open_as_the_update_says() {
    for (then, expected) in [
        (LeaseEnd::Close, vec!["discard", "close"]),
        (LeaseEnd::Open, vec!["discard"]),
    ] {
        let mut mesh = Mesh::new();
        let mut draft = mesh.draft(&[0, 1]);
        draft.on_lease_end = then;
        let update = mesh.sign(&draft);
        let mut a = mesh.machine(0, HighWater::default());
        a.handle_update(update, Some(secret(1)), Duration::from_secs(5), T0)
            .unwrap();
        commands(&mut a);
        a.handle_timeout(T0 + Duration::from_secs(300));
        assert_eq!(commands(&mut a), expected);
        assert!(a.view().lapsed);
        a.handle_update(
            mesh.publish(&[0, 1]),
            Some(secret(2)),
            Duration::from_secs(5),
            T0 + Duration::from_secs(400),
        )
        .unwrap();
        assert!(!a.view().lapsed, "and a newer update reopens it");
    }
}

#[test]
fn a_node_that_slept_past_activation_and_lease_wakes_closed() {
    let mut mesh = Mesh::new();
    let mut a = mesh.machine(0, HighWater::default());
    a.handle_update(mesh.publish(&[0, 1]), Some(secret(1)), Duration::ZERO, T0)
        .unwrap();
    commands(&mut a);
    a.handle_timeout(T0 + Duration::from_secs(100_000));
    assert_eq!(commands(&mut a).last().map(String::as_str), Some("close"));
}

/// A machine of a member that has epoch 1 in force, until 300 s after its beginning.
fn in_force(mesh: &mut Mesh) -> (Member, Verified<EpochUpdate>) {
    let mut a = mesh.machine(0, HighWater::default());
    let update = mesh.publish(&[0, 1, 2]);
    let age = Duration::from_secs(5);
    a.handle_update(update.clone(), Some(secret(1)), age, T0)
        .unwrap();
    commands(&mut a);
    (a, update)
}

#[test]
fn time_that_was_not_counted_shortens_the_lease_and_closes_nothing_that_it_outlasts() {
    let mut mesh = Mesh::new();
    let (mut a, _) = in_force(&mut mesh);
    let now = T0 + Duration::from_secs(10);
    assert!(!a.handle_lost_time(Duration::from_secs(100), now));
    assert_eq!(commands(&mut a), ["discard"], "the grace is over");
    let left = a.view().lease_end.unwrap() - now;
    assert_eq!(left, Duration::from_secs(190));
    // A newer update has its own lease.
    a.handle_update(mesh.publish(&[0, 1]), Some(secret(2)), Duration::ZERO, now)
        .unwrap();
    assert!(!a.handle_lost_time(Duration::from_secs(5), now));
    assert_eq!(a.view().update.unwrap().epoch, Epoch(2), "it is due");
    let left = a.view().lease_end.unwrap() - now;
    assert_eq!(left, Duration::from_secs(300));
}

#[test]
fn a_machine_that_stood_still_for_longer_than_its_lease_is_as_one_that_was_started_again() {
    let mut mesh = Mesh::new();
    let (mut a, first) = in_force(&mut mesh);
    let second = mesh.publish(&[0, 1, 2]);
    a.handle_update(second.clone(), Some(secret(2)), Duration::ZERO, T0)
        .unwrap();
    commands(&mut a);
    assert!(a.handle_lost_time(Duration::from_secs(3600), T0));
    assert_eq!(
        commands(&mut a),
        ["install 2 peers 0 lead 0 until Some(1000), close"],
        "nothing is left, not of the epoch that was on its way either"
    );
    assert!(a.view().lapsed && a.view().next.is_none());
    a.handle_timeout(T0 + Duration::from_secs(3600));
    assert_eq!(commands(&mut a), Vec::<String>::new());
    // The update that the controller has in force is taken, be it the same, but only as old as it is.
    let over = Duration::from_secs(305);
    let refused = a.handle_update(first.clone(), Some(secret(1)), over, T0);
    assert_eq!(refused, Err(UpdateError::LeaseOver(Epoch(1))));
    let age = Duration::from_secs(205);
    a.handle_update(first, Some(secret(1)), age, T0).unwrap();
    assert!(!a.view().lapsed);
    assert_eq!(a.view().lease_end, Some(T0 + Duration::from_secs(100)));
    a.handle_update(second, Some(secret(2)), Duration::from_secs(1), T0)
        .unwrap();
    // But nothing of before, and no other history.
    let forged = mesh.draft(&[0]);
    let other = Mesh::new();
    let forged = Signed::sign(
        &EpochUpdate {
            epoch: Epoch(1),
            ..forged
        },
        &other.authority,
    )
    .unwrap();
    let forged = forged.verify(&[other.authority.public()]).unwrap();
    let refused = a.handle_update(forged, Some(secret(1)), Duration::ZERO, T0);
    assert!(
        matches!(refused, Err(UpdateError::Old { .. })),
        "{refused:?}"
    );
}

#[test]
fn where_the_policy_stays_open_lost_time_closes_nothing() {
    let mut mesh = Mesh::new();
    let mut a = mesh.machine(0, HighWater::default());
    let open = EpochUpdate {
        on_lease_end: LeaseEnd::Open,
        ..mesh.draft(&[0, 1])
    };
    let age = Duration::from_secs(5);
    a.handle_update(mesh.sign(&open), Some(secret(1)), age, T0)
        .unwrap();
    commands(&mut a);
    assert!(!a.handle_lost_time(Duration::from_secs(3600), T0));
    assert_eq!(commands(&mut a), ["discard"]);
    assert!(a.view().lapsed);
}

#[test]
fn an_epoch_on_its_way_whose_lease_was_lost_never_begins() {
    let mut mesh = Mesh::new();
    let mut a = mesh.machine(0, HighWater::default());
    a.handle_update(mesh.publish(&[0, 1]), Some(secret(1)), Duration::ZERO, T0)
        .unwrap();
    commands(&mut a);
    assert!(a.handle_lost_time(Duration::from_secs(306), T0));
    assert_eq!(
        commands(&mut a),
        ["install 1 peers 0 lead 0 until Some(1000), close"]
    );
    assert!(a.view().update.is_none() && a.poll_timeout().is_none());
}

#[test]
fn the_same_update_again_only_ever_shortens_the_lease() {
    let mut mesh = Mesh::new();
    let (mut a, update) = in_force(&mut mesh);
    let now = T0 + Duration::from_secs(10);
    let mut again = |age: u64| {
        let age = Duration::from_secs(age);
        a.handle_update(update.clone(), Some(secret(1)), age, now)
            .unwrap();
        a.view().lease_end
    };
    assert_eq!(again(0), Some(T0 + Duration::from_secs(300)));
    assert_eq!(again(15), Some(T0 + Duration::from_secs(300)));
    assert_eq!(again(115), Some(T0 + Duration::from_secs(200)));
    assert_eq!(again(15), Some(T0 + Duration::from_secs(200)));
    assert_eq!(again(400), None, "by the controller's word it is over");
    assert_eq!(again(15), None);
}

#[test]
fn a_new_connection_hears_how_far_the_node_has_come() {
    let mut mesh = Mesh::new();
    let (mut a, _) = in_force(&mut mesh);
    a.handle_reconnect();
    assert_eq!(commands(&mut a), ["ack 1 Activated"]);
    a.handle_update(mesh.publish(&[1, 2]), None, Duration::ZERO, T0)
        .unwrap();
    commands(&mut a);
    a.handle_reconnect();
    assert_eq!(commands(&mut a), ["ack 1 Activated", "ack 2 Installed"]);
    a.handle_timeout(T0 + Duration::from_secs(5));
    commands(&mut a);
    a.handle_reconnect();
    assert_eq!(commands(&mut a), ["ack 2 Dark"]);
    assert!(a.handle_lost_time(Duration::from_secs(3600), T0));
    commands(&mut a);
    a.handle_reconnect();
    assert_eq!(commands(&mut a), Vec::<String>::new());
}

#[test]
fn a_commitment_is_what_the_secret_is_checked_against() {
    assert_ne!(secret(1).commitment(), Commitment([0; 32]));
}
