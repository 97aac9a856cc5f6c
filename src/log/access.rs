//! The writer of access log lines: a bounded queue, one thread, and the count of what was not written.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::line::Line;
use super::{Record, is_json};
use crate::config::LogFormat;

/// How far the writer may be behind, in lines.
///
/// 8,192: a second's worth of connections on a busy gateway and at most a few MiB; a reader that
/// pauses for longer than that has stopped, and more memory would not help it.
const CAPACITY: usize = 8_192;

/// How many refusals, connections that ended before they had an upstream, are written in a second.
///
/// 100: enough to see who knocks, and a third of what journald takes from a service (10,000 in 30 s)
/// before it throws lines away without looking, so that the tunnels' own lines keep their room.
const REFUSALS_PER_SECOND: u32 = 100;

/// How long the first line waits for others, so that all are written at once.
///
/// 10 ms: nobody who reads a log sees it, and a busy gateway wakes the writer a hundred times a second in place of once
/// for each connection, which cost a tenth of what a short connection costs in all.
const GATHER: Duration = Duration::from_millis(10);

/// The longest that [`AccessLog::flush`] waits: a reader that stopped must not keep a process from ending.
///
/// 2 s: a stop is over 5 s after its deadline, whatever hangs.
const FLUSH_WAIT: Duration = Duration::from_secs(2);

/// The writer of records. Cloning gives another handle of the same writer; it ends with the last of them.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// `None` where nothing is to be written.
    handle: Option<Arc<Handle>>,
}

impl AccessLog {
    /// Starts the writer's thread. Lines are dropped and counted when it is more than 8,192 behind.
    ///
    /// `out` is meant to be stdout: [`LogFormat::Auto`] asks whether that is a terminal.
    pub fn start(format: LogFormat, out: Box<dyn Write + Send>) -> Self {
        Self::start_sampled(format, out, REFUSALS_PER_SECOND)
    }

    /// The same with another number of refusals that are written in a second.
    pub fn start_sampled(
        format: LogFormat,
        out: Box<dyn Write + Send>,
        refusals_per_second: u32,
    ) -> Self {
        let queue = Arc::new(Queue::default());
        queue.lock().refusals.limit = refusals_per_second;
        let writer = Writer {
            queue: Arc::clone(&queue),
            json: is_json(format, std::io::stdout().is_terminal()),
            out,
        };
        let thread = std::thread::Builder::new().name("access-log".into());
        if let Err(error) = thread.spawn(move || writer.run()) {
            tracing::error!(%error, "cannot start the access log's thread; its lines are dropped");
            queue.lock().ended = true;
        }
        Self {
            handle: Some(Arc::new(Handle { queue })),
        }
    }

    /// A log of nothing: what is handed over is not written, and counts as neither dropped nor suppressed.
    pub fn off() -> Self {
        Self { handle: None }
    }

    /// Whether what is handed over is to be written.
    pub fn is_on(&self) -> bool {
        self.handle.is_some()
    }

    /// Hands over a record; never waits for the writer.
    ///
    /// Of the connections that never had an upstream, 100 a second are written (a stranger who knows one name has a
    /// route); the next line of any kind tells how many were not (`suppressed`), and how many lines were lost to a
    /// writer that is behind (`dropped`).
    pub fn write(&self, record: Record) {
        let Some(Handle { queue }) = self.handle.as_deref() else {
            return;
        };
        let mut state = queue.lock();
        if record.dial_time.is_none() && !state.refusals.admit(Instant::now()) {
            state.suppressed += 1;
            return;
        }
        if state.ended || state.behind() >= CAPACITY {
            state.dropped += 1;
            return;
        }
        let line = Line {
            record,
            suppressed: state.suppressed - state.suppressed_told,
            dropped: state.dropped - state.dropped_told,
        };
        state.suppressed_told = state.suppressed;
        state.dropped_told = state.dropped;
        state.waiting.push(line);
        // Each call of the system costs: it is woken for the first line, and for so many that it might fall behind.
        let wake = state.waiting.len() == 1 || state.waiting.len() == CAPACITY / 2;
        drop(state);
        if wake {
            queue.changed.notify_all();
        }
    }

    /// How many lines were dropped so far: the writer was too far behind, or its output failed.
    pub fn dropped(&self) -> u64 {
        (self.handle.as_ref()).map_or(0, |handle| handle.queue.lock().dropped)
    }

