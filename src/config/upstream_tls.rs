//! TLS towards an upstream: what is typed in `[upstreams.NAME.tls]`, and what it means.

use std::net::IpAddr;
use std::ops::Range;
use std::path::Path;

use rustls_pki_types::ServerName;
use toml::de::DeValue;

use super::decode::{Item, List, Typed};
use super::diagnostic::Findings;
use super::files::TypedPair;
use super::value::{Wrong, read};
use super::{Endpoint, EndpointAddress, UpstreamTls, check, ciphers, files, passphrase};
use crate::name::{HostName, SpiffeId};
use crate::tls::client;
use crate::tls::verify::{AltName, Proof};

/// `[upstreams.NAME.tls]`, or `tls = true` for its defaults.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) place: Typed<()>,
    roots: Written<List<Typed<String>>>,
    server_name: Written<Typed<String>>,
    spiffe: Written<Typed<String>>,
    sans: Written<List<Typed<String>>>,
    certificate: Option<TypedPair>,
    alpn: Option<List<Typed<String>>>,
    ciphers: Option<Typed<String>>,
}

/// A key: whether it stands there, and its value if that is right.
#[derive(Clone, Debug)]
struct Written<T> {
    is_there: bool,
    value: Option<T>,
}

impl Section {
    /// Reads the section; `None` for `tls = false`.
    pub(super) fn read(item: Item<'_>, findings: &mut Findings<'_>) -> Option<Self> {
        match item.value() {
            DeValue::Boolean(true) => Some(Self::of_defaults(item.typed(()))),
            DeValue::Boolean(false) => None,
            DeValue::Table(_) => Self::read_table(item, findings),
            _ => item.wrong("true, false or a table", findings),
        }
    }

    /// What `tls = true` stands for.
    pub(super) fn of_defaults(place: Typed<()>) -> Self {
        Self {
            place,
            roots: Written::nothing(),
            server_name: Written::nothing(),
            spiffe: Written::nothing(),
            sans: Written::nothing(),
            certificate: None,
            alpn: None,
            ciphers: None,
        }
    }

    /// With a name and protocols that were written elsewhere. What is written here too is reported.
    pub(super) fn completed(
        mut self,
        server_name: Option<&Typed<String>>,
        alpn: Option<&List<Typed<String>>>,
        findings: &mut Findings<'_>,
    ) -> Self {
        let mut twice = |here: Range<usize>, key: &str, there: &str| {
            findings.error(
                here,
                format!("`{}.{key}` beside `{there}`", self.place.key),
                "keep one of the two: they say the same",
            );
        };
        if let Some(typed) = server_name {
            if let Some(here) = &self.server_name.value {
                twice(here.span.clone(), "server_name", &typed.key);
            }
            self.server_name = Written {
                is_there: true,
                value: Some(typed.clone()),
            };
        }
        if let Some(list) = alpn {
            if let Some(here) = &self.alpn {
                twice(here.span.clone(), "alpn", &list.key);
            }
            self.alpn = Some(list.clone());
        }
        self
    }

    /// Whether something else than the name must be proven, or a name is written.
    pub(super) fn says_who(&self) -> bool {
        self.spiffe.is_there || self.sans.is_there || self.server_name.is_there
    }

    /// Whether protocols are written, or that there shall be none.
    pub(super) fn names_protocols(&self) -> bool {
        self.alpn.is_some()
    }

    /// The key of what must be proven in place of the name, and where it stands.
    pub(super) fn other_proof(&self) -> Option<(String, Range<usize>)> {
        let spiffe = self.spiffe.value.as_ref();
        let spiffe = spiffe.map(|typed| (typed.key.clone(), typed.span.clone()));
        let sans = self.sans.value.as_ref();
        spiffe.or_else(|| sans.map(|list| (list.key.clone(), list.span.clone())))
    }

