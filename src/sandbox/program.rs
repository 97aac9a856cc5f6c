//! What the kernel executes to start a program: the program itself, the interpreter of a script, the loader of libraries.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// How far scripts may be the interpreters of scripts. The kernel goes to 5 (execve(2)).
const DEEPEST: usize = 5;

/// Of the first line of a script the kernel reads so many bytes (execve(2)).
const FIRST_LINE: usize = 256;

/// A path in a program is shorter (PATH_MAX).
const LONGEST_PATH: u64 = 4096;

/// No program has more segments.
const MOST_SEGMENTS: u16 = 256;

/// The files that are executed to start this one, itself first. What cannot be read has none but itself.
pub(super) fn started_by(program: &Path) -> Vec<PathBuf> {
    let mut files = vec![program.to_owned()];
    let mut next = program.to_owned();
    for _ in 0..DEEPEST {
        match interpreter(&next) {
            Some(file) => {
                files.push(file.clone());
                next = file;
            }
            None => break,
        }
    }
    files
}

fn interpreter(program: &Path) -> Option<PathBuf> {
    let file = File::open(program).ok()?;
    let mut head = [0; FIRST_LINE];
    let read = file.read_at(&mut head, 0).ok()?;
    let head = head.get(..read)?;
    match head.strip_prefix(b"#!") {
        Some(line) => {
            let line = line.split(|byte| *byte == b'\n').next()?;
            let mut words = line.split(|byte| matches!(byte, b' ' | b'\t'));
            words.find(|word| !word.is_empty()).map(path)
        }
        None => loader(&file, head),
    }
}

/// The program's own wish in its segment PT_INTERP (elf(5)); of a program for 64 bits, in this machine's order of bytes.
fn loader(file: &File, head: &[u8]) -> Option<PathBuf> {
    const IS_64_BITS: u8 = 2;
    const PT_INTERP: u32 = 3;
    if !head.starts_with(b"\x7fELF") || *head.get(4)? != IS_64_BITS {
        return None;
    }
    let start = u64::from_ne_bytes(head.get(32..40)?.try_into().ok()?);
    let size = u16::from_ne_bytes(head.get(54..56)?.try_into().ok()?);
    let count = u16::from_ne_bytes(head.get(56..58)?.try_into().ok()?);
    for number in 0..count.min(MOST_SEGMENTS) {
        let mut segment = [0; 56];
        let at = start.checked_add(u64::from(number) * u64::from(size))?;
        file.read_exact_at(&mut segment, at).ok()?;
        if u32::from_ne_bytes(segment.get(0..4)?.try_into().ok()?) != PT_INTERP {
            continue;
        }
        let at = u64::from_ne_bytes(segment.get(8..16)?.try_into().ok()?);
        let length = u64::from_ne_bytes(segment.get(32..40)?.try_into().ok()?);
        let mut text = vec![0; usize::try_from(length.min(LONGEST_PATH)).ok()?];
        file.read_exact_at(&mut text, at).ok()?;
        return text.split(|byte| *byte == 0).next().map(path);
    }
    None
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_started_by_its_interpreter_and_that_by_the_loader_it_names() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("script");
        std::fs::write(&script, "#! /bin/sh -e\necho hello\n").unwrap();
        let files = started_by(&script);
        assert_eq!(files[..2], [script, PathBuf::from("/bin/sh")]);
        assert_eq!(files.len(), 3, "{files:?}");
        let loader = files[2].to_str().unwrap();
        assert!(loader.contains("/ld-") && files[2].exists(), "{loader}");
        assert_eq!(started_by(&files[2]), files[2..]);
    }

    #[test]
    fn what_is_no_program_is_started_by_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for text in [
            &b""[..],
            b"#!",
            b"#!\n",
            b"\x7fELF",
            b"\x7fELF\x02",
            &[0xff; 300],
        ] {
            let file = folder.path().join("file");
            std::fs::write(&file, text).unwrap();
            assert_eq!(started_by(&file), [file]);
        }
        // One that is its own interpreter is not followed for ever.
        let own = folder.path().join("own");
        std::fs::write(&own, format!("#!{}\n", own.display())).unwrap();
        assert_eq!(started_by(&own).len(), 1 + DEEPEST);
    }
}
