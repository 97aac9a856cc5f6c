//! The transports: how upstreams are dialled, for tags and upstreams to name; what is typed and what it means.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use super::decode::{Item, Table, Typed};
use super::diagnostic::Findings;
use super::file::{self, File};
use super::limits::KeepaliveSection;
use super::proxy_protocol::{SendSection, Way};
use super::routes::reference_help;
use super::upstream_tls;
use super::value::{self, read};
use super::{Limits, Timing, Transport};

const TENTH: Duration = Duration::from_millis(100);
const TEN_MINUTES: Duration = Duration::from_secs(600);
const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// `[transports.NAME]`.
#[derive(Debug, Default)]
pub(super) struct Section {
    tls: Option<upstream_tls::Section>,
    proxy_protocol: Option<SendSection>,
    dial_timeout: Option<Typed<String>>,
    half_closed_timeout: Option<Typed<String>>,
    keepalive: Option<KeepaliveSection>,
}

impl Section {
    pub(super) fn read(mut table: Table<'_>, findings: &mut Findings<'_>) -> Self {
        let seconds = |item: Item<'_>, findings: &mut Findings<'_>| item.quantity("s", findings);
        let section = Self {
            tls: table.take("tls", findings, upstream_tls::Section::read),
            proxy_protocol: table.take("proxy_protocol", findings, SendSection::read),
            dial_timeout: table.take("dial_timeout", findings, seconds),
            half_closed_timeout: table.take("half_closed_timeout", findings, seconds),
            keepalive: table.take("keepalive", findings, KeepaliveSection::read),
        };
        table.finish(findings);
        section
    }

    fn mean(&self, folder: &Path, limits: &Limits, findings: &mut Findings<'_>) -> Transport {
        let tls = self.tls.as_ref();
        let tls = tls.and_then(|tls| tls.mean(None, folder, findings));
        // Whether there is TLS, its own or the mesh's, is for those to tell who name it.
        let send_proxy = self.proxy_protocol.as_ref();
        let send_proxy = send_proxy.and_then(|send| send.mean(Way::Tls, findings));
        let dial = self.dial_timeout.as_ref().and_then(|typed| {
            read(typed, findings, |text| {
                value::duration(text, TENTH..=TEN_MINUTES)
            })
        });
        let half_closed = self.half_closed_timeout.as_ref().and_then(|typed| {
            read(typed, findings, |text| match text.as_str() {
                "off" => Ok(Timing::ENDLESS),
                text => value::duration(text, TENTH..=MONTH).map_err(|wrong| wrong.or("\"off\"")),
            })
        });
        let keepalive = self.keepalive.as_ref();
        let keepalive = keepalive.map(|typed| typed.mean(limits.keepalive, findings));
        Transport {
            tls,
            send_proxy,
            timing: Timing {
                dial,
                half_closed,
                keepalive,
            },
        }
    }
}

/// The transports of the file.
pub(super) fn transports(
    file: &File,
    folder: &Path,
    limits: &Limits,
    findings: &mut Findings<'_>,
) -> BTreeMap<String, Transport> {
    let typed = file.transports.iter();
    let transports = typed.map(|(name, section)| {
        read(name, findings, |text| value::name(text));
        (name.value.clone(), section.mean(folder, limits, findings))
    });
    transports.collect()
}

/// The transport that an upstream names, if it names one that serves it.
pub(super) fn of_upstream(
    upstream: &file::Upstream,
    transports: &BTreeMap<String, Transport>,
    findings: &mut Findings<'_>,
) -> Option<Transport> {
    let typed = upstream.transport.as_ref()?;
    let Some(transport) = transports.get(&typed.value) else {
        let known: BTreeSet<&str> = transports.keys().map(String::as_str).collect();
        let section = format!("add a [transports.{}] section", typed.value.escape_debug());
        findings.missing(
            typed.span.clone(),
            format!("`{}`: there is no transport {:?}", typed.key, typed.value),
            // Tags have to say whose it is; here it is plain.
            reference_help(typed.value.trim_end_matches("@file"), &known, &section),
        );
        return None;
    };
    let mut refuse = |message: &str, help: &str| {
        let message = format!("`{}` {message}", typed.key);
        findings.error(typed.span.clone(), message, help);
    };
    if upstream.tls.is_some() || upstream.proxy_protocol.is_some() {
        refuse(
            "beside `tls` or `proxy_protocol`: the transport says both",
            "keep the transport, or write here what it says",
        );
    }
    if upstream.service.is_some() && transport.tls.is_some() {
        refuse(
            "has `tls`, and stands beside `service`: the mesh brings its own TLS",
            "name a transport without `tls`; for TLS of its own to a service outside the mesh, write its `endpoints`",
        );
    }
    if upstream.nomad_service.is_some() && transport.tls.is_some() {
        refuse(
            "has `tls`, and stands beside `nomad_service`: its instances are dialled over plain TCP",
            "name a transport without `tls`; for TLS, write its `endpoints`",
        );
    }
    Some(transport.clone())
}
