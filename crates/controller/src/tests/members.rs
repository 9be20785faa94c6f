//! An operator's word on who belongs to the mesh: approval, rejection, removal for good.

use super::*;
use crate::EnrolmentMode;
use wire::admin::EvictRequest;

fn secret() -> NodeSecret {
    NodeSecret::generate(&mut OsRng)
}

fn because(reason: &str) -> EvictRequest {
    EvictRequest {
        reason: Some(reason.into()),
    }
}

fn approving() -> World {
    let mut world = World::new(Policy {
        probation_epochs: 3,
        ..Policy::default()
    });
    world.engine.set_enrolment(EnrolmentMode::Approve);
    world
}

/// Asks to be enrolled, and is told to wait.
fn wait(world: &mut World, key: &NodeSecret, wg: WgPublicKey, token: &Token) -> ConnectionId {
    let id = world.connect(key);
    world.say(id, ToController::Enrol(enrol(token, wg, "a")));
    let last = world.told[&id].last();
    assert!(matches!(last, Some(ToNode::Waiting { .. })), "{last:?}");
    id
}

fn enrol(token: &Token, wg: WgPublicKey, wanted: &str) -> Enrol {
    Enrol {
        token: TokenSecret::from_bytes(*token.secret.expose()),
        name: Some(name(wanted)),
        segments: vec![wire::Ask::unnamed(wg)],
        addresses: Vec::new(),
    }
}

fn by_of(world: &mut World, kind: &str) -> Vec<Option<String>> {
    let kind = Some(kind.to_owned());
    let list = world.events(Page {
        kind,
        ..Page::default()
    });
    list.events.into_iter().map(|event| event.by).collect()
}

#[test]
fn a_node_has_no_place_until_an_operator_approves_and_hears_of_it_on_its_connection() {
    let mut world = approving();
    let (key, wg_key) = (secret(), wg());
    let token = world.token(None);
    let id = wait(&mut world, &key, wg_key, &token);
    let status = world.status();
    assert!(status.nodes.is_empty());
    let shown = &status.waiting[&name("a")];
    assert_eq!(shown.node, key.public().to_string());
    assert!(shown.address.is_some() && !shown.replaces);
    // For as long as it takes.
    world.pass(s(3_000));
    assert!(!world.closed.contains_key(&id));
    // It has spent the token, and lost its connection: it need not show it again, and nobody else can use it.
    let again = wait(&mut world, &key, wg_key, &token);
    assert_eq!(world.closed[&id], Refusal::Superseded);
    let other = world.try_enrol(&secret(), wg(), Some("b"), &token);
    assert_eq!(other.unwrap_err(), Refusal::BadToken);
    // The name is spoken for.
    let token = world.token(None);
    let other = world.try_enrol(&secret(), wg(), Some("a"), &token);
    assert_eq!(other.unwrap_err(), Refusal::NameTaken);

    assert!(world.ask(Request::Approve(name("a"))).is_ok());
    let place = world.told[&again].last();
    assert!(matches!(place, Some(ToNode::Enrolled(_))), "{place:?}");
    world.hello(again);
    world.pass(s(2));
    let status = world.status();
    assert!(status.waiting.is_empty());
    assert_eq!(status.nodes[&name("a")].node, key.public().to_string());
    assert_eq!(by_of(&mut world, "node_waiting"), [None]);
    assert_eq!(
        by_of(&mut world, "node_enrolled"),
        [Some("uid:1000".to_owned())]
    );
    assert_eq!(
        world.tokens().iter().map(|it| it.used_by.len()).max(),
        Some(1)
    );
    assert!(
        world.ask(Request::Approve(name("a"))).is_err(),
        "nobody waits"
    );
}

#[test]
fn those_who_wait_are_remembered_across_a_restart_and_a_rejected_one_is_told() {
    let mut world = approving();
    let (key, wg_key) = (secret(), wg());
    let token = world.token(None);
    wait(&mut world, &key, wg_key, &token);
    world.restart(Policy::default(), s(1), "boot");
    let shown = world.status().waiting.remove(&name("a")).unwrap();
    assert_eq!(shown.address, None, "it is not connected");
    let id = wait(&mut world, &key, wg_key, &token);
    let reject = Request::Reject(name("a"), because("not ours"));
    assert!(world.ask(reject).is_ok());
    assert_eq!(world.closed[&id], Refusal::Rejected);
    assert!(world.status().waiting.is_empty());
    let refused = world.try_enrol(&key, wg_key, None, &token);
    assert_eq!(refused.unwrap_err(), Refusal::BadToken);
    assert_eq!(
        by_of(&mut world, "node_rejected"),
        [Some("uid:1000".to_owned())]
    );
}

