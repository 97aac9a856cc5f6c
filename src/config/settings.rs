//! Limits and timeouts, all in one place, each default with its reason.

use std::time::Duration;

/// Every bound that a connection lives under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From accept to the end of the client's handshake, hello included, in all and not per read.
    ///
    /// 10 s: a post-quantum hello over a lossy mobile link takes two or three retransmissions, and a
    /// scanner that stays silent should not hold a socket longer than that.
    pub handshake: Duration,
    /// The largest hello, in bytes as they came over the wire.
    ///
    /// 64 KiB: what TLS's largest handshake message here (rustls: 65,535 bytes) needs; real hellos have 0.2–2 KiB.
    pub hello_bytes: usize,
    /// For one endpoint: name already resolved, TCP connect and, where it applies, TLS to the upstream.
    ///
    /// 5 s: two SYN retransmissions (1 s, 3 s) fit; a person at a prompt has not given up.
    pub dial: Duration,
    /// How many endpoints are tried for one connection while no byte has gone up.
    ///
    /// 2: a dead endpoint costs one more try, an outage of all of them does not multiply the load.
    pub dial_attempts: usize,
    /// A tunnel in which no byte moved for this long is ended.
    ///
    /// Off: an ssh session may be silent for days; keepalive finds the dead ones.
    pub idle: Span,
    /// A tunnel that has lasted this long, counted from its accept, is ended; up to a tenth earlier, by chance, so that
    /// what began together does not come back together.
    ///
    /// Off: nothing about a tunnel grows with its age.
    pub lifetime: Span,
    /// A tunnel of which one direction has ended is itself ended after this long without a byte in the other.
    ///
    /// 10 min: longer than any pause in an answer that is still being computed, shorter than a leak.
    pub half_closed: Duration,
    /// Connections in all; no number is as many as the open files that the system allows have room for.
    ///
    /// No number: two descriptors a connection are what runs out first.
    pub connections: Cap,
    /// Connections whose handshake is not finished.
    ///
    /// 16,384: each takes some 10 KiB until its deadline, so that strangers cost 160 MiB at most; after a restart a
    /// backlog of 4,096 is let in four times over. Never more than half of the connections in all.
    pub handshakes: Cap,
    /// Connections of one source: an IPv4 address, or an IPv6 /64, which one customer has whole.
    ///
    /// 2,048: behind a NAT 200 people have ten each.
    pub per_source: Cap,
    /// How often one source may come.
    ///
    /// 200 a second, 2,048 at once: everybody behind that NAT comes back together after a restart; what goes on costs a
    /// fifth of a core with the slowest key in use (RSA 2048: 1 ms a handshake).
    pub accept_rate: Rate,
    /// Connections of one route that says nothing of its own.
    ///
    /// Off: what its upstream bears is known to its owner alone.
    pub per_route: Cap,
    /// TCP keepalive on both legs.
    pub keepalive: Keepalive,
    /// After being told to stop, how long clients are still accepted while `/readyz` says no.
    ///
    /// Zero: nothing sends clients here but what asks the system where to go. Kubernetes and Nomad need some seconds until
    /// the last load balancer has heard.
    pub drain_delay: Duration,
    /// Once nobody new is accepted, how long running tunnels may go on.
    ///
    /// 5 min: an interactive user sees the notice; a deploy does not wait for the day to end.
    pub drain: Duration,
    /// Over how long the tunnels that still run are ended, before the end of [`drain`](Self::drain) and never longer than half
    /// of it: whoever has just come is to be served.
    ///
    /// 10 s: ten thousand clients that come back, a thousand a second, are what another gateway can shake hands with.
    pub drain_spread: Duration,
    /// What becomes of the tunnels of a route that is removed.
    ///
    /// Kept: whoever removes a route wants nobody new, and a person's session is not to end by an edit.
    pub removed_routes: RemovedRoutes,
}

/// What becomes of the tunnels of a route that is removed, from the file or by discovery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RemovedRoutes {
    /// They go on until they end of themselves.
    #[default]
    Keep,
    /// They are ended evenly over this time, so that they do not all come back at once; zero is at once.
    End(Duration),
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            hello_bytes: 64 * 1024,
            dial: Duration::from_secs(5),
            dial_attempts: 2,
            idle: Span::default(),
            lifetime: Span::default(),
            half_closed: Duration::from_secs(600),
            connections: Cap::default(),
            handshakes: Cap::of(16_384),
            per_source: Cap::of(2048),
            accept_rate: Rate {
                per_second: Some(200),
                burst: 2048,
                enforce: true,
            },
            per_route: Cap::default(),
            keepalive: Keepalive::default(),
            drain_delay: Duration::ZERO,
            drain: Duration::from_secs(300),
            drain_spread: Duration::from_secs(10),
            removed_routes: RemovedRoutes::default(),
        }
    }
}

/// A limit on how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cap {
    /// As many may be, 1 or more; `None` is off.
    pub max: Option<usize>,
    /// Whether one more is refused, or only counted.
    pub enforce: bool,
}

impl Cap {
    /// So many and no more.
    pub const fn of(max: usize) -> Self {
        Self {
            max: Some(max),
            enforce: true,
        }
    }
}

impl Default for Cap {
    fn default() -> Self {
        Self {
            max: None,
            enforce: true,
        }
    }
}

/// A limit on how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// So often in the long run, 1 or more; `None` is off.
    pub per_second: Option<u32>,
    /// So often at once, 1 or more, after a pause in which that many could have come.
    pub burst: u32,
    /// Whether one more is refused, or only counted.
    pub enforce: bool,
}

/// A limit on how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// So long; `None` is off.
    pub max: Option<Duration>,
    /// Whether what goes on longer is ended, or only counted.
    pub enforce: bool,
}

impl Default for Span {
    fn default() -> Self {
        Self {
            max: None,
            enforce: true,
        }
    }
}

/// TCP keepalive (RFC 9293 §3.8.4): how a peer that vanished is found.
///
/// 60 s, then 6 probes 10 s apart: below the 350 s and 120 s at which common NATs and load
/// balancers forget a silent flow, and a dead peer is gone within two minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Between two probes.
    pub interval: Duration,
    /// Unanswered probes after which the peer counts as dead.
    pub count: u32,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(60),
            interval: Duration::from_secs(10),
            count: 6,
        }
    }
}
