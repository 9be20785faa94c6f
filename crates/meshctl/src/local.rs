//! The daemon behind a socket as this machine shows it: its process, and its settings from where it took them. Refuses to
//! show a secret: a setting that may hold one is told without its value ([`shown`]), and so is every name that is no setting.

mod shown;

pub(crate) use shown::without_passwords;
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;
use toml::{Table, Value};

/// A daemon's role, as far as it can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A controller.
    Controller,
    /// A node.
    Node,
}

impl Role {
    /// By the name of its socket, where no daemon says it.
    pub(crate) fn of_socket(socket: &Path) -> Self {
        let name = socket.file_name().unwrap_or_default().to_string_lossy();
        if name.contains("controller") {
            Self::Controller
        } else {
            Self::Node
        }
    }

    /// As settings and paths have it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Node => "node",
        }
    }

    /// The name of its unit.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Controller => "meshd-controller",
            Self::Node => "meshd-node",
        }
    }
}

/// The traces of a daemon on this machine.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) role: Role,
    /// Its process; `None`: none answers.
    pub(crate) pid: Option<i32>,
    /// Its settings file; `None`: it has none, or its place is not known.
    pub(crate) file: Option<PathBuf>,
    /// The settings of all sources. They may hold secrets.
    settings: Table,
    /// Variables that look like settings, and are none.
    others: Vec<String>,
    /// Texts of its environment that may be secret.
    of_environment: Vec<String>,
    base: Base,
    /// Sources that could not be read, with the reason.
    pub(crate) unread: Vec<String>,
}

/// The place from which a process sees its files.
#[derive(Debug, Default)]
struct Base {
    /// Its working directory, where relative paths begin.
    cwd: Option<PathBuf>,
    /// The way to its root, where it has other file systems than this meshctl.
    root: Option<PathBuf>,
}

/// A path as a daemon means it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// As the daemon would say it.
    pub(crate) shown: PathBuf,
    /// As it is found from here.
    pub(crate) read: PathBuf,
}

impl Base {
    fn of(pid: i32) -> Self {
        let link = |path: String| std::fs::read_link(path).ok();
        let theirs = link(format!("/proc/{pid}/ns/mnt"));
        let is_elsewhere = theirs.is_some() && theirs != link("/proc/self/ns/mnt".to_owned());
        Self {
            cwd: link(format!("/proc/{pid}/cwd")),
            root: is_elsewhere.then(|| PathBuf::from(format!("/proc/{pid}/root"))),
        }
    }

    fn place(&self, path: &Path) -> Option<Place> {
        let shown = match (path.is_absolute(), &self.cwd) {
            (true, _) => path.to_owned(),
            (false, cwd) => cwd.as_ref()?.join(path),
        };
        let read = match &self.root {
            Some(root) => root.join(shown.strip_prefix("/").unwrap_or(&shown)),
            None => shown.clone(),
        };
        Some(Place { shown, read })
    }
}

impl Local {
    /// Looks for the daemon behind `socket`.
    pub(crate) async fn find(socket: &Path, role: Role) -> Self {
        Self::of(pid(socket).await, role)
    }

    fn of(pid: Option<i32>, role: Role) -> Self {
        let mut local = Self {
            role,
            pid,
            file: None,
            settings: Table::new(),
            others: Vec::new(),
            of_environment: Vec::new(),
            base: pid.map(Base::of).unwrap_or_default(),
            unread: Vec::new(),
        };
        let mut of_process = Table::new();
        if let Some(pid) = pid {
            let mut read = |file: &str| {
                let path = format!("/proc/{pid}/{file}");
                let bytes = std::fs::read(&path);
                bytes
                    .map(|it| words(&it))
                    .map_err(|error| local.unread.push(format!("{path}: {error}")))
                    .unwrap_or_default()
            };
            // The command line goes before the environment.
            let (environment, line) = (read("environ"), read("cmdline"));
            local.of_environment = secret_variables(&environment);
            let (of_environment, others) = variables(&environment);
            local.others = others;
            of_process.extend(of_environment);
            of_process.extend(flags(&line));
        }
        let given = of_process.remove("config");
        let usual = format!("/etc/meshd/{}.toml", role.word());
        let file = match given.as_ref().and_then(Value::as_str) {
            Some(given) => Some(given),
            // A daemon reads no file that it was not given; without one, the usual file is what it would be given.
            None => local.pid.is_none().then_some(usual.as_str()),
        };
        if let Some(file) = file {
            local.read_file(Path::new(file));
        }
        local.settings.extend(of_process);
        local
    }

    fn read_file(&mut self, file: &Path) {
        let Some(place) = self.base.place(file) else {
            let why = "is relative to a working directory that is not shown";
            self.unread.push(format!("{} {why}", file.display()));
            return;
        };
        let shown = place.shown.display();
        match std::fs::read_to_string(&place.read) {
            Ok(text) => match text.parse::<Table>() {
                Ok(table) => self.settings = table,
                // The text around a fault may be a secret.
                Err(_) => self.unread.push(format!("{shown}: it is no TOML")),
            },
            Err(error) => self.unread.push(format!("{shown}: {error}")),
        }
        self.file = Some(place.shown);
    }

