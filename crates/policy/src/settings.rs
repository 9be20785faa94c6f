//! The rules as the operator writes them. Owns defaults, their check and the digest that stands for
//! a whole policy in updates and logs. Refuses to judge.

use keys::EvaluatorId;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wire::evidence::{MAX_TEXT_LEN, Signer};
use wire::update::{LeaseEnd, MAX_DURATION_MS};

/// A policy: who is a member, and how an epoch runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Least overall score of a member, 0 to 1.
    pub threshold: f64,
    /// Oldest evidence that counts, in seconds.
    pub max_benchmark_age: u64,
    /// Least score per metric, 0 to 1; a metric that evidence does not have fails.
    pub metric_minimum: BTreeMap<String, f64>,
    /// Whose evidence counts.
    pub required_signer: RequiredSigner,
    /// The evaluators' keys, printed as `evaluator:…`.
    #[serde(with = "evaluator_list")]
    pub evaluators: Vec<EvaluatorId>,
    /// The one harness whose evidence counts; `None`: any.
    pub harness: Option<String>,
    /// The one suite; `None`: any.
    pub suite: Option<String>,
    /// The one version of the suite; `None`: any.
    pub suite_version: Option<String>,
    /// Consecutive scheduled decisions that a quarantined node must pass to return.
    pub passes_to_return: u32,
    /// Consecutive scheduled decisions that a member must fail to leave.
    pub failures_to_leave: u32,
    /// Epochs, the one it joins included, for which a newly enrolled node is admitted regardless.
    pub probation_epochs: u32,
    /// When a member that fails is dropped.
    pub revoke: Revoke,
    /// Share of the roster above which removals in one update wait for an operator's word.
    pub floor_share: f64,
    /// Fewest removals in one update that wait for an operator's word.
    pub floor_nodes: usize,
    /// Scheduled length of an epoch, in seconds.
    pub epoch_seconds: u64,
    /// Seconds from an epoch's beginning after which a node without news acts on
    /// [`Self::on_lease_end`]; zero: five epochs, at least a minute.
    pub lease_seconds: u64,
    /// A node's action when its lease ends.
    pub on_lease_end: LeaseEnd,
    /// How far evidence may lie in the future, in seconds: room for clocks that differ.
    pub max_future_skew: u64,
}

/// Whose evidence counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequiredSigner {
    /// The node itself or an evaluator of the policy.
    Any,
    /// Only the node itself.
    #[serde(rename = "self")]
    Own,
    /// Only an evaluator of the policy.
    Evaluator,
}

/// When a member that fails is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Revoke {
    /// At the next scheduled epoch.
    Epoch,
    /// At once, through an early epoch.
    Now,
}

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum PolicyError {
    /// A score or share is not between 0 and 1.
    #[error("`{0}` is {1}, but must be between 0 and 1")]
    Share(String, f64),
    /// A number is out of its range.
    #[error("`{0}` is {1}, but must be between {2} and {3}")]
    Range(&'static str, u64, u64, u64),
    /// A metric's name cannot occur in evidence.
    #[error("`metric_minimum` names a metric that is not 1 to {MAX_TEXT_LEN} bytes of text")]
    MetricName,
    /// A harness, suite or version cannot occur in evidence.
    #[error("`{0}` is not 1 to {MAX_TEXT_LEN} bytes of text")]
    Pin(&'static str),
    /// Only evaluators count, and there is none.
    #[error("`required_signer` is \"evaluator\", but `evaluators` is empty: nobody could pass")]
    NoEvaluator,
    /// The same evaluator twice.
    #[error("`evaluators` has {0} twice")]
    EvaluatorTwice(EvaluatorId),
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            threshold: 0.70,
            max_benchmark_age: 120,
            metric_minimum: BTreeMap::new(),
            required_signer: RequiredSigner::Any,
            evaluators: Vec::new(),
            harness: None,
            suite: None,
            suite_version: None,
            passes_to_return: 1,
            failures_to_leave: 1,
            probation_epochs: 0,
            revoke: Revoke::Epoch,
            floor_share: 0.5,
            floor_nodes: 3,
            epoch_seconds: 60,
            lease_seconds: 0,
            on_lease_end: LeaseEnd::Close,
            max_future_skew: 30,
        }
    }
}

