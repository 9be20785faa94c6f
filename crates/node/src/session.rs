//! The control channel: dials the controller, enrols or says hello, and carries messages until the
//! connection is lost; then dials again, with backoff and jitter, for ever.
//!
//! The file is long because dialling, enrolling and saying hello share one connection and its errors.

use crate::enrolling::Progress;
use crate::io::{addresses, clock, interface, udp};
use agent::SessionEvent;
use keys::{AuthorityId, MeshId, NodeId};
use quic::{Connection, Dialer, Pulse};
use rand::Rng as _;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, ToSocketAddrs as _};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tunnel::Inside;
use wire::endpoints::PlacesMark;
use wire::host_port::{Host, HostPort, HostPortError};
use wire::log::LogEnd;
use wire::message::{Enrol, Hello, MAX_OWN, Refusal};
use wire::{
    Ask, Digest, Duplicate, Instance, Mark, NodeName, Place, Signed, Succession, ToController,
    ToNode, Token, VerifyError, succession,
};

/// News of the control channel.
pub(crate) enum Session {
    /// The controller has welcomed this node.
    Up {
        /// For the agent.
        event: SessionEvent,
        /// Where the controller sees this node, if that is no address of this machine: an address
        /// translator is in between.
        mapped: Option<SocketAddr>,
        /// Addresses of this machine that peers may reach it at, as the controller was told.
        addresses: Vec<IpAddr>,
        /// Takes messages for the controller; full or closed: they are lost with the connection. Dropped,
        /// it ends the connection, and another one is made.
        outbox: mpsc::Sender<ToController>,
        /// When the controller was last heard.
        pulse: Pulse,
    },
    /// The controller sees this node there now, if that is no address of this machine.
    Seen { mapped: Option<SocketAddr> },
    /// Anything else, for the agent.
    Heard(SessionEvent),
}

