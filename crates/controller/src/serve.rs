//! The loop: await an input, apply it, carry out the effects, write the status.

use crate::by::By;
use crate::clock::Now;
use crate::effect::{ConnectionId, Effect, KeysChanged};
use crate::engine::Engine;
use crate::inputs::{Input, Question};
use crate::intake::Intake;
use crate::metrics::Held;
use crate::open::Controller;
use crate::outbox::{Outbound, Outbox};
use crate::places_file::PlacesFile;
use crate::status_file::StatusFile;
use crate::{admin, clock, page, session};
use ::page::Board;
use policy::Policy;
use quic::{Connection, Listener, Pulse};
use service::Service;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use wire::ToController;

/// Why serving ended without being told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The QUIC endpoint is gone.
    #[error("the QUIC endpoint has failed: restart the controller")]
    Endpoint,
    /// The admin socket is gone.
    #[error("the admin socket has failed: restart the controller")]
    Admin,
    /// No thread can be had.
    #[error("a thread cannot be started: {0}; look at the limits on processes")]
    Thread(std::io::Error),
    /// The engine's thread is gone.
    #[error("the engine has ended, which is a defect: restart the controller")]
    Engine,
}

impl Controller {
    /// The way to it while it serves.
    pub fn remote(&self) -> Remote {
        Remote {
            questions: self.questions.clone(),
        }
    }

    /// Serves until `shutdown` resolves; then tells every node and returns, within two seconds: a disk that
    /// does not let go of the log by then is left behind, with its thread. The service manager hears of each turn of
    /// the engine's loop, which may wait for a disk.
    ///
    /// # Errors
    /// [`ServeError`] when it ends for another reason.
    pub async fn serve(
        self,
        shutdown: impl Future<Output = ()>,
        service: Service,
    ) -> Result<(), ServeError> {
        let (inputs, queue) = mpsc::channel(INPUTS);
        let (questions, asked) = (self.questions, self.asked);
        let listener = Arc::new(self.listener);
        let mut engine = self.engine;
        let intake = Arc::new(Intake::of_segments(engine.segment_count()));
        let board = Arc::new(Board::default());
        if let Some(page) = &self.page {
            engine.show_page(page.standing());
        }
        let places = PlacesFile::open(self.places, &mut engine);
        let shell = Shell {
            engine,
            places,
            listener: Arc::clone(&listener),
            intake: Arc::clone(&intake),
            boxes: BTreeMap::new(),
            open: BTreeSet::new(),
            status: StatusFile::start(self.status_file, Arc::clone(&board))
                .map_err(ServeError::Thread)?,
            listen_at: Duration::ZERO,
            service,
        };
        let socket = UnixListener::from_std(self.admin).map_err(|_| ServeError::Admin)?;
        let desk = ::admin::Desk::new(questions, admin::WORDS);
        let router = ::admin::router(admin::routes(), desk.clone());
        let asker = page::Asker(desk.clone());
        let (stop, mut ended) = shell.start(queue, asked).map_err(ServeError::Thread)?;
        let result = tokio::select! {
            () = shutdown => Ok(()),
            () = accept(&listener, &intake, inputs) => Err(ServeError::Endpoint),
            _ = &mut ended => Err(ServeError::Engine),
            never = ::admin::serve(socket, router, self.clients) => match never {},
            never = ::admin::serve_metrics(self.metrics, desk) => match never {},
            never = serve_page(self.page, board, asker) => match never {},
        };
        drop(stop);
        if !ended.is_terminated() && timeout(ENGINE_STOP_TIME, ended).await.is_err() {
            tracing::warn!(
                "the disk holds the event log: it is left as it is, and nothing in it is lost"
            );
        }
        listener.close("the controller is stopping").await;
        result
    }
}

/// The way to a controller for its own daemon.
#[derive(Clone)]
pub struct Remote {
    questions: mpsc::Sender<Question>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Remote")
    }
}

