//! What can go wrong with a connection: its reason, and what the client is told.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rustix::io::Errno;
use rustls::AlertDescription;
use tokio::net::TcpStream;

use super::hello::HelloError;
use crate::config::UnknownName;
use crate::metrics::Limit;
use crate::name::HostName;
use crate::net::dial::DialError;
use crate::net::frame::Refusal;
use crate::net::promised::Unkept;
use crate::net::proxy_header::HeaderError;
use crate::net::raw::Socket;
use crate::net::relay::Socket as _;
use crate::reason::{Fault, Reason};
use crate::snapshot::upstream::Intention;
use crate::tls::HandshakeError;
use crate::tls::alert::{Meaning, Named};

/// Why a connection ended otherwise than by both sides' will.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the listener that it came in by is gone")]
    ListenerGone,
    #[error("{}", limit(*.0))]
    Limit(Limit),
    #[error("{0} is not in `ip_allow_list` of a middleware of its route")]
    NotAllowed(IpAddr),
    #[error("{} is not in `allow_uids` of the tunnel", user(*.0))]
    UserNotAllowed(Option<u32>),
    #[error("{0} is not in `proxy_protocol.from` of this listener")]
    NotListed(IpAddr),
    #[error("{0}")]
    ProxyHeader(HeaderError),
    #[error(transparent)]
    Hello(HelloError),
    #[error("no whole hello before the deadline")]
    HelloTimeout,
    #[error("the hello names no host")]
    NoName,
    #[error("no route takes this name")]
    UnknownName,
    #[error("{0}")]
    RouteBroken(String),
    #[error("no certificate for this name")]
    NoCertificate,
    #[error("no acme challenge waits for an answer")]
    AcmeProbe,
    #[error("the handshake was not finished before the deadline")]
    HandshakeTimeout,
    #[error("{0}")]
    Handshake(HandshakeError),
    #[error("the endpoint is this gateway itself")]
    Loop,
    #[error("{}", .0.as_deref().unwrap_or("the upstream has no endpoint to dial"))]
    NoHealthyUpstream(Option<Arc<str>>),
    #[error("denied by intention; {0}")]
    DeniedByIntention(Box<Intention>),
    #[error("{0}")]
    Dial(DialError),
    #[error("the gateway says: {0}")]
    RefusedByGateway(Refusal),
    #[error("{}", refusal(*.0, .1))]
    GatewayAlert(AlertDescription, Arc<str>),
    #[error("tls: {0}; {1}")]
    RefusedInMesh(HandshakeError, Box<Intention>),
    #[error("the upstream ended at the client's first byte; {0}")]
    PossibleIntentionDenial(Intention),
    #[error("{0}")]
    ClientReset(io::Error),
    #[error("{0}")]
    UpstreamReset(io::Error),
    #[error("no byte after one side had ended")]
    HalfClosed,
    #[error("{}", why(*.0))]
    Told(Reason),
}

/// The end of a connection that failed.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) failure: Failure,
    /// The client's socket, where it is to be closed so that the last words arrive.
    pub(super) tcp: Option<TcpStream>,
}

/// What a client is told whose handshake has not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A fatal alert (RFC 8446 §6.2, RFC 6066 §3, RFC 7301 §3.2).
    Alert(AlertDescription),
    /// Nothing: FIN.
    Close,
    /// Nothing: RST.
    Reset,
}

