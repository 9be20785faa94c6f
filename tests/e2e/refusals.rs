//! Starts that cannot work: refused with one line and exit code 2, and nothing is left behind.

use crate::outcome;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use tests::harness::{CONTROLLER, Mesh, programs::program};

#[test]
fn a_start_that_cannot_work_is_refused_with_one_line_and_leaves_nothing() {
    let builder = Mesh::builder().nodes(1).epoch_seconds(3600);
    let mut mesh = builder.prepare();
    mesh.start_controller();
    mesh.start_node("node-a");
    mesh.wait_until_all_reach_all();
    mesh.add_host("bench", 50);
    let used = mesh.folder().join("node-a.token");
    let fresh = mesh.token_file("node-z");
    let (used, fresh) = (
        format!("@{}", used.display()),
        format!("@{}", fresh.display()),
    );
    let bench = Bench { mesh: &mesh, fresh };
    let wrong = std::cell::RefCell::new(Vec::new());
    let expect = |what: &str, command: Command, words: &[&str]| {
        let said = bench.refused(command, words);
        wrong
            .borrow_mut()
            .extend(said.err().map(|why| format!("{what}: {why}")));
    };

    // Settings.
    let file = |text: &str| {
        let path = mesh.folder().join("wrong.toml");
        std::fs::write(&path, text).expect("the folder can be written");
        let mut command = mesh.command("bench", program("meshd"));
        command.arg("--config").arg(path);
        command
    };
    expect(
        "no such file",
        bench.meshd(&["--config", "/no/such.toml"]),
        &["/no/such.toml"],
    );
    expect("no TOML", file("role = "), &["wrong.toml"]);
    expect(
        "unknown setting",
        file("role = \"node\"\ntreshold = 0.5"),
        &["treshold"],
    );
    expect(
        "setting of the other role",
        file("role = \"node\"\nthreshold = 0.5"),
        &["threshold"],
    );
    expect("no role", file(""), &["--role"]);
    expect(
        "bad value",
        bench.node("v", &["--mtu", "1279"]),
        &["mtu", "1279", "not between 1280"],
    );
    expect(
        "bad log level",
        bench.node("v", &["--log-level", "node=loud"]),
        &["log_level"],
    );

    // Tokens.
    expect(
        "no token",
        bench.node_with_token("t0", None, &[]),
        &["token"],
    );
    expect(
        "no token at all",
        bench.node_with_token("t1", Some("hello"), &[]),
        &["join"],
    );
    expect(
        "token file is missing",
        bench.node_with_token("t2", Some("@/no/such"), &[]),
        &["/no/such"],
    );
    expect(
        "used token",
        bench.node_with_token("t3", Some(&used), &[]),
        &["token", "used"],
    );
    let revoked = bench.revoked_token();
    expect(
        "revoked token",
        bench.node_with_token("t4", Some(&revoked), &[]),
        &["token", "revoked"],
    );

    // Interfaces and sockets. A name that is taken may be given back. A port that is taken may become free: `process.rs`.
    expect(
        "an address for metrics that is none",
        bench.controller("m2", &["--metrics-listen", "everywhere"]),
        &["metrics_listen", "everywhere", "IP:PORT"],
    );
    let name = "a-name-that-is-too-long";
    expect(
        "interface name too long",
        bench.node("p3", &["--interface", name]),
        &[name],
    );
    let live = mesh.socket("node-a").display().to_string();
    expect(
        "taken socket",
        bench.node("p4", &["--socket", &live]),
        &[&live],
    );
    let file = mesh.status_file().display().to_string();
    expect(
        "no socket",
        bench.node("p5", &["--socket", &file]),
        &[&file],
    );
    let busy = mesh.state_dir("node-a").display().to_string();
    expect(
        "taken state directory",
        bench.node("p6", &["--state-dir", &busy]),
        &["in use"],
    );

    // State directories.
    let mut of_disks = Vec::new();
    for (role, args) in [
        ("node", &[][..]),
        ("controller", &["--listen", "127.0.0.1:7999"]),
    ] {
        let command = |name: &str| match role {
            "node" => bench.node(name, args),
            _ => bench.controller(name, args),
        };
        let open = format!("open-{role}");
        let path = mesh.state_dir(&open);
        std::fs::create_dir_all(&path).expect("the folder can be written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("it is ours");
        expect(&open, command(&open), &[&open, "chmod"]);

        for (kind, options, fill, words, exit) in [
            ("read-only", "ro,mode=700", "", &["ead-only"][..], 2),
            // Somebody may make room.
            ("full", "size=8k,mode=700", FILL, &["pace"], 3),
            // Room for the keys, and for no database.
            ("nearly-full", "size=24k,mode=700", "", &["full"], 3),
        ] {
            if (role, kind) == ("node", "nearly-full") {
                continue;
            }
            let name = format!("{kind}-{role}");
            let path = mesh.state_dir(&name);
            std::fs::create_dir_all(&path).expect("the folder can be written");
            let script =
                format!("mount -t tmpfs -o {options} tmpfs \"$1\" && {fill} shift && exec \"$@\"");
            let wrapped = bench.wrapped(
                &command(&name),
                &["sh", "-c", &script, "sh", &path.display().to_string()],
            );
            let said = bench.refused_with(exit, wrapped, words);
            of_disks.extend(said.err().map(|why| format!("{name}: {why}")));
        }
    }

    // Rights.
    let without = ["setpriv", "--bounding-set", "-net_admin", "--"];
    expect(
        "no CAP_NET_ADMIN",
        bench.wrapped(&bench.node("r0", &[]), &without),
        &["CAP_NET_ADMIN"],
    );
    mesh.namespace("bench")
        .ip("link add taken0 type veth peer name taken1");
    let taken = bench.node("p2", &["--interface", "taken0"]);
    let said = bench.refused_with(3, taken, &["taken0"]);
    wrong
        .borrow_mut()
        .extend(said.err().map(|why| format!("taken interface: {why}")));
    wrong.borrow_mut().extend(of_disks);
    let wrong = wrong.into_inner();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));

    // The token that all of these carried is as good as new.
    let mut command = bench.node("last", &[]);
    command.arg("--check");
    assert_eq!(outcome(command).0, Some(0), "--check finds nothing");
    let tokens: Vec<wire::admin::TokenInfo> = mesh.ask(CONTROLLER, &["token", "list"]);
    let open = tokens.iter().filter(|token| token.state == "open").count();
    assert_eq!(open, 1, "{tokens:?}");
}

