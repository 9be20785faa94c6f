//! `meshctl debug bundle`: all that a bug report needs, in one private archive without secrets. A manifest in it says what is
//! there, and what is missing and why. A part that cannot be had is no failure: that it is missing says something too.

use crate::answer::Answer;
use crate::client::Client;
use crate::doctor;
use crate::failure::Failure;
use crate::files::SecretFile;
use crate::local::{HIDDEN, Local, Role, without_passwords};
use crate::verdict::VERSION;
use clap::Subcommand;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::path::PathBuf;
use std::time::Duration;
use tokio::process::Command;
use wire::admin::{EventList, Status};

/// Verbs of `debug`.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Write what a bug report needs to a new file (tar, gzip, mode 0600), without secrets.
    Bundle {
        /// The file; without it, one named after the daemon and the time.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// The newest events that go into it.
        #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u64).range(0..=1000))]
        events: u64,
    },
}

/// The contents of the archive, and the reasons for what is missing.
#[derive(Default)]
struct Bundle {
    parts: Vec<(&'static str, String)>,
    missing: Vec<(&'static str, String)>,
}

/// Runs the command.
pub(crate) async fn run(verb: Verb, client: &Client, answer: &Answer) -> Result<(), Failure> {
    let Verb::Bundle { output, events } = verb;
    let asked = client.get("/v1/status").await;
    let status = asked.as_ref().ok().and_then(|it| it.form::<Status>().ok());
    let role = match &status {
        Some(Status::Controller(_)) => Role::Controller,
        Some(Status::Node(_)) => Role::Node,
        None => Role::of_socket(client.socket()),
    };
    let now = jiff::Timestamp::now();
    let path = output.unwrap_or_else(|| {
        let second = now.strftime("%Y%m%dT%H%M%SZ");
        PathBuf::from(format!("meshd-debug-{}-{second}.tar.gz", role.word()))
    });
    let file = SecretFile::create(&path)?;
    let local = Local::find(client.socket(), role).await;

    let mut bundle = Bundle::default();
    bundle.add("versions.txt", Ok(versions(status.as_ref())));
    let shown = asked.map(|it| format!("{:#}", it.raw()));
    bundle.add("status.json", shown.map_err(|it| it.words().to_owned()));
    bundle.add("settings.toml", settings(&local));
    let diagnosis = doctor::examine(client).await;
    bundle.add("doctor.txt", Ok(diagnosis.text()));
    bundle.add("doctor.json", Ok(diagnosis.json()));
    let metrics = client.text("/metrics").await;
    bundle.add("metrics.txt", metrics.map_err(|it| it.words().to_owned()));
    if role == Role::Controller {
        bundle.add("policy.toml", policy(client).await);
        bundle.add("events.jsonl", newest(client, events).await);
    }
    for (name, program, arguments) in OF_MACHINE {
        bundle.add(name, said(program, arguments).await);
    }
    if role == Role::Node {
        bundle.add("nft.txt", tables(status.as_ref()).await);
    }
    let unit = role.unit();
    bundle.add(
        "unit.txt",
        said("systemctl", &["show", "--no-pager", UNIT_FIELDS, unit]).await,
    );
    let journal = [
        "--unit",
        unit,
        "--lines",
        "1000",
        "--no-pager",
        "--output",
        "short-iso-precise",
    ];
    bundle.add("journal.txt", said("journalctl", &journal).await);

    let archive = bundle.archive(&local, &now.to_string()).map_err(|error| {
        Failure::broken(
            format!("cannot make the archive: {error}"),
            "is there enough memory?",
        )
    })?;
    file.fill(&archive)?;
    answer.remark("it holds names, addresses and scores of the mesh, and no secrets: read it before you give it away");
    let there = |parts: &[(&'static str, String)]| {
        let names = parts.iter().map(|it| serde_json::Value::from(it.0));
        serde_json::Value::from_iter(names)
    };
    if answer.is_json() {
        return answer.value(&serde_json::json!({
            "file": path.display().to_string(),
            "parts": there(&bundle.parts),
            "missing": there(&bundle.missing),
        }));
    }
    answer.text(&format!(
        "{}: {} parts, {} missing (manifest.txt says which and why)",
        path.display(),
        bundle.parts.len(),
        bundle.missing.len()
    ))
}

impl Bundle {
    fn add(&mut self, name: &'static str, part: Result<String, String>) {
        match part {
            Ok(text) => self.parts.push((name, text)),
            Err(why) => self.missing.push((name, why)),
        }
    }

    fn manifest(&self, local: &Local, now: &str) -> String {
        let mut text = format!(
            "meshctl debug bundle of {now}, meshctl {}\nrole {}, process {}\n\n",
            VERSION,
            local.role.word(),
            local
                .pid
                .map_or_else(|| "not found".to_owned(), |pid| pid.to_string()),
        );
        for (name, part) in &self.parts {
            text.push_str(&format!("{name:16} {} bytes\n", part.len()));
        }
        text.push_str("\nnot in it:\n");
        for (name, why) in &self.missing {
            text.push_str(&format!("{name:16} {why}\n"));
        }
        for why in &local.unread {
            text.push_str(&format!(
                "{:16} a source of settings was not read: {why}\n",
                "settings.toml"
            ));
        }
        text.push_str(
            "secrets          on purpose: keys, tokens, and settings that may hold one\n",
        );
        text
    }

    /// The archive's bytes, each part without what may be a secret.
    fn archive(&self, local: &Local, now: &str) -> std::io::Result<Vec<u8>> {
        let secrets = local.secrets();
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
        let manifest = ("manifest.txt", self.manifest(local, now));
        for (name, part) in std::iter::once(&manifest).chain(&self.parts) {
            let text = scrubbed(part, &secrets);
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o600);
            archive.append_data(&mut header, format!("meshd-debug/{name}"), text.as_bytes())?;
        }
        archive.into_inner()?.finish()
    }
}

/// The text with tokens, and settings that are secret, hidden wherever they stand: somebody may have given one on a
/// command line that a log shows.
fn scrubbed(text: &str, secrets: &[String]) -> String {
    let mut clean = text.to_owned();
    for secret in secrets {
        clean = clean.replace(secret.as_str(), HIDDEN);
    }
    // Quotes end an address in a log or in JSON.
    let clean = without_passwords(&clean, |c| c.is_whitespace() || "\"'`<>".contains(c));
    let mut parts = clean.split(TOKEN);
    let mut scrubbed = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let of_token = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        scrubbed.push_str(TOKEN);
        scrubbed.push_str(HIDDEN);
        scrubbed.push_str(part.trim_start_matches(of_token));
    }
    scrubbed
}

fn versions(status: Option<&Status>) -> String {
    let daemon = match status {
        Some(Status::Controller(it)) => it.version.as_str(),
        Some(Status::Node(it)) => it.version.as_str(),
        None => "no answer",
    };
    let read =
        |path: &str| std::fs::read_to_string(path).unwrap_or_else(|error| format!("{error}\n"));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "meshctl {}\nmeshd {daemon}\ncores {cores}\n\n/proc/version\n{}\n/etc/os-release\n{}",
        VERSION,
        read("/proc/version"),
        read("/etc/os-release")
    )
}

