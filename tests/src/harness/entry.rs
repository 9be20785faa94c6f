//! The right to make network namespaces: root's, or that of root in a user namespace.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Once;

/// Makes sure that this process may make network namespaces. An ordinary user's test binary is run
/// again in a user namespace, from its beginning; where that is forbidden, the test fails.
///
/// # Panics
/// When there is no way to get these rights.
pub fn enter() {
    static ENTERED: Once = Once::new();
    ENTERED.call_once(|| {
        if !rustix::process::geteuid().is_root() {
            // Returns only if it fails.
            let error = again_in_user_namespace();
            panic!("{NEED}: {error}");
        }
        super::namespace::sweep();
        assert!(super::namespace::is_possible(), "{NEED}");
    });
}

fn again_in_user_namespace() -> String {
    let prefix = ["--user", "--map-root-user", "--net", "--mount", "--"];
    let probe = Command::new("unshare").args(prefix).arg("true").status();
    if std::env::var_os(AGAIN).is_some() || !probe.is_ok_and(|status| status.success()) {
        return "an ordinary user also needs user namespaces".into();
    }
    let myself = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    let error = Command::new("unshare")
        .args(prefix)
        .args(["sh", "-c", SETUP, "sh"])
        .arg(myself)
        .args(std::env::args_os().skip(1))
        .env(AGAIN, "1")
        .exec();
    error.to_string()
}

const NEED: &str = "these tests make network namespaces and need root (sudo cargo test, or a \
                    container with CAP_NET_ADMIN and CAP_SYS_ADMIN)";
/// Set in the second run, so that there is no third.
const AGAIN: &str = "MESHTEST_ENTERED";
/// `ip netns` keeps its names in /run, which has to be this user's.
const SETUP: &str = "mount -t tmpfs tmpfs /run && ip link set lo up && exec \"$@\"";
