//! The daemon behind a socket as this machine shows it: its process, and its settings from where it took them. Refuses to
//! show a secret: a setting that may hold one is told without its value.

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
    /// Its settings file.
    pub(crate) file: PathBuf,
    /// The settings of all sources. They may hold secrets.
    settings: Table,
    /// Sources that could not be read, with the reason.
    pub(crate) unread: Vec<String>,
}

impl Local {
    /// Looks for the daemon behind `socket`.
    pub(crate) async fn find(socket: &Path, role: Role) -> Self {
        let pid = pid(socket).await;
        let mut unread = Vec::new();
        let mut of_process = Table::new();
        if let Some(pid) = pid {
            // The command line goes before the environment.
            for (file, read) in [("environ", variables as Parse), ("cmdline", flags)] {
                let path = format!("/proc/{pid}/{file}");
                match std::fs::read(&path) {
                    Ok(bytes) => of_process.extend(read(&words(&bytes))),
                    Err(error) => unread.push(format!("{path}: {error}")),
                }
            }
        }
        let given = of_process.get("config").and_then(Value::as_str);
        let usual = format!("/etc/meshd/{}.toml", role.word());
        let file = PathBuf::from(given.unwrap_or(&usual));
        let mut settings = Table::new();
        match std::fs::read_to_string(&file) {
            Ok(text) => match text.parse::<Table>() {
                Ok(table) => settings = table,
                // The text around a fault may be a secret.
                Err(_) => unread.push(format!("{}: it is no TOML", file.display())),
            },
            Err(error) => unread.push(format!("{}: {error}", file.display())),
        }
        of_process.remove("config");
        settings.extend(of_process);
        Self {
            role,
            pid,
            file,
            settings,
            unread,
        }
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

    /// Where it keeps its state.
    pub(crate) fn state_dir(&self) -> PathBuf {
        let usual = format!("/var/lib/meshd/{}", self.role.word());
        PathBuf::from(self.text("state_dir").unwrap_or(&usual))
    }

    /// The values that are secret, or may be.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let secret = self.settings.iter().filter_map(|(name, value)| {
            let is_command = name.ends_with("_command");
            let value = value.as_str().filter(|it| it.len() >= SHORTEST_SECRET)?;
            (!is_command && hidden(name, &Value::String(value.to_owned())).is_some())
                .then(|| value.to_owned())
        });
        secret.collect()
    }

    /// The settings as a file, without secrets.
    pub(crate) fn shown(&self) -> String {
        let settings = self.settings.iter().map(|(name, value)| {
            let value = match hidden(name, value) {
                Some(words) => Value::String(words),
                None => value.clone(),
            };
            (name.clone(), value)
        });
        toml::to_string(&settings.collect::<Table>()).unwrap_or_default()
    }
}

type Parse = fn(&[String]) -> Table;

/// The words that stand for a value which is, or may hold, a secret.
fn hidden(name: &str, value: &Value) -> Option<String> {
    let is_reference = |text: &str| text.starts_with('@') || text == "-";
    let is_secret = name == "join" || SECRETS.iter().any(|word| name.contains(word));
    match value {
        // The arguments of a program may be anything.
        Value::Array(all) if name.ends_with("_command") => {
            let program = all.first().and_then(Value::as_str).unwrap_or_default();
            Some(format!(
                "{program} ({} more arguments, hidden)",
                all.len().saturating_sub(1)
            ))
        }
        Value::String(program) if name.ends_with("_command") => {
            let program = program.split_whitespace().next().unwrap_or_default();
            Some(format!("{program} (hidden behind it)"))
        }
        Value::String(text) if is_secret && (is_reference(text) || name.ends_with("_file")) => None,
        _ if is_secret => Some("(hidden)".to_owned()),
        _ => None,
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

fn variables(all: &[String]) -> Table {
    let settings = all.iter().filter_map(|it| {
        let (name, value) = it.strip_prefix("MESHD_")?.split_once('=')?;
        Some((name.to_lowercase(), Value::String(value.to_owned())))
    });
    settings.collect()
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

/// A shorter one is no secret, and stands by chance in many texts.
const SHORTEST_SECRET: usize = 8;
/// Parts of the names of settings that may hold a secret.
const SECRETS: [&str; 3] = ["token", "secret", "password"];

#[cfg(test)]
mod tests {
    use super::*;

    fn local(settings: Table) -> Local {
        Local {
            role: Role::Node,
            pid: None,
            file: PathBuf::new(),
            settings,
            unread: Vec::new(),
        }
    }

    #[test]
    fn settings_are_shown_without_secrets() {
        let text = "join = 'meshd1.SECRET'\npage_token = 'SECRET'\npage_token_file = '/etc/meshd/t'\nname = 'node-a'\n\
                    benchmark_command = ['/bin/bench', '--password', 'SECRET']";
        let shown = local(text.parse().unwrap()).shown();
        assert!(!shown.contains("SECRET"), "{shown}");
        for kept in ["/bin/bench (2 more", "node-a", "/etc/meshd/t"] {
            assert!(shown.contains(kept), "{shown}");
        }
        let by_file = local("join = '@/etc/meshd/token'".parse().unwrap()).shown();
        assert!(by_file.contains("@/etc/meshd/token"), "{by_file}");
    }

    #[test]
    fn settings_are_read_from_flags_and_variables() {
        let line = b"meshd\0--role\0node\0--listen-port=7\0--advertise\0a:1\0--advertise\0b:2,c:3\0--accept-routes\0";
        let local = local(flags(&words(line)));
        assert_eq!(
            (local.text("role"), local.text("listen_port")),
            (Some("node"), Some("7"))
        );
        assert_eq!(local.list("advertise"), ["a:1", "b:2", "c:3"]);
        let of = variables(&words(b"PATH=/bin\0MESHD_STATE_DIR=/s\0"));
        assert_eq!(of.len(), 1);
        assert_eq!(super::tests::local(of).state_dir(), Path::new("/s"));
    }
}
