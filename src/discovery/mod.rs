//! What sources of discovery say of services, in one shape, and what is made of it.

mod canaries;
pub mod consul;
mod dialling;
mod doubt;
mod elements;
mod endpoints;
pub mod exposure;
pub mod instance;
mod keeping;
mod logged;
mod middlewares;
mod names;
pub mod nomad;
mod pulse;
mod reading;
mod reads;
mod route_tls;
mod routes;
mod servers;
mod stored;
pub mod tags;
pub mod terms;

use std::sync::Arc;

/// A text for people: long enough for any that is ours, and cut where a stranger's makes it longer.
fn shortened(text: &str) -> Arc<str> {
    const MOST: usize = 300;
    match text.char_indices().nth(MOST) {
        None => text.into(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()).into(),
    }
}
