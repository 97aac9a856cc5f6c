//! What TLS over a socket promises, whatever the peer does and whenever the socket has room.

// Of one test program they are parts twice, as each target has them for itself.
#[allow(clippy::duplicate_mod)]
#[path = "../records/crypto.rs"]
mod crypto;
mod link;
#[allow(clippy::duplicate_mod)]
#[path = "../records/meddling.rs"]
mod meddling;
mod run;
mod schedule;
#[allow(clippy::duplicate_mod)]
#[path = "../records/setting.rs"]
mod setting;
#[allow(clippy::duplicate_mod)]
#[path = "../records/sides.rs"]
mod sides;

use run::Run;
use schedule::Schedule;

/// Carries out what the input says, and panics where a promise is not kept:
///
/// - what is handed over is what the peer said, from the first byte on without a gap, and nothing behind an end; all that
///   has come is handed over before the stream waits for more;
/// - an end is clean where `close_notify` has come, and only there; a reset is never an end;
/// - what is taken is what the peer hears, and is in the kernel when the stream says so: no more than one write is held;
/// - a task that polls when it is woken, and only then, gets everything done, and comes to rest.
pub(crate) fn run(input: &[u8]) {
    let schedule = Schedule::parse(input);
    // libFuzzer ends the process where a panic begins: what an input means is told beforehand, if at all.
    if std::env::var_os("PORTCULLIS_TELL").is_some() {
        schedule.tell();
    }
    let _told = Told(&schedule);
    Run::new(&schedule).through(&schedule.steps);
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
