//! Whether all is well: the first words of a status.

use crate::table::{clean, folded};
use crate::{terminal, units};
use wire::admin::{ControllerStatus, Membership};

/// A mesh, by its controller: the gravest first.
pub(crate) fn of_mesh(status: &ControllerStatus) -> String {
    let wrong = [&status.alarms[..], &status.attention].concat();
    told(&well(status), &wrong, &status.version)
}

/// Whether a daemon of that version has said all that is wrong. One of another version may not know how, and then its silence
/// means nothing.
pub(crate) fn tells(version: &str, wrong: &[String]) -> bool {
    !wrong.is_empty() || version == VERSION
}

/// `WELL` with a sentence, all that is to be looked at, or that a daemon of `version` does not tell.
pub(crate) fn told(well: &str, wrong: &[String], version: &str) -> String {
    let line = |label: &str, words: &str| {
        let lines = folded(
            &clean(words),
            terminal::width().map(|it| it.saturating_sub(INDENT)),
        );
        let indent = " ".repeat(INDENT);
        format!("{label:INDENT$}{}\n", lines.join(&format!("\n{indent}")))
    };
    if !tells(version, wrong) {
        let words = format!(
            "meshd {version} says nothing of what is wrong, and may be too old to: this meshctl is {VERSION}; install both of \
             one version"
        );
        return line("UNKNOWN", &words);
    }
    if wrong.is_empty() {
        return line("WELL", well);
    }
    let things = units::count(wrong.len(), "thing needs", "things need");
    let each = wrong.iter().enumerate();
    let each = each.map(|(at, it)| line(&format!("{:>8}.", at + 1), it));
    format!(
        "NOT WELL  {things} attention:\n{}",
        each.collect::<String>()
    )
}

fn well(status: &ControllerStatus) -> String {
    if status.nodes.is_empty() {
        return "no node has been enrolled yet; `meshctl token create` admits one".to_owned();
    }
    let members = status.nodes.values();
    let members = members.filter(|it| it.membership == Membership::Allowed);
    let nodes = units::count(status.nodes.len(), "node", "nodes");
    match members.count() {
        1 => format!("1 of {nodes} is a member"),
        members => format!("{members} of {nodes} are members"),
    }
}

/// The version of this program.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The width of the first column.
pub(crate) const INDENT: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_of_another_version_that_says_nothing_is_not_well() {
        assert!(told("all", &[], VERSION).starts_with("WELL      all"));
        let old = told("all", &[], "0.0.1");
        assert!(
            old.starts_with("UNKNOWN   meshd 0.0.1") && !old.contains("WELL"),
            "{old}"
        );
        let wrong = ["the disk is full".to_owned()];
        assert!(told("all", &wrong, "0.0.1").starts_with("NOT WELL  1 thing"));
    }
}