    /// Why the settings are not known; `None`: all of their sources were read.
    pub(crate) fn unknown(&self) -> Option<String> {
        let why = self.unread.join("; ");
        (!why.is_empty()).then(|| format!("the settings were not read ({why})"))
    }

    /// A setting that is one text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.settings.get(name).and_then(Value::as_str)
    }

    /// A setting that is a list, or one text with commas.
    pub(crate) fn list(&self, name: &str) -> Vec<&str> {
        let texts: Vec<&str> = match self.settings.get(name) {
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(one)) => vec![one],
            _ => Vec::new(),
        };
        let entries = texts.into_iter().flat_map(|text| text.split(','));
        entries.map(str::trim).filter(|it| !it.is_empty()).collect()
    }

    /// Where it keeps its state; or why that is not known.
    pub(crate) fn state_dir(&self) -> Result<Place, String> {
        let usual = format!("/var/lib/meshd/{}", self.role.word());
        let given = self.text("state_dir");
        // A source that was not read may name another folder, whichever this one names.
        if let Some(why) = self.unknown() {
            return Err(why);
        }
        let path = given.unwrap_or(&usual);
        self.base
            .place(Path::new(path))
            .ok_or_else(|| format!("{path} is relative to a working directory that is not known"))
    }

    /// The values that are secret, or may be.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let mut all = shown::secrets(&self.settings);
        all.extend(self.of_environment.iter().cloned());
        all.retain(|it| it.len() >= SHORTEST_SECRET);
        // A secret may be the beginning of a longer one.
        all.sort_by_key(|it| std::cmp::Reverse(it.len()));
        all
    }

    /// The settings as a file, without secrets.
    pub(crate) fn shown(&self) -> String {
        let mut text = toml::to_string(&shown::table(&self.settings)).unwrap_or_default();
        if !self.others.is_empty() {
            let names = self.others.join(", ");
            text.push_str(&format!(
                "# Variables that are no settings of meshd, without their values: {names}\n"
            ));
        }
        text
    }
}

#[cfg(test)]
impl Local {
    /// A node without a process, with settings that were read.
    pub(crate) fn of_settings(settings: &str) -> Self {
        Self {
            settings: settings.parse().unwrap(),
            unread: Vec::new(),
            ..Self::of(None, Role::Node)
        }
    }
}

/// The process that listens on a socket.
async fn pid(socket: &Path) -> Option<i32> {
    let stream = UnixStream::connect(socket).await.ok()?;
    stream.peer_cred().ok()?.pid()
}

/// Texts that each end with a zero.
fn words(bytes: &[u8]) -> Vec<String> {
    let texts = bytes.split(|byte| *byte == 0).filter(|it| !it.is_empty());
    texts
        .map(|it| String::from_utf8_lossy(it).into_owned())
        .collect()
}

/// The settings among variables, and the names of those that only look like one.
fn variables(all: &[String]) -> (Table, Vec<String>) {
    let (mut settings, mut others) = (Table::new(), Vec::new());
    for variable in all {
        let Some((name, value)) = variable.split_once('=') else {
            continue;
        };
        let Some(of_meshd) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let setting = of_meshd.to_lowercase();
        let is_exact = setting.to_uppercase() == of_meshd;
        if is_exact && (setting == "config" || shown::is_setting(&setting)) {
            settings.insert(setting, Value::String(value.to_owned()));
        } else {
            others.push(wire::visible::line(name).into_owned());
        }
    }
    (settings, others)
}

/// The values of variables that are no settings and may be secret: those for meshd, and those whose name says so.
fn secret_variables(all: &[String]) -> Vec<String> {
    let pairs = all.iter().filter_map(|it| it.split_once('='));
    let secret = pairs.filter(|(name, _)| match name.strip_prefix(PREFIX) {
        Some(of_meshd) => {
            let setting = of_meshd.to_lowercase();
            setting != "config" && !shown::is_setting(&setting)
        }
        None => SECRETS.iter().any(|it| name.to_lowercase().contains(it)),
    });
    secret.map(|(_, value)| value.to_owned()).collect()
}

fn flags(all: &[String]) -> Table {
    let mut found = Table::new();
    let mut words = all.iter().skip(1).peekable();
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix("--") else {
            continue;
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => {
                let value = words.next_if(|it| !it.starts_with("--"));
                (flag, value.cloned().unwrap_or_default())
            }
        };
        let name = name.replace('-', "_");
        // A flag that is repeated is a list.
        let value = match found.remove(&name) {
            None => Value::String(value),
            Some(Value::Array(mut before)) => {
                before.push(Value::String(value));
                Value::Array(before)
            }
            Some(before) => Value::Array(vec![before, Value::String(value)]),
        };
        found.insert(name, value);
    }
    found
}

