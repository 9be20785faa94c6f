//! The commented examples under `docs/config`, held against the daemon's own parser: as they are,
//! with every comment taken away from a setting, and against the list of settings with their
//! defaults. Refuses an example that has drifted from the code.

use clap::{Args as _, Command};
use meshd::config::{self, RoleConfig};
use meshd::settings::{Role, Settings};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const ROLES: [(Role, &str); 2] = [(Role::Controller, "controller"), (Role::Node, "node")];

fn path(role: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/config/{role}.toml"))
}

fn text(role: &str) -> String {
    std::fs::read_to_string(path(role)).expect("each role has an example")
}

/// The name in a line such as `name = value` or `# name = value`.
fn name(line: &str) -> Option<&str> {
    let line = line.strip_prefix("# ").unwrap_or(line);
    let (name, _) = line.split_once(" = ")?;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    (!name.is_empty() && name.bytes().all(plain)).then_some(name)
}

/// The example with every setting in force.
fn uncommented(role: &str) -> String {
    let line = |line: &str| {
        let bare = line.strip_prefix("# ").filter(|_| name(line).is_some());
        bare.unwrap_or(line).to_owned()
    };
    text(role).lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Each setting of the example with the comment that stands before it.
fn settings(role: &str) -> BTreeMap<String, String> {
    let (mut found, mut comment) = (BTreeMap::new(), String::new());
    for line in text(role).lines() {
        match name(line) {
            Some(name) => {
                let before = found.insert(name.to_owned(), std::mem::take(&mut comment));
                assert!(before.is_none(), "{role}.toml has {name} twice");
            }
            None if line.starts_with('#') => {
                comment.push_str(line);
                comment.push('\n');
            }
            None => comment.clear(),
        }
    }
    found
}

/// The daemon's help for each setting.
fn declared() -> BTreeMap<String, String> {
    let command = Settings::augment_args(Command::new("meshd"));
    let arguments = command.get_arguments();
    arguments
        .map(|argument| {
            let help = argument.get_help().map(ToString::to_string);
            (argument.get_id().to_string(), help.unwrap_or_default())
        })
        .collect()
}

#[test]
fn the_examples_are_configurations_as_they_are() {
    for (role, file) in ROLES {
        let settings = config::read_file(path(file)).unwrap();
        assert_eq!(settings.role, Some(role), "{file}");
        let made = config::resolve(settings).unwrap();
        let right = match made.role {
            RoleConfig::Controller(_) => role == Role::Controller,
            RoleConfig::Node(_) => role == Role::Node,
        };
        assert!(right, "{file}");
    }
}

#[test]
fn the_examples_are_configurations_with_every_setting_in_force() {
    for (_, file) in ROLES {
        let mut settings: Settings = toml::from_str(&uncommented(file)).unwrap();
        // The token's file is not there, and must not be.
        settings.join = None;
        // It takes the place of the settings of the policy, which are all in force here.
        settings.policy_file = None;
        if let Err(error) = config::resolve(settings) {
            panic!("{file}.toml: {error}");
        }
    }
}

#[test]
fn no_setting_is_missing_and_none_is_too_many() {
    let declared: BTreeSet<String> = declared().into_keys().collect();
    let shown: BTreeSet<String> = ROLES
        .iter()
        .flat_map(|(_, file)| settings(file).into_keys())
        .collect();
    assert_eq!(shown, declared);
    for (role, file) in ROLES {
        let other = ROLES.iter().find(|(it, _)| *it != role).unwrap();
        for line in uncommented(other.1).lines() {
            let Some(name) = name(line) else { continue };
            let alone: Settings = toml::from_str(line).unwrap();
            if alone.misplaced(role).is_none() {
                let both = settings(file).contains_key(name);
                assert!(both, "{name} is of both roles, and not in {file}.toml");
            }
        }
    }
}

#[test]
fn the_examples_tell_the_defaults_that_the_help_tells() {
    let declared = declared();
    for (_, file) in ROLES {
        for (name, comment) in settings(file) {
            let help = &declared[&name];
            let default = help
                .split_once("[default: ")
                .and_then(|(_, rest)| rest.strip_suffix(']'));
            let Some(default) = default else { continue };
            let expected = format!("# Default: {}\n", default.replace("ROLE", file));
            assert!(
                comment.ends_with(&expected),
                "{file}.toml, {name}: {expected}"
            );
        }
    }
}
