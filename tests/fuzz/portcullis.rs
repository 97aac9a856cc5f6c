//! The parts of the gateway that are fuzzed: all of it would take minutes to build for libFuzzer.

#[path = "../../src/tls"]
pub mod tls {
    pub mod records;
}
