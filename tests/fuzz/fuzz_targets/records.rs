//! libFuzzer's way into the schedules of TLS records.

#![no_main]

#[path = "../records/mod.rs"]
mod records;

libfuzzer_sys::fuzz_target!(|input: &[u8]| records::run(input));