    fn read_table(item: Item<'_>, findings: &mut Findings<'_>) -> Option<Self> {
        let mut table = item.table(findings)?;
        let is_there = |key| table.place(key).is_some();
        let [roots, server_name, spiffe, sans] =
            ["roots", "server_name", "spiffe", "sans"].map(is_there);
        let has_certificate =
            is_there("chain") || is_there("key") || passphrase::Keys::are_in(&table);
        if let Some(place) = table.place("sans").filter(|_| spiffe) {
            findings.error(
                place,
                format!("`{}` has both `spiffe` and `sans`", table.key().key),
                "keep one: an ID that must stand alone is `spiffe`, one among other names may be listed in `sans`",
            );
        }
        let section = Self {
            place: table.key(),
            roots: Written {
                is_there: roots,
                value: table.take("roots", findings, Item::strings),
            },
            server_name: Written {
                is_there: server_name,
                value: table.take("server_name", findings, Item::string),
            },
            spiffe: Written {
                is_there: spiffe,
                value: table.take("spiffe", findings, Item::string),
            },
            sans: Written {
                is_there: sans,
                value: table.take("sans", findings, Item::strings),
            },
            certificate: if has_certificate {
                TypedPair::require(&mut table, ["\"gateway.pem\"", "\"gateway.key\""], findings)
            } else {
                table.take("chain", findings, Item::string);
                table.take("key", findings, Item::string);
                passphrase::Keys::take(&mut table, findings);
                None
            },
            alpn: table.take("alpn", findings, Item::strings),
            ciphers: table.take("ciphers", findings, Item::string),
        };
        table.finish(findings);
        Some(section)
    }

    /// What it means; `None` if it is broken, which is reported. Without endpoints it is for some that are not known.
    pub(super) fn mean(
        &self,
        endpoints: Option<&[Endpoint]>,
        folder: &Path,
        findings: &mut Findings<'_>,
    ) -> Option<UpstreamTls> {
        let roots = match &self.roots.value {
            Some(list) if list.is_empty => {
                findings.missing(
                    list.span.clone(),
                    format!(
                        "`{}` is an empty list: no certificate could be trusted",
                        list.key
                    ),
                    "name a CA's file, or leave it out to trust the system's CAs",
                );
                Vec::new()
            }
            Some(list) => files::roots(list, folder, findings),
            None => Vec::new(),
        };
        let certificate = self.certificate.as_ref();
        let certificate = certificate.map(|typed| files::own_certificate(typed, folder, findings));
        let proof = self.proof(findings);
        let alpn = self.alpn.as_ref();
        let alpn = alpn.map(|list| check::alpn(list, findings));
        // One that is broken is reported, and then nothing serves.
        let ciphers = self.ciphers.as_ref();
        let ciphers = ciphers.and_then(|typed| ciphers::list(typed, findings));
        let server_name = self.name(endpoints, findings);
        Some(UpstreamTls {
            roots,
            server_name: server_name?,
            proof: proof?,
            certificate: match certificate {
                Some(certificate) => Some(certificate?),
                None => None,
            },
            alpn: alpn.unwrap_or_default(),
            ciphers,
        })
    }

    fn proof(&self, findings: &mut Findings<'_>) -> Option<Proof> {
        if let Some(typed) = &self.spiffe.value {
            self.refuse_public_roots(typed, findings);
            let id = read(typed, findings, |text| spiffe_id(text))?;
            return Some(Proof::Spiffe(id));
        }
        let Some(list) = &self.sans.value else {
            return Some(Proof::ServerName);
        };
        if list.is_empty {
            findings.missing(
                list.span.clone(),
                format!("`{}` is an empty list: nobody could prove it", list.key),
                "write at least one name, such as [\"db.internal\"], or leave it out to check `server_name`",
            );
        }
        let mut names = Vec::new();
        for typed in &list.value {
            if typed.value.starts_with("spiffe://") {
                self.refuse_public_roots(typed, findings);
            }
            names.extend(read(typed, findings, |text| alt_name(text)));
        }
        Some(Proof::AnyOf(names))
    }

