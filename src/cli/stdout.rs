//! What a command says on stdout, and how it ends where nobody can be told.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use super::connect::fail;

/// Writes all of it, now. A reader that has gone wants no more, which is no failure.
pub(super) fn say(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    heard(out.write_all(text).and_then(|()| out.flush()))
}

/// Whether whoever reads stdout has what he wants.
pub(super) fn heard(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// The exit code of a command that was to end with this one, and has said all of it or not.
pub(super) fn end(said: io::Result<()>, code: u8) -> ExitCode {
    match said {
        Ok(()) => ExitCode::from(code),
        Err(error) => fail(
            code.max(1),
            &format!(
                "portcullis: cannot write to stdout: {error}\nhint: stdout is where the answer goes: is the disk full that it is on?"
            ),
        ),
    }
}
