//! The data plane over a device that never rests.

use super::DataPlane;
use crate::io::offload::{OffloadSwitches, Offloads};
use crate::io::tun::Tun;
use crate::io::udp;
use keys::WgSecret;
use std::io::{self, IoSlice, Write as _};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tunnel::{DropReason, TunnelId};

/// A TUN device that always has one more packet, for nobody.
struct Endless {
    ready: UnixStream,
    /// Packets that were read.
    read: Arc<AtomicU64>,
}

impl AsRawFd for Endless {
    fn as_raw_fd(&self) -> RawFd {
        self.ready.as_raw_fd()
    }
}

impl Tun for Endless {
    fn backend(&self) -> &'static str {
        "endless"
    }

    fn has_vnet_header(&self) -> bool {
        false
    }

    fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read.fetch_add(1, Ordering::Relaxed);
        buffer[..60].fill(0);
        buffer[0] = 0x45;
        Ok(60)
    }

    fn send(&self, _: &[IoSlice<'_>]) -> io::Result<()> {
        Ok(())
    }
}

fn start(tun: Box<dyn Tun>) -> (DataPlane, TunnelId, SocketAddr) {
    let offloads = Arc::new(Offloads::new(OffloadSwitches::default()));
    let socket = udp::bind(0).expect("a port is free");
    let port = socket.local_addr().expect("it is bound").port();
    let plane = DataPlane::start(1_000, vec![socket], offloads).expect("a thread can be started");
    let tunnel = plane
        .opener()
        .open(config(), vec![tun])
        .expect("it is the first");
    (plane, tunnel, (Ipv4Addr::LOCALHOST, port).into())
}

fn config() -> tunnel::Config {
    tunnel::Config {
        secret: WgSecret::generate(&mut rand_core::OsRng),
        mtu: 1420,
        seed: 1,
        inside: tunnel::Inside::default(),
    }
}

/// Looks until `holds`, for as long as anybody could want. Not by way of the data plane, which would
/// give way to whoever asks it.
fn until(holds: impl Fn() -> bool) -> bool {
    for _ in 0..3_000 {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

#[tokio::test]
async fn a_tun_device_that_never_rests_does_not_keep_datagrams_out() {
    let read = Arc::new(AtomicU64::new(0));
    let (mut keeper, ready) = UnixStream::pair().expect("there are sockets");
    keeper.write_all(&[0]).expect("one byte fits");
    let (plane, tunnel, address) = start(Box::new(Endless {
        ready,
        read: Arc::clone(&read),
    }));
    let passed = |packets| {
        let enough = read.load(Ordering::Relaxed) + packets;
        until(|| read.load(Ordering::Relaxed) >= enough)
    };
    assert!(passed(MANY_TURNS), "it reads the device");
    let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    sender
        .send_to(b"garbage", address)
        .expect("the loopback takes it");
    assert!(passed(MANY_TURNS), "it goes on");
    let snapshot = plane.snapshot(tunnel).await.expect("the data plane runs");
    assert_eq!(snapshot.drops().get(DropReason::Malformed), 1);
    plane.stop().await;
}

/// A device that says how often it was read, and when it was given back.
fn device() -> (Box<dyn Tun>, UnixStream, Arc<AtomicU64>) {
    let read = Arc::new(AtomicU64::new(0));
    let (mut keeper, ready) = UnixStream::pair().expect("there are sockets");
    keeper.write_all(&[0]).expect("one byte fits");
    let endless = Endless {
        ready,
        read: Arc::clone(&read),
    };
    (Box::new(endless), keeper, read)
}

#[tokio::test]
async fn a_segment_that_is_left_gives_its_device_back_and_the_other_is_carried_on() {
    let ((one, one_end, _), (other, _other_end, other_read)) = (device(), device());
    let (plane, first, _) = start(one);
    let second = plane
        .opener()
        .open(config(), vec![other])
        .expect("its key is another");
    assert_ne!(first, second);
    let passed = |packets| {
        let enough = other_read.load(Ordering::Relaxed) + packets;
        until(|| other_read.load(Ordering::Relaxed) >= enough)
    };
    assert!(passed(MANY_TURNS), "both are read");
    plane.opener().close(first);
    let snapshot = plane.snapshot(first).await;
    assert!(snapshot.is_none(), "there is nothing left of it");
    // The other end of a device that was given back.
    one_end.set_nonblocking(true).expect("it can be");
    let given_back = || matches!(one_end.try_clone().and_then(|mut it| it.write(&[0])), Err(error) if error.kind() == io::ErrorKind::BrokenPipe);
    assert!(until(given_back), "the device is closed");
    assert!(passed(MANY_TURNS), "the other is carried on");
    assert!(plane.snapshot(second).await.is_some());
    plane.stop().await;
}

#[tokio::test]
async fn a_device_without_a_queue_for_each_thread_is_not_taken() {
    let (one, _end, _) = device();
    let (plane, ..) = start(one);
    let refused = plane.opener().open(config(), Vec::new());
    let refused = refused.map_err(|error| error.to_string());
    let expected = "the interface has 0 queues, and 1 threads carry packets: set data_threads to 0";
    assert_eq!(refused, Err(expected.to_owned()));
    plane.stop().await;
}

/// Packets that take the data plane a good many turns.
const MANY_TURNS: u64 = 100_000;
