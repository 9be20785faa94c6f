//! The cross-platform WireGuard socket of one interface (<https://www.wireguard.com/xplatform/>): `wg show` and the
//! exporters that read it see the peers of a segment. Answers `get=1` with what the shell observes, and refuses
//! `set=1`: the controller decides about peers, and nobody else does.
//!
//! Neither the private key nor a preshared key is ever told; both lines are left out, as they may be. The socket is
//! of mode 0600, and a client that reads slowly, sends much or stays keeps nobody from another place.

use crate::admin::{Answer, Request};
use crate::{SocketFile, UnixSockets};
use keys::{SegmentId, WgPublicKey};
use rustix::io::Errno;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use wire::Prefix;
use wire::admin::WireGuardSocketStatus;
use zeroize::Zeroizing;

/// The socket of an interface that was bound, or why it was not.
pub(crate) struct Door {
    path: PathBuf,
    bound: Result<(SocketFile, std::os::unix::net::UnixListener), String>,
}

/// The same, while it is served. It ends, and its file goes, when this is dropped.
pub(crate) struct Served {
    path: PathBuf,
    /// The file, which goes with this, and the task.
    running: Result<(SocketFile, Task), String>,
}

struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Door {
    /// Binds the socket of `interface` in a directory. A fault is said here, once, and stands in the status.
    pub(crate) fn bind(sockets: &UnixSockets, directory: &Path, interface: &str) -> Self {
        let path = directory.join(format!("{interface}.sock"));
        let bound = sockets.0(&path);
        if let Err(error) = &bound {
            tracing::warn!(
                %interface,
                %error,
                "`wg show` does not see this interface: let this daemon's user write in that directory (the systemd \
                 unit: RuntimeDirectory=wireguard), or set wireguard_dir to another directory, or to \"off\""
            );
        }
        Self { path, bound }
    }

    /// Answers on it from now on. Must run inside a tokio runtime.
    pub(crate) fn serve(self, segment: SegmentId, requests: mpsc::Sender<Request>) -> Served {
        let Self { path, bound } = self;
        let running = bound.and_then(|(file, listener)| {
            let listener = UnixListener::from_std(listener).map_err(|it| it.to_string())?;
            let task = tokio::spawn(serve(listener, segment, requests));
            Ok((file, Task(task.abort_handle())))
        });
        Served { path, running }
    }
}

impl Served {
    /// How it stands.
    pub(crate) fn status(&self) -> WireGuardSocketStatus {
        WireGuardSocketStatus {
            path: self.path.clone(),
            fault: self.running.as_ref().err().cloned(),
        }
    }
}

/// An interface, as its socket tells it.
pub(crate) struct Device {
    /// UDP port.
    pub(crate) listen_port: u16,
    pub(crate) peers: Vec<Peer>,
}

/// A peer, as the socket tells it.
pub(crate) struct Peer {
    pub(crate) key: WgPublicKey,
    pub(crate) endpoint: Option<SocketAddr>,
    /// Since 1970 by the wall clock, of the session that packets go out on; `None`: there is none.
    pub(crate) handshake: Option<Duration>,
    /// Bytes of inner packets.
    pub(crate) rx_bytes: u64,
    /// The same, sent.
    pub(crate) tx_bytes: u64,
    /// Its addresses, and the networks behind it.
    pub(crate) allowed: Vec<Prefix>,
}

impl Device {
    /// The answer to `get=1`, without the empty line that ends it. `keepalive`: of every peer.
    pub(crate) fn tell(&self, keepalive: Option<Duration>) -> String {
        let mut text = String::with_capacity(64 + self.peers.len() * 400);
        let keepalive = keepalive.map_or(0, |every| every.as_secs());
        // A `String` takes all that is written to it.
        let _ = writeln!(text, "listen_port={}", self.listen_port);
        for peer in &self.peers {
            let _ = writeln!(text, "public_key={}", hex(&peer.key));
            if let Some(endpoint) = peer.endpoint {
                let _ = writeln!(text, "endpoint={endpoint}");
            }
            let handshake = peer.handshake.unwrap_or_default();
            let _ = write!(
                text,
                "last_handshake_time_sec={}\nlast_handshake_time_nsec={}\nrx_bytes={}\ntx_bytes={}\n\
                 persistent_keepalive_interval={keepalive}\n",
                handshake.as_secs(),
                handshake.subsec_nanos(),
                peer.rx_bytes,
                peer.tx_bytes,
            );
            for prefix in &peer.allowed {
                let _ = writeln!(text, "allowed_ip={prefix}");
            }
            text.push_str("protocol_version=1\n");
        }
        text.push_str("errno=0\n");
        text
    }
}

