//! The parts of the gateway that are fuzzed: all of it would take minutes to build for libFuzzer.

// What only the rest of the gateway uses is used by nobody here.
#![allow(dead_code, unused_imports)]

#[path = "../../src/config/mod.rs"]
pub mod config;
#[path = "../../src/reason.rs"]
pub mod reason;
#[path = "../../src/retry.rs"]
pub mod retry;
#[path = "../../src/rule/mod.rs"]
pub mod rule;
#[path = "../../src/stop.rs"]
pub mod stop;
#[path = "../../src/tls/mod.rs"]
pub mod tls;
#[path = "../../src/watch.rs"]
pub mod watch;

#[path = "../../src/discovery"]
pub mod discovery {
    pub mod tags;
    pub mod terms;
}

#[path = "../../src/net"]
pub mod net {
    mod address;
    pub mod frame;
    pub mod proxy_header;

    pub use address::canonical;
}

#[path = "../../src/proxy"]
pub mod proxy {
    pub mod hello;
}

/// A module with others below it, and not in a folder of its own, is found from this folder.
#[path = "../../src"]
mod src {
    pub mod name;
    pub mod state;
}

pub use src::{name, state};
