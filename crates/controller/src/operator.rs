//! The requests of operators through the admin socket. Every refusal says what to do about it.

mod members;
mod recover;
mod routes;

use crate::by::By;
use crate::clock::Now;
use crate::decide::Cause;
use crate::event::Event;
use crate::fleet::{Fleet, TokenRecord};
use crate::format::{utc, utc_unix};
use crate::membership::named;
use crate::prove::prove;
use crate::reading::{Reading, unknown};
use crate::rotate::Rotation;
use crate::segment::{Segment, Unpublished};
use crate::view::View;
use epoch::authority::Kind;
use keys::{AuthorityId, Epoch, LogSecret, NodeId, SegmentId, TokenSecret};
use rand_core::{OsRng, RngCore as _};
use std::collections::BTreeSet;
use std::time::Duration;
use wire::admin::{
    AuthorityRotated, EpochChange, EvictRequest, EvictionsRequest, MAX_EVICTED, RotateRequest,
    Status, TokenCreated, TokenInfo, TokenRequest,
};
use wire::{NodeName, SegmentName, Token, VerifyError};

use crate::request::LogRequest;

pub use crate::request::{Answer, Page, Request};
use wire::succession::EvaluatorSuccession;
mod policy;

pub use ::admin::Refused;
pub(crate) use policy::policy_changed;

/// The part that does what operators ask.
#[derive(Debug)]
pub(crate) struct Operator<'e> {
    pub(crate) rotation: Rotation<'e>,
    /// Whoever asks.
    pub(crate) by: Option<By>,
    /// Why the policy's file could not be taken when it was read last.
    pub(crate) unread_policy: Option<String>,
    /// Whether the web page has its address.
    pub(crate) page: Option<::page::Standing>,
}

