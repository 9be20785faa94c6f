//! The DNS server: one UDP socket and one TCP listener at a loopback address. What it says is in the crate `names`;
//! here are the sockets and the limits.

use super::Told;
use crate::io::clock;
use allowance::Bucket;
use names::{Answered, Outcome, Transport, answer};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

/// The bound sockets.
pub(crate) struct Sockets {
    udp: std::net::UdpSocket,
    tcp: std::net::TcpListener,
    address: SocketAddr,
}

/// Questions by what became of them, since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts([AtomicU64; 6]);

impl Counts {
    /// Every count with the word of its metric.
    pub(crate) fn each(&self) -> [(&'static str, u64); 6] {
        let words = [
            "found",
            "empty",
            "no_name",
            "refused",
            "malformed",
            "dropped",
        ];
        let mut counts = self.0.iter().map(|it| it.load(Ordering::Relaxed));
        words.map(|word| (word, counts.next().unwrap_or_default()))
    }

    /// Counts one; `None`: it was dropped.
    fn add(&self, outcome: Option<Outcome>) {
        let [found, empty, no_name, refused, malformed, dropped] = &self.0;
        let counter = match outcome {
            Some(Outcome::Found) => found,
            Some(Outcome::Empty) => empty,
            Some(Outcome::NoName) => no_name,
            Some(Outcome::Refused) => refused,
            Some(Outcome::Malformed) => malformed,
            None => dropped,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Answers by the zone in force.
pub(crate) struct Desk {
    told: watch::Receiver<Told>,
    counts: Arc<Counts>,
    /// One for the machine: all that asks here runs on it.
    allowance: Mutex<Bucket>,
}

impl Desk {
    pub(crate) fn new(told: watch::Receiver<Told>, counts: Arc<Counts>) -> Self {
        Self {
            told,
            counts,
            allowance: Mutex::new(Bucket::new(QUESTIONS_PER_SECOND, BURST)),
        }
    }

    fn answer(&self, question: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let mut allowance = self
            .allowance
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let is_allowed = allowance.take(clock::boot());
        drop(allowance);
        if !is_allowed {
            self.counts.add(None);
            return None;
        }
        let zone = Arc::clone(&self.told.borrow().zone);
        let Answered { outcome, bytes } = answer(&zone, question, transport);
        self.counts.add(Some(outcome));
        bytes
    }

    /// Resolves when the node has ended.
    async fn ended(&self) {
        let mut told = self.told.clone();
        while told.changed().await.is_ok() {}
    }
}

impl Sockets {
    /// Binds both at the same port.
    pub(crate) fn bind(at: SocketAddr) -> io::Result<Self> {
        let udp = std::net::UdpSocket::bind(at)?;
        let address = udp.local_addr()?;
        let tcp = std::net::TcpListener::bind(address)?;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok(Self { udp, tcp, address })
    }

    /// Where they are.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until the node has ended. Must run inside a tokio runtime.
    pub(crate) fn serve(self, desk: Desk) -> io::Result<()> {
        let udp = UdpSocket::from_std(self.udp)?;
        let tcp = TcpListener::from_std(self.tcp)?;
        let desk = Arc::new(desk);
        let (by_udp, by_tcp) = (Arc::clone(&desk), desk);
        tokio::spawn(async move {
            tokio::select! {
                never = datagrams(&udp, &by_udp) => match never {},
                () = by_udp.ended() => {}
            }
        });
        tokio::spawn(async move {
            tokio::select! {
                never = connections(&tcp, &by_tcp) => match never {},
                () = by_tcp.ended() => {}
            }
        });
        Ok(())
    }
}

async fn datagrams(udp: &UdpSocket, desk: &Desk) -> std::convert::Infallible {
    let mut buffer = vec![0; LONGEST_QUESTION];
    loop {
        let Ok((len, from)) = udp.recv_from(&mut buffer).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let question = buffer.get(..len).unwrap_or_default();
        if let Some(answer) = desk.answer(question, Transport::Udp) {
            // An answer that is lost is asked for again.
            let _ = udp.send_to(&answer, from).await;
        }
    }
}

async fn connections(tcp: &TcpListener, desk: &Arc<Desk>) -> std::convert::Infallible {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let Ok((client, _)) = tcp.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let desk = Arc::clone(desk);
        tokio::spawn(async move {
            tokio::select! {
                // A client that has gone, or is too slow, is no fault of ours.
                _ = timeout(CONNECTION_TIME, converse(client, &desk)) => {}
                () = desk.ended() => {}
            }
            drop(place);
        });
    }
}

/// Answers one question after the other, each after its length in two bytes (RFC 1035, section 4.2.2).
async fn converse(mut client: TcpStream, desk: &Desk) -> io::Result<()> {
    let mut buffer = vec![0; LONGEST_QUESTION];
    loop {
        let len = usize::from(client.read_u16().await?);
        let Some(question) = buffer.get_mut(..len) else {
            return Ok(());
        };
        client.read_exact(question).await?;
        let Some(answer) = desk.answer(question, Transport::Tcp) else {
            return Ok(());
        };
        let len = u16::try_from(answer.len()).map_err(io::Error::other)?;
        client
            .write_all(&[&len.to_be_bytes()[..], &answer].concat())
            .await?;
    }
}

/// More than the programs of a machine ask, and few enough that the node's other tasks get their turn.
const QUESTIONS_PER_SECOND: u32 = 5_000;
const BURST: u32 = 5_000;
/// In bytes: a question has a name of 255 and a few options.
const LONGEST_QUESTION: usize = 4096;
/// TCP connections at a time; others wait in the system's queue.
const CONNECTIONS: usize = 16;
const CONNECTION_TIME: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);
