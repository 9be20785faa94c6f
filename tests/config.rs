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
        // Nor is the file with the token of the page.
        settings.page_token_file = None;
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

/// The example of segments in the controller's file, which is indented because it may not stand beside the policy's
/// settings. Its policy's file is another one.
fn segments() -> String {
    let text = text("controller");
    let lines = text.lines().filter_map(|line| line.strip_prefix("#   "));
    let lines = lines.collect::<Vec<_>>().join("\n");
    let policy = path("policy");
    lines.replace("/etc/meshd/training.toml", policy.to_str().expect("a path"))
}

/// The segments of a controller's file, read and checked as `meshd --check` does.
fn read_segments(of: &str) -> Result<Vec<String>, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, state) = (folder.path().join("c.toml"), folder.path().join("state"));
    let head = format!("role = 'controller'\nstate_dir = '{}'\n", state.display());
    std::fs::write(&file, format!("{head}{of}")).expect("it is written");
    let settings = config::read_file(file).map_err(|error| error.to_string())?;
    let made = config::resolve(settings).map_err(|error| error.to_string())?;
    let RoleConfig::Controller(made) = made.role else {
        panic!("it is a controller's");
    };
    Ok(made.segments.iter().map(|it| it.name.to_string()).collect())
}

#[test]
fn the_example_of_segments_is_one() {
    assert_eq!(
        read_segments(&segments()).unwrap(),
        ["training", "inference"]
    );
    // Every field is in it.
    for field in ["name", "policy_file", "mesh_v4", "mesh_v6"] {
        assert!(segments().contains(&format!("\n{field} = ")), "{field}");
    }
}

#[test]
fn a_bad_field_of_a_segment_is_refused_by_its_name() {
    let good = segments();
    let training = "name = \"training\"";
    let range = "mesh_v4 = \"10.76.0.0/16\"";
    let v6 = "mesh_v6 = \"fd77:6d65:7368:1::/64\"";
    for (from, to, causes) in [
        (
            training,
            "name = 'Training'",
            &["segment.name", "`Training`", "a-z"][..],
        ),
        (training, "name = 'inference'", &["inference", "twice"]),
        (training, "", &["name"]),
        (training, "name = 'training'\nnumber = 1", &["number"]),
        (
            range,
            "mesh_v4 = '10.77.0.0/17'",
            &["training", "inference", "overlap"],
        ),
        (
            range,
            "mesh_v4 = 'fd00::/64'",
            &["segment.mesh_v4", "not an IPv4 range"],
        ),
        (
            range,
            "mesh_v4 = '10.76.0.0/33'",
            &["10.76.0.0/33", "8 to 30"],
        ),
        (range, "", &["mesh_v4"]),
        (
            v6,
            "mesh_v6 = '10.90.0.0/16'",
            &["mesh_v6", "not an IPv6 range"],
        ),
        (
            "[[segment]]",
            "mesh_v4 = '10.90.0.0/16'\n[[segment]]",
            &["mesh_v4", "stands beside `segment`"],
        ),
        (
            "[[segment]]",
            "threshold = 0.9\n[[segment]]",
            &["threshold", "stands beside `segment`"],
        ),
        (
            "[[segment]]",
            "policy_file = 'x'\n[[segment]]",
            &["policy_file", "stands beside `segment`"],
        ),
        (
            "policy.toml",
            "nowhere.toml",
            &["policy_file", "nowhere.toml"],
        ),
    ] {
        assert!(good.contains(from), "{from}");
        let error = read_segments(&good.replacen(from, to, 1)).expect_err(to);
        for cause in causes {
            assert!(error.contains(cause), "{to}: {error}");
        }
    }
    let one_too_many: String = (0..17)
        .map(|it| format!("[[segment]]\nname = 's{it}'\nmesh_v4 = '10.{it}.0.0/16'\n"))
        .collect();
    let error = read_segments(&one_too_many).expect_err("17 segments");
    assert!(error.contains("1 to 16 segments, not 17"), "{error}");
    let of_a_node = format!("role = 'node'\n{good}");
    let node: Settings = toml::from_str(&of_a_node).unwrap();
    assert_eq!(node.misplaced(Role::Node), Some("segment"));
}
