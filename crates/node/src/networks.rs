//! Which networks behind peers this machine sends packets to: the ones for which its kernel gets a route into the tunnel,
//! and why not for the others. Decides; the kernel is asked in `io/networks.rs`.
//!
//! Refuses a network that holds an address of the underlay, whose packets would enter the tunnel that they carry, and
//! one of which this machine has a route of its own, to all or to a part: what is connected here is not taken away.

use agent::InSegment;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use tunnel::Range;
use wire::admin::{NodeRoutes, OwnRoute, PeerRoute};
use wire::{NodeName, Prefix};

/// A node's own terms, from its configuration.
#[derive(Debug, Clone, Default)]
pub(crate) struct Terms {
    /// Networks behind it that it carries packets for.
    pub(crate) offers: Vec<Prefix>,
    /// Whether packets go to networks behind peers.
    pub(crate) accepts: bool,
}

/// A network behind a peer, by the epoch in force.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Network {
    pub(crate) prefix: Prefix,
    /// The peer.
    pub(crate) node: NodeName,
}

/// The networks that are to be routed, and what they must not hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Networks {
    pub(crate) behind_peers: Vec<Network>,
    /// Addresses that the tunnel's own datagrams, or those of the control channel, go to.
    pub(crate) underlay: BTreeSet<IpAddr>,
}

/// A route of this machine that is none of ours, but for the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Present {
    pub(crate) prefix: Prefix,
    /// Name of the interface that it leads by, if it does.
    pub(crate) link: Option<String>,
}

/// Why a network has no route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unrouted {
    /// Datagrams to this address carry the tunnel, or the control channel.
    Underlay(IpAddr),
    /// This machine has a route of its own.
    Present(Present),
    /// The kernel refuses it.
    Refused(String),
}

/// A network, and why it has no route if it has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) network: Network,
    pub(crate) unrouted: Option<Unrouted>,
}

impl Terms {
    /// The offers, as the tunnel takes them.
    pub(crate) fn ranges(&self) -> Vec<Range> {
        let offers = self.offers.iter();
        let range = |it: &Prefix| Range::new(it.address(), it.length());
        offers.map(range).collect()
    }

    /// The networks behind peers that packets are to go to; none past the end of a lease that closes.
    pub(crate) fn behind_peers(&self, seen: InSegment<'_>) -> Vec<Network> {
        let view = seen.view();
        let is_member = seen.is_member() == Some(true);
        let update = view.update.filter(|_| is_member && self.accepts);
        let own = seen.place().node;
        let members = update.into_iter().flat_map(|update| {
            let connected = move |it: &&wire::Member| update.connects(&own, &it.node);
            let routers = update.roster.iter().filter(|it| !it.routes.is_empty());
            routers.filter(move |it| it.node != own).filter(connected)
        });
        let networks = members.flat_map(|member| {
            member.routes.iter().map(|prefix| Network {
                prefix: *prefix,
                node: member.name.clone(),
            })
        });
        networks.collect()
    }

    /// Whether the controller has something to hear of the offers: there are some, or the epoch in force has others.
    pub(crate) fn is_news(&self, seen: InSegment<'_>) -> bool {
        let update = seen.view().update;
        let given = update.map_or(&[][..], |it| it.routes_of(&seen.place().node));
        !self.offers.is_empty() || !given.is_empty()
    }

    /// How all of it stands in a segment, with the `outcomes` of its keeper; `None` where it has to do with none.
    /// `forwards` says of a family, IPv4 or not, whether the kernel passes packets on.
    pub(crate) fn status(
        &self,
        seen: InSegment<'_>,
        outcomes: Vec<Outcome>,
        forwards: impl Fn(bool) -> Option<bool>,
    ) -> Option<NodeRoutes> {
        if self.offers.is_empty() && !self.accepts {
            return None;
        }
        let update = seen
            .view()
            .update
            .filter(|_| seen.is_member() == Some(true));
        let given = update.map_or(&[][..], |it| it.routes_of(&seen.place().node));
        let own = self.offers.iter().map(|prefix| {
            let in_force = given.contains(prefix);
            let is_v4 = prefix.address().is_ipv4();
            OwnRoute {
                prefix: *prefix,
                in_force,
                reason: match (update, in_force) {
                    (None, _) => Some(NO_MEMBER.to_owned()),
                    (Some(_), false) => Some(UNAPPROVED.to_owned()),
                    (Some(_), true) if forwards(is_v4) == Some(false) => Some(
                        if is_v4 {
                            NO_FORWARDING_V4
                        } else {
                            NO_FORWARDING_V6
                        }
                        .to_owned(),
                    ),
                    (Some(_), true) => None,
                },
            }
        });
        let peers = outcomes.into_iter().map(|it| PeerRoute {
            prefix: it.network.prefix,
            node: it.network.node,
            routed: it.unrouted.is_none(),
            reason: it.unrouted.map(|it| it.to_string()),
        });
        Some(NodeRoutes {
            accepts: self.accepts,
            own: own.collect(),
            peers: peers.collect(),
        })
    }
}

