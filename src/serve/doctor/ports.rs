//! Whether a gateway's ports are free, and who holds those that are not.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::Path;

use socket2::{Domain, Socket, Type};

use crate::config::{Config, ListenAddress};
use crate::log::printable;
use crate::status::step::Step;

/// The state of a socket that listens, in `/proc/net/tcp` (tcp_states.h).
const LISTENS: &str = "0A";

/// Where public CAs come to.
const HTTPS: u16 = 443;

/// Looks at every address that a gateway would listen on. Each is bound for a moment, and none is listened on: nobody who comes
/// meanwhile is lost.
pub(super) fn look(config: &Config, tell: &mut dyn FnMut(Step)) {
    let listeners = config.listeners.iter();
    let listeners = listeners.map(|listener| ("listen".to_owned(), listener.address.into()));
    let tunnels = config.tunnels.iter().flat_map(|(name, tunnel)| {
        let addresses = tunnel.listen.iter().cloned();
        addresses.map(move |address| (format!("tunnels.{name}"), address))
    });
    let admin = config.admin.iter().cloned();
    let admin = admin.map(|address| ("admin".to_owned(), address));
    for (key, address) in listeners.chain(tunnels).chain(admin) {
        tell(match &address {
            ListenAddress::Tcp(address) => port(&key, *address),
            ListenAddress::Unix(path) => socket(&key, path),
        });
    }
    if let Some(note) = challenge(config) {
        tell(note);
    }
}

/// What to know where no listener is at the port that public CAs come to.
///
/// They prove a name by tls-alpn-01 at port 443 alone (RFC 8737 §3); whether 443 of another machine leads here cannot be told.
fn challenge(config: &Config) -> Option<Step> {
    let mut ports = config
        .listeners
        .iter()
        .map(|listener| listener.address.port());
    let has_none = !config.listeners.is_empty() && ports.all(|port| port != HTTPS);
    has_none.then(|| {
        Step::unknown(
            "port",
            "no listener is at 443: where an upstream behind `passthrough` gets certificates of a public CA by tls-alpn-01 (ACME), 443 of its names must lead here",
        )
    })
}

fn port(key: &str, address: SocketAddr) -> Step {
    let name = "port";
    let shown = format!("{key} {address}");
    let Err(error) = bind(address) else {
        return Step::ok(name, format!("{shown} is free"));
    };
    match error.kind() {
        io::ErrorKind::AddrInUse => match holder(address) {
            Some(holder) if holder.is_ours => Step::ok(
                name,
                format!("{shown} is held by a portcullis that runs: {holder}"),
            ),
            Some(holder) => Step::fail(
                name,
                format!("{shown} is held by {holder}"),
                "stop it, or have one of the two listen elsewhere",
            ),
            None => Step::fail(
                name,
                format!("{shown} is held by a process that this user may not see"),
                "ask as root: ss -ltnp; or listen elsewhere",
            ),
        },
        io::ErrorKind::PermissionDenied => Step::fail(
            name,
            format!("{shown}: this user may not listen on a port so low"),
            "give the one that serves CAP_NET_BIND_SERVICE (AmbientCapabilities= in systemd), or listen on 8443",
        ),
        io::ErrorKind::AddrNotAvailable => Step::fail(
            name,
            format!("{shown}: this machine does not have that address"),
            "write one that it has (ip address), or 0.0.0.0 or [::] for all",
        ),
        _ => Step::fail(
            name,
            format!("{shown} cannot be bound: {error}"),
            "look at the address, and at what limits this process",
        ),
    }
}

fn bind(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // As a listener has it: connections that have just ended hold nothing.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

fn socket(key: &str, path: &Path) -> Step {
    let name = "port";
    let shown = format!("{key} unix:{}", path.display());
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    match UnixStream::connect(path) {
        Ok(_) => Step::ok(
            name,
            format!("{shown} is held by somebody who listens: a gateway that runs"),
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match folder.is_none_or(Path::is_dir) {
                true => Step::ok(name, format!("{shown} is free")),
                false => Step::fail(
                    name,
                    format!("{shown}: its folder is not there"),
                    "make it for the user that serves (RuntimeDirectory= in systemd does)",
                ),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Step::ok(name, format!("{shown} is left from before, and taken over"))
        }
        Err(error) => Step::warn(
            name,
            format!("{shown} cannot be looked at: {error}"),
            "ask as the user that serves",
        ),
    }
}

/// A process that listens.
struct Holder {
    program: String,
    pid: u32,
    is_ours: bool,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (pid {})", self.program, self.pid)
    }
}

/// Who listens at an address, or at all of its family; none if that cannot be seen (proc(5)).
fn holder(address: SocketAddr) -> Option<Holder> {
    let inodes: Vec<_> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| {
            let lines = table.lines().skip(1);
            let inodes = lines.filter_map(|line| inode(line, address));
            inodes.map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    let links: Vec<_> = inodes
        .iter()
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    for process in processes {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let holds = descriptors.flatten().any(|descriptor| {
            let link = fs::read_link(descriptor.path()).unwrap_or_default();
            links.iter().any(|one| link.as_os_str() == one.as_str())
        });
        if holds {
            let program = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let program = program.trim();
            return Some(Holder {
                is_ours: program == env!("CARGO_PKG_NAME"),
                program: printable(program, 64),
                pid,
            });
        }
    }
    None
}

/// The inode of the socket in a line of `/proc/net/tcp`, if that listens where this address is in its way.
fn inode(line: &str, address: SocketAddr) -> Option<&str> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    let (at, port) = local.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let is_any = at.bytes().all(|digit| digit == b'0') || address.ip().is_unspecified();
    let is_there = match address.ip() {
        IpAddr::V4(v4) => at.ends_with(&written(v4)),
        // An address of IPv6 that another holds at the same port is rare enough.
        IpAddr::V6(_) => at.len() == 32,
    };
    (*state == LISTENS && port == address.port() && (is_any || is_there)).then_some(*inode)
}

/// As the kernel writes it: a number in this machine's order, in hexadecimal.
fn written(address: Ipv4Addr) -> String {
    format!("{:08X}", u32::from_ne_bytes(address.octets()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_is_found_and_who_does_not_is_none() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let found = holder(address).unwrap();
        assert_eq!(found.pid, std::process::id(), "{found}");
        let any = SocketAddr::from(([0, 0, 0, 0], address.port()));
        assert_eq!(holder(any).unwrap().pid, std::process::id());
        assert!(bind(address).is_err());
        drop(listener);
        assert!(holder(address).is_none());
        assert!(bind(address).is_ok());
    }
}
