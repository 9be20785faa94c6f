//! How large the mesh's packets may be: what the paths to the peers carry, less what WireGuard adds. The
//! interface has one MTU, which the kernel's own knowledge of routes and links decides. A path that was
//! measured to carry less has a route of its own: it narrows the way to one peer. One that is too narrow
//! for the smallest MTU of IPv6 is no hole where IP can fragment (`io/udp.rs`), and the status says so.

use crate::guard::Guard;
use crate::io::firewall::{FirewallState, FirewallWatch};
use crate::io::host_routes::Routes;
use crate::io::mtu;
use crate::io::sources::Sources;
use crate::io::udp::PathErrors;
use agent::{OVERHEAD_V6, PathLimit, overhead};
use std::collections::{BTreeMap, BTreeSet};
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
        let carries = |(to, mtu): (IpAddr, u32)| (mtu.saturating_sub(overhead(to)), mtu);
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

    /// The same, with a path that was measured to be narrow. With `auto`, packets to its peer are held to
    /// what passes, down to the smallest MTU of IPv6.
    fn with(self, setting: Mtu, path: &PathLimit) -> Self {
        let Some(proven) = path.proven.filter(|_| path.is_narrow) else {
            return self;
        };
        let mtu = proven + overhead(path.endpoint);
        let largest = match setting {
            Mtu::Auto => MIN_MTU,
            Mtu::Fixed(mtu) => mtu,
        };
        Self {
            underlay: self.underlay.into_iter().chain([mtu]).min(),
            fragments: self.fragments || proven < largest,
            ..self
        }
    }
}

