//! The declaration of a metric: what the text says about it, and what the documentation lists.

/// A metric, as it is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Whether it may go down.
    pub kind: Kind,
    /// Its whole name, as an operator types it.
    pub name: &'static str,
    /// Its meaning, in one sentence without a full stop.
    pub help: &'static str,
    /// Its label, if it has one.
    pub label: Option<&'static str>,
    /// Whether it has the label `segment` as well, with the name of one for its value.
    pub in_segment: bool,
}

/// Kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from zero at the start.
    Counter,
    /// Goes up and down.
    Gauge,
}

impl Kind {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

impl Metric {
    /// Whether the name is one that this house gives: the prefix, lower case, and `_total` on counters
    /// and on nothing else.
    pub fn is_well_named(&self) -> bool {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        PREFIXES.iter().any(|prefix| self.name.starts_with(prefix))
            && self.name.bytes().all(plain)
            && self.name.ends_with(TOTAL) == (self.kind == Kind::Counter)
    }
}

/// Declares the metrics of a role, each once: a constant whose comment is its help, and `ALL` of them.
///
/// ```
/// exposition::metrics! {
///     /// Packets that were not carried, by reason
///     DROPPED: Counter = "meshd_dropped_packets_total" by "reason";
///     /// Number of the epoch in force
///     EPOCH: Gauge = "meshd_epoch_current" in segment;
/// }
/// assert_eq!(ALL, [DROPPED, EPOCH]);
/// assert_eq!(EPOCH.help, "Number of the epoch in force");
/// ```
#[macro_export]
macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $constant:ident: $kind:ident = $name:literal $(by $label:literal)? $(in $segment:ident)?;)+) => {
        $(
            $(#[doc = $help])+
            #[allow(unreachable_pub, reason = "a role may keep its module to itself")]
            pub const $constant: $crate::Metric = $crate::Metric {
                kind: $crate::Kind::$kind,
                name: $name,
                help: concat!($($help),+).trim_ascii(),
                label: $crate::metrics!(@label $($label)?),
                in_segment: $crate::metrics!(@in $($segment)?),
            };
        )+

        /// All metrics, in the order in which they are written out.
        #[allow(unreachable_pub, reason = "as above")]
        pub const ALL: &[$crate::Metric] = &[$($constant),+];
    };
    (@label $label:literal) => { Some($label) };
    (@label) => { None };
    (@in segment) => { true };
    (@in) => { false };
}

/// Ours, and that of what every client library of Prometheus says of its process.
const PREFIXES: [&str; 2] = ["meshd_", "process_"];
/// The end of a counter's name (OpenMetrics 1.0, section 5.1).
pub(crate) const TOTAL: &str = "_total";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_prefix_and_says_whether_it_counts() {
        let named = |kind, name| Metric {
            kind,
            name,
            help: "",
            label: None,
            in_segment: false,
        };
        for good in [
            named(Kind::Counter, "meshd_drops_total"),
            named(Kind::Gauge, "meshd_epoch_current"),
        ] {
            assert!(good.is_well_named(), "{}", good.name);
        }
        for bad in [
            named(Kind::Counter, "meshd_drops"),
            named(Kind::Gauge, "meshd_drops_total"),
            named(Kind::Gauge, "epoch_current"),
            named(Kind::Gauge, "meshd_epochCurrent"),
        ] {
            assert!(!bad.is_well_named(), "{}", bad.name);
        }
    }
}