impl Failure {
    /// The closed word for it.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::ListenerGone => Reason::ListenerGone,
            Self::Limit(limit) => match limit {
                Limit::Connections => Reason::ConnectionLimit,
                Limit::Handshakes => Reason::HandshakeLimit,
                Limit::PerSource => Reason::SourceLimit,
                Limit::AcceptRate => Reason::RateLimit,
                Limit::PerRoute => Reason::RouteLimit,
                Limit::InFlight => Reason::InFlightLimit,
                Limit::Lifetime => Reason::LifetimeLimit,
                Limit::Idle => Reason::IdleTimeout,
            },
            Self::NotAllowed(_) | Self::UserNotAllowed(_) => Reason::ClientNotAllowed,
            Self::NotListed(_) | Self::ProxyHeader(HeaderError::Absent) => Reason::NoProxyHeader,
            Self::ProxyHeader(_) => Reason::BadProxyHeader,
            Self::Hello(HelloError::Gone { .. }) => Reason::ClientGone,
            Self::Hello(HelloError::NotTls) => Reason::NotTls,
            Self::Hello(HelloError::TooOld | HelloError::Bad { .. } | HelloError::BadName) => {
                Reason::BadHello
            }
            Self::Hello(HelloError::TooLarge { .. }) => Reason::HelloTooLarge,
            Self::HelloTimeout => Reason::HelloTimeout,
            Self::NoName => Reason::NoName,
            Self::UnknownName => Reason::UnknownName,
            Self::RouteBroken(_) | Self::Loop => Reason::RouteBroken,
            Self::NoCertificate => Reason::NoCertificate,
            Self::HandshakeTimeout => Reason::HandshakeTimeout,
            Self::Handshake(HandshakeError::Tls(
                rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented,
            )) => Reason::ClientCertificate,
            Self::AcmeProbe | Self::Handshake(_) => Reason::HandshakeFailed,
            Self::NoHealthyUpstream(_) => Reason::NoHealthyUpstream,
            Self::DeniedByIntention(_) => Reason::DeniedByIntention,
            Self::Dial(DialError::Tcp(e)) if is_shortage(e) => Reason::Shortage,
            Self::Dial(DialError::Tcp(_)) => Reason::DialFailed,
            Self::Dial(DialError::Timeout(_) | DialError::HandshakeTimeout(_)) => {
                Reason::DialTimeout
            }
            Self::Dial(DialError::Tls(HandshakeError::Tls(
                rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented,
            ))) => Reason::UpstreamIdentity,
            Self::Dial(DialError::Tls(_)) | Self::RefusedInMesh(..) => Reason::UpstreamTls,
            Self::RefusedByGateway(_) | Self::GatewayAlert(..) => Reason::RefusedByGateway,
            Self::PossibleIntentionDenial(_) => Reason::PossibleIntentionDenial,
            Self::ClientReset(_) => Reason::ClientReset,
            Self::UpstreamReset(_) => Reason::UpstreamReset,
            Self::HalfClosed => Reason::HalfClosedTimeout,
            Self::Told(reason) => *reason,
        }
    }

    /// Whether the endpoint that was dialled is the worse for it. A gateway that says what it does not reach is there, and well;
    /// so is one that does not let this client in, or has too many: some hear of that by an alert for whatever cannot be served.
    /// What else it refuses, another may not.
    pub(super) fn is_of_endpoint(&self) -> bool {
        match self {
            Self::RefusedByGateway(_) => false,
            Self::GatewayAlert(alert, _) => {
                use Meaning::{Broken, Full, NotLetIn};
                !matches!(Meaning::of(*alert), NotLetIn | Full | Broken)
            }
            failure => failure.reason().fault() == Fault::Upstream,
        }
    }

    /// An upstream whose TLS did not come about. One of the mesh that broke it off, by an alert or without a word, may
    /// have been told so by an intention; one that is another gateway, asked for a name, says by its alert what connect is told.
    pub(super) fn upstream_tls(
        error: HandshakeError,
        intention: Option<Intention>,
        gateway: Option<&Arc<str>>,
    ) -> Self {
        match (&error, intention, gateway) {
            (HandshakeError::Tls(rustls::Error::AlertReceived(alert)), _, Some(name))
                if Meaning::of(*alert) != Meaning::Other =>
            {
                Self::GatewayAlert(*alert, Arc::clone(name))
            }
            (
                HandshakeError::Tls(rustls::Error::AlertReceived(_)) | HandshakeError::Io(_),
                Some(intention),
                _,
            ) => Self::RefusedInMesh(error, Box::new(intention)),
            _ => Self::Dial(DialError::Tls(error)),
        }
    }

    /// What ended the bytes of an upstream that had come about.
    pub(super) fn upstream(error: io::Error) -> Self {
        match Unkept::of(&error) {
            Some(Unkept::Refused(refusal)) => Self::RefusedByGateway(refusal.clone()),
            _ => Self::UpstreamReset(error),
        }
    }

    /// No route: with a name or without.
    pub(super) fn no_route(name: Option<&HostName>) -> Self {
        match name {
            Some(_) => Self::UnknownName,
            None => Self::NoName,
        }
    }

    /// Tells the client, and leaves its socket to be closed.
    pub(super) fn answered(self, tcp: TcpStream, answer: Answer) -> Ending {
        match answer {
            Answer::Alert(description) => send_alert(&tcp, description),
            Answer::Close => {}
            Answer::Reset => {
                tcp.reset();
                return self.into();
            }
        }
        Ending {
            failure: self,
            tcp: Some(tcp),
        }
    }
}

impl Failure {
    /// Nothing is said to one who is only accepted.
    pub(super) fn reset(self, socket: Socket) -> Ending {
        match socket {
            Socket::Tcp(tcp) => self.answered(tcp, Answer::Reset),
            Socket::Unix(_) => self.into(),
        }
    }
}

/// The socket is closed at once.
impl From<Failure> for Ending {
    fn from(failure: Failure) -> Self {
        Self { failure, tcp: None }
    }
}

impl From<UnknownName> for Answer {
    fn from(unknown: UnknownName) -> Self {
        match unknown {
            UnknownName::Alert => Self::Alert(AlertDescription::UnrecognisedName),
            UnknownName::Close => Self::Close,
            UnknownName::Reset => Self::Reset,
        }
    }
}

