//! The rules as the operator writes them. Owns defaults, their check and the digest that stands for
//! a whole policy in updates and logs. Refuses to judge.
//!
//! The settings of one requirement may stand flat, beside the general ones: they are its short form. With
//! `[[require]]`, each requirement has its own, and the flat ones may not be there.
//!
//! The file is long because what may be written, what it defaults to and what is refused are read together.

use crate::require::{Requirement, Signers};
use crate::scope::Evaluator;
use crate::traffic::{Allow, TrafficError, Written};
use crate::version::Versions;
use keys::EvaluatorId;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wire::Rules;
use wire::evidence::MAX_TEXT_LEN;
use wire::rules::Traffic;
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
    /// The keys of evaluators that may vouch for every run, printed as `evaluator:…`.
    #[serde(with = "evaluator_list")]
    pub evaluators: Vec<EvaluatorId>,
    /// The one harness whose evidence counts; `None`: any.
    pub harness: Option<String>,
    /// The one suite; `None`: any.
    pub suite: Option<String>,
    /// The versions of the suite that count; `None`: any.
    pub suite_version: Option<Versions>,
    /// The requirements; empty: the flat settings stand for one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub require: Vec<Requirement>,
    /// Evaluators that may vouch for some runs only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evaluator: Vec<Evaluator>,
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
    /// The fate of packets between members that no rule is about.
    pub traffic: Traffic,
    /// Groups whose members connect to everybody, and others to them alone; empty: every two members connect.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hub: Vec<String>,
    /// Packets that pass where everything else is denied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Allow>,
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
    /// The bounds exclude each other.
    #[error("`suite_version` is `{0}`, but no version lies in it: nobody could pass")]
    NoVersion(String),
    /// Only evaluators count, and there is none.
    #[error("`required_signer` is \"evaluator\", but `evaluators` is empty: nobody could pass")]
    NoEvaluator,
    /// The same evaluator twice.
    #[error("`evaluators` and `[[evaluator]]` have {0} twice: one entry says all of its scope")]
    EvaluatorTwice(EvaluatorId),
    /// A setting that belongs to a requirement stands flat beside requirements.
    #[error("`{0}` is set beside `[[require]]`: give it in the requirements that it is meant for")]
    Both(String),
    /// A requirement breaks a rule.
    #[error("requirement {name:?}: `{field}` is {value}, but must be {rule}")]
    Requirement {
        /// Its name.
        name: String,
        /// The setting.
        field: String,
        /// Its value.
        value: String,
        /// The rule.
        rule: String,
    },
    /// Two requirements have one name.
    #[error("two requirements are named {0:?}: reasons could not tell them apart")]
    NameTwice(String),
    /// Over a limit of entries.
    #[error("{0} {1}, but at most {2} are allowed")]
    TooMany(usize, &'static str, usize),
    /// An evaluator's pattern cannot fit anything.
    #[error("`evaluator.{0}` of {1} has an entry that is not 1 to {MAX_TEXT_LEN} bytes of text")]
    Pattern(&'static str, EvaluatorId),
    /// A rule of the traffic between members cannot be used.
    #[error(transparent)]
    Traffic(#[from] TrafficError),
    /// Not TOML, or not of a policy.
    #[error("{0}")]
    Toml(String),
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
            require: Vec::new(),
            evaluator: Vec::new(),
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
            traffic: Traffic::Allow,
            hub: Vec::new(),
            allow: Vec::new(),
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
            if !is_text(metric) {
                return Err(PolicyError::MetricName);
            }
        }
        let pins = [("harness", &self.harness), ("suite", &self.suite)];
        if let Some((name, _)) = pins
            .iter()
            .find(|(_, pin)| pin.as_ref().is_some_and(|pin| !is_text(pin)))
        {
            return Err(PolicyError::Pin(name));
        }
        if self
            .suite_version
            .as_ref()
            .is_some_and(|it| !is_text(&it.to_string()))
        {
            return Err(PolicyError::Pin("suite_version"));
        }
        if let Some(none) = self.suite_version.as_ref().filter(|it| it.is_empty()) {
            return Err(PolicyError::NoVersion(none.to_string()));
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
        self.written_rules().check()?;
        self.validate_evaluators()?;
        self.validate_requirements()
    }

    fn validate_evaluators(&self) -> Result<(), PolicyError> {
        if self.required_signer == RequiredSigner::Evaluator && self.evaluator_keys().is_empty() {
            return Err(PolicyError::NoEvaluator);
        }
        let keys = self.evaluator_keys();
        if keys.len() > MAX_EVALUATORS {
            return Err(PolicyError::TooMany(
                keys.len(),
                "evaluators",
                MAX_EVALUATORS,
            ));
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = keys.iter().find(|key| !seen.insert(**key)) {
            return Err(PolicyError::EvaluatorTwice(*twice));
        }
        for evaluator in &self.evaluator {
            if let Some((list, _)) = evaluator.texts().find(|(_, text)| !is_text(text)) {
                return Err(PolicyError::Pattern(list, evaluator.key));
            }
            let many = evaluator.texts().count();
            if many > MAX_PATTERNS {
                return Err(PolicyError::TooMany(
                    many,
                    "entries of an evaluator",
                    MAX_PATTERNS,
                ));
            }
        }
        Ok(())
    }

    fn validate_requirements(&self) -> Result<(), PolicyError> {
        if self.require.is_empty() {
            return Ok(());
        }
        if let Some(field) = self.flat_set() {
            return Err(PolicyError::Both(field.to_owned()));
        }
        if self.require.len() > MAX_REQUIREMENTS {
            let many = self.require.len();
            return Err(PolicyError::TooMany(many, "requirements", MAX_REQUIREMENTS));
        }
        let mut names = BTreeSet::new();
        for requirement in &self.require {
            if !names.insert(&requirement.name) {
                return Err(PolicyError::NameTwice(requirement.name.clone()));
            }
            let evaluators = self.evaluator_keys().len();
            check(requirement, evaluators)?;
        }
        Ok(())
    }

    /// A flat setting of a requirement that is not at its default.
    fn flat_set(&self) -> Option<&'static str> {
        let default = Self::default();
        let set = [
            self.threshold != default.threshold,
            self.max_benchmark_age != default.max_benchmark_age,
            !self.metric_minimum.is_empty(),
            self.required_signer != default.required_signer,
            self.harness.is_some(),
            self.suite.is_some(),
            self.suite_version.is_some(),
        ];
        FLAT.into_iter()
            .zip(set)
            .find_map(|(name, set)| set.then_some(name))
    }

    /// A policy as its file has it.
    ///
    /// # Errors
    /// [`PolicyError`], with the line where it is no policy, or the field and the value that break a rule.
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        let wrong = |error: toml::de::Error| PolicyError::Toml(in_a_line(&error, text));
        let table: toml::Table = text.parse().map_err(wrong)?;
        let policy: Self = toml::from_str(text).map_err(wrong)?;
        // Also where it is given as what is the default anyway: whoever wrote it takes it to be in force.
        if let Some(field) = FLAT.iter().find(|field| table.contains_key(**field))
            && table.contains_key("require")
        {
            return Err(PolicyError::Both((*field).to_owned()));
        }
        policy.validate()?;
        Ok(policy)
    }

    /// The policy as a file that reads back as it.
    pub fn to_toml(&self) -> String {
        let mut table = match toml::Value::try_from(self) {
            Ok(toml::Value::Table(table)) => table,
            Ok(_) | Err(_) => return String::new(),
        };
        if !self.require.is_empty() {
            FLAT.iter().for_each(|field| drop(table.remove(*field)));
        }
        toml::to_string(&table).unwrap_or_default()
    }

    /// The conditions of a member: the requirements, or the one that the flat settings stand for.
    pub fn requirements(&self) -> Cow<'_, [Requirement]> {
        if !self.require.is_empty() {
            return Cow::Borrowed(&self.require);
        }
        Cow::Owned(vec![Requirement {
            name: String::new(),
            harness: self.harness.clone(),
            suite: self.suite.clone(),
            suite_version: self.suite_version.clone(),
            threshold: self.threshold,
            max_age_seconds: self.max_benchmark_age,
            min_samples: 1,
            weight: 1.0,
            signers: match self.required_signer {
                RequiredSigner::Any => Signers::Any,
                RequiredSigner::Own => Signers::Own,
                RequiredSigner::Evaluator => Signers::Evaluator,
            },
            metric_minimum: self.metric_minimum.clone(),
            score: Vec::new(),
        }])
    }

    /// The keys of all evaluators.
    pub fn evaluator_keys(&self) -> Vec<EvaluatorId> {
        let scoped = self.evaluator.iter().map(|evaluator| evaluator.key);
        self.evaluators.iter().copied().chain(scoped).collect()
    }

    /// The oldest evidence that any requirement takes, in seconds.
    pub fn oldest_seconds(&self) -> u64 {
        let requirements = self.requirements();
        let ages = requirements.iter().map(|it| it.max_age_seconds);
        ages.max().unwrap_or_default()
    }

    /// The rules of the traffic between members, as an update carries them.
    pub fn rules(&self) -> Rules {
        self.written_rules().compact()
    }

    fn written_rules(&self) -> Written<'_> {
        Written {
            traffic: self.traffic,
            hub: &self.hub,
            allow: &self.allow,
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
}