fn settings(local: &Local) -> Result<String, String> {
    let shown = local.shown();
    if shown.is_empty() && !local.unread.is_empty() {
        return Err(local.unread.join("; "));
    }
    let file = match &local.file {
        Some(file) => format!("{}, ", file.display()),
        None => String::new(),
    };
    let others = match local.unknown() {
        Some(why) => wire::visible::line(&why).into_owned(),
        None => "all other settings have their defaults".to_owned(),
    };
    Ok(format!(
        "# Of {file}the environment and the command line; {others}.\n{shown}"
    ))
}

async fn policy(client: &Client) -> Result<String, String> {
    let reply = client
        .get("/v1/policy")
        .await
        .map_err(|it| it.words().to_owned())?;
    let toml = reply.raw().get("toml").and_then(serde_json::Value::as_str);
    toml.map(str::to_owned)
        .ok_or_else(|| "the reply has no policy".to_owned())
}

/// The newest events, one a line.
async fn newest(client: &Client, count: u64) -> Result<String, String> {
    let page = async |after: u64, limit: u64| {
        let reply = client
            .get(&format!("/v1/events?after={after}&limit={limit}"))
            .await;
        let list = reply.and_then(|it| it.form::<EventList>());
        list.map_err(|it| it.words().to_owned())
    };
    let mut after = page(0, 1).await?.head.saturating_sub(count);
    let mut lines = String::new();
    loop {
        let list = page(after, PAGE).await?;
        for event in &list.events {
            lines.push_str(&serde_json::to_string(event).unwrap_or_default());
            lines.push('\n');
        }
        if list.next >= list.head || list.next <= after {
            return Ok(lines);
        }
        after = list.next;
    }
}

