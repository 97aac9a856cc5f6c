//! Our own addresses: where clients connect, where operators look, and what would dial back into either.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::decode::Typed;
use super::diagnostic::Findings;
use super::file::{self, File};
use super::upstreams::Own;
use super::value::{Wrong, choice, listen_address, read};
use super::{EndpointAddress, ListenAddress, Listener, Token, UnknownName, files};

/// Linux: `sun_path` has 108 bytes, one of them the NUL at the end.
pub(super) const LONGEST_SOCKET_PATH: usize = 107;

/// The listeners, in the order of the file. `[::]:8443` if none is written: the port clients of the gateway are told of;
/// none where there are tunnels, and nobody could get anything there.
pub(super) fn listeners(file: &File, findings: &mut Findings<'_>) -> Vec<Listener> {
    let unknown_name = file.unknown_name.as_ref().and_then(|typed| {
        let choices = [
            ("alert", UnknownName::Alert),
            ("close", UnknownName::Close),
            ("reset", UnknownName::Reset),
        ];
        read(typed, findings, |text| choice(text, &choices))
    });
    let unknown_name = unknown_name.unwrap_or_default();
    let Some(listen) = &file.listen else {
        if file.is_for_tunnels_alone() {
            return Vec::new();
        }
        let address = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 8443));
        return vec![Listener {
            address,
            unknown_name,
            accept_proxy: None,
        }];
    };
    if listen.is_empty {
        findings.missing(
            listen.span.clone(),
            "`listen` is an empty list: nobody could connect",
            "leave it out for [\"[::]:8443\"], or write an address",
        );
    }
    let mut listeners: Vec<Listener> = Vec::new();
    for entry in &listen.value {
        let accept_proxy = entry.proxy_protocol.as_ref();
        let accept_proxy = accept_proxy.and_then(|accept| accept.mean(findings));
        let typed = &entry.address;
        let Some(address) = read(typed, findings, |text| listen_address(text)) else {
            continue;
        };
        if let Some(other) = listeners
            .iter()
            .find(|other| overlap(other.address, address))
        {
            findings.error(
                typed.span.clone(),
                format!(
                    "`{}`: {address} is already taken by {}",
                    typed.key, other.address
                ),
                "remove one of the two; [::] stands for every address of this machine, IPv4 too",
            );
        }
        listeners.push(Listener {
            address,
            unknown_name,
            accept_proxy: accept_proxy.map(Arc::new),
        });
    }
    listeners
}

/// The admin address. 127.0.0.1:9443 if none is written: an operator finds it without a line of
/// configuration, and nobody outside the machine does. None where there are tunnels alone, of which a machine may have many.
pub(super) fn admin(
    file: &File,
    listeners: &[Listener],
    folder: &Path,
    findings: &mut Findings<'_>,
) -> Option<ListenAddress> {
    let is_insecure = file
        .insecure_admin
        .as_ref()
        .is_some_and(|typed| typed.value);
    let admin = match &file.admin {
        None if file.is_for_tunnels_alone() => None,
        None => Some(ListenAddress::Tcp(SocketAddr::from((
            Ipv4Addr::LOCALHOST,
            9443,
        )))),
        Some(file::Admin::Off) => None,
        Some(file::Admin::Address(typed)) => {
            let admin = address(typed, "unix:/run/portcullis/admin.sock", folder, findings)?;
            if let ListenAddress::Tcp(address) = admin {
                check_exposure(address, is_insecure, typed, findings);
            }
            Some(admin)
        }
    };
    if let Some(ListenAddress::Tcp(address)) = admin
        && let Some(other) = listeners
            .iter()
            .find(|other| overlap(other.address, address))
    {
        let place = match (&file.admin, &file.listen) {
            (Some(file::Admin::Address(typed)), _) => typed.span.clone(),
            (_, Some(listen)) => listen.span.clone(),
            _ => 0..0,
        };
        findings.missing(
            place,
            format!(
                "`admin`: {address} is already taken by `listen` ({})",
                other.address
            ),
            "give `admin` a port of its own, such as \"127.0.0.1:9444\"",
        );
    }
    let is_open = matches!(admin, Some(ListenAddress::Tcp(address)) if !address.ip().to_canonical().is_loopback());
    match &file.insecure_admin {
        Some(typed) if typed.value && !is_open => findings.warning(
            Some(typed.span.clone()),
            "`insecure_admin` has no effect: `admin` cannot be reached from outside this machine",
            "remove it, so that a later change of `admin` is refused",
        ),
        _ => {}
    }
    admin
}

