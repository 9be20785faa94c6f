//! Which members connect and what they may send to each other, as the operator writes it: the settings, their check,
//! and the compact form that updates carry. Refuses to enforce: that is the receiving node's part.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeSet;
use wire::Rules;
use wire::rules::{self, MAX_GROUPS, MAX_PORT_RANGES, MAX_RULES, Protocol, Traffic};

/// A rule of the policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allow {
    /// The protocol.
    #[serde(default = "any")]
    pub protocol: Protocol,
    /// Destination ports; none: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Ports>,
    /// The groups of the senders; none: every member.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
    /// The groups of the receivers; none: every member.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<String>,
}

/// Ports from the first to the last: `22` or `"8000-8100"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

/// The settings of a policy that are about traffic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written<'p> {
    pub(crate) traffic: Traffic,
    pub(crate) hub: &'p [String],
    pub(crate) allow: &'p [Allow],
}

/// Why they cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TrafficError {
    /// Rules where everything passes anyway.
    #[error(
        "`[[allow]]` has rules, but `traffic` is \"allow\", which lets everything pass: set `traffic = \"deny\"`"
    )]
    IdleRules,
    /// A rule breaks a rule.
    #[error("`[[allow]]`, rule {number}: `{field}` is {value}, but must be {rule}")]
    Allow {
        /// Its place, from 1.
        number: usize,
        /// The setting.
        field: &'static str,
        /// Its value.
        value: String,
        /// The rule.
        rule: &'static str,
    },
    /// A group that no node can be in.
    #[error(
        "`{0}` names {1:?}, but a group has 1 to 64 letters, digits, dots, dashes and underscores"
    )]
    Group(&'static str, String),
    /// Over a limit of entries.
    #[error("{0} {1}, but at most {2} are allowed")]
    TooMany(usize, &'static str, usize),
}

fn any() -> Protocol {
    Protocol::Any
}

impl<'p> Written<'p> {
    /// Checks what the types cannot say.
    pub(crate) fn check(&self) -> Result<(), TrafficError> {
        if self.traffic == Traffic::Allow && !self.allow.is_empty() {
            return Err(TrafficError::IdleRules);
        }
        let many = self.allow.len();
        if many > MAX_RULES {
            return Err(TrafficError::TooMany(many, "`[[allow]]` rules", MAX_RULES));
        }
        for (allow, number) in self.allow.iter().zip(1..) {
            let wrong = |field, value: String, rule| TrafficError::Allow {
                number,
                field,
                value,
                rule,
            };
            let ports = allow.ports.len();
            if ports > MAX_PORT_RANGES {
                let rule = "at most 16 entries: write another rule for the rest";
                return Err(wrong("ports", format!("of {ports} entries"), rule));
            }
            if ports > 0 && !matches!(allow.protocol, Protocol::Tcp | Protocol::Udp) {
                let rule = "left out, or the protocol \"tcp\" or \"udp\": others have no ports";
                return Err(wrong("ports", "set".to_owned(), rule));
            }
        }
        let lists = self
            .allow
            .iter()
            .flat_map(|allow| [("from", &allow.from[..]), ("to", &allow.to[..])]);
        for (list, groups) in lists.chain([("hub", self.hub)]) {
            if let Some(group) = groups.iter().find(|group| !rules::is_group(group)) {
                return Err(TrafficError::Group(list, group.clone()));
            }
        }
        let named = self.groups().len();
        if named > MAX_GROUPS {
            let what = "groups are named in `hub` and `[[allow]]`";
            return Err(TrafficError::TooMany(named, what, MAX_GROUPS));
        }
        Ok(())
    }

    /// The groups that `hub` and the rules name.
    fn groups(&self) -> BTreeSet<&'p String> {
        let rules = self.allow.iter();
        let of_rules = rules.flat_map(|allow| allow.from.iter().chain(&allow.to));
        of_rules.chain(self.hub).collect()
    }

    /// The rules as an update carries them.
    pub(crate) fn compact(&self) -> Rules {
        let groups = self.groups().into_iter().cloned().collect();
        let mut rules = Rules {
            groups,
            traffic: self.traffic,
            ..Rules::default()
        };
        let allow = self.allow.iter().map(|allow| rules::Allow {
            protocol: allow.protocol,
            ports: allow.ports.iter().map(|it| (it.first, it.last)).collect(),
            from: rules.groups_of(&allow.from),
            to: rules.groups_of(&allow.to),
        });
        rules.allow = allow.collect();
        rules.hubs = rules.groups_of(self.hub);
        rules
    }
}

