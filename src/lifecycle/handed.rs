//! What whoever starts a process hands over to it: listening sockets (sd_listen_fds(3)), and whom to tell.

use std::env;
use std::fmt;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use listenfd::ListenFd;
use socket2::SockRef;

use super::Notify;
use crate::config::ListenAddress;
use crate::name::quoted;
use crate::sandbox::Sandbox;

/// What was handed over; nothing, by default.
#[derive(Clone, Debug, Default)]
pub struct Handed {
    /// Sockets on which clients may wait already.
    pub sockets: Sockets,
    /// The service manager.
    pub notify: Notify,
    /// What this process has entered; `None` where it is not the gateway's alone.
    pub sandbox: Option<Sandbox>,
}

/// Sockets that were bound by somebody else, who keeps them when this process ends.
#[derive(Clone, Debug, Default)]
pub struct Sockets {
    listening: Arc<[(ListenAddress, Socket)]>,
    malformed: Option<Malformed>,
}

/// A socket that listens.
#[derive(Debug)]
pub enum Socket {
    /// Over TCP.
    Tcp(TcpListener),
    /// A UNIX socket.
    Unix(UnixListener),
}

impl Socket {
    fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(socket) => socket.try_clone().map(Self::Tcp),
            Self::Unix(socket) => socket.try_clone().map(Self::Unix),
        }
    }
}

/// Variables that should hand over sockets and make no sense. What they say is not done (sd_listen_fds(3): EINVAL).
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Malformed {
    /// No number of sockets, or one that no process has.
    #[error("LISTEN_FDS={0:?} is no number of sockets from 0 to 65536: none is taken over")]
    Count(String),
    /// No process.
    #[error("LISTEN_PID={0:?} is no process: none of the sockets of LISTEN_FDS is taken over")]
    Process(String),
    /// Not one for each socket. They are not used: the sockets are told by their addresses.
    #[error("LISTEN_FDNAMES has {names} names for the {count} sockets of LISTEN_FDS")]
    Names {
        /// How many names there are.
        names: usize,
        /// How many sockets.
        count: usize,
    },
}

/// What was handed over cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum NotListening {
    /// It is no socket of TCP, and no UNIX socket that has a path.
    #[error(
        "the service manager has handed over what is no TCP socket, and no UNIX socket with a path: {1} ({0})"
    )]
    NotTcp(Which, io::Error),
    /// It does not listen: `Accept=yes` hands over the connections themselves.
    #[error("the service manager has handed over a socket that does not listen ({0})")]
    Connected(Which),
    /// Two listen on one address: the clients of one of them would never be served.
    #[error("the service manager has handed over two sockets that listen on {0}")]
    Twice(ListenAddress),
}

/// One of those that were handed over, as its unit and the process know it.
#[derive(Clone, Debug)]
pub struct Which {
    descriptor: usize,
    /// `FileDescriptorName=`: the unit's, where none is written (systemd.socket(5)).
    name: Option<String>,
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{}, ", quoted(name))?;
        }
        write!(f, "descriptor {}", self.descriptor)
    }
}

/// The first descriptor that is handed over (`SD_LISTEN_FDS_START`).
const FIRST: usize = 3;

/// More than anybody hands over, and what a list of them takes is small.
const MOST: usize = 65_536;

impl Sockets {
    /// Those that the environment names: `LISTEN_FDS`, unless `LISTEN_PID` is another process. Both variables are removed,
    /// and no child gets the sockets; so this must be called before the process has a second thread. What makes no sense
    /// is told by [`malformed`](Self::malformed).
    ///
    /// # Errors
    /// One of them is not what can be listened on.
    pub fn from_env() -> Result<Self, NotListening> {
        let malformed = malformed(|name| {
            let value = env::var_os(name)?;
            Some(value.to_string_lossy().into_owned())
        });
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut handed = match malformed {
            Some(Malformed::Count(_) | Malformed::Process(_)) => ListenFd::empty(),
            Some(Malformed::Names { .. }) | None => ListenFd::from_env(),
        };
        let mut sockets: Vec<(ListenAddress, Socket)> = Vec::new();
        for at in 0..handed.len() {
            let name = names.split(':').nth(at).filter(|name| !name.is_empty());
            let which = Which {
                descriptor: FIRST + at,
                name: name.map(str::to_owned),
            };
            let taken = take(&mut handed, at);
            let taken = taken.map_err(|error| NotListening::NotTcp(which.clone(), error))?;
            let Some((address, socket, listens)) = taken else {
                continue;
            };
            if !listens {
                return Err(NotListening::Connected(which));
            }
            if sockets.iter().any(|(other, _)| *other == address) {
                return Err(NotListening::Twice(address));
            }
            sockets.push((address, socket));
        }
        Ok(Self {
            listening: sockets.into(),
            malformed,
        })
    }

