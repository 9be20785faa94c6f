//! `--check` against a bad value of every setting, and against the state of a machine. The file is long because every
//! setting has its rows.

use super::*;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The findings in a file with these lines, whose places are in `folder`.
fn found(folder: &Path, text: &str) -> Findings {
    let file = folder.join("checked.toml");
    let mut whole = String::new();
    for (name, path) in [("state_dir", "state"), ("socket", "a.sock")] {
        if !text.contains(name) {
            whole.push_str(&format!("{name} = {:?}\n", folder.join(path)));
        }
    }
    whole.push_str(text);
    std::fs::write(&file, whole).unwrap();
    everything(Settings::default(), Some(file), false)
}

const CONTROLLER: &str = "role = 'controller'\nlisten = '127.0.0.1:0'\n";
const NODE: &str = "role = 'node'\nlisten_port = 0\n";

/// Setting, role, lines with a bad value, words of the finding behind the setting: the value, and the way out.
const BAD: &[(&str, &str, &str, &[&str])] = &[
    (
        "role",
        "",
        "role = 'judge'",
        &["judge", "`controller` or `node`"],
    ),
    (
        "state_dir",
        NODE,
        "state_dir = '/etc/passwd/x'",
        &["/etc/passwd is no folder", "another path"],
    ),
    (
        "socket",
        NODE,
        "socket = '/etc/passwd'",
        &["/etc/passwd", "no socket", "remove it"],
    ),
    (
        "socket_group",
        NODE,
        "socket_group = 'no-such-group'",
        &["no-such-group", "groupadd"],
    ),
    (
        "log_format",
        NODE,
        "log_format = 'xml'",
        &["xml", "`text` or `json`"],
    ),
    (
        "log_level",
        NODE,
        "log_level = 'node=loud'",
        &["node=loud", "info,tunnel=debug"],
    ),
    (
        "wireguard_dir",
        NODE,
        "wireguard_dir = 'run/wireguard'",
        &["run/wireguard", "absolute path", "`off`"],
    ),
    (
        "dns_listen",
        NODE,
        "dns_listen = '192.0.2.1:53'",
        &["192.0.2.1:53", "no loopback address", "127.0.0.1:5376"],
    ),
    (
        "dns_listen",
        NODE,
        "dns_listen = '53'",
        &["53", "IP:PORT", "`off`"],
    ),
    (
        "dns_suffix",
        NODE,
        "dns_suffix = 'Mesh.'",
        &["Mesh.", "mesh.internal"],
    ),
    (
        "wireguard_dir",
        NODE,
        "wireguard_dir = '/etc/passwd'",
        &["/etc/passwd is no folder", "off"],
    ),
    ("listen", CONTROLLER, "", &["port 0", "give the port"]),
    (
        "dns_suffix",
        NODE,
        "dns_suffix = 'com'",
        &["com", "top-level domain", "mesh.internal"],
    ),
    (
        "probation_epochs",
        CONTROLLER,
        "probation_epochs = 4294967295",
        &["days", "without evidence", "fewer"],
    ),
    (
        "hosts_file",
        NODE,
        "hosts_file = '/dev/full'",
        &["/dev/full", "no regular file", "would run without"],
    ),
    (
        "status_file",
        CONTROLLER,
        "status_file = '/dev/null'",
        &["/dev/null is a", "would be replaced", "name a file"],
    ),
    ("dns_resolved", NODE, "dns_resolved = 'yes'", &["auto, off"]),
    (
        "hosts_file",
        NODE,
        "hosts_file = 'hosts'",
        &["hosts", "absolute path", "`none`"],
    ),
    (
        "hosts_file",
        NODE,
        "hosts_file = '/etc/passwd/hosts'",
        &["/etc/passwd/hosts", "would run without"],
    ),
    (
        "metrics_listen",
        NODE,
        "metrics_listen = '9743'",
        &["9743", "IP:PORT"],
    ),
    (
        "metrics_listen",
        NODE,
        "metrics_listen = '0.0.0.0:0'",
        &["0.0.0.0:0", "loopback"],
    ),
    (
        "page",
        CONTROLLER,
        "page = '7480'",
        &["7480", "IP:PORT", "`off`"],
    ),
    (
        "page",
        CONTROLLER,
        "page = '0.0.0.0:0'",
        &["no loopback", "`page_token_file`"],
    ),
    (
        "page_token_file",
        CONTROLLER,
        "page_token_file = '/proc/no-such-file'",
        &["/proc/no-such-file", "cannot read"],
    ),
    (
        "listen",
        "role = 'controller'\n",
        "listen = 'localhost:7443'",
        &["localhost:7443", "IP:PORT"],
    ),
    (
        "listen",
        "role = 'controller'\n",
        "listen = '192.0.2.77:7443'",
        &["192.0.2.77", "set one that is"],
    ),
    (
        "advertise",
        CONTROLLER,
        "advertise = 'http://x:1'",
        &["http://x:1", "leave out the scheme"],
    ),
    (
        "advertise",
        CONTROLLER,
        "advertise = '0.0.0.0:7443'",
        &["0.0.0.0:7443", "no machine"],
    ),
    (
        "advertise",
        "role = 'controller'\nlisten = '[::]:0'\n",
        "",
        &["not set", "mesh.example.net:7443"],
    ),
    (
        "advertise",
        NODE,
        "advertise = 'a.example:1'",
        &["a.example:1", "addresses, not names"],
    ),
    (
        "advertise",
        NODE,
        "advertise = '127.0.0.1:51820'",
        &["127.0.0.1:51820", "network"],
    ),
    (
        "status_file",
        CONTROLLER,
        "status_file = '/no/such/status.json'",
        &["/no/such", "create it"],
    ),
    (
        "mesh_v4",
        CONTROLLER,
        "mesh_v4 = '10.0.0.0/33'",
        &["10.0.0.0/33", "8 to 30"],
    ),
    (
        "mesh_v4",
        CONTROLLER,
        "mesh_v4 = '10.0.0.1/16'",
        &["10.0.0.1/16", "beginning of a range"],
    ),
    (
        "mesh_v4",
        CONTROLLER,
        "mesh_v4 = '8.8.0.0/16'",
        &["8.8.0.0/16", "choose one within"],
    ),
    (
        "mesh_v4",
        "role = 'controller'\nlisten = '[::]:0'\n",
        "mesh_v4 = '127.0.0.0/8'",
        &["127.0.0.1", "lo", "choose a range"],
    ),
    (
        "mesh_v6",
        CONTROLLER,
        "mesh_v6 = 'fd00::/130'",
        &["fd00::", "130"],
    ),
    (
        "mesh_v6",
        CONTROLLER,
        "mesh_v6 = '2001:db8::/64'",
        &["2001:db8::/64", "fd00::/8"],
    ),
    (
        "segment",
        CONTROLLER,
        "[[segment]]\nname = 'A B'\nmesh_v4 = '10.1.0.0/16'",
        &["A B", "a-z"],
    ),
    (
        "policy_file",
        CONTROLLER,
        "policy_file = '/no/such.toml'",
        &["/no/such.toml", "No such file"],
    ),
    (
        "epoch_seconds",
        CONTROLLER,
        "epoch_seconds = 0",
        &["is 0", "between 1 and 86400"],
    ),
    (
        "threshold",
        CONTROLLER,
        "threshold = 1.5",
        &["is 1.5", "between 0 and 1"],
    ),
    (
        "max_benchmark_age",
        CONTROLLER,
        "max_benchmark_age = 0",
        &["is 0", "between 1"],
    ),
    (
        "max_benchmark_age",
        CONTROLLER,
        "max_benchmark_age = 20",
        &["20 is shorter than an epoch", "at least 120"],
    ),
    (
        "metric_minimum",
        CONTROLLER,
        "metric_minimum = 'honesty'",
        &["honesty", "NAME=SCORE"],
    ),
    (
        "metric_minimum",
        CONTROLLER,
        "metric_minimum = 'honesty=7'",
        &["7", "between 0 and 1"],
    ),
    (
        "required_signer",
        CONTROLLER,
        "required_signer = 'me'",
        &["me", "evaluator"],
    ),
    (
        "required_signer",
        CONTROLLER,
        "required_signer = 'evaluator'",
        &["evaluator", "`evaluators` is empty"],
    ),
    (
        "evaluator",
        CONTROLLER,
        "evaluator = 'ed25519:1'",
        &["ed25519:1"],
    ),
    ("harness", CONTROLLER, "harness = ''", &["1 to 128 bytes"]),
    ("suite", CONTROLLER, "suite = ''", &["1 to 128 bytes"]),
    (
        "suite_version",
        CONTROLLER,
        "suite_version = '>=a'",
        &[">=a"],
    ),
    (
        "probation_epochs",
        CONTROLLER,
        "probation_epochs = -1",
        &["-1", "u32"],
    ),
    (
        "passes_to_return",
        CONTROLLER,
        "passes_to_return = 0",
        &["is 0", "between 1"],
    ),
    (
        "failures_to_leave",
        CONTROLLER,
        "failures_to_leave = 0",
        &["is 0", "between 1"],
    ),
    (
        "revoke",
        CONTROLLER,
        "revoke = 'later'",
        &["later", "`epoch` or `now`"],
    ),
    (
        "lease_seconds",
        CONTROLLER,
        "lease_seconds = 5",
        &["is 5", "between 60"],
    ),
    (
        "on_lease_end",
        CONTROLLER,
        "on_lease_end = 'wait'",
        &["wait", "`close` or `open`"],
    ),
    (
        "floor_share",
        CONTROLLER,
        "floor_share = 2.0",
        &["is 2", "between 0 and 1"],
    ),
    (
        "floor_nodes",
        CONTROLLER,
        "floor_nodes = 0",
        &["is 0", "between 1"],
    ),
    (
        "enrolment",
        CONTROLLER,
        "enrolment = 'free'",
        &["free", "token, approve"],
    ),
    (
        "adopt_log",
        CONTROLLER,
        "adopt_log = 'key'",
        &["key", "authority:"],
    ),
    (
        "log_name",
        CONTROLLER,
        "log_name = 'a b'",
        &["a b", "letters, digits"],
    ),
    (
        "keep_evidence_days",
        CONTROLLER,
        "keep_evidence_days = 99999",
        &["99999", "0 keeps"],
    ),
    (
        "join",
        NODE,
        "join = 'hello'",
        &["not a meshd token", "start with"],
    ),
    (
        "join",
        NODE,
        "join = '@/no/such'",
        &["/no/such", "No such file"],
    ),
    ("join", NODE, "", &["not set", "meshctl token create"]),
    ("name", NODE, "name = 'Node A'", &["Node A", "a-z"]),
    ("segments", NODE, "segments = 'X Y'", &["X Y", "a-z"]),
    (
        "controller",
        NODE,
        "controller = '2001:db8::1:7443'",
        &["2001:db8::1:7443", "in brackets"],
    ),
    (
        "controller",
        NODE,
        "controller = 'no-such-host.invalid:7443'",
        &["no-such-host.invalid", "correct it"],
    ),
    (
        "listen_port",
        "role = 'node'\n",
        "listen_port = 70000",
        &["70000", "u16"],
    ),
    (
        "listen_port",
        NODE,
        "advertise = '192.0.2.1:51820'",
        &["0 takes another port", "give the port"],
    ),
    ("interface", NODE, "interface = 'a/b'", &["a/b", "1 to 15"]),
    (
        "dns_listen",
        NODE,
        "dns_listen = '192.0.2.1:53'",
        &["192.0.2.1:53", "choose one"],
    ),
    (
        "dns_suffix",
        NODE,
        "dns_suffix = 'no domain'",
        &["no domain"],
    ),
    (
        "dns_resolved",
        NODE,
        "dns_resolved = 'on'",
        &["on", "auto, off"],
    ),
    (
        "hosts_file",
        NODE,
        "hosts_file = 'hosts'",
        &["hosts", "absolute path"],
    ),
    (
        "wireguard_dir",
        NODE,
        "wireguard_dir = 'relative'",
        &["relative", "off"],
    ),
    (
        "firewall",
        NODE,
        "firewall = 'on'",
        &["on", "auto, keep, off"],
    ),
    ("mtu", NODE, "mtu = 1279", &["1279", "between 1280"]),
    (
        "persistent_keepalive",
        NODE,
        "persistent_keepalive = 0",
        &["0", "auto, off"],
    ),
    (
        "advertise_routes",
        NODE,
        "advertise_routes = '10.1.0.5/16'",
        &["10.1.0.5/16", "10.1.0.0/16"],
    ),
    (
        "accept_routes",
        NODE,
        "accept_routes = 'yes'",
        &["yes", "boolean"],
    ),
    (
        "tun_backend",
        NODE,
        "tun_backend = 'tap'",
        &["tap", "offload, tun-tap"],
    ),
    (
        "tun_tcp_offload",
        NODE,
        "tun_tcp_offload = 1",
        &["1", "boolean"],
    ),
    (
        "tun_udp_offload",
        NODE,
        "tun_udp_offload = 1",
        &["1", "boolean"],
    ),
    ("udp_gso", NODE, "udp_gso = 1", &["1", "boolean"]),
    ("udp_gro", NODE, "udp_gro = 1", &["1", "boolean"]),
    (
        "data_threads",
        NODE,
        "data_threads = 0",
        &["0", "between 1 and 64"],
    ),
    (
        "emitter",
        NODE,
        "emitter = 'magic'",
        &["magic", "mock, command, file"],
    ),
    ("emitter", NODE, "", &["none", "choose command"]),
    (
        "emitter",
        NODE,
        "emitter = 'mock'",
        &["mock", "proves nothing"],
    ),
    ("emit_seconds", NODE, "emit_seconds = 0", &["0", "seconds"]),
    (
        "emit_seconds",
        NODE,
        "emit_seconds = 9",
        &["no effect", "remove it"],
    ),
    (
        "mock_mean",
        NODE,
        "emitter = 'mock'\nmock_mean = 1.5",
        &["1.5", "between 0 and 1"],
    ),
    (
        "mock_jitter",
        NODE,
        "emitter = 'mock'\nmock_jitter = 1.5",
        &["1.5", "between 0 and 1"],
    ),
    (
        "benchmark_command",
        NODE,
        "emitter = 'command'",
        &["not set", "name the program"],
    ),
    (
        "benchmark_command",
        NODE,
        "emitter = 'command'\nbenchmark_command = '/no/such'",
        &["/no/such", "a sequence"],
    ),
    (
        "benchmark_command",
        NODE,
        "emitter = 'command'\nbenchmark_command = ['/no/such']",
        &["/no/such", "install it"],
    ),
    (
        "benchmark_command",
        NODE,
        "emitter = 'command'\nbenchmark_command = ['no-such']",
        &["no-such", "PATH"],
    ),
    (
        "benchmark_command",
        NODE,
        "emitter = 'command'\nbenchmark_command = ['/etc/passwd']",
        &["/etc/passwd", "chmod +x"],
    ),
    (
        "benchmark_timeout_seconds",
        NODE,
        "emitter = 'command'\nbenchmark_command = ['sh']\nbenchmark_timeout_seconds = 0",
        &["0", "seconds"],
    ),
    (
        "benchmark_user",
        NODE,
        "emitter = 'command'\nbenchmark_command = ['sh']\nbenchmark_user = 'no-such-user'",
        &["no-such-user", "useradd"],
    ),
    (
        "benchmark_file",
        NODE,
        "emitter = 'file'",
        &["not set", "name the file"],
    ),
    (
        "benchmark_file",
        NODE,
        "emitter = 'file'\nbenchmark_file = '/etc'",
        &["/etc", "name a file"],
    ),
    (
        "benchmark_file",
        NODE,
        "emitter = 'file'\nbenchmark_file = '/no/such'",
        &["/no/such", "before it is there"],
    ),
    (
        "benchmark_directory",
        NODE,
        "emitter = 'directory'",
        &["not set", "name the folder"],
    ),
    (
        "benchmark_directory",
        NODE,
        "emitter = 'directory'\nbenchmark_directory = '/etc/passwd'",
        &["/etc/passwd", "name the folder"],
    ),
    (
        "benchmark_format",
        NODE,
        "emitter = 'file'\nbenchmark_file = '/x'\nbenchmark_format = 'xml'",
        &["xml"],
    ),
    (
        "benchmark_suite",
        NODE,
        "emitter = 'file'\nbenchmark_file = '/x'\nbenchmark_suite = ''",
        &["1 to 128"],
    ),
    (
        "benchmark_suite_version",
        NODE,
        "emitter = 'file'\nbenchmark_file = '/x'\nbenchmark_suite_version = ''",
        &["1 to 128"],
    ),
    (
        "benchmark_only",
        NODE,
        "benchmark_only = ['mmlu']",
        &["no effect", "remove it"],
    ),
    ("probe_seconds", NODE, "probe_seconds = -1", &["-1", "u64"]),
];

