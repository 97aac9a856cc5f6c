//! The tests that need sockets, more than one process, or a program that is not ours.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod authority;
mod connect;
mod demo;
mod gateway;
mod peers;
mod smoke;
mod support;
mod upstream;
