//! The tests that need sockets, more than one process, or a program that is not ours.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod authority;
mod broken_off;
mod connect;
mod curl;
mod demo;
mod drain;
mod edge;
mod gateway;
mod half_close;
mod hello;
mod hello_bytes;
mod loops;
mod names;
mod openssl;
mod peers;
mod pieces;
mod policy;
mod program;
mod refusals;
mod relay;
mod resumption;
mod routes;
mod scene;
mod sessions;
mod shortage;
mod smoke;
mod spellings;
mod ssh;
mod start;
mod stderr;
mod support;
mod upstream;
mod upstreams;
