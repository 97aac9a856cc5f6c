//! The section `[consul]`: which agent is asked, as whom, and what of its catalog is routed.

mod catalog;
mod login;
mod meaning;
mod places;
mod section;

pub use catalog::{AddressTag, Catalog, CheckState, Consistency};
pub use login::Login;
#[cfg(test)]
pub(super) use meaning::CONSUL;
pub(super) use meaning::{consul, service_name};
pub use places::Place;
pub(super) use places::locate;
pub(super) use section::Section;

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::Tagging;
use crate::tls::key::KeyFile;

/// How Consul is asked, and what is made of its answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consul {
    /// The agent.
    pub address: ConsulAddress,
    /// Whether it is spoken to over TLS.
    pub https: bool,
    /// What is put before every path, if the API stands behind another server: empty, or `/prefix`.
    pub prefix: String,
    /// The ACL token, if one is needed.
    pub token: Option<Token>,
    /// What is exchanged for a token, if that is how one is had.
    pub login: Option<Login>,
    /// User and password for a server in front of the API (HTTP basic authentication).
    pub basic_auth: Option<(String, Secret)>,
    /// CAs of the agent's certificate, PEM; empty means the system's.
    pub roots: Vec<PathBuf>,
    /// The chain and key, PEM, that is shown to an agent which asks for one.
    pub certificate: Option<(PathBuf, KeyFile)>,
    /// The name that the agent proves, if it is not the one in its address.
    pub server_name: Option<String>,
    /// The catalogs that are read: the first one first, and at least one.
    pub places: Vec<Place>,
    /// The service whose certificate the gateway shows in the mesh; `None` keeps it out of the mesh.
    pub mesh_identity: Option<String>,
    /// What tags may ask for.
    pub tagging: Tagging,
    /// Which of the catalog's instances are dialled and how, and how it is read.
    pub catalog: Catalog,
}

/// Where an agent listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsulAddress {
    /// A host name or IP address, and a port.
    Tcp(String, u16),
    /// A UNIX socket.
    Unix(PathBuf),
}

/// As it is written in messages.
impl fmt::Display for ConsulAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// An ACL token of Consul.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// The token.
    Value(Secret),
    /// The file that holds it; read again when Consul refuses it, or it changes.
    File(PathBuf),
}

impl Token {
    /// The token itself: as it is written, or as its file holds it, without white space around it.
    ///
    /// It is made of visible ASCII, which a header of HTTP can carry.
    pub fn read(&self) -> Result<Secret, TokenError> {
        let wrong = |reason: &str| TokenError {
            path: match self {
                Self::Value(_) => None,
                Self::File(path) => Some(path.clone()),
            },
            reason: reason.to_owned(),
        };
        let secret = match self {
            Self::Value(secret) => secret.clone(),
            Self::File(path) => {
                let text = read_bounded(path, MOST_TOKEN).map_err(|reason| wrong(&reason))?;
                Secret(text.trim().to_owned())
            }
        };
        match secret.0.as_str() {
            "" => Err(wrong("holds no token")),
            text if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(secret),
            _ => Err(wrong(
                "holds what is no part of a token: only visible ASCII characters are",
            )),
        }
    }
}

/// The largest token, in bytes. It is a UUID; more than this is another file.
const MOST_TOKEN: u64 = 4096;

/// The text of a file that is small: of at most so many bytes.
fn read_bounded(path: &Path, most: u64) -> Result<String, String> {
    // Asked before opening: opening a FIFO would wait for its writer.
    let metadata = std::fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?;
    if !metadata.is_file() {
        return Err("is no regular file".to_owned());
    }
    let file = std::fs::File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let mut text = String::new();
    match file.take(most + 1).read_to_string(&mut text) {
        Err(error) => Err(format!("cannot be read: {error}")),
        Ok(length) if length as u64 > most => Err(format!("is larger than {most} bytes")),
        Ok(_) => Ok(text),
    }
}

/// Why there is no token. Says nothing of what was found in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenError {
    /// The file that was to hold it.
    pub path: Option<PathBuf>,
    /// What is wrong, to be said after the name of what holds it.
    pub reason: String,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{}: {}", path.display(), self.reason),
            None => write!(f, "the token {}", self.reason),
        }
    }
}

impl std::error::Error for TokenError {}

/// A text that no log and no message shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a secret.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret, to be sent and not shown.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MASKED")
    }
}
