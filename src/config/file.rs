//! What is typed: the TOML tree, walked with every value's place kept.

use toml::de::{DeTable, DeValue};

use super::consul::Section;
use super::decode::{Item, List, Table, Typed};
use super::diagnostic::Findings;
use super::files::TypedPair;
use super::upstreams::UNSUPPORTED;
use super::{
    Cap, health_check, limits, middlewares, nomad, passphrase, proxy_protocol, state, transports,
    tunnels, upstream_tls, weighted,
};

/// The whole file. `None` is a key that is absent, or wrong and reported.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) listen: Option<List<Listen>>,
    pub(super) admin: Option<Admin>,
    pub(super) insecure_admin: Option<Typed<bool>>,
    pub(super) admin_token_file: Option<Typed<String>>,
    pub(super) insecure_no_sandbox: Option<Typed<bool>>,
    pub(super) unknown_name: Option<Typed<String>>,
    pub(super) certificates: Vec<Certificate>,
    pub(super) tls_options: Vec<(Typed<String>, TlsOptions)>,
    pub(super) middlewares: Vec<(Typed<String>, middlewares::Section)>,
    pub(super) routes: Vec<(Typed<String>, Route)>,
    pub(super) upstreams: Vec<(Typed<String>, Upstream)>,
    pub(super) transports: Vec<(Typed<String>, transports::Section)>,
    pub(super) tunnels: Vec<(Typed<String>, tunnels::Section)>,
    pub(super) consul: Option<Section>,
    pub(super) nomad: Option<nomad::Section>,
    pub(super) limits: limits::Section,
    pub(super) log: Log,
    pub(super) state: state::Keys,
}

/// An entry of `listen`, as a string or a table.
#[derive(Debug)]
pub(super) struct Listen {
    pub(super) address: Typed<String>,
    pub(super) proxy_protocol: Option<proxy_protocol::AcceptSection>,
}

/// `admin`.
#[derive(Debug)]
pub(super) enum Admin {
    /// `false`.
    Off,
    /// An address.
    Address(Typed<String>),
}

/// An entry of `[[certificates]]`.
#[derive(Debug)]
pub(super) enum Certificate {
    /// Also whether clients see it that name no host.
    Pair(TypedPair, bool),
    Directory(Typed<String>, passphrase::Keys),
}

/// `[tls.options.NAME]`.
#[derive(Debug, Default)]
pub(super) struct TlsOptions {
    pub(super) min_version: Option<Typed<String>>,
    pub(super) max_version: Option<Typed<String>>,
    pub(super) ciphers: Option<Typed<String>>,
    pub(super) alpn: Option<List<Typed<String>>>,
    pub(super) client_auth: Option<Typed<String>>,
    pub(super) client_ca: Option<List<Typed<String>>>,
}

/// `[routes.NAME]`.
#[derive(Debug, Default)]
pub(super) struct Route {
    pub(super) names: Option<Names>,
    pub(super) priority: Option<Typed<i64>>,
    pub(super) passthrough: Option<Typed<bool>>,
    pub(super) tls_options: Option<Typed<String>>,
    pub(super) upstream: Option<Typed<String>>,
    pub(super) max_connections: Option<Cap>,
    pub(super) middlewares: Option<List<Typed<String>>>,
}

/// Which clients a route takes.
#[derive(Debug)]
pub(super) enum Names {
    Rule(Typed<String>),
    Hosts(List<Typed<String>>),
}

/// `[upstreams.NAME]`.
#[derive(Debug, Default)]
pub(super) struct Upstream {
    pub(super) endpoints: Option<List<Endpoint>>,
    pub(super) service: Option<Typed<String>>,
    pub(super) nomad_service: Option<Typed<String>>,
    pub(super) mesh: Option<Typed<bool>>,
    pub(super) datacenter: Option<Typed<String>>,
    pub(super) namespace: Option<Typed<String>>,
    pub(super) tls: Option<upstream_tls::Section>,
    pub(super) proxy_protocol: Option<proxy_protocol::SendSection>,
    pub(super) health_check: Option<health_check::Section>,
    pub(super) transport: Option<Typed<String>>,
    pub(super) weighted: Option<List<weighted::Member>>,
}