/// What there is too much of, with the key that says how much there may be.
fn user(uid: Option<u32>) -> String {
    uid.map_or_else(
        || "a client of no user".to_owned(),
        |uid| format!("the user {uid}"),
    )
}

fn limit(limit: Limit) -> &'static str {
    match limit {
        Limit::Connections => "as many connections as may be (`limits.connections`)",
        Limit::Handshakes => "as many unfinished handshakes as may be (`limits.handshakes`)",
        Limit::PerSource => {
            "its source has as many connections as one may have (`limits.per_source`)"
        }
        Limit::AcceptRate => "its source comes more often than one may (`limits.accept_rate`)",
        Limit::PerRoute => {
            "its route has as many connections as it may have (`max_connections`, or `limits.per_route`)"
        }
        Limit::InFlight => {
            "its source has as many connections on the route as one may have (`in_flight_conn` of a middleware)"
        }
        Limit::Lifetime => "it has lasted as long as one may (`limits.lifetime`)",
        Limit::Idle => "no byte in either direction",
    }
}

/// What another gateway says by an alert of who asks for this name.
fn refusal(alert: AlertDescription, name: &str) -> String {
    let said = match Meaning::of(alert) {
        Meaning::NoRoute => format!("has no route for {name}"),
        Meaning::NotLetIn => format!("does not let us in to {name}"),
        Meaning::Full => format!("has as many connections to {name} as it takes"),
        Meaning::Broken => format!("cannot serve {name}, or no more connections to it"),
        Meaning::NoProtocol => format!("takes only clients of certain protocols (ALPN) for {name}"),
        Meaning::CertificateRequired => format!("asks for a client certificate for {name}"),
        Meaning::CertificateExpired => format!("says that our certificate for {name} has expired"),
        Meaning::CertificateRefused => format!("does not accept our certificate for {name}"),
        Meaning::Other => format!("refuses the handshake for {name}"),
    };
    format!("the gateway {said} ({})", Named(alert))
}

/// Why a connection that does well must end.
fn why(told: Reason) -> &'static str {
    match told {
        Reason::RouteGone => "its route is gone, and the configuration ends what it carried",
        _ => "the gateway is stopping",
    }
}

/// A hello that cannot be served.
pub(super) fn bad_hello(tcp: TcpStream, error: HelloError) -> Ending {
    let alert = match error {
        HelloError::Gone { .. } | HelloError::Bad { answered: true, .. } => None,
        HelloError::NotTls | HelloError::TooLarge { .. } => Some(AlertDescription::DecodeError),
        HelloError::TooOld => Some(AlertDescription::ProtocolVersion),
        // rustls has no alert for what only breaks the order: another record or message where the hello belongs.
        HelloError::Bad { .. } => Some(AlertDescription::UnexpectedMessage),
        HelloError::BadName => Some(AlertDescription::IllegalParameter),
    };
    let answer = alert.map_or(Answer::Close, Answer::Alert);
    Failure::Hello(error).answered(tcp, answer)
}

/// One fatal alert in the clear, as a server may send it before any handshake has begun (RFC 8446 §6, §5.1).
fn send_alert(tcp: &TcpStream, description: AlertDescription) {
    // Best effort: the socket is new and its buffer empty.
    let _ = tcp.try_write(&[21, 3, 3, 0, 2, 2, description.into()]);
}

/// Whether a socket could not be made or bound here, whatever its other end would have said (connect(2), socket(2)).
fn is_shortage(error: &io::Error) -> bool {
    let of_ours = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
        // No port is left for one more connection to that address.
        Errno::ADDRNOTAVAIL,
    ];
    Errno::from_io_error(error).is_some_and(|errno| of_ours.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_not_blamed_for_what_the_gateway_has_too_little_of() {
        let reason = |errno: Errno| Failure::Dial(DialError::Tcp(errno.into())).reason();
        for errno in [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL] {
            assert_eq!(reason(errno), Reason::Shortage, "{errno}");
        }
        assert_eq!(Reason::Shortage.fault(), Fault::Gateway);
        assert_eq!(reason(Errno::CONNREFUSED), Reason::DialFailed);
    }

    #[test]
    fn an_upstream_without_an_endpoint_says_why_if_anybody_knows() {
        let known = Failure::NoHealthyUpstream(Some("all 3 instances are critical".into()));
        assert_eq!(known.to_string(), "all 3 instances are critical");
        let unknown = Failure::NoHealthyUpstream(None);
        assert_eq!(unknown.to_string(), "the upstream has no endpoint to dial");
        for failure in [known, unknown] {
            assert_eq!(failure.reason().as_str(), "no_healthy_upstream");
        }
    }
}
