//! libFuzzer's way into the status frame.

#![no_main]

#[path = "../frame/mod.rs"]
mod frame;

libfuzzer_sys::fuzz_target!(|input: &[u8]| frame::run(input));
