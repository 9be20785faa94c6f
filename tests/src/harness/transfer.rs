//! Bytes over TCP between two namespaces.

use super::namespace::Namespace;
use std::io::{Error, Read as _, Result, Write as _};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::time::Duration;

/// Sends `bytes` from one namespace to an address in the other; returns what arrived there.
///
/// # Errors
/// When nothing moves for ten seconds, or the connection fails.
///
/// # Panics
/// When the address cannot be listened on.
pub fn transfer(
    from: &Namespace,
    to: &Namespace,
    address: IpAddr,
    bytes: &[u8],
) -> Result<Vec<u8>> {
    let listen = to.enter(move || TcpListener::bind((address, 0)));
    let listener = listen.join().expect("a thread ends");
    let listener = listener.expect("the address is there");
    let at = listener.local_addr().expect("it is bound");
    // A socket stays in the namespace in which it was made.
    let connect = from.enter(move || TcpStream::connect_timeout(&at, PATIENCE));
    let mut sender = connect.join().expect("a thread ends")?;
    let (mut receiver, _) = listener.accept()?;
    sender.set_write_timeout(Some(PATIENCE))?;
    receiver.set_read_timeout(Some(PATIENCE))?;
    std::thread::scope(|scope| {
        let sending = scope.spawn(move || {
            sender.write_all(bytes)?;
            sender.shutdown(Shutdown::Write)?;
            Ok::<_, Error>(sender)
        });
        let mut arrived = Vec::with_capacity(bytes.len());
        let received = receiver.read_to_end(&mut arrived);
        // Ends a sender that nobody reads any more.
        let _ = receiver.shutdown(Shutdown::Both);
        sending.join().expect("a thread ends")?;
        received.map(|_| arrived)
    })
}

/// So many bytes without a pattern, the same for the same seed.
#[must_use]
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        // Xorshift, Marsaglia 2003.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}

const PATIENCE: Duration = Duration::from_secs(10);