#[test]
fn a_bad_value_of_every_setting_is_found_by_name_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    for (setting, role, text, words) in BAD {
        let found = found(folder.path(), &format!("{role}{text}"));
        let all = found.errors.iter().chain(&found.warnings);
        let of = all.filter(|it| it.contains(&format!("`{setting}")));
        if !of
            .clone()
            .any(|it| words.iter().all(|word| it.contains(word)))
        {
            wrong.push(format!("{setting}, {text:?}: {:?}", of.collect::<Vec<_>>()));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    let tried: BTreeSet<&str> = BAD.iter().map(|it| it.0).collect();
    let all: BTreeSet<&str> = Settings::names().collect();
    assert_eq!(tried, all, "a bad value for every setting");
}

#[test]
fn all_faults_are_found_at_once_and_each_once() {
    let folder = tempfile::tempdir().unwrap();
    let text = "treshold = 0.5\nthreshold = 0.9\nmtu = 1\nemit_seconds = 'x'\nadvertise = '0.0.0.0:1'\nname = 'A B'\n\
                emitter = 'command'\njoin = 'secret-secret'";
    let found = found(folder.path(), &format!("{NODE}{text}"));
    for expected in [
        "`treshold` is no setting of meshd: is `threshold` meant?",
        "`threshold` is not a setting of this role",
        "`mtu`: ",
        "`emit_seconds`: ",
        "`advertise`: ",
        "`name`: ",
        "`benchmark_command`: ",
        "`join`: ",
    ] {
        let those = found.errors.iter().filter(|it| it.starts_with(expected));
        assert_eq!(those.count(), 1, "{expected}: {:#?}", found.errors);
    }
    let lines = found.lines().join("\n");
    assert!(!lines.contains("secret-secret"), "{lines}");
    assert!(lines.ends_with("would not start, or not work"), "{lines}");
}

#[test]
fn a_state_directory_is_looked_at_and_nothing_is_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let look = || found(folder.path(), CONTROLLER);
    assert!(look().errors.is_empty(), "{:?}", look().errors);
    assert!(!state.exists() && !folder.path().join("a.sock").exists());

    // Files that others may read, each of them.
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap()
    };
    std::fs::create_dir(&state).unwrap();
    mode(&state, 0o700);
    for name in ["log.key", "authority.key"] {
        std::fs::write(state.join(name), "x").unwrap();
        mode(&state.join(name), 0o644);
    }
    let errors = look().errors;
    assert_eq!(
        errors.iter().filter(|it| it.contains("chmod 600")).count(),
        2,
        "{errors:?}"
    );
    for name in ["log.key", "authority.key"] {
        mode(&state.join(name), 0o600);
    }
    let errors = look().errors.join("\n");
    assert!(errors.contains("connection.key is missing"), "{errors}");
    assert!(errors.contains("log.key does not hold a key"), "{errors}");

    // Another daemon's.
    let held = crate::state_dir::StateDir::open(&state).unwrap();
    assert!(
        look()
            .errors
            .iter()
            .any(|it| it.contains("in use by another meshd"))
    );
    drop(held);
}

