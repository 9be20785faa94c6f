//! A long way to the controller: takes what nodes send to it, and passes it on later, both ways. Without
//! loss and in order; each client is seen at the controller with a port of its own.

use super::namespace::Namespace;
use super::now;
use std::collections::{BTreeMap, HashMap};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A line that is there until it is dropped.
#[derive(Debug)]
pub struct Line {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    delay: Duration,
    waiting: Mutex<Waiting>,
    changed: Condvar,
    is_over: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    parcels: BTreeMap<(Instant, u64), Parcel>,
    arrived: u64,
}

#[derive(Debug)]
struct Parcel {
    by: Arc<UdpSocket>,
    to: SocketAddr,
    datagram: Vec<u8>,
}

impl Line {
    /// Takes what comes to `at`, an address in `namespace`, and passes it on to `controller` after `delay`;
    /// what it answers takes as long.
    ///
    /// # Panics
    /// When the address cannot be had.
    #[must_use]
    pub fn start(
        namespace: &Namespace,
        at: SocketAddr,
        controller: SocketAddr,
        delay: Duration,
    ) -> Self {
        let shared = Arc::new(Shared {
            delay,
            waiting: Mutex::default(),
            changed: Condvar::new(),
            is_over: AtomicBool::new(false),
        });
        let (of_thread, (ready, is_ready)) = (shared.clone(), std::sync::mpsc::channel());
        let thread = namespace.enter(move || {
            let front = Arc::new(socket(at));
            ready.send(()).expect("somebody waits");
            of_thread.run(&front, controller);
        });
        is_ready.recv().expect("the address can be had");
        Self {
            shared,
            thread: Some(thread),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Runs inside the namespace, as do the threads that it starts.
    fn run(self: &Arc<Self>, front: &Arc<UdpSocket>, controller: SocketAddr) {
        let mut backs: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
        let mut threads = Vec::new();
        let sender = self.clone();
        threads.push(std::thread::spawn(move || sender.send_on()));
        let mut buffer = [0; 1 << 16];
        while !self.is_over() {
            let Ok((len, client)) = front.recv_from(&mut buffer) else {
                continue;
            };
            let back = backs.entry(client).or_insert_with(|| {
                let back = Arc::new(socket(SocketAddr::from(([0, 0, 0, 0], 0))));
                let (shared, front, answers) = (self.clone(), front.clone(), back.clone());
                threads.push(std::thread::spawn(move || {
                    let mut buffer = [0; 1 << 16];
                    while !shared.is_over() {
                        if let Ok((len, _)) = answers.recv_from(&mut buffer) {
                            shared.put(&front, client, &buffer[..len]);
                        }
                    }
                }));
                back
            });
            self.put(back, controller, &buffer[..len]);
        }
        for thread in threads {
            let _ = thread.join();
        }
    }

    fn put(&self, by: &Arc<UdpSocket>, to: SocketAddr, datagram: &[u8]) {
        let mut waiting = self.waiting();
        waiting.arrived += 1;
        let key = (now() + self.delay, waiting.arrived);
        let parcel = Parcel {
            by: by.clone(),
            to,
            datagram: datagram.to_vec(),
        };
        waiting.parcels.insert(key, parcel);
        self.changed.notify_all();
    }

    fn send_on(&self) {
        let mut waiting = self.waiting();
        while !self.is_over() {
            let due = waiting.parcels.first_key_value().map(|(key, _)| key.0);
            let wait = due.map_or(LOOK_UP, |due| due.saturating_duration_since(now()));
            if wait.is_zero() {
                let parcel = waiting.parcels.pop_first().expect("one is due").1;
                drop(waiting);
                let _ = parcel.by.send_to(&parcel.datagram, parcel.to);
                waiting = self.waiting();
            } else {
                let waited = self.changed.wait_timeout(waiting, wait);
                waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }
}

fn socket(at: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(at).expect("the address is there");
    let patience = Some(LOOK_UP);
    socket.set_read_timeout(patience).expect("it has no limits");
    socket
}

/// How often the threads look up whether it is over.
const LOOK_UP: Duration = Duration::from_millis(100);