/// One endpoint, as a string or a table.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) address: Typed<String>,
    pub(super) weight: Option<Typed<i64>>,
}

/// `[log]`.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) format: Option<Typed<String>>,
    pub(super) access: Option<Typed<bool>>,
}

impl File {
    pub(super) fn read(entries: &DeTable<'_>, findings: &mut Findings<'_>) -> Self {
        let mut root = Table::root(entries);
        let file = Self {
            listen: root.take("listen", findings, |item, findings| {
                item.list(findings, read_listen)
            }),
            admin: root.take("admin", findings, read_admin),
            insecure_admin: root.take("insecure_admin", findings, Item::boolean),
            admin_token_file: root.take("admin_token_file", findings, Item::string),
            insecure_no_sandbox: root.take("insecure_no_sandbox", findings, Item::boolean),
            unknown_name: root.take("unknown_name", findings, Item::string),
            certificates: root
                .take("certificates", findings, |item, findings| {
                    item.list(findings, read_certificate)
                })
                .map(|list| list.value)
                .unwrap_or_default(),
            tls_options: root.take("tls", findings, read_tls).unwrap_or_default(),
            middlewares: read_named(
                &mut root,
                "middlewares",
                findings,
                middlewares::Section::read,
            ),
            routes: read_named(&mut root, "routes", findings, read_route),
            upstreams: read_named(&mut root, "upstreams", findings, read_upstream),
            transports: read_named(&mut root, "transports", findings, transports::Section::read),
            tunnels: read_named(&mut root, "tunnels", findings, tunnels::Section::read),
            consul: root.take("consul", findings, |item, findings| {
                Some(Section::read(item, findings))
            }),
            nomad: root.take("nomad", findings, |item, findings| {
                Some(nomad::Section::read(item, findings))
            }),
            limits: root
                .take("limits", findings, limits::Section::read)
                .unwrap_or_default(),
            log: root.take("log", findings, read_log).unwrap_or_default(),
            state: state::Keys::take(&mut root, findings),
        };
        root.finish(findings);
        file
    }

    /// Whether nothing in it is for clients that speak TLS to this gateway.
    pub(super) fn is_for_tunnels_alone(&self) -> bool {
        !self.tunnels.is_empty()
            && self.routes.is_empty()
            && self.certificates.is_empty()
            && self.consul.is_none()
            && self.nomad.is_none()
    }
}

fn read_listen(item: Item<'_>, findings: &mut Findings<'_>) -> Option<Listen> {
    match item.value() {
        DeValue::String(_) => item.string(findings).map(|address| Listen {
            address,
            proxy_protocol: None,
        }),
        DeValue::Table(_) => {
            let mut table = item.table(findings)?;
            let address = table.require("address", "\":8443\"", findings, Item::string);
            let read = proxy_protocol::AcceptSection::read;
            let proxy_protocol = table.take("proxy_protocol", findings, read);
            table.finish(findings);
            address.map(|address| Listen {
                address,
                proxy_protocol,
            })
        }
        _ => item.wrong("a string", findings),
    }
}

fn read_log(item: Item<'_>, findings: &mut Findings<'_>) -> Option<Log> {
    let mut table = item.table(findings)?;
    let log = Log {
        format: table.take("format", findings, Item::string),
        access: table.take("access", findings, Item::boolean),
    };
    table.finish(findings);
    Some(log)
}

/// A table of tables whose names the user chooses. One that is no table keeps its name, so that what refers to it is not blamed.
fn read_named<'a, T: Default>(
    parent: &mut Table<'a>,
    key: &'static str,
    findings: &mut Findings<'_>,
    mut read: impl FnMut(Table<'a>, &mut Findings<'_>) -> T,
) -> Vec<(Typed<String>, T)> {
    let table = parent.take(key, findings, |item, findings| item.table(findings));
    let named = table.map(Table::into_named).unwrap_or_default();
    let read = named.into_iter().map(|(name, item)| {
        let table = item.table(findings);
        let value = table.map(|table| read(table, findings));
        (name, value.unwrap_or_default())
    });
    read.collect()
}

