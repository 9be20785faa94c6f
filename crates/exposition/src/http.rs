//! An HTTP server that strangers cannot use up: so many connections at a time, idle ones give way, and each
//! step has its time. Knows no paths.

use crate::places::{Place, Places};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::{sleep, timeout};

/// Whoever is at the other end of a connection. Each request has it among its extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The user that the kernel names for the other end of a Unix socket, as it was when that end connected;
    /// `None` where there is no such word.
    pub uid: Option<u32>,
}

/// A socket that connections come from.
pub trait Accept {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection, and whose it is.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Caller)>> + Send;
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Caller)> {
        Ok((Self::accept(self).await?.0, Caller { uid: None }))
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Caller)> {
        let stream = Self::accept(self).await?.0;
        // A connection that the kernel names nobody for is not taken: its orders would be on record as nobody's.
        let uid = Some(stream.peer_cred()?.uid());
        Ok((stream, Caller { uid }))
    }
}

/// How much clients may take.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// A name for the log.
    pub of: &'static str,
    /// Connections at a time.
    pub clients: usize,
    /// Until the head of a request has come in whole, from the beginning of a connection or the end of the
    /// request before.
    pub head: Duration,
    /// From the head of a request to its answer, the rest of the request included.
    pub request: Duration,
    /// For a whole connection, if it has to end at all.
    pub connection: Option<Duration>,
    /// Whether a connection may bring more than one request.
    pub keep_alive: bool,
}

/// Takes a TCP address, and says which: with port 0 the system chooses one. Not tokio's own function, which awaits:
/// everything else that is bound at a start is not. Must run inside a tokio runtime.
///
/// # Errors
/// When the address is taken or not of this machine.
pub fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = std::net::TcpListener::bind(address)?;
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    Ok((TcpListener::from_std(socket)?, address))
}

/// The same for an address that could not be had: tries again each second until it can.
pub async fn wait_for(address: SocketAddr) -> (TcpListener, SocketAddr) {
    loop {
        sleep(BIND_PAUSE).await;
        if let Ok(bound) = bind(address) {
            return bound;
        }
    }
}

/// Serves connections until this is dropped. A connection that cannot be accepted is no end: it is tried again.
pub async fn serve<L, S, B>(socket: L, service: S, terms: Terms) -> Infallible
where
    L: Accept,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let places = Places::new(terms.clients);
    let mut failed = false;
    loop {
        let (stream, caller) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if !std::mem::replace(&mut failed, true) {
                    tracing::warn!(of = terms.of, %error, "no connection is accepted; trying on");
                }
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        failed = false;
        let place = places.take().await;
        let service = service.clone();
        let served = connection(stream, caller, service, Arc::clone(&place), terms);
        tokio::spawn(async move {
            let whole = async {
                match terms.connection {
                    // A failure here is the client's affair; it asks again.
                    Some(limit) => drop(timeout(limit, served).await),
                    None => drop(served.await),
                }
            };
            tokio::select! {
                () = whole => {}
                () = place.wanted() => {}
            }
        });
    }
}

async fn connection<T, S, B>(
    stream: T,
    caller: Caller,
    service: S,
    place: Arc<Place>,
    terms: Terms,
) -> hyper::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Sync,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let busy = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(caller);
        let busy = place.begin();
        let answer = service.call(request);
        async move {
            let Ok(answer) = timeout(terms.request, answer).await else {
                busy.give_up();
                return std::future::pending().await;
            };
            drop(busy);
            answer
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(terms.head)
        .max_buf_size(MAX_HEAD)
        .keep_alive(terms.keep_alive)
        .serve_connection(TokioIo::new(stream), busy)
        .await
}

/// The least that the library allows; a client's request has a tenth of it.
const MAX_HEAD: usize = 8 << 10;
/// After a connection that could not be accepted: probably there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// Between two attempts to have an address.
const BIND_PAUSE: Duration = Duration::from_secs(1);
