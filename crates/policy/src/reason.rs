//! Why a node is denied, and the change that would let it in. The words of a reason stay the same while it does:
//! they are compared, stored and signed, so that values which change all the time stand in the rules instead.

use crate::require::Signers;
use keys::EvaluatorId;
use std::fmt;

/// Why a node is denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Excluded by an operator.
    Evicted,
    /// Denied by an operator for a time.
    Overridden,
    /// A requirement does not hold.
    Fails {
        /// The requirement; empty: the one that the flat settings stand for.
        requirement: String,
        /// The way in which it does not hold.
        fault: Fault,
    },
    /// It passes, but not yet often enough in a row to return.
    OnTrial {
        /// Passes in a row, with the present one.
        passes: u32,
        /// Passes that it takes.
        needed: u32,
    },
}

/// The way in which a requirement does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// There is no evidence.
    NoBenchmark,
    /// There is evidence, but of no suite, version or harness that the requirement names.
    NoSuchSuite,
    /// There is evidence of the suite, but by no signer that counts.
    NoSuchSigner(Signers),
    /// An evaluator vouches for a run that is beyond its scope.
    OutOfScope {
        /// The evaluator.
        evaluator: EvaluatorId,
        /// The suite of the run.
        suite: String,
    },
    /// Fewer evaluators vouch for runs that pass than the requirement takes.
    TooFewSigners {
        /// Evaluators with a run that passes.
        have: u32,
        /// Evaluators that it takes.
        needed: u32,
    },
    /// The newest evidence is of a time that has not come: a clock was ahead, and has been set back since.
    Void,
    /// The newest evidence is too old.
    Stale,
    /// The run has fewer samples than the requirement takes.
    TooFewSamples,
    /// The newest evidence has no overall score.
    NoScore,
    /// A metric that the requirement maps is not in the run.
    MetricMissing(String),
    /// The harness says of a metric that less is better, and the policy that more is.
    Contradicted(String),
    /// The score is too low.
    BelowThreshold,
    /// A metric that the policy names is too low, or is not there.
    MetricBelowMinimum(String),
}

impl Reason {
    /// A fault of the requirement that the flat settings stand for.
    pub fn of(fault: Fault) -> Self {
        Self::Fails {
            requirement: String::new(),
            fault,
        }
    }

    /// Whether it says that there is nothing to judge, rather than that something was judged and failed.
    pub(crate) fn is_absence(&self) -> bool {
        match self {
            Self::Fails { fault, .. } => fault.is_absence(),
            Self::Evicted | Self::Overridden | Self::OnTrial { .. } => false,
        }
    }

    /// The change that would let the node in.
    pub fn remedy(&self) -> String {
        match self {
            Self::Evicted => "an operator readmits it (`meshctl node readmit`)".into(),
            Self::Overridden => {
                "the override ends, or an operator clears it (`meshctl policy override NODE --clear`)".into()
            }
            Self::OnTrial { .. } => "it goes on passing at the next scheduled rotations".into(),
            Self::Fails { fault, .. } => fault.remedy(),
        }
    }
}

impl Fault {
    fn is_absence(&self) -> bool {
        match self {
            Self::NoBenchmark
            | Self::NoSuchSuite
            | Self::NoSuchSigner(_)
            | Self::OutOfScope { .. }
            | Self::TooFewSigners { .. }
            | Self::Void => true,
            Self::Stale
            | Self::TooFewSamples
            | Self::NoScore
            | Self::MetricMissing(_)
            | Self::Contradicted(_)
            | Self::BelowThreshold
            | Self::MetricBelowMinimum(_) => false,
        }
    }

    fn remedy(&self) -> String {
        match self {
            Self::NoBenchmark => "a run is handed in".into(),
            Self::NoSuchSuite => "a run of the suite, version and harness that the requirement names is handed in".into(),
            Self::NoSuchSigner(Signers::Own) => "the node itself signs a run".into(),
            Self::NoSuchSigner(_) => "an evaluator of the policy signs a run".into(),
            Self::OutOfScope { .. } => {
                "another evaluator signs a run, or the scope of this one in the policy has the suite, the harness \
                 and the node"
                    .into()
            }
            Self::TooFewSigners { .. } => "more evaluators sign runs that pass".into(),
            Self::Void | Self::Stale => "a new run is handed in".into(),
            Self::TooFewSamples => "a run with more samples is handed in".into(),
            Self::NoScore => "the run has an overall score, or the requirement maps its metrics to one".into(),
            Self::MetricMissing(metric) | Self::Contradicted(metric) => {
                format!("the policy's mapping of {metric} is as the harness has it")
            }
            Self::BelowThreshold | Self::MetricBelowMinimum(_) => "a better run is handed in".into(),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Evicted => f.write_str("evicted"),
            Self::Overridden => f.write_str("denied by an operator's override"),
            Self::OnTrial { passes, needed } => write!(f, "on trial: {passes} of {needed} passes"),
            Self::Fails { requirement, fault } if requirement.is_empty() => fault.fmt(f),
            Self::Fails { requirement, fault } => write!(f, "{requirement}: {fault}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBenchmark => f.write_str("no benchmark"),
            Self::NoSuchSuite => f.write_str("no benchmark of the suite that counts"),
            Self::NoSuchSigner(signers) => {
                write!(f, "no benchmark by a signer that counts ({signers})")
            }
            Self::OutOfScope { evaluator, suite } => {
                write!(
                    f,
                    "evaluator {} may not vouch for suite {suite} here",
                    evaluator.short()
                )
            }
            Self::TooFewSigners { have, needed } => {
                write!(
                    f,
                    "{have} of {needed} evaluators vouch for a run that passes"
                )
            }
            Self::Void => f.write_str("benchmark void: of a time that has not come"),
            Self::Stale => f.write_str("benchmark stale"),
            Self::TooFewSamples => f.write_str("too few samples"),
            Self::NoScore => f.write_str("no overall score"),
            Self::MetricMissing(metric) => write!(f, "metric {metric} missing"),
            Self::Contradicted(metric) => {
                write!(
                    f,
                    "metric {metric}: lower is better, says the harness; higher, says the policy"
                )
            }
            Self::BelowThreshold => f.write_str("score below threshold"),
            Self::MetricBelowMinimum(metric) => write!(f, "metric {metric} below minimum"),
        }
    }
}