#[test]
fn an_event_log_that_a_start_would_refuse_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let look = |more: &str| {
        found(folder.path(), &format!("{CONTROLLER}{more}"))
            .errors
            .join("\n")
    };
    let opened = crate::state_dir::StateDir::open(&state).unwrap();
    let founding = crate::founding::controller(&opened, false, None).unwrap();
    let settings: Settings = toml::from_str(CONTROLLER).unwrap();
    let RoleConfig::Controller(config) = crate::config::resolve(settings).unwrap().role else {
        panic!("a controller");
    };
    let config = controller::Config {
        state_dir: state.clone(),
        founding: true,
        ..*config
    };
    controller::rehearse(config, founding.keys).unwrap();
    crate::founding::founded(&opened).unwrap();
    drop(opened);
    assert_eq!(look(""), "");
    let bytes = |name: &str| std::fs::read(state.join(name)).unwrap();
    let before = bytes("controller.db");

    // The log of another authority, whose key is one.
    let key = keys::AuthoritySecret::generate(&mut rand_core::OsRng);
    std::fs::write(state.join("authority.key"), &*key.expose_base64()).unwrap();
    let errors = look("");
    assert!(
        errors.contains("event log") && errors.contains(&state.display().to_string()),
        "{errors}"
    );
    assert_eq!(bytes("controller.db"), before, "it is looked at alone");
}

