//! `portcullis doctor` at a client's end: the steps of a connection one by one, each timed and told.

use std::sync::Arc;

use rustls::ClientConfig;

mod answer;
mod dial;
mod handshake;

use super::connect::Connect;
use super::exit::Exit;
use super::failure::Failure;
use super::report::Report;
use crate::status::step::Step;
use crate::tls::client;

/// Connects as [`Connect::open`] does, looks at every step, and waits for the first bytes. Nothing is sent to the target.
/// What is found is told when it is found.
///
/// # Errors
/// The first step that fails ends it, with the exit code that `connect` would have.
pub async fn examine(connect: &Connect, tell: &mut dyn FnMut(Step)) -> Result<(), Exit> {
    let witness = &connect.witness;
    let config = match files(connect) {
        Ok(config) => config,
        Err(failure) => return Err(told("files", &connect.report(&failure), tell)),
    };
    let reached = dial::reach(connect, tell).await?;
    let tunnel = handshake::open(connect, reached, config, witness, tell).await?;
    answer::hear(connect, tunnel, witness, tell).await
}

/// The CAs, the certificate and its key. A passphrase may be asked for.
fn files(connect: &Connect) -> Result<Arc<ClientConfig>, Failure> {
    let made = client::person(
        &connect.trust,
        connect.pair(),
        &connect.alpn,
        &connect.witness,
    );
    made.map_err(Failure::Files)
}

/// Tells a failure in the words of `connect`; its exit code.
fn told(step: &'static str, report: &Report, tell: &mut dyn FnMut(Step)) -> Exit {
    tell(failed(step, report));
    report.exit
}

fn failed(step: &'static str, report: &Report) -> Step {
    Step::fail(step, report.message.as_str(), report.hint.as_str())
}

/// At which step a connection fails that ends so, if it has got as far as TLS.
fn step_of(exit: Exit) -> &'static str {
    match exit {
        Exit::Untrusted | Exit::Expired | Exit::NotYetValid | Exit::WrongName => "trust",
        Exit::UnknownName | Exit::NotAllowed | Exit::Limit | Exit::RouteBroken => "route",
        Exit::CertificateRequired | Exit::CertificateRefused | Exit::CertificateExpired => {
            "client certificate"
        }
        Exit::UpstreamDown | Exit::MeshDenial | Exit::Unproven | Exit::CutOff | Exit::BrokeOff => {
            "upstream"
        }
        _ => "TLS",
    }
}
