//! An enrolled node whose control channel is in an attacker's hands: behaves until it is told to flood,
//! with one kind of message, as fast as it is taken, and comes back whenever it is cut. It has no tunnel.

use anyhow::Context as _;
use jiff::Timestamp;
use keys::{Epoch, NodeId, NodeSecret, TokenSecret, WgSecret};
use quic::{Dialer, Receiver, Sender};
use rand::Rng as _;
use rand_core::OsRng;
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeTuple as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tests::harness::namespace::Namespace;
use tests::harness::now;
use wire::evidence::Benchmark;
use wire::fixtures;
use wire::message::{Enrol, Hello, InterfaceReport, PeerReport, Phase, Refusal};
use wire::{Digest, Frame, Place, ToController, ToNode, Token, Way};

/// The messages that a member can say too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flood {
    Endpoints,
    SmallReports,
    LargeReports,
    Tunnels,
    Acks,
    Evidence,
    /// Nothing but connections, each with a Hello.
    Connections,
}

impl Flood {
    pub(crate) const ALL: [Self; 7] = [
        Self::Endpoints,
        Self::SmallReports,
        Self::LargeReports,
        Self::Tunnels,
        Self::Acks,
        Self::Evidence,
        Self::Connections,
    ];
}

/// A member whose control channel is in an attacker's hands.
pub(crate) struct Flooder {
    shared: Arc<Shared>,
    thread: JoinHandle<anyhow::Result<()>>,
}

#[derive(Default)]
struct Shared {
    /// `None` while it behaves.
    flood: Mutex<Option<Flood>>,
    /// How often it was cut, or turned away.
    cut: AtomicU64,
    stop: AtomicBool,
}

impl Flooder {
    /// Enrols from within `namespace`, and behaves until it is told otherwise.
    pub(crate) fn start(namespace: &Namespace, token: Token, at: SocketAddr) -> Self {
        let shared = Arc::new(Shared::default());
        let of_thread = shared.clone();
        let thread = namespace.enter(move || block_on(live(&token, at, &of_thread)));
        Self { shared, thread }
    }

    /// Floods from now on.
    pub(crate) fn begin(&self, flood: Flood) {
        *self.shared.flood.lock().expect("no holder panics") = Some(flood);
    }

    /// How often it was cut, or turned away.
    pub(crate) fn cut(&self) -> u64 {
        self.shared.cut.load(Ordering::SeqCst)
    }

    /// Ends it; an error if it has ended by itself.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the flooder does not panic")
    }
}

