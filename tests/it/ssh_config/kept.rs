//! What a file of ssh's configuration keeps beside its bytes, what is left beside it, and what a file that cannot be changed is told.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::{XattrFlags, getxattr, setxattr};
use rustix::io::Errno;

use super::{DOMAIN, failed, ours, said, ssh_config};
use crate::peers;
use crate::support::{Child, run, wait_until};

/// The access list of a file, and what a folder gives those that are made in it (acl(5)).
const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

/// An attribute that is a person's own.
const NOTE: &str = "user.note";

/// The list that lets the owner write, and user 1234 read, and nobody else (`struct posix_acl_xattr_entry` of Linux).
fn list() -> Vec<u8> {
    const NOBODY: u32 = u32::MAX;
    let entries: [(u16, u16, u32); 5] = [
        (0x01, 6, NOBODY),
        (0x02, 4, 1234),
        (0x04, 0, NOBODY),
        (0x10, 4, NOBODY),
        (0x20, 0, NOBODY),
    ];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        list.extend(tag.to_le_bytes());
        list.extend(rights.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 1024];
    match getxattr(path, name, &mut *value) {
        Ok(length) => Some(value[..length].to_vec()),
        Err(Errno::NODATA | Errno::NOTSUP) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Installs the block into a file.
fn install(file: &Path) -> Command {
    let mut command = ssh_config(ours(), &["--gateway", "gate", "--install", "--file"]);
    command.arg(file);
    command
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn whom_an_access_list_lets_in_stays_as_it_is_and_the_backup_has_it_too() {
    let folder = tempfile::tempdir().unwrap();
    let (file, backup) = (
        folder.path().join("config"),
        folder.path().join("config.portcullis-backup"),
    );
    fs::write(&file, "Host own\n").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    if setxattr(&file, ACCESS, &list(), XattrFlags::empty()).is_err() {
        return peers::skip("a file system without access lists");
    }
    let has_notes = setxattr(&file, NOTE, b"mine", XattrFlags::empty()).is_ok();
    said(&install(&file));
    for path in [&file, &backup] {
        assert_eq!(attribute(path, ACCESS), Some(list()), "{}", path.display());
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
        let note = has_notes.then(|| b"mine".to_vec());
        assert_eq!(attribute(path, NOTE), note);
    }
}

#[test]
fn a_file_without_an_access_list_gets_none_of_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    fs::write(&file, "Host own\n").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    if setxattr(folder.path(), DEFAULT, &list(), XattrFlags::empty()).is_err() {
        return peers::skip("a file system without access lists");
    }
    fs::write(folder.path().join("other"), "").unwrap();
    assert!(attribute(&folder.path().join("other"), ACCESS).is_some());
    said(&install(&file));
    for name in ["config", "config.portcullis-backup"] {
        assert_eq!(attribute(&folder.path().join(name), ACCESS), None, "{name}");
    }
}

#[test]
fn other_names_of_the_file_keep_what_stood_there_and_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("config"), "Host own\n").unwrap();
    assert!(!said(&install(&at("config"))).contains("hard links"));
    said(&ssh_config(
        ours(),
        &["--remove", "--file", at("config").to_str().unwrap()],
    ));
    fs::hard_link(at("config"), at("other")).unwrap();
    let told = said(&install(&at("config")));
    assert!(
        told.contains("under its other names (hard links)"),
        "{told}"
    );
    assert_eq!(fs::read_to_string(at("other")).unwrap(), "Host own\n");
}

#[test]
fn a_signal_in_the_midst_of_a_change_leaves_nothing_beside_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    // It takes its time to be written, and to be on the disk.
    let own = "# a comment that is longer than most of them are\n".repeat(1 << 19);
    for signal in ["TERM", "INT", "HUP"] {
        fs::write(&file, &own).unwrap();
        let child = Child::spawn(&install(&file));
        wait_until("it is written", || {
            let names = names(folder.path());
            // On a fast disk, or a slow day, it is over before anybody looks.
            let is_over = fs::metadata(&file).unwrap().len() > own.len() as u64;
            is_over || names.iter().any(|name| name.starts_with(".config."))
        });
        child.signal(signal);
        child.finish();
        assert_eq!(
            names(folder.path()),
            ["config", "config.portcullis-backup"],
            "{signal}"
        );
        let now = fs::read_to_string(&file).unwrap();
        assert!(now.starts_with("# >>> portcullis: ") && now.ends_with(&own));
    }
}

#[test]
fn what_a_killed_process_has_left_is_in_nobodys_way() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    fs::write(&file, "Host own\n").unwrap();
    let install = install(&file);
    let mut shell = Command::new("sh");
    let script = "echo half > .config.portcullis-$$ && exec \"$@\"";
    shell.args(["-c", script, "sh"]).arg(install.get_program());
    shell.args(install.get_args()).current_dir(folder.path());
    said(&shell);
    assert_eq!(names(folder.path()), ["config", "config.portcullis-backup"]);
}

#[test]
fn a_file_that_cannot_be_changed_is_told_what_would_help() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("file"), "Host own\n").unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    for (name, says, hints) in [
        ("", "no regular file", "name another file"),
        ("file/config", "Not a directory", "name another file"),
        ("a/b/config", "cannot make", "make the folder"),
        ("dangling", "cannot find", "a link that leads nowhere"),
    ] {
        failed(&install(&at(name)), 1, says, hints);
    }
    for number in 1..=100 {
        let name = match number {
            1 => "file.portcullis-backup".to_owned(),
            number => format!("file.portcullis-backup-{number}"),
        };
        fs::write(at(&name), "another").unwrap();
    }
    failed(&install(&at("file")), 1, "cannot back up", "remove those");
    assert_eq!(fs::read_to_string(at("file")).unwrap(), "Host own\n");
}

#[test]
fn a_home_by_which_ssh_does_not_go_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let install = |home: &Path| {
        let mut command = ssh_config(ours(), &["--gateway", "gate", "--install"]);
        let done = run(command.env("HOME", home), b"");
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stderr).unwrap()
    };
    let told = install(folder.path());
    let [warning, hint] = told.lines().collect::<Vec<_>>()[..] else {
        panic!("not two lines: {told}");
    };
    assert!(
        warning.starts_with("portcullis: warning: ssh reads /"),
        "{told}"
    );
    assert!(hint.starts_with("hint: name it by --file /"), "{told}");
    // What is there already is nobody's mistake of now.
    assert_eq!(install(folder.path()), "");
}

#[test]
fn a_variable_that_names_no_gateway_is_blamed_and_removing_does_not_ask_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    let at = file.to_str().unwrap();
    said(&install(&file));
    let with = |arguments: &[&str]| {
        let mut command = Command::new(ours());
        command.args(["ssh-config", "--domain", DOMAIN, "--file", at]);
        command.args(arguments).env("PORTCULLIS_GATEWAY", "gate:x");
        command
    };
    let says = "portcullis: PORTCULLIS_GATEWAY: ";
    failed(&with(&["--install"]), 2, says, "unset it");
    let done = run(&with(&["--remove"]), b"");
    assert!(done.status.success(), "{done:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "");
}
