//! TLS to the agent: the CAs, the certificate that it is shown, and the name that it must prove.

use std::path::{Path, PathBuf};

use rustls_pki_types::ServerName;

use super::{Place, Reader};
use crate::config::ConsulAddress;
use crate::config::decode::{List, Typed};
use crate::config::diagnostic::{Findings, NOWHERE};
use crate::config::files;
use crate::config::value::{Wrong, read};
use crate::tls::client::{self, ClientError};
use crate::tls::key::KeyFile;
use crate::tls::verify::Proof;

/// What TLS is made from; of plain HTTP, what is written for it nevertheless.
pub(super) struct Security {
    pub(super) roots: Vec<PathBuf>,
    pub(super) certificate: Option<(PathBuf, KeyFile)>,
    pub(super) server_name: Option<String>,
}

impl Reader<'_> {
    /// Reads what is for TLS, and tries it where there is some.
    pub(super) fn security(&self, agent: &Place, findings: &mut Findings<'_>) -> Security {
        let roots = self.roots(findings);
        let certificate = self.certificate(findings);
        let server_name = self.server_name(agent, findings);
        if agent.https {
            self.check(
                roots.as_deref(),
                certificate.as_ref(),
                &agent.said,
                findings,
            );
        } else {
            self.warn_of_no_tls(findings);
        }
        Security {
            roots: roots.unwrap_or_default(),
            certificate: certificate.map(|(chain, key)| (chain.value, key.value)),
            server_name,
        }
    }

    /// The CAs; `None` if it cannot be told which.
    fn roots(&self, findings: &mut Findings<'_>) -> Option<Vec<PathBuf>> {
        let (list, folder) = match self.written.roots {
            Some(list) if list.is_empty => {
                findings.missing(
                    list.span.clone(),
                    format!(
                        "`{}` is an empty list: no certificate could be trusted",
                        list.key
                    ),
                    "name a CA's file, or leave it out to trust the system's CAs",
                );
                return None;
            }
            Some(list) => (list.clone(), self.folder),
            None => (self.variable_roots(findings)?, Path::new("")),
        };
        let paths = files::roots(&list, folder, findings);
        (paths.len() == list.value.len()).then_some(paths)
    }

    /// The file of one variable, or else every file in the folder of another; none if neither is set.
    fn variable_roots(&self, findings: &mut Findings<'_>) -> Option<List<Typed<String>>> {
        let list = |key: &str, value| List {
            key: key.to_owned(),
            value,
            span: NOWHERE,
            is_empty: false,
        };
        let (file, folder) = (self.program.ca_file, self.program.ca_folder);
        if let Some(typed) = self.environment.read(file, findings) {
            return Some(list(file, vec![typed]));
        }
        let Some(directory) = self.environment.read(folder, findings) else {
            return Some(list("", Vec::new()));
        };
        match files_in(&directory) {
            Ok(files) => Some(list(folder, files)),
            Err(reason) => {
                findings.error(
                    NOWHERE,
                    format!("`{folder}`: {}: {reason}", directory.value),
                    "name a directory of PEM files, each of which holds CAs",
                );
                None
            }
        }
    }

    /// The chain and the key, and where each is named.
    fn certificate(&self, findings: &mut Findings<'_>) -> Option<(Typed<PathBuf>, Typed<KeyFile>)> {
        let chain = self.either(self.written.chain, self.program.chain, findings);
        let key = self.either(self.written.key, self.program.key, findings);
        let (there, missing) = match (chain, key) {
            (None, None) => {
                self.refuse_passphrase_alone(findings);
                return None;
            }
            (Some(chain), Some(key)) => {
                let passphrase = self.written.passphrase.source(self.folder, findings);
                let chain = self.path(&chain, findings);
                let key = self.path(&key, findings);
                let ((chain, key), passphrase) = chain.zip(key).zip(passphrase)?;
                let path = key.value;
                let key = Typed {
                    value: KeyFile { path, passphrase },
                    key: key.key,
                    span: key.span,
                };
                return Some((chain, key));
            }
            (Some(chain), None) => (chain, ("key", self.program.key)),
            (None, Some(key)) => (key, ("chain", self.program.chain)),
        };
        findings.missing(
            there.span,
            format!(
                "`{}`: a certificate needs its key, and a key its certificate",
                there.key
            ),
            format!(
                "name the other file too: `{}` in [{}], or {}",
                missing.0, self.program.section, missing.1
            ),
        );
        None
    }

    fn refuse_passphrase_alone(&self, findings: &mut Findings<'_>) {
        if let Some(place) = self.written.passphrase.place() {
            let (section, variable) = (self.program.section, self.program.key);
            findings.missing(
                place.span,
                format!("`{}`: there is no key for it to open", place.key),
                format!(
                    "add `chain` and `key` to [{section}] ({variable} names one, too), or remove it"
                ),
            );
        }
    }

    /// A path as it is opened: what a variable names begins where the process was started.
    fn path(&self, typed: &Typed<String>, findings: &mut Findings<'_>) -> Option<Typed<PathBuf>> {
        let folder = match typed.span == NOWHERE {
            true => Path::new(""),
            false => self.folder,
        };
        Some(Typed {
            key: typed.key.clone(),
            value: files::path(typed, folder, findings)?,
            span: typed.span.clone(),
        })
    }

    fn server_name(&self, agent: &Place, findings: &mut Findings<'_>) -> Option<String> {
        let typed = self.either(self.written.server_name, self.program.server_name, findings);
        let Some(typed) = typed else {
            if agent.https && matches!(agent.address, ConsulAddress::Unix(_)) {
                findings.missing(
                    agent.said.span.clone(),
                    format!(
                        "`{}`: a socket has no name that the agent's certificate could prove",
                        agent.said.key
                    ),
                    "add `server_name = \"localhost\"`, or what the certificate says",
                );
            }
            return None;
        };
        read(&typed, findings, |text| {
            match ServerName::try_from(text.as_str()) {
                Ok(_) => Ok(text.clone()),
                Err(_) => Err(Wrong::new(
                    format!("{text:?} is neither a host name nor an IP address"),
                    format!(
                        "write what the agent's certificate says, such as {}, without a port",
                        self.program.name_example
                    ),
                )),
            }
        })
    }

    /// What the client will be made from, tried: the chain and its key, and the system's CAs where no others are named.
    fn check(
        &self,
        roots: Option<&[PathBuf]>,
        certificate: Option<&(Typed<PathBuf>, Typed<KeyFile>)>,
        place: &Typed<()>,
        findings: &mut Findings<'_>,
    ) {
        let Some(roots) = roots else { return };
        let pair = certificate.map(|(chain, key)| (chain.value.as_path(), &key.value));
        let Err(error) = client::config(roots, pair, Proof::ServerName) else {
            return;
        };
        let passphrase = self.written.passphrase;
        let named = match (&error, certificate) {
            (ClientError::File(file), Some((_, key))) => {
                passphrase.naming(&key.value.passphrase, &file.path)
            }
            _ => None,
        };
        let blamed = match (&error, certificate) {
            // Told already, where it is named.
            (ClientError::File(file), _) if roots.contains(&file.path) => return,
            (ClientError::File(file), Some((chain, _))) if file.path == chain.value => {
                chain.place()
            }
            (ClientError::File(_), Some((_, key))) => key.place(),
            _ => place.clone(),
        };
        let blamed = named.map_or(blamed, |named| named.place());
        findings.error(
            blamed.span,
            format!("`{}`: {error}", blamed.key),
            error.help().unwrap_or("look at the files that are named"),
        );
    }

    /// What is written for TLS, and has no effect without it.
    fn warn_of_no_tls(&self, findings: &mut Findings<'_>) {
        let section = self.written;
        let roots = section.roots.iter().map(|list| (&list.key, &list.span));
        let others = [section.chain, section.server_name].into_iter().flatten();
        let others = others.map(|typed| (&typed.key, &typed.span));
        if let Some((key, span)) = roots.chain(others).next() {
            findings.warning(
                Some(span.clone()),
                format!("`{key}` has no effect: the agent is spoken to over plain HTTP"),
                "write https:// in `address`, or remove it",
            );
        }
    }
}

/// Every file of a directory, but for hidden ones: Kubernetes keeps the links of a mounted volume in those.
fn files_in(directory: &Typed<String>) -> Result<Vec<Typed<String>>, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&directory.value).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let is_hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if is_hidden || path.is_dir() {
            continue;
        }
        let Some(path) = path.to_str() else {
            return Err("the name of a file in it is not UTF-8".to_owned());
        };
        files.push(Typed {
            value: path.to_owned(),
            ..directory.clone()
        });
    }
    files.sort_by(|a, b| a.value.cmp(&b.value));
    match files.is_empty() {
        true => Err("holds no file".to_owned()),
        false => Ok(files),
    }
}
