//! The runs that have come from files, with the time at which each was seen to have finished first. A file
//! that is touched, copied or read again after a restart makes no old run young.

use jiff::Timestamp;
use wire::evidence::Benchmark;

/// A run that has come from a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenRun {
    /// Its nonce: of a run that brings none, it is made of the file's content.
    pub nonce: String,
    /// When it finished, as it was said first.
    pub finished_at: Timestamp,
}

/// The newest such runs, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct SeenRuns {
    runs: Vec<SeenRun>,
    is_new: bool,
}

impl SeenRuns {
    pub(crate) fn new(mut runs: Vec<SeenRun>) -> Self {
        let most = runs.len().saturating_sub(MAX_SEEN);
        runs.drain(..most);
        Self {
            runs,
            is_new: false,
        }
    }

    /// Remembers a run, or gives it the time that it had before.
    pub(crate) fn handle_run(&mut self, run: &mut Benchmark) {
        let mut seen = self.runs.iter();
        if let Some(seen) = seen.find(|seen| seen.nonce == run.nonce) {
            run.finished_at = run.finished_at.min(seen.finished_at);
            run.started_at = run.started_at.min(run.finished_at);
            return;
        }
        if self.runs.len() >= MAX_SEEN {
            self.runs.remove(0);
        }
        self.runs.push(SeenRun {
            nonce: run.nonce.clone(),
            finished_at: run.finished_at,
        });
        self.is_new = true;
    }

    pub(crate) fn poll(&mut self) -> Option<Vec<SeenRun>> {
        std::mem::take(&mut self.is_new).then(|| self.runs.clone())
    }
}

/// Most runs that are remembered: four files of the most suites.
const MAX_SEEN: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use wire::fixtures;

    #[test]
    fn the_newest_runs_are_remembered_and_no_more_than_256() {
        let mut seen = SeenRuns::default();
        for n in 0..300 {
            let finished = Timestamp::from_second(1_000 + n).unwrap();
            let mut run = fixtures::run(0.9, finished);
            run.nonce = format!("{n:032x}");
            seen.handle_run(&mut run);
            assert_eq!(run.finished_at, finished);
        }
        let runs = seen.poll().unwrap();
        assert_eq!((runs.len(), runs[0].finished_at.as_second()), (256, 1_044));
        let again = SeenRuns::new([runs.clone(), runs.clone()].concat());
        assert_eq!(again.runs, runs);
    }
}
