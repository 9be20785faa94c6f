//! The answer to one scrape: values in the order of their declaration, as text in the format that the scraper reads.

use crate::metric::{Kind, Metric, TOTAL};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::fmt;

/// How a page is written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format of Prometheus, version 0.0.4, which everything reads.
    Plain,
}

impl Format {
    /// The format for a request with this `Accept` header: OpenMetrics for those who name it, and want it no less than
    /// the one that everything reads.
    pub fn accepted(accept: Option<&str>) -> Self {
        let ranges: Vec<(String, f32)> = accept.map(ranges).unwrap_or_default();
        let best_of = |names: &[&str]| {
            let named = ranges.iter().filter(|(it, _)| names.contains(&it.as_str()));
            named.map(|(_, weight)| *weight).max_by(f32::total_cmp)
        };
        // The range that names it most closely has its weight.
        let plain = best_of(&["text/plain"]);
        let plain = plain.or_else(|| best_of(&["text/*"]));
        let plain = plain.or_else(|| best_of(&["*/*"])).unwrap_or(0.0);
        match best_of(&["application/openmetrics-text"]) {
            Some(weight) if weight > 0.0 && weight >= plain => Self::OpenMetrics,
            _ => Self::Plain,
        }
    }

    /// The media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The media ranges of an `Accept` header in small letters, with their weights: neither names nor parameters depend on
/// their letters' case (RFC 9110, section 12.5.1). A weight that is no number is that of none.
fn ranges(accept: &str) -> Vec<(String, f32)> {
    let range = |range: &str| {
        let range = range.to_ascii_lowercase();
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_owned();
        let mut weights =
            parts.filter_map(|it| it.split_once('=').filter(|(key, _)| key.trim() == "q"));
        let weight = weights
            .next()
            .and_then(|(_, weight)| weight.trim().parse().ok());
        (name, weight.unwrap_or(1.0))
    };
    accept.split(',').map(range).collect()
}

/// Metrics with their values at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    families: Vec<(Metric, Vec<Sample>)>,
}

/// A value with its labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The name of the segment, if the metric is in one.
    pub segment: Option<String>,
    /// The label's value, if the metric has a label.
    pub label: Option<&'static str>,
    /// The number.
    pub value: Value,
}

/// A metric's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A number of things.
    Count(u64),
    /// An amount.
    Amount(f64),
}

impl Page {
    /// Adds a metric without a label.
    pub fn put(&mut self, metric: Metric, value: impl Into<Value>) {
        self.add(metric, [(None, None, value.into())]);
    }

    /// Adds a metric with every value of its label.
    pub fn put_each<V: Into<Value>>(
        &mut self,
        metric: Metric,
        samples: impl IntoIterator<Item = (&'static str, V)>,
    ) {
        let samples = samples.into_iter();
        let samples = samples.map(|(label, value)| (None, Some(label), value.into()));
        self.add(metric, samples);
    }

    /// Adds a metric that is in segments, without another label.
    pub fn put_in<'a, S, V: Into<Value>>(
        &mut self,
        metric: Metric,
        segments: impl IntoIterator<Item = &'a S>,
        value: impl Fn(&'a S) -> (&'a str, V),
    ) where
        S: 'a,
    {
        let samples = segments.into_iter().map(|segment| {
            let (name, value) = value(segment);
            (Some(name.to_owned()), None, value.into())
        });
        self.add(metric, samples.collect::<Vec<_>>());
    }

