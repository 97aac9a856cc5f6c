//! libFuzzer's way into texts of rules.

#![no_main]

#[path = "../rule/mod.rs"]
mod rule;

libfuzzer_sys::fuzz_target!(|input: &[u8]| rule::run(input));
