//! The paths of the settings, held against each other and against this machine before anything is made, founded or
//! written: a start ends with the first fault, and `--check` says them all. A file that the daemon replaces as a whole must
//! be its own alone. Changes nothing.

use crate::config::{Config, RoleConfig};
use crate::settings::Settings;
use crate::state_dir;
use machine::{disk, rights};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf, absolute};

/// A path that cannot be used for its setting.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{setting}`: {why}")]
pub struct PathFault {
    /// The setting.
    pub setting: &'static str,
    /// The fault, and the way out.
    pub why: String,
}

/// The first fault of these paths.
///
/// # Errors
/// [`PathFault`], with the way out.
pub fn check(settings: &Settings, config: &Config, file: Option<&Path>) -> Result<(), PathFault> {
    faults(settings, config, file)
        .into_iter()
        .next()
        .map_or(Ok(()), Err)
}

/// All faults of these paths. `file` holds the settings.
pub fn faults(settings: &Settings, config: &Config, file: Option<&Path>) -> Vec<PathFault> {
    let mut faults = Vec::new();
    let written = written(config);
    let read = read(settings, file);
    for (at, (setting, path)) in written.iter().enumerate() {
        let others = written
            .iter()
            .skip(at + 1)
            .map(|(name, path)| (*name, *path));
        let others = others.chain(read.iter().map(|(name, path)| (*name, path.as_path())));
        for (other, _) in others.filter(|(_, other)| is_same(path, other)) {
            let shown = path.display();
            // The one that a person has set rather than the one that others stand in.
            let (setting, other) = match (*setting, other) {
                ("state_dir", SETTINGS | "policy_file" | "join") => ("state_dir", other),
                ("state_dir", other) => (other, "state_dir"),
                pair => pair,
            };
            let is = match other {
                SETTINGS => "the settings file".to_owned(),
                other => format!("`{other}` too"),
            };
            let why = format!("{shown} is {is}: choose a path of its own");
            faults.push(PathFault { setting, why });
        }
        if let Some(system) = disk::kernels_own(path) {
            let shown = path.display();
            let why = format!(
                "{shown} lies in {system}, where the kernel alone makes files: choose another path"
            );
            faults.push(PathFault { setting, why });
        }
        if *setting != "state_dir" && is_of_state(path, &config.state_dir) {
            let shown = path.display();
            let why = format!("{shown} is a file of this daemon's state: choose another path");
            faults.push(PathFault { setting, why });
        }
    }
    if let RoleConfig::Controller(role) = &config.role
        && !faults.iter().any(|it| it.setting == STATUS_FILE)
        && let Err(why) = replaced(&role.status_file, config)
    {
        let setting = STATUS_FILE;
        faults.push(PathFault { setting, why });
    }
    faults
}

/// The paths that the daemon makes, replaces or writes to.
fn written(config: &Config) -> Vec<(&'static str, &Path)> {
    let mut all = vec![
        ("state_dir", config.state_dir.as_path()),
        ("socket", config.socket.as_path()),
    ];
    match &config.role {
        RoleConfig::Controller(role) => all.push((STATUS_FILE, &role.status_file)),
        RoleConfig::Node(role) => {
            let hosts = role.names.hosts_file.as_deref();
            all.extend(hosts.map(|path| ("hosts_file", path)));
        }
    }
    all
}

/// The paths that the daemon only reads.
fn read(settings: &Settings, file: Option<&Path>) -> Vec<(&'static str, PathBuf)> {
    let own = |path: &Option<PathBuf>| path.clone();
    let segments = settings.segment.iter().flatten();
    let token = settings.join.as_deref().and_then(|it| it.strip_prefix('@'));
    let named = [
        (SETTINGS, file.map(Path::to_owned)),
        ("policy_file", own(&settings.policy_file)),
        ("page_token_file", own(&settings.page_token_file)),
        ("join", token.map(PathBuf::from)),
        ("benchmark_file", own(&settings.benchmark_file)),
        ("benchmark_directory", own(&settings.benchmark_directory)),
    ];
    let of_segments = segments.map(|it| ("policy_file", own(&it.policy_file)));
    let all = named.into_iter().chain(of_segments);
    all.filter_map(|(name, path)| Some((name, path?))).collect()
}

