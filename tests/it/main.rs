//! The tests that need sockets, more than one process, or a program that is not ours.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod authority;
mod drain;
mod gateway;
mod half_close;
mod peers;
mod relay;
mod sessions;
mod smoke;
mod support;
mod upstream;
mod upstreams;
