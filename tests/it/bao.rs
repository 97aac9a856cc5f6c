//! A real OpenBao, in memory, to be the CA of a mesh.

use crate::support::Child;
use crate::{peers, ports};

/// An OpenBao server on a port of its own; dropped, it is killed, and all that it knew is gone.
pub(crate) struct Bao {
    port: u16,
    _child: Child,
}

impl Bao {
    /// The token that may do everything.
    pub(crate) const TOKEN: &str = "root";

    /// Starts it, unsealed; none where there is no OpenBao.
    pub(crate) fn start() -> Option<Self> {
        let program = peers::pinned("bao")?;
        loop {
            let port = ports::free();
            let mut command = peers::unconfigured(&program, "BAO_");
            command
                .args(["server", "-dev", "-dev-no-store-token"])
                .arg(format!("-dev-root-token-id={}", Self::TOKEN))
                .arg(format!("-dev-listen-address=127.0.0.1:{port}"));
            let child = Child::spawn(&command);
            let started = child.wait_for("that it has started", |line| {
                let taken = line.contains("address already in use");
                (taken || line == "==> OpenBao server started!").then_some(!taken)
            });
            if started {
                let _child = child;
                return Some(Self { port, _child });
            }
        }
    }

    /// The URL of its API.
    pub(crate) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}
