//! What TLS records promise, whatever the peer sends and in whatever order both sides act.

pub(crate) mod crypto;
mod meddling;
mod run;
mod schedule;
mod setting;
mod sides;

use run::Run;
use schedule::Schedule;

/// Carries out what the input says, and panics where a promise is not kept:
///
/// - what is handed over is what the peer said, from the first byte on without a gap: all of it once it has arrived
///   untouched, and never a byte more;
/// - what is sealed is what the peer hears, whatever comes from it;
/// - no more is kept or owed than a message and an answer have;
/// - after an error nothing more is handed over, sealed or owed.
pub(crate) fn run(input: &[u8]) {
    let schedule = Schedule::parse(input);
    // libFuzzer ends the process where a panic begins: what an input means is told beforehand, if at all.
    if std::env::var_os("PORTCULLIS_TELL").is_some() {
        schedule.tell();
    }
    let _told = Told(&schedule);
    Run::new(schedule.setting).through(&schedule.steps);
}

/// Tells the schedule when a promise is broken.
struct Told<'a>(&'a Schedule);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.tell();
        }
    }
}
