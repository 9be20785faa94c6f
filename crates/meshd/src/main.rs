//! `meshd`: one daemon, two roles. Exit codes:
//!
//! | Code | Says |
//! |---|---|
//! | 0 | stopped as asked |
//! | 1 | failed while running |
//! | 2 | could not start, and will not be able to: settings, rights, state; nothing is left behind. `--check` has found errors |
//! | 3 | could not start, but may be able to later: an address that it needs is taken, or not there yet; another interface has one of the mesh; the disk is full |
//! | 4 | was asked to stop, and something did not let go in time: ended by force |

#![forbid(unsafe_code)]

use anyhow::anyhow;
use clap::{CommandFactory as _, Parser, Subcommand};
use meshd::check;
use meshd::config::{self, RoleConfig};
use meshd::descriptors::Descriptors;
use meshd::init::{self, Init};
use meshd::reload::{self, Reload};
use meshd::settings::Settings;
use meshd::signals::{self, Leftover, Told};
use meshd::state_dir::StateDir;
use meshd::stderr::StandardError;
use meshd::{founding, logging, paths, ports, socket, starting};
use node::rights::{self, Keep};
use service::{Loop, Service};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

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
    /// Say everything that a start would find, and exit: 0 without errors, 2 with some
    #[arg(long)]
    check: bool,
    /// Controller: found a new mesh where the old one is lost, and set aside what is left of it; give it by
    /// hand, for one start
    #[arg(long)]
    new_mesh: bool,
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    instead: Option<Instead>,
}

/// Work that is done instead of a daemon's.
#[derive(Subcommand)]
enum Instead {
    /// Write a commented configuration that works, and say the next step
    #[command(subcommand)]
    Init(Init),
    /// Print what completes this command's line in a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual page into a folder
    #[command(hide = true)]
    Man {
        /// The folder
        folder: PathBuf,
    },
}

fn main() -> ExitCode {
    if cfg!(target_feature = "crt-static") {
        machine::databases::use_files_and_dns_alone();
    }
    // Before there is a secret in memory, and whatever the service manager allows.
    rights::protect_memory();
    let Ok(stderr) = StandardError::start(give_up_rights) else {
        // Without a thread there is nobody to tell.
        return ExitCode::from(NOT_YET);
    };
    stderr.take_panics();
    let code = command_line(&stderr).unwrap_or_else(|error| {
        // Errors of ours tell their sources themselves.
        stderr.say(format_args!("meshd: {error}"));
        ExitCode::from(if may_pass(&error) { NOT_YET } else { NEVER })
    });
    stderr.flush(LAST_WORDS);
    code
}

/// Whether the next start may succeed without anybody's doing, or once somebody has made room on the disk.
fn may_pass(error: &anyhow::Error) -> bool {
    // A name that was taken while the device was away may be given back.
    let is_name_taken = matches!(
        error.downcast_ref(),
        Some(node::OpenError::Tun(node::TunError::Taken(_)))
    );
    let is_full = error
        .downcast_ref()
        .is_some_and(controller::OpenError::is_of_a_full_disk);
    // An address that another network has brought goes with it.
    let is_collision = matches!(
        error.downcast_ref(),
        Some(node::ServeError::Interface(
            node::InterfaceError::Collision { .. }
        ))
    );
    is_name_taken || is_full || is_collision || ports::may_pass(error.chain())
}