/// Whether a file can be replaced as a whole there, and is nobody's.
fn replaced(path: &Path, config: &Config) -> Result<(), String> {
    let shown = path.display();
    let is_name = !path.to_string_lossy().ends_with('/');
    if path.file_name().is_none() || !is_name {
        return Err(format!("{shown} is no path of a file: add the file's name"));
    }
    match path.symlink_metadata() {
        Ok(meta) if !meta.is_file() => {
            let kind = crate::private::name_of(meta.file_type());
            return Err(format!(
                "{shown} is a {kind}, and would be replaced: name a file that is this daemon's alone"
            ));
        }
        Ok(_) if !is_status(path) => {
            return Err(format!(
                "{shown} holds something else than a status, and would be replaced: move it away, or choose another path"
            ));
        }
        Ok(_) | Err(_) => {}
    }
    let parent = disk::folder_of(path);
    // They are made before this file.
    let is_made = |it: &Path| is_same(parent, it);
    if is_made(&config.state_dir) || is_made(disk::folder_of(&config.socket)) && !parent.exists() {
        return Ok(());
    }
    if !parent.is_dir() {
        let shown = parent.display();
        return Err(format!(
            "{shown} is no folder: create it, and make it writable for the daemon"
        ));
    }
    if !rights::may_write(parent) {
        return Err(format!(
            "user {} may not write to {}: make it that user's; under the shipped unit, add the folder to \
             ReadWritePaths= (`systemctl edit meshd-controller`) too",
            rights::user(),
            parent.display()
        ));
    }
    Ok(())
}

/// Whether a regular file holds a status, by the members that one begins with, or nothing. One that cannot be read is
/// somebody else's.
fn is_status(path: &Path) -> bool {
    let mut begin = Vec::new();
    let read = File::open(path).and_then(|file| file.take(BEGIN).read_to_end(&mut begin));
    let text = String::from_utf8_lossy(&begin);
    let has = |member| text.contains(member);
    let is_ours = text.starts_with('{') && has("\"schema\"") && has("\"mesh\"");
    read.is_ok() && (begin.is_empty() || is_ours)
}

/// Bytes of a status that hold its first members.
const BEGIN: u64 = 4_096;

/// Whether a path is that of a file which the daemon keeps in its state directory.
fn is_of_state(path: &Path, state_dir: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    state_dir::is_own(&name) && is_same(disk::folder_of(path), state_dir)
}

/// Whether two paths are of the same file, or would be: links in folders are followed, and so is a link at the end.
fn is_same(one: &Path, other: &Path) -> bool {
    let whole = |path: &Path| resolved(&absolute(path).unwrap_or_else(|_| path.to_owned()));
    let entry = |path: &Path| {
        let name = path.file_name();
        name.map(|name| whole(disk::folder_of(path)).join(name))
    };
    whole(one) == whole(other) || entry(one).is_some_and(|it| Some(it) == entry(other))
}

/// The path without links and without `..`, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let mut missing = Vec::new();
    let mut there = path;
    loop {
        if let Ok(found) = there.canonicalize() {
            return found.join(missing.iter().rev().collect::<PathBuf>());
        }
        let (Some(parent), Some(name)) = (there.parent(), there.file_name()) else {
            return path.to_owned();
        };
        missing.push(name);
        there = parent;
    }
}

