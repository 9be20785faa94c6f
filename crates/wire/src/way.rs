//! Where a system sends what is meant for a mesh address. It should be the tunnel; a more specific route, an
//! overlapping address or a rule makes it another link, or none.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Most bytes of an interface's name: `IFNAMSIZ` less the zero (linux/if.h).
pub const MAX_LINK_NAME: usize = 15;

/// Where a system sends packets to a peer's mesh address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Way {
    /// The system did not say, or was not asked yet.
    #[default]
    Unknown,
    /// Into the tunnel.
    Tunnel,
    /// Out by this interface; at most [`MAX_LINK_NAME`] bytes.
    Link(String),
    /// Nowhere: there is no route, or one that refuses.
    Nowhere,
}

impl Way {
    /// Whether applications reach the peer by the tunnel.
    #[must_use]
    pub fn is_tunnel(&self) -> bool {
        matches!(self, Self::Tunnel)
    }

    /// Whether it is known not to be the tunnel.
    #[must_use]
    pub fn is_astray(&self) -> bool {
        matches!(self, Self::Link(_) | Self::Nowhere)
    }

    /// The fault of the way that another machine's packets take to this one's `address`.
    #[must_use]
    pub fn fault_elsewhere(&self, address: IpAddr) -> Option<String> {
        match self {
            Self::Unknown | Self::Tunnel => None,
            Self::Link(link) => Some(format!(
                "its packets to {address} go by way of its {link}, not through the tunnel"
            )),
            Self::Nowhere => Some(format!(
                "its packets to {address} go nowhere there, not through the tunnel"
            )),
        }
    }

    /// The fault of the way to `address`, and the way out; `None` for the tunnel, and when nothing is known.
    #[must_use]
    pub fn fault(&self, address: IpAddr) -> Option<String> {
        match self {
            Self::Unknown | Self::Tunnel => None,
            Self::Link(link) => Some(format!(
                "{address} goes by way of {link}, not through the tunnel: remove that route"
            )),
            Self::Nowhere => Some(format!(
                "{address} goes nowhere, not through the tunnel: remove that route or rule"
            )),
        }
    }

    /// The same, if its name can be an interface's: another machine's word is bounded.
    #[must_use]
    pub fn checked(self) -> Self {
        match self {
            Self::Link(name) if name.is_empty() || name.len() > MAX_LINK_NAME => Self::Unknown,
            way => way,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_that_is_not_the_tunnel_names_itself_and_the_way_out() {
        let address = "10.76.0.3".parse().unwrap();
        assert_eq!(Way::Tunnel.fault(address), None);
        assert_eq!(Way::Unknown.fault(address), None);
        let astray = Way::Link("eth1".into()).fault(address).unwrap();
        assert_eq!(
            astray,
            "10.76.0.3 goes by way of eth1, not through the tunnel: remove that route"
        );
        assert!(Way::Nowhere.fault(address).is_some());
        let long = Way::Link("a".repeat(MAX_LINK_NAME + 1));
        assert_eq!(long.checked(), Way::Unknown);
    }
}
