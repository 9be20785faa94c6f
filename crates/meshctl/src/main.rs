//! `meshctl`: the operator's tool, noun and verb, over a daemon's admin socket.
//!
//! One file per noun. The answer goes to stdout, everything else to stderr. Exit codes: 0 done,
//! 1 refused by the daemon, 2 broken (bad arguments, no connection, an unreadable reply). It refuses
//! to know anything that is not in the [`wire::admin`] forms: it cannot bypass the socket.
//!
//! | File | Holds |
//! |---|---|
//! | [`client`] | HTTP/1.1 over the Unix socket |
//! | [`answer`] | where words go: stdout, stderr, `--json` |
//! | [`failure`] | why a command did not succeed, and the exit code |
//! | [`files`] | secret files |
//! | [`local`] | the daemon as this machine shows it: its process and settings |
//! | [`table`], [`units`], [`terminal`] | how things look, and on what |
//! | [`verdict`] | whether all is well: the first words of a status |
//! | the others | one noun each |

#![forbid(unsafe_code)]

mod answer;
mod client;
mod controller;
mod debug;
mod doctor;
mod epoch;
mod events;
mod evidence;
mod explain;
mod failure;
mod files;
mod hosts;
mod key;
mod local;
mod log;
mod metrics;
#[cfg(test)]
mod narrow;
mod node;
mod peer;
mod policy;
mod route;
mod score;
mod segments;
mod status;
mod table;
mod terminal;
mod token;
mod top;
mod units;
mod verdict;
mod words;

use answer::Answer;
use clap::{CommandFactory as _, Parser, Subcommand};
use client::Client;
use failure::Failure;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use wire::name::NodeName;

/// Operates a meshd controller or node through its admin socket.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    /// Admin socket; by default the controller's if there is one on this machine, else the node's.
    #[arg(long, global = true, env = "MESHCTL_SOCKET", value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print the daemon's answer as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Debug, Subcommand)]
enum Noun {
    /// Show the mesh (controller) or this node and its peers (node), first of all whether all is well.
    Status(status::Args),
    /// Watch the mesh, or this node, on the whole terminal.
    Top(top::Args),
    /// Say what keeps the mesh from working here, and the way out.
    Doctor,
    /// Gather what a bug report needs.
    #[command(subcommand)]
    Debug(debug::Verb),
    /// List, show, approve, evict, readmit or remove nodes.
    #[command(subcommand)]
    Node(node::Verb),
    /// List, approve or withdraw the networks behind nodes.
    #[command(subcommand)]
    Route(route::Verb),
    /// Say why a node is, or is not, a member.
    Explain {
        /// The node's name.
        node: NodeName,
        /// At that time, from the event log alone: RFC 3339, or how long ago, as in `2h`.
        #[arg(long, value_name = "TIME", value_parser = events::time)]
        at: Option<jiff::Timestamp>,
        /// In this segment; without it, in the first that the node is in.
        #[arg(long, value_name = "NAME")]
        segment: Option<wire::SegmentName>,
    },
    /// Check, show, compare, try or apply a policy, or overrule it for a node.
    #[command(subcommand)]
    Policy(policy::Verb),
    /// Recover the controller after an old copy was restored, or replace its authority key.
    #[command(subcommand)]
    Controller(controller::Verb),
    /// Show the epoch in force, or begin a new one.
    #[command(subcommand)]
    Epoch(epoch::Verb),
    /// Create, list or revoke enrolment tokens.
    #[command(subcommand)]
    Token(token::Verb),
    /// Read the controller's event log.
    Events(events::Args),
    /// Prove what is in the event log, or verify a copy of it.
    #[command(subcommand)]
    Log(log::Verb),
    /// On a node: print the names of the mesh, as lines of a hosts file.
    Hosts,
    /// Print what the daemon counts and measures, as OpenMetrics text.
    Metrics,
    /// On a node: change the score of a running mock emitter.
    #[command(subcommand)]
    Score(score::Verb),
    /// On a node: hand a pair's configuration to a stock WireGuard.
    #[command(subcommand)]
    Peer(peer::Verb),
    /// Make signing keys, or replace them by the word of the old ones.
    #[command(subcommand)]
    Key(key::Verb),
    /// Turn a harness's results into evidence, sign it, and hand it in.
    #[command(subcommand)]
    Evidence(evidence::Verb),
    /// Print what completes this command's line in a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder.
    #[command(hide = true)]
    Man {
        /// The folder.
        folder: PathBuf,
    },
}

