//! PSKs that are derived apart: what happens to an update while they are, and that nobody whom it leaves out
//! gains anything by it.

use super::*;

const LEAD: Duration = Duration::from_secs(5);

fn machine(mesh: &Mesh) -> Member {
    let mut machine = mesh.machine(0, HighWater::default());
    machine.set_derive_at_once(0);
    machine
}

/// The machine's commands, in words, and the derivations among them.
fn commands_and_work(machine: &mut Member) -> (Vec<String>, Vec<Derivation>) {
    let (mut words, mut work) = (Vec::new(), Vec::new());
    while let Some(command) = machine.poll_command() {
        match command {
            Command::Derive(derivation) => {
                words.push("derive".into());
                work.push(derivation);
            }
            other => {
                machine.commands.push_front(other);
                let rest = std::mem::take(&mut machine.commands);
                let mut rest = rest.into_iter();
                machine.commands.extend(rest.next());
                words.extend(commands(machine));
                machine.commands.extend(rest);
            }
        }
    }
    (words, work)
}

/// Takes an update without age; its derivation.
fn take(machine: &mut Member, update: &Verified<EpochUpdate>, now: Duration) -> Derivation {
    let epoch = update.epoch.0;
    machine
        .handle_update(update.clone(), Some(secret(epoch)), Duration::ZERO, now)
        .unwrap();
    let (_, mut work) = commands_and_work(machine);
    work.pop().expect("PSKs are to be derived")
}

/// One whose first epoch, of all three nodes, is in force and without a grace.
fn running(mesh: &mut Mesh) -> Member {
    let mut machine = machine(mesh);
    let first = mesh.publish(&[0, 1, 2]);
    let derived = take(&mut machine, &first, T0).run().unwrap();
    machine.handle_derived(derived, T0);
    machine.handle_timeout(T0 + LEAD);
    machine.handle_timeout(T0 + LEAD * 2);
    commands(&mut machine);
    machine
}

fn urgent(mesh: &mut Mesh, members: &[usize]) -> Verified<EpochUpdate> {
    let draft = EpochUpdate {
        activate_in_ms: 0,
        ..mesh.draft(members)
    };
    mesh.sign(&draft)
}

#[test]
fn an_update_is_installed_when_its_psks_are_there() {
    let mut mesh = Mesh::new();
    let mut a = machine(&mesh);
    let update = mesh.publish(&[0, 1, 2]);
    a.handle_update(update.clone(), Some(secret(1)), Duration::ZERO, T0)
        .unwrap();
    let (words, mut work) = commands_and_work(&mut a);
    assert_eq!(words, ["keep 3", "derive"]);
    assert_eq!(a.view().next.unwrap().epoch, Epoch(1), "it is on its way");
    a.handle_reconnect();
    assert!(commands(&mut a).is_empty(), "and not said to be installed");
    // The same again asks for nothing.
    a.handle_update(update, Some(secret(1)), Duration::ZERO, T0)
        .unwrap();
    assert!(commands(&mut a).is_empty());
    let derived = work.remove(0).run().unwrap();
    a.handle_derived(derived, T0 + Duration::from_secs(1));
    let installed = [
        "install 1 peers 2 lead 4000 until Some(1305)",
        "ack 1 Installed",
    ];
    assert_eq!(commands(&mut a), installed);
    assert_eq!(a.poll_timeout(), Some(T0 + LEAD));
    a.handle_timeout(T0 + LEAD);
    let begun = ["begin 1", "ack 1 Activated", "persist 1"];
    assert_eq!(commands(&mut a), begun);
}