fn hex(key: &WgPublicKey) -> String {
    key.0.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Answers clients until the shell has ended.
async fn serve(listener: UnixListener, segment: SegmentId, requests: mpsc::Sender<Request>) {
    let places = Arc::new(Semaphore::new(CLIENTS));
    let refused_once = Arc::new(AtomicBool::new(false));
    loop {
        // A client that finds no place waits in the system's queue until a place is free, at most for TIME.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = requests.closed() => return,
        };
        let Ok((client, _)) = accepted else {
            // Out of descriptors, most likely: others give theirs back within that time.
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (requests, refused_once) = (requests.clone(), Arc::clone(&refused_once));
        tokio::spawn(async move {
            let ask = || ask(segment, &requests);
            // A client that has gone is no fault of ours.
            let _ = timeout(TIME, converse(client, ask, &refused_once)).await;
            drop(place);
        });
    }
}

async fn ask(segment: SegmentId, requests: &mpsc::Sender<Request>) -> Option<String> {
    let (answer, text) = oneshot::channel::<Answer<String>>();
    let request = Request::WireGuard(segment, answer);
    requests.send(request).await.ok()?;
    text.await.ok()?.ok()
}

/// Answers one client's requests until it hangs up. `ask` has the answer to `get=1`.
async fn converse<C, F>(
    mut client: C,
    mut ask: impl FnMut() -> F,
    refused_once: &AtomicBool,
) -> std::io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = Option<String>>,
{
    // A request to set something may hold keys.
    let mut chunk = Zeroizing::new([0; CHUNK]);
    let mut intake = Intake::default();
    loop {
        let read = client.read(&mut chunk[..]).await?;
        if read == 0 {
            return Ok(());
        }
        for byte in chunk.iter().take(read) {
            let answer = match intake.take(*byte) {
                None => continue,
                Some(Asked::Get) => match ask().await {
                    Some(text) => text,
                    // As of an interface that is gone.
                    None => format!("errno={}\n", Errno::NODEV.raw_os_error()),
                },
                Some(Asked::Set) => {
                    if !refused_once.swap(true, Ordering::Relaxed) {
                        tracing::warn!(
                            "`wg` may not change this interface: members, keys and endpoints come from the controller \
                             (`meshctl node`, `meshctl route`), the rest from the node's settings"
                        );
                    }
                    refusal(Errno::OPNOTSUPP)
                }
                Some(Asked::Neither) => refusal(Errno::INVAL),
                Some(Asked::TooMuch) => return Ok(()),
            };
            client.write_all(answer.as_bytes()).await?;
            client.write_all(b"\n").await?;
        }
    }
}

/// The answer to a request that is not carried out. The number is negative: `wg set` takes it for the return value of
/// a system call, as wireguard-go gives it, and has no words for a positive one.
fn refusal(error: Errno) -> String {
    format!("errno=-{}\n", error.raw_os_error())
}

/// A request, of which nothing but its first line is kept.
#[derive(Default)]
struct Intake {
    first: Vec<u8>,
    /// Whether that line is over.
    is_known: bool,
    at_line_start: bool,
    bytes: usize,
}

/// A whole request.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Get,
    Set,
    Neither,
    /// Longer than [`MAX_REQUEST`].
    TooMuch,
}

impl Intake {
    /// Takes the next byte; the request, if it ends one.
    fn take(&mut self, byte: u8) -> Option<Asked> {
        self.bytes += 1;
        if self.bytes > MAX_REQUEST {
            return Some(Asked::TooMuch);
        }
        match byte {
            b'\n' if self.at_line_start => {
                let it = std::mem::take(self);
                return Some(match &it.first[..] {
                    b"get=1" => Asked::Get,
                    b"set=1" => Asked::Set,
                    _ => Asked::Neither,
                });
            }
            b'\n' => {
                self.is_known = true;
                self.at_line_start = true;
            }
            byte => {
                self.at_line_start = false;
                if !self.is_known && self.first.len() < LONGEST_WORD {
                    self.first.push(byte);
                }
            }
        }
        None
    }
}

