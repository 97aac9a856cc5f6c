//! The tests that need sockets, more than one process, or a program that is not ours.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod authority;
mod connect;
mod gateway;
mod hello;
mod hello_bytes;
mod names;
mod peers;
mod pieces;
mod policy;
mod scene;
mod shortage;
mod smoke;
mod support;
mod upstream;
