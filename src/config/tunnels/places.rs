//! Where tunnels listen, and who may connect there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::{SOCKET, Section};
use crate::config::decode::{List, Typed};
use crate::config::diagnostic::Findings;
use crate::config::file::File;
use crate::config::listen::{self, overlap};
use crate::config::value::{self, Wrong, read};
use crate::config::{ListenAddress, Listener};

/// Where each tunnel listens, by name.
pub(in crate::config) fn listen(
    file: &File,
    listeners: &[Listener],
    admin: Option<&ListenAddress>,
    folder: &Path,
    findings: &mut Findings<'_>,
) -> BTreeMap<String, Vec<ListenAddress>> {
    let ours = listeners.iter().map(|listener| listener.address.into());
    let ours = ours.map(|address| (address, "`listen`".to_owned()));
    let admin = admin.map(|admin| (admin.clone(), "`admin`".to_owned()));
    let mut taken: Vec<(ListenAddress, String)> = ours.chain(admin).collect();
    let mut all = BTreeMap::new();
    for (name, section) in &file.tunnels {
        read(name, findings, |text| value::name(text));
        let mut found = Vec::new();
        let Some(list) = &section.listen else {
            continue;
        };
        if list.is_empty {
            findings.missing(
                list.span.clone(),
                format!("`{}` is an empty list: nobody could connect", list.key),
                "write an address, such as \"127.0.0.1:8899\"",
            );
        }
        for typed in &list.value {
            let Some(address) = listen::address(typed, SOCKET, folder, findings) else {
                continue;
            };
            if let Some((other, by)) = taken.iter().find(|(other, _)| collide(other, &address)) {
                findings.error(
                    typed.span.clone(),
                    format!(
                        "`{}`: {address} is already taken by {by} ({other})",
                        typed.key
                    ),
                    "give each a port, or a path, of its own",
                );
            }
            taken.push((address.clone(), format!("`{}`", typed.key)));
            found.push(address);
        }
        check_exposure(section, list, &found, findings);
        all.insert(name.value.clone(), found);
    }
    all
}

/// The TCP addresses among them.
pub(in crate::config) fn tcp(all: &BTreeMap<String, Vec<ListenAddress>>) -> Vec<SocketAddr> {
    let all = all.values().flatten();
    all.filter_map(ListenAddress::tcp).collect()
}

fn collide(one: &ListenAddress, other: &ListenAddress) -> bool {
    match (one, other) {
        (ListenAddress::Tcp(one), ListenAddress::Tcp(other)) => overlap(*one, *other),
        (one, other) => one.is_at(other),
    }
}

fn check_exposure(
    section: &Section,
    list: &List<Typed<String>>,
    found: &[ListenAddress],
    findings: &mut Findings<'_>,
) {
    let switch = section.insecure_listen.as_ref();
    let is_insecure = switch.is_some_and(|switch| switch.value);
    let tcp = found.iter().filter_map(ListenAddress::tcp);
    let open: Vec<SocketAddr> = tcp
        .filter(|address| !address.ip().to_canonical().is_loopback())
        .collect();
    for address in &open {
        let port = address.port();
        match is_insecure {
            true => findings.warning(
                Some(list.span.clone()),
                format!(
                    "`{}`: {address} takes bytes of the network in the clear, from whoever reaches it",
                    list.key
                ),
                format!("use \"127.0.0.1:{port}\" or \"unix:…\" if nothing outside needs it"),
            ),
            false => findings.error(
                list.span.clone(),
                format!(
                    "`{}`: {address} is not a loopback address: whoever reaches it could speak through the tunnel, in the clear",
                    list.key
                ),
                format!(
                    "use \"127.0.0.1:{port}\" or \"{SOCKET}\"; or write `insecure_listen = true` if the network is trusted"
                ),
            ),
        }
    }
    if let Some(switch) = switch.filter(|switch| switch.value && open.is_empty()) {
        findings.warning(
            Some(switch.span.clone()),
            format!(
                "`{}` has no effect: the tunnel cannot be reached from outside this machine",
                switch.key
            ),
            "remove it, so that a later change of `listen` is refused",
        );
    }
}

/// Who may connect to the UNIX sockets of a tunnel: their mode, and the users.
pub(super) fn who_may(
    section: &Section,
    sockets: &[ListenAddress],
    findings: &mut Findings<'_>,
) -> (Option<u32>, Option<Arc<[u32]>>) {
    let is_unix = |address: &ListenAddress| matches!(address, ListenAddress::Unix(_));
    let mode = section.mode.as_ref().map(|typed| (&typed.key, &typed.span));
    let uids = section.allow_uids.as_ref();
    let uids = uids.map(|list| (&list.key, &list.span));
    if !sockets.is_empty() && !sockets.iter().any(is_unix) {
        for (key, span) in mode.into_iter().chain(uids) {
            findings.error(
                span.clone(),
                format!("`{key}` without a UNIX socket: over TCP nobody tells which user connects"),
                format!("listen on a socket, as in `listen = \"{SOCKET}\"`, or remove it"),
            );
        }
    } else if let Some((key, span)) = uids
        && let Some(open) = sockets.iter().find(|address| !is_unix(address))
    {
        findings.error(
            span.clone(),
            format!("`{key}` beside {open}: over TCP nobody tells which user connects, and whoever is not listed would come in there"),
            "listen on UNIX sockets alone, or give the address a tunnel of its own, where every user of this machine may connect",
        );
    }
    let mode = section.mode.as_ref();
    let mode = mode.and_then(|typed| read(typed, findings, |text| octal(text)));
    let uids = section.allow_uids.as_ref().map(|list| {
        if list.is_empty {
            findings.missing(
                list.span.clone(),
                format!("`{}` is an empty list: nobody could connect", list.key),
                "write user IDs, as `id -u NAME` tells them, or leave it out for whoever `mode` lets",
            );
        }
        let uids = list.value.iter();
        uids.filter_map(|typed| {
            read(typed, findings, |uid| value::number(*uid, 0..=u32::MAX - 1))
        })
        .collect()
    });
    if let Some(typed) = section.mode.as_ref()
        && mode.is_some_and(|mode| mode & 0o007 != 0)
        && uids.is_none()
    {
        findings.warning(
            Some(typed.span.clone()),
            format!(
                "`{}`: every user of this machine may speak through the tunnel",
                typed.key
            ),
            "take the rights of others away, as in \"0660\", or name those who may in `allow_uids`",
        );
    }
    (mode, uids)
}

/// The mode of a file in octal digits. Whoever may connect must be able to write.
fn octal(text: &str) -> Result<u32, Wrong> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let is_octal =
        (3..=4).contains(&digits.len()) && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
    let mode = u32::from_str_radix(digits, 8).ok().filter(|_| is_octal);
    match mode.filter(|mode| *mode <= 0o777) {
        Some(mode) if mode & 0o200 != 0 => Ok(mode),
        Some(_) => Err(Wrong::new(
            format!("{text:?} keeps its own user out: to connect is to write"),
            "write \"0600\", \"0660\" or \"0666\"",
        )),
        None => Err(Wrong::new(
            format!("{text:?} is no mode of a socket"),
            "write it in octal digits, such as \"0600\" or \"0660\"",
        )),
    }
}