#[test]
fn an_address_that_is_taken_is_an_error_unless_a_daemon_runs_with_these_settings() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let listen = format!(
        "role = 'controller'\nlisten = '{}'\n",
        taken.local_addr().unwrap()
    );
    let errors = found(folder.path(), &listen).errors;
    assert!(
        errors[0].starts_with("`listen`") && errors[0].contains("ss -lunp"),
        "{errors:?}"
    );
    let _daemon = std::os::unix::net::UnixListener::bind(folder.path().join("a.sock")).unwrap();
    // The socket is that of a daemon with another state directory.
    let errors = found(folder.path(), &listen).errors.join("\n");
    assert!(
        errors.contains("`socket`: another daemon answers") && errors.contains("`listen`"),
        "{errors}"
    );
    let _state = crate::state_dir::StateDir::open(&folder.path().join("state")).unwrap();
    let found = found(folder.path(), &listen);
    assert!(found.errors.is_empty(), "{:?}", found.errors);
    assert!(
        found.notes[0].contains("a daemon runs"),
        "{:?}",
        found.notes
    );
}

#[test]
fn what_is_told_sums_up_what_was_found() {
    let mut found = Findings::default();
    assert_eq!(found.lines(), ["the settings are good"]);
    found.warning("mtu", "large");
    assert_eq!(
        found.lines(),
        [
            "warning: `mtu`: large",
            "the settings are good, with 1 warning"
        ]
    );
    found.error("name", "none");
    assert_eq!(
        found.lines()[2],
        "1 error and 1 warning: meshd would not start, or not work"
    );
}

