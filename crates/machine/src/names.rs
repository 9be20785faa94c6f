//! Names of other machines.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::mpsc;
use std::time::Duration;

/// The addresses of `host:port`. A name server that does not answer is given up after [`PATIENCE`], and a thread of
/// this process then still waits for it.
///
/// # Errors
/// The resolver's words.
pub fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let (told, answer) = mpsc::channel();
    let question = (host.to_owned(), port);
    let thread = std::thread::Builder::new().name("names".into());
    thread.spawn(move || {
        let found = question.to_socket_addrs().map(|all| all.collect());
        // Nobody may be waiting any more.
        let _ = told.send(found);
    })?;
    answer.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        let seconds = PATIENCE.as_secs();
        Err(io::Error::other(format!(
            "no name server answers within {seconds} s"
        )))
    })
}

/// How long an answer is waited for.
pub const PATIENCE: Duration = Duration::from_secs(3);
