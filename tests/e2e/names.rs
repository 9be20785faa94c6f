//! Names of nodes: by DNS with `dig` and with the system's resolver, and in a hosts file.

use std::fs::read_to_string;
use std::net::UdpSocket;
use std::os::unix::fs::MetadataExt as _;
use tests::harness::{Builder, Mesh};
use wire::admin::{HostLine, ResolverState};

#[test]
fn members_resolve_and_one_that_is_evicted_is_gone_with_its_tunnel() {
    let builder = quiet().nodes(3);
    let builder = builder.node_setting("node-a", "dns_listen", "\"127.0.0.1:53\"");
    let mut mesh = builder.start();
    let [v4, v6] = mesh.addresses("node-b").map(|it| it.to_string());
    let at_a = |mesh: &Mesh, words: &str| dig(mesh, "node-a", 53, words);
    for more in ["", "+tcp", "+noedns", "+bufsize=4096 +dnssec"] {
        let found = |kind| at_a(&mesh, &format!("{more} node-b.mesh.internal {kind}"));
        assert_eq!(found("A"), ("NOERROR".into(), vec![v4.clone()]), "{more}");
        assert_eq!(
            found("AAAA"),
            ("NOERROR".into(), vec![v6.clone()]),
            "{more}"
        );
    }
    for address in [&v4, &v6] {
        let name = vec!["node-b.mesh.internal.".to_owned()];
        assert_eq!(
            at_a(&mesh, &format!("-x {address}")),
            ("NOERROR".into(), name)
        );
    }
    for (words, code) in [
        ("node-b.mesh.internal MX", "NOERROR"),
        ("node-x.mesh.internal A", "NXDOMAIN"),
        ("-x 10.76.200.200", "NXDOMAIN"),
        ("example.org A", "REFUSED"),
        ("-x 192.0.2.1", "REFUSED"),
        ("mesh.internal AXFR +tcp", "REFUSED"),
    ] {
        assert_eq!(at_a(&mesh, words), (code.into(), Vec::new()), "{words}");
    }

    // The system's own resolver, by the name alone, too.
    let files = [(
        "resolv.conf",
        "nameserver 127.0.0.1\nsearch mesh.internal\n",
    )];
    for name in ["node-b.mesh.internal", "node-b", "NODE-B"] {
        let found = getent(&mesh, "node-a", &files, &format!("ahosts {name}"));
        let has = |address: &str| found.lines().any(|line| line.starts_with(address));
        assert!(has(&v4) && has(&v6), "{name}: {found}");
    }
    let found = getent(&mesh, "node-a", &files, &format!("hosts {v6}"));
    assert!(found.contains("node-b.mesh.internal"), "{found}");

    let change = mesh.evict("node-c");
    let in_force = |mesh: &Mesh| mesh.node_status("node-a").epoch == Some(change.epoch);
    mesh.wait_until("node-a has cut it off", |mesh| in_force(mesh));
    let gone = ("NXDOMAIN".to_owned(), Vec::new());
    assert_eq!(
        at_a(&mesh, "node-c.mesh.internal A"),
        gone,
        "at the same moment"
    );
    assert_eq!(at_a(&mesh, "node-b.mesh.internal A").1, [v4]);
    assert_eq!(getent(&mesh, "node-a", &files, "ahosts node-c"), "");
    // The one that is cut off has nobody's name but its own.
    let own = mesh.addresses("node-c")[0].to_string();
    mesh.wait_until("node-c knows", |mesh| {
        dig(mesh, "node-c", 5376, "node-a.mesh.internal A") == gone
    });
    let found = dig(&mesh, "node-c", 5376, "node-c.mesh.internal A");
    assert_eq!(found, ("NOERROR".into(), vec![own]));

    let page = mesh.meshctl("node-a", &["metrics"]);
    let page = String::from_utf8(page.stdout).expect("text");
    for (answer, least) in [("found", 10), ("no_name", 3), ("refused", 3), ("empty", 1)] {
        let start = format!("meshd_dns_queries_total{{answer=\"{answer}\"}} ");
        let value = page.lines().find_map(|line| line.strip_prefix(&start));
        let value: u64 = value.expect("a count").parse().expect("a number");
        assert!(value >= least, "{answer}: {value}");
    }
}

