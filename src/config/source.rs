//! Where a configuration comes from, and what a file must hold to be followed by those it was written for.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::check::{self, Checked};
use super::{Diagnostic, Diagnostics, Flags, Level};
use crate::tls::passphrase::Given;

/// Where a configuration comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// A file of a process that has tunnels: one without any does not serve.
    Tunnels(PathBuf),
    /// A command line: it stays as it is, and the files that it names may change.
    Flags(Arc<Flags>),
}

impl Source {
    /// Reads and checks it for the first time.
    ///
    /// # Errors
    /// Every mistake at once.
    pub fn load(&self, given: &Given) -> Result<Checked, Diagnostics> {
        match self {
            Self::File(path) => check::load_with(path, given),
            Self::Tunnels(path) => check::load_with(path, given).and_then(with_tunnels),
            Self::Flags(flags) => flags.check(given),
        }
        .map(|checked| self.read(checked))
    }

    /// Reads and checks again what serves already: see [`reload`](check::reload).
    ///
    /// # Errors
    /// Every mistake at once.
    pub fn reload(&self, given: &Given) -> Result<Checked, Diagnostics> {
        match self {
            Self::File(path) => check::reload(path, given),
            Self::Tunnels(path) => check::reload(path, given).and_then(with_tunnels),
            Self::Flags(flags) => flags.check(given),
        }
        .map(|checked| self.read(checked))
    }

    fn read(&self, checked: Checked) -> Checked {
        Checked {
            source: self.clone(),
            ..checked
        }
    }
}

/// For the log.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) | Self::Tunnels(path) => write!(f, "{}", path.display()),
            Self::Flags(_) => f.write_str("the command line"),
        }
    }
}

impl Checked {
    /// It is to follow on one that serves. Where that said something, a file without a word is what an editor or a full disk
    /// has left of it, and nobody's wish.
    ///
    /// # Errors
    /// It is such a file.
    pub fn following(self, was_blank: bool) -> Result<Self, Diagnostics> {
        match self.is_blank && !was_blank {
            true => Err(self.refused(
                "nothing is written in the file, and there was before",
                "write again what was in it; what is to serve nothing any more is stopped",
            )),
            false => Ok(self),
        }
    }

    /// A mistake of the file as a whole.
    fn refused(self, message: &str, help: &str) -> Diagnostics {
        Diagnostics {
            list: vec![Diagnostic {
                level: Level::Error,
                span: None,
                message: message.to_owned(),
                help: Some(help.to_owned()),
            }],
            ..self.warnings
        }
    }
}

fn with_tunnels(checked: Checked) -> Result<Checked, Diagnostics> {
    match checked.config.tunnels.is_empty() {
        true => Err(checked.refused(
            "there are no `tunnels`",
            "add a [tunnels.NAME] section, or run the file by `portcullis serve`",
        )),
        false => Ok(checked),
    }
}
