//! A descriptor that a process is started with, for a passphrase: read itself, not by a name in `/dev/fd`.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::{MOST, Passphrase};
use crate::tls::pem::FileError;

/// The first line of what this descriptor leads to, and not a byte behind it. Whoever writes there may take so long.
pub(super) fn read(number: u32, limit: Option<Duration>) -> Result<Passphrase, FileError> {
    let name = PathBuf::from(format!("--passphrase-fd {number}"));
    let failed = |error: io::Error| match (error.kind(), limit) {
        (io::ErrorKind::TimedOut, Some(limit)) => FileError::new(
            &name,
            format!("no line has come from there within {limit:?}"),
            "write the passphrase there, and the end of its line; --timeout waits longer",
        ),
        _ => FileError::new(
            &name,
            format!("cannot be read: {error}"),
            "open a file, a pipe or a socket there, as in `3<FILE` behind the command in a shell",
        ),
    };
    let deadline = limit.map(|limit| Instant::now() + limit);
    let line = take(number).and_then(|from| line_of(&from, deadline));
    let line = Passphrase::first_line(line.map_err(failed)?);
    line.map_err(|wrong| FileError::new(&name, wrong, "write the passphrase into its first line"))
}

/// Another descriptor for what stands behind this one, with its place in a file, and whoever has opened it.
///
/// A number is made a descriptor by `unsafe` only. Linux gives one of any process that the caller may look into, as it always
/// may into itself (pidfd_getfd(2)). Where that is missing, or a container forbids it, it is opened anew.
#[cfg(target_os = "linux")]
fn take(number: u32) -> io::Result<File> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let raw = RawFd::try_from(number).map_err(|_| Errno::BADF)?;
    if is_opened_here(number) {
        return Err(Errno::BADF.into());
    }
    let own = pidfd_open(getpid(), PidfdFlags::empty());
    // Nothing was there, and now this is.
    if own.as_ref().is_ok_and(|own| own.as_raw_fd() == raw) {
        return Err(Errno::BADF.into());
    }
    match own.and_then(|own| pidfd_getfd(own, raw, PidfdGetfdFlags::empty())) {
        Ok(taken) => Ok(File::from(taken)),
        Err(Errno::BADF) => Err(Errno::BADF.into()),
        Err(_) => open_anew(number),
    }
}

/// Whether this process has opened it itself, which closes at an exec(2) what it opens: then nobody has handed it over.
#[cfg(target_os = "linux")]
fn is_opened_here(number: u32) -> bool {
    let told = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}"));
    let told = told.unwrap_or_default();
    let flags = told.lines().find_map(|line| line.strip_prefix("flags:"));
    flags
        .and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok())
        .is_some_and(|flags| OFlags::from_bits_retain(flags).contains(OFlags::CLOEXEC))
}

/// Elsewhere a name in `/dev/fd` is the descriptor itself (fd(4)).
#[cfg(not(target_os = "linux"))]
fn take(number: u32) -> io::Result<File> {
    open_anew(number)
}

fn open_anew(number: u32) -> io::Result<File> {
    // A FIFO whose writer has gone would be waited for, and it may have left what is read here.
    let mut options = File::options();
    options.custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    options.read(true).open(format!("/dev/fd/{number}"))
}

/// The first line of what may not end, with its end, or one byte more than is allowed. It never moves: no copy is left behind.
fn line_of(mut from: &File, deadline: Option<Instant>) -> io::Result<Zeroizing<Vec<u8>>> {
    let flags = fcntl_getfl(from)?;
    // It would be waited for until somebody could read it.
    if flags & OFlags::RWMODE == OFlags::WRONLY {
        return Err(Errno::BADF.into());
    }
    let blocks = !flags.contains(OFlags::NONBLOCK);
    let mut line = Zeroizing::new(Vec::with_capacity(MOST as usize + 1));
    let mut byte = Zeroizing::new([0; 1]);
    while line.len() as u64 <= MOST && line.last() != Some(&b'\n') {
        if blocks {
            wait(from, deadline)?;
        }
        match from.read(byte.as_mut_slice()) {
            Ok(0) => break,
            Ok(_) => line.extend_from_slice(byte.as_slice()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait(from, deadline)?,
            Err(error) => return Err(error),
        }
    }
    Ok(line)
}

/// Waits until there is something to be read, or an end.
fn wait(from: &File, deadline: Option<Instant>) -> io::Result<()> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.map(Timespec::try_from).transpose();
        let left = left.map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(from, PollFlags::IN)], left.as_ref()) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
