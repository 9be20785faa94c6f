//! `meshd init`: writes a commented configuration that works, and says the next step. The text is that of the examples
//! under `docs/config`, with some settings in force. Asks nothing, and overwrites nothing but such an example as it came.
//!
//! The file is long because both roles' files and the words that go with them are read together.

use crate::settings::Role;
use clap::{Args, Subcommand};
use std::fmt::Write as _;
use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use wire::{HostPort, NodeName};

/// The role whose configuration is wanted.
#[derive(Debug, Clone, Subcommand)]
pub enum Init {
    /// A controller: controller.toml and policy.toml
    Controller(ControllerArgs),
    /// A node: node.toml, which names the token's file
    Node(NodeArgs),
}

/// Flags of both roles.
#[derive(Debug, Clone, Args)]
pub struct Places {
    /// Folder for the configuration; it is made if there is none
    #[arg(long, default_value = "/etc/meshd", value_name = "FOLDER")]
    pub dir: PathBuf,
    /// Directory for keys and state [default: /var/lib/meshd/ROLE]
    #[arg(long, value_name = "FOLDER")]
    pub state_dir: Option<PathBuf>,
    /// Admin socket [default: /run/meshd/ROLE.sock]
    #[arg(long, value_name = "FILE")]
    pub socket: Option<PathBuf>,
}

/// Flags of `init controller`.
#[derive(Debug, Clone, Args)]
pub struct ControllerArgs {
    #[command(flatten)]
    places: Places,
    /// Where nodes reach this controller; repeatable [default: this machine's address, port 7443]
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    advertise: Vec<HostPort>,
}

/// Flags of `init node`.
#[derive(Debug, Clone, Args)]
pub struct NodeArgs {
    #[command(flatten)]
    places: Places,
    /// The enrolment token's file, which has the controller's address and key [default: FOLDER/token]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The name to ask for [default: the token's]
    #[arg(long)]
    name: Option<NodeName>,
    /// Where the controller is, instead of the token's word; repeatable
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    controller: Vec<HostPort>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// It could be somebody's.
    #[error(
        "{0} exists, and `meshd init` overwrites nothing that somebody has changed: move it away, or choose another folder with --dir"
    )]
    Exists(PathBuf),
    /// The system refused.
    #[error("cannot {what} {path}: {source}; run it as root, or choose another folder with --dir")]
    Io {
        /// The action that failed.
        what: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A path that a settings file cannot hold.
    #[error("{0:?} is not UTF-8, which a settings file is: choose another path")]
    NotText(PathBuf),
    /// Nodes could not be told where the controller is.
    #[error(
        "this machine has no address that other machines could reach: say where nodes reach this controller, as in \
         --advertise mesh.example.net:7443"
    )]
    NoAddress,
    /// The example lacks a setting: a fault of this program.
    #[error("the example of this program has no setting `{0}`: please report it")]
    Example(&'static str),
}

/// Writes the files, and gives the words for whoever asked: what was written, and the next step.
///
/// # Errors
/// [`InitError`]. Nothing is left behind then but folders.
pub fn run(init: &Init) -> Result<String, InitError> {
    match init {
        Init::Controller(args) => controller(args),
        Init::Node(args) => node(args),
    }
}

fn controller(args: &ControllerArgs) -> Result<String, InitError> {
    let places = &args.places.absolute()?;
    let (file, policy) = (
        places.dir.join("controller.toml"),
        places.dir.join("policy.toml"),
    );
    let advertise: Vec<String> = if args.advertise.is_empty() {
        let own = machine::addresses::outward().ok_or(InitError::NoAddress)?;
        vec![std::net::SocketAddr::new(own, PORT).to_string()]
    } else {
        args.advertise.iter().map(ToString::to_string).collect()
    };
    let mut text = places.set_in(CONTROLLER.to_owned())?;
    text = set(&text, "advertise", list(&advertise))?;
    text = set(&text, "policy_file", string(&policy)?)?;
    write_all(&places.dir, &[(&file, &text), (&policy, &policy_text())])?;

    let next = Next::new(Role::Controller, &file);
    let mut said = format!(
        "wrote {} and {}\nnodes are told to reach this controller at {} (`advertise`)\n\n",
        file.display(),
        policy.display(),
        advertise.join(", ")
    );
    let socket = meshctl_socket(places);
    let _ = write!(
        said,
        "Next, check and start it:\n\n{}\n\nThen make a token for each node, and take the file to it:\n\n    \
         {}meshctl{socket} token create --name node-a --output node-a.token\n",
        next.commands(),
        next.sudo
    );
    Ok(said)
}

