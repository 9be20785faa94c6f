//! All that can be asked without an order: explanations and events, for operators and for the web page. It is made of a
//! [`View`], which can change nothing, so that no question of a browser can either.

use crate::clock::Now;
use crate::events;
use crate::explain::{explain, explain_nowhere, may_come, when};
use crate::membership::named;
use crate::request::Page;
use crate::view::View;
use ::admin::Refused;
use wire::admin::{EventList, Explanation, Membership};
use wire::{NodeName, SegmentName};

/// The part that answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading<'e>(pub(crate) View<'e>);

impl Reading<'_> {
    /// Explains a node in a segment; without one, in the first that it is in, or why it is in none.
    pub(crate) fn explain(
        &self,
        name: &NodeName,
        segment: Option<&SegmentName>,
        now: Now,
    ) -> Result<Explanation, Refused> {
        let view = self.0;
        let (home, at_home) = view.home(name).ok_or_else(|| unknown(name))?;
        let (segment, case) = match segment {
            None if view.is_nowhere(at_home.node) => {
                let mut explanation = explain_nowhere(&at_home, |id| view.called(id), now);
                explanation.status = view.node_status(name, now);
                return Ok(explanation);
            }
            None => (home, at_home),
            Some(of) => {
                let segment = named(view.segments, of)?;
                let case = view.fleet().case(segment.id(), name);
                let may_come = at_home.node.may_ask_for(segment.id());
                (segment, case.ok_or_else(|| not_in(name, of, may_come))?)
            }
        };
        let member = segment.standings(view.fleet()).roster().contains(name);
        let held = segment.held().contains(name);
        let of = segment.name();
        let mut explanation = explain(&case, (of, segment.policy()), (member, held), now);
        let allowed = explanation.decision.membership == Membership::Allowed;
        let when = when(segment, member, allowed || held, now);
        explanation.outlook.extend(when);
        let more = may_come(case.node, |id| view.called(id));
        explanation.outlook.extend(more);
        explanation.status = view.node_status(name, now);
        Ok(explanation)
    }

    /// The events that a page asks for.
    pub(crate) fn events(&self, page: &Page) -> Result<EventList, Refused> {
        events::page(self.0.journal.log(), page).map_err(|error| {
            let error = format!("the event log cannot be read: {error}");
            Refused::new(500, error, RESTART)
        })
    }
}

/// The refusal for a name that no node has.
pub(crate) fn unknown(name: &NodeName) -> Refused {
    let hint = "`meshctl node list` shows the nodes that are enrolled";
    Refused::new(404, format!("no node {name}"), hint)
}

fn not_in(name: &NodeName, segment: &SegmentName, may_come: bool) -> Refused {
    if may_come {
        let error = format!("{name} may come into {segment}, and has not asked for its place");
        let hint = format!("it asks when it is connected: `meshctl node show {name}` says more");
        return Refused::new(404, error, hint);
    }
    let hint = format!("`meshctl node join {name} {segment}` lets it in");
    Refused::new(404, format!("{name} is not in {segment}"), hint)
}

/// The way out where the log cannot be read.
pub(crate) const RESTART: &str =
    "restart the controller: it verifies its log and says what is wrong";
