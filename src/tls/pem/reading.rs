//! Files read whole and bounded, into memory that is overwritten when it is dropped; and who else may read them.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::Path;

use zeroize::Zeroizing;

use super::{FileError, shell_word, unreadable};

/// Reads a regular file whole, or one byte more than is allowed.
pub(in crate::tls) fn read_bounded(
    path: &Path,
    most: u64,
) -> Result<Zeroizing<Vec<u8>>, FileError> {
    read(path, most).map(|(bytes, _)| bytes)
}

/// The same of a file that holds a secret: refused when others than its owner have access to it, as ssh does.
///
/// The group of a file that is not this user's own, or is root's, may be meant to read it: Debian's `ssl-cert` is made for that.
pub(in crate::tls) fn read_private(
    path: &Path,
    most: u64,
) -> Result<Zeroizing<Vec<u8>>, FileError> {
    match read_exposed(path, most)? {
        (_, Some(exposed)) => Err(exposed),
        (bytes, None) => Ok(bytes),
    }
}

/// The same of a file that may hold a secret, with why it is refused if it does.
pub(super) fn read_exposed(
    path: &Path,
    most: u64,
) -> Result<(Zeroizing<Vec<u8>>, Option<FileError>), FileError> {
    let (bytes, metadata) = read(path, most)?;
    Ok((bytes, refuse_others(path, &metadata).err()))
}

fn read(path: &Path, most: u64) -> Result<(Zeroizing<Vec<u8>>, Metadata), FileError> {
    let failed = |error: io::Error| unreadable(path, &error);
    // Asked before opening: opening a FIFO would wait for its writer.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        let message = if metadata.is_dir() {
            "this is a directory, not a file"
        } else {
            "this is not a regular file"
        };
        return Err(FileError::new(path, message, "name a regular file"));
    }
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let bytes = fill(file, most).map_err(failed)?;
    Ok((bytes, metadata))
}

/// Reads to the end, or one byte more than is allowed. Of what is read there is one copy: the vector does not move.
fn fill(mut from: impl Read, most: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut bytes = Zeroizing::new(Vec::with_capacity(CHUNK));
    let mut chunk = Zeroizing::new([0; CHUNK]);
    loop {
        let room = chunk.len().min(most + 1 - bytes.len());
        let read = match from.read(chunk.get_mut(..room).unwrap_or_default()) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        append(&mut bytes, chunk.get(..read).unwrap_or_default());
        if read == 0 || bytes.len() > most {
            return Ok(bytes);
        }
    }
}

/// 16 KiB: every key is smaller, and a file of them needs no second read.
const CHUNK: usize = 16 * 1024;

/// Appends, and leaves no copy behind where the vector must move.
fn append(bytes: &mut Zeroizing<Vec<u8>>, more: &[u8]) {
    if bytes.capacity() - bytes.len() < more.len() {
        let mut larger = Zeroizing::new(Vec::with_capacity(bytes.capacity() * 2));
        larger.extend_from_slice(bytes);
        *bytes = larger;
    }
    bytes.extend_from_slice(more);
}

/// Refuses what others may read or change.
#[cfg(unix)]
fn refuse_others(path: &Path, metadata: &Metadata) -> Result<(), FileError> {
    use std::os::unix::fs::MetadataExt;
    let (mode, owner) = (metadata.mode(), metadata.uid());
    let is_own = owner == rustix::process::geteuid().as_raw();
    let is_private = is_own && owner != 0;
    let (who, may) = match mode & 0o066 {
        bits if bits & 0o004 != 0 => ("every user of this machine", "read"),
        bits if bits & 0o002 != 0 => ("every user of this machine", "change"),
        bits if bits & 0o020 != 0 => ("its group", "change"),
        bits if bits & 0o040 != 0 && is_private => ("its group", "read"),
        _ => return Ok(()),
    };
    let message = format!("{who} may {may} this file, which holds a secret");
    let mounted = path
        .parent()
        .is_some_and(|folder| folder.join("..data").is_symlink());
    let help = if mounted {
        "it is a mounted Secret of Kubernetes: give its volume `defaultMode: 0440`, and the pod an `fsGroup`"
            .to_owned()
    } else if is_private || is_own && mode & 0o006 != 0 {
        format!("run: chmod 600 {}", shell_word(path))
    } else if is_own {
        format!("run: chmod 640 {}", shell_word(path))
    } else {
        format!(
            "run: chmod 640 {}, and let the group of the user who needs it own it",
            shell_word(path)
        )
    };
    Err(FileError::new(path, message, help))
}

#[cfg(not(unix))]
fn refuse_others(_: &Path, _: &Metadata) -> Result<(), FileError> {
    Ok(())
}
