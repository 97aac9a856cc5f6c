//! The tunnels: where programs connect in the clear, and where their bytes go; what is typed and what it means.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use toml::de::DeValue;

mod leads;
mod places;

use super::decode::{Item, List, Table, Typed};
use super::diagnostic::Findings;
use super::file::File;
use super::upstream_tls;
use super::upstreams::Own;
use super::value::read;
use super::{Cap, Endpoint, EndpointAddress, Gateway, ListenAddress, Upstream, limits, listen};
use crate::tls::options::PORTCULLIS;
use leads::{far_end, host_name, named, refuse_other_proof, warn_of_plain};
use places::who_may;
pub(super) use places::{listen as places_of, tcp};

/// An example of a socket's path.
const SOCKET: &str = "unix:/run/portcullis/clusterd.sock";

/// A tunnel of the file: plain bytes come in, and go where its upstream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Where it listens; never empty.
    pub listen: Vec<ListenAddress>,
    /// The mode of its UNIX sockets, if one is [written](Self::socket_mode). One that the service manager hands over keeps its own.
    pub mode: Option<u32>,
    /// The users who may connect to its UNIX sockets; `None` is whoever their mode lets.
    pub allow_uids: Option<Arc<[u32]>>,
    /// A key of [`Config::upstreams`](super::Config::upstreams).
    pub upstream: String,
    /// How many connections it may have; `None` is what the limits say for every route.
    pub max_connections: Option<Cap>,
}

impl Tunnel {
    /// 0600: the user that runs it, and nobody else, until somebody says who.
    pub const MODE: u32 = 0o600;

    /// The same where `allow_uids` says who: the kernel names each user who connects (`SO_PEERCRED`), and to connect is to write.
    const MODE_OF_LISTED: u32 = 0o666;

    /// The mode that its UNIX sockets are made with.
    pub fn socket_mode(&self) -> u32 {
        let default = match self.allow_uids {
            Some(_) => Self::MODE_OF_LISTED,
            None => Self::MODE,
        };
        self.mode.unwrap_or(default)
    }

    /// The addresses that others than this machine may reach: `insecure_listen = true` was written.
    pub fn open(&self) -> impl Iterator<Item = SocketAddr> {
        let tcp = self.listen.iter().filter_map(ListenAddress::tcp);
        tcp.filter(|address| !address.ip().to_canonical().is_loopback())
    }
}

/// `[tunnels.NAME]`.
#[derive(Debug)]
pub(super) struct Section {
    place: Typed<()>,
    listen: Option<List<Typed<String>>>,
    insecure_listen: Option<Typed<bool>>,
    mode: Option<Typed<String>>,
    allow_uids: Option<List<Typed<i64>>>,
    to: Option<Typed<String>>,
    gateway: Option<Typed<String>>,
    name: Option<Typed<String>>,
    upstream: Option<Typed<String>>,
    server_name: Option<Typed<String>>,
    alpn: Option<List<Typed<String>>>,
    tls: Option<upstream_tls::Section>,
    max_connections: Option<Cap>,
}

/// What is no table at all.
impl Default for Section {
    fn default() -> Self {
        Self {
            place: Typed {
                key: String::new(),
                value: (),
                span: 0..0,
            },
            listen: None,
            insecure_listen: None,
            mode: None,
            allow_uids: None,
            to: None,
            gateway: None,
            name: None,
            upstream: None,
            server_name: None,
            alpn: None,
            tls: None,
            max_connections: None,
        }
    }
}

