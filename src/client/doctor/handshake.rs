//! TLS with the gateway: what is agreed, the chain it shows, whether that proves the name, and what its alerts say.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::{AlertDescription, ClientConfig, HandshakeKind, ProtocolVersion};
use tokio::time::Instant;

use super::dial::Reached;
use super::{failed, step_of};
use crate::client::connect::Connect;
use crate::client::exit::Exit;
use crate::client::failure::Failure;
use crate::client::report::certificate::date;
use crate::status::step::Step;
use crate::tls::chain::{self, Described, Time};
use crate::tls::client::Witness;
use crate::tls::options::PORTCULLIS;
use crate::tls::{self, HandshakeError};

/// So many certificates of a chain are told of.
const MOST: usize = 8;

/// Opens TLS, and tells of each thing that it shows.
pub(super) async fn open(
    connect: &Connect,
    reached: Reached,
    config: Arc<ClientConfig>,
    witness: &Witness,
    tell: &mut dyn FnMut(Step),
) -> Result<Box<tls::Stream>, Exit> {
    let began = Instant::now();
    let opened = attempt(connect, reached, config).await;
    let took = began.elapsed();
    let tunnel = match opened {
        Ok(tunnel) => tunnel,
        Err(failure) => {
            let report = connect.report(&failure);
            let step = step_of(report.exit);
            if step != "TLS" {
                tell(Step::ok("TLS", "it is spoken there").took(took));
                certificates(witness, tell);
            }
            let mut told = failed(step, &report);
            if step == "client certificate" {
                told.detail.push_str(&super::answer::takers(witness));
            }
            tell(told);
            return Err(report.exit);
        }
    };
    tell(Step::ok("TLS", agreed(&tunnel)).took(took));
    certificates(witness, tell);
    tell(trust(connect));
    let name = connect.server_name();
    tell(Step::ok("route", format!("the gateway has one for {name}")));
    Ok(tunnel)
}

/// As [`Connect::open`] does it: `portcullis/1` is offered, and a server that refuses whoever offers it is asked without.
async fn attempt(
    connect: &Connect,
    reached: Reached,
    chosen: Arc<ClientConfig>,
) -> Result<Box<tls::Stream>, Failure> {
    let (tcp, address) = reached.into_parts();
    let deadline = Instant::now() + connect.timeout;
    if !connect.alpn.is_empty() {
        return connect.secure(tcp, chosen, deadline).await;
    }
    let mut offering = ClientConfig::clone(&chosen);
    offering.alpn_protocols = vec![PORTCULLIS.to_vec()];
    match connect.secure(tcp, Arc::new(offering), deadline).await {
        Err(Failure::Handshake(HandshakeError::Tls(rustls::Error::AlertReceived(
            AlertDescription::NoApplicationProtocol,
        )))) => {
            let again = Reached::again(connect, address).await;
            let tcp = again.ok_or(Failure::DialTimeout)?;
            connect
                .secure(tcp, chosen, Instant::now() + connect.timeout)
                .await
        }
        opened => opened,
    }
}

/// Version, group, cipher suite, and the protocol if one was selected.
fn agreed(tunnel: &tls::Stream) -> String {
    let agreed = tunnel.agreed();
    let version = match agreed.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "TLS 1.3".to_owned(),
        Some(ProtocolVersion::TLSv1_2) => "TLS 1.2".to_owned(),
        other => format!("{other:?}"),
    };
    let group = agreed.negotiated_key_exchange_group();
    let group = group.map(|group| format!("{:?}", group.name()));
    let suite = agreed.negotiated_cipher_suite();
    let suite = suite.map(|suite| format!("{:?}", suite.suite()));
    let resumed = match agreed.handshake_kind() {
        Some(HandshakeKind::Resumed) => "resumed",
        _ => "not resumed",
    };
    let protocol = agreed.alpn_protocol();
    let protocol = protocol.map(|name| name.escape_ascii().to_string());
    let parts = [
        Some(version),
        group,
        suite,
        Some(resumed.to_owned()),
        protocol,
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Each certificate of the chain, and this machine's clock against the first.
fn certificates(witness: &Witness, tell: &mut dyn FnMut(Step)) {
    let now = SystemTime::now();
    let chain = witness.chain();
    let described: Vec<_> = chain.iter().take(MOST).map(Described::of).collect();
    for (index, one) in described.iter().enumerate() {
        let Some(one) = one else {
            let hint = "the gateway's operator must mend its certificate file";
            tell(Step::warn("certificate", "one that cannot be read", hint));
            continue;
        };
        let whose = match index {
            0 => format!("for {}", one.names),
            _ => format!("{} above it", one.subject),
        };
        let (time, issuer) = (one.time(now), &one.issuer);
        let detail = format!("{whose}; signed by {issuer}; {}", chain::told(time));
        let name = "certificate";
        tell(match time {
            Time::Left(_) => Step::ok(name, detail),
            Time::Short(_) => Step::warn(
                name,
                detail,
                "it is in the last tenth of its time: the gateway's operator should see why it is not renewed",
            ),
            Time::Over(_) | Time::NotYet(_) => Step::warn(
                name,
                detail,
                "nobody should accept it: look at the clock below",
            ),
        });
    }
    if let Some(Some(leaf)) = described.first() {
        tell(clock(leaf, now));
    }
}

fn clock(leaf: &Described, now: SystemTime) -> Step {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
    let (from, until) = (
        date(seconds(leaf.not_before)),
        date(seconds(leaf.not_after)),
    );
    let now_is = date(seconds(now));
    match leaf.time(now) {
        Time::Left(_) | Time::Short(_) => {
            Step::ok("clock", format!("{now_is}, within the certificate's dates"))
        }
        Time::Over(_) | Time::NotYet(_) => Step::warn(
            "clock",
            format!("{now_is}; the certificate is valid from {from} to {until}"),
            "if this machine's clock is wrong, set it (timedatectl); if not, the certificate is",
        ),
    }
}

/// By what the gateway has proven its name.
fn trust(connect: &Connect) -> Step {
    let (trust, name) = (&connect.trust, connect.server_name());
    if trust.insecure {
        return Step::warn(
            "trust",
            format!("nothing proves that this is {name}: insecure"),
            "trust the gateway's CA by --ca FILE, or its key by --pin, in place of --insecure",
        );
    }
    let files: Vec<_> = (trust.roots.iter())
        .map(|file| file.display().to_string())
        .collect();
    let by = match (files.as_slice(), trust.pins.is_empty()) {
        ([], true) => "a CA that this system trusts".to_owned(),
        ([], false) => "its pinned key".to_owned(),
        (files, true) => format!("a CA in {}", files.join(", ")),
        (files, false) => format!("its pinned key and a CA in {}", files.join(", ")),
    };
    Step::ok("trust", format!("{name} is proven, by {by}"))
}
