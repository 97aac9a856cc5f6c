//! The PROXY protocol: `proxy_protocol` of a listener and of an upstream, what is typed and what it means.

use ipnet::IpNet;
use toml::de::DeValue;

use super::decode::{Item, List, Typed};
use super::diagnostic::Findings;
use super::value::{Wrong, choice, read};
use super::{AcceptProxy, AcceptProxyMode, ProxyTlvs, ProxyVersion, SendProxy};
use crate::rule;

/// `proxy_protocol` of an entry of `listen`.
#[derive(Debug)]
pub(super) struct AcceptSection {
    from: Option<List<Typed<String>>>,
    mode: Option<Typed<String>>,
}

/// `proxy_protocol` of an upstream: a version, or a table with one.
#[derive(Debug)]
pub(super) struct SendSection {
    version: Typed<String>,
    inside_tls: Option<Typed<bool>>,
    tlvs: Option<List<Typed<String>>>,
}

/// How an upstream is dialled, as far as a header must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Plain,
    Tls,
    /// Through a sidecar, which takes no header before its TLS.
    Mesh,
}

impl AcceptSection {
    pub(super) fn read(item: Item<'_>, findings: &mut Findings<'_>) -> Option<Self> {
        let mut table = item.table(findings)?;
        let accept = Self {
            from: table.require("from", "[\"10.0.0.0/8\"]", findings, Item::strings),
            mode: table.take("mode", findings, Item::string),
        };
        table.finish(findings);
        Some(accept)
    }

    /// What it means; `None` if it is broken, which is reported.
    pub(super) fn mean(&self, findings: &mut Findings<'_>) -> Option<AcceptProxy> {
        let choices = [
            ("required", AcceptProxyMode::Required),
            ("optional", AcceptProxyMode::Optional),
        ];
        let mode = match &self.mode {
            Some(typed) => read(typed, findings, |text| choice(text, &choices)),
            None => Some(AcceptProxyMode::default()),
        };
        let list = self.from.as_ref()?;
        if list.is_empty {
            findings.missing(
                list.span.clone(),
                format!(
                    "`{}` is an empty list: nobody could send a header",
                    list.key
                ),
                "write the networks of the proxies in front, such as [\"10.0.0.0/8\"]",
            );
        }
        let networks = list.value.iter();
        let networks = networks.filter_map(|typed| read(typed, findings, |text| network(text)));
        let from = networks.collect();
        Some(AcceptProxy { from, mode: mode? })
    }
}

impl SendSection {
    pub(super) fn read(item: Item<'_>, findings: &mut Findings<'_>) -> Option<Self> {
        match item.value() {
            DeValue::String(_) => item.string(findings).map(|version| Self {
                version,
                inside_tls: None,
                tlvs: None,
            }),
            DeValue::Table(_) => {
                let mut table = item.table(findings)?;
                let version = table.require("version", "\"v2\"", findings, Item::string);
                let inside_tls = table.take("inside_tls", findings, Item::boolean);
                let tlvs = table.take("tlvs", findings, Item::strings);
                table.finish(findings);
                version.map(|version| Self {
                    version,
                    inside_tls,
                    tlvs,
                })
            }
            DeValue::Boolean(false) => None,
            DeValue::Boolean(true) => {
                let typed = item.typed(());
                findings.error(
                    typed.span,
                    format!("`{}`: true does not say which version", typed.key),
                    "write \"v2\", or \"v1\" for what reads only that",
                );
                None
            }
            _ => item.wrong("a string", findings),
        }
    }

    /// Where it stands.
    pub(super) fn place(&self) -> Typed<()> {
        self.version.place()
    }

    /// What it means; `None` if it is broken, which is reported.
    pub(super) fn mean(&self, way: Way, findings: &mut Findings<'_>) -> Option<SendProxy> {
        let tlvs = self.tlvs(findings);
        let inside_tls = self.inside_tls(way, findings);
        let version = read(&self.version, findings, |text| version(text))?;
        if let (ProxyVersion::V1, Some(list)) = (version, &self.tlvs) {
            findings.error(
                list.span.clone(),
                format!("`{}`: version 1 has addresses and nothing else", list.key),
                "write `version = \"v2\"` if the upstream reads it, or remove the list",
            );
        }
        let version = match version {
            ProxyVersion::V1 => ProxyVersion::V1,
            ProxyVersion::V2(_) => ProxyVersion::V2(tlvs),
        };
        Some(SendProxy {
            version,
            inside_tls,
        })
    }

    fn inside_tls(&self, way: Way, findings: &mut Findings<'_>) -> bool {
        match (way, &self.inside_tls) {
            (Way::Plain, Some(typed)) if typed.value => findings.error(
                typed.span.clone(),
                format!("`{}`: this upstream is dialled over plain TCP", typed.key),
                "remove it; or add `tls` to the upstream",
            ),
            (Way::Mesh, Some(typed)) if !typed.value => findings.error(
                typed.span.clone(),
                format!("`{}`: a sidecar takes nothing before its TLS", typed.key),
                "remove it: in the mesh the header goes inside, to the service itself",
            ),
            _ => {}
        }
        let written = self.inside_tls.as_ref().map(|typed| typed.value);
        written.unwrap_or(way == Way::Mesh)
    }

    fn tlvs(&self, findings: &mut Findings<'_>) -> ProxyTlvs {
        let mut tlvs = ProxyTlvs::default();
        for typed in self.tlvs.iter().flat_map(|list| &list.value) {
            // HAProxy's `proxy-v2-options` has the same words, where it has one.
            let words = [
                "alpn",
                "authority",
                "ssl",
                "cert-cn",
                "unique-id",
                "spiffe",
                "crc32c",
            ];
            let words = words.map(|word| (word, word));
            match read(typed, findings, |text| choice(text, &words)) {
                Some("alpn") => tlvs.alpn = true,
                Some("authority") => tlvs.authority = true,
                Some("ssl") => tlvs.ssl = true,
                Some("cert-cn") => (tlvs.ssl, tlvs.cert_cn) = (true, true),
                Some("unique-id") => tlvs.unique_id = true,
                Some("spiffe") => tlvs.spiffe = true,
                Some("crc32c") => tlvs.crc32c = true,
                _ => {}
            }
        }
        tlvs
    }
}

fn version(text: &str) -> Result<ProxyVersion, Wrong> {
    let versions = [
        ("v1", ProxyVersion::V1),
        ("v2", ProxyVersion::V2(ProxyTlvs::default())),
    ];
    choice(text, &versions)
}

/// A network of those who are believed.
fn network(text: &str) -> Result<IpNet, Wrong> {
    const EXAMPLE: &str = "write the address or network of a proxy in front, such as \"10.0.0.0/8\" or \"2001:db8::/32\"";
    let network = rule::network(text).map_err(|why| Wrong::new(why, EXAMPLE))?;
    if network.prefix_len() == 0 {
        return Err(Wrong::new(
            format!("{text:?} is everybody: any client could claim any address"),
            EXAMPLE,
        ));
    }
    Ok(network)
}
