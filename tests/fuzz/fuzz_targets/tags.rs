//! libFuzzer's way into the tags of a service.

#![no_main]

#[path = "../tags/mod.rs"]
mod tags;

libfuzzer_sys::fuzz_target!(|input: &[u8]| tags::run(input));
