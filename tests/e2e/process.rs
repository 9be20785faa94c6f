//! The process and what is around it: logs that nobody reads, signals, descriptors, name servers, disks and
//! ports. Nothing outside the protocol stops a daemon, and nothing keeps one from stopping.
//!
//! A daemon that had to be ended by force exits with 4: success of a stop says that it took less than two
//! seconds.

use crate::metrics::over_tcp;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tests::harness::{CONTROLLER, Mesh, poll};

#[test]
fn a_log_that_nobody_takes_stops_neither_the_mesh_nor_a_stop() {
    let builder = Mesh::builder().nodes(3).epoch_seconds(2).lease_seconds(6);
    let mut mesh = builder
        .controller_setting("log_level", "\"trace\"")
        .every_node_setting("log_level", "\"trace\"")
        .prepare();
    let pipe = Stalled::pipe(&mesh.folder().join("stalled"));
    let (stalled, full) = (pipe.wrapper(), into("/dev/full"));
    mesh.spawn_under(CONTROLLER, &words(&stalled), &[]);
    mesh.wait_until("the controller answers", |mesh| mesh.try_status().is_some());
    mesh.start_node_under("node-a", &words(&stalled));
    mesh.start_node_under("node-b", &words(&full));
    mesh.start_node("node-c");
    mesh.wait_until_all_reach_all();
    let pings = mesh.keep_pinging("node-a", "node-b");
    // Longer than a lease.
    mesh.wait_epochs(4);
    mesh.wait_until_all_reach_all();
    let losses = pings.stop();
    assert!(losses.sent > 20 && losses.lost == 0, "{losses:?}");
    for host in ["node-a", "node-b", CONTROLLER] {
        let status = mesh.stop(host);
        assert!(status.success(), "{host}: {status}");
    }
}

#[test]
fn a_signal_that_is_no_word_to_stop_stops_nobody_and_a_hangup_changes_the_log_level() {
    let mut mesh = Mesh::builder().nodes(2).epoch_seconds(3600).prepare();
    mesh.start_controller();
    let token = format!("@{}", mesh.token_file("node-b").display());
    mesh.start_node("node-a");
    mesh.wait_until("node-a is enrolled", |mesh| {
        mesh.try_node_status("node-a").is_some()
    });
    let send = |mesh: &Mesh, host: &str, signal| {
        let pid = i32::try_from(mesh.pid(host)).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("it has an id"), signal).expect("it runs");
    };
    let send_all = |mesh: &Mesh, host: &str| {
        let others = [Signal::USR1, Signal::USR2, Signal::ALARM, Signal::PIPE];
        others
            .into_iter()
            .for_each(|signal| send(mesh, host, signal));
        send(mesh, host, Signal::HUP);
    };
    for host in [CONTROLLER, "node-a"] {
        let settings = mesh.settings_file(host);
        let file = OpenOptions::new().append(true).open(settings);
        let mut file = file.expect("it is there");
        writeln!(file, "log_level = \"debug\"").expect("it can be written");
        send_all(&mesh, host);
        mesh.wait_until("it says more", |mesh| {
            let log = mesh.log(host);
            log.contains("the log level is another") && log.contains(" DEBUG ")
        });
    }
    mesh.kill(CONTROLLER);
    // In the middle of its start.
    mesh.spawn("node-b", &["--join", &token]);
    mesh.wait_until("node-b waits for its controller", |mesh| {
        mesh.log("node-b").contains("cannot reach the controller")
    });
    send_all(&mesh, "node-b");
    mesh.wait_until("it has heard of that", |mesh| {
        mesh.log("node-b")
            .contains("SIGHUP: the settings are as they were")
    });
    for node in ["node-a", "node-b"] {
        assert!(mesh.stop(node).success(), "{node}");
        assert!(!mesh.socket(node).exists(), "{node}");
    }
}

#[test]
fn a_question_to_a_dead_name_server_holds_up_no_stop() {
    let mut mesh = Mesh::builder().nodes(1).epoch_seconds(3600).start();
    assert!(mesh.stop("node-a").success());
    let server = mesh
        .namespace("node-a")
        .enter(|| UdpSocket::bind("127.0.0.53:53"));
    let server = server
        .join()
        .expect("a thread ends")
        .expect("a port is free");
    server
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("it has no limits");
    let file = mesh.folder().join("resolv.conf");
    let text = "nameserver 127.0.0.53\noptions timeout:30 attempts:5\n";
    std::fs::write(&file, text).expect("the folder can be written");
    // `ip netns exec` gives each command mounts of its own.
    let script = format!(
        "mount --bind {} /etc/resolv.conf && exec \"$@\"",
        file.display()
    );
    let controller = ["--controller", "controller.example:7443"];
    mesh.spawn_under("node-a", &["sh", "-c", &script, "sh"], &controller);
    let mut question = [0; 512];
    server.recv_from(&mut question).expect("it asks");
    let answers = |mesh: &mut Mesh| mesh.try_node_status("node-a").is_some();
    mesh.wait_until("it answers meanwhile", answers);
    assert!(mesh.stop("node-a").success());
}