    /// What makes no sense in what should have handed over sockets.
    pub fn malformed(&self) -> Option<&Malformed> {
        self.malformed.as_ref()
    }

    /// Their addresses, in the order in which they were handed over.
    pub fn addresses(&self) -> impl Iterator<Item = &ListenAddress> {
        self.listening.iter().map(|(address, _)| address)
    }

    /// The one that is bound to this address. It may be taken again when it was given back.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn at(&self, address: &ListenAddress) -> io::Result<Option<Socket>> {
        let mut sockets = self.listening.iter();
        let found = sockets.find(|(bound, _)| bound == address);
        found.map(|(_, socket)| socket.try_clone()).transpose()
    }
}

/// The next one, with its address, and whether it listens.
fn take(handed: &mut ListenFd, at: usize) -> io::Result<Option<(ListenAddress, Socket, bool)>> {
    let not_tcp = match handed.take_tcp_listener(at) {
        Ok(None) => return Ok(None),
        Ok(Some(socket)) => {
            let listens = SockRef::from(&socket).is_listener().unwrap_or(false);
            let address = socket.local_addr()?;
            return Ok(Some((address.into(), Socket::Tcp(socket), listens)));
        }
        Err(error) => error,
    };
    let Ok(Some(socket)) = handed.take_unix_listener(at) else {
        return Err(not_tcp);
    };
    let listens = SockRef::from(&socket).is_listener().unwrap_or(false);
    // One of the abstract namespace has no rights, and whoever is on the machine may connect (unix(7)).
    let address = socket.local_addr()?;
    let path = address.as_pathname().ok_or(not_tcp)?;
    let address = ListenAddress::Unix(path.to_owned());
    Ok(Some((address, Socket::Unix(socket), listens)))
}

/// What makes no sense in these variables, where they are meant for this process.
fn malformed(variable: impl Fn(&str) -> Option<String>) -> Option<Malformed> {
    let fds = variable("LISTEN_FDS")?;
    if let Some(pid) = variable("LISTEN_PID").filter(|pid| !pid.is_empty()) {
        match pid.parse::<u32>() {
            Ok(pid) if pid == std::process::id() => {}
            Ok(1..) => return None,
            Ok(0) | Err(_) => return Some(Malformed::Process(pid)),
        }
    }
    let Some(count) = fds.parse().ok().filter(|count| *count <= MOST) else {
        return Some(Malformed::Count(fds));
    };
    let names = variable("LISTEN_FDNAMES")?.split(':').count();
    (names != count && count > 0).then_some(Malformed::Names { names, count })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(fds: &str, pid: Option<&str>, names: Option<&str>) -> Option<Malformed> {
        malformed(|name| {
            let value = match name {
                "LISTEN_FDS" => Some(fds),
                "LISTEN_PID" => pid,
                _ => names,
            };
            value.map(str::to_owned)
        })
    }

    #[test]
    fn what_hands_over_sockets_makes_sense_or_is_for_somebody_else() {
        let own = std::process::id().to_string();
        let own = Some(own.as_str());
        for count in ["", "two", "-1", "65537", "99999999999999999999", "1 "] {
            let expected = Some(Malformed::Count(count.to_owned()));
            assert_eq!(judged(count, own, None), expected);
            assert_eq!(judged(count, Some("1"), None), None);
        }
        for pid in ["0", "-4", "x", "99999999999"] {
            let expected = Some(Malformed::Process(pid.to_owned()));
            assert_eq!(judged("1", Some(pid), None), expected);
        }
        assert_eq!(judged("2", own, Some("a:b")), None);
        assert_eq!(judged("1", None, None), None);
        let expected = Some(Malformed::Names { names: 1, count: 2 });
        assert_eq!(judged("2", own, Some("a")), expected);
    }
}
