//! The files that a configuration names, read while it is checked: certificates, keys and CAs.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::decode::{Item, List, Table, Typed};
use super::diagnostic::{Findings, NOWHERE};
use super::{CertificateFiles, file, passphrase};
use crate::tls::chain::{self, Time};
use crate::tls::files::{Certificate, FileError, OwnCertificate, Pair, load_roots, missing};
use crate::tls::key::KeyFile;

/// A chain, its key, and where the key's passphrase comes from, as they are typed.
#[derive(Clone, Debug)]
pub(super) struct TypedPair {
    pub(super) chain: Typed<String>,
    pub(super) key: Typed<String>,
    pub(super) passphrase: passphrase::Keys,
}

impl TypedPair {
    /// Takes its keys from a table, which must have the first two; of those an example each.
    pub(super) fn require(
        table: &mut Table<'_>,
        [chain, key]: [&str; 2],
        findings: &mut Findings<'_>,
    ) -> Option<Self> {
        let chain = table.require("chain", chain, findings, Item::string);
        let key = table.require("key", key, findings, Item::string);
        let passphrase = passphrase::Keys::take(table, findings);
        chain.zip(key).map(|(chain, key)| Self {
            chain,
            key,
            passphrase,
        })
    }
}

/// The edge certificates: where they are, and what was read from there.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    pub(super) files: Vec<CertificateFiles>,
    pub(super) loaded: Vec<Certificate>,
    /// Whether one that is named does not serve, so that nobody knows which names it would prove.
    pub(super) is_partial: bool,
}

pub(super) fn certificates(
    entries: &[file::Certificate],
    folder: &Path,
    findings: &mut Findings<'_>,
) -> Certificates {
    let mut certificates = Certificates::default();
    for entry in entries {
        match entry {
            file::Certificate::Pair(typed, nameless) => {
                let before = certificates.loaded.len();
                pair(typed, *nameless, folder, &mut certificates, findings);
                certificates.is_partial |= certificates.loaded.len() == before;
            }
            file::Certificate::Directory(path, passphrase) => {
                directory(path, passphrase, folder, &mut certificates, findings);
            }
        }
    }
    certificates
}

fn pair(
    typed: &TypedPair,
    nameless: bool,
    folder: &Path,
    certificates: &mut Certificates,
    findings: &mut Findings<'_>,
) {
    let Some((files, loaded)) = load_pair(typed, folder, findings, Certificate::load) else {
        return;
    };
    if let Some(mut certificate) = loaded {
        warn(&certificate, &typed.chain, findings);
        certificate.nameless = nameless;
        certificates.loaded.push(certificate);
    }
    let (chain, KeyFile { path: key, .. }) = files;
    certificates
        .files
        .push(CertificateFiles::Pair { chain, key });
}

/// The certificate that the gateway itself shows to somebody, with its key; looked at, and read again when it is used.
pub(super) fn own_certificate(
    typed: &TypedPair,
    folder: &Path,
    findings: &mut Findings<'_>,
) -> Option<(PathBuf, KeyFile)> {
    let (files, loaded) = load_pair(typed, folder, findings, Pair::load)?;
    let pair = loaded?;
    warn_of(&pair.warnings, &typed.chain, findings);
    let OwnCertificate {
        not_before,
        not_after,
        is_for_clients,
        ..
    } = pair.own;
    if !is_for_clients {
        let source = files.0.display();
        findings.warning(
            Some(typed.chain.span.clone()),
            format!(
                "`{}`: {source}: the certificate is not for clients (extendedKeyUsage): whoever verifies it will refuse it",
                typed.chain.key
            ),
            "have it issued with extendedKeyUsage=clientAuth, beside serverAuth if a server shows it too",
        );
    }
    let refused = "renew it: whoever asks for it will refuse it";
    let term = (not_before, not_after);
    warn_of_time(term, &files.0, &typed.chain, refused, findings);
    findings.shows(pair.own);
    Some(files)
}

/// Two paths, and what was read from there; a file that does not serve is reported at the key that names it.
fn load_pair<T>(
    typed: &TypedPair,
    folder: &Path,
    findings: &mut Findings<'_>,
    load: impl FnOnce(&Path, &KeyFile) -> Result<T, FileError>,
) -> Option<((PathBuf, KeyFile), Option<T>)> {
    let TypedPair {
        chain,
        key,
        passphrase,
    } = typed;
    let paths = path(chain, folder, findings).zip(path(key, folder, findings));
    let source = passphrase.source(folder, findings);
    let ((chain_path, path), source) = paths.zip(source)?;
    let key_file = KeyFile {
        path,
        passphrase: source,
    };
    let loaded = load(&chain_path, &key_file).map_err(|error| {
        if let Some(named) = passphrase.naming(&key_file.passphrase, &error.path) {
            return report(&named, &error, findings);
        }
        let is_chain = error.path == chain_path && chain_path != key_file.path;
        let blamed = if is_chain { chain } else { key };
        report(blamed, &error, findings);
        // Reading stopped at the chain: the key's absence would only be told the next time.
        if is_chain && let Some(error) = missing(&key_file.path) {
            report(key, &error, findings);
        }
    });
    Some(((chain_path, key_file), loaded.ok()))
}

