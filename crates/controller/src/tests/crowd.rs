//! Many nodes come at once: what everybody is told of those that have shown nothing yet.

use super::*;
use wire::update::UNHEARD;

/// Nodes that are enrolled, without a word from them.
fn crowd(world: &mut World, nodes: usize) -> Vec<NodeSecret> {
    let uses = u32::try_from(nodes).unwrap();
    let token = world.token_of(TokenRequest {
        uses: Some(uses),
        ..TokenRequest::default()
    });
    let secrets: Vec<_> = (0..nodes)
        .map(|_| NodeSecret::generate(&mut OsRng))
        .collect();
    for secret in &secrets {
        assert!(world.try_enrol(secret, wg(), None, &token).is_ok());
        // Enrolments have an allowance.
        world.forward(ms(10));
    }
    secrets
}

#[test]
fn of_many_that_were_never_heard_an_update_names_none_and_of_a_few_all() {
    let mut world = World::new(Policy::default());
    let [a] = world.members(["a"]);
    let few = crowd(&mut world, 64);
    world.rotate(true, false);
    let (update, _) = world.update(&a);
    assert_eq!(update.excluded.len(), 64);
    let unheard = few[0].public();
    assert_eq!(update.exclusion(&unheard).unwrap().reason, UNHEARD);

    let mut world = World::new(Policy::default());
    let [a] = world.members(["a"]);
    let bad = world.node("bad");
    world.evidence(&bad, 0.1);
    let many = crowd(&mut world, 65);
    world.rotate(true, false);
    let (update, _) = world.update(&a);
    let named: Vec<&str> = update.excluded.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(named, ["bad"], "it was heard, and fails");
    // Those that are not named know their reason all the same.
    assert_eq!(update.denial(&many[0].public()), Some(UNHEARD));
    assert_eq!(update.denial(&a.secret.public()), None);
}