#[test]
fn a_peer_that_is_cut_off_waits_for_nobodys_psk() {
    let mut mesh = Mesh::new();
    let mut a = running(&mut mesh);
    let evicted = urgent(&mut mesh, &[0, 1]);
    let now = T0 + Duration::from_secs(20);
    a.handle_update(evicted, Some(secret(2)), Duration::ZERO, now)
        .unwrap();
    let (words, mut work) = commands_and_work(&mut a);
    assert_eq!(words, ["keep 2 at once", "derive"]);
    assert_eq!(a.view().update.unwrap().epoch, Epoch(1), "for the others");
    assert!(a.poll_timeout() > Some(now), "it is cut once");
    a.handle_timeout(now + Duration::from_millis(1));
    assert!(commands(&mut a).is_empty());
    let later = now + Duration::from_millis(600);
    a.handle_derived(work.remove(0).run().unwrap(), later);
    let begun = [
        "install 2 peers 1 lead 0 until Some(1320)",
        "ack 2 Activated",
        "persist 2",
    ];
    let mut words = commands(&mut a);
    assert_eq!(words[0], format!("{}, begin 2", begun[0]), "in one change");
    words[0] = begun[0].into();
    assert_eq!(words, begun);
}

#[test]
fn a_lead_that_is_over_before_the_psks_are_there_cuts_off_and_begins_when_they_are() {
    let mut mesh = Mesh::new();
    let mut a = running(&mut mesh);
    let now = T0 + Duration::from_secs(20);
    let derivation = take(&mut a, &mesh.publish(&[0, 1]), now);
    assert_eq!(a.poll_timeout(), Some(now + LEAD));
    a.handle_timeout(now + LEAD);
    assert_eq!(commands(&mut a), ["keep 2 at once"]);
    a.handle_derived(derivation.run().unwrap(), now + LEAD);
    let words = commands(&mut a);
    assert_eq!(
        words[0],
        "install 2 peers 1 lead 0 until Some(1325), begin 2"
    );
}

#[test]
fn a_newer_update_ends_the_derivation_of_one_that_it_supersedes() {
    let mut mesh = Mesh::new();
    let mut a = running(&mut mesh);
    let now = T0 + Duration::from_secs(20);
    let second = take(&mut a, &mesh.publish(&[0, 1, 2]), now);
    // One result is there before the newer update is, and comes to the machine after it.
    let mut other = machine(&mesh);
    let early = take(&mut other, &unheard(&mut mesh), now);
    let third = urgent(&mut mesh, &[0, 1]);
    let ready = take(&mut a, &third, now);
    assert!(second.run().is_none(), "nobody wants it any more");
    a.handle_derived(early.run().unwrap(), now);
    assert!(commands(&mut a).is_empty(), "it is of another update");
    a.handle_derived(ready.run().unwrap(), now);
    let words = commands(&mut a);
    assert!(words[0].starts_with("install 4 peers 1"), "{words:?}");
    assert_eq!(a.view().update.unwrap().epoch, Epoch(4));
    assert!(a.view().next.is_none());
}

/// An update of all three that the machine under test never hears of.
fn unheard(mesh: &mut Mesh) -> Verified<EpochUpdate> {
    mesh.publish(&[0, 1, 2])
}

#[test]
fn an_installed_epoch_that_is_superseded_never_begins_while_the_newer_one_is_derived() {
    let mut mesh = Mesh::new();
    let mut a = running(&mut mesh);
    let now = T0 + Duration::from_secs(20);
    let second = take(&mut a, &mesh.publish(&[0, 1, 2]), now);
    a.handle_derived(second.run().unwrap(), now);
    commands(&mut a);
    // Half a second before the second begins comes a third, which leaves a node out.
    let third = mesh.publish(&[0, 1]);
    let late = now + Duration::from_millis(4_500);
    a.handle_update(third, Some(secret(3)), Duration::ZERO, late)
        .unwrap();
    let (words, work) = commands_and_work(&mut a);
    assert_eq!(words, ["keep 2", "derive"], "nothing of it stays installed");
    a.handle_timeout(now + LEAD);
    assert!(commands(&mut a).is_empty());
    assert_eq!(a.view().update.unwrap().epoch, Epoch(1));
    drop(work);
}

#[test]
fn a_lease_that_ends_meanwhile_closes_and_the_next_epoch_begins_all_the_same() {
    let mut mesh = Mesh::new();
    let mut a = running(&mut mesh);
    let end = T0 + Duration::from_secs(305);
    let derivation = take(
        &mut a,
        &urgent(&mut mesh, &[0, 1]),
        end - Duration::from_millis(1),
    );
    a.handle_timeout(end);
    assert_eq!(commands(&mut a), ["close"]);
    a.handle_derived(derivation.run().unwrap(), end + Duration::from_secs(1));
    assert!(commands(&mut a)[0].ends_with("begin 2"));
    assert!(!a.view().is_closed());
}

