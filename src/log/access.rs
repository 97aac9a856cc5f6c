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

/// The longest that [`AccessLog::flush`] waits: a reader that stopped must not keep a process from ending.
const FLUSH_WAIT: Duration = Duration::from_secs(5);

/// The writer of records. Cloning gives another handle of the same writer; it ends with the last of them.
#[derive(Clone, Debug)]
pub struct AccessLog {
    handle: Arc<Handle>,
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
            handle: Arc::new(Handle { queue }),
        }
    }

    /// Hands over a record; never waits for the writer.
    ///
    /// Of the connections that never had an upstream, 100 a second are written (a stranger who knows one name has a
    /// route); the next line of any kind tells how many were not (`suppressed`), and how many lines were lost to a
    /// writer that is behind (`dropped`).
    pub fn write(&self, record: Record) {
        let mut state = self.handle.queue.lock();
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
        drop(state);
        self.handle.queue.changed.notify_all();
    }

    /// How many lines were dropped so far: the writer was too far behind, or its output failed.
    pub fn dropped(&self) -> u64 {
        self.handle.queue.lock().dropped
    }

    /// How many refusals were counted instead of written so far.
    pub fn suppressed(&self) -> u64 {
        self.handle.queue.lock().suppressed
    }

    /// Waits until every line handed over before is written, for 5 s at most; for the end of the process.
    pub fn flush(&self) {
        let queue = &self.handle.queue;
        let state = queue.lock();
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

    /// The lines that wait, as soon as there are any; `None` after the last.
    fn take(&self) -> Option<Vec<Line>> {
        let mut state = self
            .changed
            .wait_while(self.lock(), |state| {
                state.waiting.is_empty() && !state.ended
            })
            .unwrap_or_else(PoisonError::into_inner);
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
mod tests {
    use std::sync::mpsc;

    use super::super::line::tests::record;
    use super::*;
    use crate::reason::Reason;

    /// An output that anyone can read.
    #[derive(Clone, Debug, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Page {
        fn lines(&self) -> Vec<serde_json::Value> {
            let bytes = self.0.lock().unwrap().clone();
            let text = String::from_utf8(bytes).unwrap();
            text.lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect()
        }
    }

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// An output that says when it is first written to, then waits to be let through.
    struct Gate {
        reached: Option<mpsc::Sender<()>>,
        open: mpsc::Receiver<()>,
        page: Page,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if let Some(reached) = self.reached.take() {
                reached.send(()).unwrap();
                // An error is the test dropping its end: open for good.
                let _ = self.open.recv();
            }
            self.page.write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// A pipe that nobody reads.
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn refusal() -> Record {
        Record {
            route: None,
            dial_time: None,
            reason: Reason::NotTls,
            ..record()
        }
    }

    #[test]
    fn a_flush_returns_when_every_line_is_written() {
        let page = Page::default();
        let log = AccessLog::start(LogFormat::Json, Box::new(page.clone()));
        for _ in 0..1000 {
            log.write(record());
        }
        log.flush();
        assert_eq!(page.lines().len(), 1000);
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn a_writer_that_cannot_keep_up_loses_lines_counts_them_and_blocks_nobody() {
        let (reached, has_reached) = mpsc::channel();
        let (open, opened) = mpsc::channel();
        let page = Page::default();
        let gate = Gate {
            reached: Some(reached),
            open: opened,
            page: page.clone(),
        };
        let log = AccessLog::start(LogFormat::Json, Box::new(gate));
        log.write(record());
        has_reached.recv().unwrap();
        // The writer holds one line and is stuck: this loop ends only if `write` waits for nothing.
        for _ in 1..CAPACITY + 10 {
            log.write(record());
        }
        assert_eq!(log.dropped(), 10);
        drop(open);
        log.flush();
        log.write(record());
        log.write(record());
        log.flush();
        let lines = page.lines();
        assert_eq!(lines.len(), CAPACITY + 2);
        let told: Vec<_> = lines[CAPACITY - 1..]
            .iter()
            .map(|line| &line["dropped"])
            .collect();
        assert_eq!(told, [0, 10, 0], "each loss is told once");
    }

    #[test]
    fn a_closed_pipe_loses_lines_and_ends_nothing() {
        let log = AccessLog::start(LogFormat::Text, Box::new(Closed));
        log.write(record());
        log.flush();
        assert_eq!(log.dropped(), 1);
        log.write(record());
        log.flush();
        assert_eq!(log.dropped(), 2);
    }

    #[test]
    fn a_flood_of_refusals_is_sampled_and_the_next_line_tells_how_many_were_not_shown() {
        let page = Page::default();
        let log = AccessLog::start(LogFormat::Json, Box::new(page.clone()));
        for _ in 0..50_000 {
            log.write(refusal());
        }
        log.write(record());
        log.write(record());
        log.flush();
        let lines = page.lines();
        let shown = lines.iter().filter(|line| line["route"].is_null()).count() as u64;
        let told: u64 = lines
            .iter()
            .map(|line| line["suppressed"].as_u64().unwrap())
            .sum();
        assert_eq!(shown + told, 50_000);
        assert_eq!(told, log.suppressed());
        assert!(told > 0);
        assert_eq!(lines.last().unwrap()["route"], "vm");
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn a_hundred_refusals_a_second_are_shown_and_a_new_second_begins_anew() {
        let mut refusals = Refusals {
            limit: 100,
            ..Refusals::default()
        };
        let start = Instant::now();
        let shown = |refusals: &mut Refusals, now| (0..150).filter(|_| refusals.admit(now)).count();
        assert_eq!(shown(&mut refusals, start), 100);
        assert_eq!(shown(&mut refusals, start + Duration::from_millis(999)), 0);
        assert_eq!(
            shown(&mut refusals, start + Duration::from_millis(1000)),
            100
        );
    }

    #[test]
    fn connections_that_had_an_upstream_are_never_suppressed_and_others_are_with_a_route_too() {
        let page = Page::default();
        let log = AccessLog::start(LogFormat::Json, Box::new(page.clone()));
        for _ in 0..500 {
            log.write(Record {
                route: Some("failing".into()),
                ..refusal()
            });
        }
        assert!(log.suppressed() > 0);
        for _ in 0..500 {
            log.write(record());
        }
        log.flush();
        let routed = page
            .lines()
            .iter()
            .filter(|line| line["route"] == "vm")
            .count();
        assert_eq!(routed, 500);
    }

    #[test]
    fn lines_handed_over_before_the_last_handle_goes_are_still_written() {
        struct Last(Page, mpsc::Sender<()>);
        impl Write for Last {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.write(bytes)
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        impl Drop for Last {
            fn drop(&mut self) {
                self.1.send(()).unwrap();
            }
        }
        let (ended, has_ended) = mpsc::channel();
        let page = Page::default();
        let log = AccessLog::start(LogFormat::Json, Box::new(Last(page.clone(), ended)));
        log.write(record());
        drop(log.clone());
        log.write(record());
        drop(log);
        has_ended.recv().unwrap();
        assert_eq!(page.lines().len(), 2);
    }
}