#[test]
fn a_disk_that_takes_nothing_holds_up_neither_packets_nor_a_stop() {
    let mut mesh = Mesh::builder().nodes(2).prepare();
    let stall = mesh.folder().join("stall");
    let preload = format!("LD_PRELOAD={}", preloaded(&mesh).display());
    let while_there = format!("STALL_WHILE={}", stall.display());
    let wrapper = ["env", &preload, &while_there];
    mesh.spawn_under(CONTROLLER, &wrapper, &[]);
    mesh.wait_until("the controller answers", |mesh| mesh.try_status().is_some());
    mesh.start_node_under("node-a", &wrapper);
    mesh.start_node("node-b");
    mesh.wait_until_all_reach_all();
    let addresses = mesh.addresses("node-b");
    File::create(&stall).expect("the folder can be written");
    mesh.wait_until("the controller says that it is held up", |mesh| {
        let said = mesh.meshctl(CONTROLLER, &["status"]);
        String::from_utf8_lossy(&said.stderr).contains("held up")
    });
    let own = mesh.node_status("node-a");
    assert_eq!(own.control, wire::admin::Control::Connected);
    for address in addresses {
        let reached = tests::harness::ping::once(mesh.namespace("node-a"), address);
        assert!(reached, "{address}");
    }
    for host in ["node-a", CONTROLLER] {
        let status = mesh.stop(host);
        assert!(status.success(), "{host}: {status}");
        assert!(!mesh.socket(host).exists(), "{host}");
    }
    // Files that were being written are whole, or not there.
    std::fs::remove_file(&stall).expect("it is there");
    mesh.start_controller();
    mesh.start_node("node-a");
    mesh.wait_until_all_reach_all();
}

#[test]
fn idle_clients_leave_descriptors_and_places_to_those_who_ask() {
    let address = "127.0.0.1:9744";
    let mut mesh = Mesh::builder()
        .nodes(2)
        .controller_setting("metrics_listen", format!("{address:?}"))
        .every_node_setting("metrics_listen", format!("{address:?}"))
        .every_node_setting("data_threads", 1)
        .prepare();
    // A node has more open: device, sockets, and the kernel's news of links, addresses and routes.
    let limits = [(CONTROLLER, 48), ("node-a", 60)];
    let few = limits.map(|(_, limit)| format!("ulimit -n {limit}; exec \"$@\""));
    let few = few.each_ref().map(|few| ["sh", "-c", few, "sh"]);
    mesh.spawn_under(CONTROLLER, &few[0], &[]);
    mesh.wait_until("the controller answers", |mesh| mesh.try_status().is_some());
    mesh.start_node_under("node-a", &few[1]);
    mesh.wait_until_members(&["node-a"]);
    let mut idle = Vec::new();
    for (host, limit) in limits {
        let socket = mesh.socket(host);
        let quiet = (0..100).map(|_| UnixStream::connect(&socket).expect("there is room"));
        let scrapers = mesh.namespace(host).enter(move || {
            let connect = |_| TcpStream::connect(address).expect("somebody listens");
            (0..100).map(connect).collect::<Vec<_>>()
        });
        idle.push((
            quiet.collect::<Vec<_>>(),
            scrapers.join().expect("a thread ends"),
        ));
        assert!(
            mesh.log(host).contains(&format!("descriptors={limit}")),
            "{}",
            mesh.log(host)
        );
    }
    for host in [CONTROLLER, "node-a"] {
        let said = mesh.meshctl(host, &["status"]);
        assert!(said.status.success(), "{host}: {said:?}");
        over_tcp(&mesh, host, address);
    }
    // The rest of the daemon has what it needs.
    mesh.start_node("node-b");
    mesh.wait_until_all_reach_all();
    mesh.wait_epochs(2);
    for (host, limit) in limits {
        let open = std::fs::read_dir(format!("/proc/{}/fd", mesh.pid(host)));
        let open = open.expect("it runs").count();
        assert!(open < limit, "{host}: {open}");
        assert!(
            !mesh.log(host).contains("open files ("),
            "{}",
            mesh.log(host)
        );
    }
    drop(idle);
}

