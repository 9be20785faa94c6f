//! The difference that other rules would make between members: which pairs lose or gain their tunnel, and what would
//! not pass any more or pass anew. Members whose groups are the same are one class, so that thousands of members are
//! compared by a few pairs of classes.

use std::collections::{BTreeMap, BTreeSet};
use wire::rules::{Groups, Protocol, Rules, Traffic};
use wire::{NodeName, admin::TrafficChange};

/// The differences between two sets of rules for these members with their groups, and whether there are more than are
/// told: at most [`MOST_CHANGES`], between at most [`MOST_CLASSES`] classes of members.
pub fn traffic_changes<'n>(
    (now, other): (&Rules, &Rules),
    members: impl IntoIterator<Item = (&'n NodeName, &'n BTreeSet<String>)>,
) -> (Vec<TrafficChange>, bool) {
    let mut classes: BTreeMap<Class, Vec<&NodeName>> = BTreeMap::new();
    for (name, groups) in members {
        let class = (now.groups_of(groups), other.groups_of(groups));
        classes.entry(class).or_default().push(name);
    }
    let mut is_cut = classes.len() > MOST_CLASSES;
    let classes: Vec<_> = classes.into_iter().take(MOST_CLASSES).collect();
    let mut changes = Vec::new();
    for (from, senders) in &classes {
        for (to, receivers) in &classes {
            let Some((example, pairs)) = pairs(senders, receivers) else {
                continue;
            };
            let before = Passing::between(now, from.0, to.0);
            let after = Passing::between(other, from.1, to.1);
            if before == after {
                continue;
            }
            if changes.len() >= MOST_CHANGES {
                is_cut = true;
                continue;
            }
            changes.push(TrafficChange {
                from: names((now, other), *from),
                to: names((now, other), *to),
                pairs,
                example,
                closed: before.without(&after),
                opened: after.without(&before),
            });
        }
    }
    (changes, is_cut)
}

/// Echo requests between members pass by any rules: paths are measured with them.
const ICMP: &str = "icmp other than echo requests";

/// The groups of a member, as far as each of both sets of rules names them.
type Class = (Groups, Groups);

/// Everything that passes in one direction.
#[derive(Debug, PartialEq, Eq)]
struct Passing {
    tunnel: bool,
    tcp: Ports,
    udp: Ports,
    icmp: bool,
    others: bool,
}

/// Ranges of ports in order, none of which touches the next.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ports(Vec<(u16, u16)>);

impl Passing {
    fn between(rules: &Rules, from: Groups, to: Groups) -> Self {
        let tunnel = rules.connect(from, to);
        let is_meant = |named: Groups, groups| named.is_empty() || named.shares(groups);
        let fits = |it: &&wire::rules::Allow| is_meant(it.from, from) && is_meant(it.to, to);
        let fitting: Vec<_> = rules.allow.iter().filter(fits).collect();
        let has = |protocol| fitting.iter().any(|it| it.protocol == protocol);
        let is_open = rules.traffic == Traffic::Allow || has(Protocol::Any);
        let ports = |protocol| {
            let of = fitting.iter().filter(|it| it.protocol == protocol);
            let all = is_open || of.clone().any(|it| it.ports.is_empty());
            match (tunnel, all) {
                (false, _) => Ports::default(),
                (true, true) => Ports(vec![ALL]),
                (true, false) => Ports::new(of.flat_map(|it| &it.ports).copied()),
            }
        };
        Self {
            tunnel,
            tcp: ports(Protocol::Tcp),
            udp: ports(Protocol::Udp),
            icmp: tunnel && (is_open || has(Protocol::Icmp)),
            others: tunnel && is_open,
        }
    }

    /// The rest that does not pass by `other`, in words.
    fn without(&self, other: &Self) -> Vec<String> {
        if self.tunnel && !other.tunnel {
            return vec!["tunnel".to_owned()];
        }
        let words = [
            self.tcp.without(&other.tcp).words("tcp"),
            self.udp.without(&other.udp).words("udp"),
            (self.icmp && !other.icmp).then(|| ICMP.to_owned()),
            (self.others && !other.others).then(|| "other protocols".to_owned()),
        ];
        words.into_iter().flatten().collect()
    }
}