#[test]
fn psks_that_come_after_the_lease_of_their_own_epoch_open_nothing() {
    let mut mesh = Mesh::new();
    let mut a = running(&mut mesh);
    let now = T0 + Duration::from_secs(20);
    let derivation = take(&mut a, &urgent(&mut mesh, &[0, 1]), now);
    let late = now + Duration::from_secs(400);
    a.handle_derived(derivation.run().unwrap(), late);
    let words = commands(&mut a);
    assert_eq!(
        words[0], "install 2 peers 1 lead 0 until Some(1320), begin 2",
        "the data plane knows that its lease is over"
    );
    assert_eq!(words.last().map(String::as_str), Some("close"));
    assert!(a.view().is_closed());
}

#[test]
fn what_is_derived_is_of_no_use_after_a_duplicate_or_the_loss_of_the_lease() {
    let lose_lease = |a: &mut Member, now| assert!(a.handle_lost_time(LEAD * 1_000, now));
    let duplicate = |a: &mut Member, now| a.handle_duplicate(now);
    type End<'a> = &'a dyn Fn(&mut Member, Duration);
    let ends: [End<'_>; 2] = [&lose_lease, &duplicate];
    for end in ends {
        let mut mesh = Mesh::new();
        let mut a = running(&mut mesh);
        let now = T0 + Duration::from_secs(20);
        let update = urgent(&mut mesh, &[0, 1, 2]);
        let before = take(&mut a, &update, now).run().unwrap();
        end(&mut a, now);
        let words = commands(&mut a);
        assert!(words.last().unwrap().ends_with("close"), "{words:?}");
        a.handle_derived(before, now);
        assert!(commands(&mut a).is_empty());
        assert!(a.view().next.is_none());
        // Said again, it is taken and derived anew.
        let again = take(&mut a, &update, now);
        a.handle_derived(again.run().unwrap(), now);
        assert!(commands(&mut a)[0].ends_with("begin 2"));
    }
}

#[test]
fn an_update_that_leaves_this_node_out_closes_it_whatever_is_being_derived() {
    let mut mesh = Mesh::new();
    let mut a = running(&mut mesh);
    let now = T0 + Duration::from_secs(20);
    let derivation = take(&mut a, &mesh.publish(&[0, 1, 2]), now);
    let out = urgent(&mut mesh, &[1, 2]);
    a.handle_update(out, None, Duration::ZERO, now).unwrap();
    let words = commands(&mut a);
    assert_eq!(words[0], "install 3 peers 0 lead 0 until Some(1320), close");
    assert!(derivation.run().is_none());
}

#[test]
fn a_newcomer_is_exchanged_with_once_and_a_node_that_left_is_forgotten() {
    let mut mesh = Mesh::new();
    let mut a = machine(&mesh);
    let first = take(&mut a, &mesh.publish(&[0, 1]), T0);
    assert_eq!(first.cost(), 2 + 50);
    a.handle_derived(first.run().unwrap(), T0);
    a.handle_timeout(T0 + LEAD);
    commands(&mut a);
    let now = T0 + LEAD * 3;
    let second = take(&mut a, &mesh.publish(&[0, 1, 2]), now);
    assert_eq!(second.cost(), 3 + 50);
    a.handle_derived(second.run().unwrap(), now);
    a.handle_timeout(now + LEAD);
    commands(&mut a);
    let third = take(&mut a, &mesh.publish(&[0, 1]), now + LEAD);
    assert_eq!(third.cost(), 2);
    a.handle_derived(third.run().unwrap(), now + LEAD);
    a.handle_timeout(now + LEAD * 2);
    commands(&mut a);
    let fourth = take(&mut a, &mesh.publish(&[0, 1, 2]), now + LEAD * 2);
    assert_eq!(fourth.cost(), 3 + 50, "the third node is new again");
}
