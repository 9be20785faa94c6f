//! HTTP/1.1 over the daemon's Unix socket: one connection per request, bounded in time and size.
//! Refuses to interpret a reply beyond "done" and "refused".

use crate::failure::Failure;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::timeout;
use wire::admin::{ApiError, ControllerStatus, Status};

/// Asks the daemon behind one socket.
#[derive(Debug)]
pub(crate) struct Client {
    socket: PathBuf,
}

/// The body of a successful reply; `{}` where the daemon had nothing to say. May hold
/// secrets, so it has no `Debug`.
pub(crate) struct Reply(Value);

impl Client {
    /// Does not connect yet.
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// The daemon's socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// `GET path`.
    pub(crate) async fn get(&self, path: &str) -> Result<Reply, Failure> {
        self.ask(Method::GET, path, None).await
    }

    /// `GET path`, where the reply is text of another kind than JSON.
    pub(crate) async fn text(&self, path: &str) -> Result<String, Failure> {
        let body = self.done(Method::GET, path, None).await?;
        String::from_utf8(body.to_vec()).map_err(|_| {
            Failure::broken(
                "the daemon's reply is no text",
                "are meshctl and meshd of the same version?",
            )
        })
    }

    /// `DELETE path`.
    pub(crate) async fn delete(&self, path: &str) -> Result<Reply, Failure> {
        self.ask(Method::DELETE, path, None).await
    }

    /// `POST path` without a form.
    pub(crate) async fn post(&self, path: &str) -> Result<Reply, Failure> {
        self.ask(Method::POST, path, None).await
    }

    /// `POST path` with a form.
    pub(crate) async fn post_form(
        &self,
        path: &str,
        form: &impl Serialize,
    ) -> Result<Reply, Failure> {
        let form = serde_json::to_vec(form).expect("the admin forms have text keys only");
        self.ask(Method::POST, path, Some(form)).await
    }

    /// `POST path` with a body that is JSON already.
    pub(crate) async fn post_body(&self, path: &str, body: Vec<u8>) -> Result<Reply, Failure> {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// The status of a controller; refused on a node's socket.
    pub(crate) async fn controller_status(&self) -> Result<(Reply, ControllerStatus), Failure> {
        let reply = self.get("/v1/status").await?;
        match reply.form()? {
            Status::Controller(status) => Ok((reply, *status)),
            Status::Node(_) => Err(Failure::refused(
                format!(
                    "{} is a node's socket; this command needs a controller's",
                    self.socket.display()
                ),
                "name the controller's with --socket or MESHCTL_SOCKET; `meshctl status` works on both",
            )),
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        form: Option<Vec<u8>>,
    ) -> Result<Reply, Failure> {
        let body = self.done(method, path, form).await?;
        let value = if body.is_empty() {
            Value::Object(serde_json::Map::new())
        } else {
            serde_json::from_slice(&body).map_err(|error| unreadable(&error))?
        };
        Ok(Reply(value))
    }

    /// The body of a request that the daemon has done.
    async fn done(
        &self,
        method: Method,
        path: &str,
        form: Option<Vec<u8>>,
    ) -> Result<Bytes, Failure> {
        let (status, body) = timeout(TIMEOUT, self.exchange(method, path, form))
            .await
            .map_err(|_| self.silent())??;
        if status.is_success() {
            Ok(body)
        } else {
            Err(refusal(status, &body))
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        form: Option<Vec<u8>>,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "meshd")
            .header(header::ACCEPT, JSON);
        if form.is_some() {
            request = request.header(header::CONTENT_TYPE, JSON);
        }
        let request = request
            .body(Full::new(Bytes::from(form.unwrap_or_default())))
            .expect("paths are built from names and numbers that need no escaping");

        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.cut(&error))?;
        // Ends with the connection, at the latest when this process does.
        tokio::spawn(connection);
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| self.cut(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY_LEN)
            .collect()
            .await
            .map_err(|error| self.cut(&*error))?;
        Ok((status, body.to_bytes()))
    }

    fn unreachable(&self, error: &io::Error) -> Failure {
        const NAME_IT: &str = "name the daemon's socket with --socket or MESHCTL_SOCKET";
        let kind = std::fs::metadata(&self.socket).map(|it| it.file_type());
        let hint = match (error.kind(), kind) {
            (_, Ok(kind)) if !kind.is_socket() => {
                let words = if kind.is_dir() {
                    "it is a folder, and no socket"
                } else if kind.is_fifo() {
                    "it is a pipe, and no socket"
                } else {
                    "it is a file, and no socket"
                };
                let socket = self.socket.display();
                return Failure::broken(format!("cannot connect to {socket}: {words}"), NAME_IT);
            }
            (io::ErrorKind::PermissionDenied, Ok(_)) => {
                "the socket belongs to the daemon's user; try sudo"
            }
            (io::ErrorKind::PermissionDenied, Err(_)) => {
                "this user may not look into the folder of the socket; try sudo"
            }
            (io::ErrorKind::ConnectionRefused, _) => {
                "the daemon behind this socket has ended; start it"
            }
            _ => "is meshd running here? Name its socket with --socket or MESHCTL_SOCKET",
        };
        Failure::broken(
            format!("cannot connect to {}: {error}", self.socket.display()),
            hint,
        )
    }

    fn cut(&self, error: &(dyn std::error::Error + 'static)) -> Failure {
        Failure::broken(
            format!("no whole reply from {}: {error}", self.socket.display()),
            "look at the daemon's log; is this its admin socket?",
        )
    }

    fn silent(&self) -> Failure {
        Failure::broken(
            format!(
                "no reply from {} within {} s",
                self.socket.display(),
                TIMEOUT.as_secs()
            ),
            "look at the daemon's log",
        )
    }
}

impl Reply {
    /// The reply as it came.
    pub(crate) fn raw(&self) -> &Value {
        &self.0
    }

    /// The reply as the form that it should be.
    pub(crate) fn form<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        T::deserialize(&self.0).map_err(|error| unreadable(&error))
    }
}

fn unreadable(error: &serde_json::Error) -> Failure {
    Failure::broken(
        // Line and column say enough; the text of a reply may hold secrets.
        format!(
            "the daemon's reply is not of a known form ({:?})",
            error.classify()
        ),
        "are meshctl and meshd of the same version? --json prints the reply as it came",
    )
}

fn refusal(status: StatusCode, body: &[u8]) -> Failure {
    let (error, hint) = match serde_json::from_slice::<ApiError>(body) {
        Ok(refusal) => (refusal.error, refusal.hint),
        Err(_) => (format!("the daemon answered {status}"), None),
    };
    let hint = hint.unwrap_or_else(|| {
        match status {
            StatusCode::NOT_FOUND => "`meshctl status` says which daemon this is and what it knows",
            _ => "look at the daemon's log",
        }
        .into()
    });
    if status.is_client_error() {
        Failure::refused(error, hint)
    } else {
        Failure::broken(error, hint)
    }
}

const TIMEOUT: Duration = Duration::from_secs(10);
/// A status of thousands of nodes that each observe thousands fits; an endless reply does not.
const MAX_BODY_LEN: usize = 64 << 20;
const JSON: &str = "application/json";
