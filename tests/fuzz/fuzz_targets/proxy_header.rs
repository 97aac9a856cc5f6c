//! libFuzzer's way into PROXY headers.

#![no_main]

#[path = "../proxy_header/mod.rs"]
mod proxy_header;

libfuzzer_sys::fuzz_target!(|input: &[u8]| proxy_header::run(input));
