//! `cargo bench -p benches --bench roster`: what a large roster costs one node, whose peers are idle.
//!
//! | Figure | What runs |
//! |---|---|
//! | `derive` | [`epoch::Derivation`]: all peers new, then the same again for the next epoch; on a thread apart |
//! | `first`, `next`, `evict` | the longest that [`tunnel::Carrier`]'s write lock is held by a step of a change, and how long all steps take |
//! | `cut` | the removal of one peer that is due before the PSKs of the others are derived |
//! | `second` | the tunnel's work by the second, with the lock held |
//! | bytes | what the node holds, counted at the allocator, by each peer: tunnel and agent |
//!
//! It measures single calls and their longest, which criterion does not.
#![allow(missing_docs, reason = "a benchmark is no library")]
#![allow(clippy::print_stdout, reason = "a table is its output")]

use agent::{DataChange, DataStep};
use epoch::member::{HighWater, Identity};
use epoch::{Command, Derivation, EpochChange, Member};
use keys::{AuthoritySecret, EpochSecret, NodeId, SegmentId, WgPublicKey, WgSecret};
use rand_core::OsRng;
use std::alloc::{GlobalAlloc, Layout, System};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tunnel::{Carrier, Config, Inside, LoneTunnel, Range};
use wire::{EpochUpdate, Signed, Verified, fixtures};

/// Counts the bytes that are held.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came.
#[expect(unsafe_code, reason = "an allocator is unsafe by nature")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are the system's.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A node and the rosters that it is told.
struct Node {
    authority: AuthoritySecret,
    member: Member,
    carrier: Carrier<LoneTunnel>,
    roster: Vec<wire::Member>,
    /// By [`NodeId`], as in an update.
    own: NodeId,
    epoch: u64,
    newest: Option<wire::Digest>,
    now: Duration,
}

/// How long a change took.
#[derive(Default)]
struct Taken {
    /// All steps, with what is made ready before the lock.
    whole: Duration,
    /// The longest that the lock was held.
    longest: Duration,
}

impl Node {
    fn new(peers: usize) -> Self {
        let wg = WgSecret::generate(&mut OsRng);
        let own = member(0, wg.public());
        let others = (1..peers).map(|number| {
            let mut key = [0; 32];
            rand_core::RngCore::fill_bytes(&mut OsRng, &mut key);
            member(number, WgPublicKey(key))
        });
        let mut roster: Vec<_> = others.chain([own.clone()]).collect();
        roster.sort_by_key(|member| member.node);
        let inside = Inside {
            own: vec![own.v4.into(), own.v6.into()],
            ranges: vec![Range::new(own.v4.into(), 8), Range::new(own.v6.into(), 64)],
        };
        let door = LoneTunnel::new(
            1_000,
            Config {
                secret: wg.duplicate(),
                mtu: 1420,
                seed: 1,
                inside,
            },
        );
        let identity = Identity {
            node: own.node,
            wg,
            mesh: fixtures::MESH,
            segment: SegmentId::FIRST,
        };
        let mut member = Member::new(identity, HighWater::default());
        member.set_derive_at_once(0);
        Self {
            authority: AuthoritySecret::generate(&mut OsRng),
            member,
            carrier: Carrier::new(door),
            own: own.node,
            roster,
            epoch: 0,
            newest: None,
            now: Duration::from_secs(1_000),
        }
    }

    /// The next update, which begins after `lead`, and its secret.
    fn update(&mut self, lead: u32) -> (Verified<EpochUpdate>, EpochSecret) {
        self.epoch += 1;
        let secret = EpochSecret::generate(&mut OsRng);
        let update = EpochUpdate {
            previous: self.newest.unwrap_or_default(),
            commitment: secret.commitment(),
            activate_in_ms: lead.into(),
            ..fixtures::update(self.epoch, self.roster.clone())
        };
        let signed = Signed::sign(&update, &self.authority).expect("it is well formed");
        self.newest = Some(signed.digest());
        let verified = signed.verify(&[self.authority.public()]);
        (verified.expect("it was just signed"), secret)
    }

    /// Takes an update, and runs its derivation; how long that took.
    fn take(&mut self, lead: u32) -> (Taken, Duration) {
        let (update, secret) = self.update(lead);
        let taken = self
            .member
            .handle_update(update, Some(secret), Duration::ZERO, self.now);
        taken.expect("it is in order");
        let (cut, derivation) = self.follow();
        let derivation = derivation.expect("PSKs are to be derived");
        let start = clock();
        let derived = derivation.run().expect("it is wanted");
        let derive = since(start);
        self.member.handle_derived(derived, self.now);
        (cut, derive)
    }

