//! libFuzzer's way into texts of configurations.

#![no_main]

#[path = "../config/mod.rs"]
mod config;

libfuzzer_sys::fuzz_target!(|input: &[u8]| config::run(input));
