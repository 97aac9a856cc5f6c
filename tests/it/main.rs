//! The tests that need more than one process or a program that is not ours.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod peers;
mod support;
