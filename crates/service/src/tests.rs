//! The messages to a service manager, as a socket receives them.

use super::*;
use std::collections::BTreeMap;

/// A manager that is a datagram socket in a folder.
struct Heard {
    socket: UnixDatagram,
    folder: tempfile::TempDir,
}

impl Heard {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, folder }
    }

    fn service(&self, more: &[(&str, &str)]) -> Service {
        let path = self.folder.path().join("notify");
        let mut all: BTreeMap<_, _> = more.iter().map(|(k, v)| (*k, OsString::from(v))).collect();
        all.insert("NOTIFY_SOCKET", path.into());
        Service::of_environment(|name| all.get(name).cloned())
    }

    /// The next word; empty when there is none.
    fn next(&self) -> String {
        let mut bytes = [0; 1024];
        let read = self.socket.recv(&mut bytes).unwrap_or_default();
        String::from_utf8_lossy(&bytes[..read]).into_owned()
    }
}

#[test]
fn a_manager_hears_states_and_each_standing_once() {
    let heard = Heard::new();
    let service = heard.service(&[]);
    service.standing("enrolling".into());
    assert_eq!(heard.next(), "STATUS=enrolling\n");
    service.reloading();
    service.reloaded();
    assert_eq!(heard.next(), "", "it does not serve yet");
    service.ready();
    assert_eq!(heard.next(), "READY=1\nSTATUS=enrolling\n");
    service.standing("enrolling".into());
    assert_eq!(heard.next(), "");
    service.standing("epoch 7\nREADY=0".into());
    assert_eq!(heard.next(), "READY=1\nSTATUS=epoch 7 READY=0\n");
    service.reloading();
    let reloading = heard.next();
    let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
    let time: u64 = time.unwrap().trim_end().parse().unwrap();
    assert!(time > 0);
    service.reloaded();
    assert_eq!(heard.next(), "READY=1\nSTATUS=epoch 7 READY=0\n");
    service.stopping();
    assert!(heard.next().starts_with("STOPPING=1\n"));
    assert_eq!(service.pause(), None, "nobody has asked for a beat");
}

#[test]
fn a_word_that_was_not_taken_is_said_again() {
    let heard = Heard::new();
    let path = heard.folder.path().join("notify");
    let service = heard.service(&[]);
    std::fs::remove_file(&path).unwrap();
    service.ready();
    let again = UnixDatagram::bind(&path).unwrap();
    service.standing("serving".into());
    let mut bytes = [0; 64];
    let read = again.recv(&mut bytes).unwrap();
    assert_eq!(&bytes[..read], b"READY=1\nSTATUS=serving\n");
}

#[test]
fn a_loop_that_turns_beats_and_one_that_does_not_is_stuck_unless_it_may_wait_for_a_disk() {
    let heard = Heard::new();
    let service = heard.service(&[("WATCHDOG_USEC", "30000000")]);
    assert_eq!(service.pause(), Some(Duration::from_secs(15)));
    assert!(!service.beat(Loop::NeverWaits), "it has not begun to turn");
    service.turned();
    assert!(service.beat(Loop::NeverWaits));
    assert_eq!(heard.next(), "WATCHDOG=1\n");
    assert!(!service.beat(Loop::NeverWaits));
    assert_eq!(heard.next(), "");
    // This thread has used far less than a quarter of half a minute since.
    assert!(service.beat(Loop::MayWait));
    let other = heard.service(&[("WATCHDOG_USEC", "1")]);
    other.turned();
    assert!(other.beat(Loop::MayWait));
    let mut sum = 0_u64;
    for number in 0..2_000_000_u64 {
        sum = std::hint::black_box(sum ^ number);
    }
    assert!(!other.beat(Loop::MayWait), "it has computed all the time");
}

#[test]
fn a_watchdog_of_another_process_is_not_this_one_s_and_no_manager_is_told_nothing() {
    let heard = Heard::new();
    let other = heard.service(&[("WATCHDOG_USEC", "2000000"), ("WATCHDOG_PID", "1")]);
    assert_eq!(other.pause(), None);
    let none = Service::of_environment(|_| None);
    none.ready();
    none.turned();
    assert_eq!(none.pause(), None);
    let long = OsString::from("/".repeat(200));
    let unusable = Service::of_environment(|name| (name == "NOTIFY_SOCKET").then(|| long.clone()));
    unusable.ready();
    assert_eq!(heard.next(), "");
}

#[test]
fn the_journal_is_known_by_device_and_inode() {
    let own = rustix::fs::fstat(rustix::stdio::stderr()).unwrap();
    let stream = |inode| OsString::from(format!("{}:{inode}", own.st_dev));
    assert!(is_journal(Some(&stream(own.st_ino))));
    assert!(!is_journal(Some(&stream(own.st_ino + 1))));
    assert!(!is_journal(None));
}
