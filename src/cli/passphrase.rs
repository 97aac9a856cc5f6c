//! Where the passphrases of encrypted keys come from, for every command that uses keys: flags, or the terminal.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::client::exit::Exit;
use crate::client::report::Report;
use crate::stop;
use crate::tls::files::FileError;
use crate::tls::passphrase::{Command, Given};

mod terminal;

/// The end of a command's help, for flags that hardly anybody needs: as options they would take a third of a screen.
pub(super) const HELP: &str = "
Encrypted keys are opened by --passphrase-file FILE, --passphrase-fd N or
--passphrase-command 'PROGRAM ARGUMENTS' (no shell); else the terminal is asked.";

/// The same where nobody is asked.
pub(super) const HELP_UNASKED: &str = "
Encrypted keys are opened by --passphrase-file FILE, --passphrase-fd N or
--passphrase-command 'PROGRAM ARGUMENTS' (no shell); the terminal is not asked.";

/// What opens encrypted keys (PKCS#8) that name no passphrase of their own; without any of these the terminal is asked.
#[derive(Debug, Default, clap::Args)]
pub struct PassphraseArgs {
    /// Open encrypted keys with the first line of FILE
    #[arg(long, value_name = "FILE", group = "passphrase", hide = true)]
    pub passphrase_file: Option<PathBuf>,

    /// The same with what is read from the open descriptor N
    #[arg(long, value_name = "N", value_parser = descriptor, group = "passphrase", hide = true)]
    pub passphrase_fd: Option<u32>,

    /// The same with what COMMAND writes: a program and its arguments, between spaces; no shell reads them
    #[arg(long, value_name = "COMMAND", value_parser = command, group = "passphrase", hide = true)]
    pub passphrase_command: Option<Command>,
}

/// Whether a person is asked where no flag says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asking {
    Never,
    AtTerminal,
    /// The same of a command whose stdin is the tunnel's. A descriptor is waited for so long.
    BesideTunnel(Duration),
}

impl PassphraseArgs {
    /// What they give. A descriptor is read now.
    pub(super) fn given(&self, asking: Asking) -> Result<Given, FileError> {
        // For commands that have not said what a signal does to them. One that cannot be heard does what it does.
        let _ = stop::listen(&stop::AS_EVER);
        if let Some(path) = &self.passphrase_file {
            return Ok(Given::file(path.clone()));
        }
        if let Some(command) = &self.passphrase_command {
            return Ok(Given::command(command.clone()));
        }
        match (self.passphrase_fd, asking) {
            (Some(0), Asking::BesideTunnel(_)) => Err(FileError {
                path: "--passphrase-fd 0".into(),
                message: "stdin carries the tunnel".to_owned(),
                help: Some("choose another descriptor, such as 3".to_owned()),
                may_pass: false,
            }),
            (Some(number), Asking::BesideTunnel(limit)) => Given::descriptor(number, Some(limit)),
            (Some(number), _) => Given::descriptor(number, None),
            (None, Asking::Never) => Ok(Given::default()),
            (None, Asking::AtTerminal | Asking::BesideTunnel(_)) => Ok(at_terminal()),
        }
    }
}

fn at_terminal() -> Given {
    Given::typed(Box::new(|key: &Path, number| {
        let key = key.display().to_string();
        let again = if number > 1 {
            "that does not open it; "
        } else {
            ""
        };
        let prompt = format!("{again}passphrase for {}: ", key.escape_debug());
        terminal::ask(&prompt)
    }))
}

/// What to tell of files that a command cannot begin with.
pub(super) fn report(error: &FileError) -> Report {
    let help = error.help.as_deref();
    let hint = help.unwrap_or("look at the files that are named");
    Report::new(Exit::Usage, error.to_string(), hint)
}

/// What a command says that cannot begin for want of a passphrase.
pub(super) fn told(error: &FileError) -> String {
    let help = error.help.as_deref();
    let hint = help.map_or_else(String::new, |help| format!("\nhint: {help}"));
    format!("portcullis: {error}{hint}")
}

fn descriptor(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(1 | 2) => Err("1 and 2 are written to: open another one, as in `3<FILE`".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("write the number of an open descriptor, such as 3".to_owned()),
    }
}

/// A program as a shell would find it, and its arguments.
fn command(text: &str) -> Result<Command, String> {
    let mut words = text.split_whitespace();
    let program = words.next().ok_or("write a program and its arguments")?;
    let found = if program.contains('/') {
        std::path::absolute(program).ok()
    } else {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let mut files = std::env::split_paths(&folders).map(|folder| folder.join(program));
        files.find(|file| file.is_absolute() && file.is_file())
    };
    let found = found.ok_or_else(|| format!("no folder of $PATH holds {program:?}"))?;
    Ok(Command::new(found, words.map(str::to_owned).collect()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_words_and_its_program_is_found_as_a_shell_finds_it() {
        let sh = command("sh -c  true").unwrap();
        assert!(sh.program().is_absolute() && sh.program().ends_with("sh"));
        assert!(format!("{sh:?}").contains(r#"["-c", "true"]"#), "{sh:?}");
        assert_eq!(command("/opt/a b").unwrap().program(), Path::new("/opt/a"));
        for (text, says) in [(" ", "a program"), ("none-such-program x", "$PATH")] {
            assert!(command(text).unwrap_err().contains(says));
        }
    }

    #[test]
    fn a_descriptor_is_one_that_can_be_read() {
        assert_eq!(descriptor("3"), Ok(3));
        for text in ["1", "2", "-1", "x", ""] {
            assert!(descriptor(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_tunnels_stdin_holds_no_passphrase() {
        let args = PassphraseArgs {
            passphrase_fd: Some(0),
            ..PassphraseArgs::default()
        };
        let refused = args
            .given(Asking::BesideTunnel(Duration::ZERO))
            .unwrap_err();
        assert!(told(&refused).starts_with("portcullis: --passphrase-fd 0: stdin carries"));
    }
}
