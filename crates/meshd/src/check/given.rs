//! The settings themselves. A fault is noted, its setting is forgotten, and the rest is looked at: so every fault is
//! found, each by the same code that a start has.

use super::Findings;
use crate::config::{self, Config, ConfigError};
use crate::settings::Settings;
use controller::{OpenError, StartError};
use serde::Deserialize as _;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The settings of all sources, as far as they are any. `None`: the file cannot be read at all.
pub(super) fn all(
    given: Settings,
    file: Option<PathBuf>,
    found: &mut Findings,
) -> Option<Settings> {
    let of_file = match file {
        None => Settings::default(),
        Some(path) => of_file(&path, found)?,
    };
    let mut settings = given.or(of_file);
    if settings.join.as_deref() == Some("-") {
        // It can be read once.
        let mut text = String::new();
        let limit = wire::token::MAX_TOKEN_LEN as u64 + 1;
        match std::io::stdin()
            .lock()
            .take(limit)
            .read_to_string(&mut text)
        {
            Ok(_) => settings.join = Some(text),
            Err(error) => {
                settings.join = None;
                found.error("join", format!("cannot read standard input: {error}"));
            }
        }
    }
    if let Some(text) = token_of_another(settings.join.as_deref(), found) {
        settings.join = Some(text);
    }
    Some(settings)
}

/// The token that root finds in a private file of another user's: a daemon that runs as that user may read it.
fn token_of_another(join: Option<&str>, found: &mut Findings) -> Option<String> {
    let path = Path::new(join?.strip_prefix('@')?);
    let meta = path.metadata().ok()?;
    let is_private = meta.is_file() && meta.mode() & 0o077 == 0;
    if machine::rights::user() != 0 || meta.uid() == 0 || !is_private {
        return None;
    }
    found.notes.push(format!(
        "`join`: {} belongs to user {}: that is right for a daemon which runs as that user; root's would refuse it",
        path.display(),
        meta.uid()
    ));
    let limit = wire::token::MAX_TOKEN_LEN as u64 + 1;
    let mut text = String::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(limit).read_to_string(&mut text).ok()?;
    Some(text)
}

fn of_file(path: &Path, found: &mut Findings) -> Option<Settings> {
    let text = match config::text_in(path, config::MAX_SETTINGS) {
        Ok(text) => text,
        Err(error) => {
            let (path, user) = (path.display(), machine::rights::user());
            found.errors.push(format!(
                "cannot read {path} as user {user}: {error}; --config names another file"
            ));
            return None;
        }
    };
    if let Ok(settings) = toml::from_str(&text) {
        return Some(settings);
    }
    let table: toml::Table = match text.parse() {
        Ok(table) => table,
        Err(error) => {
            found.errors.push(format!("{}: {error}", path.display()));
            return None;
        }
    };
    let mut settings = Settings::default();
    for (name, value) in table {
        if !Settings::names().any(|it| it == name) {
            let why = match nearest(&name) {
                Some(meant) => format!("is no setting of meshd: is `{meant}` meant?"),
                None => "is no setting of meshd: remove it".to_owned(),
            };
            found
                .errors
                .push(format!("`{name}` {why} ({})", path.display()));
            continue;
        }
        let shown = shown(&name, &value);
        let alone = toml::Table::from_iter([(name.clone(), value)]);
        match Settings::deserialize(alone) {
            Ok(one) => settings = settings.or(one),
            Err(error) => {
                let why = error.message().to_owned();
                found.error(&name, format!("{shown}: {why} ({})", path.display()));
            }
        }
    }
    Some(settings)
}

/// A value for an error, unless it may be a secret.
fn shown(name: &str, value: &toml::Value) -> String {
    match name {
        "join" | "segment" => "its value".to_owned(),
        _ => format!("{value}"),
    }
}

