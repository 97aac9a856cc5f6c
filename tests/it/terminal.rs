//! A terminal, with a test in the place of the person who sits there.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr, tcgetpgrp};

use crate::support::{Child, wait_until};

pub(crate) struct Terminal {
    person: File,
    /// The end that a program has; as long as it is open, the other one can be looked at.
    pub(crate) program: OwnedFd,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let person = openpt(flags).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let program = rustix::fs::open(&name, flags, Mode::empty()).unwrap();
        let person = File::from(person);
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut reads, told) = (person.try_clone().unwrap(), Arc::clone(&shown));
        thread::spawn(move || {
            let mut chunk = [0; 1024];
            while let Ok(read) = reads.read(&mut chunk) {
                let text = String::from_utf8_lossy(&chunk[..read]);
                told.lock().unwrap().push_str(&text);
            }
        });
        Self {
            person,
            program,
            shown,
        }
    }

    /// Starts a program at this terminal, in a session of its own; its stdin is this file, if there is one.
    pub(crate) fn start(&self, command: &Command, stdin: Option<&Path>) -> Child {
        let mut session = Command::new("setsid");
        session.arg("--ctty").args(["sh", "-c"]);
        session.arg(match stdin {
            Some(_) => "exec \"$@\" <\"$0\"",
            None => "exec \"$@\"",
        });
        session.arg(stdin.unwrap_or(Path::new("sh")));
        session.arg(command.get_program()).args(command.get_args());
        Child::spawn_with(&session, self.program.try_clone().unwrap())
    }

    /// Starts a shell that has this terminal and nothing else, and controls jobs there; it asks for the first line.
    pub(crate) fn start_shell(&self) -> Child {
        let mut session = Command::new("setsid");
        session.args(["--ctty", "sh", "-c", "exec sh -i >&0 2>&0"]);
        session.env("PS1", "what next? ").env_remove("ENV");
        let shell = Child::spawn_with(&session, self.program.try_clone().unwrap());
        self.asks(1);
        shell
    }

    /// Waits until the shell has asked for a line so many times.
    pub(crate) fn asks(&self, times: usize) {
        wait_until("the shell asks for a line", || {
            self.shows_times("what next? ") == times
        });
    }

    /// The process group that Ctrl-C is for.
    pub(crate) fn foreground(&self) -> u32 {
        let group = tcgetpgrp(&self.person).unwrap();
        group.as_raw_nonzero().get().unsigned_abs()
    }

    pub(crate) fn types(&self, text: &str) {
        (&self.person).write_all(text.as_bytes()).unwrap();
    }

    /// Whether it shows what is typed.
    pub(crate) fn echoes(&self) -> bool {
        let modes = tcgetattr(&self.person).unwrap().local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }

    /// All that has been shown until now, what was typed included.
    pub(crate) fn shown(&self) -> String {
        self.shown.lock().unwrap().clone()
    }

    pub(crate) fn shows(&self, text: &str) -> bool {
        self.shows_times(text) > 0
    }

    /// How many times this stands there.
    pub(crate) fn shows_times(&self, text: &str) -> usize {
        self.shown.lock().unwrap().matches(text).count()
    }

    /// Waits until this stands there.
    pub(crate) fn wait_for(&self, text: &str) {
        wait_until(&format!("{text:?} is shown"), || self.shows(text));
    }
}