fn command_line(stderr: &StandardError) -> anyhow::Result<ExitCode> {
    match Cli::try_parse() {
        Ok(cli) => match &cli.instead {
            Some(Instead::Init(wanted)) => initialize(&cli, wanted),
            Some(Instead::Completion { shell }) => {
                let mut script = Vec::new();
                clap_complete::generate(*shell, &mut Cli::command(), "meshd", &mut script);
                // A reader who has gone away has read enough.
                let _ = std::io::stdout().write_all(&script);
                Ok(ExitCode::SUCCESS)
            }
            Some(Instead::Man { folder }) => {
                let path = folder.join("meshd.8");
                let mut page = Vec::new();
                let manual = clap_mangen::Man::new(Cli::command()).section("8");
                manual.render(&mut page)?;
                std::fs::write(&path, page)
                    .map_err(|error| anyhow!("cannot write {}: {error}", path.display()))?;
                Ok(ExitCode::SUCCESS)
            }
            None if cli.check => Ok(check(cli, stderr)),
            None => start(cli, stderr),
        },
        Err(error) if error.use_stderr() => {
            stderr.say(error.render());
            Ok(ExitCode::from(NEVER))
        }
        Err(help) => {
            // A reader who has gone away has read enough.
            let _ = help.print();
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn initialize(cli: &Cli, wanted: &Init) -> anyhow::Result<ExitCode> {
    if cli.check || cli.new_mesh || cli.settings != Settings::default() {
        return Err(anyhow!(
            "`meshd init` writes a file, and takes its own flags behind it alone: `meshd init node --help` lists them; \
             unset variables MESHD_*"
        ));
    }
    let said = init::run(wanted)?;
    // A reader who has gone away has read enough.
    let _ = std::io::stdout().write_all(said.as_bytes());
    Ok(ExitCode::SUCCESS)
}

/// Says everything that a start would find, and starts nothing.
fn check(cli: Cli, stderr: &StandardError) -> ExitCode {
    let found = check::everything(cli.settings, cli.config, cli.new_mesh);
    for line in found.lines() {
        stderr.say(format_args!("meshd: {line}"));
    }
    if found.errors.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(NEVER)
    }
}

fn start(cli: Cli, stderr: &StandardError) -> anyhow::Result<ExitCode> {
    let leftover = Leftover::default();
    let (hup, hups) = sync_channel(1);
    let told = signals::hear(hup, leftover.clone(), stderr.clone(), give_up_rights)?;
    let (given, path) = (cli.settings.clone(), cli.config.clone());
    let file = cli
        .config
        .map(config::read_file)
        .transpose()?
        .unwrap_or_default();
    let settings = cli.settings.or(file);
    let running = settings.clone();
    let format = settings.log_format.unwrap_or_default();
    let filter = logging::filter(&reload::level_of(&settings))
        .map_err(|error| anyhow!("`log_level`: {error}"))?;
    let config = config::resolve(settings)?;
    if cli.new_mesh && matches!(config.role, RoleConfig::Node(_)) {
        return Err(anyhow!("--new-mesh is for a controller: remove it"));
    }
    // Before anything is made: a mesh that is founded and not served would be of no use.
    paths::check(&running, &config, path.as_deref())?;
    let remote = Arc::new(OnceLock::new());
    let journal = service::is_journal(std::env::var_os("JOURNAL_STREAM").as_deref());
    let change_filter = logging::install(format, filter, journal, stderr);
    let service = Service::of_environment(|name| std::env::var_os(name));
    let reload = Reload {
        file: path,
        given,
        running,
        page_token: match &config.role {
            RoleConfig::Controller(it) => it.page.as_ref().and_then(|page| page.token.clone()),
            RoleConfig::Node(_) => None,
        },
        change_filter,
        controller: Arc::clone(&remote),
        service: service.clone(),
    };
    reload.start(hups, give_up_rights)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // Their files have been opened for them; a benchmark command inherits as much.
        .on_thread_start(give_up_rights)
        .enable_all()
        .build()?;
    let code = runtime.block_on(run(
        config,
        cli.new_mesh,
        (told, leftover),
        (&remote, &service),
    ));
    // A question to a dead name server is not waited for.
    runtime.shutdown_timeout(STRAGGLERS);
    code
}

fn give_up_rights() {
    rights::reduce(Keep::NOTHING);
}

/// Opens everything, then serves. A failure in opening is an error; a failure in serving is logged.
async fn run(
    mut config: config::Config,
    new_mesh: bool,
    (told, leftover): (Told, Leftover),
    (remote, service): (&OnceLock<controller::Remote>, &Service),
) -> anyhow::Result<ExitCode> {
    limit(&mut config);
    let state = StateDir::open(&config.state_dir)?;
    let at_end = AtEnd(leftover);
    tokio::spawn(say_stopping(told.clone(), service.clone()));
    let served = match config.role {
        RoleConfig::Controller(mut role) => {
            let founding = founding::controller(&state, new_mesh, role.adopt_log)?;
            let (file, admin) = socket::bind(&config.socket, "--socket")?;
            config.socket_group.map_or(Ok(()), |it| file.share(it))?;
            at_end.0.keep(file);
            let status_file = role.status_file.clone();
            role.founding = founding.founding;
            let port = tokio::select! {
                port = ports::wait(|| controller::Controller::bind(role.listen)) => port?,
                () = told.clone().to_stop() => return Ok(stopped()),
            };
            let controller = controller::Controller::open(*role, founding.keys, admin, port)?;
            founding::founded(&state)?;
            // A HUP that came earlier found the settings that were read a moment before.
            let _ = remote.set(controller.remote());
            rights::reduce(files_of_others(&[
                &config.state_dir,
                folder(&config.socket),
                folder(&status_file),
            ]));
            serves(service, Loop::MayWait);
            controller
                .serve(told.to_stop(), service.clone())
                .await
                .map_err(anyhow::Error::from)
        }
        RoleConfig::Node(role) => {
            let (identity, wg) = founding::node(&state)?;
            let (file, admin) = socket::bind(&config.socket, "--socket")?;
            config.socket_group.map_or(Ok(()), |it| file.share(it))?;
            at_end.0.keep(file);
            let port = tokio::select! {
                port = ports::wait(|| node::Node::bind(role.listen_port)) => port?,
                () = told.clone().to_stop() => return Ok(stopped()),
            };
            let of_benchmark = role.emitter.rights();
            // The directory stays locked for as long as this process runs.
            let state = Arc::new(state);
            let in_state = Arc::clone(&state);
            let find = move |file: &str| {
                let found = founding::wireguard(&in_state, file);
                found.map_err(|error| error.to_string())
            };
            let keys = node::KeyStore(Arc::new(find));
            let bind = |path: &Path| {
                let (file, listener) =
                    socket::bind(path, "wireguard_dir").map_err(|it| it.to_string())?;
                let file: node::SocketFile = Box::new(file);
                Ok((file, listener))
            };
            let unix = node::UnixSockets(Arc::new(bind));
            let node = node::Node::open(*role, identity, wg, keys, unix, admin, port)?;
            let files = files_of_others(&[&config.state_dir, folder(&config.socket)]);
            rights::reduce(Keep::NETWORK_SETUP.and(files).and(of_benchmark));
            serves(service, Loop::NeverWaits);
            match node.serve(told.to_stop(), service.clone()).await {
                // A refused enrolment is a start that failed.
                Err(error @ (node::ServeError::Enrolment(_) | node::ServeError::Interface(_))) => {
                    return Err(error.into());
                }
                served => served.map_err(anyhow::Error::from),
            }
        }
    };
    Ok(match served {
        Ok(()) => stopped(),
        Err(error) => {
            tracing::error!(%error, "ended");
            ExitCode::FAILURE
        }
    })
}

/// Tells the service manager that the daemon serves, and from now on that it lives: as long as tasks run, and the
/// role's loop turns.
///
/// A node serves before it is enrolled: its enrolment waits for its controller, and for an operator who approves it,
/// and neither is a start that takes too long.
fn serves(service: &Service, of: Loop) {
    service.ready();
    if let Some(pause) = service.pause() {
        let service = service.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(pause).await;
                if !service.beat(of) {
                    tracing::error!(
                        "the daemon's loop does not turn: the service manager is not told that it lives"
                    );
                }
            }
        });
    }
}