fn main() -> ExitCode {
    if cfg!(target_feature = "crt-static") {
        machine::databases::use_files_and_dns_alone();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && wants_json() => {
            let words = error.to_string();
            let words = words.trim_start_matches("error: ");
            return Failure::broken(in_a_line(words), "see `meshctl --help`").report(true);
        }
        Err(error) => error.exit(),
    };
    let json = cli.json;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(cli)),
        Err(error) => Err(Failure::broken(
            format!("cannot start: {error}"),
            "check the limits on open files (`ulimit -n`)",
        )),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}

/// The first paragraph of an error in a line; what stands in lines of its own are the arguments that are meant.
fn in_a_line(words: &str) -> String {
    let (error, _) = words.split_once("\n\n").unwrap_or((words, ""));
    let lines = error.lines().map(str::trim).filter(|it| !it.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}

/// Whether the answer was to be JSON, where the command line could not be read.
fn wants_json() -> bool {
    std::env::args_os().skip(1).any(|it| it == "--json")
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let client = Client::new(cli.socket.unwrap_or_else(default_socket));
    let answer = Answer::new(cli.json);
    match cli.noun {
        Noun::Status(args) => status::run(&args, &client, &answer).await,
        Noun::Top(args) => top::run(&args, &client, &answer).await,
        Noun::Debug(verb) => debug::run(verb, &client, &answer).await,
        Noun::Doctor => doctor::run(&client, &answer).await,
        Noun::Node(verb) => node::run(verb, &client, &answer).await,
        Noun::Route(verb) => route::run(verb, &client, &answer).await,
        Noun::Explain { node, at, segment } => {
            explain::run(&node, at, segment.as_ref(), &client, &answer).await
        }
        Noun::Policy(verb) => policy::run(verb, &client, &answer).await,
        Noun::Controller(verb) => controller::run(verb, &client, &answer).await,
        Noun::Epoch(verb) => epoch::run(verb, &client, &answer).await,
        Noun::Token(verb) => token::run(verb, &client, &answer).await,
        Noun::Events(args) => events::run(&args, &client, &answer).await,
        Noun::Log(verb) => log::run(verb, &client, &answer).await,
        Noun::Hosts => hosts::run(&client, &answer).await,
        Noun::Metrics => metrics::run(&client, &answer).await,
        Noun::Score(verb) => score::run(verb, &client, &answer).await,
        Noun::Peer(verb) => peer::run(verb, &client, &answer).await,
        Noun::Key(verb) => key::run(&verb, &client, &answer).await,
        Noun::Evidence(verb) => evidence::run(verb, &client, &answer).await,
        Noun::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "meshctl", &mut script);
            answer.exact(String::from_utf8_lossy(&script).trim_end())
        }
        Noun::Man { folder } => {
            clap_mangen::generate_to(Cli::command(), &folder).map_err(|error| {
                let words = format!("cannot write manual pages to {}: {error}", folder.display());
                Failure::broken(words, "name a folder that is there, and may be written")
            })
        }
    }
}

/// The controller's socket, if there is one; but not what a controller left behind that ran here once, where a node has
/// one.
fn default_socket() -> PathBuf {
    choose_socket(Path::new(CONTROLLER_SOCKET), Path::new(NODE_SOCKET)).to_owned()
}

fn choose_socket<'p>(controller: &'p Path, node: &'p Path) -> &'p Path {
    let is_left = || {
        let dead = UnixStream::connect(controller);
        dead.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    };
    if controller.exists() && !(node.exists() && is_left()) {
        controller
    } else {
        node
    }
}

const CONTROLLER_SOCKET: &str = "/run/meshd/controller.sock";
const NODE_SOCKET: &str = "/run/meshd/node.sock";
const AFTER_HELP: &str =
    "Exit codes: 0 done, 1 refused by the daemon, 2 broken (arguments, connection, reply).";

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn what_a_dead_controller_left_does_not_hide_a_node() {
        let dir = tempfile::tempdir().unwrap();
        let (controller, node) = (
            dir.path().join("controller.sock"),
            dir.path().join("node.sock"),
        );
        assert_eq!(choose_socket(&controller, &node), node, "nobody is there");
        let listener = UnixListener::bind(&controller).unwrap();
        let _node = UnixListener::bind(&node).unwrap();
        assert_eq!(choose_socket(&controller, &node), controller);
        drop(listener);
        assert_eq!(choose_socket(&controller, &node), node);
        std::fs::remove_file(&node).unwrap();
        assert_eq!(
            choose_socket(&controller, &node),
            controller,
            "it says what it is"
        );
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
