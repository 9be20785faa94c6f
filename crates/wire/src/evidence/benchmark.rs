//! The benchmark predicate: one finished run of one suite, and the rules that its fields keep.

use super::{EvidenceError, MAX_METRICS, MAX_TEXT_LEN};
use crate::signed::Digest;
use jiff::Timestamp;
use keys::MeshId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

/// The benchmark predicate: one finished run of one suite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Benchmark {
    /// The program that ran the suite.
    pub harness: String,
    /// The suite.
    pub suite: String,
    /// The suite's version.
    pub suite_version: String,
    /// The harness's version, as it tells it; informative.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub harness_version: Option<String>,
    /// The model that was measured, as the harness names it; informative.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The measurements, by the names that the harness gives them; any finite numbers.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
    /// The metrics of which the harness itself says that less is better.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub lower_is_better: BTreeSet<String>,
    /// The run's score, from 0 to 1; a harness that has many metrics and no score of the whole leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overall: Option<f64>,
    /// How many samples the suite has.
    pub samples_total: u64,
    /// How many of them were completed; less than all is a partial run and is refused.
    pub samples_completed: u64,
    /// When the run started (RFC 3339).
    pub started_at: Timestamp,
    /// When the run finished (RFC 3339): the time that counts for the evidence's age.
    pub finished_at: Timestamp,
    /// 16 to 64 hex digits, never used twice by one node.
    pub nonce: String,
    /// `sha256:…` of the harness's raw log, if it keeps one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_digest: Option<String>,
    /// The mesh that it is for, as printed. A result as a harness writes it has none yet; evidence without
    /// one counts nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "printed")]
    pub mesh: Option<MeshId>,
    /// The digest of an epoch update, as printed: the statement was signed after that update was. Without
    /// one, evidence could have been signed in advance.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "printed")]
    pub challenge: Option<Digest>,
}

impl Benchmark {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// [`EvidenceError::Field`] names the first field that breaks a rule, its value and the rule.
    pub fn check(&self) -> Result<(), EvidenceError> {
        self.check_texts()?;
        self.check_scores()?;
        let (total, completed) = (self.samples_total, self.samples_completed);
        holds("samplesTotal", total, total > 0, "a run without samples")?;
        let rule = "a partial run, because it differs from `samplesTotal`";
        holds("samplesCompleted", completed, completed == total, rule)?;
        let (started, finished) = (self.started_at, self.finished_at);
        let rule = "before `startedAt`";
        holds("finishedAt", finished, started <= finished, rule)?;
        let nonce = &self.nonce;
        let is_nonce =
            (16..=64).contains(&nonce.len()) && nonce.bytes().all(|b| b.is_ascii_hexdigit());
        let rule = "not 16 to 64 hex digits";
        holds("nonce", shown(nonce), is_nonce, rule)
    }

    fn check_texts(&self) -> Result<(), EvidenceError> {
        let texts = [
            ("harness", Some(&self.harness)),
            ("suite", Some(&self.suite)),
            ("suiteVersion", Some(&self.suite_version)),
            ("harnessVersion", self.harness_version.as_ref()),
            ("model", self.model.as_ref()),
            ("logDigest", self.log_digest.as_ref()),
        ];
        for (field, value) in texts {
            let value = value.map_or("-", String::as_str);
            holds(field, shown(value), is_text(value), NO_TEXT)?;
        }
        Ok(())
    }

    fn check_scores(&self) -> Result<(), EvidenceError> {
        let (count, rule) = (self.metrics.len(), "more metrics than 256");
        holds("metrics", count, count <= MAX_METRICS, rule)?;
        for (name, value) in &self.metrics {
            holds("metrics", shown(name), is_text(name), NO_TEXT)?;
            let field = format!("metrics.{name}");
            holds(&field, value, value.is_finite(), "not a finite number")?;
        }
        for name in &self.lower_is_better {
            let rule = "not a name in `metrics`";
            let is_there = self.metrics.contains_key(name);
            holds("lowerIsBetter", shown(name), is_there, rule)?;
        }
        let Some(overall) = self.overall else {
            let rule = "nothing measured, because `overall` is missing too";
            return holds("metrics", "empty", count > 0, rule);
        };
        let rule = "not between 0 and 1";
        holds("overall", overall, (0.0..=1.0).contains(&overall), rule)
    }

    /// The run for one mesh, after `challenge` was published.
    #[must_use]
    pub fn bound_to(mut self, mesh: MeshId, challenge: Option<Digest>) -> Self {
        (self.mesh, self.challenge) = (Some(mesh), challenge);
        self
    }
}

fn holds(
    field: &str,
    value: impl Display,
    holds: bool,
    rule: &'static str,
) -> Result<(), EvidenceError> {
    if holds {
        return Ok(());
    }
    Err(EvidenceError::Field {
        field: field.to_owned(),
        value: value.to_string(),
        rule,
    })
}

/// Whether a text may stand in a predicate.
fn is_text(text: &str) -> bool {
    (1..=MAX_TEXT_LEN).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// A text as an error shows it: quoted, without control characters, and not long.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_LEN) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
    }
}

const NO_TEXT: &str = "not 1 to 128 bytes of text without control characters";
/// Longest text that an error shows whole, in characters.
const SHOWN_LEN: usize = 40;

/// A value that prints and parses, as text; its absence as no field.
mod printed {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};
    use std::fmt::Display;
    use std::str::FromStr;

    pub(super) fn serialize<S: Serializer>(
        value: &Option<impl Display>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.collect_str(value),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
    where
        D: Deserializer<'de>,
        T: FromStr<Err: Display>,
    {
        let text = String::deserialize(from)?;
        text.parse().map(Some).map_err(D::Error::custom)
    }
}
