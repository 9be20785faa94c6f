//! How large the mesh's packets may be: what the paths to the peers carry, less what WireGuard adds.
//! A path that is too narrow for the smallest MTU of IPv6 is no hole: the socket leaves it to IP to
//! fragment (`io/udp.rs`), and the status says that it does.

use crate::guard::Guard;
use crate::io::firewall::{FirewallState, FirewallWatch};
use crate::io::mtu;
use crate::io::udp::PathErrors;
use agent::OVERHEAD_V6;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// MTU of the TUN interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mtu {
    /// As the underlay allows.
    #[default]
    Auto,
    /// So many bytes, [`MIN_MTU`] to [`MAX_MTU`].
    Fixed(u32),
}

/// Smallest MTU that IPv6 allows (RFC 8200, section 5).
pub const MIN_MTU: u32 = 1280;
/// Largest MTU of the TUN interface: a padded packet still fits a datagram.
pub const MAX_MTU: u32 = 65_000;

/// A text that is no [`Mtu`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MtuError {
    /// Neither the word nor a number.
    #[error("neither auto nor a number of bytes")]
    Form,
    /// Too small or too large.
    #[error("not between {MIN_MTU} (below it IPv6 stops working) and {MAX_MTU}")]
    Range,
}

impl FromStr for Mtu {
    type Err = MtuError;

    fn from_str(text: &str) -> Result<Self, MtuError> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let bytes: i64 = text.parse().map_err(|_| MtuError::Form)?;
        u32::try_from(bytes)
            .ok()
            .filter(|bytes| (MIN_MTU..=MAX_MTU).contains(bytes))
            .map(Self::Fixed)
            .ok_or(MtuError::Range)
    }
}

/// The interface's MTU and what it means for the underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fit {
    /// MTU of the TUN interface.
    pub(crate) mtu: u32,
    /// MTU of the narrowest path; `None` while none is known.
    pub(crate) underlay: Option<u32>,
    /// Whether a full packet takes more than one fragment on that path.
    pub(crate) fragments: bool,
}

impl Fit {
    /// Before anything is known of the underlay.
    pub(crate) fn unknown(setting: Mtu) -> Self {
        let mtu = match setting {
            Mtu::Auto => UNKNOWN,
            Mtu::Fixed(mtu) => mtu,
        };
        Self {
            mtu,
            underlay: None,
            fragments: false,
        }
    }

    /// The fit for `paths`, each an address and the MTU of the way there; `None` without any.
    fn to(setting: Mtu, paths: impl IntoIterator<Item = (IpAddr, u32)>) -> Option<Self> {
        let carries = |(to, mtu): (IpAddr, u32)| {
            let overhead = if to.to_canonical().is_ipv4() {
                OVERHEAD_V4
            } else {
                OVERHEAD_V6
            };
            (mtu.saturating_sub(overhead), mtu)
        };
        let (carries, underlay) = paths.into_iter().map(carries).min()?;
        let mtu = match setting {
            Mtu::Auto => carries.clamp(MIN_MTU, MAX_MTU),
            Mtu::Fixed(mtu) => mtu,
        };
        Some(Self {
            mtu,
            underlay: Some(underlay),
            fragments: carries < mtu,
        })
    }
}

/// The TUN interface, as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    /// In bytes.
    pub(crate) mtu: u32,
    /// MTU of the narrowest path, in bytes; `None` while none is known.
    pub(crate) underlay_mtu: Option<u32>,
    /// Whether a full packet takes more than one fragment on that path.
    pub(crate) fragments: bool,
    /// The back end that reads and writes it.
    pub(crate) backend: &'static str,
    /// UDP port of the WireGuard socket.
    pub(crate) listen_port: u16,
    /// Threads that carry packets.
    pub(crate) threads: usize,
}

/// The interface and what the paths to the peers make of it.
pub(crate) struct Underlay {
    /// The setting.
    setting: Mtu,
    /// Its fit to the paths.
    fit: Fit,
    interface: Interface,
    /// Sets its MTU.
    guard: Guard,
    firewall: FirewallWatch,
    path_errors: PathErrors,
    /// Whether they count.
    believes_routers: bool,
}

