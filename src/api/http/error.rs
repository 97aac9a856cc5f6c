//! What goes wrong between the gateway and an agent, in words that a person can act on and a terminal can bear.

use std::time::Duration;

use super::Api;
use crate::log::printable;
use crate::tls;

/// How much of a text from outside is shown, in bytes.
const SHOWN: usize = 300;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A file of roots, the chain or its key does not serve, or the system trusts no CA.
    #[error(transparent)]
    Tls(#[from] tls::client::ClientError),
    /// The name that the agent shall prove is none.
    #[error("{0:?} is neither a host name nor an IP address that a certificate could prove")]
    ServerName(String),
    /// There is no token where one is said to be.
    #[error(transparent)]
    Token(#[from] crate::config::TokenError),
    /// The address or the prefix cannot be written into a request.
    #[error("the address of the agent, {0:?}, cannot stand in a request")]
    Address(String),
}

/// Why a question has no answer. Nothing here shows a token, or what an answer held.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no connection to the agent: refused, no such socket, or it did not prove who it is.
    #[error("{api} at {agent} cannot be reached: {reason}")]
    Unreachable {
        /// Whose agent.
        api: Api,
        /// The agent's address.
        agent: String,
        /// Why, and what may help.
        reason: String,
    },
    /// The connection ended, or said what is no HTTP, before the answer was whole.
    #[error("{api} at {agent} broke off its answer to {path}: {reason}")]
    BrokenOff {
        /// Whose agent.
        api: Api,
        /// The agent's address.
        agent: String,
        /// What was asked.
        path: String,
        /// How it ended.
        reason: String,
    },
    /// There is no token to ask with: none is had by login.
    #[error("consul is not asked without the ACL token that a login was to give: {reason}")]
    Login {
        /// Why the login failed.
        reason: String,
    },
    /// It took too long.
    #[error("{api} at {agent} did not answer {path} within {after:?}")]
    Timeout {
        /// Whose agent.
        api: Api,
        /// The agent's address.
        agent: String,
        /// What was asked.
        path: String,
        /// The time that it had.
        after: Duration,
    },
    /// An answer, and not 200. Redirects are among them: a token does not follow one.
    #[error("{api} answered {path} with the status {code}: {text}")]
    Status {
        /// Whose agent.
        api: Api,
        /// What was asked.
        path: String,
        /// The status of HTTP (RFC 9110 §15).
        code: u16,
        /// The beginning of what came with it.
        text: String,
    },
    /// The answer is larger than any that makes sense.
    #[error("{api}'s answer to {path} is larger than {most} bytes")]
    TooLarge {
        /// Whose agent.
        api: Api,
        /// What was asked.
        path: String,
        /// How much is taken.
        most: usize,
    },
    /// The answer is of a server that has been cut off for long: what it says may be that old.
    #[error(
        "the answer is {by:?} old or older: the server has not heard of its leader for so long (at most {most:?} is taken)"
    )]
    Stale {
        /// How old.
        by: Duration,
        /// How old an answer may be.
        most: Duration,
    },
    /// The answer is not the JSON that was expected.
    #[error("{api}'s answer to {path} is not what was expected: {reason}")]
    Unexpected {
        /// Whose agent.
        api: Api,
        /// What was asked.
        path: String,
        /// What is wrong with it, and where.
        reason: String,
    },
}

impl Error {
    /// Whether the agent does not let this token see or do what was asked, or knows no such token.
    pub fn is_denied(&self) -> bool {
        // Servers of Consul before 1.7 say it with the status 500.
        matches!(self, Self::Status { code, text, .. } if *code == 403 || text.contains("ACL not found"))
    }

    /// Whether the agent knows no such token.
    pub(super) fn is_of_unknown_token(&self) -> bool {
        matches!(self, Self::Status { text, .. } if text.contains("ACL not found"))
    }

    /// Whether the agent takes this question amiss, and would answer others: it cannot be asked for a service that is called
    /// `..`, say, though it lists one.
    pub fn is_unaskable(&self) -> bool {
        matches!(self, Self::Status { code, .. } if matches!(code, 300..400 | 400 | 404 | 405 | 414))
    }
}

/// Text from outside in one line, cut where it is long.
pub(super) fn shown(text: impl AsRef<[u8]>) -> String {
    printable(text, SHOWN)
}

/// The cause at the bottom of an error: what lies above it says only that there is one.
pub(super) fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut bottom = error;
    while let Some(source) = bottom.source() {
        bottom = source;
    }
    shown(bottom.to_string())
}

/// Why there is no connection, and what may help.
pub(super) fn refusal(error: &std::io::Error) -> String {
    use rustls::{CertificateError, Error};
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>());
    let advice = match tls {
        Some(Error::InvalidMessage(_)) => "; if it speaks plain HTTP, write http:// in its address",
        // Another CA of the same name, as after it was made anew, is a bad signature.
        Some(Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) => "; name the CA that its certificate comes from",
        Some(Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })) => {
            "; say by `server_name` which name it proves"
        }
        _ => "",
    };
    format!("{}{advice}", shown(error.to_string()))
}