impl Remote {
    /// Hands over the policies of the segments that were read again at a signal, or why none could be read, and waits:
    /// not for a thread that runs tasks. Whether another one is in force than before.
    ///
    /// # Errors
    /// The reason for which a policy before stays in force.
    pub fn change_policies(
        &self,
        policies: Result<Vec<(wire::SegmentName, Policy)>, String>,
    ) -> Result<bool, String> {
        let (answer, answered) = oneshot::channel();
        let sent = self
            .questions
            .blocking_send(Question::Policies { policies, answer });
        let stopping = |_| "the controller is stopping".to_owned();
        sent.map_err(|_| stopping(()))?;
        answered.blocking_recv().map_err(|_| stopping(()))?
    }
}

async fn serve_page(
    listener: Option<::page::Listener>,
    board: Arc<Board>,
    asker: page::Asker,
) -> Infallible {
    match listener {
        Some(listener) => listener.serve(board, asker).await,
        None => std::future::pending().await,
    }
}

async fn accept(listener: &Listener, intake: &Arc<Intake>, inputs: mpsc::Sender<Input>) {
    let mut next = 0;
    while let Some(mut incoming) = listener.accept().await {
        let remote = incoming.remote();
        if intake.is_suspect(remote) {
            // A forged address could otherwise use up the places of its owner.
            match incoming.prove_address() {
                Some(proven) => incoming = proven,
                None => continue,
            }
        }
        let Some(half_open) = intake.admit_handshake(remote, clock::boot()) else {
            incoming.ignore();
            continue;
        };
        next += 1;
        let (id, intake, inputs) = (ConnectionId(next), Arc::clone(intake), inputs.clone());
        let handshake = Box::pin(incoming.handshake());
        tokio::spawn(session::run(
            handshake, remote, half_open, id, intake, inputs,
        ));
    }
}

struct Shell {
    engine: Engine,
    listener: Arc<Listener>,
    intake: Arc<Intake>,
    boxes: BTreeMap<ConnectionId, Line>,
    /// Connections whose tasks have not ended.
    open: BTreeSet<ConnectionId>,
    status: StatusFile,
    places: PlacesFile,
    /// When it is time to look which connections are heard.
    listen_at: Duration,
    service: Service,
}

/// The way to a connection.
struct Line {
    outbox: Arc<Outbox>,
    connection: Connection,
    /// For how long nothing had been heard at the last look.
    silence: Duration,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.outbox.close();
    }
}

enum Wake {
    Stop,
    Question(Question),
    Input(Input),
    Timeout,
}

