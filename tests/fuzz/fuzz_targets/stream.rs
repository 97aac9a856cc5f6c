//! libFuzzer's way into the schedules of TLS over a socket.

#![no_main]

#[path = "../stream/mod.rs"]
mod stream;

libfuzzer_sys::fuzz_target!(|input: &[u8]| stream::run(input));
