//! Portcullis: a single-port SNI edge gateway with TCP tunnelling.
//!
//! ```text
//!  Consul ──► discovery, identity ─┐
//!  files, DNS ─────────────────────┴─► serve compiles ──► one Snapshot, one cell: routes, policies,    control plane
//!                                                          │  certificates, the mesh identity; read once per connection
//!  client → listener → hello → route → terminate | pass → dial → relay → session ends                  data plane
//! ```
//!
//! From `main` to moving bytes there are four hops: `main` → [`serve`] → [`net::listener`] → [`proxy::Proxy::handle`] →
//! [`net::relay`]. `Proxy::handle` is the story of the program, on one screen.
//!
//! # Rooms and floors
//!
//! A module uses lower floors only. On floors 0–3 neighbours may use each other without a cycle; the rooms of floor 4
//! never import each other: they meet in what lies below, and `serve` hands them what they need of each other.
//!
//! | floor | room | what stands there |
//! |---|---|---|
//! | 6 | `main` [`cli`] | one file a command; exit codes |
//! | 5 | [`serve`] | wires a gateway: load, parts (what changes with the configuration), listeners, consul, nomad, publish (the only writer of snapshots), in_vain (what the log says of those), drain, dry_run (a start without listeners), doctor (what a start needs of its machine) |
//! | 4 | [`proxy`] | the data path: the story, hello, middlewares, terminate, raw (what a tunnel does in place of these), upstream, status (what the client hears of the dial), failure |
//! | 4 | [`client`] | `portcullis connect`: the way to a target (flags, environment, a person's file), the gateway's addresses, the proxy before it, what flows through it, and what to tell a person when it fails; the doctor, who goes that way step by step; ssh's configuration |
//! | 4 | [`discovery`] | what Consul's catalog and Nomad's say of services, made routes and upstreams |
//! | 4 | [`identity`] | who the gateway is in a mesh: its certificate and the roots, from Consul |
//! | 4 | [`health`] | active checks of upstreams: when each is due, so many at once, and what they come to |
//! | 4 | [`admin`] | livez, readyz, metrics, `/v1`: reads the snapshot and the status |
//! | 3 | [`snapshot`] | the model: service, compile, table, middlewares, upstream, ejection, certificates; no I/O |
//! | 2 | [`net`] | listener, unix, limits, dial, resolve, relay, raw, splice, greeting (what a peer does first), frame (what ALPN `portcullis/1` promises), session: sockets, for proxy, client and admin alike |
//! | 2 | [`api`] | the client of Consul and Nomad that several rooms share |
//! | 2 | [`status`] | what each part reports of itself, in one vocabulary; what one step of the doctor has found |
//! | 1 | [`config`] | what is typed, in a gateway's file and a person's, what it means, every mistake at once; limits and timeouts, each default defended |
//! | 1 | [`tls`] | stream and its records, what alerts mean, PEM, keys and the passphrases that open them, option sets, who a peer must prove to be, chains that were found good, and the `ServerConfig`s and `ClientConfig`s made from them |
//! | 1 | [`metrics`] [`log`] [`lifecycle`] [`stop`] [`state`] [`watch`] [`sandbox`] | what is counted, written, when it ends and whom that is told, what ends it at once, what is kept on the disk, which files have changed, what the process may still do |
//! | 0 | [`name`] [`rule`] [`reason`] [`retry`] | names parsed once, then trusted; the rule language; why connections end; pauses |
//!
//! # What is deliberately absent
//!
//! No second matcher: certificate, policy and route come from the same snapshot and the same look-up. No fallback: what
//! cannot be parsed, matched or verified is refused. No TLS parser of our own. No waiting, on the data path, for
//! anything but the client and its upstream.

pub mod admin;
pub mod api;
pub mod cli;
pub mod client;
pub mod config;
pub mod discovery;
pub mod health;
pub mod identity;
pub mod lifecycle;
pub mod log;
pub mod metrics;
pub mod name;
pub mod net;
pub mod proxy;
pub mod reason;
pub mod retry;
pub mod rule;
pub mod sandbox;
pub mod serve;
pub mod snapshot;
pub mod state;
pub mod status;
pub mod stop;
pub mod tls;
pub mod watch;
