//! The sessions that run, and how others end them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::reason::Reason;

/// Every session that runs.
#[derive(Debug, Default)]
pub(super) struct Running(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    next: u64,
    sessions: HashMap<u64, Entry>,
    /// Why each one that begins from now on ends at once.
    closed: Option<Reason>,
}

/// A session, as others see it.
#[derive(Debug)]
struct Entry {
    route: Option<Arc<str>>,
    end: Option<oneshot::Sender<Reason>>,
}

impl Running {
    /// One more. The receiver hears why it must end, if it must.
    pub(super) fn begin(&self) -> (u64, oneshot::Receiver<Reason>) {
        let (end, told) = oneshot::channel();
        let mut table = self.table();
        let id = table.next;
        table.next += 1;
        let mut entry = Entry {
            route: None,
            end: Some(end),
        };
        if let Some(reason) = table.closed {
            entry.tell(reason);
        }
        table.sessions.insert(id, entry);
        (id, told)
    }

    pub(super) fn routed(&self, id: u64, route: &Arc<str>) {
        if let Some(entry) = self.table().sessions.get_mut(&id) {
            entry.route = Some(Arc::clone(route));
        }
    }

    pub(super) fn gone(&self, id: u64) {
        self.table().sessions.remove(&id);
    }

    pub(super) fn count(&self) -> usize {
        self.table().sessions.len()
    }

    /// Ends those of these routes, evenly over this time, in no order.
    pub(super) async fn end(
        &self,
        reason: Reason,
        span: Duration,
        chosen: impl Fn(Option<&str>) -> bool,
    ) {
        let sessions: Vec<u64> = {
            let table = self.table();
            let chosen =
                (table.sessions.iter()).filter(|(_, entry)| chosen(entry.route.as_deref()));
            // The order of a `HashMap` is another one in each process: that is the jitter.
            chosen.map(|(id, _)| *id).collect()
        };
        let (start, count) = (
            Instant::now(),
            u32::try_from(sessions.len()).unwrap_or(u32::MAX),
        );
        for (turn, id) in (0..).zip(sessions) {
            let wait = span / count * turn;
            if !wait.is_zero() {
                sleep_until(start + wait).await;
            }
            let mut table = self.table();
            let entry = table.sessions.get_mut(&id);
            // It may have got another route, or its route may have come back.
            if let Some(entry) = entry.filter(|entry| chosen(entry.route.as_deref())) {
                entry.tell(reason);
            }
        }
    }

    /// Ends every one, and those that begin from now on.
    pub(super) fn close(&self, reason: Reason) {
        let mut table = self.table();
        table.closed = Some(reason);
        for entry in table.sessions.values_mut() {
            entry.tell(reason);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Once: the first word counts.
    fn tell(&mut self, reason: Reason) {
        if let Some(end) = self.end.take() {
            // One that is at its end already hears it no more.
            let _ = end.send(reason);
        }
    }
}
