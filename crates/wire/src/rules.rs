//! The rules of a segment, as an update carries them: which members connect, and what they may send to each other.
//!
//! Members say with one number which of the groups they are in that the rules name. A roster of thousands thus
//! repeats no name.

use serde::{Deserialize, Serialize};

/// Most groups that the rules of a segment name: a member's are the bits of one number.
pub const MAX_GROUPS: usize = 64;
/// Longest name of a group, in bytes.
pub const MAX_GROUP_LEN: usize = 64;
/// Most rules of a segment.
pub const MAX_RULES: usize = 256;
/// Most ranges of ports in a rule.
pub const MAX_PORT_RANGES: usize = 16;

/// The rules of who connects, and what passes between members.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// The groups that the rules name, in strictly increasing order; a group's bit is its place here.
    pub groups: Vec<String>,
    /// The fate of what no rule is about.
    pub traffic: Traffic,
    /// The rules; empty unless everything else is denied.
    pub allow: Vec<Allow>,
    /// Members of these connect to everybody, and others to them alone; none: every two members connect.
    pub hubs: Groups,
}

/// The fate of what no rule is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Traffic {
    /// It passes.
    #[default]
    Allow,
    /// It is dropped by the member that receives it.
    Deny,
}

/// Some of the groups of [`Rules::groups`], as bits.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Groups(pub u64);

/// The protocol that a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Every one.
    Any,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and ICMPv6.
    Icmp,
}

/// A rule: what it is about passes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allow {
    /// The protocol.
    pub protocol: Protocol,
    /// Destination ports of TCP or UDP, from the first to the last of each range; none: all.
    pub ports: Vec<(u16, u16)>,
    /// The senders, by their groups; none: every member.
    pub from: Groups,
    /// The receivers, likewise.
    pub to: Groups,
}

impl Groups {
    /// Whether it is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether any group is in both.
    pub fn shares(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl Rules {
    /// The groups of these names, as far as the rules name them.
    pub fn groups_of<'n>(&self, names: impl IntoIterator<Item = &'n String>) -> Groups {
        let places = names
            .into_iter()
            .map(|name| self.groups.binary_search(name));
        let bits = places.flatten().filter_map(|place| {
            let place = u32::try_from(place).ok()?;
            1_u64.checked_shl(place)
        });
        Groups(bits.fold(0, |all, bit| all | bit))
    }

    /// The names of groups.
    pub fn names(&self, groups: Groups) -> impl Iterator<Item = &str> {
        let places = self.groups.iter().zip(0_u32..);
        let named =
            places.filter(move |(_, place)| groups.0.checked_shr(*place).unwrap_or(0) & 1 == 1);
        named.map(|(name, _)| name.as_str())
    }

    /// A rule in words.
    pub fn words(&self, allow: &Allow) -> String {
        let protocol = match allow.protocol {
            Protocol::Any => "everything",
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Icmp => "icmp",
        };
        let ports = allow.ports.iter().map(|(first, last)| match first == last {
            true => format!(" {first}"),
            false => format!(" {first}-{last}"),
        });
        let ports = ports.collect::<Vec<_>>().join(",");
        let groups = |groups: Groups| match groups.is_empty() {
            true => "any member".to_owned(),
            false => self.names(groups).collect::<Vec<_>>().join(", "),
        };
        let (from, to) = (groups(allow.from), groups(allow.to));
        format!("{protocol}{ports} from {from} to {to}")
    }

    /// Whether two members in these groups have a tunnel.
    pub fn connect(&self, one: Groups, other: Groups) -> bool {
        self.hubs.is_empty() || self.hubs.shares(one) || self.hubs.shares(other)
    }

    /// Checks what the encoding cannot say.
    ///
    /// # Errors
    /// Names the first rule of the format that does not hold.
    pub fn check(&self) -> Result<(), &'static str> {
        let named = self.allow.iter();
        let named = named.fold(self.hubs.0, |all, it| all | it.from.0 | it.to.0);
        let known = match u32::try_from(self.groups.len()) {
            Ok(0) => 0,
            Ok(many) => u64::MAX
                .checked_shr(64_u32.saturating_sub(many))
                .unwrap_or(0),
            Err(_) => 0,
        };
        let ports = |it: &Allow| {
            let has_ports = matches!(it.protocol, Protocol::Tcp | Protocol::Udp);
            has_ports || it.ports.is_empty()
        };
        let rules = [
            (self.groups.len() <= MAX_GROUPS, "too many groups"),
            (
                self.groups.iter().all(|name| is_group(name)),
                "no name of a group",
            ),
            (
                self.groups.is_sorted_by(|a, b| a < b),
                "groups out of order",
            ),
            (self.allow.len() <= MAX_RULES, "too many traffic rules"),
            (
                self.traffic == Traffic::Deny || self.allow.is_empty(),
                "traffic rules where everything passes",
            ),
            (named & !known == 0, "a rule for a group without a name"),
            (
                self.allow
                    .iter()
                    .all(|it| it.ports.len() <= MAX_PORT_RANGES),
                "too many ranges of ports",
            ),
            (
                self.allow.iter().all(ports),
                "ports of a protocol that has none",
            ),
            (
                self.allow
                    .iter()
                    .all(|it| it.ports.iter().all(|(first, last)| first <= last)),
                "a range of ports that ends before it begins",
            ),
        ];
        rules
            .iter()
            .find(|(holds, _)| !holds)
            .map_or(Ok(()), |(_, rule)| Err(*rule))
    }
}