impl Networks {
    /// Each network, with the reason against it if these routes, or the underlay, are one.
    pub(crate) fn judge(&self, present: &[Present]) -> Vec<Outcome> {
        let judge = |network: &Network| {
            let prefix = network.prefix;
            let mut underlay = self.underlay.iter().map(IpAddr::to_canonical);
            let held = underlay.find(|at| prefix.contains(*at));
            let is_in_the_way = |it: &&Present| {
                it.prefix.overlaps(&prefix) && it.prefix.length() >= prefix.length()
            };
            let own = || present.iter().find(is_in_the_way).cloned();
            let unrouted = held.map(Unrouted::Underlay);
            Outcome {
                network: network.clone(),
                unrouted: unrouted.or_else(|| own().map(Unrouted::Present)),
            }
        };
        self.behind_peers.iter().map(judge).collect()
    }
}

impl fmt::Display for Unrouted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Underlay(address) => write!(
                f,
                "it holds {address}, which the tunnel or the control channel is carried to"
            ),
            Self::Present(Present { prefix, link }) => {
                write!(f, "this machine has a route of its own to {prefix}")?;
                match link {
                    Some(link) => write!(f, " by {link}"),
                    None => Ok(()),
                }
            }
            Self::Refused(error) => write!(f, "the system refuses the route: {error}"),
        }
    }
}

const NO_MEMBER: &str = "this node is no member";
const UNAPPROVED: &str =
    "not approved: `meshctl route approve` at the controller, or another node or segment has it";
const NO_FORWARDING_V4: &str =
    "the kernel does not forward IPv4 from the mesh: sysctl net.ipv4.ip_forward=1";
const NO_FORWARDING_V6: &str =
    "the kernel does not forward IPv6: sysctl net.ipv6.conf.all.forwarding=1";

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').unwrap();
        Prefix::around(address.parse().unwrap(), length.parse().unwrap())
    }

    fn verdicts(networks: &[&str], underlay: &[&str], present: &[&str]) -> Vec<String> {
        let behind = networks.iter().map(|it| Network {
            prefix: prefix(it),
            node: "node-b".parse().unwrap(),
        });
        let networks = Networks {
            behind_peers: behind.collect(),
            underlay: underlay.iter().map(|it| it.parse().unwrap()).collect(),
        };
        let present = present.iter().map(|it| Present {
            prefix: prefix(it),
            link: Some("eth0".into()),
        });
        let outcomes = networks.judge(&present.collect::<Vec<_>>());
        let words = |it: Outcome| it.unrouted.map_or_else(String::new, |it| it.to_string());
        outcomes.into_iter().map(words).collect()
    }

    #[test]
    fn a_network_that_holds_an_address_of_the_underlay_has_no_route() {
        let underlay = ["192.0.2.7", "::ffff:198.51.100.9", "2001:db8::7"];
        let found = verdicts(
            &[
                "10.1.0.0/16",
                "192.0.2.0/24",
                "198.51.100.0/24",
                "2001:db8::/32",
            ],
            &underlay,
            &[],
        );
        assert_eq!(found[0], "");
        for (found, address) in found[1..]
            .iter()
            .zip(["192.0.2.7", "198.51.100.9", "2001:db8::7"])
        {
            let words = format!(
                "it holds {address}, which the tunnel or the control channel is carried to"
            );
            assert_eq!(*found, words);
        }
    }

    #[test]
    fn what_this_machine_has_itself_stays_and_wider_routes_are_no_hindrance() {
        let networks = ["10.1.0.0/16"];
        let found = |present: &[&str]| verdicts(&networks, &[], present).remove(0);
        let own = |it: &str| format!("this machine has a route of its own to {it} by eth0");
        assert_eq!(found(&["10.1.0.0/16"]), own("10.1.0.0/16"));
        assert_eq!(found(&["10.1.7.0/24"]), own("10.1.7.0/24"));
        assert_eq!(found(&["10.1.7.5/32"]), own("10.1.7.5/32"));
        assert_eq!(found(&["10.0.0.0/8", "0.0.0.0/0"]), "");
        assert_eq!(found(&["10.2.0.0/16", "::/0", "fd01::/64"]), "");
    }
}