#[test]
fn new_keys_under_a_token_for_the_name_wait_as_well_and_the_old_ones_serve_until_then() {
    let mut world = approving();
    world.engine.set_enrolment(EnrolmentMode::Token);
    let [old] = world.members(["a"]);
    world.engine.set_enrolment(EnrolmentMode::Approve);
    let token = world.token(Some("a"));
    let key = secret();
    wait(&mut world, &key, wg(), &token);
    assert!(world.status().waiting[&old.name].replaces);
    assert_eq!(world.status_of(&old).node, old.secret.public().to_string());
    assert!(world.ask(Request::Approve(old.name.clone())).is_ok());
    assert_eq!(world.status_of(&old).node, key.public().to_string());
    assert!(
        world.closed.contains_key(&old.connection),
        "the old key is out"
    );
}

#[test]
fn a_removed_node_is_out_at_once_its_name_and_address_are_free_and_its_keys_are_banned() {
    let mut world = World::new(Policy {
        probation_epochs: 3,
        ..Policy::default()
    });
    let [a, b] = world.members(["a", "b"]);
    let (address, epoch) = (world.status_of(&a).v4, world.epoch());
    let seen = world.told[&a.connection].len();
    let remove = Request::Remove(a.name.clone(), because("sold"));
    let Ok(Answer::Change(change)) = world.ask(remove) else {
        panic!("not removed");
    };
    assert_eq!((change.epoch, change.members), (epoch + 1, 1));
    assert_eq!(world.closed[&a.connection], Refusal::Banned);
    let told = world.told[&a.connection].iter().skip(seen);
    let secrets = told.filter(|it| matches!(it, ToNode::Update(it) if it.secret.is_some()));
    assert_eq!(secrets.count(), 0);
    let (update, _) = world.update(&b);
    assert!(update.member(&a.secret.public()).is_none());
    assert!(!world.status().nodes.contains_key(&a.name));
    assert_eq!(
        by_of(&mut world, "node_removed"),
        [Some("uid:1000".to_owned())]
    );

    // Neither key comes back, also after a restart and with a good token.
    world.restart(Policy::default(), s(1), "boot");
    let token = world.token(None);
    let refused = world.try_enrol(&a.secret, wg(), Some("c"), &token);
    assert_eq!(refused.unwrap_err(), Refusal::Banned);
    let refused = world.try_enrol(&secret(), a.wg, Some("c"), &token);
    assert_eq!(refused.unwrap_err(), Refusal::Banned);
    // Somebody else may have name and address.
    let (_, enrolled) = world.try_enrol(&secret(), wg(), Some("a"), &token).unwrap();
    assert_eq!(enrolled, a.name);
    let status = world.status();
    assert_eq!(status.nodes[&a.name].v4, address);
    assert!(status.nodes[&a.name].last_benchmark.is_none());

    let key = a.secret.public();
    assert!(world.ask(Request::Unban(key)).is_ok());
    assert!(world.ask(Request::Unban(key)).is_err());
    let token = world.token(None);
    assert!(world.try_enrol(&a.secret, a.wg, Some("c"), &token).is_ok());
}

#[test]
fn a_node_that_is_no_member_or_was_evicted_is_removed_without_an_epoch() {
    let mut world = World::new(Policy::default());
    let [a] = world.members(["a"]);
    assert!(
        world
            .ask(Request::Evict(a.name.clone(), because("x")))
            .is_ok()
    );
    world.pass(s(60));
    let epoch = world.epoch();
    assert!(
        world
            .ask(Request::Remove(a.name.clone(), because("y")))
            .is_ok()
    );
    assert_eq!(world.epoch(), epoch);
    assert!(world.ask(Request::Remove(a.name, because("z"))).is_err());
}

#[test]
fn an_evaluators_word_for_its_next_key_is_on_record_and_a_false_one_is_not() {
    let mut world = World::new(Policy::default());
    let (old, new) = (
        keys::EvaluatorSecret::generate(&mut OsRng),
        keys::EvaluatorSecret::generate(&mut OsRng),
    );
    let word = wire::succession::EvaluatorSuccession::sign(&old, new.public());
    let mut false_word = word.clone();
    std::mem::swap(&mut false_word.old, &mut false_word.new);
    let refused = world
        .ask(Request::RotateEvaluator(false_word))
        .err()
        .unwrap();
    assert!(refused.contains("signature"), "{refused}");
    assert!(world.ask(Request::RotateEvaluator(word)).is_ok());
    assert_eq!(
        by_of(&mut world, "evaluator_rotated"),
        [Some("uid:1000".to_owned())]
    );
    world.restart(Policy::default(), s(1), "boot");
}