/// An error of TOML as other errors are shown: in one line, with the number of the line that it is about.
fn in_a_line(error: &toml::de::Error, text: &str) -> String {
    let lines = error.message().lines().map(str::trim);
    let words = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>();
    let words = words.join(", ");
    let before = error.span().and_then(|span| text.get(..span.start));
    match before {
        Some(before) => format!("line {}: {words}", before.matches('\n').count() + 1),
        None => words,
    }
}

/// Holds one requirement of a policy with so many evaluators against the rules.
fn check(requirement: &Requirement, evaluators: usize) -> Result<(), PolicyError> {
    let holds = |field: &str, value: String, holds: bool, rule: &str| {
        if holds {
            return Ok(());
        }
        Err(PolicyError::Requirement {
            name: requirement.name.clone(),
            field: field.to_owned(),
            value,
            rule: rule.to_owned(),
        })
    };
    let it = requirement;
    let share = |value: f64| (0.0..=1.0).contains(&value);
    let is_weight = |value: f64| value > 0.0 && value <= MAX_WEIGHT;
    let text_rule = "1 to 128 bytes of text without control characters";
    let name_fits = (1..=MAX_NAME).contains(&it.name.len()) && is_text(&it.name);
    holds(
        "name",
        format!("{:?}", it.name),
        name_fits,
        "1 to 64 bytes of text",
    )?;
    let version = it.suite_version.as_ref().map(ToString::to_string);
    for (field, pin) in [
        ("harness", &it.harness),
        ("suite", &it.suite),
        ("suite_version", &version),
    ] {
        let shown = pin.clone().unwrap_or_default();
        holds(
            field,
            format!("{shown:?}"),
            pin.as_deref().is_none_or(is_text),
            text_rule,
        )?;
    }
    holds(
        "suite_version",
        format!("{:?}", version.unwrap_or_default()),
        it.suite_version.as_ref().is_none_or(|it| !it.is_empty()),
        "a range in which some version lies",
    )?;
    holds(
        "threshold",
        it.threshold.to_string(),
        share(it.threshold),
        "between 0 and 1",
    )?;
    let age = it.max_age_seconds;
    let age_rule = format!("between 1 and {MAX_SECONDS}");
    holds(
        "max_age_seconds",
        age.to_string(),
        (1..=MAX_SECONDS).contains(&age),
        &age_rule,
    )?;
    holds(
        "min_samples",
        it.min_samples.to_string(),
        it.min_samples > 0,
        "1 or more",
    )?;
    let weight_rule = "over 0, and at most 1000000";
    holds(
        "weight",
        it.weight.to_string(),
        is_weight(it.weight),
        weight_rule,
    )?;
    let needed = match it.signers {
        Signers::Any | Signers::Own => 0,
        Signers::Evaluator => 1,
        Signers::Several(many) => usize::try_from(many).unwrap_or(usize::MAX),
    };
    let signers_rule = format!("of as many evaluators as the policy has: it has {evaluators}");
    holds(
        "signers",
        format!("\"{}\"", it.signers),
        needed <= evaluators,
        &signers_rule,
    )?;
    for (metric, least) in &it.metric_minimum {
        let field = format!("metric_minimum.{metric}");
        holds(&field, least.to_string(), share(*least), "between 0 and 1")?;
        holds(
            "metric_minimum",
            format!("{metric:?}"),
            is_text(metric),
            text_rule,
        )?;
    }
    let many = it.score.len();
    holds(
        "score",
        format!("{many} metrics"),
        many <= MAX_SCORE_METRICS,
        "at most 64 metrics",
    )?;
    let mut seen = BTreeSet::new();
    for metric in &it.score {
        let field = |name: &str| format!("score.{name}");
        let name = format!("{:?}", metric.metric);
        holds(
            &field("metric"),
            name.clone(),
            is_text(&metric.metric),
            text_rule,
        )?;
        holds(
            &field("metric"),
            name,
            seen.insert(&metric.metric),
            "there once",
        )?;
        holds(
            &field("weight"),
            metric.weight.to_string(),
            is_weight(metric.weight),
            weight_rule,
        )?;
        let [low, high] = metric.range;
        let is_range =
            low.is_finite() && high.is_finite() && low < high && (high - low).is_finite();
        let range = format!("[{low}, {high}]");
        holds(
            &field("range"),
            range,
            is_range,
            "two finite numbers, the lower one first",
        )?;
        let minimum = metric.minimum.unwrap_or_default();
        holds(
            &field("minimum"),
            minimum.to_string(),
            share(minimum),
            "between 0 and 1",
        )?;
    }
    Ok(())
}

