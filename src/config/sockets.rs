//! The folders that UNIX sockets are made in: each must be there before a process serves.

use std::fs;
use std::io;
use std::path::Path;

use super::check::Checked;
use super::{Diagnostic, Diagnostics, Level, ListenAddress, Source, flags};

impl Checked {
    /// Looks whether each UNIX socket has a folder to be made in. `check` does not: that of a service (`RuntimeDirectory=` in
    /// systemd) is made when it starts.
    ///
    /// # Errors
    /// Every one that is not there, or is none.
    pub fn folders(&self) -> Result<(), Diagnostics> {
        let admin = self.config.admin.iter();
        let admin = admin.map(|address| ("admin".to_owned(), address));
        let tunnels = self.config.tunnels.iter();
        let tunnels = tunnels.flat_map(|(name, tunnel)| {
            let key = format!("tunnels.{name}.listen");
            tunnel
                .listen
                .iter()
                .map(move |address| (key.clone(), address))
        });
        let list = admin.chain(tunnels).filter_map(|(key, address)| {
            let ListenAddress::Unix(path) = address else {
                return None;
            };
            // One that is named alone is made where the process is.
            let folder = path.parent().filter(|folder| *folder != Path::new(""));
            let (why, help) = missing(folder?)?;
            Some(Diagnostic {
                level: Level::Error,
                span: None,
                message: format!("`{key}`: {address}: {why}"),
                help: Some(help.to_owned()),
            })
        });
        let list: Vec<_> = list.collect();
        if list.is_empty() {
            return Ok(());
        }
        let mut mistakes = Diagnostics {
            list,
            ..self.warnings.clone()
        };
        if let Source::Flags(_) = self.source {
            flags::by_flag(&mut mistakes);
        }
        Err(mistakes)
    }
}

/// Why no socket can be made in this folder, and what to do; nothing if it is there.
fn missing(folder: &Path) -> Option<(String, &'static str)> {
    let shown = folder.display();
    match fs::metadata(folder) {
        Ok(is) if is.is_dir() => None,
        Ok(_) => Some((
            format!("{shown} is no folder"),
            "write the path of a socket in a folder",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some((
            format!("its folder {shown} is not there"),
            "make it for the user that serves (RuntimeDirectory= in systemd does)",
        )),
        Err(error) => Some((
            format!("its folder {shown} cannot be looked at: {error}"),
            "let the user that serves into it, and into those above it",
        )),
    }
}
