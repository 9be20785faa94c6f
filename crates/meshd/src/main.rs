//! `meshd`: one daemon, two roles. Exit codes: 0 stopped as asked, 1 failed while running, 2 could not
//! start (settings, rights, ports, state); nothing is left behind then.

#![forbid(unsafe_code)]

use anyhow::anyhow;
use clap::Parser;
use meshd::config::{self, RoleConfig};
use meshd::settings::Settings;
use meshd::state_dir::StateDir;
use meshd::{founding, logging, socket};
use node::rights::{self, Keep};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// A WireGuard mesh in which membership has to be earned again every epoch.
///
/// Every setting can be given in a TOML file, in the environment or as a flag; a flag goes before the
/// environment, the environment before the file.
#[derive(Parser)]
#[command(name = "meshd", version, max_term_width = 100)]
struct Cli {
    /// Settings file (TOML)
    #[arg(long, env = "MESHD_CONFIG")]
    config: Option<PathBuf>,
    /// Check the settings and exit
    #[arg(long)]
    check: bool,
    /// Controller: found a new mesh where the old one is lost, and set aside what is left of it; give it by
    /// hand, for one start
    #[arg(long)]
    new_mesh: bool,
    #[command(flatten)]
    settings: Settings,
}

fn main() -> ExitCode {
    // Before there is a secret in memory, and whatever the service manager allows.
    rights::protect_memory();
    let cli = Cli::parse();
    match start(cli) {
        Ok(code) => code,
        Err(error) => {
            // Errors of ours tell their sources themselves.
            say(&format!("meshd: {error}"));
            ExitCode::from(2)
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<ExitCode> {
    let file = cli
        .config
        .map(config::read_file)
        .transpose()?
        .unwrap_or_default();
    let settings = cli.settings.or(file);
    let format = settings.log_format.unwrap_or_default();
    let level = settings.log_level.clone().unwrap_or_else(|| "info".into());
    let filter = logging::filter(&level).map_err(|error| anyhow!("`log_level`: {error}"))?;
    let config = config::resolve(settings)?;
    if cli.new_mesh && matches!(config.role, RoleConfig::Node(_)) {
        return Err(anyhow!("--new-mesh is for a controller: remove it"));
    }
    if cli.check {
        say("meshd: the settings are good");
        return Ok(ExitCode::SUCCESS);
    }
    logging::install(format, filter);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // Their files have been opened for them; a benchmark command inherits as much.
        .on_thread_start(|| rights::reduce(Keep::NOTHING))
        .enable_all()
        .build()?;
    runtime.block_on(run(config, cli.new_mesh))
}

/// Opens everything, then serves. A failure in opening is an error; a failure in serving is logged.
async fn run(config: config::Config, new_mesh: bool) -> anyhow::Result<ExitCode> {
    let state = StateDir::open(&config.state_dir)?;
    let shutdown = shutdown()?;
    let served = match config.role {
        RoleConfig::Controller(mut role) => {
            let keys = founding::controller(&state, new_mesh, role.adopt_log)?;
            let (_socket, admin) = socket::bind(&config.socket)?;
            let status_file = role.status_file.clone();
            role.founding = keys.founding;
            let controller =
                controller::Controller::open(*role, keys.connection, keys.authority, admin)?;
            founding::founded(&state)?;
            rights::reduce(files_of_others(&[
                &config.state_dir,
                folder(&config.socket),
                folder(&status_file),
            ]));
            controller
                .serve(shutdown)
                .await
                .map_err(anyhow::Error::from)
        }
        RoleConfig::Node(role) => {
            let (identity, wg) = founding::node(&state)?;
            let (_socket, admin) = socket::bind(&config.socket)?;
            let node = node::Node::open(*role, identity, wg, admin)?;
            let files = files_of_others(&[&config.state_dir, folder(&config.socket)]);
            rights::reduce(Keep::NETWORK_SETUP.and(files));
            match node.serve(shutdown).await {
                // A refused enrolment is a start that failed.
                Err(error @ (node::ServeError::Enrolment(_) | node::ServeError::Interface(_))) => {
                    return Err(error.into());
                }
                served => served.map_err(anyhow::Error::from),
            }
        }
    };
    Ok(match served {
        Ok(()) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(%error, "ended");
            ExitCode::FAILURE
        }
    })
}

/// The right to write in other users' directories, if this is root's daemon and works in one.
fn files_of_others(folders: &[&Path]) -> Keep {
    let is_foreign = |folder: &&&Path| {
        let owner = std::fs::metadata(folder).map(|meta| meta.uid());
        owner.is_ok_and(|owner| owner != 0)
    };
    let foreign = folders.iter().find(is_foreign);
    match foreign.filter(|_| rights::is_root()) {
        None => Keep::NOTHING,
        Some(folder) => {
            tracing::warn!(
                folder = %folder.display(),
                "root's daemon in another user's directory: it keeps the right to write everywhere; run it as that user"
            );
            Keep::FILES
        }
    }
}

fn folder(file: &Path) -> &Path {
    file.parent().unwrap_or(file)
}

/// Resolves at SIGTERM or SIGINT.
fn shutdown() -> anyhow::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

#[expect(
    clippy::print_stderr,
    reason = "before the log is set up there is nothing else to speak through"
)]
fn say(line: &str) {
    eprintln!("{line}");
}