/// Clients that are answered at a time.
const CLIENTS: usize = 8;
/// For a client to ask, and to read the answers.
const TIME: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes that are read at a time.
const CHUNK: usize = 4096;
/// Longest request, in bytes: a `wg setconf` with thousands of peers is read to its end, so that it hears why not.
const MAX_REQUEST: usize = 1 << 20;
/// Of the first line, in bytes; any longer one is no request.
const LONGEST_WORD: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> Device {
        let key = |number| WgPublicKey([number; 32]);
        let prefixes = |list: &[&str]| list.iter().map(|it| it.parse().unwrap()).collect();
        Device {
            listen_port: 51_820,
            peers: vec![
                Peer {
                    key: key(0xab),
                    endpoint: Some("[2001:db8::7]:51820".parse().unwrap()),
                    handshake: Some(Duration::new(1_700_000_000, 5)),
                    rx_bytes: 7,
                    tx_bytes: 9,
                    allowed: prefixes(&["10.76.0.2/32", "fd00::2/128", "10.1.0.0/16"]),
                },
                Peer {
                    key: key(1),
                    endpoint: None,
                    handshake: None,
                    rx_bytes: 0,
                    tx_bytes: 0,
                    allowed: Vec::new(),
                },
            ],
        }
    }

    fn said(request: &[u8]) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(async {
            let (mut ours, theirs) = tokio::io::duplex(4 * MAX_REQUEST);
            ours.write_all(request).await.unwrap();
            ours.shutdown().await.unwrap();
            let ask = || std::future::ready(Some(device().tell(None)));
            let once = AtomicBool::new(false);
            converse(theirs, ask, &once).await.unwrap();
            let mut text = String::new();
            ours.read_to_string(&mut text).await.unwrap();
            text
        })
    }

    #[test]
    fn a_device_is_told_as_the_protocol_has_it_and_without_secrets() {
        let text = device().tell(Some(Duration::from_secs(25)));
        let (ab, one) = ("ab".repeat(32), "01".repeat(32));
        let expected = format!(
            "listen_port=51820\n\
             public_key={ab}\nendpoint=[2001:db8::7]:51820\n\
             last_handshake_time_sec=1700000000\nlast_handshake_time_nsec=5\nrx_bytes=7\ntx_bytes=9\n\
             persistent_keepalive_interval=25\n\
             allowed_ip=10.76.0.2/32\nallowed_ip=fd00::2/128\nallowed_ip=10.1.0.0/16\nprotocol_version=1\n\
             public_key={one}\n\
             last_handshake_time_sec=0\nlast_handshake_time_nsec=0\nrx_bytes=0\ntx_bytes=0\n\
             persistent_keepalive_interval=25\nprotocol_version=1\nerrno=0\n"
        );
        assert_eq!(text, expected);
        for secret in ["private_key", "preshared_key"] {
            assert!(!text.contains(secret));
        }
    }

    #[test]
    fn every_request_is_answered_in_turn_and_nothing_is_set() {
        assert_eq!(said(b"get=1\n\n"), device().tell(None) + "\n");
        let set = b"set=1\nprivate_key=00\n\n";
        assert_eq!(said(set), "errno=-95\n\n");
        assert_eq!(said(b"get=2\n\n"), "errno=-22\n\n");
        assert_eq!(said(b"\n\n"), "errno=-22\n\n");
        let both = said(b"set=1\nlisten_port=1\n\nget=1\n\n");
        assert_eq!(both, format!("errno=-95\n\n{}\n", device().tell(None)));
        assert_eq!(said(b"get=1\n"), "", "it has not ended");
    }

    #[test]
    fn a_request_without_end_is_left() {
        let endless = vec![b'x'; MAX_REQUEST + 1];
        assert_eq!(said(&endless), "");
        let long = [&b"set=1\n"[..], &vec![b'y'; MAX_REQUEST - 8], b"\n\n"].concat();
        assert_eq!(said(&long), "errno=-95\n\n");
    }
}
