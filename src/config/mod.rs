//! The configuration: what is typed, what it means, and every mistake in it at once.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

mod agent;
mod check;
mod ciphers;
mod client;
mod consul;
mod decode;
mod diagnostic;
mod environment;
mod file;
mod files;
mod flags;
mod gateway;
mod health_check;
mod http_proxy;
mod limits;
mod listen;
mod middlewares;
pub(crate) mod nomad;
mod passphrase;
mod place;
mod proxy_protocol;
mod routes;
mod settings;
mod sockets;
mod source;
mod state;
mod syntax;
mod tags;
mod transports;
mod tunnels;
mod upstream_tls;
mod upstreams;
mod value;
mod weighted;

pub use agent::Agent;
pub use check::{Checked, load, load_with, parse, parse_with, reload};
pub(crate) use client::LONGEST_TIMEOUT;
pub use client::{ClientFile, Domain, load_client, parse_client, protocol};
pub use consul::{
    AddressTag, Catalog, CheckState, Consistency, Consul, ConsulAddress, Login, Place, Secret,
    Token, TokenError,
};
pub use diagnostic::{Diagnostic, Diagnostics, Level};
pub use environment::Environment;
pub use flags::Flags;
pub use gateway::{Gateway, GatewayError};
pub use health_check::HealthCheck;
pub use http_proxy::{HttpProxy, HttpProxyError, ProxyChoice, UnusableProxy, proxy_from};
pub(crate) use listen::{overlap, reaches};
pub use nomad::{Namespaces, Nomad, NomadService};
pub use settings::{Cap, Keepalive, Limits, Rate, RemovedRoutes, Span};
pub use source::Source;
pub use tags::Tagging;
pub use tunnels::Tunnel;

use crate::rule::{self, Rule};
use crate::state::Settings;
use crate::tls::ciphers::Ciphers;
use crate::tls::key::KeyFile;
use crate::tls::options::Options;
use crate::tls::verify::Proof;

/// A whole configuration that has been found good.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect.
    pub listeners: Vec<Listener>,
    /// Where operators look, if anywhere.
    pub admin: Option<ListenAddress>,
    /// What whoever changes something over a TCP address of the admin interface must show.
    pub admin_token: Option<Token>,
    /// Where the edge certificates are.
    pub certificates: Vec<CertificateFiles>,
    /// Named sets of TLS options. `default`, what a route has that names none, is always among them.
    pub tls_options: BTreeMap<String, Options>,
    /// What routes may ask of their clients, by name.
    pub middlewares: BTreeMap<String, Middleware>,
    /// The routes of the file, by name.
    pub routes: BTreeMap<String, Route>,
    /// The upstreams of the file, by name; a route with a bare address has one of its own, named like the address, and so
    /// has a tunnel that says itself where it leads: `tunnels/NAME`.
    pub upstreams: BTreeMap<String, Upstream>,
    /// Where programs of this machine connect in the clear, by name; none of them has the name of a route.
    pub tunnels: BTreeMap<String, Tunnel>,
    /// How upstreams may be dialled, by name.
    pub transports: BTreeMap<String, Transport>,
    /// Every limit and timeout.
    pub limits: Limits,
    /// How the log is written.
    pub log: Log,
    /// Where the last good state is kept for a start without its sources, if anywhere.
    pub state: Option<Settings>,
    /// The Consul whose services are routed to, if any.
    pub consul: Option<Consul>,
    /// The Nomad whose services are routed to, if any.
    pub nomad: Option<Nomad>,
    /// Whether the process is to enter its [sandbox](crate::sandbox) before it serves. Default: true; false only if
    /// `insecure_no_sandbox = true` was written.
    pub sandbox: bool,
}

/// One address on which clients are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The address; port 0 lets the system choose.
    pub address: SocketAddr,
    /// What happens to a client whose name no route matches.
    pub unknown_name: UnknownName,
    /// Whose PROXY headers are believed; `None` is nobody's.
    pub accept_proxy: Option<Arc<AcceptProxy>>,
}

/// Who in front of a listener says, in a header of the PROXY protocol, for whom it connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptProxy {
    /// The networks of those who are believed.
    pub from: Vec<IpNet>,
    /// Whether everybody must be one of them.
    pub mode: AcceptProxyMode,
}

