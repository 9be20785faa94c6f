//! Where this machine's kernel sends what is meant for the peers. A probe is bound to the tunnel and says nothing of
//! that; applications go where the routes lead. Observes; decides nothing.

use keys::NodeId;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;
use wire::Way;
use wire::visible::few;

/// The ways to one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerWays {
    /// The peer.
    pub node: NodeId,
    /// Its mesh addresses, each with the way there: IPv4, then IPv6.
    pub ways: [(IpAddr, Way); 2],
}

/// The ways to all peers, as the kernel said last.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    peers: HashMap<NodeId, [(IpAddr, Way); 2]>,
    /// The addresses that do not go through the tunnel, by their way, as they were told.
    told: BTreeMap<String, Vec<IpAddr>>,
    /// The ways of peers to this node that are not the tunnel, by their own word, and when they said so.
    theirs: HashMap<NodeId, ([Way; 2], Duration)>,
}

impl Ways {
    /// Takes the kernel's answers; they replace what was known. Tells an operator what has changed.
    pub(crate) fn handle_ways(&mut self, peers: Vec<PeerWays>) {
        let mut astray: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for (address, way) in peers.iter().flat_map(|peer| &peer.ways) {
            if way.is_astray() {
                let addresses = astray.entry(name(way).to_owned()).or_default();
                addresses.push(*address);
            }
        }
        astray.values_mut().for_each(|addresses| addresses.sort());
        // An address of which nothing is known now is neither astray nor back.
        let unknown = |address: &IpAddr| {
            let mut ways = peers.iter().flat_map(|peer| &peer.ways);
            ways.any(|(of, way)| of == address && *way == Way::Unknown)
        };
        let mut told = BTreeMap::new();
        for (way, before) in std::mem::take(&mut self.told) {
            let now = astray.get(&way).map_or(&[][..], Vec::as_slice);
            let (mut kept, mut back) = (Vec::new(), Vec::new());
            for address in before {
                if now.contains(&address) || unknown(&address) {
                    kept.push(address);
                } else {
                    back.push(address);
                }
            }
            if !back.is_empty() {
                tracing::info!(
                    way,
                    addresses = %few(&back, NAMED).unwrap_or_default(),
                    "mesh addresses left that way: they go through the tunnel again, are no peers' any more, or were not asked about of late"
                );
            }
            if !kept.is_empty() {
                told.insert(way, kept);
            }
        }
        for (way, now) in astray {
            let known: &mut Vec<IpAddr> = told.entry(way.clone()).or_default();
            let new: Vec<IpAddr> = now.into_iter().filter(|it| !known.contains(it)).collect();
            if !new.is_empty() {
                tell(&way, &new);
                known.extend(new);
            }
        }
        self.told = told;
        self.peers = peers
            .into_iter()
            .map(|peer| (peer.node, peer.ways))
            .collect();
    }

    /// The ways that are known to all peers but `those`.
    pub(crate) fn but(&self, those: &[PeerWays]) -> impl Iterator<Item = PeerWays> + use<> {
        let mut others = self.peers.clone();
        for PeerWays { node, .. } in those {
            others.remove(node);
        }
        let others = others.into_iter();
        others.map(|(node, ways)| PeerWays { node, ways })
    }

    /// Takes a peer's word on its ways to this node; whether it is another than before.
    pub(crate) fn handle_theirs(&mut self, node: NodeId, ways: [Way; 2], now: Duration) -> bool {
        let ways = ways.map(Way::checked);
        let before = self.theirs.remove(&node).map(|(ways, _)| ways);
        if ways.iter().any(Way::is_astray) {
            self.theirs.insert(node, (ways.clone(), now));
            return before != Some(ways);
        }
        before.is_some()
    }

    /// The faults of a peer's ways to this node's addresses, as far as it has said so lately.
    pub(crate) fn faults_of_theirs(
        &self,
        node: &NodeId,
        own: [IpAddr; 2],
        now: Duration,
    ) -> Vec<String> {
        let known = self.theirs.get(node);
        let known = known.filter(|(_, said)| now.saturating_sub(*said) < THEIRS_LAST);
        let ways = known.into_iter().flat_map(|(ways, _)| ways);
        let faults = ways.zip(own).map(|(way, own)| way.fault_elsewhere(own));
        faults.flatten().collect()
    }

    /// Forgets peers that are none any more.
    pub(crate) fn forget_strangers(&mut self, is_peer: impl Fn(&NodeId) -> bool) {
        self.theirs.retain(|node, _| is_peer(node));
    }

    /// The ways to a peer's two addresses; [`Way::Unknown`] for one that was not asked about.
    pub(crate) fn of(&self, node: &NodeId) -> [Way; 2] {
        let known = self.peers.get(node);
        known.map_or_else(Default::default, |ways| {
            ways.each_ref().map(|(_, way)| way.clone())
        })
    }