impl Ports {
    fn new(ranges: impl Iterator<Item = (u16, u16)>) -> Self {
        let mut ranges: Vec<_> = ranges.collect();
        ranges.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::new();
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if u32::from(first) <= u32::from(*end) + 1 => *end = last.max(*end),
                Some(_) | None => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    fn without(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        for (first, last) in &self.0 {
            // One beyond the last port that there is has to fit.
            let (mut at, last) = (u32::from(*first), u32::from(*last));
            for (from, to) in &other.0 {
                let (from, to) = (u32::from(*from), u32::from(*to));
                if to < at || from > last {
                    continue;
                }
                left.extend(range(at, from.checked_sub(1)));
                at = to + 1;
            }
            left.extend(range(at, Some(last)));
        }
        Self(left)
    }

    fn words(&self, protocol: &str) -> Option<String> {
        let ranges = self.0.iter().map(|range| match range {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        });
        match &self.0[..] {
            [] => None,
            [ALL] => Some(protocol.to_owned()),
            _ => Some(format!(
                "{protocol} {}",
                ranges.collect::<Vec<_>>().join(", ")
            )),
        }
    }
}

/// The ports from `first` to `last`, if that is any.
fn range(first: u32, last: Option<u32>) -> Option<(u16, u16)> {
    let last = last.filter(|last| first <= *last)?;
    Some((u16::try_from(first).ok()?, u16::try_from(last).ok()?))
}

/// One pair of a sender and a receiver that are two nodes, and how many there are.
fn pairs(senders: &[&NodeName], receivers: &[&NodeName]) -> Option<((NodeName, NodeName), u64)> {
    let (many, others) = (senders.len() as u64, receivers.len() as u64);
    let (from, to) = (*senders.first()?, *receivers.first()?);
    if from != to {
        return Some(((from.clone(), to.clone()), many * others));
    }
    let to = *receivers.get(1)?;
    Some(((from.clone(), to.clone()), many * (many - 1)))
}

fn names((now, other): (&Rules, &Rules), class: Class) -> Vec<String> {
    let names = now.names(class.0).chain(other.names(class.1));
    let names: BTreeSet<String> = names.map(str::to_owned).collect();
    names.into_iter().collect()
}

const ALL: (u16, u16) = (0, u16::MAX);
/// Differences that are told.
pub const MOST_CHANGES: usize = 500;
/// Classes of members that are compared, each with each.
pub const MOST_CLASSES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Policy;

    fn told(now: &str, other: &str) -> Vec<String> {
        let rules = |text: &str| Policy::from_toml(text).unwrap().rules();
        let member = |name: &str, groups: &[&str]| {
            let groups: BTreeSet<String> = groups.iter().map(|it| (*it).to_owned()).collect();
            (name.parse::<NodeName>().unwrap(), groups)
        };
        let members = [
            member("a", &["trainer"]),
            member("b", &["trainer", "unnamed"]),
            member("c", &["store"]),
        ];
        let members = members.iter().map(|(name, groups)| (name, groups));
        let (changes, is_cut) = traffic_changes((&rules(now), &rules(other)), members);
        assert!(!is_cut);
        let line = |it: TrafficChange| {
            let (from, to) = (it.from.join("+"), it.to.join("+"));
            let (closed, opened) = (it.closed.join(", "), it.opened.join(", "));
            format!("{} {from}>{to}: -{closed} +{opened}", it.pairs)
        };
        changes.into_iter().map(line).collect()
    }

    const RULE: &str = "traffic = \"deny\"\n[[allow]]\nprotocol = \"tcp\"\nports = [\"10-20\"]\n\
                        from = [\"trainer\"]\nto = [\"store\"]\n";

    #[test]
    fn a_policy_that_denies_closes_all_but_its_rules() {
        let closed = told("", RULE);
        let all = "-tcp, udp, icmp other than echo requests, other protocols +";
        let part = "-tcp 0-9, 21-65535, udp, icmp other than echo requests, other protocols +";
        let expected = [
            // The one store has nobody of its kind to talk to.
            format!("2 store>trainer: {all}"),
            format!("2 trainer>store: {part}"),
            format!("2 trainer>trainer: {all}"),
        ];
        assert_eq!(closed, expected);
        assert!(told(RULE, RULE).is_empty() && told("", "hub = []").is_empty());
    }

    #[test]
    fn other_ports_are_told_apart_by_range() {
        let other = RULE.replace("\"10-20\"", "12, 13, \"18-30\"");
        let expected = ["2 trainer>store: -tcp 10-11, 14-17 +tcp 21-30"];
        assert_eq!(told(RULE, &other), expected);
    }

    #[test]
    fn a_pair_without_a_hub_loses_its_tunnel_and_all_with_it() {
        let hub = "hub = [\"store\"]";
        // No policy names the group of the two.
        assert_eq!(told("", hub), ["2 >: -tunnel +"]);
        let back = told(hub, "");
        assert_eq!(back, ["2 >: - +tunnel"]);
    }

    #[test]
    fn a_thousand_classes_are_cut() {
        let rules = Policy::from_toml(RULE).unwrap().rules();
        let many = Rules {
            groups: (0..10).map(|at| format!("g{at}")).collect(),
            ..Rules::default()
        };
        let members = (0..1_024_u32).map(|number| {
            let groups = (0..10).filter(|bit| number >> bit & 1 == 1);
            let name: NodeName = format!("n{number}").parse().unwrap();
            (name, groups.map(|bit| format!("g{bit}")).collect())
        });
        let members: Vec<(NodeName, BTreeSet<String>)> = members.collect();
        let members = members.iter().map(|(name, groups)| (name, groups));
        let (changes, is_cut) = traffic_changes((&many, &rules), members);
        assert!(is_cut && changes.len() <= MOST_CHANGES);
    }
}
