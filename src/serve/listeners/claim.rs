//! Sockets that the service manager hands over: each must be asked for, and keeps the rights that it came with.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::wanted::wanted;
use crate::config::{Config, ListenAddress, Tunnel};
use crate::lifecycle::Sockets;

/// Whether each socket that was handed over is one of these listeners': the clients of another would wait in vain. Those
/// for which there is none are bound, which is logged.
pub(in crate::serve) fn claim(sockets: &Sockets, config: &Config) -> anyhow::Result<()> {
    let wanted = wanted(config);
    let written = || wanted.iter().map(|wanted| &wanted.address);
    for address in sockets.addresses() {
        anyhow::ensure!(
            written().any(|written| written == address),
            "the service manager has handed over a socket on {address}, which is no address of `listen` ({})",
            written()
                .map(|address| address.to_string())
                .collect::<Vec<_>>()
                .join(", ")
        );
    }
    if sockets.addresses().next().is_some() {
        for address in written().filter(|written| sockets.addresses().all(|one| one != *written)) {
            tracing::warn!(
                %address,
                "the service manager has handed over no socket on this address: the gateway binds it, and a restart \
                 refuses who comes in between"
            );
        }
    }
    Ok(())
}

/// Tells where a socket that was handed over lets in others than its tunnel would: its mode is `SocketMode=` in its unit
/// (systemd.socket(5)), and what made the socket may make it anew.
pub(super) fn tell_modes(sockets: &Sockets, config: &Config) {
    for (name, tunnel) in &config.tunnels {
        for address in &tunnel.listen {
            let ListenAddress::Unix(path) = address else {
                continue;
            };
            let is_handed = sockets.addresses().any(|handed| handed == address);
            if let (true, Ok(found)) = (is_handed, fs::metadata(path)) {
                tell_mode(name, tunnel, address, found.permissions().mode() & 0o777);
            }
        }
    }
}

fn tell_mode(tunnel: &str, settings: &Tunnel, address: &ListenAddress, mode: u32) {
    match settings.mode {
        Some(written) if written != mode => tracing::warn!(
            tunnel,
            %address,
            "`mode` is {written:04o}, and the service manager has made the socket {mode:04o}: it stays so; write \
             `SocketMode={written:04o}` in its socket unit"
        ),
        None if mode & 0o002 != 0 && settings.allow_uids.is_none() => tracing::warn!(
            tunnel,
            %address,
            "the service manager has made the socket {mode:04o}: every user of this machine may speak through the tunnel; \
             write `SocketMode={:04o}` in its socket unit, or name those who may in `allow_uids`",
            Tunnel::MODE
        ),
        _ => {}
    }
}