    /// Adds a metric that is in segments, with every value of its label in each.
    pub fn put_each_in<'a, S, V: Into<Value>, I: IntoIterator<Item = (&'static str, V)>>(
        &mut self,
        metric: Metric,
        segments: impl IntoIterator<Item = &'a S>,
        values: impl Fn(&'a S) -> (&'a str, I),
    ) where
        S: 'a,
    {
        let mut samples = Vec::new();
        for segment in segments {
            let (name, values) = values(segment);
            let of = |(label, value): (_, V)| (Some(name.to_owned()), Some(label), value.into());
            samples.extend(values.into_iter().map(of));
        }
        self.add(metric, samples);
    }

    fn add(
        &mut self,
        metric: Metric,
        samples: impl IntoIterator<Item = (Option<String>, Option<&'static str>, Value)>,
    ) {
        let sample = |(segment, label, value): (Option<String>, Option<_>, _)| {
            let fits = (segment.is_some(), label.is_some());
            debug_assert!(
                fits == (metric.in_segment, metric.label.is_some()),
                "{} has other labels",
                metric.name
            );
            Sample {
                segment,
                label,
                value,
            }
        };
        let samples = samples.into_iter().map(sample).collect();
        self.families.push((metric, samples));
    }

    /// Everything that was added, in order.
    pub fn families(&self) -> impl Iterator<Item = (&Metric, &[Sample])> {
        self.families
            .iter()
            .map(|(metric, samples)| (metric, samples.as_slice()))
    }

    /// The page in a format.
    pub fn text(self, format: Format) -> String {
        let counters: Vec<&'static str> = self
            .families
            .iter()
            .filter_map(|(metric, _)| metric.name.strip_suffix(TOTAL))
            .collect();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)
            .expect("a string takes whatever is written");
        match format {
            Format::OpenMetrics => text,
            Format::Plain => plain(&text, &counters),
        }
    }
}

