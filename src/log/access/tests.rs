//! How the writer keeps up, and what it counts when it does not.

use std::sync::mpsc;

use super::*;
use crate::log::line::tests::record;
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
