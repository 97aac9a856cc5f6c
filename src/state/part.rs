//! The form of a part on the disk: a line that says what it is, a checksum, and a body that may be sealed.

use std::fmt;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{Context, SHA256, digest};
use data_encoding::{
    BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE,
};

/// The first word of every part.
const MAGIC: &str = "portcullis-state";

/// The form that is written, and the only one that is read. It grows when an older program would misread a part.
const VERSION: u32 = 1;

/// What parts are sealed with: AES-256-GCM (NIST SP 800-38D), with a nonce by chance for each time a part is written.
///
/// Once a second, 2^32 nonces last for 136 years, which is as many as one key may have.
pub(super) struct Key {
    cipher: RandomizedNonceKey,
    print: [u8; 32],
    is_open_to_all: bool,
}

impl Key {
    /// Reads a key of 32 bytes: as they are, or written in hex or in base64.
    pub(super) fn read(path: &Path) -> Result<Self, KeyError> {
        const MOST: u64 = 256;
        let wrong = |why: String| KeyError {
            path: path.display().to_string(),
            why,
        };
        let unreadable = |error| wrong(format!("cannot be read: {error}"));
        // Asked before opening: opening a FIFO would wait for its writer.
        let metadata = std::fs::metadata(path).map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(wrong("is no regular file".to_owned()));
        }
        // Whoever puts a key of his own there can seal a state of his own with it.
        let mode = metadata.mode() & 0o7777;
        if mode & 0o022 != 0 {
            let remedy = format!("`chmod go-w {}`", path.display());
            return Err(wrong(format!(
                "can be written to by others (mode {mode:04o}): {remedy}"
            )));
        }
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(MOST)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        let key = decoded(&bytes).and_then(|key| Self::of(&key, mode & 0o007 != 0));
        key.ok_or_else(|| {
            wrong("does not hold 32 bytes, as they are or written in hex or base64".to_owned())
        })
    }
}

impl Key {
    fn of(bytes: &[u8], is_open_to_all: bool) -> Option<Self> {
        Some(Self {
            is_open_to_all,
            cipher: RandomizedNonceKey::new(&AES_256_GCM, bytes).ok()?,
            print: digest(&SHA256, bytes).as_ref().try_into().ok()?,
        })
    }

    /// Whether every user of this machine may read it. A group may be meant to.
    pub(super) fn is_open_to_all(&self) -> bool {
        self.is_open_to_all
    }

    /// By which another key is told from this one; never written anywhere.
    pub(super) fn print(&self) -> [u8; 32] {
        self.print
    }
}

/// Without the key.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// Why a file gives no key. Says nothing of what it holds.
#[derive(Debug, thiserror::Error)]
#[error("{path} {why}")]
pub struct KeyError {
    path: String,
    why: String,
}

fn decoded(bytes: &[u8]) -> Option<Vec<u8>> {
    // 32 characters of text are somebody's password, or 16 bytes in hex: never a key by chance.
    if bytes.len() == 32 && !bytes.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        return Some(bytes.to_vec());
    }
    let text = bytes.trim_ascii();
    let forms = [
        &HEXLOWER_PERMISSIVE,
        &BASE64,
        &BASE64_NOPAD,
        &BASE64URL,
        &BASE64URL_NOPAD,
    ];
    let mut keys = forms.iter().filter_map(|form| form.decode(text).ok());
    keys.find(|key| key.len() == 32)
}

/// Why a part that is there is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{0}")]
    Unread(String),
    #[error("it is damaged")]
    Damaged,
    #[error("it is of another version of portcullis")]
    Version,
    #[error("it is not sealed, and `state_key_file` is set")]
    Unsealed,
    #[error("it is sealed, and no `state_key_file` is set")]
    NoKey,
    #[error(
        "it is sealed with another key than that of `state_key_file`, or somebody has altered it"
    )]
    OtherKey,
}

