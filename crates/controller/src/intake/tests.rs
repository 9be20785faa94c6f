//! Places and allowances, in virtual time.

use super::allowances::BAR_TIME;
use super::places::*;
use super::*;
use allowance::network;

fn intake() -> Arc<Intake> {
    let intake = Arc::new(Intake::default());
    intake.set_enrolled([NODE].into_iter());
    intake
}

fn source(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 1000))
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn stranger(number: u16) -> NodeId {
    let mut key = NodeId([0xee; 32]);
    key.0[..2].copy_from_slice(&number.to_be_bytes());
    key
}

fn header(frame_type: u8, len: usize) -> Header {
    Header { frame_type, len }
}

const NODE: NodeId = NodeId([1; 32]);
const REPORT: u8 = 5;
const ENDPOINTS: u8 = 6;

impl Intake {
    fn connect(
        self: &Arc<Self>,
        id: u64,
        key: NodeId,
        last: u8,
        now: Duration,
    ) -> Result<Pass, Turned> {
        self.admit(ConnectionId(id), key, source(last), None, now)
    }
}

#[test]
fn an_allowance_outlasts_its_connections() {
    let intake = intake();
    let now = s(100);
    let mut read = 0;
    let mut turned = 0;
    for id in 0..30 {
        let Ok(pass) = intake.connect(id, NODE, 1, now) else {
            turned += 1;
            continue;
        };
        while pass.take(header(ENDPOINTS, 100), now).is_ok() {
            read += 1;
        }
    }
    assert_eq!((read, turned), (20, 29), "one connection's worth in all");
    let later = now + BAR_TIME;
    let pass = intake.connect(99, NODE, 1, later).expect("its bar is over");
    assert_eq!(pass.take(header(ENDPOINTS, 100), later), Ok(()));
}

#[test]
fn a_node_that_floods_with_one_kind_costs_others_nothing() {
    let intake = intake();
    let other = NodeId([2; 32]);
    intake.set_enrolled([NODE, other].into_iter());
    let now = s(100);
    let flooder = intake.connect(1, NODE, 1, now).unwrap();
    let honest = intake.connect(2, other, 1, now).unwrap();
    while flooder.take(header(REPORT, 10), now).is_ok() {}
    assert_eq!(honest.take(header(REPORT, 10), now), Ok(()));
}

#[test]
fn a_report_is_no_larger_than_the_mesh() {
    let intake = intake();
    let pass = intake.connect(1, NODE, 1, s(1)).unwrap();
    let most = report_limit(FEWEST_REPORTED);
    assert_eq!(pass.take(header(REPORT, most), s(1)), Ok(()));
    let larger = header(REPORT, most + 1);
    assert_eq!(pass.take(larger, s(1)), Err(Unread::TooMuch));
}

#[test]
fn an_unknown_key_is_read_only_where_it_may_speak() {
    let intake = intake();
    let pass = intake.connect(1, stranger(1), 1, s(1)).unwrap();
    assert_eq!(pass.take(header(1, 4_000), s(1)), Ok(()));
    assert_eq!(pass.take(header(2, 4_000), s(1)), Ok(()));
    for kind in 3..=6 {
        assert_eq!(pass.take(header(kind, 1), s(1)), Err(Unread::NotEnrolled));
    }
    assert_eq!(pass.take(header(1, 10), s(1)), Err(Unread::TooMuch));
}

#[test]
fn nobody_goes_on_asking_for_a_place() {
    let intake = intake();
    let pass = intake.connect(1, NODE, 1, s(1)).unwrap();
    let asked = (0..100).filter(|_| pass.take(header(1, 10), s(1)).is_ok());
    assert_eq!(asked.count(), OPENINGS as usize);
}

#[test]
fn an_operator_who_evicts_a_thousand_nodes_cuts_nobody_off() {
    let intake = intake();
    let pass = intake.connect(1, NODE, 1, s(1)).unwrap();
    // A hundred a second, each with two acknowledgements.
    for n in 0..1_000_u32 {
        let now = s(1) + Duration::from_millis(10) * n;
        for _ in 0..2 {
            assert_eq!(pass.take(header(4, 10), now), Ok(()), "{n}");
        }
    }
}