/// Whether a header must come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AcceptProxyMode {
    /// Who is not listed, or says nothing, is refused: nobody gets around the proxy in front.
    #[default]
    Required,
    /// They are served as who they are.
    Optional,
}

impl AcceptProxy {
    /// Whether headers from this address are believed.
    pub fn lists(&self, peer: IpAddr) -> bool {
        self.from.iter().any(|net| rule::covers(net, peer))
    }
}

/// What happens to a client whose name no route matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownName {
    /// The TLS alert `unrecognized_name` (RFC 6066 §3), then close. It is the one answer a person can act on.
    #[default]
    Alert,
    /// Close without a word.
    Close,
    /// Reset the TCP connection.
    Reset,
}

/// Where the admin interface or a tunnel listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenAddress {
    /// TCP. Not a loopback address only if `insecure_admin = true`, or `insecure_listen = true` of the tunnel, was written.
    Tcp(SocketAddr),
    /// A UNIX socket, written `unix:/path`.
    Unix(PathBuf),
}

impl ListenAddress {
    /// The TCP address, if it is one.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

/// As it is written in the configuration.
impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where certificates and their keys are read from. Paths are absolute, or relative to the configuration's folder (already joined).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateFiles {
    /// One chain and its key.
    Pair {
        /// PEM: the certificate first, then what leads to a root.
        chain: PathBuf,
        /// PEM: PKCS#8, SEC1 or PKCS#1.
        key: PathBuf,
    },
    /// Every pair in a directory.
    Directory(PathBuf),
}

/// A route of the file.
#[derive(Clone, Debug)]
pub struct Route {
    /// Which clients it takes.
    pub rule: Rule,
    /// The priority that was written, if one was.
    pub priority: Option<i64>,
    /// Whether the gateway ends TLS.
    pub action: Action,
    /// A key of [`Config::upstreams`].
    pub upstream: String,
    /// How many connections it may have; `None` is what [`Limits::per_route`] says.
    pub max_connections: Option<Cap>,
    /// What it asks of its clients: keys of [`Config::middlewares`].
    pub middlewares: Vec<String>,
}

/// What a route may ask of its clients, before anything is done for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Middleware {
    /// Their address lies in one of these networks; never empty.
    IpAllowList(Arc<[IpNet]>),
    /// So many connections at once that one address, or one IPv6 /64, has on the route; 0 is none.
    InFlightConn(usize),
}

/// What the gateway does with the client's TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The upstream ends it.
    PassThrough,
    /// The gateway ends it, with this option set; a key of [`Config::tls_options`], or `None` for the defaults.
    Terminate {
        /// The name of the set.
        options: Option<String>,
    },
}

/// An upstream of the file.
#[derive(Clone, Debug, Default)]
pub struct Upstream {
    /// Where it listens; empty only if it stands for a service, or for other upstreams.
    pub endpoints: Vec<Endpoint>,
    /// The upstreams whose turn it is by weight; empty unless it stands for those.
    pub weighted: Vec<Member>,
    /// The service of Consul that it stands for: its endpoints, and its TLS, come from there.
    pub service: Option<ConsulService>,
    /// The service of Nomad's own that it stands for.
    pub nomad_service: Option<NomadService>,
    /// How the gateway connects to it over TLS; `None` is plain TCP.
    pub tls: Option<UpstreamTls>,
    /// Whether it is another gateway, which is asked for a name: its alerts mean what ours do.
    pub is_gateway: bool,
    /// The PROXY header that it is sent; `None` is none.
    pub send_proxy: Option<SendProxy>,
    /// How its endpoints are checked; `None` is not at all.
    pub health_check: Option<HealthCheck>,
    /// What it has in place of the limits.
    pub timing: Timing,
}

/// One of the upstreams that a weighted one stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name: another key of [`Config::upstreams`], which is not weighted, or `NAME@SOURCE`.
    pub upstream: String,
    /// Its share among the members: 0 is never chosen.
    pub weight: u32,
}

/// How an upstream is dialled, for tags and for upstreams of the file to name. (Traefik's `serversTransport`.)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transport {
    /// TLS, where it is asked for; `None` is none.
    pub tls: Option<UpstreamTls>,
    /// The PROXY header that is sent; `None` is none.
    pub send_proxy: Option<SendProxy>,
    /// What it has in place of the limits.
    pub timing: Timing,
}

