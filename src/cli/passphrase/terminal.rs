//! The terminal, where a person types a passphrase that is not shown.

use std::fs::File;
use std::io::{self, Read, Write};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, kill_current_process_group};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};
use zeroize::Zeroizing;

use crate::stop::{self, Held};
use crate::tls::passphrase::{Passphrase, Unasked};

/// What a terminal takes as one line, in bytes; openssl takes as many.
const LONGEST: usize = 1024;

/// How long a signal may have come before that is noticed: it may have been another thread's, which it does not wake.
const LOOK: Duration = Duration::from_millis(50);

/// Asks a person at the terminal of this process, whatever stdin is. The terminal shows nothing of the answer, and is as it
/// was before when this returns, or when a signal ends the process: what comes meanwhile is held until then.
pub(super) fn ask(prompt: &str) -> Result<Passphrase, Unasked> {
    let failed = |error: io::Error| Unasked(error.to_string());
    let mut options = File::options();
    let terminal = options.read(true).write(true).open("/dev/tty");
    let terminal = terminal.map_err(|_| Unasked("there is no terminal".to_owned()))?;
    loop {
        let held = stop::hold().map_err(failed)?;
        let answer = listen(&terminal, prompt, &held);
        drop(held);
        match answer.map_err(failed)? {
            Answer::Line(line) => {
                let line = Passphrase::first_line(line);
                return line.map_err(|_| Unasked("the answer was empty".to_owned()));
            }
            Answer::End => return Err(Unasked("there was no answer".to_owned())),
            Answer::Signal(Some(signal)) => {
                // As the terminal would have done: ssh, and whatever else runs here, hears it too.
                let _ = kill_current_process_group(signal);
                if signal != Signal::TSTP {
                    return Err(Unasked("it was interrupted".to_owned()));
                }
            }
            Answer::Signal(None) => {
                return Err(Unasked("the command is to end".to_owned()));
            }
        }
    }
}

/// What a person has answered.
enum Answer {
    Line(Zeroizing<Vec<u8>>),
    /// Nothing, by Ctrl-D or with the terminal gone.
    End,
    /// A signal: by a key, or sent to the process, in which case it is sent on already.
    Signal(Option<Signal>),
}

fn listen(terminal: &File, prompt: &str, held: &Held) -> io::Result<Answer> {
    let silent = Silent::make(terminal)?;
    (&*terminal).write_all(prompt.as_bytes())?;
    let mut line = Line::new();
    let answer = loop {
        if wait(terminal, held)? {
            break Answer::Signal(None);
        }
        let mut byte = Zeroizing::new([0; 1]);
        if (&*terminal).read(byte.as_mut_slice())? == 0 {
            break Answer::End;
        }
        let [byte] = *byte;
        match line.take(byte) {
            Step::More => {}
            Step::Done => break Answer::Line(line.0),
            Step::End => break Answer::End,
            Step::Signal(signal) => break Answer::Signal(Some(signal)),
        }
    };
    drop(silent);
    // The cursor stands behind the prompt; a terminal that has gone needs no line.
    let _ = (&*terminal).write_all(b"\n");
    Ok(answer)
}

/// A terminal that shows nothing and hands over every key at once. Dropped, it is as it was.
struct Silent<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Silent<'a> {
    fn make(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_modes -= LocalModes::ECHO | LocalModes::ECHONL;
        // Ctrl-C comes as a key: a signal might end the process before the terminal is as it was.
        silent.local_modes -= LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN;
        silent.special_codes[SpecialCodeIndex::VMIN] = 1;
        silent.special_codes[SpecialCodeIndex::VTIME] = 0;
        // What was typed before the question was not meant for it.
        tcsetattr(terminal, OptionalActions::Flush, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        // Of a terminal that has gone nothing needs to be restored.
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

/// Waits for the terminal, or until the process is to end; whether it is.
fn wait(terminal: &File, held: &Held) -> io::Result<bool> {
    let timeout = Timespec::try_from(LOOK).map_err(io::Error::other)?;
    loop {
        let mut polled = [PollFd::new(terminal, PollFlags::IN)];
        let is_ready = match poll(&mut polled, Some(&timeout)) {
            Ok(ready) => ready > 0,
            Err(rustix::io::Errno::INTR) => false,
            Err(error) => return Err(error.into()),
        };
        match (held.is_told(), is_ready) {
            (true, _) => return Ok(true),
            (false, true) => return Ok(false),
            (false, false) => {}
        }
    }
}

/// What has been typed of a line, with the keys that every terminal has for mending it.
struct Line(Zeroizing<Vec<u8>>);

enum Step {
    More,
    Done,
    End,
    Signal(Signal),
}

impl Line {
    fn new() -> Self {
        // It never moves: no copy is left behind.
        Self(Zeroizing::new(Vec::with_capacity(LONGEST)))
    }

    fn take(&mut self, key: u8) -> Step {
        let ctrl = |letter: u8| letter & 0x1f;
        match key {
            b'\n' | b'\r' => return Step::Done,
            _ if key == ctrl(b'D') && self.0.is_empty() => return Step::End,
            _ if key == ctrl(b'D') => return Step::Done,
            _ if key == ctrl(b'C') => return Step::Signal(Signal::INT),
            _ if key == ctrl(b'\\') => return Step::Signal(Signal::QUIT),
            _ if key == ctrl(b'Z') => return Step::Signal(Signal::TSTP),
            _ if key == ctrl(b'U') => self.0.clear(),
            // A character may be several bytes of UTF-8.
            0x7f | 0x08 => while self.0.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            _ if self.0.len() < LONGEST => self.0.push(key),
            _ => {}
        }
        Step::More
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &[u8]) -> (Vec<u8>, &'static str) {
        let mut line = Line::new();
        for key in keys {
            let what = match line.take(*key) {
                Step::More => continue,
                Step::Done => "done",
                Step::End => "end",
                Step::Signal(Signal::INT) => "interrupted",
                Step::Signal(_) => "another signal",
            };
            return (line.0.to_vec(), what);
        }
        (line.0.to_vec(), "more")
    }

    #[test]
    fn a_line_is_mended_with_the_keys_of_a_terminal() {
        assert_eq!(typed(b"open\n"), (b"open".to_vec(), "done"));
        assert_eq!(typed(b"opeM\x7fn\r"), (b"open".to_vec(), "done"));
        assert_eq!(typed("oé\u{8}pen\n".as_bytes()), (b"open".to_vec(), "done"));
        assert_eq!(typed(b"wrong\x15\x7fopen\n"), (b"open".to_vec(), "done"));
        assert_eq!(typed(b"open\x04"), (b"open".to_vec(), "done"));
        assert_eq!(typed(b"\x04"), (Vec::new(), "end"));
        assert_eq!(typed(b"op\x03").1, "interrupted");
        assert_eq!(typed(b"\x1a").1, "another signal");
    }

    #[test]
    fn a_line_does_not_grow_without_end() {
        let (line, _) = typed(&[b'x'; 2 * LONGEST]);
        assert_eq!(line.len(), LONGEST);
    }
}
