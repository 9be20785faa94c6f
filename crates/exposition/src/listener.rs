//! HTTP on TCP, for scrapers: `GET /metrics`, to whoever reaches the address, and nothing else. Plain
//! and without authentication, so it refuses everything that could change anything, and bounds what
//! a stranger can hold: connections, the time of each, and the size of a request.
//!
//! Never a reason not to start: an address that is taken, or that this machine has not yet, is waited for.

use crate::http::{self, Terms};
use crate::page::{Format, Page};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;

/// An address that serves metrics as soon as it can be had.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    clients: usize,
    socket: Option<TcpListener>,
}

impl Listener {
    /// Tries to bind `address`, with whatever rights there are now; [`Self::serve`] goes on trying. Serves so
    /// many `clients` at a time. Must run inside a tokio runtime.
    pub fn open(address: SocketAddr, clients: usize) -> Self {
        let mut listener = Self {
            address,
            clients,
            socket: None,
        };
        match http::bind(address) {
            Ok((socket, address)) => {
                listener.socket = Some(socket);
                listener.address = address;
            }
            Err(error) => {
                tracing::warn!(
                    %address, %error,
                    "metrics cannot be served yet: waiting for the address (--metrics-listen)"
                );
            }
        }
        listener
    }

    /// The address, with the port that it got if it is bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers each request with what `scrape` gives, or with why there is nothing to give.
    /// Goes on until it is dropped.
    pub async fn serve<R>(
        self,
        scrape: impl Fn() -> R + Clone + Send + Sync + 'static,
    ) -> Infallible
    where
        R: Future<Output = Result<Page, String>> + Send + 'static,
    {
        let socket = match self.socket {
            Some(socket) => socket,
            None => http::wait_for(self.address).await.0,
        };
        tracing::info!(address = %self.address, "metrics served");
        let service = service_fn(move |request: Request<Incoming>| {
            let scrape = scrape.clone();
            async move {
                let response = match refusal(request.method(), request.uri().path()) {
                    Some(status) => plain(status, ONLY.to_owned()),
                    None => {
                        let accept = request.headers().get(ACCEPT);
                        let format = Format::accepted(accept.and_then(|it| it.to_str().ok()));
                        match scrape().await {
                            Ok(page) => answer(page, format),
                            Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, why),
                        }
                    }
                };
                Ok::<_, Infallible>(response)
            }
        });
        let terms = Terms {
            of: "metrics",
            clients: self.clients,
            head: HEAD_TIME,
            request: CONNECTION_TIME,
            connection: Some(CONNECTION_TIME),
            // One that stays open would only take a place.
            keep_alive: false,
        };
        http::serve(socket, service, terms).await
    }
}

fn refusal(method: &Method, path: &str) -> Option<StatusCode> {
    match (method, path) {
        (&Method::GET, PATH) => None,
        (_, PATH) => Some(StatusCode::METHOD_NOT_ALLOWED),
        _ => Some(StatusCode::NOT_FOUND),
    }
}

fn answer(page: Page, format: Format) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(page.text(format)));
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static(format.content_type()),
    );
    response
}

fn plain(status: StatusCode, words: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(words + "\n"));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET"));
    }
    response
}

const PATH: &str = "/metrics";
const ONLY: &str = "only GET /metrics is served here";
/// For the whole of a connection, reading the answer included.
const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// Until a request has come in whole.
const HEAD_TIME: Duration = Duration::from_secs(5);