/// The file of the token for actions; looked at here, and read again each time that somebody shows one.
pub(super) fn admin_token(
    file: &File,
    folder: &Path,
    findings: &mut Findings<'_>,
) -> Option<Token> {
    let typed = file.admin_token_file.as_ref()?;
    let token = Token::File(files::place(typed, folder, findings)?);
    if let Err(error) = token.read() {
        findings.error(
            typed.span.clone(),
            format!("`{}`: {error}", typed.key),
            "write the token into that file: `openssl rand -hex 32` makes one",
        );
    }
    Some(token)
}

impl ListenAddress {
    /// Whether it is where the other one is, which may be another path to the same UNIX socket.
    pub(crate) fn is_at(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(one), Self::Unix(other)) => {
                one == other || place(one).is_some_and(|one| place(other) == Some(one))
            }
            (one, other) => one == other,
        }
    }
}

/// The path without links; that of the socket itself is not followed.
fn place(socket: &Path) -> Option<PathBuf> {
    let socket = std::path::absolute(socket).ok()?;
    let directory = socket.parent()?.canonicalize().ok()?;
    Some(directory.join(socket.file_name()?))
}

/// A TCP address, or a UNIX socket as `unix:/path`. `example` is such a socket.
pub(super) fn address(
    typed: &Typed<String>,
    example: &str,
    folder: &Path,
    findings: &mut Findings<'_>,
) -> Option<ListenAddress> {
    let Some(socket) = typed.value.strip_prefix("unix:") else {
        return read(typed, findings, |text| of_this_machine(text, example))
            .map(ListenAddress::Tcp);
    };
    if socket.starts_with('@') {
        read::<(), _>(typed, findings, |text| {
            Err(Wrong::new(
                format!(
                    "{text:?} is a socket of the abstract namespace: it has no file, so that no mode keeps anybody out"
                ),
                format!("write the path of a file, such as \"{example}\""),
            ))
        });
        return None;
    }
    let socket = Typed {
        value: socket.to_owned(),
        ..typed.clone()
    };
    let path = files::place(&socket, folder, findings)?;
    read(typed, findings, |_| {
        let length = path.as_os_str().len();
        if length > LONGEST_SOCKET_PATH {
            return Err(Wrong::new(
                format!(
                    "the socket's path has {length} bytes, more than the {LONGEST_SOCKET_PATH} that the system allows"
                ),
                format!("choose a shorter one, such as \"{example}\""),
            ));
        }
        match occupant(&path) {
            Some(what) => Err(Wrong::new(
                format!(
                    "\"{}\" is {what}, and no socket",
                    typed.value.escape_debug()
                ),
                format!("write a path where nothing else is, such as \"{example}\""),
            )),
            None => Ok(ListenAddress::Unix(path)),
        }
    })
}

/// What is there that is never removed for a socket.
fn occupant(path: &Path) -> Option<&'static str> {
    match path.symlink_metadata().ok()?.file_type() {
        kind if kind.is_dir() => Some("a folder"),
        kind if kind.is_symlink() => Some("a link"),
        kind if kind.is_file() => Some("a file"),
        _ => None,
    }
}

/// An address over TCP, for programs of this machine first: no help leads beyond it.
fn of_this_machine(text: &str, example: &str) -> Result<SocketAddr, Wrong> {
    listen_address(text).map_err(|wrong| {
        if text.parse::<IpAddr>().is_ok() || text.starts_with("localhost:") {
            return wrong;
        }
        let help = match text.parse::<u16>() {
            Ok(port) => format!("write \"127.0.0.1:{port}\""),
            Err(_) => format!(
                "write an IP address and a port, such as \"127.0.0.1:8899\", or a socket, such as \"{example}\""
            ),
        };
        Wrong::new(format!("{text:?} is not an address to listen on"), help)
    })
}

fn check_exposure(
    address: SocketAddr,
    is_insecure: bool,
    typed: &Typed<String>,
    findings: &mut Findings<'_>,
) {
    if address.ip().to_canonical().is_loopback() {
        return;
    }
    if is_insecure {
        findings.warning(
            Some(typed.span.clone()),
            format!("`admin`: {address} is open to the network, without encryption or password"),
            format!(
                "use \"127.0.0.1:{}\" or \"unix:…\" if nothing outside needs it",
                address.port()
            ),
        );
    } else {
        findings.error(
            typed.span.clone(),
            format!("`admin`: {address} is not a loopback address: whoever reaches it could see every route and address"),
            format!(
                "use \"127.0.0.1:{}\" or \"unix:/run/portcullis/admin.sock\"; or write `insecure_admin = true` if the network is trusted",
                address.port()
            ),
        );
    }
}

