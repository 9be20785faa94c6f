//! The programs under test: built once per test binary, in the profile of the tests.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Path of `meshd` or `meshctl`.
///
/// # Panics
/// When they do not build.
pub fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let path = FOLDER.get_or_init(folder).join(name);
    assert!(path.exists(), "no {}", path.display());
    path
}

fn folder() -> PathBuf {
    if let Some(given) = std::env::var_os("MESHTEST_BIN_DIR") {
        return given.into();
    }
    let release = !cfg!(debug_assertions);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let status = Command::new(cargo)
        .current_dir(repository())
        .args(["build", "--quiet", "--bins", "-p", "meshd", "-p", "meshctl"])
        .args(release.then_some("--release"))
        .status();
    assert!(
        status.as_ref().is_ok_and(std::process::ExitStatus::success),
        "meshd and meshctl do not build: {status:?}"
    );
    // This test binary is target/PROFILE/deps/NAME-HASH.
    let myself = std::env::current_exe().expect("a running program has a path");
    let profile = myself.ancestors().nth(2).expect("it is in deps/");
    profile.to_owned()
}

fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}
