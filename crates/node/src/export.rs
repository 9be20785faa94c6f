//! A configuration in the format of `wg-quick(8)`, for a stock WireGuard in this node's place. Holds
//! secrets, and is made only when an operator asks for it.

use keys::{Epoch, WgSecret};
use std::net::{IpAddr, SocketAddr};
use wire::{Member, Place};

/// This node, as the configuration has it.
pub(crate) struct Own<'a> {
    pub(crate) place: &'a Place,
    pub(crate) secret: &'a WgSecret,
    pub(crate) listen_port: u16,
    pub(crate) mtu: u32,
}

/// The configuration towards one member in one epoch; `psk` is base64.
pub(crate) fn config(
    own: &Own<'_>,
    member: &Member,
    epoch: Epoch,
    psk: &str,
    endpoint: Option<SocketAddr>,
) -> String {
    let secret = own.secret.expose_base64();
    let endpoint = endpoint.map_or_else(String::new, |endpoint| format!("Endpoint = {endpoint}\n"));
    let in_segment = own.place.segment_name.told();
    let in_segment = in_segment.map_or_else(String::new, |name| format!(" in segment {name}"));
    let allowed = [IpAddr::V4(member.v4), IpAddr::V6(member.v6)];
    let [v4, v6] =
        allowed.map(|address| format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 }));
    format!(
        "# {} in place of meshd, towards {}{}, epoch {} only\n\
         [Interface]\nPrivateKey = {}\nListenPort = {}\nAddress = {}/32, {}/128\nMTU = {}\n\n\
         [Peer]\nPublicKey = {}\nPresharedKey = {}\nAllowedIPs = {v4}, {v6}\n{endpoint}PersistentKeepalive = 5\n",
        own.place.name,
        member.name,
        in_segment,
        epoch,
        *secret,
        own.listen_port,
        own.place.v4.0,
        own.place.v6.0,
        own.mtu,
        member.wg.to_base64(),
        psk,
    )
}
