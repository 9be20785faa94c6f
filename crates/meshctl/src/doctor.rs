//! `meshctl doctor`: why a mesh does not work, or that it does. Holds what the daemon has observed against what this
//! machine shows; each line says what was seen, and the way out. It looks, and changes nothing. Without a daemon it looks at
//! the machine alone, and says so first.
//!
//! | File | Holds |
//! |---|---|
//! | [`of_machine`] | this machine: clock, addresses, rights, devices, disk, names |
//! | [`of_node`] | a node, by its own word |
//! | [`of_controller`] | a mesh, by its controller's |
//! | [`agreement`] | that these say what the status says |

mod agreement;
mod of_controller;
mod of_machine;
mod of_node;

use crate::answer::Answer;
use crate::client::Client;
use crate::failure::Failure;
use crate::local::{Local, Role};
use crate::verdict::{self, VERSION};
use serde::Serialize;
use std::path::PathBuf;
use wire::admin::Status;

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// As it should be.
    Ok,
    /// Nobody has looked, or nobody can.
    Unknown,
    /// It may become wrong, or costs something.
    Warning,
    /// It keeps the mesh from working.
    Wrong,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// The thing.
    pub(crate) area: &'static str,
    /// How it is.
    pub(crate) state: State,
    /// The observation.
    pub(crate) seen: String,
    /// The way out, where there is something to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) way_out: Option<String>,
}

/// Everything that was looked at.
#[derive(Debug, Serialize)]
pub(crate) struct Diagnosis {
    /// The role of the daemon: `controller` or `node`.
    role: &'static str,
    socket: PathBuf,
    /// The version of this tool.
    meshctl: &'static str,
    /// The gravest state.
    worst: State,
    findings: Vec<Finding>,
}

impl Finding {
    pub(crate) fn ok(area: &'static str, seen: impl Into<String>) -> Self {
        Self::new(area, State::Ok, seen, None)
    }

    pub(crate) fn unknown(area: &'static str, seen: impl Into<String>) -> Self {
        Self::new(area, State::Unknown, seen, None)
    }

    pub(crate) fn warning(
        area: &'static str,
        seen: impl Into<String>,
        way_out: impl Into<String>,
    ) -> Self {
        Self::new(area, State::Warning, seen, Some(way_out.into()))
    }

    pub(crate) fn wrong(
        area: &'static str,
        seen: impl Into<String>,
        way_out: impl Into<String>,
    ) -> Self {
        Self::new(area, State::Wrong, seen, Some(way_out.into()))
    }

    fn new(
        area: &'static str,
        state: State,
        seen: impl Into<String>,
        way_out: Option<String>,
    ) -> Self {
        Self {
            area,
            state,
            seen: seen.into(),
            way_out,
        }
    }
}

/// Runs the command.
pub(crate) async fn run(client: &Client, answer: &Answer) -> Result<(), Failure> {
    let diagnosis = examine(client).await;
    if answer.is_json() {
        answer.json(&diagnosis.json())?;
    } else {
        answer.text(&diagnosis.text())?;
    }
    match diagnosis.worst {
        State::Wrong => Err(Failure::Said),
        State::Ok | State::Unknown | State::Warning => Ok(()),
    }
}

