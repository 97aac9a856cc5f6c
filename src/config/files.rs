//! The files that a configuration names, read while it is checked: certificates, keys and CAs.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::CertificateFiles;
use super::decode::{List, Typed};
use super::diagnostic::{Findings, NOWHERE};
use super::file;
use crate::tls::files::{Certificate, FileError, Pair, load_roots, missing};

/// The edge certificates: where they are, and what was read from there.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    pub(super) files: Vec<CertificateFiles>,
    pub(super) loaded: Vec<Certificate>,
}

pub(super) fn certificates(
    entries: &[file::Certificate],
    folder: &Path,
    findings: &mut Findings<'_>,
) -> Certificates {
    let mut certificates = Certificates::default();
    for entry in entries {
        match entry {
            file::Certificate::Pair { chain, key } => {
                pair(chain, key, folder, &mut certificates, findings);
            }
            file::Certificate::Directory(path) => {
                directory(path, folder, &mut certificates, findings);
            }
        }
    }
    certificates
}

fn pair(
    chain: &Typed<String>,
    key: &Typed<String>,
    folder: &Path,
    certificates: &mut Certificates,
    findings: &mut Findings<'_>,
) {
    let Some((paths, loaded)) = load_pair(chain, key, folder, findings, Certificate::load) else {
        return;
    };
    if let Some(certificate) = loaded {
        warn(&certificate, chain, findings);
        certificates.loaded.push(certificate);
    }
    let (chain, key) = paths;
    certificates
        .files
        .push(CertificateFiles::Pair { chain, key });
}

/// The certificate that the gateway itself shows to somebody, with its key; looked at, and read again when it is used.
pub(super) fn own_certificate(
    chain: &Typed<String>,
    key: &Typed<String>,
    folder: &Path,
    findings: &mut Findings<'_>,
) -> Option<(PathBuf, PathBuf)> {
    let (paths, loaded) = load_pair(chain, key, folder, findings, Pair::load)?;
    let pair = loaded?;
    warn_of(&pair.warnings, chain, findings);
    let refused = "renew it: whoever asks for it will refuse it";
    warn_if_expired(pair.not_after, &paths.0, chain, refused, findings);
    Some(paths)
}

/// Two paths, and what was read from there; a file that does not serve is reported at the key that names it.
fn load_pair<T>(
    chain: &Typed<String>,
    key: &Typed<String>,
    folder: &Path,
    findings: &mut Findings<'_>,
    load: impl FnOnce(&Path, &Path) -> Result<T, FileError>,
) -> Option<((PathBuf, PathBuf), Option<T>)> {
    let paths = path(chain, folder, findings).zip(path(key, folder, findings));
    let (chain_path, key_path) = paths?;
    let loaded = load(&chain_path, &key_path).map_err(|error| {
        let blamed = if error.path == key_path { key } else { chain };
        report(blamed, &error, findings);
        // Reading stopped at the chain: the key's absence would only be told the next time.
        if blamed.span == chain.span
            && let Some(error) = missing(&key_path)
        {
            report(key, &error, findings);
        }
    });
    Some(((chain_path, key_path), loaded.ok()))
}

/// A broken pair in a directory does not stop the others, as it will not when the directory is read again.
fn directory(
    typed: &Typed<String>,
    folder: &Path,
    certificates: &mut Certificates,
    findings: &mut Findings<'_>,
) {
    let Some(directory) = path(typed, folder, findings) else {
        return;
    };
    let (loaded, errors) = Certificate::load_directory(&directory);
    for error in errors {
        // One that cannot be read just now is not broken.
        if error.path == directory || error.may_pass {
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
    let Certificate {
        not_after, source, ..
    } = certificate;
    warn_if_expired(*not_after, source, typed, refused, findings);
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

fn warn_if_expired(
    not_after: SystemTime,
    source: &Path,
    typed: &Typed<String>,
    help: &str,
    findings: &mut Findings<'_>,
) {
    if not_after >= SystemTime::now() {
        return;
    }
    let source = source.display();
    let end = jiff::Timestamp::try_from(not_after)
        .map_or_else(|_| "long ago".to_owned(), |end| format!("at {end}"));
    findings.warning(
        Some(typed.span.clone()),
        format!("`{}`: {source}: the certificate expired {end}", typed.key),
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
