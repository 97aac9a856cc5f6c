//! What the gateway says of its own dial, and what a person does about it.

use super::Report;
use crate::client::connect::Connect;
use crate::client::exit::Exit;
use crate::net::frame::Refusal;
use crate::reason::Reason;

impl Connect {
    /// The gateway's own words, and a remedy for what they are about.
    pub(super) fn refused(&self, refusal: &Refusal) -> Report {
        let (target, (exit, hint)) = (&self.target, remedy(refusal));
        Report::new(
            exit,
            format!("the gateway has no way to {target}: {}", refusal.text()),
            hint,
        )
    }
}

/// What a gateway's refusal ends with, and what to do about what it is about.
pub(crate) fn remedy(refusal: &Refusal) -> (Exit, &'static str) {
    match refusal.reason() {
        Some(Reason::UpstreamTls | Reason::UpstreamIdentity) => (
            Exit::Unproven,
            "its certificate, or what the gateway expects of it, is wrong: the gateway's log says what",
        ),
        Some(Reason::DeniedByIntention) => (
            Exit::MeshDenial,
            "ask who runs it for an intention that allows the gateway (consul intention check)",
        ),
        Some(Reason::Shortage) => (
            Exit::Limit,
            "try again in a while; the gateway's operator can give it more open files or memory",
        ),
        Some(Reason::RouteBroken) => (
            Exit::RouteBroken,
            "the gateway's operator sees why at /v1/routes",
        ),
        Some(Reason::Drained | Reason::RouteGone) => (Exit::CutOff, "connect again"),
        _ => (
            Exit::UpstreamDown,
            "is it up? the gateway's operator sees how it is at /v1/routes",
        ),
    }
}
