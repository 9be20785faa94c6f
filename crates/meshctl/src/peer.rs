//! `meshctl peer`: on a node, the configuration with which a stock WireGuard can take this node's
//! place towards one peer. It holds a private key and a PSK, so it is for root only.

use crate::answer::Answer;
use crate::client::{Client, Reply};
use crate::failure::Failure;
use crate::files;
use clap::Subcommand;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use wire::SegmentName;
use wire::admin::WgExport;
use wire::name::NodeName;
use zeroize::Zeroizing;

/// A verb of `meshctl peer`.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Print a wg-quick configuration for one peer; it holds secrets and lasts one epoch.
    Export {
        /// The peer's name.
        name: NodeName,
        /// The segment, where both are in several; else the first of them that has a tunnel.
        #[arg(long, value_name = "NAME")]
        segment: Option<SegmentName>,
        /// Write it to a new file of mode 0600 instead.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// Runs the command.
pub(crate) async fn run(verb: Verb, client: &Client, answer: &Answer) -> Result<(), Failure> {
    let Verb::Export {
        name,
        segment,
        output,
    } = verb;
    if !is_root() {
        return Err(Failure::refused(
            "an export holds secrets and is for root only",
            "run it with sudo on the node",
        ));
    }
    let of = segment.map_or_else(String::new, |it| format!("?segment={it}"));
    let reply = client.post(&format!("/v1/export/{name}{of}")).await?;
    let (export, text) = secrets(&reply, answer)?;
    answer.remark(&format!(
        "warning: this holds the node's private key and a preshared key; it is valid for {export} only"
    ));
    match output {
        Some(path) => files::create_secret(&path, &text),
        None => answer.text(&text),
    }
}

fn secrets(reply: &Reply, answer: &Answer) -> Result<(String, Zeroizing<String>), Failure> {
    let export: WgExport = reply.form()?;
    let config = Zeroizing::new(export.config);
    let text = if answer.is_json() {
        Zeroizing::new(format!("{:#}\n", reply.raw()))
    } else {
        config
    };
    let of = export.segment.told();
    let of = of.map_or_else(String::new, |name| format!(" of segment {name}"));
    Ok((format!("epoch {}{of}", export.epoch), text))
}

/// The owner of a process's folder in /proc is its effective user.
fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}
