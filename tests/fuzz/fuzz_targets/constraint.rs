//! libFuzzer's way into expressions over tags.

#![no_main]

#[path = "../constraint/mod.rs"]
mod constraint;

libfuzzer_sys::fuzz_target!(|input: &[u8]| constraint::run(input));