impl Policy {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// [`PolicyError`] for the first field that does not fit, naming it.
    pub fn validate(&self) -> Result<(), PolicyError> {
        share("threshold", self.threshold)?;
        share("floor_share", self.floor_share)?;
        for (metric, least) in &self.metric_minimum {
            share(&format!("metric_minimum.{metric}"), *least)?;
            let fits = (1..=MAX_TEXT_LEN).contains(&metric.len());
            if !fits || metric.chars().any(char::is_control) {
                return Err(PolicyError::MetricName);
            }
        }
        let pins = [
            ("harness", &self.harness),
            ("suite", &self.suite),
            ("suite_version", &self.suite_version),
        ];
        for (name, pin) in pins {
            let fits = |pin: &String| {
                (1..=MAX_TEXT_LEN).contains(&pin.len()) && !pin.chars().any(char::is_control)
            };
            if pin.as_ref().is_some_and(|pin| !fits(pin)) {
                return Err(PolicyError::Pin(name));
            }
        }
        let floor_nodes = u64::try_from(self.floor_nodes).unwrap_or(u64::MAX);
        range("max_benchmark_age", self.max_benchmark_age, 1, MAX_SECONDS)?;
        range("max_future_skew", self.max_future_skew, 0, MAX_SKEW)?;
        range("epoch_seconds", self.epoch_seconds, 1, MAX_EPOCH_SECONDS)?;
        range("floor_nodes", floor_nodes, 1, u64::from(u32::MAX))?;
        let run = |name, value: u32| range(name, u64::from(value), 1, MAX_RUN);
        run("passes_to_return", self.passes_to_return)?;
        run("failures_to_leave", self.failures_to_leave)?;
        if self.lease_seconds != 0 {
            // A lease shorter than an epoch would darken every node once per epoch.
            let least = self.epoch_seconds;
            range("lease_seconds", self.lease_seconds, least, MAX_SECONDS)?;
        }
        self.validate_evaluators()
    }

    fn validate_evaluators(&self) -> Result<(), PolicyError> {
        if self.required_signer == RequiredSigner::Evaluator && self.evaluators.is_empty() {
            return Err(PolicyError::NoEvaluator);
        }
        let mut seen = BTreeSet::new();
        match self.evaluators.iter().find(|e| !seen.insert(**e)) {
            Some(twice) => Err(PolicyError::EvaluatorTwice(*twice)),
            None => Ok(()),
        }
    }

    /// SHA-256 of the policy's canonical JSON, behind a label: the policy's name in updates.
    pub fn digest(&self) -> wire::Digest {
        let json = serde_json::to_vec(self).expect("a policy always encodes");
        let hash = sha2::Sha256::new()
            .chain_update(LABEL_POLICY)
            .chain_update(&json);
        wire::Digest(hash.finalize().into())
    }

    /// Scheduled length of an epoch.
    pub fn epoch(&self) -> Duration {
        Duration::from_secs(self.epoch_seconds)
    }

    /// The lease, with its default filled in.
    pub fn lease(&self) -> Duration {
        Duration::from_secs(match self.lease_seconds {
            0 => self.epoch_seconds.saturating_mul(5).max(60),
            seconds => seconds,
        })
    }

    /// Whether evidence of this signer counts.
    pub fn counts(&self, signer: &Signer) -> bool {
        match (signer, self.required_signer) {
            (Signer::Node(_), RequiredSigner::Any | RequiredSigner::Own) => true,
            (Signer::Node(_), RequiredSigner::Evaluator) => false,
            (Signer::Evaluator(key), RequiredSigner::Any | RequiredSigner::Evaluator) => {
                self.evaluators.contains(key)
            }
            (Signer::Evaluator(_), RequiredSigner::Own) => false,
        }
    }
}

