//! The web page's way to the engine. Its questions are their own kind of input, which the engine answers from a
//! [`crate::reading`]: what operators may order has no form here.

use crate::clock::Now;
use crate::engine::Engine;
use crate::inputs::{PageQuestion, Question};
use crate::request::Page;
use ::admin::{Desk, Refused};
use ::page::{Refusal, Source};
use tokio::sync::oneshot;
use wire::admin::{EventList, Explanation};
use wire::{NodeName, SegmentName};

/// Answers a question of the page. The engine is only borrowed: nothing in it can change.
pub(crate) fn answer(question: PageQuestion, engine: &Engine, now: Now) {
    // A reader who has gone away is not waited for.
    match question {
        PageQuestion::Explain {
            name,
            segment,
            answer,
        } => {
            let _ = answer.send(engine.reading().explain(&name, segment.as_ref(), now));
        }
        PageQuestion::Events {
            after,
            limit,
            answer,
        } => {
            let page = Page {
                after,
                limit,
                ..Page::default()
            };
            let _ = answer.send(engine.reading().events(&page));
        }
    }
}

/// The page's source. Without `Debug`, as the questions that it asks.
#[derive(Clone)]
pub(crate) struct Asker(pub(crate) Desk<Question>);

impl Asker {
    async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<Result<T, Refused>>) -> PageQuestion,
    ) -> Result<T, Refusal> {
        let answered = self.0.ask(|answer| Question::Page(question(answer))).await;
        answered.flatten().map_err(|refused| Refusal {
            status: refused.status,
            error: refused.error,
        })
    }
}

impl Source for Asker {
    async fn explain(
        &self,
        name: NodeName,
        segment: Option<SegmentName>,
    ) -> Result<Explanation, Refusal> {
        self.ask(|answer| PageQuestion::Explain {
            name,
            segment,
            answer,
        })
        .await
    }

    async fn events(&self, after: u64, limit: u64) -> Result<EventList, Refusal> {
        self.ask(|answer| PageQuestion::Events {
            after,
            limit,
            answer,
        })
        .await
    }
}
