//! Enrolment: which key gets in, as which node, and with which token.

use super::*;
use wire::admin::EvictRequest;

fn world() -> World {
    World::new(Policy::default())
}

fn secret() -> NodeSecret {
    NodeSecret::generate(&mut OsRng)
}

#[test]
fn an_unknown_key_may_only_enrol() {
    let mut world = world();
    let id = world.connect(&secret());
    world.hello(id);
    assert_eq!(world.closed[&id], Refusal::NotEnrolled);
    let id = world.connect(&secret());
    let report = ToController::Report {
        segment: keys::SegmentId::FIRST,
        peers: Vec::new(),
        interface: wire::message::InterfaceReport::default(),
    };
    world.say(id, report);
    assert_eq!(world.closed[&id], Refusal::NotEnrolled);
    assert!(world.told.is_empty());
}

#[test]
fn a_token_admits_one_node_once() {
    let mut world = world();
    let token = world.token(None);
    let first = world.try_enrol(&secret(), wg(), Some("a"), &token);
    assert!(first.is_ok());
    let second = world.try_enrol(&secret(), wg(), Some("b"), &token);
    assert_eq!(second.unwrap_err(), Refusal::BadToken);
}

#[test]
fn a_reusable_token_admits_as_many_nodes_as_it_says_also_across_a_restart() {
    let mut world = world();
    let token = world.token_of(TokenRequest {
        uses: Some(3),
        ..TokenRequest::default()
    });
    for name in ["a", "b"] {
        assert!(world.try_enrol(&secret(), wg(), Some(name), &token).is_ok());
    }
    world.restart(Policy::default(), s(1), "boot");
    let shown = world.tokens().pop().unwrap();
    assert_eq!((shown.state.as_str(), shown.uses), ("open", 3));
    assert_eq!(shown.used_by, [name("a"), name("b")]);
    assert!(world.try_enrol(&secret(), wg(), Some("c"), &token).is_ok());
    let fourth = world.try_enrol(&secret(), wg(), Some("d"), &token);
    assert_eq!(fourth.unwrap_err(), Refusal::BadToken);
    assert_eq!(world.tokens()[0].state, "used");
}

#[test]
fn a_reusable_token_can_be_withdrawn_after_its_first_use() {
    let mut world = world();
    let token = world.token_of(TokenRequest {
        uses: Some(3),
        ..TokenRequest::default()
    });
    assert!(world.try_enrol(&secret(), wg(), Some("a"), &token).is_ok());
    let id = world.tokens()[0].id.clone();
    assert!(world.ask(Request::RevokeToken(id)).is_ok());
    assert_eq!(world.tokens()[0].used_by, [name("a")]);
    let second = world.try_enrol(&secret(), wg(), Some("b"), &token);
    assert_eq!(second.unwrap_err(), Refusal::BadToken);
}

#[test]
fn a_token_for_no_nodes_for_too_many_or_for_one_name_many_times_is_refused() {
    let mut world = world();
    for (uses, name, words) in [
        (0, None, "not 0"),
        (1_001, None, "not 1001"),
        (2, Some(name("a")), "one name"),
    ] {
        let form = TokenRequest {
            uses: Some(uses),
            name,
            ttl_seconds: None,
            segments: Vec::new(),
        };
        let refused = world.ask(Request::CreateToken(form)).err().unwrap();
        assert!(refused.contains(words), "{refused}");
    }
    assert!(world.tokens().is_empty());
}

#[test]
fn an_expired_or_revoked_token_admits_nobody() {
    let mut world = world();
    let token = world.token(None);
    world.pass(s(3_600));
    let refused = world.try_enrol(&secret(), wg(), None, &token);
    assert_eq!(refused.unwrap_err(), Refusal::BadToken);

    let token = world.token(None);
    let Ok(Answer::Tokens(list)) = world.ask(Request::Tokens) else {
        panic!("no list");
    };
    let states: Vec<_> = list.iter().map(|t| t.state.as_str()).collect();
    assert!(states.contains(&"expired") && states.contains(&"open"));
    for info in list {
        let _ = world.ask(Request::RevokeToken(info.id));
    }
    let refused = world.try_enrol(&secret(), wg(), None, &token);
    assert_eq!(refused.unwrap_err(), Refusal::BadToken);
}

#[test]
fn the_same_key_again_gets_the_same_place_without_a_token() {
    let mut world = world();
    let (key, wg_key) = (secret(), wg());
    let token = world.token(None);
    let (_, first) = world.try_enrol(&key, wg_key, Some("a"), &token).unwrap();
    let (_, again) = world.try_enrol(&key, wg_key, Some("b"), &token).unwrap();
    assert_eq!(first, again);
    assert_eq!(world.status().nodes.len(), 1);
}