fn read_admin(item: Item<'_>, findings: &mut Findings<'_>) -> Option<Admin> {
    match item.value() {
        DeValue::Boolean(false) => Some(Admin::Off),
        DeValue::Boolean(true) => {
            findings.error(
                item.typed(()).span,
                "`admin = true` does not say where",
                "leave `admin` out for 127.0.0.1:9443, or write an address such as \"unix:/run/portcullis/admin.sock\"",
            );
            None
        }
        DeValue::String(_) => item.string(findings).map(Admin::Address),
        _ => item.wrong("an address or false", findings),
    }
}

fn read_certificate(item: Item<'_>, findings: &mut Findings<'_>) -> Option<Certificate> {
    let mut table = item.table(findings)?;
    let is_pair = table.place("chain").is_some() || table.place("key").is_some();
    let directory = table.place("directory");
    let certificate = match directory {
        Some(place) if is_pair => {
            findings.error(
                place,
                format!("`{}` has a `directory` beside `chain` or `key`", table.key().key),
                "give each its own [[certificates]]: one with `chain` and `key`, one with `directory`",
            );
            for key in ["chain", "key", "directory"] {
                table.take(key, findings, Item::string);
            }
            table.take("nameless", findings, Item::boolean);
            passphrase::Keys::take(&mut table, findings);
            None
        }
        Some(_) => {
            let directory = table.take("directory", findings, Item::string);
            if let Some(place) = table.place("nameless") {
                findings.error(
                    place,
                    format!("`{}` has `nameless` beside `directory`", table.key().key),
                    "give the one that is meant a [[certificates]] of its own, with `chain` and `key`",
                );
                table.take("nameless", findings, Item::boolean);
            }
            let passphrase = passphrase::Keys::take(&mut table, findings);
            directory.map(|directory| Certificate::Directory(directory, passphrase))
        }
        None => {
            let examples = ["\"edge.pem\"", "\"edge.key\""];
            let pair = TypedPair::require(&mut table, examples, findings);
            let nameless = table.take("nameless", findings, Item::boolean);
            table.take("directory", findings, Item::string);
            let nameless = nameless.is_some_and(|typed| typed.value);
            pair.map(|pair| Certificate::Pair(pair, nameless))
        }
    };
    table.finish(findings);
    certificate
}

fn read_tls(
    item: Item<'_>,
    findings: &mut Findings<'_>,
) -> Option<Vec<(Typed<String>, TlsOptions)>> {
    let mut tls = item.table(findings)?;
    let options = read_named(&mut tls, "options", findings, |mut table, findings| {
        let options = TlsOptions {
            min_version: table.take("min_version", findings, Item::string),
            max_version: table.take("max_version", findings, Item::string),
            ciphers: table.take("ciphers", findings, Item::string),
            alpn: table.take("alpn", findings, Item::strings),
            client_auth: table.take("client_auth", findings, Item::string),
            client_ca: table.take("client_ca", findings, Item::strings),
        };
        table.finish(findings);
        options
    });
    tls.finish(findings);
    Some(options)
}

