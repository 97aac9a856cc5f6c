//! Whether a gateway's ports are free, and who holds those that are not.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};

use super::holder::{self, Holder, Holders};
use crate::config::{Config, ListenAddress};
use crate::status::step::Step;

/// What to do about a stranger.
const ELSEWHERE: &str = "stop it, or have one of the two listen elsewhere";

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
        io::ErrorKind::AddrInUse => match holder::of_port(address) {
            Some(holder) if holder.is_ours => Step::ok(
                name,
                format!("{shown} is held by a portcullis that runs: {holder}"),
            ),
            Some(holder) => Step::fail(name, format!("{shown} is held by {holder}"), ELSEWHERE),
            None => hidden_holder(&shown, "ss -ltnp"),
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
    // As a start does it: nothing is listened on through a link. That what is there is a socket, the configuration has seen.
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => nothing(&shown, path),
        Err(error) => hidden(&shown, &error),
        Ok(_) => match is_held(path) {
            Ok(true) => held(&shown, &holder::of_path(path)),
            Ok(false) => Step::ok(name, format!("{shown} is left from before, and taken over")),
            Err(error) => hidden(&shown, &error),
        },
    }
}

/// Where no file is.
fn nothing(shown: &str, path: &Path) -> Step {
    let name = "port";
    let folder = path.parent();
    let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
    if !folder.is_none_or(Path::is_dir) {
        return Step::fail(
            name,
            format!("{shown}: its folder is not there"),
            "make it for the user that serves (RuntimeDirectory= in systemd does)",
        );
    }
    let mut seen = holder::of_path(path).seen.into_iter();
    match seen.find(|holder| holder.is_ours) {
        None => Step::ok(name, format!("{shown} is free")),
        Some(holder) => Step::fail(
            name,
            format!(
                "{shown}: its file is gone, and nobody can come to {holder}, which listens there"
            ),
            "reload it, or start it again; and see who has removed the file",
        ),
    }
}

fn hidden(shown: &str, error: &io::Error) -> Step {
    Step::warn(
        "port",
        format!("{shown} cannot be looked at: {error}"),
        "ask as the user that serves",
    )
}

/// Whether somebody has the socket of a file. Who listens for streams hears nothing of a socket for datagrams: the kernel tells that one
/// that the types differ, or that nobody is there (unix_find_bsd in af_unix.c).
fn is_held(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::DGRAM.nonblocking(), None)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::PROTOTYPE.raw_os_error()) => {
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        Err(error) => Err(error),
    }
}

/// By whom the socket of a file is held.
/// A portcullis that serves is hidden too, from all but root: who could look into it would find its keys.
fn hidden_holder(shown: &str, command: &str) -> Step {
    let hint = format!(
        "unless that is the portcullis that runs, listen elsewhere; root can tell: {command}"
    );
    Step::warn(
        "port",
        format!("{shown} is held by {}", holder::HIDDEN),
        hint,
    )
}

fn held(shown: &str, holders: &Holders) -> Step {
    let name = "port";
    let hidden = holders.is_one_hidden.then_some(holder::HIDDEN.to_owned());
    let names = holders.seen.iter().map(Holder::to_string);
    let names: Vec<_> = names.chain(hidden).collect();
    let ours = holders.seen.iter().filter(|holder| holder.is_ours).count();
    match names.as_slice() {
        _ if holders.seen.is_empty() => hidden_holder(shown, "ss -xlp"),
        _ if ours == names.len() => Step::ok(
            name,
            format!(
                "{shown} is held by a portcullis that runs: {}",
                names.join(" or ")
            ),
        ),
        [only] => Step::fail(name, format!("{shown} is held by {only}"), ELSEWHERE),
        _ => Step::fail(
            name,
            format!(
                "{shown} is held by {}: the file is one's alone, and cannot be told whose",
                names.join(" or ")
            ),
            "one has taken the path from the other: stop one, and start the other again",
        ),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_port_that_is_held_cannot_be_bound() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(bind(address).is_err());
        drop(listener);
        assert!(bind(address).is_ok());
    }

    #[test]
    fn who_listens_at_a_path_hears_nothing_of_a_look() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        assert!(is_held(&path).unwrap());
        listener.set_nonblocking(true).unwrap();
        let came = listener.accept().unwrap_err();
        assert_eq!(came.kind(), io::ErrorKind::WouldBlock);
        drop(listener);
        assert!(!is_held(&path).unwrap());
    }

    #[test]
    fn whoever_may_not_be_looked_into_is_not_called_a_stranger() {
        let hidden = Holders {
            seen: Vec::new(),
            is_one_hidden: true,
        };
        let step = held("tunnels.t unix:/run/t.sock", &hidden);
        assert_eq!(step.state, crate::status::step::Finding::Warn);
    }
}