    /// Whoever may issue for the public must never vouch for who is who in a mesh.
    fn refuse_public_roots(&self, typed: &Typed<String>, findings: &mut Findings<'_>) {
        if !self.roots.is_there {
            findings.missing(
                typed.span.clone(),
                format!(
                    "`{}` without `{}.roots`: the system's CAs issue no SPIFFE IDs, and must not",
                    typed.key, self.place.key
                ),
                "name the CA of the mesh: `roots = [\"mesh-ca.pem\"]`",
            );
        }
    }

    /// The name for the hello: the one that is written, or the endpoints'. It may be none where it need not be proven.
    fn name(
        &self,
        endpoints: Option<&[Endpoint]>,
        findings: &mut Findings<'_>,
    ) -> Option<ServerName<'static>> {
        if let Some(typed) = &self.server_name.value {
            return read(typed, findings, |text| {
                ServerName::try_from(text.clone()).map_err(|_| {
                    Wrong::new(
                        format!("{text:?} is neither a host name nor an IP address"),
                        "write what the upstream's certificate says, such as \"db.internal\", without a port",
                    )
                })
            });
        }
        let shared = endpoints.and_then(shared_name);
        let is_reported = endpoints.is_some_and(<[_]>::is_empty);
        if shared.is_some() || self.server_name.is_there || is_reported {
            return shared;
        }
        if self.spiffe.is_there || self.sans.is_there {
            return Some(client::no_server_name());
        }
        let why = match endpoints {
            Some(_) => "the endpoints do not share one DNS name that could stand in for it",
            None => "an instance has an address, and no name that it could prove",
        };
        findings.missing(
            self.place.span.clone(),
            format!("`{}.server_name` is missing: {why}", self.place.key),
            "add `server_name = \"…\"`: the name in the upstream's certificate",
        );
        None
    }
}

impl<T> Written<T> {
    fn nothing() -> Self {
        Self {
            is_there: false,
            value: None,
        }
    }
}

/// The DNS name that all endpoints share. An address is no name to prove, and of two names neither speaks for the other.
fn shared_name(endpoints: &[Endpoint]) -> Option<ServerName<'static>> {
    let name = |endpoint: &Endpoint| match &endpoint.address {
        EndpointAddress::Dns(name, _) => Some(name.clone()),
        EndpointAddress::Ip(_) => None,
    };
    let first = endpoints.first().and_then(name)?;
    let is_shared = endpoints
        .iter()
        .all(|one| name(one).as_ref() == Some(&first));
    is_shared.then(|| ServerName::try_from(first.as_str().to_owned()).ok())?
}

fn spiffe_id(text: &str) -> Result<SpiffeId, Wrong> {
    const EXAMPLE: &str = "write the ID as the certificate has it, such as \"spiffe://TRUST-DOMAIN/ns/default/dc/dc1/svc/db\"";
    SpiffeId::parse(text).map_err(|error| Wrong::new(error.to_string(), EXAMPLE))
}

/// A DNS name, an IP address, or what has `://` in it: a URI.
fn alt_name(text: &str) -> Result<AltName, Wrong> {
    if text.starts_with("spiffe://") {
        return spiffe_id(text).map(|id| AltName::Uri(id.as_str().to_owned()));
    }
    if text.contains("://") {
        // RFC 3986 §2: everything else is written with `%`.
        return match text.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(AltName::Uri(text.to_owned())),
            false => Err(Wrong::new(
                format!("{text:?} is no URI"),
                "write it as the certificate has it: letters, digits and signs, without spaces",
            )),
        };
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(AltName::Ip(address));
    }
    HostName::parse(text).map(AltName::Dns).map_err(|error| {
        let help = match text.strip_prefix("*.") {
            Some(parent) => format!(
                "write the one name that is meant, as in \"db.{}\": a wildcard in the certificate covers it",
                parent.escape_debug()
            ),
            None => "write a DNS name, an IP address or a URI, such as \"db.internal\", \"10.0.0.5\" or \"spiffe://…\", without a port"
                .to_owned(),
        };
        Wrong::new(
            format!("{text:?} is neither a DNS name nor an IP address nor a URI: {error}"),
            help,
        )
    })
}
