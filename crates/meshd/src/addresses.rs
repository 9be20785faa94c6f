//! Settings that hold lists or addresses. Every source splits a list alike: a setting may be repeated, be a
//! list in the file, or have commas in it.

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};
use serde::{Deserialize, Deserializer};
use std::net::{SocketAddr, SocketAddrV6};
use wire::host_port::{Host, HostPort};

/// Reads a list from the file, where one entry needs no brackets.
pub(crate) fn one_or_many<'de, D>(from: D) -> Result<Option<Vec<String>>, D::Error>
where
    D: Deserializer<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a list of texts, or one text")]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Option::deserialize(from)? {
        None => None,
        Some(OneOrMany::One(one)) => Some(vec![one]),
        Some(OneOrMany::Many(many)) => Some(many),
    })
}

/// The entries of a list, without the blanks around them. An empty one is none: a variable that is set to
/// nothing, or a comma at the end.
pub(crate) fn entries(list: Option<&[String]>) -> impl Iterator<Item = &str> {
    let entries = list.into_iter().flatten().flat_map(|text| text.split(','));
    entries.map(str::trim).filter(|entry| !entry.is_empty())
}

/// An address of this machine, where a socket is to be bound; port 0 takes any.
///
/// # Errors
/// When it is none, or has a zone that this machine has not.
pub(crate) fn local(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    match text.parse::<HostPort>().map(|at| (at.host, at.port)) {
        Ok((Host::Zoned(address, zone), port)) => {
            let scope = index(&zone).ok_or_else(|| no_zone(text, &zone))?;
            Ok(SocketAddrV6::new(address, port, 0, scope).into())
        }
        _ => Err(format!("`{text}` is not IP:PORT, as in 127.0.0.1:9743")),
    }
}

/// An address at which peers reach this machine.
///
/// # Errors
/// When it is none, or none that another machine could use.
pub(crate) fn for_peers(text: &str) -> Result<SocketAddr, String> {
    let at: HostPort = text.parse().map_err(|error| format!("`{text}`: {error}"))?;
    match at.host {
        Host::Address(address) => Ok(SocketAddr::new(address, at.port)),
        Host::Name(_) => Err(format!(
            "`{text}` is not IP:PORT: peers are told addresses, not names"
        )),
        Host::Zoned(..) => Err(format!(
            "`{text}` is a link-local address, and a peer cannot know which of its links that means"
        )),
    }
}

fn no_zone(text: &str, zone: &str) -> String {
    format!("`{text}`: this machine has no interface {zone}")
}

fn index(zone: &str) -> Option<u32> {
    if let Ok(number) = zone.parse() {
        return Some(number);
    }
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
    name_to_index(&any, zone).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_split_at_its_commas_however_it_comes() {
        let list = ["a:1, b:2".to_owned(), "c:3,".to_owned(), " ".to_owned()];
        let split: Vec<_> = entries(Some(&list)).collect();
        assert_eq!(split, ["a:1", "b:2", "c:3"]);
        assert_eq!(entries(None).count(), 0);
    }

    #[test]
    fn a_socket_is_bound_to_an_address_of_this_machine_with_its_zone() {
        let bound = |text| local(text).map(|it| it.to_string());
        assert_eq!(bound("[::]:7443"), Ok("[::]:7443".into()));
        assert_eq!(bound("127.0.0.1:0"), Ok("127.0.0.1:0".into()));
        // The loopback interface is always the first.
        assert_eq!(bound("[fe80::1%lo]:7443"), Ok("[fe80::1%1]:7443".into()));
        assert_eq!(bound("[fe80::1%7]:7443"), Ok("[fe80::1%7]:7443".into()));
        for (text, expected) in [
            ("localhost:7443", "is not IP:PORT"),
            ("7443", "is not IP:PORT"),
            ("[fe80::1%no-such-one]:1", "no interface no-such-one"),
        ] {
            let error = local(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn peers_are_told_what_they_can_use() {
        assert!(for_peers("192.0.2.1:51820").is_ok());
        assert!(for_peers("[2001:db8::1]:51820").is_ok());
        for text in ["node.example:51820", "[fe80::1%eth0]:51820", "192.0.2.1:0"] {
            let error = for_peers(text).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }
}
