//! The tests that need sockets, more than one process, or a program that is not ours.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod authority;
mod curl;
mod gateway;
mod openssl;
mod peers;
mod smoke;
mod ssh;
mod support;
mod upstream;
