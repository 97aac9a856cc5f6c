//! Signals that come before there is a runtime to hear them: none ends the process in a way that nobody has written down.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use super::Reload;

/// What SIGTERM, SIGINT and SIGHUP do until [`signals`](super::signals) takes over.
#[derive(Debug)]
pub struct Early {
    /// Whether there is nothing yet that a stop would have to wait for.
    ends: Arc<AtomicBool>,
    hung_up: Arc<AtomicBool>,
}

impl Early {
    /// From this call on SIGTERM and SIGINT end the process with the status 0, at once: nobody has been served. SIGHUP
    /// is kept for later.
    ///
    /// # Errors
    /// The system's, when it refuses the handlers.
    pub fn listen() -> io::Result<Self> {
        let early = Self {
            ends: Arc::new(AtomicBool::new(true)),
            hung_up: Arc::default(),
        };
        for signal in [SIGTERM, SIGINT] {
            flag::register_conditional_shutdown(signal, 0, Arc::clone(&early.ends))?;
        }
        flag::register(SIGHUP, Arc::clone(&early.hung_up))?;
        Ok(early)
    }

    /// Whether SIGTERM and SIGINT end the process. Who changes something that outlives it, such as a terminal, makes it false
    /// for that time, and sends himself what has come by then.
    pub fn ends(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.ends)
    }

    /// The handlers of [`signals`](super::signals) are there. A SIGHUP that came before them is a wish for a reload: the
    /// configuration may have been read before it.
    pub fn hand_over(self, reload: &Reload) {
        self.ends.store(false, Ordering::SeqCst);
        if self.hung_up.load(Ordering::SeqCst) {
            reload.ask("SIGHUP");
        }
    }
}