/// OpenMetrics in the older format, where the description of a counter has its whole name, and nothing marks the end.
fn plain(text: &str, counters: &[&str]) -> String {
    let mut plain = String::with_capacity(text.len() + counters.len() * 2 * TOTAL.len());
    for line in text.lines().filter(|line| *line != "# EOF") {
        let described = ["# HELP ", "# TYPE "].into_iter().find_map(|head| {
            let (name, rest) = line.strip_prefix(head)?.split_once(' ')?;
            counters.contains(&name).then_some((head, name, rest))
        });
        match described {
            Some((head, name, rest)) => plain.extend([head, name, TOTAL, " ", rest, "\n"]),
            None => plain.extend([line, "\n"]),
        }
    }
    plain
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (metric, samples) in &self.families {
            let (name, kind) = match metric.kind {
                // The encoder writes the suffix itself.
                Kind::Counter => (
                    metric.name.strip_suffix(TOTAL).unwrap_or(metric.name),
                    MetricType::Counter,
                ),
                Kind::Gauge => (metric.name, MetricType::Gauge),
            };
            let mut family = encoder.encode_descriptor(name, metric.help, None, kind)?;
            for sample in samples {
                let segment = sample.segment.as_deref().map(|name| (SEGMENT, name));
                let labels = segment.into_iter().chain(metric.label.zip(sample.label));
                let labels: Vec<(&str, &str)> = labels.collect();
                match &labels[..] {
                    [] => sample.value.write(metric.kind, &mut family)?,
                    labels => {
                        let mut one = family.encode_family(&labels)?;
                        sample.value.write(metric.kind, &mut one)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Value {
    fn write(self, kind: Kind, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        match (kind, self) {
            (Kind::Counter, Self::Count(count)) => {
                encoder.encode_counter::<NoLabelSet, _, u64>(&count, None)
            }
            (Kind::Counter, Self::Amount(amount)) => {
                encoder.encode_counter::<NoLabelSet, _, u64>(&amount, None)
            }
            // The library counts gauges with a sign.
            (Kind::Gauge, Self::Count(count)) => {
                encoder.encode_gauge(&i64::try_from(count).unwrap_or(i64::MAX))
            }
            (Kind::Gauge, Self::Amount(amount)) => encoder.encode_gauge(&amount),
        }
    }
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<usize> for Value {
    fn from(count: usize) -> Self {
        Self::Count(u64::try_from(count).unwrap_or(u64::MAX))
    }
}

impl From<bool> for Value {
    fn from(yes: bool) -> Self {
        Self::Count(u64::from(yes))
    }
}

impl From<f64> for Value {
    fn from(amount: f64) -> Self {
        Self::Amount(amount)
    }
}

/// The label of metrics that are in segments.
const SEGMENT: &str = "segment";

#[cfg(test)]
mod tests {
    use super::*;

    crate::metrics! {
        /// Things,
        /// by kind
        THINGS: Counter = "meshd_things_total" by "kind";
        /// Whether it is on
        ON: Gauge = "meshd_on";
        /// Time left
        LEFT: Gauge = "meshd_left_seconds";
        /// Number of the epoch
        EPOCH: Gauge = "meshd_epoch" in segment;
        /// Peers
        PEERS: Gauge = "meshd_peers" by "state" in segment;
    }

    #[test]
    fn a_page_is_openmetrics_text_in_the_order_of_its_making() {
        let mut page = Page::default();
        page.put_each(THINGS, [("odd", 3_u64), ("even", 0)]);
        page.put(ON, true);
        page.put(LEFT, 1.5);
        let segments = [("infer", 7_u64), ("train", 8)];
        page.put_in(EPOCH, &segments, |it| (it.0, it.1));
        page.put_each_in(PEERS, &segments, |it| (it.0, [("up", it.1), ("down", 0)]));
        let made: Vec<Metric> = page.families().map(|(metric, _)| *metric).collect();
        assert_eq!(made, ALL);
        assert_eq!(
            page.clone().text(Format::OpenMetrics),
            "# HELP meshd_things Things, by kind\n\
             # TYPE meshd_things counter\n\
             meshd_things_total{kind=\"odd\"} 3\n\
             meshd_things_total{kind=\"even\"} 0\n\
             # HELP meshd_on Whether it is on\n\
             # TYPE meshd_on gauge\n\
             meshd_on 1\n\
             # HELP meshd_left_seconds Time left\n\
             # TYPE meshd_left_seconds gauge\n\
             meshd_left_seconds 1.5\n\
             # HELP meshd_epoch Number of the epoch\n\
             # TYPE meshd_epoch gauge\n\
             meshd_epoch{segment=\"infer\"} 7\n\
             meshd_epoch{segment=\"train\"} 8\n\
             # HELP meshd_peers Peers\n\
             # TYPE meshd_peers gauge\n\
             meshd_peers{segment=\"infer\",state=\"up\"} 7\n\
             meshd_peers{segment=\"infer\",state=\"down\"} 0\n\
             meshd_peers{segment=\"train\",state=\"up\"} 8\n\
             meshd_peers{segment=\"train\",state=\"down\"} 0\n\
             # EOF\n"
        );
        let plain = page.text(Format::Plain);
        assert!(
            plain.starts_with(
                "# HELP meshd_things_total Things, by kind\n\
                 # TYPE meshd_things_total counter\n\
                 meshd_things_total{kind=\"odd\"} 3\n"
            ),
            "{plain}"
        );
        assert!(
            plain.contains("# TYPE meshd_on gauge\nmeshd_on 1\n"),
            "{plain}"
        );
        assert!(plain.ends_with("state=\"down\"} 0\n"), "{plain}");
    }

    #[test]
    fn a_scraper_gets_the_format_that_it_asks_for() {
        // Prometheus 2.53 and 3.5, curl, and those who do not say.
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;\
                          q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, format) in [
            (Some(prometheus), Format::OpenMetrics),
            (
                Some("text/plain, application/openmetrics-text; version=1.0.0"),
                Format::OpenMetrics,
            ),
            (Some("*/*"), Format::Plain),
            (Some("text/plain;version=0.0.4"), Format::Plain),
            (
                Some("application/openmetrics-text;q=0.0, */*"),
                Format::Plain,
            ),
            (Some("application/openmetrics-texts"), Format::Plain),
            (
                Some("Application/OpenMetrics-Text; Q=0.7"),
                Format::OpenMetrics,
            ),
            (Some("APPLICATION/OPENMETRICS-TEXT;q = 0"), Format::Plain),
            (
                Some("application/openmetrics-text;q=0.5, text/plain;q=0.9"),
                Format::Plain,
            ),
            (
                Some("application/openmetrics-text;q=0.5, */*;q=0.9"),
                Format::Plain,
            ),
            (
                Some("application/openmetrics-text;q=0.5, Text/*;q=0.4, */*"),
                Format::OpenMetrics,
            ),
            (None, Format::Plain),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept:?}");
        }
    }

    #[test]
    fn a_count_beyond_what_a_gauge_holds_stays_at_its_end() {
        let mut page = Page::default();
        page.put(ON, u64::MAX);
        assert!(
            page.text(Format::Plain)
                .contains("meshd_on 9223372036854775807\n")
        );
    }
}
