//! The file of ssh's configuration, changed by many at once, by root for another, in any encoding; and what its blocks name.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::thread;

use super::{DOMAIN, failed, ours, program, said, ssh_config};
use crate::authority::Authority;
use crate::peers;
use crate::support::run;

/// A user who is not root: "nobody", in Debian.
const NOBODY: u32 = 65534;

/// As many as shall be at once.
const MANY: usize = 20;

/// Each installs the block of a domain of its own; how many blocks the file has at the end.
fn by_many(at_home: &Path) -> usize {
    thread::scope(|scope| {
        for number in 0..MANY {
            scope.spawn(move || {
                let mut command = Command::new(ours());
                command.args(["ssh-config", "--gateway", "gate", "--install", "--domain"]);
                command.arg(format!("vm{number}.example.test"));
                said(command.env("HOME", at_home));
            });
        }
    });
    let file = fs::read_to_string(at_home.join(".ssh/config")).unwrap();
    let begins = |line: &&str| line.starts_with("# >>> portcullis: vm");
    file.lines().filter(begins).count()
}

#[test]
fn many_who_install_at_once_find_all_their_blocks_in_the_file() {
    let home = tempfile::tempdir().unwrap();
    assert_eq!(by_many(home.path()), MANY, "where there was no folder yet");
    let home = tempfile::tempdir().unwrap();
    let ssh = home.path().join(".ssh");
    fs::create_dir(&ssh).unwrap();
    fs::write(ssh.join("config"), "Host own\n    User me\n").unwrap();
    assert_eq!(by_many(home.path()), MANY);
    let file = fs::read_to_string(ssh.join("config")).unwrap();
    assert!(file.ends_with("Host own\n    User me\n"), "{file}");
    let mut names: Vec<_> = (fs::read_dir(&ssh).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.retain(|name| name != "config" && !name.starts_with("config.portcullis-backup"));
    assert_eq!(names, Vec::<String>::new(), "left behind");
}

#[test]
fn what_root_installs_for_another_stays_that_users() {
    if !rustix::process::geteuid().is_root() {
        return peers::skip("only root can change an owner");
    }
    let whose = |path: &Path| {
        let found = fs::metadata(path).unwrap();
        (found.uid(), found.gid(), found.mode() & 0o7777)
    };
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("config");
    fs::write(&file, "Host own\n").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    chown(&file, Some(NOBODY), Some(4321)).unwrap();
    let at = file.display().to_string();
    said(&ssh_config(
        ours(),
        &["--gateway", "gate", "--install", "--file", &at],
    ));
    assert_eq!(whose(&file), (NOBODY, 4321, 0o640));
    let backup = home.path().join("config.portcullis-backup");
    assert_eq!(whose(&backup), (NOBODY, 4321, 0o640));
    said(&ssh_config(ours(), &["--remove", "--file", &at]));
    assert_eq!(whose(&file), (NOBODY, 4321, 0o640));

    // Where there was nothing, it is his whose home it is.
    chown(home.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let mut command = ssh_config(ours(), &["--gateway", "gate", "--install"]);
    said(command.env("HOME", home.path()));
    let ssh = home.path().join(".ssh");
    assert_eq!(whose(&ssh), (NOBODY, NOBODY, 0o700));
    assert_eq!(whose(&ssh.join("config")), (NOBODY, NOBODY, 0o600));
}

#[test]
fn a_file_whose_owner_cannot_be_kept_is_left_as_it_is() {
    if !rustix::process::geteuid().is_root() {
        return peers::skip("only root can be another user");
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    let file = folder.path().join("config");
    fs::write(&file, "Host own\n").unwrap();
    let copy = program(&folder.path().join("bin/portcullis"));
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
    command
        .arg(copy)
        .args(["ssh-config", "--domain", DOMAIN, "--gateway", "gate"]);
    command.arg("--install").arg("--file").arg(&file);
    failed(
        &command,
        1,
        "cannot keep the owner and the group of",
        "as the owner of the file",
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), "Host own\n");
    assert_eq!(fs::metadata(&file).unwrap().uid(), 0);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn a_file_in_another_encoding_gets_its_block_and_keeps_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    let own = b"# J\xfcrgens Rechner\nHost own\n    User j\xfcrgen\n";
    fs::write(&file, own).unwrap();
    let at = file.display().to_string();
    said(&ssh_config(
        ours(),
        &["--gateway", "gate", "--install", "--file", &at],
    ));
    let installed = fs::read(&file).unwrap();
    assert!(installed.starts_with(b"# >>> portcullis: ") && installed.ends_with(own));
    let backup = folder.path().join("config.portcullis-backup");
    assert_eq!(fs::read(backup).unwrap(), own);
    said(&ssh_config(ours(), &["--remove", "--file", &at]));
    assert_eq!(fs::read(&file).unwrap(), own);
}

#[test]
fn files_that_connect_would_not_take_are_told_in_its_words_and_not_installed() {
    let authority = Authority::new();
    let at = |name: &str| authority.folder().join(name).display().to_string();
    authority.issue_files("me", &["me.example.test"]);
    authority.issue_files("other", &["other.example.test"]);
    authority.write("open.key", &fs::read_to_string(at("me.key")).unwrap());
    fs::set_permissions(at("open.key"), Permissions::from_mode(0o644)).unwrap();
    fs::write(at("config"), "Host own\n").unwrap();
    for files in [
        &["--ca", "none.pem"][..],
        &["--ca", "me.key"],
        &["--cert", "none.pem", "--key", "me.key"],
        &["--cert", "me.pem", "--key", "none.key"],
        &["--cert", "me.pem", "--key", "open.key"],
        &["--cert", "me.pem", "--key", "other.key"],
    ] {
        let mut connect = Command::new(ours());
        connect.args(["connect", "--gateway", "127.0.0.1:1", "vm.vm.example.test"]);
        // There ssh may be started anywhere.
        for word in files {
            connect.arg(if word.starts_with('-') {
                (*word).to_owned()
            } else {
                at(word)
            });
        }
        let done = run(&connect, b"");
        assert_eq!(done.status.code(), Some(2), "{done:?}");
        let words = String::from_utf8(done.stderr).unwrap();

        let mut install = ssh_config(
            ours(),
            &["--gateway", "gate", "--install", "--file", "config"],
        );
        let done = run(install.args(files).current_dir(authority.folder()), b"");
        assert_eq!(done.status.code(), Some(2), "{done:?}");
        assert_eq!(String::from_utf8(done.stderr).unwrap(), words);
        assert_eq!(fs::read_to_string(at("config")).unwrap(), "Host own\n");

        // What is printed may be for another machine.
        let mut print = ssh_config(ours(), &["--gateway", "gate"]);
        let done = run(print.args(files).current_dir(authority.folder()), b"");
        assert!(done.status.success(), "{done:?}");
        let warning = words.replacen("portcullis: ", "portcullis: warning: ", 1);
        assert_eq!(String::from_utf8(done.stderr).unwrap(), warning);
        let block = String::from_utf8(done.stdout).unwrap();
        assert!(
            block.contains(&format!("{} {}", files[0], at(files[1]))),
            "{block}"
        );
    }
}

#[test]
fn a_key_that_needs_a_passphrase_is_installed_and_nobody_is_asked() {
    let Some(openssl) = peers::require("openssl", "openssl") else {
        return;
    };
    let authority = Authority::new();
    let at = |name: &str| authority.folder().join(name).display().to_string();
    authority.issue_files("me", &["me.example.test"]);
    let mut encrypt = Command::new(openssl);
    encrypt.args([
        "pkcs8",
        "-topk8",
        "-passout",
        "pass:secret",
        "-in",
        &at("me.key"),
    ]);
    said(encrypt.args(["-out", &at("locked.key")]));
    let files = ["--cert", &at("me.pem"), "--key", &at("locked.key")];
    let install = ["--gateway", "gate", "--install", "--file", &at("config")];
    let done = run(&ssh_config(ours(), &[&install[..], &files].concat()), b"");
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
}

#[test]
fn the_block_names_the_program_by_the_path_that_stays_when_a_new_version_comes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    program(&at("store/portcullis-1.0/portcullis"));
    for bin in ["bin", "other"] {
        fs::create_dir(at(bin)).unwrap();
    }
    let link = at("bin/portcullis");
    symlink("../store/portcullis-1.0/portcullis", &link).unwrap();
    // Another program of the name, which is not the one that runs.
    fs::write(at("other/portcullis"), "#!/bin/sh\n").unwrap();
    let block = |started: &Path, path: &str| {
        let mut command = ssh_config(started, &["--gateway", "gate"]);
        command.current_dir(folder.path());
        let usual = std::env::var("PATH").unwrap();
        said(command.env("PATH", format!("{path}:{usual}")))
    };
    let stays = format!("ProxyCommand {} connect ", link.display());
    let bins = [at("other"), at("bin")].map(|bin| bin.display().to_string());
    for (started, path) in [
        (Path::new("portcullis"), bins.join(":")),
        (&link, bins[0].clone()),
    ] {
        let block = block(started, &path);
        assert!(block.contains(&stays), "{block}");
    }
    // Elsewhere a path from here leads nowhere.
    let real = at("store/portcullis-1.0/portcullis");
    for (started, path) in [("bin/portcullis", &bins[0][..]), ("portcullis", "bin")] {
        let block = block(Path::new(started), path);
        let line = format!("ProxyCommand {} connect ", real.display());
        assert!(block.contains(&line), "{started}: {block}");
    }
}