/// An enrolled node in two segments, whose second range is loopback's; its state directory, closed.
fn enrolled(folder: &Path) -> std::path::PathBuf {
    use serde_json::json;
    let state = folder.join("state");
    let opened = crate::state_dir::StateDir::open(&state).unwrap();
    let (identity, wg) = crate::founding::node(&opened).unwrap();
    let further = crate::founding::wireguard(&opened, "wireguard-b.key").unwrap();
    let segment = |number: u16, name: &str, v4: &str, length: u8| json!({ "segment": number, "name": name, "v4": [v4, length], "v6": [format!("fd00:{number}::2"), 64] });
    let mut first = segment(0, "default", "10.76.0.3", 15);
    first["wg"] = json!(wg.public());
    let mut second = segment(1, "b", "127.0.0.3", 8);
    (second["wg"], second["by_name"]) = (json!(further.public()), json!(true));
    let enrolment = json!({
        "name": "node-a",
        "controllers": ["192.0.2.1:7443"],
        "controller": keys::ControllerId([1; 32]),
        "authorities": [],
        "mesh": keys::MeshId([7; 16]),
        "node": identity.public(),
        "segments": [first, second],
    });
    std::fs::write(state.join("enrolment.json"), enrolment.to_string()).unwrap();
    std::fs::set_permissions(
        state.join("enrolment.json"),
        PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    state
}

#[test]
fn an_enrolled_node_is_looked_at_with_all_its_segments() {
    let folder = tempfile::tempdir().unwrap();
    let state = enrolled(folder.path());
    let look = || found(folder.path(), NODE).errors.join("\n");
    let errors = look();
    // The address 127.0.0.1 is in the second segment's range, which is shown as a network.
    assert!(
        errors.contains("the mesh range 127.0.0.0/8 collides with 127.0.0.1"),
        "{errors}"
    );
    assert!(!errors.contains("state_dir"), "{errors}");
    let key = state.join("wireguard-b.key");
    std::fs::remove_file(&key).unwrap();
    let errors = look();
    assert!(
        errors.contains("`state_dir`") && errors.contains("wireguard-b.key"),
        "{errors}"
    );
    assert!(!key.exists(), "a look makes no key");
}
