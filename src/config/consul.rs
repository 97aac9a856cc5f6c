//! The section `[consul]`: which agent is asked, as whom, and what of its catalog is routed.

use std::fmt;
use std::path::PathBuf;

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
    /// User and password for a server in front of the API (HTTP basic authentication).
    pub basic_auth: Option<(String, Secret)>,
    /// CAs of the agent's certificate, PEM; empty means the system's.
    pub roots: Vec<PathBuf>,
    /// The chain and key, PEM, that is shown to an agent which asks for one.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The name that the agent proves, if it is not the one in its address.
    pub server_name: Option<String>,
    /// The service whose certificate the gateway shows in the mesh; `None` keeps it out of the mesh.
    pub mesh_identity: Option<String>,
    /// The entry points of tags that are ours: a router that names others only is somebody else's.
    pub entry_points: Vec<String>,
    /// Whether a tag may make a route for clients that name no host.
    pub allow_default_from_tags: bool,
}

/// Where an agent listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsulAddress {
    /// A host name or IP address, and a port.
    Tcp(String, u16),
    /// A UNIX socket.
    Unix(PathBuf),
}

/// An ACL token of Consul.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// The token.
    Value(Secret),
    /// The file that holds it; read again when Consul refuses it, or it changes.
    File(PathBuf),
}

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
