//! Edge certificates: where they come from.

pub mod files;
