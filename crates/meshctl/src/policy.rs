//! `meshctl policy`: a policy's file, held against the rules here, and against the controller that is to follow it;
//! and an operator's ruling on one node beside it.

use crate::answer::Answer;
use crate::client::Client;
use crate::events::time;
use crate::failure::Failure;
use crate::files::read_limited;
use crate::node;
use crate::table::Rows;
use crate::words::membership;
use ::policy::Policy;
use clap::{ArgGroup, Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use std::path::{Path, PathBuf};
use wire::admin::{
    NodeStatus, OverrideRequest, PolicyApplied, PolicyRequest, PolicyShown, Simulation,
    TrafficChange,
};
use wire::name::{NodeName, SegmentName};
use wire::rules::Traffic;

/// A verb of `meshctl policy`.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Say whether a file holds a policy that can be used; needs no daemon.
    Check {
        /// The file, or - for standard input.
        file: PathBuf,
    },
    /// Show the policy in force, as a file that reads back as it.
    Show {
        /// The segment; may be left out where there is one.
        #[arg(long, value_name = "NAME")]
        segment: Option<SegmentName>,
    },
    /// Show the differences between the policy in force (-) and a file (+).
    Diff {
        /// The file, or - for standard input.
        file: PathBuf,
        /// The segment; may be left out where there is one.
        #[arg(long, value_name = "NAME")]
        segment: Option<SegmentName>,
    },
    /// Tell which nodes would have been in or out under a file, by what is on record.
    Simulate {
        /// The file, or - for standard input.
        file: PathBuf,
        /// The segment; may be left out where there is one.
        #[arg(long, value_name = "NAME")]
        segment: Option<SegmentName>,
        /// Only what happened since then: RFC 3339, or how long ago, as in `2h`.
        #[arg(long, value_name = "TIME", value_parser = time)]
        since: Option<Timestamp>,
    },
    /// Put a file in force from the next decision on, until the controller reads its settings again.
    Apply {
        /// The file, or - for standard input.
        file: PathBuf,
        /// The segment; may be left out where there is one.
        #[arg(long, value_name = "NAME")]
        segment: Option<SegmentName>,
    },
    /// Rule on one node for a time, whatever the policy says of it.
    Override(Override),
}