impl Shell {
    /// Runs on a thread of its own, which waits for the disk: nothing takes effect before it is durable, so
    /// there is no way around that wait, but neither QUIC nor sockets nor the word to stop share it. Dropped,
    /// the first value stops it; the second says when it has ended, with the log closed.
    fn start(
        self,
        queue: mpsc::Receiver<Input>,
        asked: mpsc::Receiver<Question>,
    ) -> std::io::Result<(oneshot::Sender<()>, oneshot::Receiver<()>)> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (ending, ended) = oneshot::channel();
        let runtime = tokio::runtime::Handle::current();
        let thread = std::thread::Builder::new().name("meshd-engine".into());
        thread.spawn(move || {
            let shutdown = async move {
                // Dropped without a word.
                let _ = stopped.await;
            };
            runtime.block_on(self.run(queue, asked, shutdown));
            // Nobody waits any more if it took too long.
            let _ = ending.send(());
        })?;
        Ok((stop, ended))
    }

    async fn run(
        mut self,
        mut queue: mpsc::Receiver<Input>,
        mut asked: mpsc::Receiver<Question>,
        shutdown: impl Future<Output = ()>,
    ) {
        let mut shutdown = std::pin::pin!(shutdown);
        // A question that was taken from the queue and has not been answered.
        let mut next: Option<Question> = None;
        loop {
            self.service.turned();
            let now = Now::read();
            self.engine.handle_timeout(now);
            self.carry_out();
            self.engine.tidy(now);
            self.listen(now);
            self.status.keep(&mut self.engine, now);
            self.places.keep(&self.engine, now);
            let wake = self.engine.poll_timeout().min(self.status.due());
            // Bounded, because the machine may sleep, which tokio's clock does not count, and the
            // wall clock may be set.
            let wait = wake.saturating_sub(now.boot).clamp(TICK, NAP);
            let wake = tokio::select! {
                // An operator does not wait behind whatever nodes have to say.
                biased;
                () = &mut shutdown => Wake::Stop,
                Some(question) = question(&mut next, &mut asked) => Wake::Question(question),
                input = queue.recv() => input.map_or(Wake::Stop, Wake::Input),
                () = sleep(wait) => Wake::Timeout,
            };
            match wake {
                Wake::Stop => break,
                Wake::Question(question) => {
                    next = self.answer_with_what_follows(question, &mut asked)
                }
                Wake::Input(input) => self.apply_with_what_follows(input, &mut queue),
                Wake::Timeout => {}
            }
        }
        self.engine.stop();
        self.carry_out();
        let _ = timeout(STOP_TIME, self.drain(&mut queue)).await;
        self.places.write(&self.engine);
        self.status.stop(&self.engine, Now::read());
    }

    /// Tells the engine when each connection was last heard, and ends those that are lost. Tells the service manager how
    /// the mesh stands.
    fn listen(&mut self, now: Now) {
        if now.boot < self.listen_at {
            return;
        }
        self.listen_at = now.boot + NAP;
        self.service.standing(self.engine.standing());
        for (id, line) in &mut self.boxes {
            let silence = line.connection.silence();
            let at = now.boot.saturating_sub(silence);
            self.engine.handle_heard(*id, at, now);
            if Pulse::is_lost(line.silence, silence) {
                // Its task notices, and says so.
                line.connection.close("nothing was heard");
            }
            line.silence = silence;
        }
    }

    /// Evictions that wait together are carried out in one epoch. Returns a question that came after them.
    fn answer_with_what_follows(
        &mut self,
        question: Question,
        asked: &mut mpsc::Receiver<Question>,
    ) -> Option<Question> {
        let first = match question.eviction() {
            Ok(first) => first,
            Err(other) => {
                self.answer(*other);
                return None;
            }
        };
        let by = first.by;
        let (mut orders, mut answers) = (vec![first.order], vec![first.answer]);
        let mut next = None;
        while orders.len() < EVICTIONS && next.is_none() {
            let Ok(question) = asked.try_recv() else {
                break;
            };
            match question.eviction() {
                Ok(eviction) if eviction.by == by => {
                    orders.push(eviction.order);
                    answers.push(eviction.answer);
                }
                Ok(eviction) => next = Some(eviction.into()),
                Err(other) => next = Some(*other),
            }
        }
        let results = self.engine.evict(orders, by, Now::read());
        for (answer, result) in answers.into_iter().zip(results) {
            // An operator who has gone away has been served all the same.
            let _ = answer.send(result);
        }
        next
    }

    fn answer(&mut self, question: Question) {
        let now = Now::read();
        match question {
            Question::Operator {
                request,
                by,
                answer,
            } => {
                // An operator who has gone away has been served all the same.
                let _ = answer.send(self.engine.operator(request, by, now));
            }
            Question::Policies { policies, answer } => {
                let by = Some(By::Signal);
                let changed = match policies {
                    Ok(policies) => policies
                        .into_iter()
                        .map(|(segment, policy)| {
                            self.engine.change_policy(Some(&segment), policy, by, now)
                        })
                        .try_fold(false, |any, changed| Ok(changed? || any))
                        .map_err(|refused: ::admin::Refused| refused.error.error),
                    Err(error) => {
                        self.engine.handle_unread_policy(error);
                        Ok(true)
                    }
                };
                let _ = answer.send(changed);
            }
            Question::Page(question) => page::answer(question, &self.engine, now),
            Question::Metrics { answer } => {
                let held = Held {
                    waiting: self.intake.waiting(),
                    connections: self.listener.open_connections(),
                };
                // Nor is a scraper waited for.
                let _ = answer.send(Ok(self.engine.metrics(held, now)));
            }
        }
    }

    /// Evidence that waits is taken together: it becomes durable in one commit, and is judged once. So are
    /// acknowledgements, which come from everybody at the same time, and change nothing that is due.
    fn apply_with_what_follows(&mut self, input: Input, queue: &mut mpsc::Receiver<Input>) {
        let mut next = Some(input);
        for _ in 0..BATCH {
            let Some(input) = next.take() else { return };
            let is_shared = shares(&input);
            self.apply(input);
            if is_shared {
                next = queue.try_recv().ok();
            }
        }
        if let Some(input) = next {
            self.apply(input);
        }
    }

    fn apply(&mut self, input: Input) {
        let now = Now::read();
        match input {
            Input::Connected {
                id,
                peer,
                remote,
                outbox,
                connection,
            } => {
                let silence = Duration::ZERO;
                let line = Line {
                    outbox,
                    connection,
                    silence,
                };
                self.boxes.insert(id, line);
                self.open.insert(id);
                self.engine.handle_connected(id, peer, remote, now);
            }
            Input::Message { id, message } => {
                if let Some(line) = self.boxes.get(&id) {
                    self.engine.handle_moved(id, line.connection.remote(), now);
                }
                self.engine.handle_message(id, *message, now);
            }
            Input::Refused { id, reason } => self.engine.handle_refused(id, reason),
            Input::Ready { id } => {
                if let Some(line) = self.boxes.get(&id) {
                    line.outbox.put_news(self.engine.places_for(id));
                }
            }
            Input::Disconnected { id } => {
                self.boxes.remove(&id);
                self.open.remove(&id);
                self.engine.handle_disconnected(id);
            }
        }
    }

    fn carry_out(&mut self) {
        match self.engine.take_keys_changed() {
            KeysChanged::No => {}
            KeysChanged::Added(keys) => self.intake.enrol(keys),
            KeysChanged::Otherwise => self.intake.set_enrolled(self.engine.enrolled()),
        }
        while let Some(effect) = self.engine.poll_effect() {
            let (id, outbound, last) = match effect {
                Effect::Send(id, message) => (id, Outbound::Message(message), false),
                Effect::Places(id) => (id, Outbound::Places, false),
                Effect::Close(id, reason) => (id, Outbound::Close(reason), true),
            };
            let Some(line) = self.boxes.get(&id) else {
                continue;
            };
            let full = line.outbox.put(outbound).is_err();
            if full {
                line.connection.close("this node does not read");
                self.engine.handle_disconnected(id);
            }
            if full || last {
                self.boxes.remove(&id);
            }
        }
    }

    /// Waits until every connection has had its last word.
    async fn drain(&mut self, queue: &mut mpsc::Receiver<Input>) {
        while !self.open.is_empty() {
            match queue.recv().await {
                Some(Input::Disconnected { id }) => {
                    self.open.remove(&id);
                }
                Some(
                    Input::Connected { .. }
                    | Input::Message { .. }
                    | Input::Refused { .. }
                    | Input::Ready { .. },
                ) => {}
                None => return,
            }
        }
    }
}

