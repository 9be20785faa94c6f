//! A full disk, a changed log and a silent node: they do nothing by halves.

use super::*;

#[test]
fn on_a_full_disk_nothing_takes_effect_and_what_is_in_force_stays() {
    let mut world = World::new(Policy::default());
    let [a, b] = world.members(["a", "b"]);
    let (before, fleet) = (world.status(), world.engine.fleet().clone());
    world.engine.log().fill_up();

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
    assert!(!world.engine.fleet().node(&b.name).unwrap().evicted());
    world.pass(s(80));
    let after = world.status();
    assert_eq!(after.epoch, before.epoch, "the rotation was due and failed");
    assert_eq!(
        world.engine.fleet().standings(SegmentId::FIRST).roster(),
        fleet.standings(SegmentId::FIRST).roster()
    );
    // Small events may still fit into the last page; in the end they do not.
    let token = || Request::CreateToken(TokenRequest::default());
    assert!((0..50).any(|_| world.ask(token()).is_err()));

    world.engine.log().free_up();
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
        "UPDATE entries SET body = replace(body, '0.9', '1.0') WHERE kind = 'evidence_accepted'";
    assert_eq!(db.execute(sql, []).unwrap(), 1);
    drop(db);
    let now = world.now;
    let error = start(path, Policy::default(), &world.authority, "boot", None, now).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("checkpoint"), "{error}");
}

#[test]
fn a_range_that_is_too_small_for_its_nodes_is_refused() {
    let mut world = World::new(Policy::default());
    for node in ["a", "b", "c"] {
        world.node(node);
    }
    let path = log::path_in(world.dir.path());
    drop(world.engine);
    let authority = AuthoritySecret::from_base64(&world.authority).unwrap();
    let trusted = [authority.public()];
    let Opened { log, fleet, epochs } = Log::open(&path, log_key(), &trusted).unwrap();
    let setup = Setup {
        segments: crate::setup::SegmentSetup::only(
            Policy::default(),
            ([10, 0, 0, 0].into(), 30),
            None,
        ),
        advertise: Vec::new(),
        controller: ControllerId([1; 32]),
        enrolment: Default::default(),
        authority,
        boot_id: "boot".into(),
        log_name: "test".into(),
        keep_evidence: Duration::ZERO,
    };
    let error = Engine::start(setup, log, fleet, epochs, world.now).unwrap_err();
    assert!(error.to_string().contains("enlarge the range"), "{error}");
}

#[test]
fn what_may_not_be_read_and_a_second_hello_end_the_connection() {
    let mut world = World::new(Policy::default());
    let [mut a] = world.members(["a"]);
    for reason in [Refusal::Protocol, Refusal::TooMuch] {
        world.engine.handle_refused(a.connection, reason);
        world.collect();
        assert_eq!(world.closed[&a.connection], reason);
        world.reconnect(&mut a);
    }
    world.hello(a.connection);
    assert_eq!(world.closed[&a.connection], Refusal::Protocol);
}

#[test]
fn a_member_that_moves_all_the_time_is_told_of_now_and_then_and_where_it_came_to_rest() {
    let mut world = World::new(Policy::default());
    let [a, b] = world.members(["a", "b"]);
    let news = |world: &World| -> Vec<u16> {
        let told = world.told[&b.connection].iter();
        let of_a = |m: &ToNode| match m {
            ToNode::Endpoints { entries, .. } => entries
                .decode()
                .unwrap()
                .iter()
                .find(|(node, _)| *node == a.secret.public())
                .map(|(_, at)| at[0].port()),
            _ => None,
        };
        told.filter_map(of_a).collect()
    };
    let before = news(&world).len();
    for port in 1..=390 {
        let endpoints = ToController::Endpoints {
            listen_port: port,
            advertised: Vec::new(),
            addresses: Vec::new(),
        };
        world.say(a.connection, endpoints);
    }
    assert!(news(&world).len() - before <= 4, "{:?}", news(&world));
    world.pass(s(2));
    let told = news(&world);
    assert!(told.len() - before <= 6, "{told:?}");
    assert_eq!(told.last(), Some(&390), "the newest place arrives");
    assert!(!world.closed.contains_key(&b.connection));
}

#[test]
fn an_evicted_node_adds_nothing_to_the_log() {
    let mut world = World::new(Policy::default());
    let [a, _b] = world.members(["a", "b"]);
    let evict = Request::Evict(a.name.clone(), Default::default());
    assert!(world.ask(evict).is_ok());
    let before = world.engine.log().head();
    for _ in 0..50 {
        world.pass(ms(200));
        let refused = world.evidence(&a, 0.9).unwrap();
        assert!(refused.contains("evicted"), "{refused}");
    }
    assert_eq!(world.engine.log().head(), before);
    assert!(world.ask(Request::Readmit(a.name.clone())).is_ok());
    assert_eq!(world.evidence(&a, 0.9), None);
}

#[test]
fn what_a_node_may_have_kept_of_its_evidence_is_bounded_by_the_day() {
    let mut world = World::new(Policy::default());
    let [a] = world.members(["a"]);
    // As large as evidence can be: 256 metrics with long names.
    let metrics: BTreeMap<String, f64> = (0..256).map(|n| (format!("{n:0>120}"), 0.9)).collect();
    let (mut kept, mut refused) = (0, String::new());
    for _ in 0..4_000 {
        world.forward(ms(100));
        let run = Benchmark {
            metrics: metrics.clone(),
            ..world.run()
        };
        let envelope = run.attest_self("a", &a.secret).unwrap();
        match world.envelope(&a, envelope) {
            None => kept += 1,
            Some(reason) => refused = reason,
        }
        if refused.contains("a day") {
            break;
        }
    }
    assert!(refused.contains("256 MiB of evidence a day"), "{refused}");
    assert!(
        (250..700).contains(&kept),
        "{kept} pieces of some 80 kB were kept"
    );
    // Another day is another allowance, and small evidence needs little of it.
    world.pass(s(60));
    assert_eq!(world.evidence(&a, 0.9), None);
}