fn share(name: &str, value: f64) -> Result<(), PolicyError> {
    if (0.0..=1.0).contains(&value) {
        Ok(())
    } else {
        Err(PolicyError::Share(name.to_owned(), value))
    }
}

fn range(name: &'static str, value: u64, least: u64, most: u64) -> Result<(), PolicyError> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(PolicyError::Range(name, value, least, most))
    }
}

/// Evaluators as the strings that operators paste, not as arrays of bytes.
mod evaluator_list {
    use keys::EvaluatorId;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(list: &[EvaluatorId], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(list.iter().map(ToString::to_string))
    }

    pub(super) fn deserialize<'de, D>(from: D) -> Result<Vec<EvaluatorId>, D::Error>
    where
        D: Deserializer<'de>,
    {
        let texts = Vec::<String>::deserialize(from)?;
        let parse = |text: &String| text.parse().map_err(D::Error::custom);
        texts.iter().map(parse).collect()
    }
}

const LABEL_POLICY: &[u8] = b"meshd/v1 policy";
/// One day: longer epochs would make membership a certificate again.
const MAX_EPOCH_SECONDS: u64 = 86_400;
/// One hour: beyond it a clock is wrong, not skewed.
const MAX_SKEW: u64 = 3_600;
const MAX_SECONDS: u64 = MAX_DURATION_MS / 1_000;
const MAX_RUN: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_read_back() {
        let policy = Policy::default();
        policy.validate().unwrap();
        let json = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<Policy>(&json).unwrap(), policy);
        assert_eq!(serde_json::from_str::<Policy>("{}").unwrap(), policy);
        assert_eq!(policy.lease(), Duration::from_secs(300));
    }

    #[test]
    fn an_unknown_field_is_refused() {
        assert!(serde_json::from_str::<Policy>(r#"{"treshold": 0.5}"#).is_err());
    }

    #[test]
    fn evaluators_are_written_as_their_printed_keys() {
        let key = EvaluatorId([7; 32]);
        let json = format!(r#"{{"evaluators": ["{key}"], "required_signer": "self"}}"#);
        let policy: Policy = serde_json::from_str(&json).unwrap();
        assert_eq!(policy.evaluators, [key]);
        assert_eq!(policy.required_signer, RequiredSigner::Own);
        assert!(serde_json::from_str::<Policy>(r#"{"evaluators": ["node:00"]}"#).is_err());
    }

    type Breakage = (fn(&mut Policy), &'static str);

    #[test]
    fn a_field_out_of_range_is_named() {
        let breakages: [Breakage; 8] = [
            (|p| p.threshold = f64::NAN, "threshold"),
            (|p| p.threshold = 1.1, "threshold"),
            (|p| p.epoch_seconds = 0, "epoch_seconds"),
            (|p| p.epoch_seconds = 86_401, "epoch_seconds"),
            (|p| p.lease_seconds = 59, "lease_seconds"),
            (|p| p.passes_to_return = 0, "passes_to_return"),
            (
                |p| p.required_signer = RequiredSigner::Evaluator,
                "evaluators",
            ),
            (
                |p| p.metric_minimum = BTreeMap::from([("refusal".into(), -0.1)]),
                "metric_minimum.refusal",
            ),
        ];
        for (breakage, field) in breakages {
            let mut policy = Policy::default();
            breakage(&mut policy);
            let message = policy.validate().unwrap_err().to_string();
            assert!(message.contains(field), "{message}");
        }
    }

    #[test]
    fn every_change_changes_the_digest() {
        let changed = Policy {
            floor_nodes: 4,
            ..Policy::default()
        };
        assert_eq!(Policy::default().digest(), Policy::default().digest());
        assert_ne!(Policy::default().digest(), changed.digest());
    }
}