/// Refuses endpoints that are ourselves: a connection there would come back until every socket is used up,
/// or would hand the admin interface to whoever may use the route.
pub(super) fn refuse_loop(
    endpoint: &EndpointAddress,
    own: Own<'_>,
    key: &str,
    place: Range<usize>,
    findings: &mut Findings<'_>,
) {
    let dialled: Vec<SocketAddr> = match endpoint {
        EndpointAddress::Ip(address) => vec![*address],
        EndpointAddress::Dns(name, port) if name.as_str() == "localhost" => vec![
            SocketAddr::from((Ipv4Addr::LOCALHOST, *port)),
            SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, *port)),
        ],
        EndpointAddress::Dns(..) => return,
    };
    let reaches = |ours: SocketAddr| dialled.iter().any(|address| reaches(*address, ours));
    if let Some(listener) = (own.listeners.iter()).find(|listener| reaches(listener.address)) {
        findings.error(
            place,
            format!(
                "`{key}` would loop: it dials this gateway's own `listen` address {}",
                listener.address
            ),
            "write the address of the service itself",
        );
    } else if let Some(tunnel) = own.tunnels.iter().find(|tunnel| reaches(**tunnel)) {
        findings.error(
            place,
            format!("`{key}` may loop: it dials {tunnel}, where a tunnel of this gateway listens"),
            "write the address that the tunnel leads to, with the `tls` of the tunnel",
        );
    } else if let Some(ListenAddress::Tcp(address)) = own.admin
        && reaches(*address)
    {
        findings.error(
            place,
            format!("`{key}` would expose the admin interface: it dials `admin` ({address})"),
            "write the address of another service",
        );
    }
}

/// Whether two sockets could not both be bound. `[::]` takes IPv4 connections too.
pub(crate) fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let (one, other) = (a.ip().to_canonical(), b.ip().to_canonical());
    let takes_all =
        |all: IpAddr, ip: IpAddr| all.is_unspecified() && (all.is_ipv6() || ip.is_ipv4());
    a.port() == b.port()
        && a.port() != 0
        && (one == other || takes_all(one, other) || takes_all(other, one))
}

/// Whether dialling an address surely ends at one of ours. Other addresses of this machine are not
/// known here: the configuration may be checked on another.
pub(crate) fn reaches(dialled: SocketAddr, ours: SocketAddr) -> bool {
    let ip = dialled.ip().to_canonical();
    // Dialling 0.0.0.0 or [::] is dialling the loopback address (Linux).
    let ip = match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let own = ours.ip().to_canonical();
    let same =
        own == ip || (own.is_unspecified() && ip.is_loopback() && (own.is_ipv6() || ip.is_ipv4()));
    same && dialled.port() == ours.port() && ours.port() != 0
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_unspecified_address_overlaps_with_each_of_its_family() {
        let overlap = |a, b| overlap(address(a), address(b)) && overlap(address(b), address(a));
        assert!(overlap("[::]:1", "0.0.0.0:1"));
        assert!(overlap("[::]:1", "127.0.0.1:1"));
        assert!(overlap("0.0.0.0:1", "127.0.0.1:1"));
        assert!(overlap("[::ffff:127.0.0.1]:1", "127.0.0.1:1"));
        assert!(!overlap("0.0.0.0:1", "[::1]:1"));
        assert!(!overlap("127.0.0.1:1", "127.0.0.2:1"));
        assert!(!overlap("[::]:1", "[::]:2"));
        assert!(!overlap("127.0.0.1:0", "127.0.0.1:0"));
    }

    #[test]
    fn dialling_a_loopback_address_reaches_a_listener_on_every_address() {
        let reaches = |a, b| reaches(address(a), address(b));
        assert!(reaches("127.0.0.1:1", "[::]:1"));
        assert!(reaches("127.8.8.8:1", "0.0.0.0:1"));
        assert!(reaches("[::1]:1", "[::]:1"));
        assert!(reaches("0.0.0.0:1", "127.0.0.1:1"));
        assert!(reaches("192.0.2.1:1", "192.0.2.1:1"));
        assert!(!reaches("[::1]:1", "0.0.0.0:1"));
        assert!(!reaches("127.0.0.1:1", "127.0.0.2:1"));
        assert!(!reaches("127.0.0.1:1", "[::]:2"));
        assert!(!reaches("192.0.2.1:1", "[::]:1"));
    }
}
