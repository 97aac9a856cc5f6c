//! The closed set of reasons for which a connection ends, and whose fault each one is.

use std::fmt;

/// Who can mend what ended the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Nobody: the connection did what it was for.
    None,
    /// The client sent something it should not have sent, or went away.
    Client,
    /// The upstream refused, failed its verification, or went away.
    Upstream,
    /// This gateway's own configuration, limits or resources.
    Gateway,
}

impl Fault {
    /// The word that stands in logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Fault::None => "none",
            Fault::Client => "client",
            Fault::Upstream => "upstream",
            Fault::Gateway => "gateway",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $fault:ident;)*) => {
        /// Why a connection ended. Every accepted connection ends with exactly one of these.
        ///
        /// The set is closed, so that each reason can be a metric label.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason there is, in the order of a connection's life.
            pub const ALL: &[Reason] = &[$(Reason::$name,)*];

            /// The word that stands in logs and metric labels.
            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$name => $word,)* }
            }

            /// Whose fault it is.
            pub fn fault(self) -> Fault {
                match self { $(Reason::$name => Fault::$fault,)* }
            }
        }
    };
}

reasons! {
    /// Both sides ended their direction and every byte was delivered.
    Closed = "closed", None;
    /// There were as many connections as the gateway takes in all.
    ConnectionLimit = "connection_limit", Gateway;
    /// There were as many unfinished handshakes as the gateway takes.
    HandshakeLimit = "handshake_limit", Gateway;
    /// The client's address, or its IPv6 network, had as many connections as one may have.
    SourceLimit = "source_limit", Client;
    /// The client's address, or its IPv6 network, came more often than one may.
    RateLimit = "rate_limit", Client;
    /// The listener that it came in by was removed in the same moment.
    ListenerGone = "listener_gone", Gateway;
    /// The client went away before its hello was complete.
    ClientGone = "client_gone", Client;
    /// The listener takes clients from a proxy in front only, and no PROXY header came, or not from one that is listed.
    NoProxyHeader = "no_proxy_header", Client;
    /// A proxy in front sent a PROXY header that is none.
    BadProxyHeader = "bad_proxy_header", Client;
    /// The first byte did not begin a TLS handshake.
    NotTls = "not_tls", Client;
    /// TLS, but a hello that no TLS server would accept.
    BadHello = "bad_hello", Client;
    /// The hello was larger than the limit.
    HelloTooLarge = "hello_too_large", Client;
    /// The hello did not arrive before its deadline.
    HelloTimeout = "hello_timeout", Client;
    /// The hello named no host, and no route takes nameless clients.
    NoName = "no_name", Client;
    /// No route matches the name that the hello asked for.
    UnknownName = "unknown_name", Client;
    /// The route cannot serve: what it needs, or asks for by its tags, is missing, broken or not supported.
    RouteBroken = "route_broken", Gateway;
    /// The client's address is in none of the networks that a middleware of the route lets in, or its user not among those of the tunnel.
    ClientNotAllowed = "client_not_allowed", Client;
    /// The client's address, or its IPv6 network, had as many connections on the route as a middleware lets one have.
    InFlightLimit = "in_flight_limit", Client;
    /// The route had as many connections as it may have.
    RouteLimit = "route_limit", Gateway;
    /// The route ends TLS, and no certificate fits the name.
    NoCertificate = "no_certificate", Gateway;
    /// The client's handshake was not finished before its deadline.
    HandshakeTimeout = "handshake_timeout", Client;
    /// The client's handshake failed: no common version, suite or protocol, or an alert from the client.
    HandshakeFailed = "handshake_failed", Client;
    /// The route asks for a client certificate, and the one sent (or its absence) was refused.
    ClientCertificate = "client_certificate", Client;
    /// The upstream has no endpoint that could be dialled: none is healthy, registered or resolved.
    NoHealthyUpstream = "no_healthy_upstream", Upstream;
    /// The gateway had nothing left to dial with: no file descriptor, no port, no memory.
    Shortage = "shortage", Gateway;
    /// No endpoint accepted the connection.
    DialFailed = "dial_failed", Upstream;
    /// No endpoint answered, or finished its handshake, before the dial's deadline.
    DialTimeout = "dial_timeout", Upstream;
    /// The upstream's TLS handshake failed: it spoke no TLS, or refused ours.
    UpstreamTls = "upstream_tls", Upstream;
    /// The upstream did not prove who it is: its chain, its dates, its name or its SPIFFE ID.
    UpstreamIdentity = "upstream_identity", Upstream;
    /// Consul says that an intention denies the gateway this service of the mesh: it is not dialled (`check_intentions`).
    DeniedByIntention = "denied_by_intention", Upstream;
    /// The gateway that a tunnel leads to has no way to the name behind it, or refuses it to us, and says why.
    RefusedByGateway = "refused_by_gateway", Upstream;
    /// A mesh upstream ended at the client's first byte without an answer: what a sidecar does that an intention tells to deny.
    PossibleIntentionDenial = "possible_intention_denial", Upstream;
    /// The client reset the connection, or broke TLS, while bytes were relayed.
    ClientReset = "client_reset", Client;
    /// The upstream reset the connection, or broke TLS, while bytes were relayed.
    UpstreamReset = "upstream_reset", Upstream;
    /// Neither side sent a byte for the idle limit.
    IdleTimeout = "idle_timeout", None;
    /// One side had ended, and the other was silent for the half-closed limit.
    HalfClosedTimeout = "half_closed_timeout", None;
    /// The tunnel had lasted as long as the configuration lets one last.
    LifetimeLimit = "lifetime_limit", None;
    /// Its route was removed, and the configuration says that its connections end then.
    RouteGone = "route_gone", None;
    /// The gateway was told to stop, and the drain's deadline passed.
    Drained = "drained", None;
    /// A defect of the gateway itself: the connection's task ended without an outcome.
    Internal = "internal", Gateway;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        let words: std::collections::HashSet<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(words.len(), Reason::ALL.len());
    }

    #[test]
    fn the_readme_tells_what_every_reason_means() {
        let readme = include_str!("../README.md");
        let table = readme.split("| reason | fault | meaning |").nth(1);
        let table = table.and_then(|rest| rest.split("\n\n").next());
        for reason in Reason::ALL {
            let word = format!("`{}`", reason.as_str());
            assert!(table.is_some_and(|table| table.contains(&word)), "{word}");
        }
    }
}