#[test]
fn an_address_that_is_not_to_be_had_yet_is_waited_for() {
    let mut mesh = Mesh::builder().nodes(2).epoch_seconds(3600).prepare();
    // One that another program keeps for good; looked at in the end.
    mesh.add_host("bench", 50);
    let keep = mesh
        .namespace("bench")
        .enter(|| UdpSocket::bind("[::]:7443"));
    let keep = keep.join().expect("a thread ends").expect("it is free");
    let mut never = mesh.command("bench", tests::harness::programs::program("meshd"));
    never.args([
        "--role",
        "controller",
        "--listen",
        "[::]:7443",
        "--state-dir",
    ]);
    never
        .arg(mesh.state_dir("never"))
        .arg("--socket")
        .arg(mesh.socket("never"));
    let log = mesh.folder().join("never.log");
    let mut never = tests::harness::daemon::Daemon::start(never, &log);

    // Ports that become free.
    let hold = |mesh: &Mesh, host: &str, at: &'static str| {
        let held = mesh.namespace(host).enter(move || UdpSocket::bind(at));
        held.join().expect("a thread ends").expect("it is free")
    };
    let held = hold(&mesh, CONTROLLER, "0.0.0.0:7443");
    let scraped = mesh
        .namespace(CONTROLLER)
        .enter(|| TcpListener::bind("127.0.0.1:9743"));
    let scraped = scraped.join().expect("a thread ends").expect("it is free");
    mesh.spawn(CONTROLLER, &["--metrics-listen", "127.0.0.1:9743"]);
    waits(&mut mesh, CONTROLLER, &["7443", "use"]);
    drop(held);
    mesh.wait_until("the controller answers", |mesh| mesh.try_status().is_some());
    waits(
        &mut mesh,
        CONTROLLER,
        &["127.0.0.1:9743", "use", "--metrics-listen"],
    );
    drop(scraped);
    let held = hold(&mesh, "node-a", "0.0.0.0:51820");
    mesh.start_node("node-a");
    waits(&mut mesh, "node-a", &["51820", "use", "--listen-port"]);
    drop(held);
    mesh.start_node("node-b");
    mesh.wait_until_all_reach_all();
    mesh.wait_until("metrics are served", |mesh| {
        mesh.log(CONTROLLER).contains("metrics served")
    });
    over_tcp(&mesh, CONTROLLER, "127.0.0.1:9743");

    // Addresses that only the daemon itself brings.
    for (node, at) in [("node-a", 0), ("node-b", 1)] {
        let address = std::net::SocketAddr::new(mesh.addresses(node)[at], 9744);
        let address: &'static str = address.to_string().leak();
        assert!(mesh.stop(node).success());
        mesh.spawn(node, &["--metrics-listen", address]);
        mesh.wait_until("its metrics are served", |mesh| {
            assert!(mesh.is_running(node), "{}", mesh.log(node));
            mesh.log(node).contains("metrics served")
        });
        over_tcp(&mesh, node, address);
    }
    mesh.wait_until_all_reach_all();

    let ended = poll(Duration::from_secs(60), || never.ended().is_some());
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    assert!(ended, "{said}");
    assert_eq!(never.ended().and_then(|it| it.code()), Some(3), "{said}");
    assert_eq!(said.matches("waiting for an address").count(), 1, "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("meshd: ") && last.contains("7443"),
        "{said}"
    );
    assert!(!mesh.socket("never").exists());
    drop(keep);
}

/// Waits until one line of the log of `host` says that it waits, with these words in it.
fn waits(mesh: &mut Mesh, host: &str, said: &[&str]) {
    mesh.wait_until("it says that it waits", |mesh| {
        assert!(mesh.is_running(host), "{}", mesh.log(host));
        let log = mesh.log(host);
        let mut lines = log.lines().filter(|line| line.contains("waiting for"));
        lines.any(|line| said.iter().all(|word| line.contains(word)))
    });
}

/// Standard error of what follows goes to `path`.
fn into(path: &str) -> [String; 4] {
    let script = format!("exec \"$@\" 2>{path}");
    ["sh".into(), "-c".into(), script, "sh".into()]
}

fn words(wrapper: &[String; 4]) -> [&str; 4] {
    wrapper.each_ref().map(String::as_str)
}

/// A pipe that is full, and that nobody reads.
struct Stalled {
    path: PathBuf,
    _both_ends: File,
}

impl Stalled {
    fn pipe(path: &Path) -> Self {
        let made = Command::new("mkfifo").arg(path).status();
        assert!(made.expect("the tests need `mkfifo`").success());
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits();
        let options = options.custom_flags(nonblocking.cast_signed());
        let mut both_ends = options.open(path).expect("it is ours");
        for size in [1 << 12, 1] {
            while both_ends.write_all(&vec![b'.'; size]).is_ok() {}
        }
        Self {
            path: path.to_owned(),
            _both_ends: both_ends,
        }
    }

    fn wrapper(&self) -> [String; 4] {
        into(&self.path.display().to_string())
    }
}

/// The library that makes a disk stall.
fn preloaded(mesh: &Mesh) -> PathBuf {
    let (source, library) = (
        Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/stall.c"),
        mesh.folder().join("stall.so"),
    );
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status();
    assert!(built.expect("the tests need `cc`").success());
    library
}
