//! What was closed in vain and cannot be bound again: it is wished for still, and tried again.

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::operators::Admin;
use super::replace::Closed;
use super::running::{Running, bind};
use super::{Listeners, Serving};
use crate::admin;
use crate::retry::Backoff;
use crate::status::State;

/// What should run, and does not since it was closed.
#[derive(Debug)]
pub(super) struct Missing {
    closed: Closed,
    /// What the system says, one for each of them.
    why: Vec<String>,
    pauses: Backoff,
    next: Instant,
}

impl Listeners {
    /// Serves on where it did before, with what was missing already. What cannot be bound is missing from now on.
    pub(super) async fn reopen(
        &mut self,
        mut closed: Closed,
        serving: &Serving,
        tasks: &mut JoinSet<()>,
    ) {
        if let Some(missing) = self.missing.take() {
            closed.listeners.extend(missing.closed.listeners);
            closed.admin = closed.admin.or(missing.closed.admin);
        }
        let (closed, why) = self.bind_again(closed, serving, tasks).await;
        if why.is_empty() {
            return;
        }
        tracing::error!(
            ?why,
            "what was closed for another cannot be bound again: nobody is served there; it is tried again"
        );
        let mut pauses = Backoff::default();
        let next = Instant::now() + pauses.next();
        self.missing = Some(Missing {
            closed,
            why,
            pauses,
            next,
        });
    }

    /// When what is missing is to be tried again; `None` where nothing is.
    pub(in crate::serve) fn next_try(&self) -> Option<Instant> {
        self.missing.as_ref().map(|missing| missing.next)
    }

    /// Tries what is missing again.
    pub(in crate::serve) async fn try_again(&mut self, serving: &Serving, tasks: &mut JoinSet<()>) {
        let Some(mut missing) = self.missing.take() else {
            return;
        };
        let closed = std::mem::take(&mut missing.closed);
        (missing.closed, missing.why) = self.bind_again(closed, serving, tasks).await;
        if !missing.why.is_empty() {
            missing.next = Instant::now() + missing.pauses.next();
            self.missing = Some(missing);
        }
    }

    /// What there is to say of the listeners.
    pub(in crate::serve) fn state(&self) -> State {
        let Some(missing) = &self.missing else {
            return self.lost();
        };
        let why = missing.why.join("; ");
        let what = format!("nobody is served where this was closed, it is tried again: {why}");
        match self.running.is_empty() {
            true => State::NotReady(what),
            false => State::Degraded(what),
        }
    }

    /// Whether each UNIX socket is found where it is written. They are looked for when the configuration is read.
    fn lost(&self) -> State {
        let admin = self.admin.iter().filter(|admin| admin.is_lost());
        let lost = self.running.iter().filter(|running| running.is_lost());
        let lost = lost
            .map(|running| &running.bound)
            .chain(admin.map(|admin| &admin.bound));
        let lost: Vec<String> = lost.map(ToString::to_string).collect();
        match lost.is_empty() {
            true => State::Ready,
            false => State::Degraded(format!(
                "nobody finds these sockets, whose files are gone or another's; a reload binds them again once it can: {}",
                lost.join(", ")
            )),
        }
    }

    /// What is missing, and why.
    pub(super) fn lack(&self) -> Option<String> {
        self.missing.as_ref().map(|missing| missing.why.join("; "))
    }

    /// Binds these, and returns those that cannot be bound, with why.
    async fn bind_again(
        &mut self,
        closed: Closed,
        serving: &Serving,
        tasks: &mut JoinSet<()>,
    ) -> (Closed, Vec<String>) {
        let mut left = Closed::default();
        let mut why = Vec::new();
        for one in closed.listeners {
            match bind(&one.bound, one.written.mode(), &one.keepalive, serving) {
                Ok(socket) => {
                    tracing::info!(address = %one.bound, "listening again");
                    let serving = serving.clone();
                    let running =
                        Running::start(one.id, one.written, socket, one.keepalive, serving, tasks);
                    self.running.push(running);
                }
                Err(error) => {
                    why.push(error.to_string());
                    left.listeners.push(one);
                }
            }
        }
        if let Some((written, bound)) = closed.admin {
            match admin::Listener::bind(&bound).await {
                Ok(listener) => {
                    tracing::info!(address = %bound, "admin interface again");
                    self.admin = Some(Admin::start(written, listener, serving, tasks));
                }
                Err(error) => {
                    why.push(error.to_string());
                    left.admin = Some((written, bound));
                }
            }
        }
        (left, why)
    }
}