/// A ruling.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("ruling").required(true))]
pub(crate) struct Override {
    /// The node's name.
    node: NodeName,
    /// Admit it.
    #[arg(long, group = "ruling", requires_all = ["duration", "reason"])]
    allow: bool,
    /// Do not admit it.
    #[arg(long, group = "ruling", requires_all = ["duration", "reason"])]
    deny: bool,
    /// Judge it by this threshold.
    #[arg(long, group = "ruling", value_name = "X", requires_all = ["duration", "reason"])]
    threshold: Option<f64>,
    /// End the ruling that is in force.
    #[arg(long, group = "ruling", conflicts_with_all = ["duration", "reason"])]
    clear: bool,
    /// How long, as in `2h` or `30m`; at most 30 days.
    #[arg(long = "for", id = "duration", value_name = "TIME", value_parser = seconds)]
    seconds: Option<u64>,
    /// Why, for the event log.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Where the policy of a segment is.
fn path(segment: Option<&SegmentName>) -> String {
    match segment {
        Some(segment) => format!("/v1/policy?segment={segment}"),
        None => "/v1/policy".to_owned(),
    }
}

/// Runs the command.
pub(crate) async fn run(verb: Verb, client: &Client, answer: &Answer) -> Result<(), Failure> {
    match verb {
        Verb::Check { file } => {
            let (policy, _) = read(&file)?;
            let digest = policy.digest().to_string();
            if answer.is_json() {
                return answer.value(&json!({ "digest": digest }));
            }
            let many = policy.requirements().len();
            let words = if many == 1 {
                "requirement"
            } else {
                "requirements"
            };
            let traffic = traffic(&policy);
            answer.text(&format!(
                "The policy can be used: {many} {words}{traffic}, {digest}."
            ))
        }
        Verb::Show { segment } => {
            let reply = client.get(&path(segment.as_ref())).await?;
            answer.show(&reply, |shown: PolicyShown| {
                format!("# {}\n{}", shown.digest, shown.toml.trim_end())
            })
        }
        Verb::Diff { file, segment } => {
            let (policy, _) = read(&file)?;
            let shown: PolicyShown = client.get(&path(segment.as_ref())).await?.form()?;
            let lines = diff(&shown.toml, &policy.to_toml());
            if answer.is_json() {
                return answer.value(&json!({ "differences": lines }));
            }
            answer.text(&match lines.as_slice() {
                [] => "The file holds the policy in force.".to_owned(),
                lines => lines.join("\n"),
            })
        }
        Verb::Simulate {
            file,
            segment,
            since,
        } => {
            let (_, toml) = read(&file)?;
            let since = since.map(|since| since.to_string());
            let form = PolicyRequest {
                toml,
                since,
                segment,
            };
            let reply = client.post_form("/v1/policy/simulate", &form).await?;
            answer.show(&reply, |simulation: Simulation| simulated(&simulation))
        }
        Verb::Apply { file, segment } => {
            let (_, toml) = read(&file)?;
            let form = PolicyRequest {
                toml,
                since: None,
                segment,
            };
            let reply = client.post_form("/v1/policy", &form).await?;
            answer.show(&reply, |applied: PolicyApplied| match applied.changed {
                true => format!(
                    "{} is in force from the next decision on; the controller's own settings replace it at a HUP or a \
                     restart, unless `policy_file` has it by then",
                    applied.digest
                ),
                false => format!("{} was in force already", applied.digest),
            })
        }
        Verb::Override(ruling) => rule(ruling, client, answer).await,
    }
}

async fn rule(ruling: Override, client: &Client, answer: &Answer) -> Result<(), Failure> {
    let path = format!("/v1/nodes/{}/override", ruling.node);
    let reply = if ruling.clear {
        client.delete(&path).await?
    } else {
        let word = match (ruling.allow, ruling.deny) {
            (true, _) => "allow",
            (_, true) => "deny",
            (false, false) => "threshold",
        };
        let form = OverrideRequest {
            ruling: word.to_owned(),
            threshold: ruling.threshold,
            seconds: ruling.seconds.unwrap_or_default(),
            reason: ruling.reason.unwrap_or_default(),
        };
        client.post_form(&path, &form).await?
    };
    let name = ruling.node;
    answer.show(&reply, |status: NodeStatus| {
        let state = membership(status.membership);
        match &status.overriding {
            Some(it) => format!("{name}: {}; it is {state} now", node::overriding(it)),
            None => format!("{name}: its evidence decides again; it is {state} now"),
        }
    })
}

/// The words of a policy on traffic, where it says anything.
fn traffic(policy: &Policy) -> String {
    let rules = policy.rules();
    let denied = match (rules.traffic, rules.allow.len()) {
        (Traffic::Allow, _) => String::new(),
        (Traffic::Deny, 0) => ", all traffic denied".to_owned(),
        (Traffic::Deny, 1) => ", traffic denied but for 1 rule".to_owned(),
        (Traffic::Deny, many) => format!(", traffic denied but for {many} rules"),
    };
    match rules.hubs.is_empty() {
        true => denied,
        false => format!("{denied}, hubs {}", policy.hub.join(", ")),
    }
}

fn read(file: &Path) -> Result<(Policy, String), Failure> {
    let bytes = read_limited(file, MAX_POLICY)?;
    let hint = "OPERATIONS describes the settings of a policy";
    let shown = file.display();
    let toml = String::from_utf8(bytes)
        .map_err(|_| Failure::refused(format!("{shown} is no UTF-8 text"), hint))?;
    let policy = Policy::from_toml(&toml)
        .map_err(|error| Failure::refused(format!("{shown}: {error}"), hint))?;
    Ok((policy, toml))
}

/// The lines that one text has and the other has not, in the order of the longer common ones.
fn diff(old: &str, new: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    // The length of the longest common part of the lines from each place on.
    let width = new.len() + 1;
    let mut common = vec![0_usize; (old.len() + 1) * width];
    let at = |common: &[usize], i: usize, j: usize| common.get(i * width + j).copied().unwrap_or(0);
    for (i, was) in old.iter().enumerate().rev() {
        for (j, is) in new.iter().enumerate().rev() {
            let length = if was == is {
                at(&common, i + 1, j + 1) + 1
            } else {
                at(&common, i + 1, j).max(at(&common, i, j + 1))
            };
            if let Some(place) = common.get_mut(i * width + j) {
                *place = length;
            }
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    loop {
        match (old.get(i), new.get(j)) {
            (None, None) => return lines,
            (Some(was), Some(is)) if was == is => (i, j) = (i + 1, j + 1),
            (Some(was), is) if is.is_none() || at(&common, i + 1, j) >= at(&common, i, j + 1) => {
                lines.push(format!("- {was}"));
                i += 1;
            }
            (_, Some(is)) => {
                lines.push(format!("+ {is}"));
                j += 1;
            }
            (Some(_), None) => return lines,
        }
    }
}

fn simulated(simulation: &Simulation) -> String {
    let Some(from) = &simulation.from_utc else {
        return format!(
            "No decision was taken in that time.{}",
            changed(&simulation.traffic)
        );
    };
    let mut rows = Rows::new(&["NODE", "FROM", "UNTIL", "HAPPENED", "WOULD BE", "REASON"]);
    for it in &simulation.differences {
        rows.row([
            it.name.to_string(),
            it.from_utc.clone(),
            it.until_utc.clone().unwrap_or_else(|| "now".into()),
            membership(it.happened).into(),
            membership(it.would).into(),
            crate::table::or_dash(it.reason.as_ref()),
        ]);
    }
    let cut = if simulation.cut {
        "\nThere are more differences than an answer holds: --since shortens it."
    } else {
        ""
    };
    format!(
        "{} decisions since {from}, taken again.\n{}{}{cut}",
        simulation.decisions,
        rows.render("Every node would have been where it was."),
        changed(&simulation.traffic)
    )
}

/// The differences in traffic, if there are any.
fn changed(changes: &[TrafficChange]) -> String {
    if changes.is_empty() {
        return String::new();
    }
    let groups = |groups: &[String]| match groups {
        [] => "(no group)".to_owned(),
        groups => groups.join(", "),
    };
    let words = |words: &[String]| match words {
        [] => crate::table::DASH.to_owned(),
        words => words.join(", "),
    };
    let mut rows = Rows::new(&["FROM", "TO", "PAIRS", "EXAMPLE", "CLOSED", "OPENED"]);
    for it in changes {
        rows.row([
            groups(&it.from),
            groups(&it.to),
            it.pairs.to_string(),
            format!("{} to {}", it.example.0, it.example.1),
            words(&it.closed),
            words(&it.opened),
        ]);
    }
    format!("\nBetween the members of now:\n{}", rows.render(""))
}

fn seconds(text: &str) -> Result<u64, String> {
    let span: Result<SignedDuration, _> = text.parse();
    let seconds = span.ok().and_then(|it| u64::try_from(it.as_secs()).ok());
    seconds
        .filter(|seconds| *seconds > 0)
        .ok_or_else(|| "not a length of time, as in `90s`, `30m`, `2h` or `1h30m`".to_owned())
}

/// A policy with every list full is smaller by far; the socket takes no more.
const MAX_POLICY: usize = 48 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_has_the_lines_of_one_text_alone() {
        assert_eq!(diff("a\nb\nc", "a\nc\nd"), ["- b", "+ d"]);
        assert_eq!(diff("a", "b"), ["- a", "+ b"]);
        assert!(diff("a\nb", "a\nb").is_empty());
        assert_eq!(diff("", "x"), ["+ x"]);
        assert_eq!(diff("x", ""), ["- x"]);
    }

    #[test]
    fn a_length_of_time_has_a_unit_and_is_no_moment() {
        assert_eq!(seconds("2h"), Ok(7_200));
        assert_eq!(seconds("1h30m"), Ok(5_400));
        for text in ["", "7", "-2h", "0s", "soon"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
