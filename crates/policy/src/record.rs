//! The known facts about a node, as a decision takes them. Refuses to know where they come from.

use crate::scope::Subject;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wire::evidence::Signer;
use wire::{Digest, NodeName};

/// The known facts about a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Record<'r> {
    /// Its name.
    pub name: &'r NodeName,
    /// The groups that operators have put it into.
    pub groups: &'r BTreeSet<String>,
    /// An operator has excluded it.
    pub evicted: bool,
    /// An operator's ruling that is in force.
    pub ruling: Option<Ruling>,
    /// Epochs for which it is still admitted regardless, the one decided on included.
    pub probation_left: u32,
    /// Its newest accepted evidence per suite, harness and signer; the run that finished last is the first.
    pub evidence: Vec<Evidence<'r>>,
    /// Its standing after earlier scheduled decisions.
    pub standing: Standing,
}

/// An operator's ruling on one node, for a time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ruling {
    /// It is admitted, whatever its evidence says.
    Allow,
    /// It is not admitted.
    Deny,
    /// This is the threshold of every requirement, for this node.
    Threshold(f64),
}

/// A run that was accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The run's score of the whole, if the harness gave one.
    pub overall: Option<f64>,
    /// The measurements.
    pub metrics: BTreeMap<String, f64>,
    /// The metrics of which the harness says that less is better.
    pub lower_is_better: BTreeSet<String>,
    /// How many samples it has, all of them completed.
    pub samples: u64,
    /// The program that ran the suite.
    pub harness: String,
    /// The suite.
    pub suite: String,
    /// The suite's version.
    pub suite_version: String,
    /// When the run finished, by the clock of whoever ran it.
    pub finished_at: Timestamp,
    /// The party that vouches.
    pub signer: Signer,
    /// SHA-256 of the statement.
    pub digest: Digest,
}

/// Accepted evidence, as far as a decision needs it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence<'r> {
    /// The run.
    pub run: &'r Run,
    /// How long it has been accepted, by a clock that nobody sets: a wall clock that is set back must
    /// not make old evidence young. `None`: nobody knows, because the wall clock was set back while no
    /// other one counted.
    pub accepted_for: Option<Duration>,
    /// The earliest time that the controller's wall clock was set back to since it was accepted.
    pub set_back_to: Option<Timestamp>,
}

impl<'r> Record<'r> {
    pub(crate) fn subject(&self) -> Subject<'r> {
        Subject {
            name: self.name,
            groups: self.groups,
        }
    }
}

/// A node's standing after earlier scheduled decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Never judged on evidence: it may join as soon as it passes.
    New,
    /// A member, and how many scheduled decisions in a row it has failed.
    In {
        /// Failures in a row.
        failures: u32,
    },
    /// Quarantined, and how many scheduled decisions in a row it has passed.
    Out {
        /// Passes in a row.
        passes: u32,
    },
}
