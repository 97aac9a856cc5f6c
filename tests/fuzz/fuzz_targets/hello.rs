//! libFuzzer's way into hellos in pieces.

#![no_main]

#[path = "../hello/mod.rs"]
mod hello;

libfuzzer_sys::fuzz_target!(|input: &[u8]| hello::run(input));
