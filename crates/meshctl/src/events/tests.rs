//! The log of a controller that is asked through a real socket, goes away and comes back.

use super::*;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

fn event(seq: u64) -> EventInfo {
    EventInfo {
        seq,
        at_utc: "2031-01-01T00:00:00Z".into(),
        by: None,
        kind: if seq.is_multiple_of(10) {
            "node_evicted"
        } else {
            "decided"
        }
        .into(),
        body: serde_json::Value::Null,
        leaf: String::new(),
    }
}

/// Answers as a controller would whose log has `head` events; a filter by kind counts, and looks at `window`
/// entries at a time.
fn serve(socket: &Path, head: Arc<Mutex<u64>>, window: u64) -> JoinHandle<()> {
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut request, mut byte) = (Vec::new(), [0]);
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).await.unwrap();
                request.push(byte[0]);
            }
            let request = String::from_utf8(request).unwrap();
            let number = |key: &str| -> u64 {
                let rest = request.split(key).nth(1).unwrap();
                let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap();
                digits.parse().unwrap()
            };
            let (after, limit, head) = (number("after="), number("limit="), *head.lock().unwrap());
            let is_filtered = request.contains("kind=node_evicted");
            let looked_at = if is_filtered { window } else { limit };
            let read = head.min(after + looked_at);
            let mut events: Vec<_> = (after + 1..=read).map(event).collect();
            events.retain(|event| !is_filtered || event.kind == "node_evicted");
            let next = read.max(after);
            let body = serde_json::to_string(&EventList { events, head, next }).unwrap();
            let len = body.len();
            let reply = format!("HTTP/1.1 200 OK\r\ncontent-length: {len}\r\n\r\n{body}");
            let _ = stream.write_all(reply.as_bytes()).await;
        }
    })
}

fn seqs(list: &EventList) -> Vec<u64> {
    list.events.iter().map(|event| event.seq).collect()
}

#[tokio::test]
async fn the_newest_events_of_a_kind_are_found_however_far_back_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let served = serve(&socket, Arc::new(Mutex::new(5_555)), 100);
    let client = Client::new(socket);
    let mut log = Log {
        client: &client,
        filter: String::new(),
    };
    assert_eq!(seqs(&log.newest(3).await.unwrap().0), [5_553, 5_554, 5_555]);
    assert_eq!(seqs(&log.first(7, 2).await.unwrap().0), [8, 9]);
    log.filter = "&kind=node_evicted".into();
    let (newest, read) = log.newest(150).await.unwrap();
    assert_eq!(newest.events.len(), 150);
    assert_eq!((newest.events[0].seq, read), (4_060, 5_555));
    let (first, read) = log.first(95, 12).await.unwrap();
    assert_eq!((first.events[0].seq, first.events[11].seq), (100, 210));
    assert!(read >= 210);
    served.abort();
}

#[tokio::test]
async fn following_goes_on_after_a_restart_and_says_so_once() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let head = Arc::new(Mutex::new(3));
    let first = serve(&socket, Arc::clone(&head), 100);
    let (seen, said) = (
        Arc::new(Mutex::new(Vec::new())),
        Arc::new(Mutex::new(Vec::new())),
    );
    let follower = tokio::spawn({
        let (seen, said, socket) = (Arc::clone(&seen), Arc::clone(&said), socket.clone());
        async move {
            let client = Client::new(socket);
            let log = Log {
                client: &client,
                filter: String::new(),
            };
            let show = |events: &[EventInfo]| {
                seen.lock()
                    .unwrap()
                    .extend(events.iter().map(|event| event.seq));
                Ok(())
            };
            let remark = |words: &str| said.lock().unwrap().push(words.to_owned());
            log.follow(1, Duration::from_millis(1), show, remark).await
        }
    });
    let until = async |done: &dyn Fn() -> bool| {
        while !done() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    until(&|| seen.lock().unwrap().len() == 2).await;
    first.abort();
    let _ = first.await;
    until(&|| said.lock().unwrap().len() == 1).await;
    *head.lock().unwrap() = 5;
    let second = serve(&socket, Arc::clone(&head), 100);
    until(&|| seen.lock().unwrap().len() == 4).await;
    assert_eq!(
        *seen.lock().unwrap(),
        [2, 3, 4, 5],
        "nothing is lost or shown twice"
    );
    let words = said.lock().unwrap().clone();
    assert!(
        words.len() == 2 && words[1].contains("behind event 3"),
        "{words:?}"
    );
    // A log that is shorter is another one.
    *head.lock().unwrap() = 2;
    until(&|| said.lock().unwrap().len() == 3).await;
    assert!(said.lock().unwrap()[2].contains("another log"));
    follower.abort();
    second.abort();
}

#[test]
fn times_and_kinds_are_read_strictly() {
    assert!(time("2031-01-01T00:00:00Z").is_ok());
    let ago = Timestamp::now().duration_since(time("2h").unwrap());
    assert!((7_199..7_300).contains(&ago.as_secs()), "{ago:?}");
    assert!(time("yesterday").unwrap_err().contains("RFC 3339"));
    assert!(kind("node_evicted").is_ok() && kind("a&limit=9").is_err());
}
