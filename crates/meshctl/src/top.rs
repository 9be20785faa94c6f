//! `meshctl top`: the mesh, or one node, on the whole terminal, as it changes. Reads the status every second or so and
//! changes nothing.
//!
//! | File | Holds |
//! |---|---|
//! | [`state`] | what is shown, and what the keys do to it |
//! | [`draw`] | how it looks |

mod draw;
mod state;
#[cfg(test)]
mod tests;

use crate::answer::Answer;
use crate::client::Client;
use crate::explain;
use crate::failure::Failure;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use state::{Request, State};
use std::io;
use std::time::Duration;
use tokio::sync::mpsc;
use wire::admin::Status;

/// `meshctl top`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=3600))]
    every: u32,
}

/// Runs the command, until `q`.
pub(crate) async fn run(args: &Args, client: &Client, answer: &Answer) -> Result<(), Failure> {
    if answer.is_json() || crate::terminal::width().is_none() {
        return Err(Failure::broken(
            "`top` draws on a terminal, and the answer goes elsewhere",
            "use `meshctl status`, or `meshctl --json status`",
        ));
    }
    // A daemon that cannot be asked at all is told in the ordinary way.
    let first = client.get("/v1/status").await?.form::<Status>()?;
    let mut terminal = ratatui::try_init().map_err(|error| unusable(&error))?;
    let result = watch(&mut terminal, State::new(first), args, client).await;
    ratatui::restore();
    result
}

async fn watch(
    terminal: &mut DefaultTerminal,
    mut state: State,
    args: &Args,
    client: &Client,
) -> Result<(), Failure> {
    let mut keys = keys();
    let mut ticks = tokio::time::interval(Duration::from_secs(u64::from(args.every)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let drawn = terminal.draw(|frame| draw::draw(frame, &mut state));
        drawn.map_err(|error| unusable(&error))?;
        tokio::select! {
            event = keys.recv() => {
                // Without a terminal there is nobody to show anything to.
                let Some(event) = event else { return Ok(()) };
                match state.handle(&event) {
                    None => {}
                    Some(Request::Quit) => return Ok(()),
                    Some(Request::Explain(node)) => {
                        let told = explain::text(&node, client).await;
                        state.show(told.unwrap_or_else(|failure| failure.to_string()));
                    }
                }
            }
            _ = ticks.tick() => {
                let status = client.get("/v1/status").await;
                let status = status.and_then(|reply| reply.form());
                state.handle_status(status.map_err(|failure| failure.to_string()));
            }
        }
    }
}

/// The keys that are typed, read by a thread of its own that ends with the process.
fn keys() -> mpsc::Receiver<Event> {
    let (out, keys) = mpsc::channel(16);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if out.blocking_send(event).is_err() {
                return;
            }
        }
    });
    keys
}

fn unusable(error: &io::Error) -> Failure {
    Failure::broken(
        format!("cannot draw on this terminal: {error}"),
        "use `meshctl status --watch`",
    )
}
