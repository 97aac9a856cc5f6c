//! What is no PEM: what it is instead, and the line that converts it.

use std::path::{Path, PathBuf};

use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::der::asn1::AnyRef;
use pkcs8::der::{Decode, Tag, Tagged};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{FileError, shell_word};
use crate::tls::files::parse;

pub(super) fn not_pem(path: &Path, bytes: &[u8]) -> FileError {
    let (message, help) = if bytes.trim_ascii().is_empty() {
        (
            "is empty",
            "write the PEM text into it; half-written files are read again once they are whole"
                .to_owned(),
        )
    } else if is_pkcs12(bytes) {
        ("is PKCS#12, not PEM", from_pkcs12(path, bytes))
    } else if is_der(bytes) {
        ("is DER, not PEM", from_der(path, bytes))
    } else if bytes.windows(11).any(|window| window == b"-----BEGIN ") {
        (
            "`-----BEGIN` does not stand at the start of its line",
            "remove what stands before it, spaces too".to_owned(),
        )
    } else {
        (
            "is not PEM",
            "a PEM file has a line `-----BEGIN CERTIFICATE-----` or `-----BEGIN PRIVATE KEY-----`"
                .to_owned(),
        )
    };
    FileError::new(path, message, help)
}

/// A PFX (RFC 7292 §4): a sequence that begins with its version, 3. Its length may be left open.
fn is_pkcs12(bytes: &[u8]) -> bool {
    let Some((0x30, rest)) = bytes.split_first().map(|(tag, rest)| (*tag, rest)) else {
        return false;
    };
    let length = match rest.first() {
        Some(long @ 0x80..=0x84) => usize::from(long & 0x7f),
        _ => return false,
    };
    rest.get(1 + length..)
        .is_some_and(|content| content.starts_with(&[0x02, 0x01, 0x03]))
}

/// The key stays encrypted, in a form that is opened here, whatever an openssl takes by itself: before 3.0 that is 3DES.
fn from_pkcs12(path: &Path, bytes: &[u8]) -> String {
    let (old, new) = (shell_word(path), new_file(path));
    let convert = "convert it, and name the new file as certificate and key: openssl pkcs12";
    match holds_legacy(bytes) {
        false => format!("{convert} -in {old} -aes256 -out {new}"),
        true => format!(
            "{convert} -legacy -in {old} -aes256 -out {new} (it is encrypted with RC2 or RC4; before openssl 3.0 without -legacy)"
        ),
    }
}

/// Whether a part of it is encrypted with what openssl 3 reads only by `-legacy` (RFC 7292 §C: all but 3DES).
fn holds_legacy(bytes: &[u8]) -> bool {
    // The object identifier 1.2.840.113549.1.12.1, whose next number is the algorithm's.
    const BY_PBE: [u8; 11] = [
        0x06, 0x0a, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x01,
    ];
    bytes.windows(BY_PBE.len() + 1).any(|window| {
        matches!(window.split_last(), Some((1 | 2 | 5 | 6, identifier)) if *identifier == BY_PBE)
    })
}

/// A sequence, however long: every certificate and every key is one.
fn is_der(bytes: &[u8]) -> bool {
    // One of 256 bytes and more is known also when it was cut.
    bytes.starts_with(&[0x30, 0x82])
        || AnyRef::from_der(bytes).is_ok_and(|whole| whole.tag() == Tag::Sequence)
}

fn from_der(path: &Path, bytes: &[u8]) -> String {
    let (old, new) = (shell_word(path), new_file(path));
    let certificate = format!("openssl x509 -inform der -in {old} -out {new}");
    let key = format!("openssl pkey -inform der -in {old} -out {new}");
    if EncryptedPrivateKeyInfoRef::try_from(bytes).is_ok() {
        format!("convert it: {key} -aes256")
    } else if parse(&CertificateDer::from(bytes)).is_some() {
        format!("convert it: {certificate}")
    } else if PrivateKeyDer::try_from(bytes).is_ok() {
        format!("convert it: {key}")
    } else {
        format!("convert it: {certificate} (a certificate), or {key} (a key)")
    }
}

/// openssl empties a file that is there, and leaves it as readable as it was; a new one is its owner's alone.
fn new_file(path: &Path) -> String {
    let extensions = ["pem", "new.pem", "new2.pem"];
    let mut names = extensions.map(|end| path.with_extension(end)).into_iter();
    let new: Option<PathBuf> = names.find(|new| new != path && !new.exists());
    new.map_or_else(|| "NEW.pem".to_owned(), |new| shell_word(&new))
}
