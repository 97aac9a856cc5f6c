//! Signals that end the process at once, but for the moments in which it has something to undo first.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::process::{Signal, getpid, kill_process};
use signal_hook::flag;

/// What was asked for, once: signals are the whole process's.
static STOPS: OnceLock<Vec<Stop>> = OnceLock::new();

/// How many hold them.
static HOLDS: Mutex<usize> = Mutex::new(0);

/// What a signal does to the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It ends with the status 0.
    Quietly,
    /// What it does to every process. It is left to the system, ignored ones too, until somebody holds it.
    AsEver,
}

/// What stops a command that has nothing to say about it.
pub const AS_EVER: [(Signal, End); 4] = [
    (Signal::TERM, End::AsEver),
    (Signal::HUP, End::AsEver),
    (Signal::INT, End::AsEver),
    (Signal::QUIT, End::AsEver),
];

struct Stop {
    signal: Signal,
    end: End,
    is_heard: AtomicBool,
    /// Whether it has come.
    came: Arc<AtomicBool>,
    /// Whether it ends the process when it comes.
    ends: Arc<AtomicBool>,
    /// Whether somebody else has taken it over.
    is_left: AtomicBool,
}

/// From now on these signals end the process so. Who calls it first in a process has said it for good.
///
/// # Errors
/// The system's, when it refuses the handlers.
pub fn listen(stops: &[(Signal, End)]) -> io::Result<()> {
    let _holds = holds();
    let stops = STOPS.get_or_init(|| stops.iter().map(Stop::new).collect());
    let mut quiet = stops.iter().filter(|stop| stop.end == End::Quietly);
    quiet.try_for_each(Stop::hear)
}

/// These signals are somebody else's from now on, and end nothing here.
pub fn leave(signals: &[Signal]) {
    let _holds = holds();
    for stop in all().iter().filter(|stop| signals.contains(&stop.signal)) {
        stop.is_left.store(true, Ordering::SeqCst);
        stop.ends.store(false, Ordering::SeqCst);
    }
}

/// Signals do not end the process until this is dropped. Then they do, if one has come meanwhile.
#[derive(Debug)]
pub struct Held(());

/// Holds the signals that end the process.
///
/// # Errors
/// The system's, when it refuses the handlers.
pub fn hold() -> io::Result<Held> {
    let mut holds = holds();
    all().iter().try_for_each(Stop::hear)?;
    for stop in all() {
        stop.ends.store(false, Ordering::SeqCst);
    }
    *holds += 1;
    Ok(Held(()))
}

impl Held {
    /// Whether the process is to end: who holds up its end should let go soon.
    pub fn is_told(&self) -> bool {
        all().iter().any(|stop| stop.came.load(Ordering::SeqCst))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut holds = holds();
        *holds -= 1;
        if *holds > 0 {
            return;
        }
        for stop in all() {
            if stop.is_left.load(Ordering::SeqCst) {
                continue;
            }
            stop.ends.store(true, Ordering::SeqCst);
            if stop.came.load(Ordering::SeqCst) {
                // Whoever cannot send himself a signal goes on, and is told that there was no answer.
                let _ = kill_process(getpid(), stop.signal);
            }
        }
    }
}

impl Stop {
    fn new((signal, end): &(Signal, End)) -> Self {
        Self {
            signal: *signal,
            end: *end,
            is_heard: AtomicBool::new(false),
            came: Arc::default(),
            ends: Arc::new(AtomicBool::new(true)),
            is_left: AtomicBool::new(false),
        }
    }

    /// Under the lock of [`HOLDS`].
    fn hear(&self) -> io::Result<()> {
        if self.is_heard.load(Ordering::SeqCst) {
            return Ok(());
        }
        let (number, ends) = (self.signal.as_raw(), Arc::clone(&self.ends));
        flag::register(number, Arc::clone(&self.came))?;
        match self.end {
            End::Quietly => flag::register_conditional_shutdown(number, 0, ends)?,
            End::AsEver => flag::register_conditional_default(number, ends)?,
        };
        self.is_heard.store(true, Ordering::SeqCst);
        Ok(())
    }
}

fn all() -> &'static [Stop] {
    STOPS.get().map_or(&[], Vec::as_slice)
}

fn holds() -> MutexGuard<'static, usize> {
    HOLDS.lock().unwrap_or_else(PoisonError::into_inner)
}
