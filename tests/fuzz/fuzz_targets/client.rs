//! libFuzzer's way into a person's own file.

#![no_main]

#[path = "../client/mod.rs"]
mod client;

libfuzzer_sys::fuzz_target!(|input: &[u8]| client::run(input));
