//! Directories of certificates: which file is whose key.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::files::{Certificate, FileError, parse};
use super::key::KeyFile;
use super::passphrase::Source;
use super::pem::{Pem, unreadable};

impl Certificate {
    /// Reads every pair in a directory: `NAME.crt|pem` + `NAME.key`, `NAME.pem` + `NAME-key.pem`, `fullchain.pem` +
    /// `privkey.pem`, or `NAME.pem` with both; there and in its direct subdirectories, in the order of their names.
    ///
    /// One bad pair does not hide the others. Hidden files are left alone (Kubernetes keeps the targets of its links
    /// in `..data`), and so are CA certificates without a key; other halves of a pair are errors. Of every key that is
    /// encrypted the passphrase comes from the same source.
    pub fn load_directory(directory: &Path, passphrase: &Source) -> (Vec<Self>, Vec<FileError>) {
        let mut certificates = Vec::new();
        let mut errors = Vec::new();
        for directory in with_subdirectories(directory, &mut errors) {
            let files = visible_entries(&directory, &mut errors);
            for (chain, key) in pairs(&files) {
                match key {
                    Some(path) => {
                        let passphrase = passphrase.clone();
                        match Self::load(&chain, &KeyFile { path, passphrase }) {
                            Ok(certificate) => certificates.push(certificate),
                            Err(error) => errors.push(error),
                        }
                    }
                    None => errors.extend(lone_chain(&chain)),
                }
            }
            errors.extend(
                lone_keys(&files).map(|key| {
                    FileError::new(&key, "no certificate stands beside this key", LAYOUTS)
                }),
            );
        }
        if certificates.is_empty() && errors.is_empty() {
            errors.push(FileError::new(
                directory,
                "holds no certificate with its key",
                LAYOUTS,
            ));
        }
        (certificates, errors)
    }
}

const LAYOUTS: &str = "write NAME.crt or NAME.pem with NAME.key beside it, fullchain.pem with privkey.pem, \
                       or NAME.pem with both the chain and the key in it";

/// A directory and its direct, visible subdirectories.
fn with_subdirectories(directory: &Path, errors: &mut Vec<FileError>) -> Vec<PathBuf> {
    let mut directories = vec![directory.to_owned()];
    directories.extend(
        visible_entries(directory, errors)
            .into_iter()
            .filter(|entry| entry.is_dir()),
    );
    directories
}

/// What is in a directory and not hidden, in the order of the names.
fn visible_entries(directory: &Path, errors: &mut Vec<FileError>) -> BTreeSet<PathBuf> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            let error = unreadable(directory, &error);
            if !errors.contains(&error) {
                errors.push(error);
            }
            return BTreeSet::new();
        }
    };
    entries
        .flatten()
        .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
        .map(|entry| entry.path())
        .collect()
}

/// Every file that may be a chain, with the file that its key is in, if there is one.
fn pairs(files: &BTreeSet<PathBuf>) -> impl Iterator<Item = (PathBuf, Option<PathBuf>)> {
    let certbot = files.iter().any(|file| is_named(file, "fullchain.pem"))
        && files.iter().any(|file| is_named(file, "privkey.pem"));
    files
        .iter()
        .filter(|file| has_extension(file, "crt") || has_extension(file, "pem"))
        .filter(|file| !is_key_file(file))
        // Certbot writes the same certificate and its chain once more, apart.
        .filter(move |file| {
            !(certbot && (is_named(file, "cert.pem") || is_named(file, "chain.pem")))
        })
        .map(|chain| {
            (
                chain.clone(),
                key_of(chain)
                    .into_iter()
                    .find(|key| files.contains(key))
                    .or_else(|| combined(chain)),
            )
        })
}

/// Where the key of a chain may stand.
fn key_of(chain: &Path) -> Vec<PathBuf> {
    let mut keys = vec![chain.with_extension("key")];
    if let Some(stem) = chain.file_stem() {
        let mut name = stem.to_owned();
        name.push("-key.pem");
        keys.push(chain.with_file_name(name));
    }
    if is_named(chain, "fullchain.pem") {
        keys.push(chain.with_file_name("privkey.pem"));
    }
    keys
}

/// The file itself, if it holds both halves.
fn combined(chain: &Path) -> Option<PathBuf> {
    Pem::read(chain)
        .is_ok_and(|pem| pem.holds_key())
        .then(|| chain.to_owned())
}

/// What is wrong with a chain that has no key: nothing, if it is a CA's.
fn lone_chain(chain: &Path) -> Option<FileError> {
    let pem = match Pem::read(chain) {
        Ok(pem) => pem,
        Err(error) => return Some(error),
    };
    match pem.certificates() {
        Err(error) => Some(error),
        Ok([first, ..]) if parse(first).is_some_and(|leaf| leaf.is_ca()) => None,
        Ok(_) => Some(FileError::new(
            chain,
            "no key stands beside this certificate",
            LAYOUTS,
        )),
    }
}

/// Keys whose name no chain shares.
fn lone_keys(files: &BTreeSet<PathBuf>) -> impl Iterator<Item = PathBuf> {
    let used: BTreeSet<PathBuf> = pairs(files).filter_map(|(_, key)| key).collect();
    files
        .iter()
        .filter(|file| is_key_file(file))
        .filter(move |file| !used.contains(*file))
        .cloned()
}

