//! A machine that gives no thread or no descriptor: the runtime panics where it gets none, and a person is told in two lines.

use std::any::Any;
use std::io;
use std::panic::{self, AssertUnwindSafe};

use crate::client::exit::Exit;
use crate::client::report::Report;

/// How tokio's panics begin that are the machine's doing, and what is lacking there.
const PANICS: [(&str, &str); 2] = [
    (
        "OS can't spawn worker thread",
        "this machine gives no thread",
    ),
    (
        "failed to create UnixStream",
        "this machine gives no descriptor",
    ),
];

/// Does it; or what is lacking to begin or to go on. Of any other panic the usual is told.
pub(super) fn caught<T>(act: impl FnOnce() -> io::Result<T>) -> Result<T, Report> {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |panicked| {
        if lacking(panicked.payload()).is_none() {
            usual(panicked);
        }
    }));
    match panic::catch_unwind(AssertUnwindSafe(act)) {
        Ok(done) => done.map_err(|error| report(&format!("cannot start: {error}"))),
        Err(panicked) => match lacking(&*panicked) {
            Some(what) => Err(report(what)),
            None => panic::resume_unwind(panicked),
        },
    }
}

fn report(what: &str) -> Report {
    let hint = "ulimit -u and ulimit -n show how many threads and open files a user and a process may have";
    Report::new(Exit::Shortage, what, hint)
}

fn lacking(panicked: &(dyn Any + Send)) -> Option<&'static str> {
    let text = panicked.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panicked.downcast_ref::<&str>().copied())?;
    let known = PANICS.iter().find(|(begins, _)| text.starts_with(begins));
    known.map(|(_, what)| *what)
}