    /// Carries out what the machine asks for, as the daemon does.
    fn follow(&mut self) -> (Taken, Option<Derivation>) {
        let (mut all, mut derivation) = (Taken::default(), None);
        while let Some(command) = self.member.poll_command() {
            match command {
                Command::Data(change) => {
                    let taken = self.change(change);
                    all.whole += taken.whole;
                    all.longest = all.longest.max(taken.longest);
                }
                Command::Derive(it) => derivation = Some(it),
                Command::Agent(_) => {}
            }
        }
        (all, derivation)
    }

    fn change(&mut self, change: EpochChange) -> Taken {
        let others = self.roster.iter().filter(|member| member.node != self.own);
        let places = match &change.install {
            Some(_) => others.map(|it| (it.wg, vec![place(it.v4)])).collect(),
            None => Vec::new(),
        };
        let start = clock();
        let mut longest = Duration::ZERO;
        for step in DataChange::Epoch(change, places).steps() {
            longest = longest.max(self.step(step));
        }
        Taken {
            whole: since(start),
            longest,
        }
    }

    fn step(&self, step: DataStep) -> Duration {
        let mut alone = self.carrier.write();
        let start = clock();
        let refused = step.carry_out(&mut alone, self.now);
        while alone.poll_transmit().is_some() {}
        let held = since(start);
        drop(alone);
        assert!(refused.is_empty());
        held
    }

    /// Lets time pass; what becomes due then.
    fn pass(&mut self, time: Duration) -> Taken {
        self.now += time;
        self.member.handle_timeout(self.now);
        self.follow().0
    }

    /// The tunnel's work by the second.
    fn second(&mut self) -> Duration {
        self.now += Duration::from_secs(1);
        let mut alone = self.carrier.write();
        let start = clock();
        alone.handle_timeout(self.now);
        since(start)
    }
}

fn member(number: usize, wg: WgPublicKey) -> wire::Member {
    let mut node = [0; 32];
    rand_core::RngCore::fill_bytes(&mut OsRng, &mut node);
    let low = u32::try_from(number).expect("a small number") + 2;
    wire::Member {
        node: NodeId(node),
        wg,
        groups: Default::default(),
        routes: Vec::new(),
        name: format!("node-{number:05}").parse().expect("a name"),
        v4: Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + low),
        v6: Ipv6Addr::from_bits((0xfd00_u128 << 112) + u128::from(low)),
    }
}

fn place(v4: Ipv4Addr) -> SocketAddr {
    let [_, a, b, c] = v4.octets();
    SocketAddr::from(([172, a, b, c], 51_820))
}

fn main() {
    println!(
        "| Peers | derive, all new, ms | again, ms | first epoch: lock, ms | in all, ms | next: install, lock | activate, lock | wipe, lock | cut off: lock | in all | evict: install and begin, lock | a second, ms | bytes per peer, tunnel | with roster and secrets |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    for peers in [100, 1_000, 10_000] {
        measure(peers);
    }
}

fn measure(peers: usize) {
    let ms = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1e3);
    let mut node = Node::new(peers);
    let before = HELD.load(Ordering::Relaxed);
    let (_, fresh) = node.take(0);
    let (first, _) = node.follow();
    node.pass(Duration::from_secs(60));
    let whole = HELD.load(Ordering::Relaxed) - before;
    let (mut again, mut install, mut activate, mut wipe, mut second) = Default::default();
    for _ in 0..10 {
        let (_, derive) = node.take(5_000);
        again = derive.max(again);
        install = node.follow().0.longest.max(install);
        activate = node.pass(Duration::from_secs(5)).longest.max(activate);
        wipe = node.pass(Duration::from_secs(5)).longest.max(wipe);
        second = node.second().max(second);
    }
    let (mut cut, mut cut_whole, mut evict) = Default::default();
    for _ in 0..10 {
        let out = node.roster.iter().position(|it| it.node != node.own);
        node.roster.remove(out.expect("a peer"));
        let (taken, _) = node.take(0);
        cut = taken.longest.max(cut);
        cut_whole = taken.whole.max(cut_whole);
        evict = node.follow().0.longest.max(evict);
        node.pass(Duration::from_secs(5));
    }
    let Node {
        member, carrier, ..
    } = node;
    let with_machine = HELD.load(Ordering::Relaxed);
    drop(carrier);
    let tunnel = with_machine - HELD.load(Ordering::Relaxed);
    drop(member);
    let bytes = |held: usize| held / peers;
    println!(
        "| {peers} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
        ms(fresh),
        ms(again),
        ms(first.longest),
        ms(first.whole),
        ms(install),
        ms(activate),
        ms(wipe),
        ms(cut),
        ms(cut_whole),
        ms(evict),
        ms(second),
        bytes(tunnel),
        bytes(whole),
    );
}

/// The time that this thread has run: others use the machine too, and one that waits for a core with the lock
/// held would say nothing of the lock.
fn clock() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let nanos = u32::try_from(time.tv_nsec).expect("less than a second");
    Duration::new(time.tv_sec.unsigned_abs(), nanos)
}

fn since(start: Duration) -> Duration {
    clock() - start
}
