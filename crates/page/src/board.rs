//! The newest status, laid here by its role whenever it makes one for its status file. The form for readers is made
//! of it once, off the threads of the role, when a reader asks; a status that nobody asks for is dropped as it is.

use crate::sheet::Sheet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use wire::admin::ControllerStatus;

/// Where the newest status lies.
#[derive(Debug, Default)]
pub struct Board {
    laid: Mutex<Laid>,
    made: tokio::sync::Mutex<Made>,
}

#[derive(Debug, Default)]
struct Laid {
    /// Not yet made into a sheet.
    newest: Option<Arc<ControllerStatus>>,
    /// How many have been laid.
    count: u64,
}

#[derive(Debug, Default)]
struct Made {
    sheet: Option<Arc<Sheet>>,
    not_before: Option<Instant>,
}

impl Board {
    /// Lays down a status in place of the one before.
    pub fn lay(&self, status: Arc<ControllerStatus>) {
        let mut laid = self.laid();
        laid.newest = Some(status);
        laid.count += 1;
    }

    /// The newest sheet; `None` before the first status. One that was made within [`PAUSE`] is new enough.
    pub(crate) async fn sheet(&self) -> Option<Arc<Sheet>> {
        let mut made = self.made.lock().await;
        let now = Instant::now();
        if made.not_before.is_none_or(|at| at <= now)
            && let Some((status, count)) = self.take()
        {
            // Tens of milliseconds in a large mesh: connections of nodes are not to wait for that.
            let sheet = tokio::task::spawn_blocking(move || {
                // The role's writer has mostly let go of it by now; a status is cloned only where it has not.
                Sheet::of(Arc::unwrap_or_clone(status), count)
            });
            if let Ok(sheet) = sheet.await {
                made.sheet = Some(Arc::new(sheet));
                made.not_before = Some(now + PAUSE);
            }
        }
        made.sheet.clone()
    }

    fn take(&self) -> Option<(Arc<ControllerStatus>, u64)> {
        let mut laid = self.laid();
        let count = laid.count;
        laid.newest.take().map(|status| (status, count))
    }

    fn laid(&self) -> MutexGuard<'_, Laid> {
        self.laid.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Between two sheets, however often readers ask: half of the time between two looks of a browser.
const PAUSE: Duration = Duration::from_millis(500);