#[test]
fn an_ordinary_user_is_told_what_is_missing() {
    let mut mesh = Mesh::builder().nodes(1).epoch_seconds(3600).prepare();
    mesh.start_controller();
    mesh.add_host("bench", 50);
    let fresh = format!("@{}", mesh.token_file("node-z").display());
    let bench = Bench { mesh: &mesh, fresh };
    // No right at all, as for a user who is not root; the user id stays, so that files are readable.
    let without = [
        "setpriv",
        "--bounding-set",
        "-all",
        "--inh-caps",
        "-all",
        "--",
    ];
    let said = bench.refused(
        bench.wrapped(&bench.node("r1", &[]), &without),
        &["CAP_NET_ADMIN"],
    );
    assert_eq!(said.err(), None);
}

/// A host on which starts fail.
pub(crate) struct Bench<'a> {
    pub(crate) mesh: &'a Mesh,
    /// A token that was not used.
    pub(crate) fresh: String,
}

impl Bench<'_> {
    fn meshd(&self, arguments: &[&str]) -> Command {
        let mut command = self.mesh.command("bench", program("meshd"));
        command.args(arguments);
        command
    }

    /// A node that would start but for `arguments`.
    pub(crate) fn node(&self, name: &str, arguments: &[&str]) -> Command {
        self.node_with_token(name, Some(&self.fresh), arguments)
    }

    fn node_with_token(&self, name: &str, token: Option<&str>, arguments: &[&str]) -> Command {
        let mut command = self.meshd(&["--role", "node"]);
        if let Some(token) = token {
            command.args(["--join", token]);
        }
        self.finish(name, command, arguments)
    }

    pub(crate) fn controller(&self, name: &str, arguments: &[&str]) -> Command {
        self.finish(name, self.meshd(&["--role", "controller"]), arguments)
    }

    /// A flag cannot be given twice.
    fn finish(&self, name: &str, mut command: Command, arguments: &[&str]) -> Command {
        let (state, socket) = (self.mesh.state_dir(name), self.mesh.socket(name));
        if !arguments.contains(&"--state-dir") {
            command.arg("--state-dir").arg(state);
        }
        if !arguments.contains(&"--socket") {
            command.arg("--socket").arg(socket);
        }
        command.args(arguments);
        command
    }

    /// `command` behind `prefix`, in the same namespace.
    fn wrapped(&self, command: &Command, prefix: &[&str]) -> Command {
        let (first, rest) = prefix.split_first().expect("there is a program");
        let mut wrapped = self.mesh.command("bench", first);
        // Behind `ip netns exec NAME`.
        wrapped.args(rest).args(command.get_args().skip(3));
        wrapped
    }

    /// Holds a start against what is promised; `Err` says what is otherwise.
    pub(crate) fn refused(&self, command: Command, words: &[&str]) -> Result<(), String> {
        self.refused_with(2, command, words)
    }

    /// The same of one that may work later.
    fn refused_with(&self, exit: i32, command: Command, words: &[&str]) -> Result<(), String> {
        let links = || self.mesh.namespace("bench").ip("-br link show");
        let before = links();
        let (code, said) = outcome(command);
        if code != Some(exit) {
            return Err(format!("exit code {code:?}: {said}"));
        }
        // Behind what the log may have said before.
        let last = said.lines().position(|line| line.starts_with("meshd: "));
        let words_of: Vec<&str> = said.lines().skip(last.unwrap_or(usize::MAX)).collect();
        let message = words_of.join("\n").trim().to_owned();
        // TOML shows the place of an error in lines of its own.
        let whole = message.lines().count() == 1 || message.contains("TOML parse error");
        let again = words_of
            .iter()
            .skip(1)
            .any(|line| line.starts_with("meshd: "));
        if message.is_empty() || !whole || again {
            return Err(format!("not one line, but: {said}"));
        }
        if let Some(missing) = words.iter().find(|word| !message.contains(**word)) {
            return Err(format!("nothing about `{missing}` in: {message}"));
        }
        if let Some(twice) = said_twice(&message) {
            return Err(format!("it says `{twice}` twice: {message}"));
        }
        if links() != before {
            return Err(format!("links were {before} and are {}", links()));
        }
        let socket = self
            .mesh
            .folder()
            .read_dir()
            .into_iter()
            .flatten()
            .flatten();
        let mut left = socket.filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.ends_with(".sock")
                && !name.starts_with("controller")
                && !name.starts_with("node-a")
        });
        match left.next() {
            Some(left) => Err(format!("a socket is left: {}", left.path().display())),
            None => Ok(()),
        }
    }

    fn revoked_token(&self) -> String {
        let made: serde_json::Value = self
            .mesh
            .ask(CONTROLLER, &["token", "create", "--name", "node-y"]);
        let (id, token) = (made["id"].as_str(), made["token"].as_str());
        let (id, token) = (id.expect("it has an id"), token.expect("it has a secret"));
        let done = self.mesh.meshctl(CONTROLLER, &["token", "revoke", id]);
        assert!(done.status.success(), "{done:?}");
        token.to_owned()
    }
}

/// A cause that an error names as part of its own words, and then once more.
fn said_twice(message: &str) -> Option<&str> {
    let starts = message.match_indices(": ").map(|(at, _)| at);
    starts
        .map(|at| (&message[..at], message[at + 2..].trim()))
        .find(|(before, cause)| cause.len() > 8 && before.contains(cause))
        .map(|(_, cause)| cause)
}

/// Nothing fits any more.
const FILL: &str = "{ head -c 8192 /dev/zero >\"$1/fill\" 2>/dev/null; true; } &&";
