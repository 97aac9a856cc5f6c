//! The client: what runs on a person's machine, between ssh and the gateway.

pub mod connect;
pub mod doctor;
pub mod exit;
pub mod failure;
pub mod gateway;
pub mod proxy;
pub mod replace;
pub mod report;
pub mod ssh_config;
pub mod tunnel;
pub mod way;

mod stdio;
