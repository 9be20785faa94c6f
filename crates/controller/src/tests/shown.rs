//! The status of nodes: all of it is of now, dated, or gone.

use super::*;
use std::os::unix::fs::PermissionsExt as _;
use wire::Way;
use wire::admin::{Control, PskState, TunnelQuality};
use wire::message::{InterfaceReport, PeerReport, TunnelReport};

impl World {
    /// A node says that another answers.
    fn reports(&mut self, node: &Node, other: &Node) {
        let report = PeerReport {
            node: other.secret.public(),
            session_epoch: Some(Epoch(self.epoch())),
            rtt_v4_us: Some(300),
            rtt_v6_us: Some(300),
            way_v4: Way::Tunnel,
            way_v6: Way::Tunnel,
        };
        let peers = vec![report];
        let interface = InterfaceReport::default();
        self.say(
            node.connection,
            ToController::Report {
                segment: keys::SegmentId::FIRST,
                peers,
                interface,
            },
        );
    }

    /// A node says how good its tunnels to others are; it counts with its next report.
    fn measures(&mut self, node: &Node, peers: Vec<TunnelReport>) {
        let segment = keys::SegmentId::FIRST;
        let unix_ms = u64::try_from(self.now.wall.as_millisecond()).unwrap();
        self.clock_says(node, segment, peers, unix_ms);
    }

    fn clock_says(
        &mut self,
        node: &Node,
        segment: keys::SegmentId,
        peers: Vec<TunnelReport>,
        unix_ms: u64,
    ) {
        let tunnels = ToController::Tunnels {
            segment,
            peers,
            unix_ms,
        };
        self.say(node.connection, tunnels);
    }

    fn heard(&mut self, node: &Node, ago: Duration) {
        let at = self.now.boot - ago;
        self.engine.handle_heard(node.connection, at, self.now);
    }
}

fn calm() -> Policy {
    Policy {
        epoch_seconds: 3_600,
        max_benchmark_age: 3_600,
        ..Policy::default()
    }
}

#[test]
fn the_skew_of_a_clock_follows_each_report() {
    let mut world = World::new(calm());
    let [a, b] = world.members(["a", "b"]);
    let segment = keys::SegmentId::FIRST;
    let true_ms = |world: &World| u64::try_from(world.now.wall.as_millisecond()).unwrap();
    // It is set while the node is connected,
    world.pass(s(10));
    let wrong = true_ms(&world) + 3_600_000;
    world.clock_says(&a, segment, Vec::new(), wrong);
    world.reports(&a, &b);
    assert_eq!(world.status_of(&a).clock_skew_ms, Some(3_600_000));
    // and set right, as the way out says.
    world.pass(s(10));
    let right = true_ms(&world);
    world.clock_says(&a, segment, Vec::new(), right);
    world.reports(&a, &b);
    assert_eq!(world.status_of(&a).clock_skew_ms, Some(0));
}

#[test]
fn a_node_that_is_not_heard_is_silent_and_then_gone_with_what_it_said() {
    let mut world = World::new(calm());
    let [mut a, b] = world.members(["a", "b"]);
    world.ack(&a, Phase::Activated);
    world.reports(&a, &b);
    world.heard(&a, s(3));
    let status = world.status_of(&a);
    assert_eq!(
        (status.control, status.psk),
        (Control::Connected, PskState::Valid)
    );
    let reported = status.observed_utc.clone();
    assert!(status.observes.contains_key(&b.name) && reported.is_some());

    world.pass(s(5));
    world.heard(&a, s(8));
    let status = world.status_of(&a);
    assert_eq!(
        (status.control, status.psk),
        (Control::Silent, PskState::Valid)
    );
    assert_eq!(
        status.observed_utc, reported,
        "it is no younger than it was"
    );
    assert!(world.engine.take_dirty(), "silence is news");

    world.engine.handle_disconnected(a.connection);
    world.pass(s(62));
    let status = world.status_of(&a);
    assert_eq!(
        (status.control, status.psk),
        (Control::Disconnected, PskState::Unknown)
    );
    assert_eq!((status.observes.len(), status.observed_utc), (0, None));
    let heard: Timestamp = status.heard_utc.expect("it was heard").parse().unwrap();
    assert_eq!(world.now.wall.duration_since(heard).as_secs(), 70);

    world.reconnect(&mut a);
    let status = world.status_of(&a);
    assert_eq!(status.control, Control::Connected);
    assert_eq!(
        (status.observes.len(), status.observed_utc),
        (0, None),
        "it has not said so again"
    );
    assert_eq!(world.status_of(&b).psk, PskState::None, "it never said so");
}

