//! How often peers must hear from this node. An address translator forgets who sends nothing, mostly after
//! half a minute, and nobody can reach a node behind it from then on. Decides when to send, and sends
//! nothing.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

/// The setting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Keepalive {
    /// Where a translator is seen.
    #[default]
    Auto,
    /// Never.
    Off,
    /// After this time without a word.
    Every(Duration),
}

/// A text that is no [`Keepalive`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("neither auto, off, nor a number of seconds from 1 to {MAX_SECONDS}")]
pub struct KeepaliveError;

impl FromStr for Keepalive {
    type Err = KeepaliveError;

    fn from_str(text: &str) -> Result<Self, KeepaliveError> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            number => number
                .parse()
                .ok()
                .filter(|seconds| (1..=MAX_SECONDS).contains(seconds))
                .map(|seconds| Self::Every(Duration::from_secs(seconds)))
                .ok_or(KeepaliveError),
        }
    }
}

/// The setting, and what was seen.
#[derive(Debug)]
pub(crate) struct Watch {
    setting: Keepalive,
    mapped: Option<SocketAddr>,
}

impl Watch {
    pub(crate) fn new(setting: Keepalive) -> Self {
        Self {
            setting,
            mapped: None,
        }
    }

    /// The controller sees this node at `mapped`, or at an address of the machine.
    pub(crate) fn handle_seen(&mut self, mapped: Option<SocketAddr>) {
        let was = self.mapped.map(|it| it.ip());
        if was != mapped.map(|it| it.ip()) {
            let keepalive = Self { mapped, ..*self }.every().map(|it| it.as_secs());
            tracing::info!(
                ?keepalive,
                is_mapped = mapped.is_some(),
                "the way out leads through an address translator, or no longer does"
            );
        }
        self.mapped = mapped;
    }

    /// Where the controller sees this node, if that is no address of the machine.
    pub(crate) fn mapped(&self) -> Option<SocketAddr> {
        self.mapped
    }

    /// After how much silence a peer is sent something; `None`: never.
    pub(crate) fn every(&self) -> Option<Duration> {
        match self.setting {
            Keepalive::Auto => self.mapped.map(|_| USUAL),
            Keepalive::Off => None,
            Keepalive::Every(time) => Some(time),
        }
    }
}

/// Within the 30 s after which the hastiest translators forget; what other WireGuards use.
const USUAL: Duration = Duration::from_secs(25);
/// As in `wg(8)`.
const MAX_SECONDS: u64 = 65_535;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_on_where_a_mapping_is_seen_and_a_number_always() {
        let every = |setting, mapped| {
            let mut watch = Watch::new(setting);
            watch.handle_seen(mapped);
            watch.every().map(|it| it.as_secs())
        };
        let seen = Some(SocketAddr::from(([192, 0, 2, 1], 7)));
        assert_eq!(every(Keepalive::Auto, None), None);
        assert_eq!(every(Keepalive::Auto, seen), Some(25));
        assert_eq!(every(Keepalive::Off, seen), None);
        let five = Keepalive::Every(Duration::from_secs(5));
        assert_eq!((every(five, None), every(five, seen)), (Some(5), Some(5)));
    }

    #[test]
    fn a_setting_is_a_word_or_seconds() {
        assert_eq!("auto".parse(), Ok(Keepalive::Auto));
        assert_eq!("off".parse(), Ok(Keepalive::Off));
        let day = Keepalive::Every(Duration::from_secs(65_535));
        assert_eq!("65535".parse(), Ok(day));
        for text in ["", "0", "-1", "65536", "on", "25s", "1.5"] {
            assert_eq!(text.parse::<Keepalive>(), Err(KeepaliveError), "{text}");
        }
    }
}
