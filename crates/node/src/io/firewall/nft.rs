//! The program `nft`, run with a time limit: a firewall that stalls stalls nobody else.

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Why `nft` did not do as told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NftError {
    /// There is none.
    #[error("the program nft is missing: install nftables")]
    Missing,
    /// It cannot be run.
    #[error("nft cannot be run: {0}")]
    Run(io::ErrorKind),
    /// It takes too long.
    #[error("nft did not answer within {} s", LIMIT.as_secs())]
    Stalled,
    /// It refused, in its own words.
    #[error("nft refused: {0}")]
    Refused(String),
}

/// Carries out a script, whole or not at all.
pub(super) fn load(script: &str) -> Result<(), NftError> {
    run(&["-f", "-"], script).map(drop)
}

/// A table as nft shows it.
pub(super) fn list(table: &str) -> Result<String, NftError> {
    run(&["-n", "list", "table", "inet", table], "")
}

fn run(arguments: &[&str], input: &str) -> Result<String, NftError> {
    let failed = |error: io::Error| NftError::Run(error.kind());
    let mut child = Command::new(find().ok_or(NftError::Missing)?)
        .args(arguments)
        .env_clear()
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // Scripts and answers fit a pipe: neither side waits for the other.
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends without reading says why in its own words.
        let _ = stdin.write_all(input.as_bytes());
    }
    let ended = wait(&mut child);
    if !matches!(ended, Ok(Some(_))) {
        let _ = child.kill();
        let _ = child.wait();
    }
    let status = ended.map_err(failed)?.ok_or(NftError::Stalled)?;
    if status.success() {
        Ok(said(child.stdout.take()))
    } else {
        let words = said(child.stderr.take());
        let first = words.lines().next().unwrap_or("no reason given");
        let first = first.strip_prefix("Error: ").unwrap_or(first);
        Err(NftError::Refused(first.trim().to_owned()))
    }
}

/// How it ended; `None` when the time is over.
fn wait(child: &mut Child) -> io::Result<Option<std::process::ExitStatus>> {
    let mut waited = Duration::ZERO;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if waited >= LIMIT {
            return Ok(None);
        }
        std::thread::sleep(LOOK);
        waited += LOOK;
    }
}

fn said(pipe: Option<impl io::Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        let _ = pipe.take(MAX_SAID).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The program: services often have a PATH without the folders for administrators.
fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join("nft"))
        .find(|program| is_program(program))
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

const LIMIT: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(5);
const MAX_SAID: u64 = 64 << 10;
