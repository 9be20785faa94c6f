//! The address of the page. Never a reason not to start: one that is taken, or that this machine has not yet, is
//! waited for, and the status says so meanwhile.

use crate::board::Board;
use crate::router::Router;
use crate::source::Source;
use crate::token::Token;
use exposition::http::{self, Terms};
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use wire::admin::PageStatus;

/// The settings of the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The TCP address.
    pub address: SocketAddr,
    /// The token that readers have to show; beyond loopback there has to be one.
    pub token: Option<Token>,
}

/// Whether the page has its address, for the role's status.
#[derive(Debug, Clone)]
pub struct Standing(Arc<Mutex<PageStatus>>);

impl Standing {
    /// The page, as a status shows it.
    pub fn status(&self) -> PageStatus {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn is_bound(&self, address: SocketAddr) {
        let mut status = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        status.address = address;
        status.fault = None;
    }
}

/// An address that serves the page as soon as it can be had.
#[derive(Debug)]
pub struct Listener {
    config: Config,
    clients: usize,
    socket: Option<TcpListener>,
    standing: Standing,
}

impl Listener {
    /// Tries to bind the address, with whatever rights there are now; [`Self::serve`] goes on trying. Serves so many
    /// `clients` at a time. Must run inside a tokio runtime.
    pub fn open(config: Config, clients: usize) -> Self {
        let status = PageStatus {
            address: config.address,
            token: config.token.is_some(),
            fault: None,
        };
        let mut listener = Self {
            clients,
            socket: None,
            standing: Standing(Arc::new(Mutex::new(status))),
            config,
        };
        let address = listener.config.address;
        match http::bind(address) {
            Ok((socket, address)) => {
                listener.socket = Some(socket);
                listener.standing.is_bound(address);
            }
            Err(error) => {
                let fault = format!(
                    "the page cannot be served at {address}: {error}; another address is set with `page`, and \
                     `page = \"off\"` does without"
                );
                tracing::warn!(%address, %error, "the page cannot be served yet: waiting for the address (--page)");
                let mut status = listener
                    .standing
                    .0
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                status.fault = Some(fault);
            }
        }
        listener
    }

    /// Whether it has its address, now and later.
    pub fn standing(&self) -> Standing {
        self.standing.clone()
    }

    /// Serves what lies on the board, and what the source answers, until it is dropped.
    pub async fn serve<S: Source>(self, board: Arc<Board>, source: S) -> Infallible {
        let socket = match self.socket {
            Some(socket) => socket,
            None => {
                let (socket, address) = http::wait_for(self.config.address).await;
                self.standing.is_bound(address);
                socket
            }
        };
        let address = self.standing.status().address;
        if address.ip().to_canonical().is_loopback() {
            tracing::info!(%address, "page served");
        } else {
            tracing::warn!(
                %address,
                "page served in the clear, its token too: whoever is on the way can read both; SECURITY.md says how \
                 to do better"
            );
        }
        let router = Arc::new(Router::new(self.config.token, board, source));
        let service = service_fn(move |request: Request<Incoming>| {
            let router = Arc::clone(&router);
            async move { Ok::<_, Infallible>(router.answer(&request.into_parts().0).await) }
        });
        let terms = Terms {
            of: "the page",
            clients: self.clients,
            head: HEAD_TIME,
            request: REQUEST_TIME,
            connection: Some(CONNECTION_TIME),
            keep_alive: true,
        };
        http::serve(socket, service, terms).await
    }
}

/// Until a request has come in whole; longer than the pause between two of a browser.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// For an answer to be made; longer than a role takes to say that it is held up.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// For a connection. One whose reader takes nothing any more ends with it, and a browser makes another.
const CONNECTION_TIME: Duration = Duration::from_secs(300);
