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
    /// A tunnel in which no byte moved for this long is ended; `None` never ends one.
    ///
    /// Off: an ssh session may be silent for days; keepalive finds the dead ones.
    pub idle: Option<Duration>,
    /// A tunnel of which one direction has ended is itself ended after this long without a byte in the other.
    ///
    /// 10 min: longer than any pause in an answer that is still being computed, shorter than a leak.
    pub half_closed: Duration,
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
    /// Over how long the tunnels that still run are ended, before the end of [`drain`](Self::drain) and never longer than it.
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
            idle: None,
            half_closed: Duration::from_secs(600),
            keepalive: Keepalive::default(),
            drain_delay: Duration::ZERO,
            drain: Duration::from_secs(300),
            drain_spread: Duration::from_secs(10),
            removed_routes: RemovedRoutes::default(),
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
