//! The rights of a daemon on its machine once it runs, and those of them that its benchmark gets.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use tests::harness::{CONTROLLER, Mesh};

#[test]
fn a_daemon_keeps_the_rights_that_it_uses_and_a_benchmark_gets_none() {
    let mut mesh = Mesh::builder().nodes(1).probation_epochs(0).prepare();
    let (program, seen) = (mesh.folder().join("benchmark"), mesh.folder().join("seen"));
    let script = format!(
        "#!/bin/sh\n\
         {{ env; cat /proc/self/status; ulimit -c; }} >{seen}.new && mv {seen}.new {seen}\n\
         echo '{{\"harness\":\"h\",\"suite\":\"s\",\"suiteVersion\":\"1\",\"overall\":0.9}}'\n",
        seen = seen.display()
    );
    std::fs::write(&program, script).expect("the folder can be written");
    let mode = PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).expect("it is ours");
    mesh.start_controller();
    let token = mesh.token_file("node-a");
    let secret = format!("MESHD_JOIN=@{}", token.display());
    let command = format!("MESHD_BENCHMARK_COMMAND={}", program.display());
    let wrapper = ["env", &secret, &command, "MESHD_EMITTER=command"];
    mesh.spawn_under("node-a", &wrapper, &[]);
    mesh.wait_until_all_reach_all();
    mesh.wait_until("the benchmark has run", |_| seen.exists());

    let seen = std::fs::read_to_string(&seen).expect("it was just there");
    assert!(!seen.contains("MESHD_"), "{seen}");
    assert!(seen.contains("\nPATH="), "the rest is there: {seen}");
    assert_eq!(rights(&seen), NONE, "{seen}");
    // The program finds signals as they are for everybody, and not as this daemon has set them.
    let signals = |name: &str| {
        let line = seen.lines().find_map(|line| line.strip_prefix(name));
        u64::from_str_radix(line.expect("there is such a line").trim(), 16)
    };
    assert_eq!(signals("SigBlk:"), Ok(0), "{seen}");
    let caught = [1, 2, 3, 10, 12, 13, 15].map(|number: u32| 1 << (number - 1));
    let ignored = signals("SigIgn:").expect("it is a number");
    assert_eq!(ignored & caught.iter().sum::<u64>(), 0, "{seen}");
    assert_eq!(seen.lines().last(), Some("0"), "core files: {seen}");

    let threads = threads(&mesh, "node-a");
    for (name, status) in &threads {
        let (may, why) = match name.as_str() {
            // For nft.
            "meshd-firewall" => (NET_ADMIN, "it uses this"),
            // The interface, and raw sockets on one that is made anew.
            "meshd-interface" => (NET_ADMIN | NET_RAW, "it uses these"),
            // The same for a segment that the node joins while it runs.
            "meshd-segments" => (NET_ADMIN | NET_RAW, "it uses these"),
            _ => (0, "it uses none"),
        };
        assert_eq!(rights(status), (may, may, may, 1), "{name}: {why}");
    }
    for expected in [
        "meshd",
        "meshd-firewall",
        "meshd-interface",
        "meshd-segments",
        "meshd-names",
        "meshd-data0",
        "meshd-state",
    ] {
        assert!(threads.contains_key(expected), "{expected}: {threads:?}");
    }
    for (name, status) in self::threads(&mesh, CONTROLLER) {
        assert_eq!(rights(&status), NONE, "the controller's {name}");
    }
    for host in ["node-a", CONTROLLER] {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", mesh.pid(host)));
        let limits = limits.expect("it runs");
        let core = limits.lines().find(|line| line.starts_with("Max core"));
        let words: Vec<&str> = core.into_iter().flat_map(str::split_whitespace).collect();
        assert_eq!(words[4..6], ["0", "0"], "{host}: {limits}");
    }
    // With these rights it still lets the interface follow the underlay.
    mesh.set_underlay_mtu(1400);
    mesh.wait_until("the interface follows", |mesh| {
        let interface = mesh.node_status("node-a").interface;
        interface.is_some_and(|interface| interface.mtu == 1340)
    });
}

#[test]
fn a_daemon_of_roots_in_another_users_directory_works_and_says_what_it_keeps() {
    let mut mesh = Mesh::builder().nodes(2).prepare();
    for host in mesh.hosts() {
        let state = mesh.state_dir(&host);
        std::fs::create_dir_all(&state).expect("the folder can be written");
        let mode = PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&state, mode).expect("it is ours");
        std::os::unix::fs::chown(&state, Some(NOBODY), Some(NOBODY)).expect("root may");
    }
    mesh.start_controller();
    for node in mesh.nodes() {
        mesh.start_node(&node);
    }
    mesh.wait_until_all_reach_all();
    mesh.wait_epochs(1);
    let newest = mesh.epoch();
    for host in mesh.hosts() {
        let log = mesh.log(&host);
        assert_eq!(log.matches("another user's directory").count(), 1, "{log}");
        assert!(mesh.stop(&host).success());
        assert!(!mesh.socket(&host).exists(), "{host}");
    }
    // Written by a thread that has no other right.
    let written = std::fs::read_to_string(mesh.state_dir("node-a").join("epochs.json"));
    let written = written.expect("it is there");
    let epochs = written.split("\"epoch\":").skip(1).map(|rest| {
        let number: String = rest
            .trim()
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        number.parse::<u64>().expect("an epoch is a number")
    });
    assert!(epochs.max() >= Some(newest - 1), "{written}");
}

/// Effective, permitted and bounding capabilities, and whether more can be gained.
fn rights(status: &str) -> (u64, u64, u64, u64) {
    let field = |name: &str, radix| {
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        let value = value.unwrap_or_else(|| panic!("no {name} in {status}"));
        u64::from_str_radix(value.trim(), radix).expect("it is a number")
    };
    (
        field("CapEff:", 16),
        field("CapPrm:", 16),
        field("CapBnd:", 16),
        field("NoNewPrivs:", 10),
    )
}

/// The threads of a daemon by name, each with its status; of several with one name the last.
fn threads(mesh: &Mesh, host: &str) -> BTreeMap<String, String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", mesh.pid(host)));
    let tasks = tasks.expect("it runs").flatten();
    tasks
        .filter_map(|task| {
            let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
            let status = std::fs::read_to_string(task.path().join("status")).ok()?;
            Some((name.trim().to_owned(), status))
        })
        .collect()
}

const NONE: (u64, u64, u64, u64) = (0, 0, 0, 1);
/// CAP_NET_ADMIN: capabilities(7).
const NET_ADMIN: u64 = 1 << 12;
/// CAP_NET_RAW.
const NET_RAW: u64 = 1 << 13;
const NOBODY: u32 = 65_534;
