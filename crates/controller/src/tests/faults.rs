//! What a full disk, a changed log and a silent node may do: nothing by halves.

use super::*;

#[test]
fn on_a_full_disk_nothing_takes_effect_and_what_is_in_force_stays() {
    let mut world = World::new(Policy::default());
    let [a, b] = world.members(["a", "b"]);
    let (before, fleet) = (world.status(), world.engine.fleet.clone());
    world.engine.log.fill_up();

    world.pass(s(1));
    // Enough to need a new page of the database, which it will not get.
    let mut refused = 0;
    for _ in 0..20 {
        world.pass(ms(100));
        refused += u32::from(world.evidence(&a, 0.1).is_some());
    }
    assert!(refused > 0, "the disk is not full enough for this test");
    let reason = world.evidence(&a, 0.1);
    assert!(reason.unwrap().contains("cannot write its log"));
    let evict = Request::Evict(b.name.clone(), Default::default());
    assert_eq!(
        world.ask(evict).err().as_deref(),
        Some("the event log cannot be written")
    );
    assert!(!world.engine.fleet.node(&b.name).unwrap().evicted());
    world.pass(s(80));
    let after = world.status();
    assert_eq!(after.epoch, before.epoch, "the rotation was due and failed");
    assert_eq!(world.engine.fleet.roster(), fleet.roster());
    // Small events may still fit into the last page; in the end they do not.
    let token = || Request::CreateToken(TokenRequest::default());
    assert!((0..50).any(|_| world.ask(token()).is_err()));

    world.engine.log.free_up();
    world.pass(s(3));
    assert_eq!(world.epoch(), before.epoch.id + 1);
    world.restart(Policy::default(), s(1), "boot");
    assert_eq!(world.epoch(), before.epoch.id + 1);
}

#[test]
fn a_log_that_was_changed_stops_the_start_and_is_named() {
    let mut world = World::new(Policy::default());
    let [_a] = world.members(["a"]);
    let path = log::path_in(world.dir.path());
    drop(world.engine);
    let db = rusqlite::Connection::open(&path).unwrap();
    let sql =
        "UPDATE events SET body = replace(body, '0.9', '1.0') WHERE kind = 'evidence_accepted'";
    assert_eq!(db.execute(sql, []).unwrap(), 1);
    drop(db);
    let now = world.now;
    let error = start(path, Policy::default(), &world.authority, "boot", now).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("does not fit the chain"), "{error}");
}

#[test]
fn a_range_that_is_too_small_for_its_nodes_is_refused() {
    let mut world = World::new(Policy::default());
    for node in ["a", "b", "c"] {
        world.node(node);
    }
    let path = log::path_in(world.dir.path());
    drop(world.engine);
    let mut fleet = Fleet::default();
    let (log, contents) = Log::open(&path, |e| fleet.apply(e.at, &e.event)).unwrap();
    let setup = Setup {
        policy: Policy::default(),
        mesh_v4: ([10, 0, 0, 0].into(), 30),
        mesh_v6: None,
        advertise: Vec::new(),
        controller: ControllerId([1; 32]),
        authority: AuthoritySecret::from_base64(&world.authority).unwrap(),
        boot_id: "boot".into(),
    };
    let error = Engine::start(setup, log, fleet, contents, world.now).unwrap_err();
    assert!(error.to_string().contains("enlarge the range"), "{error}");
}

#[test]
fn a_node_that_floods_is_disconnected() {
    let mut world = World::new(Policy::default());
    let [a] = world.members(["a"]);
    for _ in 0..500 {
        world.say(a.connection, ToController::Report { peers: Vec::new() });
    }
    assert_eq!(world.closed[&a.connection], Refusal::Protocol);
}

#[test]
fn malformed_bytes_and_a_second_hello_end_the_connection() {
    let mut world = World::new(Policy::default());
    let [mut a] = world.members(["a"]);
    world.engine.handle_malformed(a.connection);
    world.collect();
    assert_eq!(world.closed[&a.connection], Refusal::Protocol);
    world.reconnect(&mut a);
    world.hello(a.connection);
    assert_eq!(world.closed[&a.connection], Refusal::Protocol);
}