impl Underlay {
    pub(crate) fn new(
        setting: Mtu,
        interface: Interface,
        guard: Guard,
        firewall: FirewallWatch,
        path_errors: PathErrors,
    ) -> Self {
        Self {
            setting,
            fit: Fit::unknown(setting),
            interface,
            guard,
            firewall,
            path_errors,
            believes_routers: false,
        }
    }

    /// MTU of the TUN interface, in bytes.
    pub(crate) fn mtu(&self) -> u32 {
        self.interface.mtu
    }

    pub(crate) fn listen_port(&self) -> u16 {
        self.interface.listen_port
    }

    pub(crate) fn interface(&self) -> &Interface {
        &self.interface
    }

    pub(crate) fn firewall(&self) -> FirewallState {
        self.firewall.state()
    }

    /// Looks at the paths to `destinations`, beside those that were measured (`narrow`, with the size of a
    /// packet inside the tunnel), and lets the interface follow. The interface's MTU, if that has changed.
    pub(crate) async fn follow(
        &mut self,
        destinations: BTreeSet<SocketAddr>,
        narrow: &[(IpAddr, u32)],
    ) -> Option<u32> {
        // A destination without a route carries nothing, and limits nothing.
        let mut paths = mtu::path_mtus(destinations).await;
        paths.extend(
            narrow
                .iter()
                .map(|(to, packet)| (*to, packet + OVERHEAD_V6)),
        );
        let Some(fit) = Fit::to(self.setting, paths) else {
            // Facts about paths that are gone are not told of those to come.
            (self.interface.underlay_mtu, self.interface.fragments) = (None, false);
            return None;
        };
        let before = std::mem::replace(&mut self.fit, fit);
        self.weigh_path_errors(narrow);
        let mut changed = None;
        if fit.mtu != self.interface.mtu {
            match self.guard.set_mtu(fit.mtu).await {
                Ok(()) => {
                    tracing::info!(
                        mtu = fit.mtu,
                        underlay_mtu = fit.underlay,
                        "MTU follows the underlay"
                    );
                    self.interface.mtu = fit.mtu;
                    changed = Some(fit.mtu);
                }
                Err(error) if fit != before => {
                    tracing::warn!(mtu = fit.mtu, %error, "MTU cannot follow the underlay; trying on");
                }
                Err(_) => {}
            }
        }
        self.show(fit);
        changed
    }

    fn show(&mut self, fit: Fit) {
        // Also when the interface could not be told.
        let fragments = fit.fragments || fit.mtu < self.interface.mtu;
        if fragments && !self.interface.fragments {
            tracing::warn!(
                mtu = self.interface.mtu,
                underlay_mtu = fit.underlay,
                "the underlay is too narrow for full packets: their datagrams are fragmented"
            );
        } else if self.interface.fragments && !fragments {
            tracing::info!(
                mtu = self.interface.mtu,
                underlay_mtu = fit.underlay,
                "the underlay carries full packets again"
            );
        }
        self.interface.underlay_mtu = fit.underlay;
        self.interface.fragments = fragments;
    }

    /// Routers are believed while echoes have shown that a path carries less than full packets, and the
    /// interface cannot follow: then, and not before, an answer of theirs explains what is seen.
    fn weigh_path_errors(&mut self, narrow: &[(IpAddr, u32)]) {
        let believe = narrow.iter().any(|(_, packet)| *packet < self.fit.mtu);
        if believe == self.believes_routers {
            return;
        }
        match self.path_errors.believe(believe) {
            Ok(()) => self.believes_routers = believe,
            Err(error) => tracing::warn!(%error, "datagrams cannot be cut for a narrow path"),
        }
    }
}

