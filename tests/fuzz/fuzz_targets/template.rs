//! libFuzzer's way into templates of rules.

#![no_main]

#[path = "../template/mod.rs"]
mod template;

libfuzzer_sys::fuzz_target!(|input: &[u8]| template::run(input));
