//! The way from a path to the task that owns a role's state, and back.

use crate::refused::Refused;
use exposition::Page;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// A question to a role; each carries the way for its answer.
pub trait Question: Send + 'static {
    /// Asks for everything that is measured.
    fn metrics(answer: oneshot::Sender<Result<Page, Refused>>) -> Self;
}

/// How a role's socket speaks of its role.
#[derive(Debug, Clone, Copy)]
pub struct Words {
    /// Said while the role is stopping.
    pub stopping: &'static str,
    /// Said of a path that does not exist.
    pub no_such_path: &'static str,
    /// The hint at what there is instead.
    pub hint: &'static str,
}

/// The desk where a role's questions are asked.
#[derive(Debug)]
pub struct Desk<Q> {
    pub(crate) questions: mpsc::Sender<Q>,
    pub(crate) words: Words,
}

impl<Q> Clone for Desk<Q> {
    fn clone(&self) -> Self {
        Self {
            questions: self.questions.clone(),
            words: self.words,
        }
    }
}

impl<Q: Question> Desk<Q> {
    /// A desk that passes questions on.
    pub fn new(questions: mpsc::Sender<Q>, words: Words) -> Self {
        Self { questions, words }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// 503 when the role is stopping, or is held up. Then it may still do what it was asked.
    pub async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Q,
    ) -> Result<T, Refused> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            let sent = self.questions.send(question(answer)).await;
            sent.map_err(|_| self.stopping())?;
            answered.await.map_err(|_| self.stopping())
        };
        timeout(PATIENCE, asked).await.unwrap_or_else(|_| {
            let hint = "a disk that is slow? Look at the log. What was asked for may still be done";
            Err(Refused::new(503, "the daemon is held up", hint))
        })
    }

    /// The refusal while the role is stopping.
    pub fn stopping(&self) -> Refused {
        Refused::new(503, self.words.stopping, "start it again")
    }
}

/// For a role to answer; shorter than what `meshctl` waits for.
const PATIENCE: Duration = Duration::from_secs(8);