/// Whether an input and what follows it may be taken in one step.
fn shares(input: &Input) -> bool {
    match input {
        Input::Message { message, .. } => matches!(
            **message,
            ToController::Evidence { .. } | ToController::Ack { .. }
        ),
        Input::Ready { .. } => true,
        Input::Connected { .. } | Input::Refused { .. } | Input::Disconnected { .. } => false,
    }
}

/// The next question, the one that was put back first.
async fn question(
    next: &mut Option<Question>,
    asked: &mut mpsc::Receiver<Question>,
) -> Option<Question> {
    match next.take() {
        Some(question) => Some(question),
        None => asked.recv().await,
    }
}

/// Evictions that share an epoch.
const EVICTIONS: usize = 64;
/// Inputs that may wait; beyond that, connections wait.
const INPUTS: usize = 1024;
/// Inputs that are taken together: a disk that takes its time for a commit must not be the limit. Operators wait for
/// so much at most, some 40 ms at the 6,000 a second that were measured.
const BATCH: usize = 256;
/// Keeps a timer that is due, but waits for something else, from spinning.
const TICK: Duration = Duration::from_millis(1);
const NAP: Duration = Duration::from_secs(1);
/// For connections to take their last word, …
const STOP_TIME: Duration = Duration::from_millis(500);
/// … and for that, the status file and the log: all of a stop has two seconds.
const ENGINE_STOP_TIME: Duration = Duration::from_millis(1000);
