//! One requirement of a policy: which runs count for it, how their metrics become a score, and how good, how
//! young and how large they must be.

use crate::version::Versions;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// A requirement. Every one of a policy has to hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// Its name, in reasons; empty for the one that the flat settings stand for.
    pub name: String,
    /// The one harness whose runs count; `None`: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub harness: Option<String>,
    /// The one suite; `None`: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<String>,
    /// The versions of the suite; `None`: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite_version: Option<Versions>,
    /// Least score, 0 to 1.
    #[serde(default = "threshold")]
    pub threshold: f64,
    /// Oldest run that counts, in seconds.
    #[serde(default = "max_age_seconds")]
    pub max_age_seconds: u64,
    /// Fewest samples of a run.
    #[serde(default = "min_samples")]
    pub min_samples: u64,
    /// Its part in the score that is shown, over 0.
    #[serde(default = "weight")]
    pub weight: f64,
    /// Whose runs count.
    #[serde(default)]
    pub signers: Signers,
    /// Least value per metric, 0 to 1, as the run has it; a metric that is not there fails.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metric_minimum: BTreeMap<String, f64>,
    /// How metrics become the score; empty: the run's own score of the whole is it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub score: Vec<Metric>,
}

/// A metric's part in a score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// The metric, as the harness names it.
    pub metric: String,
    /// Its part in the score, over 0.
    #[serde(default = "weight")]
    pub weight: f64,
    /// Which values are better.
    #[serde(default)]
    pub direction: Direction,
    /// The values that become 0 and 1 (1 and 0 where lower is better); beyond them lies nothing better or worse.
    #[serde(default = "unit")]
    pub range: [f64; 2],
    /// Least mapped value, 0 to 1, whatever the other metrics say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<f64>,
}

/// Which values of a metric are better.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The higher ones.
    #[default]
    Higher,
    /// The lower ones.
    Lower,
}

/// Whose runs count: `any`, `self`, `evaluator`, or as in `2 of evaluators`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Signers {
    /// The node itself or an evaluator.
    #[default]
    Any,
    /// Only the node itself.
    Own,
    /// Only an evaluator.
    Evaluator,
    /// So many different evaluators, each with a run of its own that passes.
    Several(u32),
}

/// A text names no signers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not \"any\", \"self\", \"evaluator\", or as in \"2 of evaluators\"")]
pub struct NoSigners;

/// Why a metric gives no part of a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unmapped {
    /// The run does not have it.
    Missing,
    /// The harness says that its lower values are better, and the policy that its higher ones are.
    Contradicted,
}

impl Metric {
    /// The metric of a run, mapped to 0 to 1.
    pub(crate) fn map(
        &self,
        metrics: &BTreeMap<String, f64>,
        lower_is_better: &BTreeSet<String>,
    ) -> Result<f64, Unmapped> {
        let value = metrics.get(&self.metric).ok_or(Unmapped::Missing)?;
        if self.direction == Direction::Higher && lower_is_better.contains(&self.metric) {
            return Err(Unmapped::Contradicted);
        }
        let [low, high] = self.range;
        let mapped = ((value - low) / (high - low)).clamp(0.0, 1.0);
        Ok(match self.direction {
            Direction::Higher => mapped,
            Direction::Lower => 1.0 - mapped,
        })
    }
}

impl fmt::Display for Signers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Own => f.write_str("self"),
            Self::Evaluator => f.write_str("evaluator"),
            Self::Several(many) => write!(f, "{many} of evaluators"),
        }
    }
}

impl FromStr for Signers {
    type Err = NoSigners;

    fn from_str(text: &str) -> Result<Self, NoSigners> {
        match text {
            "any" => Ok(Self::Any),
            "self" => Ok(Self::Own),
            "evaluator" => Ok(Self::Evaluator),
            _ => {
                let many = text.strip_suffix(" of evaluators").ok_or(NoSigners)?;
                let many = many.parse().map_err(|_| NoSigners)?;
                if many == 0 {
                    Err(NoSigners)
                } else {
                    Ok(Self::Several(many))
                }
            }
        }
    }
}

impl Serialize for Signers {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Signers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn threshold() -> f64 {
    0.70
}

fn max_age_seconds() -> u64 {
    120
}

fn min_samples() -> u64 {
    1
}

fn weight() -> f64 {
    1.0
}

fn unit() -> [f64; 2] {
    [0.0, 1.0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_mapped_by_range_and_direction_and_never_against_its_harness() {
        let metrics = BTreeMap::from([("loss".to_owned(), 3.0), ("acc".to_owned(), 0.75)]);
        let lower = BTreeSet::from(["loss".to_owned()]);
        let of = |metric: &str, direction, range| Metric {
            metric: metric.into(),
            weight: 1.0,
            direction,
            range,
            minimum: None,
        };
        let map = |metric: Metric| metric.map(&metrics, &lower);
        assert_eq!(map(of("acc", Direction::Higher, [0.5, 1.0])), Ok(0.5));
        assert_eq!(map(of("acc", Direction::Higher, [0.8, 1.0])), Ok(0.0));
        assert_eq!(map(of("loss", Direction::Lower, [1.0, 5.0])), Ok(0.5));
        assert_eq!(map(of("loss", Direction::Lower, [3.5, 5.0])), Ok(1.0));
        let against = map(of("loss", Direction::Higher, [1.0, 5.0]));
        assert_eq!(against, Err(Unmapped::Contradicted));
        let missing = map(of("f1", Direction::Higher, [0.0, 1.0]));
        assert_eq!(missing, Err(Unmapped::Missing));
    }

    #[test]
    fn signers_read_back_and_nobody_is_none_of_them() {
        for signers in [
            Signers::Any,
            Signers::Own,
            Signers::Evaluator,
            Signers::Several(2),
        ] {
            assert_eq!(signers.to_string().parse(), Ok(signers));
        }
        for text in [
            "",
            "0 of evaluators",
            "two of evaluators",
            "2 of nodes",
            "Self",
        ] {
            assert_eq!(text.parse::<Signers>(), Err(NoSigners), "{text}");
        }
    }
}