/// The bytes of a part for the disk.
///
/// `NAME` and the version are said in its first line, over which the checksum and the seal go too: a part is never taken
/// for another.
pub(super) fn encode(name: &str, body: Vec<u8>, key: Option<&Key>) -> Option<Vec<u8>> {
    let header = header(name, key.is_some());
    let body = match key {
        None => body,
        Some(Key { cipher, .. }) => {
            let mut sealed = body;
            let aad = Aad::from(header.as_bytes());
            let nonce = cipher.seal_in_place_append_tag(aad, &mut sealed).ok()?;
            [&nonce.as_ref()[..], &sealed].concat()
        }
    };
    let sum = checksum(&header, &body);
    Some([header.as_bytes(), sum.as_bytes(), b"\n", &body].concat())
}

/// The body of a part, if these are the bytes that were written of it.
pub(super) fn decode(name: &str, bytes: &[u8], key: Option<&Key>) -> Result<Vec<u8>, Refusal> {
    let mut lines = bytes.splitn(3, |byte| *byte == b'\n');
    let (Some(first), Some(sum), Some(body)) = (lines.next(), lines.next(), lines.next()) else {
        return Err(Refusal::Damaged);
    };
    let [plain, sealed] = [false, true].map(|sealed| header(name, sealed));
    let is = |header: &str| header.strip_suffix('\n').map(str::as_bytes) == Some(first);
    let (header, is_sealed) = match (is(&plain), is(&sealed)) {
        (true, _) => (plain, false),
        (_, true) => (sealed, true),
        _ if is_of_another_version(first) => return Err(Refusal::Version),
        _ => return Err(Refusal::Damaged),
    };
    if checksum(&header, body).as_bytes() != sum {
        return Err(Refusal::Damaged);
    }
    match (key, is_sealed) {
        (None, false) => Ok(body.to_vec()),
        (Some(_), false) => Err(Refusal::Unsealed),
        (None, true) => Err(Refusal::NoKey),
        (Some(Key { cipher, .. }), true) => {
            let (nonce, sealed) = body.split_at_checked(NONCE_LEN).ok_or(Refusal::Damaged)?;
            let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Refusal::Damaged)?;
            let mut sealed = sealed.to_vec();
            let aad = Aad::from(header.as_bytes());
            let opened = cipher.open_in_place(nonce, aad, &mut sealed);
            let length = opened.map_err(|_| Refusal::OtherKey)?.len();
            sealed.truncate(length);
            Ok(sealed)
        }
    }
}

fn header(name: &str, is_sealed: bool) -> String {
    let form = if is_sealed { "sealed" } else { "plain" };
    format!("{MAGIC} {VERSION} {name} {form}\n")
}

fn checksum(header: &str, body: &[u8]) -> String {
    let mut sum = Context::new(&SHA256);
    sum.update(header.as_bytes());
    sum.update(body);
    HEXLOWER.encode(sum.finish().as_ref())
}

