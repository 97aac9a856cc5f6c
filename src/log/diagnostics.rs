//! The writer of diagnostics: a bounded queue and one thread, so that nobody waits for whoever reads stderr, or ceased to.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// How far the writer may be behind, in messages.
///
/// 1,024: what a start or a drain says at once many times over, and some hundred KiB at most.
const CAPACITY: usize = 1024;

/// The longest that the end of a process waits for the last messages: a reader that stopped must not keep it.
const FLUSH_WAIT: Duration = Duration::from_secs(1);

/// What messages go through. When it is dropped, those before are written.
#[derive(Debug)]
pub struct Diagnostics(Queue);

/// Where a message is left.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    messages: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Message {
    Text(Vec<u8>),
    /// Everything before has been written.
    Flush(SyncSender<()>),
}

impl Diagnostics {
    /// Starts the writer's thread.
    pub(super) fn start(out: Box<dyn Write + Send>) -> Self {
        let (messages, waiting) = sync_channel(CAPACITY);
        let lost = Arc::new(AtomicU64::new(0));
        let thread = std::thread::Builder::new().name("diagnostics".into());
        let queue = Queue { messages, lost };
        let lost = Arc::clone(&queue.lost);
        // Without the thread every message is lost; there is no place left to say so.
        let _ = thread.spawn(move || write(&waiting, &lost, out));
        Self(queue)
    }

    /// Writes text that is no message of the log, whole: what is wrong with a configuration, drawn for a person.
    pub fn print(&self, text: &str) {
        // It never fails: what finds no room is counted.
        let _ = self.queue().write_all(text.as_bytes());
    }

    pub(super) fn queue(&self) -> Queue {
        self.0.clone()
    }
}

impl Drop for Diagnostics {
    fn drop(&mut self) {
        let (written, all_written) = sync_channel(1);
        // No room means that nobody reads.
        if self.0.messages.try_send(Message::Flush(written)).is_ok() {
            let _ = all_written.recv_timeout(FLUSH_WAIT);
        }
    }
}

/// One call is one message: the subscriber writes each event as a whole.
impl Write for Queue {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        if (self.messages.try_send(Message::Text(text.to_vec()))).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Queue {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

fn write(waiting: &Receiver<Message>, lost: &AtomicU64, mut out: Box<dyn Write + Send>) {
    for message in waiting {
        match message {
            // Nobody reads it, or a disk is full: no reason to end, and a later message may find them back.
            Message::Text(text) => {
                let _ = out.write_all(&text);
            }
            Message::Flush(written) => {
                let _ = written.try_send(());
            }
        }
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!(lost, "messages were lost: nobody read this log fast enough");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc;

    use super::*;

    /// An output that says when it is first written to, then waits to be let through.
    struct Gate {
        reached: Option<mpsc::Sender<()>>,
        open: mpsc::Receiver<()>,
        page: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if let Some(reached) = self.reached.take() {
                reached.send(()).unwrap();
                // An error is the test dropping its end: open for good.
                let _ = self.open.recv();
            }
            self.page.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stopped_makes_nobody_wait_and_what_found_no_room_is_counted() {
        let (reached, has_reached) = mpsc::channel();
        let (open, opened) = mpsc::channel();
        let page: Arc<Mutex<Vec<u8>>> = Arc::default();
        let diagnostics = Diagnostics::start(Box::new(Gate {
            reached: Some(reached),
            open: opened,
            page: Arc::clone(&page),
        }));
        let mut queue = diagnostics.queue();
        queue.write_all(b"0\n").unwrap();
        has_reached.recv().unwrap();
        // The writer is stuck: this loop ends only if `write` waits for nothing.
        for n in 0..CAPACITY + 10 {
            queue.write_all(format!("{n}\n").as_bytes()).unwrap();
        }
        assert_eq!(queue.lost.load(Ordering::Relaxed), 10);
        drop(open);
        let written = || {
            let page = page.lock().unwrap();
            page.iter().filter(|byte| **byte == b'\n').count()
        };
        while written() < 1 + CAPACITY {
            std::thread::yield_now();
        }
        queue.write_all(b"the last\n").unwrap();
        drop(diagnostics);
        assert_eq!(written(), 2 + CAPACITY);
    }
}
