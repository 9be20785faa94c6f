//! The node's own firewall table: mesh addresses are reached by the tunnel alone, and nothing for the
//! mesh leaves in the clear ([decision 0015](../../../../../docs/decisions/0015-a-table-of-our-own.md)).
//! Touches no other table.
//!
//! A thread of its own keeps the table: it looks every [`LOOK_EVERY`] whether the rules are still there,
//! because the reload of another firewall may flush everything, and it alone waits for `nft`.

mod nft;
mod rules;
#[cfg(test)]
mod tests;

use super::rights::{self, Keep};
pub(crate) use rules::{Beside, Scope};
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// The fate of the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FirewallMode {
    /// There while the node runs, removed when it stops as asked.
    #[default]
    Auto,
    /// The rules that keep packets for the mesh out of the clear stay after the end.
    Keep,
    /// None.
    Off,
}

/// How the table stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FirewallState {
    /// There is none, as configured.
    Off,
    /// The rules are there.
    Active,
    /// They cannot be had, for this reason.
    Failed(String),
}

/// The table's keeper.
pub(crate) struct Firewall {
    state: Arc<Mutex<FirewallState>>,
    orders: Sender<Order>,
    /// Hung up when the rules are there, and when they cannot be had.
    installed: oneshot::Receiver<()>,
    /// Hung up when the thread has ended.
    ended: Receiver<()>,
    /// Whether the table goes with this.
    is_on_trial: bool,
}

/// An order to the keeper.
enum Order {
    /// The interface was made anew and has this index now. The sender is dropped when the rules say so, or when it
    /// is clear that there are none.
    Follow(u32, Sender<()>),
    /// These are the node's other segments now.
    Beside(Vec<Beside>),
    /// The node stops as asked.
    Stop,
    /// The node could not start: nothing is left behind.
    Undo,
}

impl Firewall {
    /// Installs the rules, or finds out why they cannot be had, and keeps them there; [`Self::installed`] says when.
    /// They go when this is dropped before [`Self::keep`].
    ///
    /// # Errors
    /// When no thread can be had. A missing firewall is no error: the node runs, and says so.
    pub(crate) fn start(mode: FirewallMode, scope: Scope) -> io::Result<Self> {
        let state = Arc::new(Mutex::new(FirewallState::Off));
        let (orders, inbox) = channel();
        let (ready, installed) = oneshot::channel::<()>();
        let (ending, ended) = channel();
        let of_thread = Arc::clone(&state);
        let keep = move || {
            // Children inherit the right that nft needs, and no other.
            rights::reduce(Keep::NETWORK);
            let mut keeper = Keeper {
                mode,
                scope,
                state: of_thread,
                installed: false,
                shown: String::new(),
            };
            keeper.begin();
            drop(ready);
            keeper.run(&inbox);
            drop(ending);
        };
        let thread = std::thread::Builder::new().name("meshd-firewall".into());
        thread.spawn(keep)?;
        Ok(Self {
            state,
            orders,
            installed,
            ended,
            is_on_trial: true,
        })
    }

    /// Resolves when the rules are there, and when they cannot be had.
    pub(crate) async fn installed(&mut self) {
        // The sender is dropped then.
        let _ = (&mut self.installed).await;
    }

    /// To be asked how it stands.
    pub(crate) fn watch(&self) -> FirewallWatch {
        FirewallWatch(Arc::clone(&self.state))
    }

    /// To tell it of an interface that was made anew.
    pub(crate) fn follower(&self) -> FirewallFollower {
        FirewallFollower(self.orders.clone())
    }

    /// These are the node's other segments from now on: nothing goes from one to the other.
    pub(crate) fn set_beside(&self, beside: Vec<Beside>) {
        // The thread ends only by an order, and after it.
        let _ = self.orders.send(Order::Beside(beside));
    }

    /// The table is in use. Dropped from now on without a word, it stays as it is.
    pub(crate) fn keep(&mut self) {
        self.is_on_trial = false;
    }

    /// The node stops as asked: the table goes, or with `keep` the part that fails closed stays.
    pub(crate) fn stop(mut self) {
        self.is_on_trial = false;
        self.end(Order::Stop);
    }

    fn end(&self, order: Order) {
        // The thread ends only by an order, and after it.
        let _ = self.orders.send(order);
        if self.ended.recv_timeout(STOP_TIME) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!(
                "nft does not answer: firewall rules may be left; the next start replaces them"
            );
        }
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        // It was raised for something that has not come.
        if self.is_on_trial {
            self.end(Order::Undo);
        }
    }
}

/// The way to see how the table stands.
pub(crate) struct FirewallWatch(Arc<Mutex<FirewallState>>);

impl FirewallWatch {
    /// As it stands now.
    pub(crate) fn state(&self) -> FirewallState {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.clone()
    }
}

/// The way to tell the table's keeper of another interface of the same name.
pub(crate) struct FirewallFollower(Sender<Order>);