/// The routes that hold packets to what was measured, under an interface with this MTU. A number that the
/// operator chose stays what it is.
fn routes(setting: Mtu, interface: u32, paths: &[PathLimit]) -> BTreeMap<IpAddr, u32> {
    let narrower = paths.iter().filter(|path| path.limit < interface);
    let each = narrower.flat_map(|path| {
        let v6 = path.limit.max(MIN_MTU);
        let v6 = (v6 < interface).then_some((IpAddr::V6(path.v6), v6));
        [(IpAddr::V4(path.v4), path.limit)].into_iter().chain(v6)
    });
    match setting {
        Mtu::Auto => each.collect(),
        Mtu::Fixed(_) => BTreeMap::new(),
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
    /// The MTUs that they were last to have.
    wanted: Routes,
    /// Whether they could be set when they were last looked at.
    has_routes: bool,
    /// The least MTU of packets, which super-packets are made for.
    least: u32,
    /// Sets its MTU.
    guard: Guard,
    firewall: FirewallWatch,
    path_errors: PathErrors,
    /// Whether they count.
    believes_routers: bool,
    sources: Sources,
}

impl Underlay {
    pub(crate) fn new(
        setting: Mtu,
        (interface, guard): (Interface, Guard),
        firewall: FirewallWatch,
        path_errors: PathErrors,
    ) -> Self {
        Self {
            setting,
            fit: Fit::unknown(setting),
            wanted: BTreeMap::new(),
            has_routes: true,
            least: interface.mtu,
            interface,
            guard,
            firewall,
            path_errors,
            believes_routers: false,
            sources: Sources::default(),
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

    /// Looks at the ways to peers; those to which the system goes another way than before.
    pub(crate) fn moved(&mut self, peers: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
        self.sources.moved(peers)
    }

    /// MTU of packets to a peer, in bytes, as its path makes it.
    pub(crate) fn mtu_to(&self, path: Option<&PathLimit>) -> u32 {
        match (self.setting, path) {
            (Mtu::Auto, Some(path)) => path.limit.min(self.mtu()),
            (Mtu::Auto | Mtu::Fixed(_), _) => self.mtu(),
        }
    }

    /// Looks at the ways to `destinations` and lets the interface follow; what is shown also tells of
    /// `paths`, which were measured. The interface's MTU, if that has changed.
    pub(crate) async fn follow(
        &mut self,
        destinations: BTreeSet<SocketAddr>,
        paths: &[PathLimit],
    ) -> Option<u32> {
        // A destination without a route carries nothing, and limits nothing.
        let ways = mtu::path_mtus(destinations).await;
        let changed = match Fit::to(self.setting, ways) {
            Some(fit) => self.follow_links(fit, paths).await,
            None => {
                // Facts about paths that are gone are not told of those to come.
                (self.interface.underlay_mtu, self.interface.fragments) = (None, false);
                None
            }
        };
        if changed.is_some() {
            // Super-packets are made for the new MTU.
            self.least = self.mtu();
        }
        changed
    }

    /// Holds packets to each peer to what its path carries. If nothing is new, only with `again`: somebody
    /// else may have changed the routes.
    pub(crate) async fn hold(&mut self, paths: &[PathLimit], again: bool) {
        let routes = routes(self.setting, self.interface.mtu, paths);
        if !again && routes == self.wanted {
            return;
        }
        self.wanted.clone_from(&routes);
        let least = routes.values().copied().min().unwrap_or(self.mtu());
        let is_news = std::mem::replace(&mut self.least, least) != least;
        let followed = self.guard.hold(routes, is_news.then_some(least)).await;
        if let (true, Err(error)) = (self.has_routes, &followed) {
            tracing::warn!(%error, "packets to a peer cannot be held to what its path carries; trying on");
        }
        self.has_routes = followed.is_ok();
    }

    async fn follow_links(&mut self, fit: Fit, paths: &[PathLimit]) -> Option<u32> {
        let before = std::mem::replace(&mut self.fit, fit);
        self.weigh_path_errors(paths);
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
        let with = |fit: Fit, path| fit.with(self.setting, path);
        self.show(paths.iter().fold(fit, with));
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

    /// Routers are believed while echoes have shown that a path carries less than the smallest MTU of IPv6,
    /// and packets cannot follow: then, and not before, an answer of theirs explains what is seen.
    fn weigh_path_errors(&mut self, paths: &[PathLimit]) {
        let is_too_narrow = |path: &PathLimit| {
            let is_v6 = !path.endpoint.to_canonical().is_ipv4();
            is_v6 && path.proven.is_some_and(|proven| proven < MIN_MTU)
        };
        let believe = paths.iter().any(is_too_narrow);
        if believe == self.believes_routers {
            return;
        }
        match self.path_errors.believe(believe) {
            Ok(()) => self.believes_routers = believe,
            Err(error) => tracing::warn!(%error, "datagrams cannot be cut for a narrow path"),
        }
    }
}

impl Drop for Underlay {
    fn drop(&mut self) {
        // Those of other segments may still believe them.
        if self.believes_routers
            && let Err(error) = self.path_errors.believe(false)
        {
            tracing::debug!(%error, "datagrams may still be cut for a path that is gone");
        }
    }
}

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
    fn a_narrow_path_narrows_the_way_to_its_peer_and_no_other() {
        let path = |n: u8, proven: Option<u32>, limit| PathLimit {
            endpoint: "192.0.2.1".parse().unwrap(),
            v4: [10, 0, 0, n].into(),
            v6: std::net::Ipv6Addr::from(u128::from(n)),
            proven,
            is_narrow: limit < 8940,
            limit,
        };
        let paths = [
            path(1, Some(8940), 8940),
            path(2, Some(1440), 1440),
            path(3, Some(1104), 1104),
            path(4, None, 1280),
        ];
        let set = routes(Mtu::Auto, 8940, &paths);
        let mtus: Vec<u32> = set.into_values().collect();
        // Over IPv6 nothing is held to less than IPv6 promises.
        assert_eq!(mtus, [1440, 1104, 1280, 1440, 1280, 1280]);
        assert!(routes(Mtu::Fixed(8940), 8940, &paths).is_empty());
        let shown = |setting, count| {
            let fit = Fit::to(setting, [("192.0.2.1".parse().unwrap(), 9000)]).unwrap();
            let with = |fit: Fit, path| fit.with(setting, path);
            let fit = paths[..count].iter().fold(fit, with);
            (fit.mtu, fit.underlay, fit.fragments)
        };
        assert_eq!(shown(Mtu::Auto, 1), (8940, Some(9000), false));
        assert_eq!(shown(Mtu::Auto, 2), (8940, Some(1500), false));
        assert_eq!(shown(Mtu::Auto, 3), (8940, Some(1164), true));
        assert_eq!(shown(Mtu::Fixed(8940), 2), (8940, Some(1500), true));
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
