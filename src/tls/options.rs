//! A named set of TLS options, as a route refers to it.

use std::path::PathBuf;

use super::ciphers::Ciphers;

/// The ALPN by which `portcullis connect` asks for the status frame, and a gateway of ours promises it.
pub const PORTCULLIS: &[u8] = b"portcullis/1";

/// What a listener's TLS allows and asks for. The default is what a route has that names no set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The oldest version allowed.
    pub min_version: Version,
    /// The newest version allowed; never older than `min_version`.
    pub max_version: Version,
    /// Which cipher suites of the versions allowed; `None` is all that are built in.
    pub ciphers: Option<Ciphers>,
    /// `None`: `h2` or `http/1.1` where the client offers one, else none. A list is obeyed strictly; an empty one turns ALPN off.
    /// [`PORTCULLIS`] is agreed on with whoever offers it, listed or not, unless ALPN is off: it carries no application's meaning.
    pub alpn: Option<Vec<String>>,
    /// Whether clients must prove who they are.
    pub client_auth: ClientAuth,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            min_version: Version::Tls12,
            max_version: Version::Tls13,
            ciphers: None,
            alpn: None,
            client_auth: ClientAuth::None,
        }
    }
}

/// A TLS version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.2 (RFC 5246), with the ECDHE and AEAD suites only.
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// Whether a client must show a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// None is asked for.
    #[default]
    None,
    /// One is asked for; if sent, it must verify against the CAs in these PEM files.
    Optional(Vec<PathBuf>),
    /// One is asked for and must verify against the CAs in these PEM files.
    Required(Vec<PathBuf>),
}