#[test]
fn a_peer_that_was_cut_off_is_not_said_to_answer_by_a_report_of_before() {
    let mut world = World::new(calm());
    let [a, b] = world.members(["a", "b"]);
    world.pass(s(1));
    world.reports(&a, &b);
    assert!(world.status_of(&a).observes.contains_key(&b.name));
    world
        .ask(Request::Evict(b.name.clone(), Default::default()))
        .unwrap();
    world.pass(s(2));
    assert!(!world.status_of(&a).observes.contains_key(&b.name));
    // One that answers nevertheless is not hidden.
    world.reports(&a, &b);
    assert!(world.status_of(&a).observes.contains_key(&b.name));
}

#[test]
fn what_a_node_does_not_say_again_of_a_peer_is_dated_and_leaves_after_two_minutes() {
    let mut world = World::new(calm());
    let [a, b, c] = world.members(["a", "b", "c"]);
    world.pass(s(1));
    world.reports(&a, &b);
    let first = world.status_of(&a).observes[&b.name].at_utc.clone();
    world.pass(s(60));
    world.reports(&a, &c);
    let status = world.status_of(&a);
    assert_eq!(status.observes[&b.name].at_utc, first, "no younger");
    assert_eq!(
        Some(&status.observes[&c.name].at_utc),
        status.observed_utc.as_ref()
    );
    world.pass(s(61));
    let shown: Vec<_> = world.status_of(&a).observes.into_keys().collect();
    assert_eq!(shown, std::slice::from_ref(&c.name));
    // Said again, it is there again.
    world.reports(&a, &b);
    assert_eq!(world.status_of(&a).observes.len(), 2);
}

#[test]
fn the_status_file_is_dated_though_nothing_changes_and_hides_no_characters() {
    let mut world = World::new(calm());
    let [a] = world.members(["a"]);
    world.pass(s(1));
    let foreign = Benchmark {
        suite: "safe\u{202e}txt".into(),
        ..world.run()
    };
    let envelope = foreign.attest_self(a.name.as_str(), &a.secret).unwrap();
    assert_eq!(world.envelope(&a, envelope), None);
    let path = world.dir.path().join("status.json");
    let mut file =
        crate::status_file::StatusFile::start(path.clone(), std::sync::Arc::default()).unwrap();
    file.keep(&mut world.engine, world.now);
    // A thread writes it.
    let wait_until = |is_so: &dyn Fn() -> bool| {
        let mut tries = (0..3_000).map(|_| std::thread::sleep(Duration::from_millis(10)));
        assert!(is_so() || tries.any(|()| is_so()), "not within 30 s");
    };
    wait_until(&|| path.exists());
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    let read = || {
        let text = std::fs::read_to_string(&path).unwrap();
        let status = serde_json::from_str::<wire::admin::ControllerStatus>(&text).unwrap();
        (text, status)
    };
    let (text, before) = read();
    assert!(text.contains("safe\\u202etxt"), "{text}");
    let benchmark = before.nodes[&a.name].last_benchmark.as_ref().unwrap();
    assert_eq!(benchmark.suite, "safe\u{202e}txt");
    world.pass(s(5));
    world.engine.take_dirty();
    file.keep(&mut world.engine, world.now);
    wait_until(&|| read().1.generated_utc > before.generated_utc);
}

#[test]
fn the_quality_of_a_tunnel_is_that_of_the_report_it_came_with_and_its_handshake_ages() {
    let mut world = World::new(calm());
    let [a, b] = world.members(["a", "b"]);
    let measured = |node: &Node, handshake_age, lost| TunnelReport {
        node: node.secret.public(),
        handshake_age,
        echoes: 64,
        lost,
    };
    let shown = |world: &mut World| {
        let status = world.status_of(&a);
        status.observes.get(&b.name).and_then(|pair| pair.tunnel)
    };
    world.measures(&a, vec![measured(&b, Some(40), 3)]);
    assert_eq!(shown(&mut world), None, "no report has come yet");
    world.reports(&a, &b);
    let seen = |handshake_seconds, lost| {
        Some(TunnelQuality {
            handshake_seconds,
            echoes: 64,
            lost,
        })
    };
    assert_eq!(shown(&mut world), seen(Some(40), 3));
    world.now.boot += s(7);
    assert_eq!(shown(&mut world), seen(Some(47), 3));
    // More than the echoes cannot be lost, and a handshake before this machine's start was then.
    world.measures(&a, vec![measured(&b, Some(u32::MAX), 200)]);
    world.reports(&a, &b);
    let boot = world.now.boot.as_secs();
    assert_eq!(shown(&mut world), seen(Some(boot), 64));
    // The quality that came with one report does not count for the next one.
    world.reports(&a, &b);
    assert_eq!(shown(&mut world), None);
    // Nor does it with that of a segment of which the node is none, or a word about a stranger.
    let stranger = TunnelReport {
        node: keys::NodeId([9; 32]),
        ..measured(&b, None, 0)
    };
    world.measures(&a, vec![stranger]);
    world.reports(&a, &b);
    assert_eq!(shown(&mut world), None);
}
