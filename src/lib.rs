//! Portcullis: a single-port SNI edge gateway with TCP tunnelling.

pub mod admin;
pub mod certs;
pub mod cli;
pub mod client;
pub mod config;
pub mod lifecycle;
pub mod log;
pub mod metrics;
pub mod name;
pub mod net;
pub mod proxy;
pub mod reason;
pub mod rule;
pub mod serve;
pub mod snapshot;
pub mod status;
pub mod tls;
