//! `meshctl` on a real terminal: a pseudoterminal, with a screen that is read as a person would.

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tests::harness::programs::program;
use tests::harness::{CONTROLLER, Mesh, poll};
use vt100::Parser;
use wire::admin::Membership;

/// A program on a terminal of its own.
struct OnTerminal {
    child: Child,
    keys: File,
    screen: Arc<Mutex<Parser>>,
}

impl OnTerminal {
    /// `meshctl --socket … ARGUMENTS`, on a terminal of so many rows and columns.
    fn meshctl(mesh: &Mesh, arguments: &[&str], (rows, columns): (u16, u16)) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let keys = openpt(flags).expect("there are pseudoterminals");
        grantpt(&keys)
            .and_then(|()| unlockpt(&keys))
            .expect("it is ours");
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&keys, size).expect("it takes a size");
        let name = ptsname(&keys, Vec::new()).expect("it has a name");
        let name = name.into_string().expect("it is text");
        let open = || {
            let mut options = File::options();
            let own = options.read(true).write(true).open(Path::new(&name));
            Stdio::from(own.expect("the other end opens"))
        };
        // A session of its own, whose terminal this is.
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(program("meshctl"));
        command
            .arg("--socket")
            .arg(mesh.socket(CONTROLLER))
            .args(arguments);
        command.env("TERM", "xterm-256color").env_remove("COLUMNS");
        command.stdin(open()).stdout(open()).stderr(open());
        let child = command
            .spawn()
            .expect("setsid (util-linux) and meshctl are there");
        let screen = Arc::new(Mutex::new(Parser::new(rows, columns, 0)));
        let (shown, keys) = (Arc::clone(&screen), File::from(keys));
        let mut output = keys.try_clone().expect("a descriptor is free");
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The end of the last program there is an error of the terminal.
            while let Ok(read @ 1..) = output.read(&mut bytes) {
                shown
                    .lock()
                    .expect("nobody panics with it")
                    .process(&bytes[..read]);
            }
        });
        Self {
            child,
            keys,
            screen,
        }
    }

    fn text(&self) -> String {
        self.screen
            .lock()
            .expect("nobody panics with it")
            .screen()
            .contents()
    }

    fn wait_for(&self, what: &str, is_there: impl Fn(&str) -> bool) {
        let found = poll(PATIENCE, || is_there(&self.text()));
        assert!(found, "no {what}:\n{}", self.text());
    }

    fn press(&mut self, keys: &str) {
        self.keys
            .write_all(keys.as_bytes())
            .expect("the terminal takes keys");
    }

    fn ended(&mut self) -> ExitStatus {
        let ended = poll(PATIENCE, || {
            self.child.try_wait().is_ok_and(|it| it.is_some())
        });
        assert!(ended, "it goes on:\n{}", self.text());
        self.child.wait().expect("it has ended")
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_person_watches_the_mesh_asks_why_and_is_asked_before_many_go() {
    let mut mesh = super::quiet_mesh();
    mesh.wait_until_all_reach_all();
    let nodes: Vec<String> = mesh
        .status()
        .nodes
        .keys()
        .map(ToString::to_string)
        .collect();

    let mut top = OnTerminal::meshctl(&mesh, &["top"], (50, 100));
    top.wait_for("whole mesh", |text| {
        text.contains("WELL") && nodes.iter().all(|node| text.contains(node))
    });
    assert!(top.text().contains("PROBATION"), "{}", top.text());
    mesh.evict("node-b");
    top.wait_for("eviction", |text| text.contains("EVICTED"));
    // Down to the second, and the rules against it.
    top.press("\u{1b}[B\r");
    top.wait_for("explanation", |text| {
        text.contains("node-b") && text.contains("RULE") && text.contains("not evicted")
    });
    top.press("x");
    top.wait_for("table again", |text| !text.contains("RULE"));
    top.press("q");
    assert!(top.ended().success());
    mesh.readmit("node-b");
    mesh.wait_until("node-b is back", |mesh| {
        mesh.node("node-b").membership == Membership::Allowed
    });

    // A row that does not fit is a block of lines, of which none is cut or broken by the terminal.
    let mut narrow = OnTerminal::meshctl(&mesh, &["status"], (60, 60));
    assert!(narrow.ended().success());
    narrow.wait_for("the last block", |text| text.contains("NODE: node-c"));
    narrow.wait_for("the end of it", |text| {
        text.trim_end().ends_with("REASON: -")
    });
    let text = narrow.text();
    assert!(
        text.lines().all(|line| line.chars().count() <= 60),
        "{text}"
    );
    for node in &nodes {
        assert!(text.contains(&format!("NODE: {node}")), "{text}");
    }

    let mut evict = vec!["node", "evict"];
    evict.extend(nodes.iter().map(String::as_str));
    let mut refused = OnTerminal::meshctl(&mesh, &evict, (24, 100));
    refused.wait_for("question", |text| text.contains("Go on? [y/N]"));
    refused.press("n\n");
    assert_eq!(refused.ended().code(), Some(1));
    refused.wait_for("refusal", |text| text.contains("nothing was changed"));
    let is_member = |mesh: &Mesh| mesh.node("node-a").membership == Membership::Allowed;
    assert!(is_member(&mesh));
    let mut granted = OnTerminal::meshctl(&mesh, &evict, (24, 100));
    granted.wait_for("question", |text| text.contains("Go on? [y/N]"));
    granted.press("y\n");
    assert!(granted.ended().success());
    assert!(!is_member(&mesh));
}

const PATIENCE: Duration = Duration::from_secs(60);