fn is_key_file(file: &Path) -> bool {
    has_extension(file, "key")
        || is_named(file, "privkey.pem")
        || file
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().ends_with(b"-key.pem"))
}

fn is_named(file: &Path, name: &str) -> bool {
    file.file_name().is_some_and(|own| own == name)
}

fn has_extension(file: &Path, extension: &str) -> bool {
    file.extension().is_some_and(|own| own == extension)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::super::test_certs::{Ca, write};
    use super::*;
    use std::os::unix::fs::symlink;

    /// The sources of what loads, and the errors, both relative to the directory.
    fn load(directory: &Path) -> (Vec<String>, Vec<String>) {
        let (certificates, errors) = Certificate::load_directory(directory, &Source::default());
        let relative = |path: &Path| path.strip_prefix(directory).unwrap().display().to_string();
        (
            certificates
                .iter()
                .map(|one| relative(&one.source))
                .collect(),
            errors
                .iter()
                .map(|error| format!("{}: {}", relative(&error.path), error.message))
                .collect(),
        )
    }

    fn subdirectory(directory: &Path, name: &str) -> PathBuf {
        let path = directory.join(name);
        std::fs::create_dir(&path).unwrap();
        path
    }

    #[test]
    fn every_layout_is_found_in_the_order_of_the_names_and_one_level_down() {
        let root = tempfile::tempdir().unwrap();
        let issued = Ca::new("ca").issue(&["a.example.com"]);
        let both = format!("{}{}", issued.key_pem, issued.chain_pem);
        issued.write(root.path(), "zebra");
        write(root.path(), "tls.crt", &issued.chain_pem);
        write(root.path(), "tls.key", &issued.key_pem);
        write(root.path(), "both.pem", &both);
        write(root.path(), "mkcert.pem", &issued.chain_pem);
        write(root.path(), "mkcert-key.pem", &issued.key_pem);
        write(root.path(), "README", "not looked at");
        let certbot = subdirectory(root.path(), "a.example.com");
        for name in ["fullchain.pem", "cert.pem", "chain.pem"] {
            write(&certbot, name, &issued.chain_pem);
        }
        write(&certbot, "privkey.pem", &issued.key_pem);
        let deeper = subdirectory(&certbot, "deeper");
        issued.write(&deeper, "unseen");
        let (found, errors) = load(root.path());
        assert_eq!(errors, [""; 0]);
        assert_eq!(
            found,
            [
                "both.pem",
                "mkcert.pem",
                "tls.crt",
                "zebra.pem",
                "a.example.com/fullchain.pem"
            ]
        );
    }

    #[test]
    fn a_mounted_kubernetes_secret_is_read_once_through_its_links() {
        let root = tempfile::tempdir().unwrap();
        let issued = Ca::new("ca").issue(&["a.example.com"]);
        let data = subdirectory(root.path(), "..2026_11_22_15_00_00.1");
        write(&data, "tls.crt", &issued.chain_pem);
        write(&data, "tls.key", &issued.key_pem);
        symlink("..2026_11_22_15_00_00.1", root.path().join("..data")).unwrap();
        symlink("..data/tls.crt", root.path().join("tls.crt")).unwrap();
        symlink("..data/tls.key", root.path().join("tls.key")).unwrap();
        assert_eq!(load(root.path()), (vec!["tls.crt".to_owned()], vec![]));
    }

    #[test]
    fn one_bad_pair_does_not_hide_the_others() {
        let root = tempfile::tempdir().unwrap();
        let ca = Ca::new("ca");
        ca.issue(&["a.example.com"]).write(root.path(), "good");
        ca.issue(&["a.example.com"]).write(root.path(), "mixed");
        write(
            root.path(),
            "mixed.key",
            ca.issue(&["a.example.com"]).key_pem,
        );
        write(root.path(), "empty.crt", "");
        write(
            root.path(),
            "alone.pem",
            ca.issue(&["a.example.com"]).chain_pem,
        );
        write(root.path(), "ca.pem", ca.pem());
        write(
            root.path(),
            "orphan.key",
            ca.issue(&["a.example.com"]).key_pem,
        );
        symlink("nowhere", root.path().join("gone.pem")).unwrap();
        let (found, errors) = load(root.path());
        assert_eq!(found, ["good.pem"]);
        assert_eq!(
            errors,
            [
                "alone.pem: no key stands beside this certificate".to_owned(),
                "empty.crt: is empty".to_owned(),
                "gone.pem: does not exist".to_owned(),
                format!(
                    "mixed.key: the key does not belong to the certificate in {}",
                    root.path().join("mixed.pem").display()
                ),
                "orphan.key: no certificate stands beside this key".to_owned(),
            ]
        );
    }

    #[test]
    fn a_directory_without_any_certificate_or_none_at_all_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let (_, errors) = Certificate::load_directory(root.path(), &Source::default());
        assert_eq!(errors[0].message, "holds no certificate with its key");
        assert!(
            errors[0]
                .help
                .as_ref()
                .unwrap()
                .contains("fullchain.pem with privkey.pem")
        );
        let (_, errors) =
            Certificate::load_directory(&root.path().join("missing"), &Source::default());
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].message, "does not exist");
    }
}
