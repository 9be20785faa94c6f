//! Address families: two machines that have none in common cannot reach each other, whatever else is well.

use std::net::IpAddr;

/// Why a machine at the addresses `own` and its peer at `peer` cannot reach each other, if each has only the
/// family that the other lacks. Nothing is said where one of them has no address, or one for its own machine.
pub fn none_in_common(
    own: impl IntoIterator<Item = IpAddr>,
    peer: impl IntoIterator<Item = IpAddr>,
) -> Option<String> {
    let (own, peer) = (only(own)?, only(peer)?);
    (own != peer).then(|| {
        format!(
            "no common address family: this node has {own} addresses only, and the peer {peer} addresses only"
        )
    })
}

/// The only family of some addresses.
fn only(addresses: impl IntoIterator<Item = IpAddr>) -> Option<&'static str> {
    let mut only = None;
    for address in addresses {
        let address = address.to_canonical();
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        if address.is_loopback() || only.is_some_and(|only| only != family) {
            return None;
        }
        only = Some(family);
    }
    only
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_of_one_family_each_have_none_in_common() {
        let at = |texts: &[&str]| -> Vec<IpAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let none = |own: &[&str], peer: &[&str]| none_in_common(at(own), at(peer));
        let said = none(&["192.0.2.1"], &["2001:db8::1", "2001:db8::2"]).unwrap();
        assert!(said.contains("this node has IPv4 addresses only"), "{said}");
        assert!(none(&["2001:db8::1"], &["::ffff:192.0.2.1"]).is_some());
        for (own, peer) in [
            (&["192.0.2.1"][..], &["192.0.2.2"][..]),
            (&["192.0.2.1", "2001:db8::1"], &["2001:db8::2"]),
            (&["192.0.2.1"], &["2001:db8::2", "192.0.2.2"]),
            (&[], &["192.0.2.2"]),
            (&["192.0.2.1"], &["::1"]),
        ] {
            assert_eq!(none(own, peer), None, "{own:?} {peer:?}");
        }
    }
}