fn is_of_another_version(line: &[u8]) -> bool {
    let line = std::str::from_utf8(line).unwrap_or_default();
    let mut words = line.split(' ');
    let version = (words.next() == Some(MAGIC))
        .then(|| words.next()?.parse::<u32>().ok())
        .flatten();
    version.is_some_and(|version| version != VERSION)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"confirmed":1,"entries":{"web":{"a":1}}}"#;

    fn key(seed: u8) -> Key {
        Key::of(&[seed; 32], false).unwrap()
    }

    fn written(name: &str, key: Option<&Key>) -> Vec<u8> {
        encode(name, BODY.to_vec(), key).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let key = key(1);
        for key in [None, Some(&key)] {
            let bytes = written("consul", key);
            assert_eq!(decode("consul", &bytes, key).unwrap(), BODY);
        }
    }

    #[test]
    fn damage_at_every_byte_is_noticed_and_so_is_every_shorter_or_longer_file() {
        let key = key(1);
        for key in [None, Some(&key)] {
            let good = written("consul", key);
            for at in 0..good.len() {
                for bit in 0..8 {
                    let mut bad = good.clone();
                    bad[at] ^= 1 << bit;
                    assert!(decode("consul", &bad, key).is_err(), "byte {at}, bit {bit}");
                }
                assert!(decode("consul", &good[..at], key).is_err(), "{at} bytes");
            }
            assert!(decode("consul", &[&good[..], b"x"].concat(), key).is_err());
        }
    }

    #[test]
    fn a_sealed_part_opens_with_its_key_only_and_shows_nothing() {
        let sealed = written("identity", Some(&key(1)));
        let read = |key: Option<&Key>| decode("identity", &sealed, key);
        assert_eq!(read(None), Err(Refusal::NoKey));
        assert_eq!(read(Some(&key(2))), Err(Refusal::OtherKey));
        assert!(!sealed.windows(4).any(|part| part == b"conf"));
        let plain = written("identity", None);
        let read = decode("identity", &plain, Some(&key(1)));
        assert_eq!(read, Err(Refusal::Unsealed), "nobody slips one in");
    }

    #[test]
    fn one_part_is_not_taken_for_another_even_with_a_checksum_made_anew() {
        let key = key(1);
        for key in [None, Some(&key)] {
            let other = written("names", key);
            assert_eq!(decode("consul", &other, key), Err(Refusal::Damaged));
            let body = other.splitn(3, |byte| *byte == b'\n').last().unwrap();
            let header = header("consul", key.is_some());
            let sum = checksum(&header, body);
            let forged = [header.as_bytes(), sum.as_bytes(), b"\n", body].concat();
            let read = decode("consul", &forged, key);
            match key {
                // A checksum is against damage, not against people: the folder's mode is, and a key.
                None => assert_eq!(read.unwrap(), BODY),
                Some(_) => assert_eq!(read, Err(Refusal::OtherKey)),
            }
        }
    }

    #[test]
    fn another_version_is_told_from_damage() {
        let text = String::from_utf8(written("consul", None)).unwrap();
        let later = text.replacen("portcullis-state 1 ", "portcullis-state 2 ", 1);
        let read = decode("consul", later.as_bytes(), None);
        assert_eq!(read, Err(Refusal::Version));
        for strange in [
            "",
            "\n\n\n",
            "portcullis-state",
            "portcullis-state x consul\n\n",
        ] {
            assert_eq!(
                decode("consul", strange.as_bytes(), None),
                Err(Refusal::Damaged)
            );
        }
    }

    #[test]
    fn a_key_is_32_bytes_in_any_of_the_common_forms() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let bytes: Vec<u8> = (0..32).map(|n| n * 7 + 3).collect();
        let sealed = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Key::read(&path).map(|key| written("consul", Some(&key)))
        };
        let hex = HEXLOWER.encode(&bytes);
        let forms = [
            bytes.clone(),
            hex.clone().into_bytes(),
            format!("{}\n", hex.to_uppercase()).into_bytes(),
            format!("{}\n", BASE64.encode(&bytes)).into_bytes(),
            BASE64URL_NOPAD.encode(&bytes).into_bytes(),
        ];
        for form in &forms {
            let sealed = sealed(form).unwrap();
            let key = Key::of(&bytes, false).unwrap();
            assert_eq!(decode("consul", &sealed, Some(&key)).unwrap(), BODY);
        }
        let password = b"correct horse battery staple 123";
        for wrong in [&b""[..], b"short", password, &bytes[..31], &[7; 300]] {
            let error = sealed(wrong).unwrap_err().to_string();
            assert!(error.contains("does not hold 32 bytes"), "{error}");
        }
        let missing = Key::read(&folder.path().join("none")).unwrap_err();
        assert!(missing.to_string().contains("cannot be read"), "{missing}");
        assert!(Key::read(folder.path()).is_err());
    }
}