/// A broken pair in a directory does not stop the others, as it will not when the directory is read again.
fn directory(
    typed: &Typed<String>,
    passphrase: &passphrase::Keys,
    folder: &Path,
    certificates: &mut Certificates,
    findings: &mut Findings<'_>,
) {
    let source = passphrase.source(folder, findings);
    let Some((directory, source)) = path(typed, folder, findings).zip(source) else {
        return;
    };
    let (loaded, errors) = Certificate::load_directory(&directory, &source);
    for error in errors {
        if let Some(named) = passphrase.naming(&source, &error.path) {
            report(&named, &error, findings);
        // One that cannot be read just now is not broken.
        } else if error.path == directory || error.may_pass {
            report(typed, &error, findings);
        } else {
            let (message, help) = told(typed, &error);
            findings.warning(Some(typed.span.clone()), message, help);
        }
    }
    for certificate in &loaded {
        warn(certificate, typed, findings);
    }
    certificates.loaded.extend(loaded);
    certificates
        .files
        .push(CertificateFiles::Directory(directory));
}

fn warn(certificate: &Certificate, typed: &Typed<String>, findings: &mut Findings<'_>) {
    warn_of(&certificate.warnings, typed, findings);
    let refused = "renew it: clients that check will refuse it";
    let term = (certificate.not_before, certificate.not_after);
    warn_of_time(term, &certificate.source, typed, refused, findings);
}

fn warn_of(warnings: &[String], typed: &Typed<String>, findings: &mut Findings<'_>) {
    for warning in warnings {
        findings.warning(
            Some(typed.span.clone()),
            format!("`{}`: {warning}", typed.key),
            "mend the file; until then it is used as it is",
        );
    }
}

/// Of what has expired, and of what is in the last tenth of its time.
fn warn_of_time(
    (not_before, not_after): (SystemTime, SystemTime),
    source: &Path,
    typed: &Typed<String>,
    refused: &str,
    findings: &mut Findings<'_>,
) {
    let end = jiff::Timestamp::try_from(not_after);
    let (told, help) = match chain::time(not_before, not_after, SystemTime::now()) {
        Time::Left(_) | Time::NotYet(_) => return,
        Time::Over(_) => {
            let end = end.map_or_else(|_| "long ago".to_owned(), |end| format!("at {end}"));
            (format!("expired {end}"), refused)
        }
        Time::Short(left) => {
            let end = end.map_or_else(|_| "soon".to_owned(), |end| format!("at {end}"));
            let left = chain::span(left);
            let told = format!("expires {end}, in {left}: it is in the last tenth of its time");
            (told, "renew it, and see why that has not happened yet")
        }
    };
    findings.warning(
        Some(typed.span.clone()),
        format!(
            "`{}`: {}: the certificate {told}",
            typed.key,
            source.display()
        ),
        help,
    );
}

/// The CA files of a list, each of which must hold a certificate.
pub(super) fn roots(
    list: &List<Typed<String>>,
    folder: &Path,
    findings: &mut Findings<'_>,
) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for typed in &list.value {
        if let Some(path) = path(typed, folder, findings) {
            if let Err(error) = load_roots(std::slice::from_ref(&path)) {
                report(typed, &error, findings);
            }
            paths.push(path);
        }
    }
    paths
}

/// The path of what is read, as it is opened: absolute, or from the configuration's folder.
pub(super) fn path(
    typed: &Typed<String>,
    folder: &Path,
    findings: &mut Findings<'_>,
) -> Option<PathBuf> {
    let path = place(typed, folder, findings)?;
    findings.reads(&path);
    Some(path)
}

/// The same for what is not read.
pub(super) fn place(
    typed: &Typed<String>,
    folder: &Path,
    findings: &mut Findings<'_>,
) -> Option<PathBuf> {
    let wrong = match typed.value.as_str() {
        "" => "is empty",
        home if home.starts_with("~/") => {
            "begins with `~`, which is the shell's and not expanded here"
        }
        text if text.contains('\0') => "holds a NUL byte",
        text => return Some(folder.join(text)),
    };
    findings.error(
        typed.span.clone(),
        format!("`{}`: the path {wrong}", typed.key),
        where_paths_start(typed),
    );
    None
}

fn where_paths_start(typed: &Typed<String>) -> &'static str {
    match typed.span == NOWHERE {
        true => "write a path from the root",
        false => "write a path from the root, or one from the folder that this configuration is in",
    }
}

fn report(typed: &Typed<String>, error: &FileError, findings: &mut Findings<'_>) {
    let (message, help) = told(typed, error);
    findings.error(typed.span.clone(), message, help);
    if error.may_pass {
        findings.may_pass();
    }
}

fn told(typed: &Typed<String>, error: &FileError) -> (String, String) {
    let message = format!("`{}`: {error}", typed.key);
    (
        message,
        error
            .help
            .clone()
            .unwrap_or_else(|| where_paths_start(typed).to_owned()),
    )
}