    /// How many refusals were counted instead of written so far.
    pub fn suppressed(&self) -> u64 {
        (self.handle.as_ref()).map_or(0, |handle| handle.queue.lock().suppressed)
    }

    /// Waits until every line handed over before is written, for 2 s at most; for the end of the process.
    pub fn flush(&self) {
        let Some(Handle { queue }) = self.handle.as_deref() else {
            return;
        };
        let mut state = queue.lock();
        state.hurried = true;
        queue.changed.notify_all();
        let all = state.done + state.behind() as u64;
        let _ = queue
            .changed
            .wait_timeout_while(state, FLUSH_WAIT, |state| state.done < all && !state.ended);
    }
}

/// Ends the writer's thread when nobody can hand over a line any more.
#[derive(Debug)]
struct Handle {
    queue: Arc<Queue>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.queue.lock().ended = true;
        self.queue.changed.notify_all();
    }
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lines that wait, soon after there are any; `None` after the last.
    fn take(&self) -> Option<Vec<Line>> {
        let mut state = self
            .changed
            .wait_while(self.lock(), |state| {
                state.waiting.is_empty() && !state.ended
            })
            .unwrap_or_else(PoisonError::into_inner);
        if !state.waiting.is_empty() {
            let gathered = self.changed.wait_timeout_while(state, GATHER, |state| {
                !state.ended && !state.hurried && state.waiting.len() < CAPACITY / 2
            });
            (state, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        }
        state.hurried = false;
        let lines = std::mem::take(&mut state.waiting);
        state.writing = lines.len();
        (!lines.is_empty()).then_some(lines)
    }

    /// The lines that were taken are gone: written, but for `lost` of them.
    fn finish(&self, lost: u64) {
        let mut state = self.lock();
        state.done += state.writing as u64;
        state.writing = 0;
        state.dropped += lost;
        drop(state);
        self.changed.notify_all();
    }
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Line>,
    /// How many lines the writer has taken and not finished.
    writing: usize,
    /// How many lines the writer has finished, since the start.
    done: u64,
    dropped: u64,
    dropped_told: u64,
    suppressed: u64,
    suppressed_told: u64,
    refusals: Refusals,
    /// Somebody waits for the lines that are there.
    hurried: bool,
    ended: bool,
}

impl State {
    fn behind(&self) -> usize {
        self.waiting.len() + self.writing
    }
}

/// Lets so many refusals a second through.
#[derive(Debug, Default)]
struct Refusals {
    limit: u32,
    second: Option<Instant>,
    shown: u32,
}

impl Refusals {
    fn admit(&mut self, now: Instant) -> bool {
        let same = self
            .second
            .is_some_and(|start| now.saturating_duration_since(start) < Duration::from_secs(1));
        if !same {
            self.second = Some(now);
            self.shown = 0;
        }
        self.shown = self.shown.saturating_add(1);
        self.shown <= self.limit
    }
}

/// The thread that formats and writes.
struct Writer {
    queue: Arc<Queue>,
    json: bool,
    out: Box<dyn Write + Send>,
}

impl Writer {
    /// How many bytes go out in one write, about: the pipe of a log collector holds 64 KiB.
    const CHUNK: usize = 64 * 1024;

    fn run(mut self) {
        let mut text = String::new();
        while let Some(lines) = self.queue.take() {
            let (mut lost, mut unwritten) = (0, 0);
            for line in &lines {
                if self.json {
                    line.json(&mut text)
                } else {
                    line.text(&mut text)
                }
                unwritten += 1;
                if text.len() >= Self::CHUNK {
                    lost += self.put(&mut text, &mut unwritten);
                }
            }
            lost += self.put(&mut text, &mut unwritten);
            self.queue.finish(lost);
        }
    }

    /// Writes and empties `text`, and says how many lines were lost. Nobody reads us (a closed pipe), or a disk
    /// is full: no reason to end, and a later line may find them back.
    fn put(&mut self, text: &mut String, lines: &mut u64) -> u64 {
        let written = self
            .out
            .write_all(text.as_bytes())
            .and_then(|()| self.out.flush());
        text.clear();
        let lines = std::mem::take(lines);
        if written.is_ok() { 0 } else { lines }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