impl Ports {
    fn read(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| text.trim().parse::<u16>().ok();
        let (first, last) = (port(first)?, port(last)?);
        (first <= last).then_some(Self { first, last })
    }
}

impl Serialize for Ports {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.first == self.last {
            true => to.serialize_u16(self.first),
            false => to.collect_str(&format_args!("{}-{}", self.first, self.last)),
        }
    }
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            One(i64),
            Text(String),
        }
        let text = match Written::deserialize(from) {
            Ok(Written::One(port)) => port.to_string(),
            Ok(Written::Text(text)) => text,
            Err(_) => return Err(D::Error::custom(EXPECTED)),
        };
        Self::read(&text).ok_or_else(|| D::Error::custom(format!("{text:?}: {EXPECTED}")))
    }
}

const EXPECTED: &str =
    "ports are a number from 0 to 65535, or a text as \"8000-8100\", the lower one first";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Policy;
    use wire::rules::Groups;

    const EXAMPLE: &str = r#"
traffic = "deny"
hub = ["store"]

[[allow]]
protocol = "tcp"
ports = [22, "8000-8100"]
from = ["trainer"]
to = ["store", "trainer"]

[[allow]]
protocol = "icmp"

[[allow]]
from = ["admin"]
"#;

    #[test]
    fn rules_read_back_and_come_out_compact() {
        let policy = Policy::from_toml(EXAMPLE).unwrap();
        assert_eq!(Policy::from_toml(&policy.to_toml()).unwrap(), policy);
        let json = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<Policy>(&json).unwrap(), policy);
        let rules = policy.rules();
        assert_eq!(rules.check(), Ok(()));
        assert_eq!(rules.groups, ["admin", "store", "trainer"]);
        assert_eq!((rules.traffic, rules.hubs), (Traffic::Deny, Groups(0b010)));
        let [first, second, third] = &rules.allow[..] else {
            panic!("{rules:?}")
        };
        assert_eq!(first.ports, [(22, 22), (8_000, 8_100)]);
        assert_eq!((first.from, first.to), (Groups(0b100), Groups(0b110)));
        assert_eq!((second.protocol, second.from), (Protocol::Icmp, Groups(0)));
        assert_eq!((third.protocol, third.from), (Protocol::Any, Groups(1)));
        let plain = Policy::default();
        assert_eq!(plain.rules(), Rules::default());
        assert_ne!(plain.digest(), policy.digest());
    }

    #[test]
    fn a_rule_that_is_wrong_says_where_and_why() {
        let wrong = |from: &str, to: &str| {
            assert!(EXAMPLE.contains(from), "{from}");
            let error = Policy::from_toml(&EXAMPLE.replacen(from, to, 1)).unwrap_err();
            error.to_string()
        };
        for (from, to, words) in [
            ("\"deny\"", "\"allow\"", "set `traffic = \"deny\"`"),
            ("\"deny\"", "\"some\"", "unknown variant `some`"),
            ("\"tcp\"", "\"sctp\"", "unknown variant `sctp`"),
            (
                "\"tcp\"",
                "\"icmp\"",
                "rule 1: `ports` is set, but must be left out",
            ),
            ("22", "70000", "\"70000\": ports are a number"),
            ("22", "-1", "\"-1\": ports are a number"),
            ("8000-8100", "8100-8000", "the lower one first"),
            ("8000-8100", "http", "\"http\": ports are a number"),
            ("22", "2.5", "ports are a number"),
            ("\"trainer\"]\nto", "\"a b\"]\nto", "`from` names \"a b\""),
            ("[\"store\"]\n\n", "[\"\"]\n\n", "`hub` names \"\""),
            (
                "[22,",
                &format!("[{}", "22,".repeat(16)),
                "`ports` is of 17 entries",
            ),
            (
                "protocol = \"icmp\"",
                "portocol = \"icmp\"",
                "unknown field `portocol`",
            ),
        ] {
            let error = wrong(from, to);
            assert!(error.contains(words), "{to}: {error}");
        }
        let many = format!("traffic = \"deny\"\n{}", "[[allow]]\n".repeat(257));
        let error = Policy::from_toml(&many).unwrap_err().to_string();
        assert!(
            error.contains("257 `[[allow]]` rules, but at most 256"),
            "{error}"
        );
        let groups: Vec<_> = (0..65).map(|at| format!("\"g{at}\"")).collect();
        let error = Policy::from_toml(&format!("hub = [{}]", groups.join(", ")));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("65 groups are named"), "{error}");
    }
}