#[tokio::test]
async fn handshakes_that_are_never_finished_make_room_and_enrolled_nodes_have_theirs() {
    let intake = intake();
    drop(intake.connect(1, NODE, 200, s(1)).unwrap());
    // Everybody's places, from many addresses.
    let mut held: Vec<HalfOpen> = Vec::new();
    for last in 0..16 {
        for _ in 0..HALF_OPEN_PER_ADDRESS {
            held.extend(intake.admit_handshake(source(last), s(10)));
        }
    }
    assert_eq!(held.len(), HALF_OPEN);
    assert!(intake.admit_handshake(source(100), s(11)).is_none());
    // Where a node was served, there is a place all the same.
    let home = intake.admit_handshake(source(200), s(11));
    assert!(home.is_some());
    // Anywhere else, as soon as the oldest has had its time.
    let newcomer = intake.admit_handshake(source(100), s(10) + STRANGER_TIME);
    assert!(newcomer.is_some());
    let revoked = held.iter().map(|half| async {
        tokio::time::timeout(Duration::ZERO, half.revoked())
            .await
            .is_ok()
    });
    let mut count = 0;
    for revoked in revoked {
        count += usize::from(revoked.await);
    }
    assert_eq!(count, 1);
    drop((held, home, newcomer));
    assert_eq!(intake.waiting().handshakes, 0);
    assert_eq!(
        intake.waiting().turned.unanswered,
        1 + 8 * HALF_OPEN_PER_ADDRESS as u64
    );
}

#[test]
fn silent_strangers_keep_nobody_out_for_long() {
    let intake = intake();
    let mut held: Vec<Pass> = (0..u16::try_from(STRANGERS).unwrap())
        .map(|n| {
            let last = u8::try_from(n / 8).unwrap();
            intake
                .connect(u64::from(n), stranger(n), last, s(10))
                .unwrap()
        })
        .collect();
    let refused = intake.connect(1_000, stranger(1_000), 200, s(11));
    assert_eq!(refused.unwrap_err(), Turned::Crowded);
    let honest = intake.connect(1_001, stranger(1_001), 200, s(10) + STRANGER_TIME);
    assert!(honest.is_ok(), "the longest silent one makes room");
    // The one that lost its place gives it back a second time when it ends: nothing follows.
    held.remove(0);
    assert_eq!(intake.state().strangers.len(), STRANGERS);
    drop((held, honest));
    assert_eq!(intake.state().strangers.len(), 0);
    assert_eq!(intake.waiting().silent, 0);
    assert_eq!(intake.waiting().turned.crowded, 1);
}

#[test]
fn one_address_takes_few_of_the_places_and_its_handshakes_are_counted() {
    let intake = intake();
    let mut held = Vec::new();
    for n in 0..80 {
        held.extend(intake.connect(n, stranger(n as u16), 7, s(1)).ok());
    }
    assert_eq!(held.len(), STRANGERS_PER_ADDRESS);
    assert!(intake.connect(99, stranger(99), 8, s(1)).is_ok());

    let places: Vec<_> = (0..1_000)
        .filter_map(|_| intake.admit_handshake(source(7), s(1)))
        .collect();
    assert_eq!(places.len(), HALF_OPEN_PER_ADDRESS);
    assert!(intake.is_suspect(source(7)) && !intake.is_suspect(source(8)));
    assert!(intake.admit_handshake(source(8), s(1)).is_some());
    drop(places);
    let passed = (0..1_000)
        .filter(|_| intake.admit_handshake(source(7), s(1)).is_some())
        .count();
    assert_eq!(passed, HANDSHAKE_BURST as usize - HALF_OPEN_PER_ADDRESS);
}

#[test]
fn what_is_remembered_is_bounded() {
    let intake = intake();
    for n in 0..200_000u32 {
        let from = SocketAddr::from((n.to_be_bytes(), 1));
        drop(intake.admit_handshake(from, s(1)));
    }
    assert!(intake.state().addresses.len() <= ADDRESSES);
    assert_eq!(intake.waiting().handshakes, 0);
    let later = s(100);
    assert!(intake.admit_handshake(source(1), later).is_some());
}

#[test]
fn addresses_of_one_ipv6_network_are_one() {
    let ip = |text: &str| network(text.parse().unwrap());
    assert_eq!(ip("2001:db8::1"), ip("2001:db8::ffff:2"));
    assert_ne!(ip("2001:db8::1"), ip("2001:db8:0:1::1"));
    assert_eq!(ip("::ffff:192.0.2.1"), ip("192.0.2.1"));
}