/// Stands for a secret.
pub(crate) const HIDDEN: &str = "(hidden)";
/// The beginning of the variables that are settings.
const PREFIX: &str = "MESHD_";
/// A shorter one is no secret, and stands by chance in many texts.
const SHORTEST_SECRET: usize = 8;
/// Parts of the names of variables that may hold a secret.
const SECRETS: [&str; 6] = ["token", "secret", "passw", "key", "credential", "auth"];

#[cfg(test)]
mod tests {
    use super::*;

    fn local(settings: Table) -> Local {
        let local = Local::of(None, Role::Node);
        Local {
            settings,
            unread: Vec::new(),
            ..local
        }
    }

    #[test]
    fn settings_are_shown_without_secrets() {
        let text = "join = 'meshd1.SECRET'\npage_token = 'SECRET'\npage_token_file = '/etc/meshd/t'\nname = 'node-a'\n\
                    benchmark_command = ['/bin/bench', '--password', 'SECRET']";
        let shown = local(text.parse().unwrap()).shown();
        assert!(!shown.contains("SECRET"), "{shown}");
        for kept in ["/bin/bench (2 arguments", "node-a", "/etc/meshd/t"] {
            assert!(shown.contains(kept), "{shown}");
        }
        let by_file = local("join = '@/etc/meshd/token'".parse().unwrap()).shown();
        assert!(by_file.contains("@/etc/meshd/token"), "{by_file}");
    }

    #[test]
    fn settings_are_read_from_flags_and_variables() {
        let line = b"meshd\0--role\0node\0--listen-port=7\0--advertise\0a:1\0--advertise\0b:2,c:3\0--accept-routes\0";
        let with_flags = local(flags(&words(line)));
        assert_eq!(
            (with_flags.text("role"), with_flags.text("listen_port")),
            (Some("node"), Some("7"))
        );
        assert_eq!(with_flags.list("advertise"), ["a:1", "b:2", "c:3"]);
        let (of, others) = variables(&words(b"PATH=/bin\0MESHD_STATE_DIR=/s\0"));
        assert_eq!((of.len(), others.len()), (1, 0));
        assert_eq!(local(of).state_dir().unwrap().shown, Path::new("/s"));
    }

    #[test]
    fn a_variable_that_is_no_setting_is_named_and_its_value_is_hidden() {
        let environment = words(
            b"MESHD_BENCH_API_KEY=sk-live-0123\0MESHD_NAME=node-a\0HF_TOKEN=hf_012345\0MESHD_name=x\0PATH=/bin:/sbin\0",
        );
        let (settings, others) = variables(&environment);
        assert_eq!(settings.keys().collect::<Vec<_>>(), ["name"]);
        assert_eq!(others, ["MESHD_BENCH_API_KEY", "MESHD_name"]);
        let mut local = local(settings);
        local.others = others;
        local.of_environment = secret_variables(&environment);
        let shown = local.shown();
        assert!(
            !shown.contains("sk-live") && shown.contains("MESHD_BENCH_API_KEY"),
            "{shown}"
        );
        assert_eq!(local.secrets(), ["sk-live-0123", "hf_012345"]);
    }

    #[test]
    fn relative_paths_begin_where_the_daemon_runs() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().canonicalize().unwrap();
        std::fs::write(
            folder.join("n.toml"),
            "state_dir = 'state'\nname = 'node-q'",
        )
        .unwrap();
        let mut sleeping = std::process::Command::new("sleep");
        sleeping
            .arg("60")
            .env_clear()
            .env("MESHD_CONFIG", "n.toml")
            .current_dir(&folder);
        let mut child = sleeping.spawn().unwrap();
        // The environment is the child's own once it runs the program.
        let pid = i32::try_from(child.id()).unwrap();
        let local = Local::of(Some(pid), Role::Node);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(local.unread, [] as [&str; 0]);
        assert_eq!(local.file, Some(folder.join("n.toml")));
        assert_eq!(local.text("name"), Some("node-q"));
        assert_eq!(local.state_dir().unwrap().shown, folder.join("state"));
    }

    #[test]
    fn without_its_settings_nobody_knows_a_daemons_folder() {
        let gone = Local::of(Some(i32::MAX), Role::Node);
        assert!(gone.unknown().is_some());
        let why = gone.state_dir().unwrap_err();
        assert!(
            why.contains("were not read") && why.contains("environ"),
            "{why}"
        );
        let relative = local("state_dir = 'state'".parse().unwrap());
        assert!(relative.state_dir().unwrap_err().contains("relative"));
        let elsewhere = Base {
            cwd: Some(PathBuf::from("/app")),
            root: Some(PathBuf::from("/proc/7/root")),
        };
        let place = elsewhere.place(Path::new("state")).unwrap();
        assert_eq!(place.read, Path::new("/proc/7/root/app/state"));
        assert_eq!(place.shown, Path::new("/app/state"));
    }
}
