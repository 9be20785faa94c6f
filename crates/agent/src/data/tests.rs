//! A change in its steps is the change.

use super::*;
use keys::WgSecret;
use rand_core::OsRng;
use std::collections::BTreeMap;
use tunnel::{LoneTunnel, Path};
use wire::fixtures;

const NOW: Duration = Duration::from_secs(1_000);

fn door(own: &WgSecret) -> LoneTunnel {
    let range = IpAddr::from([10, 76, 0, 1]);
    LoneTunnel::new(
        100,
        tunnel::Config {
            secret: own.duplicate(),
            mtu: 1420,
            seed: 1,
            inside: tunnel::Inside {
                own: vec![range],
                ranges: vec![tunnel::Range::new(range, 8)],
            },
        },
    )
}

fn plan(own: &WgSecret, number: u32, epoch: u8) -> PeerPlan {
    let key = (0..).find_map(|salt: u8| {
        let mut key = [salt; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        own.shared_with(&WgPublicKey(key))
            .map(|shared| (WgPublicKey(key), shared))
    });
    let (wg, shared) = key.expect("most keys are good");
    let [_, a, b, c] = number.to_be_bytes();
    let member = wire::Member {
        wg,
        v4: [10, a, b, c].into(),
        routes: vec![network(number)],
        ..fixtures::member(2)
    };
    PeerPlan {
        member,
        psk: Psk::from_bytes([epoch; 32]),
        shared: shared.into(),
    }
}

/// The network behind a peer.
fn network(number: u32) -> Prefix {
    let [_, a, b, c] = number.to_be_bytes();
    Prefix::new([172 + a, b, c, 0].into(), 24).unwrap()
}

fn change(
    own: &WgSecret,
    epoch: u8,
    numbers: impl Iterator<Item = u32>,
    begins: bool,
) -> DataChange {
    let peers: Vec<_> = numbers.map(|number| plan(own, number, epoch)).collect();
    let place = |peer: &PeerPlan| (peer.member.wg, vec![SocketAddr::from((peer.member.v4, 7))]);
    let mut places: Places = peers.iter().map(place).collect();
    for (_, at) in &mut places {
        at[0].set_ip([192, 0, 2, 1].into());
    }
    let install = Install {
        epoch: Epoch(epoch.into()),
        peers,
        rules: Box::default(),
        own: wire::rules::Groups::default(),
        behind: Vec::new(),
        lead: Duration::ZERO,
        closes_at: Some(NOW + Duration::from_secs(300)),
    };
    let change = EpochChange {
        keep: None,
        install: Some(install),
        turn: begins.then_some(Turn::Begin(Epoch(epoch.into()))),
    };
    DataChange::Epoch(change, places)
}

/// An epoch in force with its PSK, and an endpoint.
type Seen = (Option<(u64, [u8; 32])>, Option<Path>);

/// How many of these peers have their network behind them.
fn routed(door: &LoneTunnel, own: &WgSecret, numbers: impl Iterator<Item = u32>) -> usize {
    let has = |number: &u32| {
        let key = plan(own, *number, 1).member.wg;
        door.peer_at(network(*number).address()) == Some(key)
    };
    numbers.filter(has).count()
}

/// Each peer with its epoch in force, its PSK and its endpoint.
fn state(door: &mut LoneTunnel) -> BTreeMap<WgPublicKey, Seen> {
    let peers = door.snapshot(NOW);
    let peers = peers.into_iter().map(|peer| {
        let psk = door.current_psk(&peer.key);
        let psk = psk.map(|(epoch, psk)| (epoch.0, *psk.expose()));
        (peer.key, (psk, peer.endpoint))
    });
    peers.collect()
}

#[test]
fn the_steps_of_a_large_change_do_what_the_change_does() {
    let own = WgSecret::generate(&mut OsRng);
    let (mut whole, mut stepwise) = (door(&own), door(&own));
    for door in [&mut whole, &mut stepwise] {
        door.agree_to_networks(Vec::new(), true);
    }
    for (epoch, from, to, begins) in [
        (1, 0, 600, true),
        (2, 0, 700, false),
        (3, 100, 800, true),
        (4, 100, 200, true),
    ] {
        let again = || change(&own, epoch, from..to, begins);
        assert!(again().carry_out(&mut whole, NOW).is_empty());
        let steps = again().steps();
        assert_eq!(steps.len() > 1, to - from > 256);
        for step in steps {
            assert!(step.carry_out(&mut stepwise, NOW).is_empty());
        }
        assert_eq!(state(&mut whole), state(&mut stepwise), "epoch {epoch}");
        if begins {
            let all = [&whole, &stepwise].map(|door| routed(door, &own, 0..800));
            assert_eq!(all, [(to - from) as usize; 2], "epoch {epoch}");
        }
    }
    assert_eq!(state(&mut whole).len(), 100);
}

#[test]
fn a_peer_that_a_large_epoch_without_lead_leaves_out_is_gone_with_the_first_step() {
    let own = WgSecret::generate(&mut OsRng);
    let mut door = door(&own);
    change(&own, 1, 0..600, true).carry_out(&mut door, NOW);
    let mut steps = change(&own, 2, 1..1_000, true).steps().into_iter();
    let first = steps.next().expect("there are several");
    first.carry_out(&mut door, NOW);
    let left = state(&mut door);
    assert_eq!(left.len(), 599, "one is out, and nobody is in yet");
    assert!(
        left.values()
            .all(|(psk, _)| psk.is_some_and(|(epoch, _)| epoch == 1))
    );
    for step in steps {
        let in_force = state(&mut door);
        let in_force: std::collections::BTreeSet<_> = in_force
            .values()
            .filter_map(|(psk, _)| psk.map(|(epoch, _)| epoch))
            .collect();
        assert_eq!(
            in_force.into_iter().collect::<Vec<_>>(),
            [1],
            "all begin together"
        );
        step.carry_out(&mut door, NOW);
    }
    assert_eq!(state(&mut door).len(), 999);
}
