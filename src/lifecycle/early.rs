//! Signals that come before there is a runtime to hear them: none ends the process in a way that nobody has written down.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use signal_hook::flag;

use super::Reload;
use crate::stop::{self, End};

/// What SIGTERM, SIGINT and SIGHUP do until [`signals`](super::signals) takes over.
#[derive(Debug)]
pub struct Early {
    hung_up: Arc<AtomicBool>,
}

impl Early {
    /// From this call on SIGTERM and SIGINT end the process with the status 0, at once: nobody has been served. SIGHUP
    /// is kept for later.
    ///
    /// # Errors
    /// The system's, when it refuses the handlers.
    pub fn listen() -> io::Result<Self> {
        stop::listen(&[
            (Signal::TERM, End::Quietly),
            (Signal::INT, End::Quietly),
            (Signal::QUIT, End::AsEver),
        ])?;
        let hung_up = Arc::default();
        flag::register(Signal::HUP.as_raw(), Arc::clone(&hung_up))?;
        Ok(Self { hung_up })
    }

    /// The handlers of [`signals`](super::signals) are there. A SIGHUP that came before them is a wish for a reload: the
    /// configuration may have been read before it.
    pub fn hand_over(self, reload: &Reload) {
        stop::leave(&[Signal::TERM, Signal::INT]);
        if self.hung_up.load(Ordering::SeqCst) {
            reload.ask("SIGHUP");
        }
    }
}