fn read_route(mut table: Table<'_>, findings: &mut Findings<'_>) -> Route {
    let section = table.key();
    match (table.place("host"), table.place("rule")) {
        (Some(host), Some(rule)) => findings.error(
            if host.start > rule.start { host } else { rule },
            format!("`{}` has both `host` and `rule`", section.key),
            "keep one: `host` is short for a rule of a single HostSNI",
        ),
        (None, None) if !table.has("host") && !table.has("rule") => findings.missing(
            section.span,
            format!("`{}` has neither `host` nor `rule`", section.key),
            "add `host = \"ssh.example.com\"`, or a `rule` such as 'HostSNI(`ssh.example.com`) && ClientIP(`10.0.0.0/8`)'",
        ),
        _ => {}
    }
    let hosts = table.take("host", findings, |item, findings| match item.value() {
        DeValue::String(_) => {
            let span = item.typed(()).span;
            let host = item.string(findings)?;
            Some(List {
                key: host.key.clone(),
                value: vec![host],
                span,
                is_empty: false,
            })
        }
        DeValue::Array(_) => item.strings(findings),
        _ => item.wrong("a string", findings),
    });
    let rule = table.take("rule", findings, Item::string);
    let route = Route {
        names: rule.map(Names::Rule).or(hosts.map(Names::Hosts)),
        priority: table.take("priority", findings, Item::integer),
        passthrough: table.take("passthrough", findings, Item::boolean),
        tls_options: table.take("tls_options", findings, Item::string),
        upstream: table.require("upstream", "\"10.0.0.5:22\"", findings, Item::string),
        max_connections: table.take("max_connections", findings, limits::of_route),
        middlewares: table.take("middlewares", findings, Item::strings),
    };
    table.finish(findings);
    route
}

fn read_upstream(mut table: Table<'_>, findings: &mut Findings<'_>) -> Upstream {
    let section = table.key();
    let kinds = [
        "address",
        "endpoints",
        "service",
        "nomad_service",
        "weighted",
    ];
    let written = kinds.map(|kind| table.place(kind).map(|place| (place, kind)));
    let written: Vec<_> = written.into_iter().flatten().collect();
    // Whoever writes one of these in place of a `service` is told of that.
    let foreign = &["prepared_query", "prepared_queries"];
    match written.as_slice() {
        [(place, one), (_, other), ..] => findings.error(
            place.clone(),
            format!("`{}` has both `{one}` and `{other}`", section.key),
            "keep one: `address` is short for a list of one endpoint, and a `service` brings its own",
        ),
        [] if !kinds.iter().chain(foreign).any(|kind| table.has(kind)) => findings.missing(
            section.span,
            format!("`{}` has neither `address` nor `endpoints` nor `service` nor `weighted`", section.key),
            "add `address = \"10.0.0.5:22\"`, a list of `endpoints`, a `service` of Consul, or a `nomad_service`",
        ),
        _ => {}
    }
    let address = table.take("address", findings, |item, findings| {
        let address = item.string(findings)?;
        Some(List {
            key: address.key.clone(),
            span: address.span.clone(),
            is_empty: false,
            value: vec![Endpoint {
                address,
                weight: None,
            }],
        })
    });
    let endpoints = table.take("endpoints", findings, |item, findings| {
        item.list(findings, read_endpoint)
    });
    let upstream = Upstream {
        endpoints: endpoints.or(address),
        service: table.take("service", findings, Item::string),
        nomad_service: table.take("nomad_service", findings, Item::string),
        mesh: table.take("mesh", findings, Item::boolean),
        datacenter: table.take("datacenter", findings, Item::string),
        namespace: table.take("namespace", findings, Item::string),
        tls: table.take("tls", findings, upstream_tls::Section::read),
        proxy_protocol: table.take(
            "proxy_protocol",
            findings,
            proxy_protocol::SendSection::read,
        ),
        health_check: table.take("health_check", findings, health_check::Section::read),
        transport: table.take("transport", findings, Item::string),
        weighted: table.take("weighted", findings, weighted::read_list),
    };
    table.refuse(UNSUPPORTED, findings);
    table.finish(findings);
    upstream
}

fn read_endpoint(item: Item<'_>, findings: &mut Findings<'_>) -> Option<Endpoint> {
    match item.value() {
        DeValue::String(_) => item.string(findings).map(|address| Endpoint {
            address,
            weight: None,
        }),
        DeValue::Table(_) => {
            let mut table = item.table(findings)?;
            let address = table.require("address", "\"10.0.0.5:22\"", findings, Item::string);
            let weight = table.take("weight", findings, Item::integer);
            table.finish(findings);
            address.map(|address| Endpoint { address, weight })
        }
        _ => item.wrong("a string", findings),
    }
}