/// Whether a text is the name of a group: 1 to [`MAX_GROUP_LEN`] letters, digits, dots, dashes and underscores.
pub fn is_group(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=MAX_GROUP_LEN).contains(&name.len()) && name.chars().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            groups: vec!["store".into(), "trainer".into()],
            traffic: Traffic::Deny,
            allow: vec![Allow {
                protocol: Protocol::Tcp,
                ports: vec![(22, 22), (8_000, 8_100)],
                from: Groups(0b10),
                to: Groups(0b01),
            }],
            hubs: Groups(0b01),
        }
    }

    #[test]
    fn a_group_is_a_bit_by_its_place_and_unknown_ones_are_none() {
        let rules = rules();
        let of = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            rules.groups_of(&names)
        };
        assert_eq!(of(&["trainer", "other"]), Groups(0b10));
        assert_eq!(of(&["store", "trainer"]), Groups(0b11));
        assert_eq!(of(&["", "stor"]), Groups(0));
        let names: Vec<_> = rules.names(Groups(0b10)).collect();
        assert_eq!(names, ["trainer"]);
        let many = Rules {
            groups: (0..64).map(|at| format!("group-{at:02}")).collect(),
            ..Rules::default()
        };
        assert_eq!(many.groups_of(&many.groups), Groups(u64::MAX));
        assert_eq!(
            many.names(Groups(1 << 63)).collect::<Vec<_>>(),
            ["group-63"]
        );
    }

    #[test]
    fn a_rule_is_said_in_words() {
        let rules = rules();
        let words = rules.words(&rules.allow[0]);
        assert_eq!(words, "tcp 22, 8000-8100 from trainer to store");
        let any = Allow {
            protocol: Protocol::Any,
            ports: Vec::new(),
            from: Groups(0),
            to: Groups(0b11),
        };
        let words = rules.words(&any);
        assert_eq!(words, "everything from any member to store, trainer");
    }

    #[test]
    fn without_hubs_all_connect_and_with_them_a_pair_needs_one() {
        let (hub, leaf) = (Groups(0b01), Groups(0b10));
        let rules = rules();
        assert!(rules.connect(hub, leaf) && rules.connect(leaf, hub) && rules.connect(hub, hub));
        assert!(!rules.connect(leaf, leaf) && !rules.connect(Groups(0), leaf));
        let mesh = Rules::default();
        assert!(mesh.connect(leaf, leaf) && mesh.connect(Groups(0), Groups(0)));
    }

    #[test]
    fn limits_hold() {
        assert_eq!(rules().check(), Ok(()));
        assert_eq!(Rules::default().check(), Ok(()));
        type Breakage = (fn(&mut Rules), &'static str);
        let breakages: [Breakage; 10] = [
            (|r| r.groups.reverse(), "groups out of order"),
            (|r| r.groups[1] = "store".into(), "groups out of order"),
            (|r| r.groups[1] = "a b".into(), "no name of a group"),
            (|r| r.groups[1] = "x".repeat(65), "no name of a group"),
            (
                |r| r.groups = (0..65).map(|at| format!("{at:02}")).collect(),
                "too many groups",
            ),
            (
                |r| r.allow = vec![r.allow[0].clone(); 257],
                "too many traffic rules",
            ),
            (
                |r| r.traffic = Traffic::Allow,
                "traffic rules where everything passes",
            ),
            (
                |r| r.hubs = Groups(0b100),
                "a rule for a group without a name",
            ),
            (
                |r| r.allow[0].ports = vec![(1, 1); 17],
                "too many ranges of ports",
            ),
            (
                |r| r.allow[0].ports = vec![(2, 1)],
                "a range of ports that ends before it begins",
            ),
        ];
        for (breakage, rule) in breakages {
            let mut broken = rules();
            breakage(&mut broken);
            assert_eq!(broken.check(), Err(rule));
        }
        let mut broken = rules();
        broken.allow[0].protocol = Protocol::Icmp;
        assert_eq!(broken.check(), Err("ports of a protocol that has none"));
    }
}