fn is_text(text: &str) -> bool {
    (1..=MAX_TEXT_LEN).contains(&text.len()) && !text.chars().any(char::is_control)
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
const MAX_NAME: usize = 64;
const MAX_WEIGHT: f64 = 1_000_000.0;
const MAX_REQUIREMENTS: usize = 32;
const MAX_SCORE_METRICS: usize = 64;
const MAX_EVALUATORS: usize = 64;
const MAX_PATTERNS: usize = 256;
/// The flat settings that belong to a requirement, as TOML has them.
const FLAT: [&str; 7] = [
    "threshold",
    "max_benchmark_age",
    "metric_minimum",
    "required_signer",
    "harness",
    "suite",
    "suite_version",
];

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

    const EXAMPLE: &str = r#"
epoch_seconds = 30
revoke = "now"

[[require]]
name = "safety"
harness = "inspect"
suite = "agent-safety"
suite_version = ">=2, <4"
threshold = 0.8
max_age_seconds = 3600
min_samples = 100
weight = 2
signers = "2 of evaluators"

[[require.score]]
metric = "match/accuracy"
minimum = 0.7

[[require.score]]
metric = "loss"
direction = "lower"
range = [0.5, 4]

[[require]]
name = "alive"
signers = "self"

[[evaluator]]
key = "evaluator:0101010101010101010101010101010101010101010101010101010101010101"
suites = ["agent-*"]
harnesses = ["inspect"]
nodes = ["node-a"]
groups = ["gpu"]

[[evaluator]]
key = "evaluator:0202020202020202020202020202020202020202020202020202020202020202"
"#;

    #[test]
    fn a_file_reads_back_as_it_was_written() {
        let policy = Policy::from_toml(EXAMPLE).unwrap();
        assert_eq!(policy.requirements().len(), 2);
        assert_eq!(policy.oldest_seconds(), 3_600);
        assert_eq!(policy.evaluator_keys().len(), 2);
        let written = policy.to_toml();
        assert_eq!(Policy::from_toml(&written).unwrap(), policy, "{written}");
        let json = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<Policy>(&json).unwrap(), policy);
        let flat = Policy::from_toml("threshold = 0.8\nsuite = \"s\"").unwrap();
        assert_eq!(Policy::from_toml(&flat.to_toml()).unwrap(), flat);
        assert_eq!(flat.requirements()[0].threshold, 0.8);
    }

    #[test]
    fn a_file_that_is_wrong_says_where_and_why() {
        let wrong = |from: &str, to: &str| {
            assert!(EXAMPLE.contains(from), "{from}");
            Policy::from_toml(&EXAMPLE.replace(from, to))
                .unwrap_err()
                .to_string()
        };
        for (from, to, words) in [
            (
                "weight = 2",
                "weight = 0",
                "requirement \"safety\": `weight` is 0",
            ),
            (
                "threshold = 0.8",
                "threshold = 8",
                "`threshold` is 8, but must be between 0 and 1",
            ),
            ("min_samples = 100", "min_samples = 0", "`min_samples` is 0"),
            (
                "range = [0.5, 4]",
                "range = [4, 0.5]",
                "`score.range` is [4, 0.5]",
            ),
            (
                "metric = \"loss\"",
                "metric = \"match/accuracy\"",
                "must be there once",
            ),
            ("\"2 of evaluators\"", "\"3 of evaluators\"", "it has 2"),
            ("\"2 of evaluators\"", "\"some\"", "2 of evaluators"),
            ("\">=2, <4\"", "\">=two\"", "`>=two` is no version"),
            (
                "name = \"alive\"",
                "name = \"safety\"",
                "two requirements are named \"safety\"",
            ),
            (
                "epoch_seconds = 30",
                "threshold = 0.7",
                "`threshold` is set beside `[[require]]`",
            ),
            ("min_samples", "min_sample", "unknown field `min_sample`"),
            ("[\"gpu\"]", "[\"\"]", "`evaluator.groups`"),
        ] {
            let error = wrong(from, to);
            assert!(error.contains(words), "{to}: {error}");
            assert!(!error.contains(char::is_control), "in one line: {error}");
        }
        let error = Policy::from_toml("epoch_seconds = 30\n\nthreshold = \n").unwrap_err();
        let error = error.to_string();
        assert!(error.contains("line 3") && !error.contains('\n'), "{error}");
        let twice = EXAMPLE.replace(&"02".repeat(32), &"01".repeat(32));
        let error = Policy::from_toml(&twice).unwrap_err().to_string();
        assert!(error.contains("twice"), "{error}");
    }

    #[test]
    fn the_example_file_is_a_policy() {
        let example = include_str!("../../../docs/config/policy.toml");
        let policy = Policy::from_toml(example).unwrap();
        assert_eq!((policy.require.len(), policy.evaluator.len()), (2, 1));
    }
}