#[test]
fn a_taken_name_needs_a_token_that_is_bound_to_it() {
    let mut world = world();
    let [old] = world.members(["a"]);
    let host = world.status_of(&old).v4;
    let token = world.token(None);
    let refused = world.try_enrol(&secret(), wg(), Some("a"), &token);
    assert_eq!(refused.unwrap_err(), Refusal::NameTaken);

    let token = world.token(Some("a"));
    let key = secret();
    let (_, enrolled) = world.try_enrol(&key, wg(), Some("z"), &token).unwrap();
    assert_eq!(enrolled, old.name, "the token's name counts");
    assert_eq!(world.closed[&old.connection], Refusal::NotEnrolled);
    let node = world.status_of(&old);
    assert_eq!(node.node, key.public().to_string());
    assert_eq!(node.v4, host, "the address stays with the name");
    assert!(node.last_benchmark.is_none());
    assert_eq!(node.reason.as_deref(), Some("no benchmark"));
}

#[test]
fn a_member_with_new_keys_is_replaced_at_once_and_its_old_connection_gets_no_secret() {
    let policy = Policy {
        probation_epochs: 3,
        ..Policy::default()
    };
    let mut world = World::new(policy);
    let [old, other] = world.members(["a", "b"]);
    let seen = world.told[&old.connection].len();
    let epoch = world.epoch();
    let token = world.token(Some("a"));
    let key = secret();
    world.try_enrol(&key, wg(), None, &token).unwrap();
    assert_eq!(world.epoch(), epoch + 1);
    let (update, _) = world.update(&other);
    assert!(update.member(&old.secret.public()).is_none());
    let secrets = world.told[&old.connection].iter().skip(seen);
    let leaked = secrets.filter(|m| matches!(m, ToNode::Update(u) if u.secret.is_some()));
    assert_eq!(leaked.count(), 0);
    // It is on what is left of its probation, so it may be a member with its new key.
    assert!(update.member(&key.public()).is_some());
    world.pass(s(2));
    let name = &old.name;
    assert!(
        world
            .engine
            .fleet()
            .standings(SegmentId::FIRST)
            .roster()
            .contains(name)
    );
}

#[test]
fn a_lost_wireguard_key_is_replaced_with_a_token_and_evidence_stays() {
    let mut world = world();
    let [node] = world.members(["a"]);
    let new = wg();
    let token = world.token(None);
    world.try_enrol(&node.secret, new, None, &token).unwrap();
    let status = world.status_of(&node);
    assert_eq!(status.wireguard, new.to_base64());
    assert!(status.last_benchmark.is_some());
    let segment = world.engine.segments().first();
    let newest = segment.newest().unwrap().epoch;
    let update = &segment.issue(newest).unwrap().update;
    assert_eq!(update.roster[0].wg, new);
    assert_ne!(new, node.wg);
}

#[test]
fn a_wireguard_key_belongs_to_one_node() {
    let mut world = world();
    let node = world.node("a");
    let token = world.token(None);
    let refused = world.try_enrol(&secret(), node.wg, Some("b"), &token);
    assert_eq!(refused.unwrap_err(), Refusal::KeyTaken);
}

#[test]
fn a_node_without_a_name_is_named_after_its_key() {
    let mut world = world();
    let key = secret();
    let token = world.token(None);
    let (_, name) = world.try_enrol(&key, wg(), None, &token).unwrap();
    assert_eq!(name.as_str(), format!("node-{}", key.public().short()));
}

#[test]
fn a_connection_that_says_nothing_is_closed_soon() {
    let mut world = world();
    let ids: Vec<_> = (0..65).map(|_| world.connect(&secret())).collect();
    world.pass(s(4));
    assert!(world.closed.is_empty());
    world.pass(s(1));
    assert_eq!(world.closed.len(), ids.len());
}

#[test]
fn weak_keys_are_not_enrolled() {
    let mut world = world();
    let token = world.token(None);
    let mut high = wg();
    high.0[31] |= 0x80;
    for key in [WgPublicKey([0; 32]), high] {
        let refused = world.try_enrol(&secret(), key, Some("a"), &token);
        assert_eq!(refused.unwrap_err(), Refusal::WeakKey);
    }
    assert!(world.try_enrol(&secret(), wg(), Some("a"), &token).is_ok());
}

#[test]
fn an_eviction_outlives_new_keys() {
    let mut world = world();
    let [node] = world.members(["a"]);
    let reason = Some("lies".to_owned());
    let evict = Request::Evict(
        node.name.clone(),
        EvictRequest {
            reason: reason.clone(),
        },
    );
    assert!(world.ask(evict).is_ok());
    let token = world.token(Some("a"));
    let key = secret();
    world.try_enrol(&key, wg(), None, &token).unwrap();
    world.pass(s(120));
    // Whose word it was is in the log, and not in the memory of the process alone.
    world.restart(Policy::default(), s(1), "boot");
    let status = world.status_of(&node);
    assert_eq!(status.state, wire::admin::NodeState::Evicted);
    assert_eq!(status.reason.as_deref(), Some("evicted by uid:1000: lies"));
    let eviction = status.eviction.unwrap();
    assert_eq!(
        (eviction.by.as_deref(), eviction.reason),
        (Some("uid:1000"), reason)
    );
}