impl FirewallFollower {
    /// The interface has this index now. Returns when the rules speak of it, or cannot be had; blocks for as long as
    /// `nft` may take.
    pub(crate) fn follow(&self, index: u32) {
        let (done, followed) = channel();
        // A keeper that has ended keeps nothing any more.
        if self.0.send(Order::Follow(index, done)).is_ok() {
            let _: Result<(), _> = followed.recv_timeout(FOLLOW);
        }
    }
}

struct Keeper {
    mode: FirewallMode,
    scope: Scope,
    state: Arc<Mutex<FirewallState>>,
    /// Whether there may be a table of this run.
    installed: bool,
    /// The table as nft showed it when it was installed.
    shown: String,
}

impl Keeper {
    fn begin(&mut self) {
        if self.mode == FirewallMode::Off {
            // The rules that a former run left would keep the mesh's own packets out: its interface is gone.
            if nft::list(&rules::table(&self.scope.interface)).is_ok() {
                self.remove();
            }
            return;
        }
        if let Err(error) = self.install() {
            self.failed(&error);
        }
    }

    fn run(mut self, inbox: &Receiver<Order>) {
        loop {
            match inbox.recv_timeout(LOOK_EVERY) {
                Err(RecvTimeoutError::Timeout) => self.look(),
                // The node ended in a way that nobody asked for: what protects it stays.
                Err(RecvTimeoutError::Disconnected) => return,
                Ok(Order::Follow(index, done)) => {
                    self.follow(index);
                    drop(done);
                }
                Ok(Order::Beside(beside)) => self.apart_from(beside),
                Ok(order @ (Order::Stop | Order::Undo)) => return self.end(&order),
            }
        }
    }

    /// Puts the rules back if somebody took or changed them.
    fn look(&mut self) {
        if self.mode == FirewallMode::Off {
            return;
        }
        let seen = nft::list(&rules::table(&self.scope.interface));
        match seen {
            Ok(shown) if shown == self.shown => {
                self.set(FirewallState::Active);
                return;
            }
            Ok(_) | Err(nft::NftError::Refused(_)) => {}
            Err(error) => return self.failed(&error),
        }
        let were_there = !self.shown.is_empty();
        match self.install() {
            Ok(()) if were_there => {
                tracing::warn!("firewall rules were changed by somebody else: put back");
            }
            Ok(()) => tracing::info!("firewall rules are there now"),
            Err(error) => self.failed(&error),
        }
    }

    /// Rules that name an interface of the past protect nothing.
    fn follow(&mut self, index: u32) {
        self.scope.index = index;
        if self.mode == FirewallMode::Off {
            return;
        }
        if let Err(error) = self.install() {
            self.failed(&error);
        }
    }

    fn apart_from(&mut self, beside: Vec<Beside>) {
        if self.scope.beside == beside {
            return;
        }
        self.scope.beside = beside;
        if self.mode != FirewallMode::Off
            && let Err(error) = self.install()
        {
            self.failed(&error);
        }
    }

    fn install(&mut self) -> Result<(), nft::NftError> {
        nft::load(&rules::all(&self.scope))?;
        self.installed = true;
        self.shown = nft::list(&rules::table(&self.scope.interface))?;
        self.set(FirewallState::Active);
        Ok(())
    }

    fn end(&self, order: &Order) {
        match (self.mode, order) {
            (FirewallMode::Off, _) | (_, Order::Follow(..) | Order::Beside(_)) => {}
            (FirewallMode::Keep, Order::Stop) => {
                if let Err(error) = nft::load(&rules::fail_closed(&self.scope)) {
                    tracing::warn!(%error, "firewall rules could not be reduced to those that stay");
                }
            }
            (FirewallMode::Auto, Order::Stop) | (_, Order::Undo) => self.remove(),
        }
    }

    fn remove(&self) {
        // Without rules of ours there is nothing to remove, and no right to try.
        if !self.installed && self.mode != FirewallMode::Off {
            return;
        }
        if let Err(error) = nft::load(&rules::none(&self.scope.interface)) {
            tracing::warn!(%error, "firewall rules could not be removed");
        }
    }

    /// One line when it begins, none per try.
    fn failed(&self, error: &nft::NftError) {
        if self.set(FirewallState::Failed(error.to_string())) {
            tracing::warn!(%error, "no firewall: packets that did not come through the tunnel can reach mesh addresses");
        }
    }

    /// Whether that is another state than before.
    fn set(&self, new: FirewallState) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_other = std::mem::discriminant(&*state) != std::mem::discriminant(&new);
        *state = new;
        is_other
    }
}

/// Two calls of `nft`, which may take 5 s each.
const FOLLOW: Duration = Duration::from_secs(11);
/// How long somebody else's flush may last.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// For nft at the end.
const STOP_TIME: Duration = Duration::from_millis(700);