fn node(args: &NodeArgs) -> Result<String, InitError> {
    let places = &args.places.absolute()?;
    let file = places.dir.join("node.toml");
    let token = match &args.token_file {
        Some(path) => absolute(path)?,
        None => places.dir.join("token"),
    };
    let joins = format!("@{}", text_of(&token)?);
    let mut text = places.set_in(NODE.to_owned())?;
    text = set(&text, "join", toml::Value::String(joins))?;
    if let Some(name) = &args.name {
        text = set(&text, "name", toml::Value::String(name.to_string()))?;
    }
    if !args.controller.is_empty() {
        let all: Vec<String> = args.controller.iter().map(ToString::to_string).collect();
        text = set(&text, "controller", list(&all))?;
    }
    text = set(&text, "emitter", toml::Value::String("mock".to_owned()))?;
    text = text.replacen("emitter = \"mock\"", PLACEHOLDER, 1);
    write_all(&places.dir, &[(&file, &text)])?;

    let next = Next::new(Role::Node, &file);
    let mut said = format!(
        "wrote {}\nits benchmark is a placeholder, which draws scores and proves nothing (`emitter`): INTEGRATION.md \
         says how yours takes its place\n\n",
        file.display()
    );
    if token.exists() {
        let _ = write!(said, "Next, check and start it:\n\n{}\n", next.commands());
    } else {
        let name = args.name.as_ref().map_or("node-a", NodeName::as_str);
        let (sudo, owner) = (next.sudo, next.owner());
        let _ = write!(
            said,
            "Next, make a token at the controller, and take the file to this machine:\n\n    \
             {sudo}meshctl token create --name {name} --output {name}.token\n\n\
             Then, here:\n\n    {sudo}install -m 0600{owner} {name}.token {}\n{}\n",
            quoted(&token),
            next.commands()
        );
    }
    Ok(said)
}

impl Places {
    /// The same wherever a daemon is started.
    fn absolute(&self) -> Result<Self, InitError> {
        Ok(Self {
            dir: absolute(&self.dir)?,
            state_dir: self.state_dir.as_deref().map(absolute).transpose()?,
            socket: self.socket.as_deref().map(absolute).transpose()?,
        })
    }

    fn set_in(&self, mut text: String) -> Result<String, InitError> {
        if let Some(path) = &self.state_dir {
            text = set(&text, "state_dir", string(path)?)?;
        }
        if let Some(path) = &self.socket {
            text = set(&text, "socket", string(path)?)?;
        }
        Ok(text)
    }
}

/// The commands that come next on this machine.
struct Next {
    role: Role,
    file: PathBuf,
    has_unit: bool,
    /// In front of commands that are root's.
    sudo: &'static str,
}

impl Next {
    fn new(role: Role, file: &Path) -> Self {
        let name = format!("{}.service", unit(role));
        Self {
            role,
            file: file.to_owned(),
            // The unit reads the file in its usual place.
            has_unit: file.parent() == Some(Path::new("/etc/meshd"))
                && Path::new("/run/systemd/system").exists()
                && UNITS
                    .iter()
                    .any(|folder| Path::new(folder).join(&name).exists()),
            sudo: if machine::rights::user() == 0 {
                ""
            } else {
                "sudo "
            },
        }
    }

    fn owner(&self) -> &'static str {
        if self.has_unit { " -o meshd" } else { "" }
    }

    fn commands(&self) -> String {
        let (sudo, file) = (self.sudo, quoted(&self.file));
        let start = if self.has_unit {
            format!("systemctl enable --now {}", unit(self.role))
        } else {
            format!("meshd --config {file}")
        };
        format!("    {sudo}meshd --config {file} --check\n    {sudo}{start}")
    }
}

fn unit(role: Role) -> &'static str {
    match role {
        Role::Controller => "meshd-controller",
        Role::Node => "meshd-node",
    }
}

fn meshctl_socket(places: &Places) -> String {
    let given = places.socket.as_ref();
    given.map_or_else(String::new, |path| format!(" --socket {}", quoted(path)))
}

/// A path as a word of a shell's line.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn absolute(path: &Path) -> Result<PathBuf, InitError> {
    std::path::absolute(path).map_err(|source| InitError::Io {
        what: "find",
        path: path.to_owned(),
        source,
    })
}