#[test]
fn a_hosts_file_has_the_names_while_the_node_runs_and_nothing_ends_with_it() {
    let mut mesh = quiet().nodes(3).prepare();
    let file = |mesh: &Mesh, node: &str| mesh.folder().join(format!("{node}.hosts"));
    for node in ["node-a", "node-b"] {
        let file = file(&mesh, node);
        std::fs::write(&file, OWN).expect("the folder can be written");
        let setting = format!("hosts_file = \"{}\"\n", file.display());
        let settings = mesh.settings_file(node);
        let text = read_to_string(&settings).expect("settings") + &setting;
        std::fs::write(settings, text).expect("a setting can be written");
    }
    // Somebody else has the port.
    let taken = mesh
        .namespace("node-a")
        .enter(|| UdpSocket::bind("127.0.0.1:5376"));
    let taken = taken.join().expect("no panic").expect("it is free");
    mesh.start_controller();
    mesh.start_node("node-a");
    mesh.start_node("node-c");
    // As a container has its hosts file: mounted, so that no other can take its place.
    let mounted = file(&mesh, "node-b");
    let inode = mounted.metadata().expect("it is there").ino();
    let script = format!(
        "mount --bind {0} {0} && exec \"$0\" \"$@\"",
        mounted.display()
    );
    mesh.start_node_under("node-b", &["unshare", "--mount", "sh", "-c", &script]);
    mesh.wait_until_all_reach_all();

    let status = mesh.node_status("node-a").names.expect("names");
    assert_eq!((status.listen, status.resolver), (None, ResolverState::Off));
    let [fault] = &status.faults[..] else {
        panic!("{:?}", status.faults)
    };
    assert!(
        fault.contains("127.0.0.1:5376") && fault.contains("dns_listen"),
        "{fault}"
    );
    assert_eq!(
        mesh.log("node-a").matches("do not resolve by DNS").count(),
        1
    );
    drop(taken);

    let lines = |mesh: &Mesh, node: &str| read_to_string(file(mesh, node)).expect("a hosts file");
    for node in ["node-a", "node-b"] {
        mesh.wait_until("everybody is in the file", |mesh| {
            let text = lines(mesh, node);
            let named = |it: &String| text.contains(&format!("\t{it}.mesh.internal {it}\n"));
            mesh.nodes().iter().all(named)
        });
        assert!(lines(&mesh, node).starts_with(OWN));
    }
    let text = lines(&mesh, "node-a");
    let files = [("hosts", &text[..])];
    let [v4, _] = mesh.addresses("node-c").map(|it| it.to_string());
    let found = getent(&mesh, "node-a", &files, "ahosts node-c");
    assert!(
        found.starts_with(&v4) || found.contains(&format!("\n{v4}")),
        "{found}"
    );
    let all: Vec<HostLine> = mesh.ask("node-a", &["hosts"]);
    let printed = |it: &HostLine| format!("{}\t{}\n", it.address, it.names.join(" "));
    let all: String = all.iter().map(printed).collect();
    assert!(
        text.contains(&all),
        "`meshctl hosts` says the same: {all}{text}"
    );

    mesh.evict("node-c");
    for node in ["node-a", "node-b"] {
        mesh.wait_until("it is gone from the file", |mesh| {
            let text = lines(mesh, node);
            !text.contains("node-c") && text.contains("node-b")
        });
        mesh.stop(node);
        assert_eq!(lines(&mesh, node), OWN, "the file is as it was");
    }
    assert_eq!(mounted.metadata().expect("it is there").ino(), inode);
}

fn quiet() -> Builder {
    let builder = Mesh::builder().epoch_seconds(3600);
    builder.controller_setting("max_benchmark_age", 3600)
}

/// The answer of a node's DNS server: the code, and the data of the records.
fn dig(mesh: &Mesh, node: &str, port: u16, words: &str) -> (String, Vec<String>) {
    let command = format!("dig @127.0.0.1 -p {port} +tries=1 +noall +comments +answer {words}");
    let words: Vec<&str> = command.split_whitespace().collect();
    let output = mesh.exec(node, &words);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let code = text
        .split_once("status: ")
        .and_then(|(_, rest)| rest.split(',').next());
    let refused_transfer = text.contains("; Transfer failed.").then_some("REFUSED");
    let code = code.or(refused_transfer);
    let code =
        code.unwrap_or_else(|| panic!("`{command}` (`dig` is in bind9-dnsutils): {output:?}"));
    let records = text
        .lines()
        .filter(|line| !line.starts_with(';') && !line.is_empty());
    let data = records.filter_map(|line| line.split_whitespace().next_back());
    (code.to_owned(), data.map(str::to_owned).collect())
}

/// The findings of the C library, with these files in the place of those in /etc.
fn getent(mesh: &Mesh, node: &str, files: &[(&str, &str)], words: &str) -> String {
    let mut script = String::new();
    for (name, text) in files {
        let path = mesh.folder().join(name);
        std::fs::write(&path, text).expect("the folder can be written");
        script += &format!("mount --bind {} /etc/{name} && ", path.display());
    }
    script += &format!("exec getent {words}");
    let output = mesh.exec(node, &["unshare", "--mount", "sh", "-c", &script]);
    assert!(matches!(output.status.code(), Some(0 | 2)), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const OWN: &str = "127.0.0.1 localhost\n# not meshd's\n";
