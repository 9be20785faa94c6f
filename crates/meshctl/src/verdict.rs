//! Whether all is well: the first words of a status.

use crate::table::clean;
use crate::units;
use wire::admin::{ControllerStatus, Membership};

/// A mesh, by its controller: the gravest first.
pub(crate) fn of_mesh(status: &ControllerStatus) -> String {
    let wrong = [&status.alarms[..], &status.attention].concat();
    told(&well(status), &wrong)
}

/// `WELL` with a sentence, or all that is to be looked at.
pub(crate) fn told(well: &str, wrong: &[String]) -> String {
    if wrong.is_empty() {
        return format!("WELL      {well}\n");
    }
    let things = units::count(wrong.len(), "thing needs", "things need");
    let each = wrong.iter().enumerate();
    let each = each.map(|(at, it)| format!("{:>8}. {}\n", at + 1, clean(it)));
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