impl Section {
    pub(super) fn read(mut table: Table<'_>, findings: &mut Findings<'_>) -> Self {
        let place = table.key();
        let ways = ["to", "gateway", "upstream"];
        let written = ways.map(|way| table.place(way).map(|place| (place, way)));
        let written: Vec<_> = written.into_iter().flatten().collect();
        match written.as_slice() {
            [(_, one), (place, other), ..] => findings.error(
                place.clone(),
                format!("`{}` has both `{one}` and `{other}`", table.key().key),
                "keep one: `to` is a host with its port, `gateway` one of ours with the `name` behind it, `upstream` the name of an \
                 [upstreams.NAME] section",
            ),
            [] if !ways.iter().any(|way| table.has(way)) => findings.missing(
                place.span.clone(),
                format!("`{}` has neither `to` nor `gateway` nor `upstream`", place.key),
                "add `to = \"master.example.com:8443\"`, or `gateway = \"gate.example.com:8443\"` and the `name` behind it",
            ),
            _ => {}
        }
        let section = Self {
            listen: table.require(
                "listen",
                "\"127.0.0.1:8899\"",
                findings,
                |item, findings| match item.value() {
                    DeValue::String(_) => {
                        let typed = item.string(findings)?;
                        Some(List {
                            key: typed.key.clone(),
                            span: typed.span.clone(),
                            is_empty: false,
                            value: vec![typed],
                        })
                    }
                    DeValue::Array(_) => item.strings(findings),
                    _ => item.wrong("a string", findings),
                },
            ),
            insecure_listen: table.take("insecure_listen", findings, Item::boolean),
            mode: table.take("mode", findings, Item::string),
            allow_uids: table.take("allow_uids", findings, |item, findings| {
                item.list(findings, Item::integer)
            }),
            to: table.take("to", findings, Item::string),
            gateway: table.take("gateway", findings, Item::string),
            name: table.take("name", findings, Item::string),
            upstream: table.take("upstream", findings, Item::string),
            server_name: table.take("server_name", findings, Item::string),
            alpn: table.take("alpn", findings, Item::strings),
            tls: table.take("tls", findings, read_tls),
            max_connections: table.take("max_connections", findings, limits::of_route),
            place,
        };
        table.finish(findings);
        section
    }

    /// Refuses keys that another one makes meaningless.
    fn refuse_idle_keys(&self, findings: &mut Findings<'_>) {
        let mut idle = |typed: Option<&Typed<String>>, why: &str, help: &str| {
            if let Some(typed) = typed {
                let message = format!("`{}` {why}", typed.key);
                findings.error(typed.span.clone(), message, help);
            }
        };
        if self.gateway.is_some() {
            idle(
                self.server_name.as_ref(),
                "beside `gateway`: `name` is what is asked for and proven",
                "remove it",
            );
        } else {
            idle(
                self.name.as_ref(),
                "without `gateway`: it is the name that a gateway is asked for",
                "write `server_name` for the name that `to` must prove, or remove it",
            );
        }
        if self.upstream.is_some() {
            const HELP: &str = "write it in the `tls` of that upstream";
            let why = "beside `upstream`: that says how it is dialled";
            idle(self.server_name.as_ref(), why, HELP);
            let alpn = self.alpn.as_ref().map(|list| (&list.key, &list.span));
            let tls = self.tls.as_ref();
            let tls = tls.map(|tls| (&tls.place.key, &tls.place.span));
            for (key, span) in alpn.into_iter().chain(tls) {
                findings.error(span.clone(), format!("`{key}` {why}"), HELP);
            }
        }
    }