async fn say_stopping(told: Told, service: Service) {
    told.to_stop().await;
    service.stopping();
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

fn stopped() -> ExitCode {
    tracing::info!("stopped");
    ExitCode::SUCCESS
}

/// Removes the admin socket's file, however the role ends.
struct AtEnd(Leftover);

impl Drop for AtEnd {
    fn drop(&mut self) {
        self.0.remove();
    }
}

/// Divides descriptors up between the daemon and its clients, and says what there is.
fn limit(config: &mut config::Config) {
    let (role, threads) = match &config.role {
        RoleConfig::Controller(_) => ("controller", 0),
        RoleConfig::Node(node) => ("node", node.data_threads),
    };
    let descriptors = Descriptors::claim(threads);
    match &mut config.role {
        RoleConfig::Controller(role) => role.clients = descriptors.clients,
        RoleConfig::Node(role) => role.clients = descriptors.clients,
    }
    tracing::info!(
        role,
        version = env!("CARGO_PKG_VERSION"),
        addresses = starting::addresses(&config.role),
        policy = starting::policies(&config.role),
        descriptors = descriptors.limit,
        clients = descriptors.clients,
        data_threads = threads,
        "starting"
    );
    if descriptors.is_short {
        tracing::warn!(
            descriptors = descriptors.limit,
            "so few open files may not be enough: raise the limit (LimitNOFILE, `ulimit -n`)"
        );
    }
}

const NEVER: u8 = 2;
const NOT_YET: u8 = 3;
/// For lines of the log that wait.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// For tasks and threads that still run when the role has ended.
const STRAGGLERS: Duration = Duration::from_millis(100);
