//! HTTP on TCP, for scrapers: `GET /metrics`, to whoever reaches the address, and nothing else. Plain
//! and without authentication, so it refuses everything that could change anything, and bounds what
//! a stranger can hold: connections, the time of each, and the size of a request.

use crate::page::{CONTENT_TYPE, Page};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE as TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// A bound address.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

/// Why metrics cannot be served.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot serve metrics on {address} (TCP): {source}; choose another address with --metrics-listen"
)]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// The system's answer.
    pub source: io::Error,
}

impl Listener {
    /// Binds `address`. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// The system's answer, with the way out.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let bound = || {
            // Not tokio's own bind, which awaits: everything else that is bound at the start is not.
            let socket = std::net::TcpListener::bind(address)?;
            socket.set_nonblocking(true)?;
            let address = socket.local_addr()?;
            let socket = TcpListener::from_std(socket)?;
            Ok(Self { socket, address })
        };
        bound().map_err(|source| BindError { address, source })
    }

    /// The address, with the port that it got.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers each request with what `scrape` gives; nothing means that the daemon is stopping.
    /// Goes on until it is dropped.
    pub async fn serve<R>(self, scrape: impl Fn() -> R + Clone + Send + 'static) -> Infallible
    where
        R: Future<Output = Option<Page>> + Send + 'static,
    {
        tracing::info!(address = %self.address, "metrics served");
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut failed = false;
        loop {
            let place = Arc::clone(&places).acquire_owned().await;
            let stream = match self.socket.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    if !std::mem::replace(&mut failed, true) {
                        tracing::warn!(%error, "no connection for metrics is accepted; trying on");
                    }
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            failed = false;
            let scrape = scrape.clone();
            tokio::spawn(async move {
                // A failure here is the client's affair; a scraper asks again.
                let _ = timeout(CONNECTION_TIME, connection(stream, scrape)).await;
                drop(place);
            });
        }
    }
}

/// One request, one response: a connection that stays open would only take a place.
async fn connection<R>(
    stream: TcpStream,
    scrape: impl Fn() -> R + Clone + Send + 'static,
) -> hyper::Result<()>
where
    R: Future<Output = Option<Page>> + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let scrape = scrape.clone();
        async move {
            let response = match refusal(request.method(), request.uri().path()) {
                Some(status) => plain(status),
                None => scrape()
                    .await
                    .map_or_else(|| plain(StatusCode::SERVICE_UNAVAILABLE), answer),
            };
            Ok::<_, Infallible>(response)
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(MAX_REQUEST)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

fn refusal(method: &Method, path: &str) -> Option<StatusCode> {
    match (method, path) {
        (&Method::GET, PATH) => None,
        (_, PATH) => Some(StatusCode::METHOD_NOT_ALLOWED),
        _ => Some(StatusCode::NOT_FOUND),
    }
}

fn answer(page: Page) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(page.text()));
    let headers = response.headers_mut();
    headers.insert(TYPE, HeaderValue::from_static(CONTENT_TYPE));
    response
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let words = match status {
        StatusCode::SERVICE_UNAVAILABLE => "meshd is stopping\n",
        _ => "only GET /metrics is served here\n",
    };
    let mut response = Response::new(Full::from(words));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET"));
    }
    response
}

const PATH: &str = "/metrics";
/// Others wait in the system's queue until one of these has ended.
const MAX_CONNECTIONS: usize = 16;
/// For the whole of a connection, reading the answer included.
const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// Until a request has come in whole.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// The least that the library allows; a scraper's request has a tenth of it.
const MAX_REQUEST: usize = 8 << 10;
/// After a connection that could not be accepted: probably there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
