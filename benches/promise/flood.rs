//! Senders: a steady flood inside the mesh, and a stranger's initiations from outside.

use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput as _, KeyInit as _, Update as _};
use blake2::{Blake2s256, Blake2sMac, Digest as _};
use keys::WgPublicKey;
use rand_core::{OsRng, RngCore as _};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tests::harness::{namespace::Namespace, now};

/// Sends until it is dropped.
pub(crate) struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Marked datagrams from `address` to each target in turn, `rate` per second and target.
    pub(crate) fn inside(
        namespace: &Namespace,
        address: IpAddr,
        targets: Vec<SocketAddr>,
        rate: u64,
    ) -> Self {
        let all = rate * targets.len() as u64;
        Self::start(namespace, (address, 0).into(), all, move |number| {
            let to = targets[usize::try_from(number).unwrap_or(0) % targets.len()];
            let mut payload = *MARK;
            payload[8..].copy_from_slice(&number.to_be_bytes());
            (to, payload.to_vec())
        })
    }

    /// Handshake initiations to one node, each with another ephemeral key and a valid MAC1, so that
    /// each costs it a Diffie–Hellman unless it refuses for load.
    pub(crate) fn initiations(
        namespace: &Namespace,
        address: IpAddr,
        target: SocketAddr,
        key: &WgPublicKey,
        rate: u64,
    ) -> Self {
        let mut label = Blake2s256::new();
        blake2::Digest::update(&mut label, b"mac1----");
        blake2::Digest::update(&mut label, key.0);
        let mac_key = label.finalize();
        Self::start(namespace, (address, 0).into(), rate, move |_| {
            let mut message = vec![0; 148];
            OsRng.fill_bytes(&mut message[..116]);
            message[..4].copy_from_slice(&[1, 0, 0, 0]);
            let mac = Blake2sMac::<U16>::new_from_slice(&mac_key).expect("32 bytes are a key");
            let mac = mac.chain(&message[..116]).finalize_fixed();
            message[116..132].copy_from_slice(&mac);
            (target, message)
        })
    }

    fn start(
        namespace: &Namespace,
        from: SocketAddr,
        per_second: u64,
        mut datagram: impl FnMut(u64) -> (SocketAddr, Vec<u8>) + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = namespace.enter(move || {
            let socket = UdpSocket::bind(from).expect("the sender's address is there");
            let (began, mut number) = (now(), 0);
            while !stopped.load(Ordering::Relaxed) {
                let due = (began.elapsed().as_secs_f64() * per_second as f64) as u64;
                // Datagrams that could not be sent in time are left out, not made up for in a burst.
                number = number.max(due.saturating_sub(BURST));
                while number < due {
                    let (to, payload) = datagram(number);
                    // A full queue is the flooder's trouble.
                    if socket.send_to(&payload, to).is_ok() {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    number += 1;
                }
                std::thread::sleep(TICK);
            }
        });
        Self {
            stop,
            sent,
            thread: Some(thread),
        }
    }

    /// Datagrams that the kernel took so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// First half of a datagram of [`Flood::inside`]; its number follows.
pub(crate) const MARK: &[u8; 16] = b"promise!\0\0\0\0\0\0\0\0";
/// Short against the gap between two datagrams to one target.
const TICK: Duration = Duration::from_micros(100);
const BURST: u64 = 500;