#[test]
fn a_clock_that_is_set_back_does_not_freeze_membership() {
    let mut world = World::new(Policy::default());
    let [_a, b] = world.members(["a", "b"]);
    world.now.wall -= s(3_600);
    // The node has stopped; by the wall clock its evidence comes from the future.
    world.pass(s(1));
    let Ok(Answer::Explanation(said)) = world.ask(Request::Explain(b.name.clone(), None)) else {
        panic!("no explanation");
    };
    let age = said.rules.iter().find(|r| r.rule.contains("age")).unwrap();
    assert!(!age.holds && age.value.contains("ahead"), "{age:?}");
    world.pass(s(70));
    assert_eq!(
        world.status_of(&b).membership,
        wire::admin::Membership::Denied
    );
    // New evidence replaces what came from the future, and ages by the clock that nobody sets.
    assert_eq!(world.evidence(&b, 0.9), None);
    world.pass(s(70));
    assert_eq!(
        world.status_of(&b).membership,
        wire::admin::Membership::Allowed
    );
    for _ in 0..20 {
        world.pass(s(10));
        world.now.wall -= s(10);
    }
    assert_eq!(
        world.status_of(&b).membership,
        wire::admin::Membership::Denied
    );
}

#[test]
fn evidence_answers_to_an_epoch_of_this_mesh() {
    let mut world = World::new(Policy::default());
    let [a] = world.members(["a"]);
    let send = |world: &mut World, mesh, challenge| {
        world.pass(s(1));
        let run = world.run().bound_to(mesh, challenge);
        let envelope = run.attest_self("a", &a.secret).unwrap();
        world.envelope(&a, envelope)
    };
    let mesh = world.engine.fleet().mesh().unwrap();
    let challenge = world.challenge();
    assert_eq!(send(&mut world, mesh, challenge), None);
    let refused = send(&mut world, keys::MeshId([9; 16]), challenge).unwrap();
    assert!(refused.contains("does not name this mesh"), "{refused}");
    let refused = send(&mut world, mesh, None).unwrap();
    assert!(refused.contains("without the challenge"), "{refused}");
    let refused = send(&mut world, mesh, Some(Digest([9; 32]))).unwrap();
    assert!(refused.contains("published lately"), "{refused}");
}

#[test]
fn while_no_evidence_can_be_kept_nobody_is_judged_and_epochs_go_on() {
    for revoke in [policy::Revoke::Epoch, policy::Revoke::Now] {
        let policy = Policy {
            revoke,
            epoch_seconds: 10,
            ..Policy::default()
        };
        let mut world = World::new(policy);
        let [a, b] = world.members(["a", "b"]);
        world.engine.tidy(world.now);
        world.engine.log().fill_up();
        // Something that must be written spends the reserve; the test's way of filling the disk takes
        // nothing all the same.
        let large = TokenRequest {
            name: None,
            ttl_seconds: None,
            uses: None,
            segments: Vec::new(),
        };
        let mut tries = 0..200;
        while !world.engine.log().has_spent_its_room() && tries.next().is_some() {
            let _ = world.ask(Request::CreateToken(large.clone()));
            let _ = world.evidence(&a, 0.9);
            world.pass(ms(100));
        }
        assert!(world.engine.log().is_short_of_room());
        world.engine.log().free_up();
        // Evidence comes all the time, and is refused; everything of it turns stale.
        let before = world.epoch();
        for _ in 0..600 {
            world.pass(ms(500));
            if let Some(refused) = world.evidence(&a, 0.9) {
                assert!(refused.contains("cannot write"), "{refused}");
            }
        }
        assert!(world.epoch() >= before + 25, "epochs go on");
        for node in [&a, &b] {
            let membership = world.status_of(node).membership;
            assert_eq!(membership, wire::admin::Membership::Allowed, "{revoke:?}");
        }
        assert_eq!(
            world.status().alarms.len(),
            1,
            "{:?}",
            world.status().alarms
        );
        // An operator can exclude all the same.
        let evict = Request::Evict(b.name.clone(), Default::default());
        assert!(world.ask(evict).is_ok());
        world.engine.tidy(world.now);
        world.pass(s(6));
        world.engine.tidy(world.now);
        assert_eq!(world.evidence(&a, 0.9), None);
        world.pass(s(140));
        let status = world.status_of(&a);
        assert_eq!(
            status.membership,
            wire::admin::Membership::Denied,
            "judged again"
        );
    }
}

#[test]
fn bad_tokens_take_nothing_from_those_who_hold_a_good_one() {
    let mut world = World::new(Policy::default());
    for _ in 0..500 {
        let mut bad = world.token(None);
        bad.secret = TokenSecret::generate(&mut OsRng);
        let key = NodeSecret::generate(&mut OsRng);
        let refused = world.try_enrol(&key, wg(), None, &bad).unwrap_err();
        assert_eq!(refused, Refusal::BadToken);
    }
    let token = world.token(None);
    let key = NodeSecret::generate(&mut OsRng);
    assert!(world.try_enrol(&key, wg(), Some("a"), &token).is_ok());
}
