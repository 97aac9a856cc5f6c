//! What a file has beside its content, its owner and its mode: extended attributes, and access lists among them (xattr(7)).

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io;

use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr};
use rustix::io::Errno;

/// The largest list of names, and the largest value, that Linux has.
const LARGEST: usize = 64 * 1024;

/// How the names begin of what lets users in beside the mode: the access lists of POSIX and of NFS.
const ACCESS: &[u8] = b"system.";

/// Gives a new file the attributes of another, as far as the system lets this user do so, and takes away an access list that
/// it has of its folder. Whether it now lets in whom the other one does is asked by [`same_access`].
pub(super) fn copy(from: &File, to: &File) -> io::Result<()> {
    let wanted = read(from)?;
    for name in access(read(to)?).keys() {
        if !wanted.contains_key(name) {
            let _ = fremovexattr(to, name);
        }
    }
    for (name, value) in &wanted {
        let _ = fsetxattr(to, name, value, XattrFlags::empty());
    }
    Ok(())
}

/// Whether two files have the same access lists, or none.
pub(super) fn same_access(one: &File, other: &File) -> io::Result<bool> {
    Ok(access(read(one)?) == access(read(other)?))
}

fn access(mut attributes: BTreeMap<CString, Vec<u8>>) -> BTreeMap<CString, Vec<u8>> {
    attributes.retain(|name, _| name.as_bytes().starts_with(ACCESS));
    attributes
}

fn read(file: &File) -> io::Result<BTreeMap<CString, Vec<u8>>> {
    let mut buffer = vec![0; LARGEST];
    let length = match flistxattr(file, &mut *buffer) {
        // A file system that has none.
        Err(Errno::NOTSUP) => 0,
        length => length?,
    };
    let list = buffer.get(..length).unwrap_or_default().to_vec();
    let mut found = BTreeMap::new();
    for name in list.split(|byte| *byte == 0) {
        let Some(name) = CString::new(name).ok().filter(|name| !name.is_empty()) else {
            continue;
        };
        match fgetxattr(file, &name, &mut *buffer) {
            Ok(length) => {
                let value = buffer.get(..length).unwrap_or_default();
                found.insert(name, value.to_vec());
            }
            // What may not be read is not this user's to copy; an access list is read by whoever reads the file.
            Err(_) if !name.as_bytes().starts_with(ACCESS) => {}
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}
