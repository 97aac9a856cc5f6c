//! Who listens at an address or a path, as the kernel tells it (proc(5)): nobody is connected to.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use crate::log::printable;

/// The state of a socket that listens, in `/proc/net/tcp` (tcp_states.h).
const LISTENS: &str = "0A";

/// The flag of a UNIX socket that listens, in `/proc/net/unix` (`__SO_ACCEPTCON` in net.h).
const ACCEPTS: u32 = 1 << 16;

/// Who cannot be seen.
pub(super) const HIDDEN: &str = "a process that this user may not see";

/// A process that listens.
pub(super) struct Holder {
    program: String,
    pid: u32,
    pub(super) is_ours: bool,
}

/// Those who listen at one path.
pub(super) struct Holders {
    /// By their numbers.
    pub(super) seen: Vec<Holder>,
    /// Whether there is one whose process cannot be seen.
    pub(super) is_one_hidden: bool,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.program, self.pid)
    }
}

/// Who listens at an address, or at all of its family; none if that cannot be seen.
pub(super) fn of_port(address: SocketAddr) -> Option<Holder> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let tables = tables.map(|table| fs::read_to_string(table).unwrap_or_default());
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    let inodes: Vec<_> = lines.filter_map(|line| tcp(line, address)).collect();
    process(&inodes)
}

/// Who listens at the path of a UNIX socket. Several do where one has taken the path from another: which of them has the file is not
/// told.
pub(super) fn of_path(path: &Path) -> Holders {
    let table = fs::read("/proc/net/unix").unwrap_or_default();
    let table = String::from_utf8_lossy(&table);
    let named = table.lines().skip(1).filter_map(unix);
    let named = named.filter(|(_, bound)| bound.file_name() == path.file_name());
    let (mut seen, mut is_one_hidden) = (Vec::new(), false);
    for (inode, bound) in named {
        match process(&[inode]) {
            // A name may be relative to where its process is.
            Some(holder) => {
                let from = fs::read_link(format!("/proc/{}/cwd", holder.pid));
                if are_one(&from.unwrap_or_default().join(bound), path) {
                    seen.push(holder);
                }
            }
            None => is_one_hidden |= are_one(bound, path),
        }
    }
    seen.sort_by_key(|holder| holder.pid);
    seen.dedup_by_key(|holder| holder.pid);
    Holders {
        seen,
        is_one_hidden,
    }
}

/// Whether two paths that end in the same name lead to one place, by a link or not.
fn are_one(bound: &Path, path: &Path) -> bool {
    let folder = |path: &Path| fs::canonicalize(path.parent()?).ok();
    bound == path || folder(bound).is_some_and(|at| folder(path) == Some(at))
}

/// The process that has one of these sockets; one of ours, if several have it, as who hands a socket on keeps it.
fn process(inodes: &[&str]) -> Option<Holder> {
    let links: Vec<_> = inodes
        .iter()
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let mut found: Option<Holder> = None;
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
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
            let is_ours = program == env!("CARGO_PKG_NAME");
            if is_ours || found.is_none() {
                found = Some(Holder {
                    is_ours,
                    program: printable(program, 64),
                    pid,
                });
            }
            if is_ours {
                break;
            }
        }
    }
    found
}

/// The inode of the socket in a line of `/proc/net/tcp`, if that listens where this address is in its way.
fn tcp(line: &str, address: SocketAddr) -> Option<&str> {
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

/// The inode of the socket in a line of `/proc/net/unix`, if that listens, and the name that it was bound by.
fn unix(line: &str) -> Option<(&str, &Path)> {
    let mut rest = line;
    let mut next = || {
        let (field, behind) = rest.trim_start().split_once(' ')?;
        rest = behind;
        Some(field)
    };
    let (_number, _count, _protocol) = (next()?, next()?, next()?);
    let flags = u32::from_str_radix(next()?, 16).ok()?;
    let (_type, _state, inode) = (next()?, next()?, next()?);
    (flags & ACCEPTS != 0).then_some((inode, Path::new(rest)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    #[test]
    fn who_listens_is_found_and_who_does_not_is_none() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let found = of_port(address).unwrap();
        assert_eq!(found.pid, std::process::id(), "{found}");
        let any = SocketAddr::from(([0, 0, 0, 0], address.port()));
        assert_eq!(of_port(any).unwrap().pid, std::process::id());
        drop(listener);
        assert!(of_port(address).is_none());
    }

    #[test]
    fn who_listens_at_a_path_is_found_whatever_way_leads_there() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("a b.sock"), folder.path().join("link"));
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        for path in [&path, &link.join("a b.sock")] {
            let found = of_path(path);
            assert!(!found.is_one_hidden);
            let pids: Vec<_> = found.seen.iter().map(|one| one.pid).collect();
            assert_eq!(pids, [std::process::id()], "{path:?}");
        }
        assert!(of_path(&folder.path().join("b.sock")).seen.is_empty());
        drop(listener);
        assert!(of_path(&path).seen.is_empty());
        // One that is bound, and listens to nobody.
        let _bound = UnixDatagram::bind(link.join("d.sock")).unwrap();
        assert!(of_path(&link.join("d.sock")).seen.is_empty());
    }
}
