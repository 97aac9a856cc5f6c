//! Passphrases from files, descriptors and programs, and what each that gives none is told.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

use super::*;
use crate::tls::test_certs::write;

fn line(text: &str) -> Result<Passphrase, &'static str> {
    Passphrase::first_line(Zeroizing::new(text.as_bytes().to_vec()))
}

fn shell(script: &str) -> Result<Passphrase, FileError> {
    let arguments = vec!["-c".to_owned(), script.to_owned()];
    Command::new("/bin/sh".into(), arguments).run()
}

/// What opens with `right`, and counts the tries.
fn lock(tries: &AtomicU32) -> impl Fn(&Passphrase) -> Result<SecretKey, NotOpened> {
    |passphrase| {
        tries.fetch_add(1, Ordering::Relaxed);
        match passphrase.reveal() == b"right" {
            true => Ok(SecretKey::pkcs8(Zeroizing::new(vec![1]))),
            false => Err(NotOpened::Passphrase),
        }
    }
}

#[test]
fn a_passphrase_is_the_first_line_without_its_end() {
    for text in ["right", "right\n", "right\r\n", "right\nmore\n"] {
        assert_eq!(line(text).unwrap().reveal(), b"right");
    }
    assert_eq!(line(" a b \n").unwrap().reveal(), b" a b ");
    for text in ["", "\n", "\r\n", "\nright"] {
        assert!(line(text).unwrap_err().contains("first line is empty"));
    }
    assert!(line(&"x".repeat(5000)).unwrap_err().contains("4 KiB"));
    assert_eq!(format!("{:?}", line("right").unwrap()), "MASKED");
}

#[test]
fn a_file_is_read_each_time_and_refused_when_others_may_read_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(directory.path(), "passphrase", "wrong\n");
    let source = Source::File(path.clone());
    let tries = AtomicU32::new(0);
    let open = || source.open(Path::new("edge.key"), lock(&tries));
    let error = open().err().unwrap();
    assert_eq!(error.path, Path::new("edge.key"));
    assert_eq!(error.message, "the passphrase does not open the key");
    write(directory.path(), "passphrase", "right\n");
    assert!(open().is_ok());
    write(directory.path(), "passphrase", "\n");
    assert_eq!(open().err().unwrap().path, path);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = open().err().unwrap();
    assert!(error.help.unwrap().starts_with("run: chmod 600"));
}

#[test]
fn a_program_that_writes_a_passphrase_is_run_without_a_shell() {
    assert_eq!(shell("echo right; echo more").unwrap().reveal(), b"right");
    assert_eq!(shell("printf right").unwrap().reveal(), b"right");
    let echo = Command::new("/bin/echo".into(), vec!["$HOME;".to_owned()]);
    assert_eq!(echo.run().unwrap().reveal(), b"$HOME;");
}

#[test]
fn a_program_that_fails_is_told_with_its_words_and_may_be_asked_again() {
    let error = shell("echo no vault >&2; exit 3").unwrap_err();
    assert_eq!(error.path, Path::new("/bin/sh"));
    assert!(
        error.message.contains("exit status: 3; it says: no vault"),
        "{error}"
    );
    assert!(error.may_pass);
    let error = shell("exit 0").unwrap_err();
    assert!(error.message.contains("first line is empty"), "{error}");
    assert!(!error.may_pass);
    let error = shell("head -c 100000 /dev/zero | tr '\\0' x").unwrap_err();
    assert!(error.message.contains("4 KiB"), "{error}");
    let error = Command::new("/none/program".into(), Vec::new()).run();
    assert!(
        error
            .unwrap_err()
            .message
            .contains("cannot be run: No such file")
    );
}

#[test]
fn a_program_that_cannot_be_run_is_told_by_what_it_lacks() {
    let directory = tempfile::tempdir().unwrap();
    for (mode, text, says) in [
        (0o600, "#!/bin/sh\necho right\n", "chmod +x"),
        (0o700, "echo right\n", "#!/bin/sh"),
        (0o700, "#!/none/sh\necho right\n", "its first line"),
        (0o700, "#!/etc/passwd\necho right\n", "sandbox"),
    ] {
        let path = write(directory.path(), "program", text);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let refused = Command::new(path, Vec::new()).run().unwrap_err();
        let help = refused.help.as_deref().unwrap();
        assert!(help.contains(says), "{refused}: {help}");
    }
}

#[test]
fn a_program_whose_children_hold_its_output_open_is_not_waited_for() {
    let start = Instant::now();
    let passphrase = shell("sleep 300 & echo right").unwrap();
    assert_eq!(passphrase.reveal(), b"right");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn one_passphrase_that_is_typed_opens_every_key_that_it_fits_and_is_asked_for_three_times() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let given = Given::typed(Box::new({
        let asked = Arc::clone(&asked);
        move |key, number| {
            asked.lock().unwrap().push((key.to_owned(), number));
            Ok(line(if number == 2 { "right" } else { "wrong" }).unwrap())
        }
    }));
    let tries = AtomicU32::new(0);
    let source = Source::Start(given.clone());
    let open = |key: &str| source.open(Path::new(key), lock(&tries)).map(drop);
    assert_eq!(open("a.key"), Ok(()));
    assert_eq!(open("b.key"), Ok(()));
    assert_eq!(open("a.key"), Ok(()));
    let once = [("a.key".into(), 1), ("a.key".into(), 2)];
    assert_eq!(*asked.lock().unwrap(), once);
    assert!(!format!("{given:?}").contains("right"));

    let shut = |_: &Passphrase| Err(NotOpened::Passphrase);
    let error = source.open(Path::new("c.key"), shut).err().unwrap();
    assert_eq!(error.message, "the passphrase does not open the key");
    assert_eq!(asked.lock().unwrap().len(), 2 + 3);
    given.stop_asking();
    let error = source.open(Path::new("c.key"), shut).err().unwrap();
    assert!(error.message.contains("a reload asks nobody"), "{error}");
    assert_eq!(asked.lock().unwrap().len(), 2 + 3);
    assert_eq!(open("a.key"), Ok(()));
}

#[test]
fn who_cannot_be_asked_is_told_what_else_gives_a_passphrase() {
    let nobody = Given::typed(Box::new(|_, _| Err(Unasked("there is no terminal".into()))));
    let tries = AtomicU32::new(0);
    for given in [nobody, Given::default()] {
        let opened = Source::Start(given).open(Path::new("a.key"), lock(&tries));
        let help = opened.err().unwrap().help.unwrap();
        for way in [
            "--passphrase-file",
            "-fd",
            "-command",
            "`key_passphrase_file`",
        ] {
            assert!(help.contains(way), "{help}");
        }
    }
}
