//! Clients of the systems that several rooms ask: bounded in time and size, and without an opinion on the answers.

pub mod consul;
pub mod http;
pub mod nomad;
