//! `meshd init` as a program: under a strict umask, and from a folder of its own.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// Runs it in `folder` with that umask; the words that it says.
fn init(folder: &Path, umask: &str, arguments: &[&str]) -> String {
    let script = format!("umask {umask}; exec \"$0\" init \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_meshd")]);
    let done = command.args(arguments).current_dir(folder).output();
    let done = done.expect("there is a shell");
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).expect("it is text")
}

fn mode(path: &Path) -> u32 {
    let meta = path.metadata().expect("it was made");
    meta.permissions().mode() & 0o7777
}

#[test]
fn the_files_are_readable_for_the_daemons_user_whatever_the_umask_is() {
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let at = folder.path();
    std::fs::create_dir(at.join("own")).expect("it is ours");
    let private = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(at.join("own"), private).expect("it is ours");
    let to = ["--dir", "own/new/conf", "--advertise", "192.0.2.1:7443"];
    init(at, "077", &[&["controller"][..], &to].concat());
    assert_eq!(mode(&at.join("own")), 0o700, "it was there");
    for made in ["own/new", "own/new/conf"] {
        assert_eq!(mode(&at.join(made)), 0o755, "{made}");
    }
    for file in ["controller.toml", "policy.toml"] {
        assert_eq!(mode(&at.join("own/new/conf").join(file)), 0o644, "{file}");
    }
}

#[test]
fn the_paths_in_the_files_are_good_from_another_folder() {
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let at = folder.path().canonicalize().expect("it is there");
    let said = init(&at, "022", &["node", "--dir", "my conf"]);
    let file = at.join("my conf/node.toml");
    let text = std::fs::read_to_string(&file).expect("it was written");
    let join = format!("join = \"@{}\"", at.join("my conf/token").display());
    assert!(text.contains(&join), "{text}");
    let command = format!("meshd --config '{}' --check", file.display());
    assert!(said.contains(&command), "{said}");
}