impl Operator<'_> {
    /// Does what an operator asks, or says why not.
    ///
    /// # Errors
    /// [`Refused`]; then nothing has changed.
    pub(crate) fn ask(&mut self, request: Request, now: Now) -> Result<Answer, Refused> {
        match request {
            Request::Status => {
                let status = Box::new(self.view().status(now));
                Ok(Answer::Status(Status::Controller(status)))
            }
            Request::Explain(name, segment) => {
                let explanation = Reading(self.view()).explain(&name, segment.as_ref(), now)?;
                Ok(Answer::Explanation(Box::new(explanation)))
            }
            Request::ExplainAt(name, segment, then) => {
                self.explain_at(&name, segment.as_ref(), then)
            }
            Request::Override(name, form) => self.set_override(name, form, now),
            Request::ClearOverride(name) => self.clear_override(name, now),
            Request::Group {
                name,
                group,
                member,
            } => self.group(name, group, member, now),
            Request::Routes => Ok(Answer::Routes(self.routes())),
            Request::ApproveRoute(name, form) => self.approve_route(&name, &form, now),
            Request::WithdrawRoute(name, form) => self.withdraw_route(&name, &form, now),
            Request::Policy(segment) => self.policy(segment.as_ref()),
            Request::Simulate(segment, policy, since) => {
                self.simulate(segment.as_ref(), &policy, since)
            }
            Request::Evidence(..) | Request::ChangePolicy(..) => {
                let hint = "this is a fault of the controller: its log has the details";
                Err(Refused::new(500, "asked in the wrong place", hint))
            }
            Request::Evict(name, form) => {
                let mut answers = self.evict(vec![(name, form)], now);
                answers.pop().expect("one answer for each order")
            }
            Request::EvictAll(form) => self.evict_all(form, now),
            Request::Readmit(name) => self.readmit(name, now),
            Request::JoinSegment(name, segment) => self.let_into(&name, &segment, now),
            Request::LeaveSegment(name, segment, form) => self.take_out(&name, &segment, form, now),
            Request::RotateEvaluator(word) => self.rotate_evaluator(word, now),
            // The engine's: it changes the key that the other parts only borrow.
            Request::RotateAuthority => Err(Refused::plain(500, "not here")),
            Request::Recover(form) => self.recover(&form, now),
            Request::Remove(name, form) => self.remove(name, form, now),
            Request::Approve(name) => self.approve(&name, now),
            Request::Reject(name, form) => self.reject(&name, form, now),
            Request::Banned => Ok(Answer::Banned(self.banned())),
            Request::Unban(key) => self.unban(&key, now),
            Request::Rotate(form) => self.rotate(&form, now),
            Request::Tokens => Ok(Answer::Tokens(self.tokens(now))),
            Request::CreateToken(form) => self.create_token(form, now),
            Request::RevokeToken(id) => self.revoke_token(&id, now),
            Request::RotateLogKey => self.rotate_log_key(now),
            Request::Log(request) => prove(self.rotation.journal.log(), request),
            Request::Events(page) => Reading(self.view()).events(&page).map(Answer::Events),
        }
    }

    fn rotate_log_key(&mut self, now: Now) -> Result<Answer, Refused> {
        let new = LogSecret::generate(&mut OsRng);
        let Rotation {
            journal, output, ..
        } = &mut self.rotation;
        let rotated = journal.rotate_log_key(self.by, new, output, now);
        rotated.map_err(|error| unpublished(&error.into()))?;
        prove(self.rotation.journal.log(), LogRequest::Status)
    }

    /// Evicts nodes by orders that came together, in one epoch; one answer for each.
    pub(crate) fn evict(
        &mut self,
        orders: Vec<(NodeName, EvictRequest)>,
        now: Now,
    ) -> Vec<Result<Answer, Refused>> {
        let (mut ids, mut events) = (Vec::new(), Vec::new());
        let mut taken = Vec::with_capacity(orders.len());
        for (name, form) in orders {
            let order = self.eviction(&name, form).and_then(|(id, event)| {
                if ids.contains(&id) {
                    return Err(evicted_already(&name));
                }
                ids.push(id);
                events.push(event);
                Ok(name)
            });
            taken.push(order);
        }
        // The operator is answered once the node is out: the event is durable together with an epoch that does
        // not have it, and that epoch is on its way to everybody else.
        let done = if events.is_empty() {
            Ok(())
        } else {
            self.rotation
                .shut_out(self.by, &ids, Cause::Eviction, &events, now)
        };
        let answer = |order: Result<NodeName, Refused>| {
            let name = order?;
            done.as_ref().map_err(unpublished)?;
            tracing::info!(node = %name, "node evicted");
            Ok(Answer::Change(self.change(now)))
        };
        taken.into_iter().map(answer).collect()
    }

    /// Evicts several nodes by one order, in one epoch. A name that nobody has is probably a typing error: then nothing
    /// is done.
    fn evict_all(&mut self, form: EvictionsRequest, now: Now) -> Result<Answer, Refused> {
        let EvictionsRequest { nodes, reason } = form;
        if nodes.is_empty() || nodes.len() > MAX_EVICTED {
            let error = format!("{} nodes are not 1 to {MAX_EVICTED}", nodes.len());
            return Err(Refused::new(400, error, "name them in parts"));
        }
        let known = |name: &&NodeName| self.fleet().node(name).is_some();
        if let Some(name) = nodes.iter().find(|name| !known(name)) {
            return Err(unknown(name));
        }
        let is_in = |name: &NodeName| self.fleet().node(name).is_some_and(|it| !it.evicted());
        let names: BTreeSet<NodeName> = nodes.into_iter().filter(is_in).collect();
        let order = |name| {
            let reason = reason.clone();
            (name, EvictRequest { reason })
        };
        let orders = names.into_iter().map(order).collect();
        let mut answers = self.evict(orders, now).into_iter();
        let last = answers.try_fold(None, |_, answer| answer.map(Some))?;
        let none = || {
            let hint = "`meshctl node readmit` would let one return";
            Refused::new(409, "all of them are evicted already", hint)
        };
        last.ok_or_else(none)
    }

    /// An order to evict, held against what is known.
    fn eviction(&self, name: &NodeName, form: EvictRequest) -> Result<(NodeId, Event), Refused> {
        let node = self.fleet().node(name).ok_or_else(|| unknown(name))?;
        if node.evicted() {
            return Err(evicted_already(name));
        }
        check_reason(&form)?;
        let event = Event::NodeEvicted {
            name: name.clone(),
            reason: form.reason,
        };
        Ok((node.id, event))
    }

    fn readmit(&mut self, name: NodeName, now: Now) -> Result<Answer, Refused> {
        let node = self.fleet().node(&name).ok_or_else(|| unknown(&name))?;
        if !node.evicted() {
            let error = format!("{name} is not evicted");
            let hint = format!("`meshctl explain {name}` says why it is where it is");
            return Err(Refused::new(409, error, hint));
        }
        let event = Event::NodeReadmitted { name: name.clone() };
        self.commit(event, now)?;
        tracing::info!(node = %name, "node readmitted");
        let Rotation {
            journal, segments, ..
        } = &mut self.rotation;
        segments.want_join_of(journal.fleet(), &name, now);
        self.node(&name, now)
    }

    /// A node, as an answer.
    fn node(&self, name: &NodeName, now: Now) -> Result<Answer, Refused> {
        let status = self.view().node_status(name, now);
        let status = status.ok_or_else(|| unknown(name))?;
        Ok(Answer::Node(Box::new(status)))
    }

    fn rotate(&mut self, form: &RotateRequest, now: Now) -> Result<Answer, Refused> {
        let confirmed = form.confirm_removals;
        let cause = Cause::Operator { confirmed };
        let only = form.segment.as_ref();
        let only = only.map(|name| named(self.rotation.segments, name));
        let only = only.transpose()?.map(Segment::id);
        let all = || self.rotation.segments.ids();
        for id in only.map_or_else(all, |id| vec![id]) {
            if let Some(kind) = self.rotation_of(id, form.now, cause) {
                let published = self.rotation.publish(self.by, &[id], cause, kind, &[], now);
                published.map_err(|error| unpublished(&error))?;
            }
        }
        Ok(Answer::Change(match only {
            Some(id) => self.change_of(self.rotation.segments.get(id), now),
            None => self.change(now),
        }))
    }

    /// The kind of rotation that a segment needs; `None`: the one that is asked for is on its way already.
    fn rotation_of(&self, id: SegmentId, at_once: bool, cause: Cause) -> Option<Kind> {
        let segment = self.rotation.segments.get(id);
        let confirmed = cause == Cause::Operator { confirmed: true };
        let standings = segment.standings(self.fleet());
        let next = segment.next().and_then(|next| standings.epoch(next.epoch));
        let on_its_way = next
            .is_some_and(|(_, p)| p.cause == Cause::Scheduled.word() || p.cause == cause.word());
        match (at_once, on_its_way) {
            (true, _) => Some(Kind::Immediate),
            // The epoch on its way was decided without the operator's word: the removals that it held would
            // stay.
            (false, true) if confirmed && !segment.held().is_empty() => Some(Kind::Immediate),
            (false, true) => None,
            (false, false) => Some(Kind::Scheduled),
        }
    }

    /// The newest epoch of the first segment, as an answer.
    fn change(&self, now: Now) -> EpochChange {
        self.change_of(self.rotation.segments.first(), now)
    }

    /// The newest epoch of a segment, as an answer.
    fn change_of(&self, segment: &Segment, now: Now) -> EpochChange {
        let newest = segment.newest();
        let epoch = newest.map_or(Epoch(0), |span| span.epoch);
        let wait = newest.map_or(Duration::ZERO, |span| {
            span.activates.saturating_sub(now.boot)
        });
        let update = segment.issue(epoch).map(|issue| &issue.update);
        EpochChange {
            epoch: epoch.0,
            activates_in_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            members: segment.standings(self.fleet()).roster().len(),
            excluded: update
                .into_iter()
                .flat_map(|update| &update.excluded)
                .map(|e| (e.name.clone(), e.reason.clone()))
                .collect(),
            held: segment.held().iter().cloned().collect(),
        }
    }

    /// Puts an evaluator's word for its next key on record, once.
    fn rotate_evaluator(&mut self, word: EvaluatorSuccession, now: Now) -> Result<Answer, Refused> {
        let (old, new) = word.verify().map_err(|error| {
            let hint = "`meshctl key rotate evaluator` makes the statement; bring it as it is";
            Refused::new(400, error.to_string(), hint)
        })?;
        self.commit(Event::EvaluatorRotated(word.clone()), now)?;
        tracing::info!(%old, %new, "an evaluator has another key; list it in the policy");
        Ok(Answer::Evaluator(word))
    }

    /// The answer to a change of the authority.
    pub(crate) fn authority_rotated(&self, old: AuthorityId, now: Now) -> Answer {
        Answer::Authority(AuthorityRotated {
            old: old.to_string(),
            new: self.rotation.mesh.authority.public().to_string(),
            change: self.change(now),
            absent: self.absent(),
        })
    }

    fn tokens(&self, now: Now) -> Vec<TokenInfo> {
        let tokens = self.fleet().tokens().iter();
        tokens.map(|(id, it)| self.info(id, it, now)).collect()
    }

    fn create_token(&mut self, form: TokenRequest, now: Now) -> Result<Answer, Refused> {
        let ttl = form.ttl_seconds.unwrap_or(DEFAULT_TTL);
        if !(1..=MAX_TTL).contains(&ttl) {
            let error = format!("a token lives from 1 to {MAX_TTL} seconds, not {ttl}");
            return Err(Refused::new(400, error, "choose another time"));
        }
        let uses = form.uses.unwrap_or(1);
        if !(1..=MAX_USES).contains(&uses) {
            let error = format!("a token admits from 1 to {MAX_USES} nodes, not {uses}");
            return Err(Refused::new(400, error, "choose another number"));
        }
        if uses > 1 && form.name.is_some() {
            let error = "a token for one name admits one node";
            let hint = "leave out the name, or the number of uses";
            return Err(Refused::new(400, error, hint));
        }
        let segments = self.segments_of(&form.segments)?;
        let mesh = self.rotation.mesh;
        if mesh.advertise.is_empty() {
            let error = "the controller does not know where nodes can reach it";
            let hint = "set `advertise` in its configuration to its address and port";
            return Err(Refused::new(409, error, hint));
        }
        let secret = TokenSecret::generate(&mut OsRng);
        let (id, expires_unix) = (format!("{:08x}", OsRng.next_u32()), now.unix() + ttl);
        let event = Event::TokenCreated {
            id: id.clone(),
            hash: secret.hash(),
            name: form.name,
            expires_unix,
            uses,
            boot_ms: now.boot_ms(),
            segments,
        };
        // Durable before it is shown: a token that a crash took back would be refused to whoever was given it.
        self.commit(event, now)?;
        let token = Token {
            controllers: mesh.advertise.clone(),
            controller: mesh.controller,
            authorities: mesh.trusted().to_vec(),
            secret,
            expires_unix,
        };
        Ok(Answer::Created(TokenCreated {
            id,
            token: token.expose().to_string(),
            expires_utc: utc_unix(expires_unix),
        }))
    }

    fn revoke_token(&mut self, id: &str, now: Now) -> Result<Answer, Refused> {
        let list = "`meshctl token list` shows those that exist";
        let record = self.fleet().tokens().get(id);
        let record = record.ok_or_else(|| Refused::new(404, format!("no token {id}"), list))?;
        if record.revoked {
            return Ok(Answer::Token(self.info(id, record, now)));
        }
        if let Some(name) = record.used_by.last().filter(|_| record.is_used_up()) {
            let hint = format!("to shut the node out, `meshctl node evict {name}`");
            let error = match record.uses {
                1 => format!("{name} has used token {id}"),
                uses => {
                    format!("token {id} is used up: {uses} nodes enrolled with it, {name} last")
                }
            };
            return Err(Refused::new(409, error, hint));
        }
        let event = Event::TokenRevoked { id: id.to_owned() };
        self.commit(event, now)?;
        let record = self.fleet().tokens().get(id);
        let record = record.ok_or_else(|| Refused::new(404, format!("no token {id}"), list))?;
        Ok(Answer::Token(self.info(id, record, now)))
    }

    /// The numbers of the segments that a token is to allow; of none, the first one.
    fn segments_of(&self, names: &[SegmentName]) -> Result<Vec<SegmentId>, Refused> {
        let segments = &self.rotation.segments;
        if names.is_empty() {
            return Ok(vec![segments.first().id()]);
        }
        let mut ids = Vec::new();
        for name in names {
            let id = named(segments, name)?.id();
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    fn info(&self, id: &str, record: &TokenRecord, now: Now) -> TokenInfo {
        let state = match () {
            () if record.revoked => "revoked",
            () if record.is_used_up() => "used",
            () if record.is_over(now) => "expired",
            () => "open",
        };
        let segments = record.segments.iter();
        let segments = segments.filter_map(|id| self.rotation.segments.find(*id));
        TokenInfo {
            id: id.to_owned(),
            name: record.name.clone(),
            segments: segments.map(|it| it.name().clone()).collect(),
            state: state.to_owned(),
            created_utc: utc(record.created_at),
            expires_utc: utc_unix(record.expires_unix),
            uses: record.uses,
            used_by: record.used_by.clone(),
        }
    }

    fn commit(&mut self, event: Event, now: Now) -> Result<(), Refused> {
        let written = self.rotation.commit(self.by, event, now);
        written.map_err(|error| unpublished(&error.into()))
    }

    fn view(&self) -> View<'_> {
        View {
            mesh: self.rotation.mesh,
            journal: self.rotation.journal,
            segments: self.rotation.segments,
            connections: self.rotation.connections,
            unread_policy: self.unread_policy.as_deref(),
            page: self.page.as_ref(),
        }
    }

    fn fleet(&self) -> &Fleet {
        self.rotation.journal.fleet()
    }
}