const STATUS_FILE: &str = "status_file";
const SETTINGS: &str = "config";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    /// The faults of a file with these lines, in `folder`.
    fn said(folder: &Path, text: &str) -> String {
        let text = text.replace("DIR", folder.to_str().unwrap());
        let settings: Settings = toml::from_str(&text).unwrap();
        let config = config::resolve(settings.clone()).unwrap();
        let file = folder.join("controller.toml");
        let faults = faults(&settings, &config, Some(&file));
        let first = check(&settings, &config, Some(&file)).err();
        assert_eq!(first.as_ref(), faults.first(), "a start says the first");
        let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    #[test]
    fn a_status_file_replaces_nothing_that_is_not_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        for name in ["controller.toml", "policy.toml", "page.token"] {
            std::fs::write(at.join(name), "").unwrap();
        }
        std::fs::write(at.join("page.token"), "0123456789abcdef0123456789abcdef").unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(at.join("page.token"), private).unwrap();
        crate::private::tests::make_fifo(&at.join("fifo"));
        std::os::unix::fs::symlink(at.join("policy.toml"), at.join("link")).unwrap();
        std::os::unix::fs::symlink(at, at.join("here")).unwrap();
        std::fs::create_dir(at.join("folder")).unwrap();
        let places = "role = 'controller'\nstate_dir = 'DIR/state'\nsocket = 'DIR/a.sock'\n\
                      policy_file = 'DIR/policy.toml'\npage_token_file = 'DIR/page.token'\n";
        let of = |status: &str| said(at, &format!("{places}status_file = '{status}'"));
        for (status, word) in [
            ("/dev/null", "is a device"),
            ("/dev/full", "is a device"),
            ("DIR/fifo", "is a FIFO"),
            ("DIR/folder", "is a directory"),
            ("DIR/link", "`policy_file` too"),
            ("DIR/controller.toml", "is the settings file"),
            ("DIR/folder/../controller.toml", "is the settings file"),
            ("DIR/here/controller.toml", "is the settings file"),
            ("DIR/policy.toml", "`policy_file` too"),
            ("DIR/page.token", "`page_token_file` too"),
            ("DIR/a.sock", "too"),
            ("DIR/state", "`state_dir` too"),
            ("DIR/state/log.key", "of this daemon's state"),
            ("DIR/here/state/controller.db", "of this daemon's state"),
            ("DIR/state/controller.db-wal", "of this daemon's state"),
            ("DIR/state/places", "of this daemon's state"),
            ("DIR/state/lock", "of this daemon's state"),
            ("DIR/none/status.json", "is no folder"),
            ("/etc/passwd", "something else than a status"),
            ("/", "no path of a file"),
            ("DIR/new/", "no path of a file"),
            ("/proc/status.json", "the kernel alone"),
            ("/sys/status.json", "the kernel alone"),
        ] {
            let said = of(status);
            assert!(said.contains(word), "{status}: {said:?}");
        }
        std::fs::write(at.join("other.json"), "{\"log-driver\": \"journald\"}").unwrap();
        assert!(of("DIR/other.json").contains("something else than a status"));
        let begin = "{\"schema\":1,\"version\":\"0.1.0\",\"mesh\":\"mesh:00\"";
        std::fs::write(at.join("status.json"), begin).unwrap();
        std::fs::write(at.join("empty.json"), "").unwrap();
        for status in [
            "DIR/status.json",
            "DIR/empty.json",
            "DIR/new.json",
            "DIR/state/status.json",
            "rel.json",
        ] {
            assert_eq!(of(status), "", "{status}");
        }
    }

    #[test]
    fn no_path_serves_two_settings() {
        let folder = tempfile::tempdir().unwrap();
        let of = |role: &str, text: &str| said(folder.path(), &format!("role = '{role}'\n{text}"));
        for (role, text, setting) in [
            ("node", "state_dir = 'DIR/x'\nsocket = 'DIR/x'", "`socket`"),
            (
                "controller",
                "state_dir = 'DIR/x'\nsocket = 'DIR/./x'",
                "`socket`",
            ),
            (
                "node",
                "state_dir = 'DIR'\nsocket = 'DIR/identity.key'",
                "`socket`",
            ),
            (
                "node",
                "state_dir = 'DIR/x'\nsocket = 'DIR/controller.toml'",
                "`socket`",
            ),
            (
                "node",
                "state_dir = 'DIR/x'\nsocket = 'DIR/s'\nhosts_file = 'DIR/controller.toml'",
                "`hosts_file`",
            ),
            (
                "node",
                "state_dir = 'DIR/x'\nsocket = '/proc/s.sock'",
                "`socket`",
            ),
            (
                "node",
                "state_dir = '/sys/x'\nsocket = 'DIR/s'",
                "`state_dir`",
            ),
        ] {
            let said = of(role, text);
            assert!(said.starts_with(setting), "{text}: {said:?}");
        }
        assert_eq!(of("node", "state_dir = 'DIR/x'\nsocket = 'DIR/x/s'"), "");
        assert_eq!(of("node", "hosts_file = '/etc/hosts'"), "");
    }
}