    /// The faults of the ways to a peer.
    pub(crate) fn faults(&self, node: &NodeId) -> Vec<String> {
        let ways = self.peers.get(node).into_iter().flatten();
        ways.filter_map(|(address, way)| way.fault(*address))
            .collect()
    }

    /// How many addresses go each way: the tunnel, elsewhere, unknown.
    pub(crate) fn count(&self) -> [u64; 3] {
        let mut counts = [0; 3];
        for (_, way) in self.peers.values().flatten() {
            let at = match way {
                Way::Tunnel => 0,
                Way::Link(_) | Way::Nowhere => 1,
                Way::Unknown => 2,
            };
            counts[at] += 1;
        }
        counts
    }

    /// All that is astray, in a few sentences.
    pub(crate) fn summary(&self) -> Vec<String> {
        let sentences = self.told.iter();
        sentences.map(|(way, them)| sentence(way, them)).collect()
    }
}

fn tell(way: &str, addresses: &[IpAddr]) {
    let said = sentence(way, addresses);
    tracing::warn!(way, "{said}");
}

fn sentence(way: &str, addresses: &[IpAddr]) -> String {
    let list = few(addresses, NAMED).unwrap_or_default();
    let verb = if addresses.len() == 1 { "goes" } else { "go" };
    if way == NOWHERE {
        format!("{list} {verb} nowhere, not through the tunnel: remove that route or rule")
    } else {
        format!("{list} {verb} by way of {way}, not through the tunnel: remove that route")
    }
}

fn name(way: &Way) -> &str {
    match way {
        Way::Link(link) => link,
        Way::Unknown | Way::Tunnel | Way::Nowhere => NOWHERE,
    }
}

/// No interface has this name: a name has at most 15 bytes, and none of them is white space.
const NOWHERE: &str = "no way at all";
/// Addresses that a sentence names.
const NAMED: usize = 3;
/// A peer whose packets go astray says so with each of its reports; one that is gone says it no more.
const THEIRS_LAST: Duration = Duration::from_secs(180);

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8, v4: Way, v6: Way) -> PeerWays {
        PeerWays {
            node: NodeId([n; 32]),
            ways: [
                (IpAddr::from([10, 76, 0, n]), v4),
                (IpAddr::from([0xFD00, 0, 0, 0, 0, 0, 0, u16::from(n)]), v6),
            ],
        }
    }

    fn eth1() -> Way {
        Way::Link("eth1".into())
    }

    #[test]
    fn what_is_astray_is_said_once_by_its_way_and_forgotten_when_it_is_back() {
        let mut ways = Ways::default();
        assert_eq!(ways.of(&NodeId([3; 32])), [Way::Unknown, Way::Unknown]);
        let all = |way: fn() -> Way| (2..7).map(|n| peer(n, way(), Way::Tunnel)).collect();
        ways.handle_ways(all(eth1));
        let summary = [
            "10.76.0.2, 10.76.0.3, 10.76.0.4 and 2 more go by way of eth1, not through the tunnel: remove that route",
        ];
        assert_eq!(ways.summary(), summary);
        assert_eq!(ways.count(), [5, 5, 0]);
        assert_eq!(ways.of(&NodeId([3; 32])), [eth1(), Way::Tunnel]);
        assert_eq!(ways.faults(&NodeId([3; 32])).len(), 1);
        // While nothing is known, it is not back.
        ways.handle_ways(all(|| Way::Unknown));
        assert_eq!(ways.summary(), summary);
        ways.handle_ways(vec![peer(3, Way::Nowhere, Way::Tunnel)]);
        assert_eq!(
            ways.summary(),
            ["10.76.0.3 goes nowhere, not through the tunnel: remove that route or rule"]
        );
        ways.handle_ways(all(|| Way::Tunnel));
        assert!(ways.summary().is_empty());
        assert!(ways.faults(&NodeId([3; 32])).is_empty());
    }

    #[test]
    fn a_peer_whose_packets_go_astray_is_believed_for_as_long_as_it_says_so() {
        let mut ways = Ways::default();
        let (node, own) = (NodeId([1; 32]), ["10.76.0.2".parse().unwrap(); 2]);
        let at = Duration::from_secs;
        let astray = || [Way::Link("eth1".into()), Way::Tunnel];
        assert!(ways.handle_theirs(node, astray(), at(0)));
        assert!(!ways.handle_theirs(node, astray(), at(10)), "it is no news");
        let faults = ways.faults_of_theirs(&node, own, at(189));
        assert_eq!(
            faults,
            ["its packets to 10.76.0.2 go by way of its eth1, not through the tunnel"]
        );
        assert!(ways.faults_of_theirs(&node, own, at(190)).is_empty());
        assert!(ways.handle_theirs(node, Default::default(), at(190)));
        assert!(!ways.handle_theirs(node, Default::default(), at(200)));
        let long = [Way::Link("x".repeat(99)), Way::Unknown];
        assert!(!ways.handle_theirs(node, long, at(200)));
        assert!(ways.faults_of_theirs(&node, own, at(200)).is_empty());
    }
}