/// The node's own tables.
async fn tables(status: Option<&Status>) -> Result<String, String> {
    let Some(Status::Node(status)) = status else {
        return Err("no daemon says which tables are its own".to_owned());
    };
    let segments = status.segments.values().map(|it| &it.interface);
    let mut names: Vec<&String> = segments
        .chain(&status.interface)
        .map(|it| &it.name)
        .collect();
    names.dedup();
    let mut all = String::new();
    for name in names {
        let table = format!("meshd-{name}");
        all.push_str(&said("nft", &["list", "table", "inet", &table]).await?);
    }
    Ok(all)
}

/// The output of a program that only looks.
async fn said(program: &str, arguments: &[&str]) -> Result<String, String> {
    let Some(path) = machine::programs::find_for_root(program) else {
        return Err(format!("there is no program `{program}`"));
    };
    let mut command = Command::new(path);
    command
        .args(arguments)
        .env("LC_ALL", "C")
        .kill_on_drop(true);
    command.stdin(std::process::Stdio::null());
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let Ok(output) = output else {
        return Err(format!("{program} took over {} s", PATIENCE.as_secs()));
    };
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        let error = error.lines().next().unwrap_or("no reason given");
        return Err(format!("{program}: {error}"));
    }
    // The end of a log says more than its beginning.
    let start = text.len().saturating_sub(MAX_PART);
    let start = (start..text.len())
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    Ok(text[start..].to_owned())
}

/// Programs that show the machine's network, each with the part that it makes.
const OF_MACHINE: [(&str, &str, &[&str]); 6] = [
    ("ip-address.txt", "ip", &["address", "show"]),
    ("ip-route.txt", "ip", &["route", "show", "table", "all"]),
    (
        "ip-route6.txt",
        "ip",
        &["-6", "route", "show", "table", "all"],
    ),
    ("ip-rule.txt", "ip", &["rule", "show"]),
    ("ip-rule6.txt", "ip", &["-6", "rule", "show"]),
    ("udp-sockets.txt", "ss", &["-lun"]),
];
/// No command line and no environment: those may hold a token.
const UNIT_FIELDS: &str = "--property=LoadState,ActiveState,SubState,Result,ExecMainStatus,NRestarts,ActiveEnterTimestamp,\
InactiveExitTimestamp,UnitFileState,FragmentPath";
/// The beginning of every enrolment token.
const TOKEN: &str = "meshd1.";
const PAGE: u64 = 1000;
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest output of a program that is kept, in bytes.
const MAX_PART: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_or_a_secret_setting_is_hidden_wherever_it_stands() {
        let text = "sudo meshd --join meshd1.AbC-_9.0f0f0f0f\" and hunter2hunter2, meshd1.x";
        let clean = scrubbed(text, &["hunter2hunter2".to_owned()]);
        assert_eq!(
            clean,
            "sudo meshd --join meshd1.(hidden)\" and (hidden), meshd1.(hidden)"
        );
        let text = "{\"at\": \"https://me:pw@host/x\"}\nhttp://h/y?key=pw end\n";
        assert_eq!(
            scrubbed(text, &[]),
            "{\"at\": \"https://(hidden)@host/x\"}\nhttp://h/y?(hidden) end\n"
        );
    }

    #[tokio::test]
    async fn a_program_that_is_missing_or_fails_is_named() {
        let missing = said("no-such-program", &[]).await.unwrap_err();
        assert!(missing.contains("`no-such-program`"), "{missing}");
        let failed = said("ls", &["/no/such"]).await.unwrap_err();
        assert!(failed.starts_with("ls: "), "{failed}");
        assert_eq!(said("echo", &["x"]).await, Ok("x\n".to_owned()));
    }
}