    /// The upstream that it describes: the endpoint, and TLS to it, which is always on.
    fn described(
        &self,
        own: Own<'_>,
        folder: &Path,
        findings: &mut Findings<'_>,
    ) -> Option<Upstream> {
        let typed = self.to.as_ref().or(self.gateway.as_ref())?;
        let default = self.gateway.as_ref().map(|_| Gateway::DEFAULT_PORT);
        let address = read(typed, findings, |text| far_end(text, default));
        if let Some(address) = &address {
            listen::refuse_loop(address, own, &typed.key, typed.span.clone(), findings);
        }
        let name = match (&self.gateway, &self.name) {
            (None, _) => self.server_name.clone(),
            (Some(_), Some(name)) => {
                read(name, findings, |text| host_name(text))?;
                Some(name.clone())
            }
            (Some(gateway), None) => {
                let key = &self.place.key;
                findings.missing(
                    gateway.span.clone(),
                    format!("`{key}.name` is missing: a gateway is asked for a name"),
                    "add `name = \"rdp.vm.example.com\"`, a name that the gateway has a route for",
                );
                return None;
            }
        };
        if let (Some(tls), Some(_)) = (&self.tls, &self.gateway) {
            refuse_other_proof(tls, findings);
        }
        let tls = self.tls.clone();
        let tls = tls.unwrap_or_else(|| upstream_tls::Section::of_defaults(typed.place()));
        // What is dialled is who must be there, an address too, unless something else must be proven.
        let host = address.as_ref().filter(|_| !tls.says_who());
        let host = host.map(|address| Typed {
            value: match address {
                EndpointAddress::Ip(address) => address.ip().to_string(),
                EndpointAddress::Dns(name, _) => name.to_string(),
            },
            ..typed.clone()
        });
        let tls = tls.completed(name.as_ref(), self.alpn.as_ref(), findings);
        // It carries nothing of the application; whoever names protocols wants one of those agreed on.
        let asks_status = self.gateway.is_some() && !tls.names_protocols();
        let tls = match host.filter(|_| name.is_none()) {
            Some(host) => tls.completed(Some(&host), None, findings),
            None => tls,
        };
        let endpoints: Vec<Endpoint> = address
            .into_iter()
            .map(|address| Endpoint { address, weight: 1 })
            .collect();
        let mut tls = tls.mean(Some(&endpoints), folder, findings)?;
        if asks_status {
            tls.alpn = vec![String::from_utf8_lossy(PORTCULLIS).into_owned()];
        }
        Some(Upstream {
            endpoints,
            tls: Some(tls),
            is_gateway: self.gateway.is_some(),
            ..Upstream::default()
        })
    }
}

/// `tls = false` is no way to say that bytes shall go on in the clear.
fn read_tls(item: Item<'_>, findings: &mut Findings<'_>) -> Option<upstream_tls::Section> {
    if let DeValue::Boolean(false) = item.value() {
        let typed = item.typed(());
        findings.error(
            typed.span,
            format!("`{}`: a tunnel always speaks TLS to where it leads", typed.key),
            "remove it; what must be reached in the clear is an `upstream` of this tunnel without `tls`",
        );
        return None;
    }
    upstream_tls::Section::read(item, findings)
}

/// The tunnels of the file, those that are broken left out. What they describe themselves becomes upstreams.
pub(super) fn tunnels(
    file: &File,
    mut listen: BTreeMap<String, Vec<ListenAddress>>,
    own: Own<'_>,
    upstreams: &mut BTreeMap<String, Upstream>,
    folder: &Path,
    findings: &mut Findings<'_>,
) -> BTreeMap<String, Tunnel> {
    let known = file.upstreams.iter();
    let known: BTreeSet<&str> = known.map(|(name, _)| name.value.as_str()).collect();
    let mut tunnels = BTreeMap::new();
    for (name, section) in &file.tunnels {
        if file
            .routes
            .iter()
            .any(|(route, _)| route.value == name.value)
        {
            findings.error(
                name.span.clone(),
                format!("`{}` has the name of a route", name.key),
                "give it another: the log and the metrics tell connections apart by it",
            );
        }
        section.refuse_idle_keys(findings);
        let sockets = listen.remove(&name.value).unwrap_or_default();
        let (mode, allow_uids) = who_may(section, &sockets, findings);
        let upstream = match &section.upstream {
            Some(typed) => named(typed, &known, findings),
            None => section.described(own, folder, findings).map(|upstream| {
                let own_name = format!("tunnels/{}", name.value);
                upstreams.insert(own_name.clone(), upstream);
                own_name
            }),
        };
        if let (Some(typed), Some(upstream)) = (&section.upstream, &upstream) {
            warn_of_plain(typed, upstreams, upstream, findings);
        }
        let (Some(upstream), false) = (upstream, sockets.is_empty()) else {
            continue;
        };
        let tunnel = Tunnel {
            listen: sockets,
            mode,
            allow_uids,
            upstream,
            max_connections: section.max_connections,
        };
        tunnels.insert(name.value.clone(), tunnel);
    }
    tunnels
}
