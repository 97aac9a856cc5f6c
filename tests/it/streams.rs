//! TLS over a socket under schedules that nobody would write: those that libFuzzer found worth keeping, and new ones.

use crate::records::{run_by_chance, run_kept, run_like_those_kept};

#[path = "../fuzz/stream/mod.rs"]
mod schedules;

/// A second or two of one processor.
const TRIES: usize = 1000;

#[test]
fn the_schedules_over_a_socket_that_were_worth_keeping_break_no_promise() {
    run_kept("stream", schedules::run);
}

#[test]
fn no_schedule_over_a_socket_by_chance_breaks_a_promise() {
    run_by_chance(TRIES, schedules::run);
}

#[test]
fn no_schedule_over_a_socket_like_those_that_were_kept_breaks_a_promise() {
    run_like_those_kept("stream", TRIES, schedules::run);
}
