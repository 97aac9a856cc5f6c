//! What a service manager is told: ready, reloading, stopping, alive (sd_notify(3)).

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::log::printable;

/// How long one word may take: a manager whose queue stays full for longer reads nothing, and is not waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a stop may take beyond its deadline before the manager kills. It takes 5 s at most: refused clients keep their
/// socket for 1 s, the last state and lines of the access log are written within 2 s, those of this log within 1 s.
const GRACE: Duration = Duration::from_secs(10);

/// The longest status, in bytes.
const STATUS: usize = 512;

/// The service manager, if one has started this process and wants to hear of it; by default there is none.
#[derive(Clone, Debug, Default)]
pub struct Notify {
    socket: Option<SocketAddr>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// The one that the environment names: `NOTIFY_SOCKET`, a path or, behind an `@`, an abstract name; `WATCHDOG_USEC`,
    /// unless `WATCHDOG_PID` says that it is meant for another process. One that cannot be used is logged.
    pub fn from_env() -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let socket = socket.and_then(|name| match address(&name) {
            Ok(address) => Some(address),
            Err(error) => {
                tracing::warn!(?name, %error, "NOTIFY_SOCKET is no socket that can be told anything");
                None
            }
        });
        let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
        let is_meant = env::var_os("WATCHDOG_PID").is_none()
            || number("WATCHDOG_PID") == Some(std::process::id().into());
        let watchdog = number("WATCHDOG_USEC").filter(|usec| is_meant && *usec > 0);
        Self {
            socket,
            watchdog: watchdog.map(Duration::from_micros),
        }
    }

    /// The process serves, or does again.
    pub async fn ready(&self, status: &str) {
        let status = printable(status, STATUS);
        self.tell(&format!("READY=1\nSTATUS={status}")).await;
    }

    /// The configuration is read again, until [`ready`](Self::ready).
    pub async fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let usec = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={usec}"))
            .await;
    }

    /// The process is on its way to its end, and takes this long at most: the manager's own limit is extended to it.
    pub async fn stopping(&self, within: Duration, status: &str) {
        let usec = (within + GRACE).as_micros();
        let status = printable(status, STATUS);
        self.tell(&format!(
            "STOPPING=1\nSTATUS={status}\nEXTEND_TIMEOUT_USEC={usec}"
        ))
        .await;
    }

    /// Says that the runtime turns, twice in each interval of the watchdog (sd_watchdog_enabled(3)). Ends only where there
    /// is none.
    pub async fn live(self) {
        let Some(every) = self.watchdog else { return };
        let mut ticks = interval((every / 2).max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.tell("WATCHDOG=1").await;
        }
    }

    async fn tell(&self, words: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = send(socket, words.as_bytes()).await {
            tracing::warn!(%error, words, "the service manager cannot be told");
        }
    }
}

fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name),
        Some((b'/', _)) => SocketAddr::from_pathname(name),
        _ => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "neither an absolute path nor an abstract name",
        )),
    }
}

/// By a socket of its own: a manager that was started anew listens on another.
async fn send(to: &SocketAddr, words: &[u8]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(to)?;
    socket.set_nonblocking(true)?;
    let socket = tokio::net::UnixDatagram::from_std(socket)?;
    timeout(PATIENCE, socket.send(words)).await??;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What a manager reads that has this name.
    async fn heard(name: &OsStr, tell: impl AsyncFnOnce(Notify)) -> String {
        let address = address(name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let notify = Notify {
            socket: Some(address),
            watchdog: None,
        };
        tell(notify).await;
        let mut words = [0; 1024];
        let length = manager.recv(&mut words).unwrap();
        String::from_utf8(words.get(..length).unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_manager_is_told_by_a_path_and_by_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let ready = async |notify: Notify| notify.ready("serving").await;
        assert_eq!(
            heard(path.as_os_str(), ready).await,
            "READY=1\nSTATUS=serving"
        );
        let name = format!("@{}", path.display());
        assert_eq!(
            heard(OsStr::new(&name), ready).await,
            "READY=1\nSTATUS=serving"
        );
    }

    #[tokio::test]
    async fn a_status_is_one_line_whatever_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let told = heard(path.as_os_str(), async |notify: Notify| {
            notify.ready("a\nSTOPPING=1\0").await;
        });
        assert_eq!(told.await.lines().count(), 2);
    }

    #[tokio::test]
    async fn nobody_is_told_where_nobody_asks() {
        let nobody = Notify::default();
        nobody.ready("serving").await;
        nobody.live().await;
        for name in ["vsock:2:1", "notify", ""] {
            assert!(address(OsStr::new(name)).is_err(), "{name}");
        }
    }
}
