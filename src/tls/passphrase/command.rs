//! A program that writes a passphrase: run without a shell, bounded in time and in what it may say.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Access, access};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};
use zeroize::Zeroizing;

use super::{MOST, Passphrase};
use crate::stop::{self, Held};
use crate::tls::pem::FileError;

/// For all of it. 10 s: a question to a Vault with its retries; a reload waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it may have ended before that is noticed, which no event tells on every system.
const LOOK: Duration = Duration::from_millis(10);

/// Of what it says on stderr so much is kept, in bytes.
const SAID: usize = 1024;

/// What a pipe holds (pipe(7)), and how much of it is read at once, in bytes.
const PIPE: usize = 64 * 1024;
const CHUNK: usize = 1024;

/// A program and its arguments, run as they are: no shell reads them. Nothing in them is secret: every user sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    program: PathBuf,
    arguments: Vec<String>,
}

impl Command {
    /// This program, by its path.
    pub fn new(program: PathBuf, arguments: Vec<String>) -> Self {
        Self { program, arguments }
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Runs it, and takes the first line of its stdout. It has nothing on its stdin, no terminal, and 10 s; after those it
    /// is killed, with all that it has started in its process group; or at once when a signal ends this process. What it
    /// says on stderr is logged.
    ///
    /// It blocks, and starts no thread: the process may be about to enter its sandbox.
    pub(super) fn run(&self) -> Result<Passphrase, FileError> {
        let mut said = Said::default();
        // Until it has ended, too: what runs would not end with this process.
        let held = stop::hold().map_err(|error| self.not_run(&error))?;
        let ended = self
            .start()
            .and_then(|mut running| running.finish(&mut said, &held));
        let words = said.words();
        let status = match ended {
            Ok(Some(status)) => status,
            Ok(None) if held.is_told() => {
                let message = "was ended by a signal that ends this process, too";
                return Err(self.failed(message.to_owned(), true));
            }
            Ok(None) => {
                let late = format!("has not written the passphrase within {PATIENCE:?}{words}");
                return Err(self.failed(late, true));
            }
            Err(error) => return Err(self.not_run(&error)),
        };
        if !status.success() {
            return Err(self.failed(format!("has failed: {status}{words}"), true));
        }
        if !words.is_empty() {
            tracing::info!(program = %self.program.display(), "the program of a passphrase{words}");
        }
        let line = Passphrase::first_line(said.out);
        line.map_err(|wrong| self.failed(format!("what it has written {wrong}"), false))
    }

    fn start(&self) -> io::Result<Running> {
        let mut command = process::Command::new(&self.program);
        command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        Ok(Running {
            child: command.spawn()?,
            has_ended: false,
        })
    }

    fn failed(&self, message: String, may_pass: bool) -> FileError {
        let help = "run it by hand, as the user that needs the key: it must write the passphrase on stdout and exit 0";
        FileError {
            may_pass,
            ..FileError::new(&self.program, message, help)
        }
    }

    fn not_run(&self, error: &io::Error) -> FileError {
        let is_permitted = access(&self.program, Access::EXEC_OK).is_ok();
        let help = match Errno::from_io_error(error) {
            Some(Errno::NOEXEC) => {
                "it is no program that the system can run: does a script begin with its shell, as in `#!/bin/sh`?"
            }
            Some(Errno::ACCESS) if !is_permitted => {
                "this user may not execute it: if it is the right file, run chmod +x, or ask its owner"
            }
            Some(Errno::ACCESS) => {
                "a gateway in its sandbox executes only the programs that were configured when it was started: restart it; elsewhere, may this user execute what the first line of the script names?"
            }
            Some(Errno::NOENT) if is_permitted => {
                "it is there, and what its first line names (`#!`), or the loader that it was built for, is not"
            }
            _ => "is the path right? it is shown as it was run",
        };
        FileError {
            may_pass: crate::retry::may_pass(error),
            ..FileError::new(&self.program, format!("cannot be run: {error}"), help)
        }
    }
}

/// What it has said.
#[derive(Default)]
struct Said {
    out: Zeroizing<Vec<u8>>,
    err: Vec<u8>,
}

impl Said {
    /// What it has said on stderr, to be said after something else; nothing if it was silent.
    fn words(&self) -> String {
        let text = String::from_utf8_lossy(&self.err);
        match text.trim() {
            "" => String::new(),
            text => format!("; it says: {}", text.escape_debug()),
        }
    }
}

/// A program that runs. Dropped before it has ended, it is killed with its group.
struct Running {
    child: Child,
    has_ended: bool,
}

impl Running {
    /// Hears it out; `None` if it is late, or nobody is left to hear it.
    fn finish(&mut self, said: &mut Said, held: &Held) -> io::Result<Option<ExitStatus>> {
        said.out = Zeroizing::new(Vec::with_capacity(MOST as usize + 1));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || held.is_told() {
                return Ok(None);
            }
            if let Some(status) = self.child.try_wait()? {
                self.has_ended = true;
                // What it has written is there by now, and what it has left running may write for ever.
                for _ in 0..PIPE / CHUNK {
                    if !self.hear(said, Duration::ZERO)? {
                        break;
                    }
                }
                return Ok(Some(status));
            }
            self.hear(said, left.min(LOOK))?;
        }
    }

    /// Reads once what is there, or comes soon; whether there may be more. What is too much is read and dropped.
    fn hear(&mut self, said: &mut Said, wait: Duration) -> io::Result<bool> {
        let mut chunk = Zeroizing::new([0; CHUNK]);
        let mut has_read = false;
        let most = MOST as usize + 1;
        let (out, err) = (&mut self.child.stdout, &mut self.child.stderr);
        if is_ready(out.as_ref(), wait)?
            && let Some(stream) = out
        {
            let read = stream.read(chunk.as_mut_slice())?;
            let room = most - said.out.len().min(most);
            said.out.extend(chunk.iter().take(read.min(room)));
            has_read |= read > 0;
            if read == 0 {
                *out = None;
            }
        }
        if is_ready(err.as_ref(), Duration::ZERO)?
            && let Some(stream) = err
        {
            let read = stream.read(chunk.as_mut_slice())?;
            let room = SAID - said.err.len().min(SAID);
            said.err.extend(chunk.iter().take(read.min(room)));
            has_read |= read > 0;
            if read == 0 {
                *err = None;
            }
        }
        Ok(has_read)
    }
}

/// Whether a stream has something, or its end; waits for it. One that has ended is waited for like the others.
fn is_ready<S: AsFd>(stream: Option<&S>, wait: Duration) -> io::Result<bool> {
    let timeout = Timespec::try_from(wait).map_err(io::Error::other)?;
    let mut polled: Vec<PollFd<'_>> = stream
        .iter()
        .map(|stream| PollFd::new(stream, PollFlags::IN))
        .collect();
    match poll(&mut polled, Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        // Its group is its own number: it has been put there before it was executed.
        let group = Pid::from_child(&self.child);
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
    }
}