/// Why there is no control connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// The address does not resolve.
    #[error("cannot resolve {0}")]
    Resolve(String),
    /// The address is none.
    #[error("{0} is no address: {1}")]
    Address(String, HostPortError),
    /// Its zone is not there.
    #[error("this machine has no interface {0}, which is the zone of the controller's address")]
    Zone(String),
    /// Packets to it would enter the tunnel.
    #[error("the controller's address {0} is inside the mesh's address range: it is not used")]
    Inside(IpAddr),
    /// No connection, or it was lost.
    #[error(transparent)]
    Connection(#[from] quic::ConnectionError),
    /// The stream broke.
    #[error(transparent)]
    Send(#[from] quic::SendError),
    /// The stream broke, or carried something that is no frame.
    #[error(transparent)]
    Receive(#[from] quic::RecvError),
    /// The controller serves another process with this node's keys.
    #[error("{0}")]
    Duplicate(Duplicate),
    /// The controller will not serve this node.
    #[error("the controller refuses: {0}")]
    Refused(Refusal),
    /// The place that the controller gives is not this node's, or the authority has not signed it.
    #[error("the controller gives a place that the authority has not signed for this node: {0}")]
    Place(&'static str),
    /// The controller said something else than it should.
    #[error("the controller answered out of turn")]
    OutOfTurn,
    /// The controller closed the stream.
    #[error("the controller closed the connection")]
    Closed,
    /// The controller does not answer.
    #[error("the controller does not answer")]
    Silent,
    /// Time stood still here.
    #[error("this machine's clock lost time: asking the controller anew")]
    TimeLost,
}

/// The memory of the controller that a node shows it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shown {
    /// The mark of the newest epoch that was in force, of each segment.
    pub(crate) newest: Vec<Signed<Mark>>,
    /// The end of its log.
    pub(crate) log: Option<LogEnd>,
    /// The updates that are in memory.
    pub(crate) holds: Vec<Digest>,
    /// Up to where it was told of the endpoints of others.
    pub(crate) told: Vec<PlacesMark>,
    /// The mesh's own addresses, which lead into a tunnel. These are not shown, and stay out of what is.
    pub(crate) inside: Inside,
}

/// The part of a hello that may change from one connection to the next.
pub(crate) struct Introduction {
    pub(crate) node: NodeId,
    pub(crate) mesh: MeshId,
    pub(crate) authorities: Vec<AuthorityId>,
    pub(crate) listen_port: u16,
    pub(crate) advertised: Vec<SocketAddr>,
    pub(crate) shown: watch::Receiver<Shown>,
    pub(crate) instance: Instance,
}

impl Introduction {
    /// The next connection begins with the authorities of today.
    fn follow(&mut self, chain: &[Signed<Succession>]) {
        self.authorities = succession::follow(chain, Some(self.mesh), &self.authorities);
    }
}

/// A place is believed if a trusted authority signed it for this node: the controller's connection key
/// alone must not be able to move a node, or to have a foreign range routed into its tunnel.
fn believe(
    place: &Signed<Place>,
    node: NodeId,
    authorities: &[AuthorityId],
) -> Result<Place, SessionError> {
    let place = place.verify(authorities).map_err(|error| match error {
        VerifyError::UnknownSigner(_) => SessionError::Place("signed by another key"),
        VerifyError::BadSignature => SessionError::Place("the signature does not verify"),
        VerifyError::Malformed => SessionError::Place("malformed"),
        VerifyError::Invalid(rule) => SessionError::Place(rule),
    })?;
    if place.node == node {
        Ok((*place).clone())
    } else {
        Err(SessionError::Place("it is another node's"))
    }
}

/// The same of several places.
fn believe_all(
    places: &[Signed<Place>],
    node: NodeId,
    authorities: &[AuthorityId],
) -> Result<Vec<Place>, SessionError> {
    let believed = places.iter().map(|it| believe(it, node, authorities));
    believed.collect()
}

/// The controllers' addresses that need no resolving.
pub(crate) fn literal(addresses: &[String]) -> BTreeSet<IpAddr> {
    let each = addresses
        .iter()
        .filter_map(|it| it.parse::<HostPort>().ok());
    let literal = each.filter_map(|it| match it.host {
        Host::Address(address) => Some(address.to_canonical()),
        // An address on one link is in no network that can be routed.
        Host::Name(_) | Host::Zoned(..) => None,
    });
    literal.collect()
}

/// Keeps the control channel up until the agent is gone.
pub(crate) async fn run(
    dialer: Dialer,
    addresses: Vec<String>,
    mut introduction: Introduction,
    events: mpsc::Sender<Session>,
) {
    let mut backoff = Backoff::default();
    let mut caller = Caller::new(&dialer);
    for address in addresses.iter().cycle() {
        let error = match once(
            &mut caller,
            address,
            &mut introduction,
            &events,
            &mut backoff,
        )
        .await
        {
            Ok(()) => SessionError::Closed,
            Err(error) => error,
        };
        let address = address.clone();
        let (down, pause) = match error {
            SessionError::Duplicate(duplicate) => {
                let pause = DUPLICATE_PAUSE.mul_f64(rand_core::OsRng.gen_range(0.5..1.5));
                (SessionEvent::Duplicate { address, duplicate }, pause)
            }
            error => {
                let error = error.to_string();
                (SessionEvent::Down { address, error }, backoff.next())
            }
        };
        if events.send(Session::Heard(down)).await.is_err() {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = events.closed() => break,
        }
    }
    dialer.close("the node is stopping").await;
}

async fn once(
    caller: &mut Caller<'_>,
    address: &str,
    introduction: &mut Introduction,
    events: &mpsc::Sender<Session>,
    backoff: &mut Backoff,
) -> Result<(), SessionError> {
    let dialled = clock::boot();
    let own = introduction.shown.borrow().inside.clone();
    let inside = |address: IpAddr| own.contains(address);
    let connection = dial(caller, address, inside).await?;
    let (mut send, mut receive) = connection.open_stream::<ToController, ToNode>().await?;
    let controller = connection.remote().ip();
    let addresses = addresses::usable(controller, inside).await;
    let shown = introduction.shown.borrow().clone();
    let hello = Hello {
        software: env!("CARGO_PKG_VERSION").into(),
        listen_port: introduction.listen_port,
        advertised: introduction.advertised.clone(),
        addresses: addresses.clone(),
        newest: shown.newest,
        holds: shown.holds,
        told: shown.told,
        log: shown.log,
        unix_ms: clock::unix_ms(),
        instance: introduction.instance,
    };
    send.send(&ToController::Hello(hello)).await?;
    let mut answer = timeout(ANSWER_TIME, receive.recv())
        .await
        .map_err(|_| SessionError::Silent)??;
    let mut words = None;
    if let Some(ToNode::Authorities { successions }) = answer {
        introduction.follow(&successions);
        words = Some(ToNode::Authorities { successions });
        answer = timeout(ANSWER_TIME, receive.recv())
            .await
            .map_err(|_| SessionError::Silent)??;
    }
    let (places, unix_ms, observed) = match answer {
        Some(ToNode::Welcome {
            places,
            unix_ms,
            observed,
        }) => (places, unix_ms, observed),
        Some(ToNode::Duplicate(duplicate)) => return Err(SessionError::Duplicate(duplicate)),
        Some(ToNode::Refused { reason }) => return Err(SessionError::Refused(reason)),
        Some(_) => return Err(SessionError::OutOfTurn),
        None => return Err(SessionError::Closed),
    };
    let places = believe_all(&places, introduction.node, &introduction.authorities)?;
    backoff.reset();
    let skew_ms =
        i64::try_from(i128::from(clock::unix_ms()) - i128::from(unix_ms)).unwrap_or(i64::MAX);
    let (outbox, mut outgoing) = mpsc::channel(OUTBOX);
    let event = SessionEvent::Up {
        address: address.to_owned(),
        remote: connection.remote(),
        dialled,
        places,
        skew_ms,
    };
    let pulse = connection.pulse();
    let up = Session::Up {
        event,
        mapped: mapped(observed),
        addresses,
        outbox,
        pulse,
    };
    if events.send(up).await.is_err() {
        return Ok(());
    }
    if let Some(words) = words {
        // The agent believes nobody else's word for a key, not even the session's.
        let words = Session::Heard(SessionEvent::Message(Box::new(words)));
        if events.send(words).await.is_err() {
            return Ok(());
        }
    }

    // Each direction is one future of its own: a half-read frame is never abandoned for the other.
    let reading = async {
        while let Some(message) = receive.recv().await? {
            if let ToNode::Refused { reason } = message {
                return Err(SessionError::Refused(reason));
            }
            if let ToNode::Authorities { successions } = &message {
                introduction.follow(successions);
            }
            let heard = match message {
                ToNode::Seen { observed } => Session::Seen {
                    mapped: mapped(observed),
                },
                message => Session::Heard(SessionEvent::Message(Box::new(message))),
            };
            if events.send(heard).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    let writing = async {
        while let Some(message) = outgoing.recv().await {
            // A controller of the version before gets on without.
            if send.is_known(&message) {
                send.send(&message).await?;
            }
        }
        // The agent lets go of a connection for one reason alone.
        Err(SessionError::TimeLost)
    };
    let result = tokio::select! {
        result = reading => result,
        result = writing => result,
        lost = connection.closed() => Err(lost.into()),
        () = events.closed() => Ok(()),
    };
    connection.close("done");
    result
}

/// The address where the controller sees this node, if it is none of this machine's.
fn mapped(observed: SocketAddr) -> Option<SocketAddr> {
    Some(observed).filter(|it| !udp::is_own(it.ip()))
}

/// Enrols with a token: tries the addresses until one answers or the controller refuses.
///
/// # Errors
/// The controller's refusal; anything else is tried again.
pub(crate) async fn enrol(
    dialer: &Dialer,
    (token, addresses): (&Token, &[String]),
    (name, interface): (Option<&NodeName>, &str),
    (node, asks): (NodeId, &[Ask]),
    told: &watch::Sender<Progress>,
) -> Result<(Vec<Place>, Vec<AuthorityId>), Refusal> {
    let mut backoff = Backoff::default();
    let mut caller = Caller::new(dialer);
    let (mut warned, mut told_to_wait) = (false, false);
    for address in addresses.iter().cycle() {
        let mut waits = |name: &NodeName| {
            told.send_replace(Progress {
                controller: Some(address.clone()),
                error: None,
                waits_as: Some(name.to_string()),
            });
            if !std::mem::replace(&mut told_to_wait, true) {
                let hint = format!("meshctl node approve {name}");
                tracing::info!(%name, "this node waits for an operator's approval: `{hint}` at the controller");
            }
        };
        let wishes = (name, interface);
        let error = match enrol_at(
            &mut caller,
            address,
            token,
            wishes,
            (node, asks),
            &mut waits,
        )
        .await
        {
            Ok(enrolled) => return Ok(enrolled),
            Err(SessionError::Refused(Refusal::Busy)) => Refusal::Busy.to_string(),
            Err(SessionError::Refused(reason)) => return Err(reason),
            Err(error) => {
                if !std::mem::replace(&mut warned, true) {
                    tracing::warn!(%address, %error, "cannot reach the controller to enrol; trying on");
                }
                tracing::debug!(%address, %error, "enrolment attempt failed");
                error.to_string()
            }
        };
        told.send_replace(Progress {
            controller: Some(address.clone()),
            error: Some(error),
            waits_as: None,
        });
        tokio::time::sleep(backoff.next()).await;
    }
    Err(Refusal::BadToken)
}

async fn enrol_at(
    caller: &mut Caller<'_>,
    address: &str,
    token: &Token,
    (name, interface): (Option<&NodeName>, &str),
    (node, asks): (NodeId, &[Ask]),
    waits: &mut impl FnMut(&NodeName),
) -> Result<(Vec<Place>, Vec<AuthorityId>), SessionError> {
    // Nothing is known of the range yet. The controller knows it, and refuses before the token is spent.
    let connection = dial(caller, address, |_| false).await?;
    let mut addresses = vec![connection.remote().ip()];
    addresses.extend(addresses::others(interface).await);
    addresses.truncate(MAX_OWN);
    let (mut send, mut receive) = connection.open_stream::<ToController, ToNode>().await?;
    let secret = keys::TokenSecret::from_bytes(*token.secret.expose());
    send.send(&ToController::Enrol(Enrol {
        token: secret,
        name: name.cloned(),
        segments: asks.to_vec(),
        addresses,
    }))
    .await?;
    let answer = timeout(ANSWER_TIME, receive.recv())
        .await
        .map_err(|_| SessionError::Silent)??;
    let mut answer = match answer {
        Some(ToNode::Waiting { name }) => {
            waits(&name);
            // For as long as it takes: the word comes on this connection, and its end is noticed.
            receive.recv().await?
        }
        answer => answer,
    };
    let mut authorities = token.authorities.clone();
    if let Some(ToNode::Authorities { successions }) = &answer {
        // The token is older than the mesh's key of today; which mesh it is of, only the place says.
        authorities = succession::follow(successions, None, &authorities);
        answer = timeout(ANSWER_TIME, receive.recv())
            .await
            .map_err(|_| SessionError::Silent)??;
    }
    connection.close("enrolled");
    match answer {
        Some(ToNode::Enrolled(places)) => {
            let places = believe_all(&places, node, &authorities)?;
            if places.is_empty() {
                return Err(SessionError::OutOfTurn);
            }
            Ok((places, authorities))
        }
        Some(ToNode::Refused { reason }) => Err(SessionError::Refused(reason)),
        Some(_) => Err(SessionError::OutOfTurn),
        None => Err(SessionError::Closed),
    }
}

async fn dial(
    caller: &mut Caller<'_>,
    address: &str,
    inside: impl Fn(IpAddr) -> bool,
) -> Result<Connection, SessionError> {
    let mut last = SessionError::Resolve(address.to_owned());
    for resolved in caller.resolver.resolve(address).await? {
        if inside(resolved.ip()) {
            last = SessionError::Inside(resolved.ip());
            continue;
        }
        match caller.dialer.connect(resolved).await {
            Ok(connection) => return Ok(connection),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

/// Dials names.
struct Caller<'d> {
    dialer: &'d Dialer,
    resolver: Resolver,
}

impl<'d> Caller<'d> {
    fn new(dialer: &'d Dialer) -> Self {
        let resolver = Resolver::default();
        Self { dialer, resolver }
    }
}

/// Asks the system for addresses. Its answer may take minutes, in which a thread and a descriptor of ours wait
/// and cannot be called back: there is never more than one such thread.
#[derive(Default)]
struct Resolver {
    asked: Option<(HostPort, JoinHandle<std::io::Result<Vec<SocketAddr>>>)>,
}

impl Resolver {
    /// The addresses behind one that a person wrote. The zone of a link-local address is looked up each time:
    /// its interface may come later, and with another number.
    async fn resolve(&mut self, text: &str) -> Result<Vec<SocketAddr>, SessionError> {
        let at: HostPort = text
            .parse()
            .map_err(|error| SessionError::Address(text.to_owned(), error))?;
        match &at.host {
            Host::Address(address) => Ok(vec![SocketAddr::new(*address, at.port)]),
            Host::Zoned(address, zone) => {
                let number = zone.parse().or_else(|_| interface::index_of(zone));
                let scope = number.map_err(|_| SessionError::Zone(zone.clone()))?;
                Ok(vec![SocketAddrV6::new(*address, at.port, 0, scope).into()])
            }
            Host::Name(_) => {
                let found = self.ask(at).await;
                found.ok_or_else(|| SessionError::Resolve(text.to_owned()))
            }
        }
    }

    /// The answer of the system about a name; `None` when nobody knows, or says so in time.
    async fn ask(&mut self, at: HostPort) -> Option<Vec<SocketAddr>> {
        // An earlier question, whose answer was not waited for to the end.
        if let Some((_, asked)) = self.asked.as_mut().filter(|(of, _)| *of != at) {
            let _ = timeout(ANSWER_TIME, asked).await.ok()?;
            self.asked = None;
        }
        let (_, asked) = self.asked.get_or_insert_with(|| {
            let name = at.to_string();
            let ask = move || Ok(name.to_socket_addrs()?.collect());
            (at, tokio::task::spawn_blocking(ask))
        });
        let answered = timeout(ANSWER_TIME, asked).await.ok()?;
        self.asked = None;
        answered.ok()?.ok()
    }
}

/// Waits that double from a quarter of a second to ten seconds, with half of jitter.
#[derive(Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let wait = BACKOFF_FIRST
            .saturating_mul(1 << self.failures.min(8))
            .min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        wait.mul_f64(rand_core::OsRng.gen_range(0.5..1.5))
    }

    fn reset(&mut self) {
        self.failures = 0;
    }
}

const ANSWER_TIME: Duration = Duration::from_secs(10);
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Before this process asks again whether the other one is gone; with half of jitter.
const DUPLICATE_PAUSE: Duration = Duration::from_secs(30);
/// Messages that may wait for the stream.
const OUTBOX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use keys::{AuthoritySecret, NodeSecret, SegmentId};
    use rand_core::OsRng;

    #[test]
    fn a_place_is_believed_only_as_the_authority_signed_it_for_this_node() {
        let (authority, stranger) = (
            AuthoritySecret::generate(&mut OsRng),
            AuthoritySecret::generate(&mut OsRng),
        );
        let node = NodeSecret::generate(&mut OsRng).public();
        let other = NodeSecret::generate(&mut OsRng).public();
        let place = Place {
            node,
            mesh: MeshId([1; 16]),
            segment: SegmentId::FIRST,
            segment_name: wire::SegmentName::default(),
            name: "node-a".parse().unwrap(),
            v4: ([10, 76, 0, 2].into(), 16),
            v6: ("fd00::2".parse().unwrap(), 64),
        };
        let trusted = [authority.public()];
        let sign = |place: &Place, by| Signed::sign(place, by).unwrap();
        let told = |place: &Signed<Place>| match believe(place, node, &trusted) {
            Ok(place) => Ok(place),
            Err(error) => Err(error.to_string()),
        };
        assert_eq!(told(&sign(&place, &authority)), Ok(place.clone()));
        let refused = told(&sign(&place, &stranger)).unwrap_err();
        assert!(refused.contains("another key"), "{refused}");
        let anothers = Place {
            node: other,
            ..place.clone()
        };
        let refused = told(&sign(&anothers, &authority)).unwrap_err();
        assert!(refused.contains("another node"), "{refused}");
        // Every byte of it is covered.
        let bytes = postcard::to_stdvec(&sign(&place, &authority)).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let changed = postcard::from_bytes::<Signed<Place>>(&changed);
            assert!(
                changed.is_err() || told(&changed.unwrap()).is_err(),
                "byte {at}"
            );
        }
    }

    #[tokio::test]
    async fn an_address_is_used_as_it_is_and_a_zone_is_looked_up() {
        let found = async |text| match Resolver::default().resolve(text).await {
            Ok(found) => Ok(found.iter().map(ToString::to_string).collect::<Vec<_>>()),
            Err(error) => Err(error.to_string()),
        };
        // The loopback interface is always the first.
        let lo = found("[fe80::1%lo]:7443").await;
        assert_eq!(lo, Ok(vec!["[fe80::1%1]:7443".into()]));
        let number = found("[fe80::1%7]:7443").await;
        assert_eq!(number, Ok(vec!["[fe80::1%7]:7443".into()]));
        let plain = found("192.0.2.1:7443").await;
        assert_eq!(plain, Ok(vec!["192.0.2.1:7443".into()]));
        let gone = found("[fe80::1%no-such-one]:7443").await.unwrap_err();
        assert!(gone.contains("no interface no-such-one"), "{gone}");
        let none = found("http://x:1").await.unwrap_err();
        assert!(none.contains("scheme"), "{none}");
    }
}