/// IPv4, UDP, and WireGuard's header and tag of a data message: 20 + 8 + 16 + 16.
const OVERHEAD_V4: u32 = 60;
/// Fits an underlay of 1500 on either family.
const UNKNOWN: u32 = 1500 - OVERHEAD_V6;

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(setting: Mtu, paths: &[(&str, u32)]) -> Option<(u32, Option<u32>, bool)> {
        let paths = paths.iter().map(|(to, mtu)| (to.parse().unwrap(), *mtu));
        Fit::to(setting, paths).map(|fit| (fit.mtu, fit.underlay, fit.fragments))
    }

    #[test]
    fn each_family_has_its_overhead_and_the_narrowest_path_decides() {
        let auto = |paths: &[(&str, u32)]| fit(Mtu::Auto, paths);
        assert_eq!(auto(&[V4]), Some((1440, Some(1500), false)));
        assert_eq!(auto(&[V6]), Some((1420, Some(1500), false)));
        assert_eq!(auto(&[V4, V6]), Some((1420, Some(1500), false)));
        let (narrow_v4, wide_v6) = (("192.0.2.2", 1400), ("2001:db8::2", 9000));
        assert_eq!(
            auto(&[V4, narrow_v4, wide_v6]),
            Some((1340, Some(1400), false))
        );
        let mapped = ("::ffff:192.0.2.1", 1500);
        assert_eq!(auto(&[mapped]), Some((1440, Some(1500), false)));
        assert_eq!(auto(&[]), None);
    }

    #[test]
    fn the_smallest_mtu_of_ipv6_stays_and_what_it_costs_is_said() {
        let auto = |mtu| fit(Mtu::Auto, &[("192.0.2.1", mtu)]);
        assert_eq!(auto(1340), Some((1280, Some(1340), false)));
        assert_eq!(auto(1339), Some((1280, Some(1339), true)));
        assert_eq!(auto(1280), Some((1280, Some(1280), true)));
        assert_eq!(auto(0), Some((1280, Some(0), true)));
        let v6 = |mtu| fit(Mtu::Auto, &[("2001:db8::1", mtu)]);
        assert_eq!(v6(1360), Some((1280, Some(1360), false)));
        assert_eq!(v6(1359), Some((1280, Some(1359), true)));
    }

    #[test]
    fn wide_links_reach_the_limit_and_not_beyond() {
        let auto = |mtu| fit(Mtu::Auto, &[("127.0.0.1", mtu)]);
        assert_eq!(auto(9000), Some((8940, Some(9000), false)));
        assert_eq!(auto(65_536), Some((65_000, Some(65_536), false)));
        assert_eq!(auto(u32::MAX), Some((65_000, Some(u32::MAX), false)));
    }

    #[test]
    fn a_fixed_mtu_stays_and_is_held_against_the_underlay() {
        let fixed = |mtu, path| fit(Mtu::Fixed(mtu), &[path]);
        assert_eq!(fixed(1300, V4), Some((1300, Some(1500), false)));
        assert_eq!(fixed(1440, V4), Some((1440, Some(1500), false)));
        assert_eq!(fixed(1441, V4), Some((1441, Some(1500), true)));
        assert_eq!(fixed(1440, V6), Some((1440, Some(1500), true)));
        assert_eq!(fit(Mtu::Fixed(1300), &[]), None);
        assert_eq!(Fit::unknown(Mtu::Fixed(1300)).mtu, 1300);
    }

    #[test]
    fn a_setting_is_the_word_or_a_number_in_the_range() {
        assert_eq!("auto".parse(), Ok(Mtu::Auto));
        assert_eq!("1280".parse(), Ok(Mtu::Fixed(1280)));
        assert_eq!("65000".parse(), Ok(Mtu::Fixed(65_000)));
        for text in ["1279", "65001", "0", "-1", "4294968576"] {
            assert_eq!(text.parse::<Mtu>(), Err(MtuError::Range), "{text}");
        }
        for text in ["", "Auto", "1400.0", "large"] {
            assert_eq!(text.parse::<Mtu>(), Err(MtuError::Form), "{text}");
        }
    }

    const V4: (&str, u32) = ("192.0.2.1", 1500);
    const V6: (&str, u32) = ("2001:db8::1", 1500);
}
