//! What sources of discovery say of services, in one shape, and what is made of it.

pub mod instance;
pub mod tags;
