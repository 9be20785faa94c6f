//! The output of a program or the content of a file, to emissions: runs by the format, or a DSSE envelope in their
//! place, which is passed on as it is.

use super::nonce;
use crate::io::clock;
use agent::Emission;
use harness::{Fault, Format, Labels, MAX_OWN_LEN, MAX_TEXT_LEN, Origin, Source};
use jiff::Timestamp;
use std::fs::File;
use std::io::{Cursor, Read as _, Seek as _};
use wire::evidence::{Benchmark, Envelope};

/// The form of results, and the names that they lack.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// The form.
    pub format: Format,
    /// Names that the operator gives.
    pub labels: Labels,
}

/// A result, and what it is known by.
#[derive(Debug, PartialEq)]
pub(super) struct Result {
    /// An emission for each run.
    pub(super) emissions: Vec<Emission>,
    /// The suites, one for each.
    pub(super) suites: Vec<String>,
    /// SHA-256 of the content, or the envelope itself.
    pub(super) content: Vec<u8>,
}

impl Reading {
    /// Most bytes that a program may print.
    pub(super) fn limit(&self) -> usize {
        let limit = match self.format {
            Format::Meshd | Format::ExitCode => MAX_OWN_LEN,
            Format::Inspect | Format::LmEval | Format::Junit => MAX_TEXT_LEN,
        };
        usize::try_from(limit).unwrap_or(usize::MAX)
    }

    /// Whether the exit code is the result, and not what is printed.
    pub(super) fn is_of_exit_code(&self) -> bool {
        self.format == Format::ExitCode
    }

    /// The result that a program printed.
    pub(super) fn output(
        &self,
        program: &str,
        bytes: &[u8],
    ) -> std::result::Result<Vec<Emission>, Fault> {
        if let Some(envelope) = self.envelope(bytes)? {
            return Ok(vec![Emission::Envelope(envelope)]);
        }
        let source = self.of_program(program);
        let report = harness::read(self.format, &mut Cursor::new(bytes), &source)?;
        Ok(report.runs.into_iter().map(run).collect())
    }

    /// The result of a program that ended with this code.
    pub(super) fn exit_code(
        &self,
        program: &str,
        code: i32,
    ) -> std::result::Result<Vec<Emission>, Fault> {
        let runs = harness::of_exit_code(code, &self.of_program(program))?;
        Ok(runs.into_iter().map(run).collect())
    }

    /// The result in a file that is open.
    pub(super) fn file(
        &self,
        name: &str,
        file: &mut File,
        modified: Timestamp,
    ) -> std::result::Result<Result, Fault> {
        if self.format == Format::Meshd {
            let mut bytes = Vec::new();
            file.take(MAX_OWN_LEN + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 <= MAX_OWN_LEN
                && let Some(envelope) = self.envelope(&bytes)?
            {
                return Ok(Result {
                    emissions: vec![Emission::Envelope(envelope.clone())],
                    suites: vec![String::new()],
                    content: envelope,
                });
            }
            file.rewind()?;
        }
        let source = Source {
            name,
            origin: Origin::File { modified },
            now: clock::wall(),
            labels: &self.labels,
        };
        let report = harness::read(self.format, file, &source)?;
        let suites = report.runs.iter().map(|run| run.suite.clone()).collect();
        let filed = |run| Emission::Filed(Box::new(run));
        Ok(Result {
            emissions: report.runs.into_iter().map(filed).collect(),
            suites,
            content: report.digest.to_vec(),
        })
    }

    fn of_program<'a>(&'a self, program: &'a str) -> Source<'a> {
        Source {
            name: program.rsplit('/').next().unwrap_or(program),
            origin: Origin::Program { nonce: nonce() },
            now: clock::wall(),
            labels: &self.labels,
        }
    }

    /// An evaluator's envelope, where our own format is expected.
    fn envelope(&self, bytes: &[u8]) -> std::result::Result<Option<Vec<u8>>, Fault> {
        if self.format != Format::Meshd {
            return Ok(None);
        }
        let text = harness::decoded(bytes)?;
        let is_envelope = serde_json::from_str::<Envelope>(text).is_ok();
        Ok(is_envelope.then(|| text.as_bytes().to_vec()))
    }
}

fn run(run: Benchmark) -> Emission {
    Emission::Run(Box::new(run))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: &str = r#"{"harness":"h","suite":"s","suiteVersion":"2","overall":0.8}"#;

    fn read(bytes: &[u8]) -> std::result::Result<Vec<Emission>, Fault> {
        Reading::default().output("/usr/bin/probe", bytes)
    }

    #[test]
    fn a_short_result_is_completed_and_every_run_of_a_program_is_its_own() {
        let of = || match read(SHORT.as_bytes()).unwrap().remove(0) {
            Emission::Run(run) => run,
            other => panic!("{other:?}"),
        };
        let (first, second) = (of(), of());
        assert_eq!((first.overall, first.nonce.len()), (Some(0.8), 32));
        assert_ne!(first.nonce, second.nonce);
    }

    #[test]
    fn an_envelope_is_passed_on_as_it_is_and_only_where_our_own_format_is_read() {
        let envelope = "\u{feff}{\"payloadType\":\"t\",\"payload\":\"\",\"signatures\":[]}\0";
        let Emission::Envelope(passed) = read(envelope.as_bytes()).unwrap().remove(0) else {
            panic!("an envelope")
        };
        assert!(passed.starts_with(b"{") && passed.ends_with(b"}"));
        let inspect = Reading {
            format: Format::Inspect,
            ..Reading::default()
        };
        assert!(inspect.output("a", envelope.as_bytes()).is_err());
    }

    #[test]
    fn an_exit_code_is_the_result_of_the_program_that_has_it() {
        let reading = Reading {
            format: Format::ExitCode,
            ..Reading::default()
        };
        let Emission::Run(run) = reading.exit_code("/usr/bin/probe", 1).unwrap().remove(0) else {
            panic!("a run")
        };
        assert_eq!((run.overall, &*run.suite), (Some(0.0), "probe"));
        assert!(reading.exit_code("probe", 2).is_err());
    }
}