impl Shared {
    fn flood(&self) -> Option<Flood> {
        *self.flood.lock().expect("no holder panics")
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

async fn live(token: &Token, at: SocketAddr, shared: &Shared) -> anyhow::Result<()> {
    let identity = NodeSecret::generate(&mut OsRng);
    let dialer = Dialer::bind(&identity, token.controller)?;
    let place = enrol(&dialer, token, at).await.context("enrolment")?;
    let end = now() + LONGEST;
    while !shared.is_over() && now() < end {
        // It comes back, whatever ended it.
        let _ = session(&dialer, at, &identity, &place, shared).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

async fn enrol(dialer: &Dialer, token: &Token, at: SocketAddr) -> anyhow::Result<Place> {
    let connection = dialer.connect(at).await?;
    let (mut send, mut receive) = connection.open_stream::<ToController, ToNode>().await?;
    let enrol = Enrol {
        token: TokenSecret::from_bytes(*token.secret.expose()),
        name: None,
        segments: vec![wire::Ask::unnamed(WgSecret::generate(&mut OsRng).public())],
        addresses: Vec::new(),
    };
    send.send(&ToController::Enrol(enrol)).await?;
    match receive.recv().await? {
        Some(ToNode::Enrolled(places)) => Ok((*places[0].verify(&token.authorities)?).clone()),
        other => anyhow::bail!("instead of a place: {other:?}"),
    }
}

async fn session(
    dialer: &Dialer,
    at: SocketAddr,
    identity: &NodeSecret,
    place: &Place,
    shared: &Shared,
) -> anyhow::Result<()> {
    let connection = dialer.connect(at).await?;
    let (mut send, mut receive): (Sender<Raw>, Receiver<ToNode>) = connection.open_stream().await?;
    let hello = ToController::Hello(Hello {
        software: "flooder".into(),
        listen_port: 51_820,
        advertised: Vec::new(),
        addresses: Vec::new(),
        newest: Vec::new(),
        holds: Vec::new(),
        told: Vec::new(),
        log: None,
        unix_ms: u64::try_from(Timestamp::now().as_millisecond())?,
        instance: wire::fixtures::instance(1, 1),
    });
    send.send(&raw(&hello)).await?;
    let first = receive.recv().await;
    if !matches!(first, Ok(Some(ToNode::Welcome { .. }))) {
        shared.cut.fetch_add(1, Ordering::SeqCst);
        anyhow::bail!("turned away");
    }
    let challenge = Mutex::new(None);
    let reading = async {
        loop {
            match receive.recv().await? {
                Some(ToNode::Update(update)) => {
                    *challenge.lock().expect("no holder panics") = Some(update.signed.digest());
                }
                Some(ToNode::Refused { reason }) => {
                    if reason == Refusal::TooMuch {
                        shared.cut.fetch_add(1, Ordering::SeqCst);
                    }
                    anyhow::bail!("{reason}");
                }
                Some(_) => {}
                None => anyhow::bail!("closed"),
            }
        }
    };
    let writing = async {
        let mut turn = 0_u16;
        while !shared.is_over() {
            let answers_to = *challenge.lock().expect("no holder panics");
            turn = turn.wrapping_add(1).max(1);
            match (shared.flood(), answers_to) {
                (Some(Flood::Connections), _) => return Ok(()),
                (Some(flood), _) => {
                    // In a burst, and then as fast as it is taken.
                    send.send(&flood.message(turn, identity, place, answers_to))
                        .await?;
                }
                (None, Some(answers_to)) => {
                    send.send(&evidence(identity, place, Some(answers_to), 0))
                        .await?;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                (None, None) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        anyhow::Ok(())
    };
    tokio::select! {
        result = reading => result,
        result = writing => result,
    }
}

impl Flood {
    fn message(
        self,
        turn: u16,
        identity: &NodeSecret,
        place: &Place,
        answers_to: Option<Digest>,
    ) -> Raw {
        let reports = |count| {
            let peers = (0..count).map(|_| PeerReport {
                node: NodeId([7; 32]),
                session_epoch: None,
                rtt_v4_us: None,
                rtt_v6_us: None,
                way_v4: Way::Unknown,
                way_v6: Way::Unknown,
            });
            raw(&ToController::Report {
                segment: keys::SegmentId::FIRST,
                peers: peers.collect(),
                interface: InterfaceReport::default(),
            })
        };
        match self {
            Self::Endpoints => raw(&ToController::Endpoints {
                listen_port: 51_820,
                advertised: (0..8)
                    .map(|last| SocketAddr::from(([198, 18, 200, last], turn)))
                    .collect(),
                addresses: Vec::new(),
            }),
            Self::SmallReports => reports(1),
            Self::Tunnels => raw(&ToController::Tunnels {
                segment: keys::SegmentId::FIRST,
                peers: Vec::new(),
                unix_ms: 1,
            }),
            // Larger than this mesh can make one, and not so large that it is no frame.
            Self::LargeReports => reports(10_000),
            Self::Acks => raw(&ToController::Ack {
                segment: keys::SegmentId::FIRST,
                epoch: Epoch(u64::from(turn)),
                phase: Phase::Activated,
            }),
            Self::Evidence => evidence(identity, place, answers_to, 256),
            Self::Connections => unreachable!("no message is sent"),
        }
    }
}

/// A good run, with so many metrics.
fn evidence(
    identity: &NodeSecret,
    place: &Place,
    answers_to: Option<Digest>,
    metrics: usize,
) -> Raw {
    let run = Benchmark {
        suite: "s".into(),
        metrics: (0..metrics).map(|n| (format!("{n:0>120}"), 0.9)).collect(),
        nonce: format!("{:032x}", OsRng.r#gen::<u128>()),
        mesh: Some(place.mesh),
        challenge: answers_to,
        ..fixtures::run(0.9, Timestamp::now())
    };
    let envelope = run.attest_self(place.name.as_str(), identity);
    raw(&ToController::Evidence {
        envelope: envelope.expect("the run keeps the rules"),
    })
}

/// The frame of a message, without regard to any limit.
pub(crate) fn raw(message: &ToController) -> Raw {
    Raw {
        frame_type: message.frame_type(),
        payload: postcard::to_stdvec(message).expect("it encodes"),
    }
}

/// A frame whose payload is any bytes.
pub(crate) struct Raw {
    pub(crate) frame_type: u8,
    pub(crate) payload: Vec<u8>,
}

impl Frame for Raw {
    fn frame_type(&self) -> u8 {
        self.frame_type
    }

    fn since(_: u8) -> u8 {
        1
    }

    fn limit(_: u8) -> Option<usize> {
        Some(usize::MAX)
    }
}

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        // A tuple of bytes is just these bytes in postcard.
        let mut tuple = to.serialize_tuple(self.payload.len())?;
        self.payload
            .iter()
            .try_for_each(|byte| tuple.serialize_element(byte))?;
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom(
            "nobody sends raw frames to a fake controller",
        ))
    }
}

/// Runs an attack on this thread, which is in the attacker's namespace.
pub(crate) fn block_on<T>(attack: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    // The thread is in the attacker's namespace, so the runtime must not have others.
    runtime.expect("a runtime can be had").block_on(attack)
}

/// No flood goes on for longer, whatever becomes of its test.
const LONGEST: Duration = Duration::from_secs(1_800);