/// The example of a policy as one that works for any mesh: its general part in force, everything from its first table
/// on as a comment.
fn policy_text() -> String {
    let (general, tables) = match POLICY.find("\n# What passes") {
        Some(at) => POLICY.split_at(at),
        None => (POLICY, ""),
    };
    let (_, general) = general.split_once("\n\n").unwrap_or(("", general));
    let general = general.replacen("traffic = \"deny\" ", "traffic = \"allow\"", 1);
    let mut text = format!("{POLICY_HEAD}\n{general}\n{POLICY_TABLES}\n");
    for line in tables.lines() {
        let line = match line {
            "" => String::new(),
            line if line.starts_with('#') => line.to_owned(),
            line => format!("# {line}"),
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// The text with a setting in force: its line, which is a comment in the example, with this value.
fn set(text: &str, name: &'static str, value: toml::Value) -> Result<String, InitError> {
    let mut is_set = false;
    let lines = text.lines().map(|line| {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let is_it = bare
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(" = "));
        if is_it && !std::mem::replace(&mut is_set, true) {
            format!("{name} = {value}\n")
        } else {
            format!("{line}\n")
        }
    });
    let text = lines.collect();
    if is_set {
        Ok(text)
    } else {
        Err(InitError::Example(name))
    }
}

fn string(path: &Path) -> Result<toml::Value, InitError> {
    Ok(toml::Value::String(text_of(path)?.to_owned()))
}

fn text_of(path: &Path) -> Result<&str, InitError> {
    path.to_str()
        .ok_or_else(|| InitError::NotText(path.to_owned()))
}

fn list(of: &[String]) -> toml::Value {
    toml::Value::Array(of.iter().cloned().map(toml::Value::String).collect())
}

/// Writes new files, all or none of them.
fn write_all(folder: &Path, files: &[(&Path, &str)]) -> Result<(), InitError> {
    let refused = |what, path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => InitError::Exists(path),
            _ => InitError::Io { what, path, source },
        }
    };
    // A package installs the examples; nobody has set anything in one that is as it came.
    let is_example = |path: &Path| {
        let text = std::fs::read_to_string(path);
        text.is_ok_and(|text| [CONTROLLER, NODE, POLICY].contains(&text.as_str()))
    };
    let is_taken = |path: &Path| path.symlink_metadata().is_ok() && !is_example(path);
    if let Some((path, _)) = files.iter().find(|(path, _)| is_taken(path)) {
        return Err(InitError::Exists((*path).to_owned()));
    }
    let missing = folder.ancestors().filter(|it| !it.exists());
    let missing: Vec<&Path> = missing.collect();
    let made = DirBuilder::new().recursive(true).mode(0o755).create(folder);
    made.map_err(refused("create", folder))?;
    // The umask is that of whoever asks, and the files are for the daemon's user: no secret is in them.
    for made in missing {
        let opened = std::fs::set_permissions(made, Permissions::from_mode(0o755));
        opened.map_err(refused("open to the daemon's user", made))?;
    }
    for (at, (path, text)) in files.iter().enumerate() {
        let mut options = OpenOptions::new();
        if is_example(path) {
            std::fs::remove_file(path).map_err(refused("replace", path))?;
        }
        let opened = options.write(true).create_new(true).mode(0o644).open(path);
        let written = opened.and_then(|mut file| {
            let written = file
                .set_permissions(Permissions::from_mode(0o644))
                .and_then(|()| file.write_all(text.as_bytes()))
                .and_then(|()| file.sync_all());
            // Half a file would look like somebody's own.
            written.inspect_err(|_| drop(std::fs::remove_file(path)))
        });
        if let Err(error) = written {
            for (path, _) in &files[..at] {
                let _ = std::fs::remove_file(path);
            }
            return Err(refused("write", path)(error));
        }
    }
    Ok(())
}

const CONTROLLER: &str = include_str!("../../../docs/config/controller.toml");
const NODE: &str = include_str!("../../../docs/config/node.toml");
const POLICY: &str = include_str!("../../../docs/config/policy.toml");
const PLACEHOLDER: &str = "# PLACEHOLDER: the mock proves nothing. It lets a new mesh work at once; put your own benchmark in \
its place\n# before you trust a membership.\nemitter = \"mock\"";
const POLICY_HEAD: &str = "\
# The policy of this mesh, as `policy_file` in controller.toml names it. `meshctl policy check FILE` holds it against the
# rules, `meshctl policy simulate FILE` tells by the record which nodes would have been out. A HUP has the controller
# read it again.

