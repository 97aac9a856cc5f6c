//! Portcullis: a single-port SNI edge gateway with TCP tunnelling.

pub mod cli;
pub mod config;
pub mod log;
pub mod metrics;
pub mod name;
pub mod reason;
pub mod rule;
pub mod snapshot;
pub mod status;
pub mod tls;