fn evicted_already(name: &NodeName) -> Refused {
    let hint = format!("`meshctl node readmit {name}` would let it return");
    Refused::new(409, format!("{name} is evicted already"), hint)
}

fn check_reason(form: &EvictRequest) -> Result<(), Refused> {
    if form.reason.as_ref().is_some_and(|r| r.len() > MAX_WORDS) {
        let error = format!("the reason is over {MAX_WORDS} bytes");
        return Err(Refused::new(400, error, "say it shorter"));
    }
    Ok(())
}

pub(crate) fn unsigned(error: &VerifyError) -> Refused {
    let error = format!("the word for the nodes cannot be signed: {error}");
    Refused::new(500, error, "this is a fault of the controller: report it")
}

pub(crate) fn no_key_file(error: &std::io::Error) -> Refused {
    let error = format!("the new key cannot be written beside the old one: {error}");
    Refused::new(
        503,
        error,
        "nothing has changed: make the state directory writable, then try again",
    )
}

pub(crate) fn unpublished(error: &Unpublished) -> Refused {
    let hint = match error {
        Unpublished::Log(_) => {
            "nothing has changed: free disk space or restore write access, then try again"
        }
        Unpublished::NotNow(_) => "try again in a few seconds",
        Unpublished::Rule(_) => "this is a fault of the controller: its log has the details",
    };
    Refused::new(503, error.to_string(), hint)
}

/// One hour.
const DEFAULT_TTL: u64 = 3_600;
/// Thirty days: a token that lies about longer is a key.
const MAX_TTL: u64 = 30 * 24 * 3_600;
/// Nodes that one token may admit: it is in as many hands.
const MAX_USES: u32 = 1_000;
const MAX_WORDS: usize = 1_000;