# The one requirement of a member: a score of at least `threshold` by evidence that is at most `max_benchmark_age`
# seconds old.
threshold = 0.7
max_benchmark_age = 120
";
const POLICY_TABLES: &str = "
# --- examples -------------------------------------------------------------------------------------
#
# `[[require]]` takes the place of the one requirement above: remove `threshold` and `max_benchmark_age` then.";
const UNITS: [&str; 3] = [
    "/etc/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
/// The port of the control channel, unless `listen` says otherwise.
const PORT: u16 = 7443;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, RoleConfig};

    fn places(dir: &Path) -> Places {
        Places {
            dir: dir.join("etc"),
            state_dir: Some(dir.join("state")),
            socket: Some(dir.join("run/a.sock")),
        }
    }

    fn node_args(dir: &Path) -> NodeArgs {
        NodeArgs {
            places: places(dir),
            token_file: None,
            name: Some("node-a".parse().unwrap()),
            controller: vec!["a.example:7443".parse().unwrap()],
        }
    }

    #[test]
    fn a_controller_is_written_as_a_configuration_and_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let init = Init::Controller(ControllerArgs {
            places: places(dir.path()),
            advertise: vec!["mesh.example:7443".parse().unwrap()],
        });
        let said = run(&init).unwrap();
        let file = dir.path().join("etc/controller.toml");
        let socket = dir.path().join("run/a.sock");
        assert!(
            said.contains(&format!("meshd --config {} --check", file.display())),
            "{said}"
        );
        assert!(
            said.contains(&format!(
                "meshctl --socket {} token create",
                socket.display()
            )),
            "{said}"
        );
        let made = config::resolve(config::read_file(file.clone()).unwrap()).unwrap();
        assert_eq!(made.state_dir, dir.path().join("state"));
        let RoleConfig::Controller(made) = made.role else {
            panic!("a controller");
        };
        assert_eq!(made.advertise[0].to_string(), "mesh.example:7443");
        // The policy is the default one, written out.
        assert_eq!(made.segments[0].policy, policy::Policy::default());
        let policy = std::fs::read_to_string(dir.path().join("etc/policy.toml")).unwrap();
        assert!(
            policy.contains("# [[require]]") && policy.contains("traffic = \"allow\""),
            "{policy}"
        );

        // An example as it came is nobody's work.
        std::fs::write(&file, CONTROLLER).unwrap();
        std::fs::remove_file(dir.path().join("etc/policy.toml")).unwrap();
        run(&init).unwrap();

        std::fs::remove_file(&file).unwrap();
        let error = run(&init).unwrap_err().to_string();
        assert!(
            error.contains("policy.toml exists") && error.contains("--dir"),
            "{error}"
        );
        assert!(!file.exists(), "all files or none");
    }

    #[test]
    fn a_node_is_written_with_a_benchmark_and_its_token_is_the_next_step() {
        let dir = tempfile::tempdir().unwrap();
        let said = run(&Init::Node(node_args(dir.path()))).unwrap();
        let token = dir.path().join("etc/token");
        assert!(said.contains("token create --name node-a"), "{said}");
        assert!(
            said.contains(&format!("node-a.token {}", token.display())),
            "{said}"
        );
        let settings = config::read_file(dir.path().join("etc/node.toml")).unwrap();
        assert_eq!(settings.join, Some(format!("@{}", token.display())));
        assert_eq!(settings.emitter.as_deref(), Some("mock"));
        assert_eq!(settings.controller, Some(vec!["a.example:7443".to_owned()]));
        assert_eq!(settings.name.as_deref(), Some("node-a"));

        // With the token there, the next step is the start.
        std::fs::write(&token, "").unwrap();
        std::fs::remove_file(dir.path().join("etc/node.toml")).unwrap();
        let said = run(&Init::Node(node_args(dir.path()))).unwrap();
        assert!(
            !said.contains("token create") && said.contains("--check"),
            "{said}"
        );
    }

    #[test]
    fn paths_are_the_same_wherever_the_daemon_starts() {
        let relative = Places {
            dir: "conf".into(),
            state_dir: Some("state".into()),
            socket: None,
        };
        let here = std::env::current_dir().unwrap();
        let absolute = relative.absolute().unwrap();
        assert_eq!(absolute.dir, here.join("conf"));
        assert_eq!(absolute.state_dir, Some(here.join("state")));
    }

    #[test]
    fn a_path_in_a_command_is_one_word_of_the_shell() {
        for (path, word) in [
            ("/etc/meshd/node.toml", "/etc/meshd/node.toml"),
            ("/my mesh/a$b", "'/my mesh/a$b'"),
            ("/it's;x", r"'/it'\''s;x'"),
        ] {
            assert_eq!(quoted(Path::new(path)), word);
        }
        let dir = tempfile::tempdir().unwrap();
        let said = run(&Init::Node(node_args(&dir.path().join("my mesh")))).unwrap();
        let file = dir.path().join("my mesh/etc/node.toml");
        assert!(
            said.contains(&format!("meshd --config '{}' --check", file.display())),
            "{said}"
        );
    }

    #[test]
    fn a_setting_that_the_example_lacks_is_named() {
        let error = set("# x = 1", "y", toml::Value::Integer(1)).unwrap_err();
        assert!(error.to_string().contains("`y`"), "{error}");
        let both = set("# x = 1\n# x = 2", "x", toml::Value::Integer(3)).unwrap();
        assert_eq!(both, "x = 3\n# x = 2\n");
    }
}