/// Looks at everything.
pub(crate) async fn examine(client: &Client) -> Diagnosis {
    let asked = client.get("/v1/status").await;
    let status = asked.and_then(|reply| Ok((reply.form::<Status>()?, reply)));
    let role = match &status {
        Ok((Status::Controller(_), _)) => Role::Controller,
        Ok((Status::Node(_), _)) => Role::Node,
        Err(_) => Role::of_socket(client.socket()),
    };
    let local = Local::find(client.socket(), role).await;
    let mut findings = match &status {
        Ok((Status::Controller(status), _)) => {
            let mut all = vec![alive(role, &status.version)];
            let tells = verdict::tells(&status.version, &status.attention);
            let found = of_controller::look(status);
            all.extend(agreement::reconciled(found, &status.attention, tells));
            all
        }
        Ok((Status::Node(status), _)) => {
            let mut all = vec![alive(role, &status.version)];
            let tells = verdict::tells(&status.version, &status.attention);
            let found = of_node::look(status, &local);
            all.extend(agreement::reconciled(found, &status.attention, tells));
            all
        }
        Err(failure) => vec![dead(role, &local, failure)],
    };
    let status = status.as_ref().map(|(status, _)| status).ok();
    findings.extend(of_machine::look(&local, status));
    let worst = findings.iter().map(|it| it.state).max();
    Diagnosis {
        role: role.word(),
        socket: client.socket().to_owned(),
        meshctl: VERSION,
        worst: worst.unwrap_or(State::Ok),
        findings,
    }
}

impl Diagnosis {
    /// As JSON.
    pub(crate) fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// As lines: the state, the thing, the observation; behind it the way out.
    pub(crate) fn text(&self) -> String {
        let width = self.findings.iter().map(|it| it.area.len()).max();
        let width = width.unwrap_or_default();
        let mut text = String::new();
        for it in &self.findings {
            let state = it.state.word();
            let (area, seen) = (it.area, crate::table::clean(&it.seen));
            text.push_str(&format!("{state:7}  {area:width$}  {seen}\n"));
            if let Some(way_out) = &it.way_out {
                let way_out = crate::table::clean(way_out);
                text.push_str(&format!("{:7}  {:width$}  → {way_out}\n", "", ""));
            }
        }
        let count = |state| self.findings.iter().filter(|it| it.state == state).count();
        let (wrong, warnings) = (count(State::Wrong), count(State::Warning));
        text.push_str(&format!(
            "\nof {} things looked at: {wrong} wrong, {warnings} with a warning, {} unknown\n",
            self.findings.len(),
            count(State::Unknown)
        ));
        text
    }
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warning => "WARNING",
            Self::Wrong => "WRONG",
        }
    }
}

/// A sentence that names the way out at its end: what it says, and the way out. Behind a colon there may be a cause as well, so
/// that only an order is a way out there.
fn split(sentence: &str) -> (&str, Option<&str>) {
    let is_order = |words: &str| {
        let first = words.split(' ').next().unwrap_or_default();
        first.starts_with('`') || ORDERS.contains(&first)
    };
    if let Some((seen, way_out)) = sentence.rsplit_once("; ") {
        return (seen, Some(way_out));
    }
    match sentence.rsplit_once(": ") {
        Some((seen, way_out)) if is_order(way_out) => (seen, Some(way_out)),
        _ => (sentence, None),
    }
}

fn alive(role: Role, version: &str) -> Finding {
    let seen = format!("a {} answers, meshd {version}", role.word());
    if version == VERSION {
        Finding::ok("daemon", seen)
    } else {
        Finding::warning(
            "daemon",
            format!("{seen}, and this meshctl is {VERSION}"),
            "install both of one version, and restart the daemon if it is the older one",
        )
    }
}

fn dead(role: Role, local: &Local, failure: &Failure) -> Finding {
    let usual = PathBuf::from(format!("/etc/meshd/{}.toml", role.word()));
    let (unit, file) = (role.unit(), local.file.as_ref().unwrap_or(&usual).display());
    Finding::wrong(
        "daemon",
        format!(
            "no status, so that this machine alone is looked at: {}",
            failure.words()
        ),
        format!(
            "is another --socket meant? Else `meshd --config {file} --check` says whether it can start, `systemctl status \
             {unit}` or its log why it does not run"
        ),
    )
}

/// First words of a way out.
const ORDERS: [&str; 15] = [
    "see", "enrol", "keep", "start", "look", "remove", "give", "stop", "make", "install",
    "upgrade", "free", "mend", "restart", "set",
];