/// What an upstream has in place of the limits; `None` is what those say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// For [`Limits::dial`].
    pub dial: Option<Duration>,
    /// For [`Limits::half_closed`]; [`Timing::ENDLESS`] is no limit.
    pub half_closed: Option<Duration>,
    /// For [`Limits::keepalive`], towards the upstream.
    pub keepalive: Option<Keepalive>,
}

impl Timing {
    /// Ten years: longer than any tunnel lasts, and every clock can tell it.
    pub const ENDLESS: Duration = Duration::from_secs(3650 * 86_400);
}

/// The header of the PROXY protocol that an upstream is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendProxy {
    /// Which one.
    pub version: ProxyVersion,
    /// Whether it is the first thing inside TLS, for whoever is behind the upstream's TLS; or goes before it.
    pub inside_tls: bool,
}

/// The versions of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text: the addresses, and nothing else.
    V1,
    /// Binary, with these TLVs.
    V2(ProxyTlvs),
}

/// What an upstream is told beside the addresses, where it is known. Default: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxyTlvs {
    /// The protocol agreed with the client.
    pub alpn: bool,
    /// The name that the client asked for.
    pub authority: bool,
    /// The client's TLS: its version, and whether a certificate was verified.
    pub ssl: bool,
    /// The common name in that certificate.
    pub cert_cn: bool,
    /// An ID of the connection, which its line in the access log has too.
    pub unique_id: bool,
    /// The SPIFFE ID in the client's certificate.
    pub spiffe: bool,
    /// A checksum.
    pub crc32c: bool,
}

/// One address of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where to dial.
    pub address: EndpointAddress,
    /// Its share among the endpoints: 0 is never dialled.
    pub weight: u32,
}

/// Where an endpoint is dialled.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointAddress {
    /// An IP address and port.
    Ip(SocketAddr),
    /// A DNS name, resolved by the control plane, and a port.
    Dns(crate::name::HostName, u16),
}

/// As it is dialled: `10.0.0.5:22`, `[2001:db8::5]:22`, `db.internal:5432`.
impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => write!(f, "{address}"),
            Self::Dns(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// What is [written](fmt::Display) so.
impl FromStr for EndpointAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        let (host, port) = text.rsplit_once(':').ok_or("it has no port")?;
        let host = crate::name::HostName::parse(host).map_err(|error| error.to_string())?;
        let port = port.parse().map_err(|_| "it has no port".to_owned())?;
        Ok(Self::Dns(host, port))
    }
}

/// TLS towards an upstream. The chain is always verified, and what the certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// PEM files with the roots; empty means the system's.
    pub roots: Vec<PathBuf>,
    /// The name in the hello, a DNS name or an IP address, which goes unsaid. With [`Proof::ServerName`] it is the SAN
    /// that the upstream must prove; otherwise it may be [none](crate::tls::client::no_server_name).
    pub server_name: rustls_pki_types::ServerName<'static>,
    /// What it must prove.
    pub proof: Proof,
    /// The chain and key, PEM, that the gateway shows if it is asked.
    pub certificate: Option<(PathBuf, KeyFile)>,
    /// The protocols that are offered by ALPN (RFC 7301), the one preferred first; empty is no ALPN. What the upstream answers is its
    /// affair: none is no failure.
    pub alpn: Vec<String>,
    /// Which cipher suites are offered, in this order; a version of which it leaves none is not. `None` is all that are built in.
    pub ciphers: Option<Ciphers>,
}

/// A service of Consul, as an upstream of the file names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsulService {
    /// Its name in the catalog.
    pub name: String,
    /// Whether it is dialled through its sidecars, with mutual TLS, or itself, over plain TCP.
    pub mesh: bool,
    /// The [label](Place::label) of its catalog.
    pub place: Option<Arc<str>>,
}

/// What is written, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// Text or JSON.
    pub format: LogFormat,
    /// Whether each connection that has ended is a line on stdout. Default: true; the metrics count them either way.
    pub access: bool,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Text,
    /// For machines: one object a line.
    Json,
}