/// The setting whose name differs in the fewest letters, if those are few.
fn nearest(name: &str) -> Option<&'static str> {
    let all = Settings::names().map(|it| (distance(name, it), it));
    let (distance, nearest) = all.min()?;
    (distance <= 2 || distance * 4 <= name.len()).then_some(nearest)
}

/// Letters to be changed, put in or left out (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.chars().enumerate() {
        let mut before = row.first().copied().unwrap_or_default();
        let mut left = at + 1;
        let mut next = vec![left];
        for (there, above) in other.iter().zip(row.iter().skip(1)) {
            let changed = before + usize::from(letter != *there);
            left = changed.min(above + 1).min(left + 1);
            next.push(left);
            before = *above;
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

/// The configuration that the settings make without those that are at fault, and the settings that are left.
pub(super) fn resolved(mut settings: Settings, found: &mut Findings) -> Option<(Settings, Config)> {
    // Each round forgets a setting.
    for _ in 0..=Settings::names().count() {
        let error = match config::resolve(settings.clone()) {
            Ok(config) => return Some((settings, config)),
            Err(error) => error,
        };
        let name = name(&error, &settings);
        let said = error.to_string();
        found.errors.push(match name {
            Some(name) if !said.contains(&format!("`{name}")) => format!("`{name}`: {said}"),
            _ => said,
        });
        // Without a setting that another one needs, the other one is at fault.
        let forgotten = name.is_some_and(|name| {
            settings.clear(name)
                || OWNER
                    .iter()
                    .any(|(of, owner)| *of == name && settings.clear(owner))
        });
        if !forgotten {
            return None;
        }
    }
    None
}

/// The setting that an error is about.
fn name(error: &ConfigError, settings: &Settings) -> Option<&'static str> {
    let named = match error {
        ConfigError::Value { setting, .. } | ConfigError::Misplaced(setting) => *setting,
        ConfigError::Controller(OpenError::Advertise(_)) => "advertise",
        ConfigError::Controller(OpenError::Start(StartError::Network(error))) => {
            let text = error.to_string();
            let is_v6 = text.contains("IPv6") || text.split('/').next()?.contains(':');
            if is_v6 { "mesh_v6" } else { "mesh_v4" }
        }
        ConfigError::Controller(OpenError::Start(
            StartError::Segments(_) | StartError::Twice(_) | StartError::Overlap(..),
        )) => "segment",
        ConfigError::Controller(error) => {
            // The policy's own words: "`lease_seconds` is 5, but …".
            let text = error.to_string();
            let word = text.split('`').nth(1)?;
            let word = word.split('.').next()?;
            let word = if word == "evaluators" {
                "evaluator"
            } else {
                word
            };
            Settings::names().find(|it| *it == word)?
        }
        ConfigError::Read { .. } | ConfigError::Parse { .. } | ConfigError::NoRole => return None,
    };
    // A range or a policy may be a segment's.
    let named = if named.starts_with("segment.") {
        "segment"
    } else {
        named
    };
    let is_in_segment =
        settings.segment.is_some() && matches!(named, "mesh_v4" | "mesh_v6" | "policy_file");
    let is_beside = match named {
        "mesh_v4" => settings.mesh_v4.is_some(),
        "mesh_v6" => settings.mesh_v6.is_some(),
        _ => settings.policy_file.is_some(),
    };
    Some(if is_in_segment && !is_beside {
        "segment"
    } else {
        named
    })
}

/// Settings that another one needs, each with that one.
const OWNER: [(&str, &str); 4] = [
    ("benchmark_command", "emitter"),
    ("benchmark_file", "emitter"),
    ("benchmark_directory", "emitter"),
    ("mesh_v4", "advertise"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_is_told_from_a_word_that_is_nothing() {
        assert_eq!(nearest("treshold"), Some("threshold"));
        assert_eq!(nearest("epoch_second"), Some("epoch_seconds"));
        assert_eq!(nearest("colour"), None);
        assert_eq!((distance("abc", "abc"), distance("abc", "xbcd")), (0, 2));
    }
}
