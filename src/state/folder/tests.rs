//! What the folder holds when others have had their hands in it, or the power has failed.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn the_folder_and_its_files_are_for_their_owner_only() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a/b");
    let mut folder = Folder::new(&path);
    assert!(look(&path).is_ok(), "it is not there, and will be made");
    folder.write("part", b"one").unwrap();
    assert_eq!(mode(&path), 0o700);
    for name in ["part", LOCK] {
        assert_eq!(mode(&path.join(name)), 0o600, "{name}");
    }
    assert_eq!(folder.read("part", 3).unwrap().unwrap(), b"one");
    assert!(folder.read("none", 3).unwrap().is_none());
    assert!(look(&path).is_ok());
}

#[test]
fn a_folder_that_others_can_write_to_is_refused_with_a_remedy() {
    let root = tempfile::tempdir().unwrap();
    for bad in [0o720, 0o702, 0o777, 0o1777] {
        set_mode(root.path(), bad);
        let mut folder = Folder::new(root.path());
        for error in [
            look(root.path()).unwrap_err(),
            folder.open().unwrap_err(),
            folder.write("part", b"").unwrap_err(),
        ] {
            assert!(error.to_string().contains("chmod go-w"), "{error}");
        }
    }
    set_mode(root.path(), 0o755);
    Folder::new(root.path()).open().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Folder::new(&file).open().unwrap_err().to_string();
    assert!(error.ends_with("file is not a folder"), "{error}");
}

#[test]
fn what_a_power_cut_leaves_between_two_steps_is_the_one_before_or_this_one() {
    let root = tempfile::tempdir().unwrap();
    let folder = || Folder::new(root.path());
    set_mode(root.path(), 0o700);
    folder().write("part", b"before").unwrap();
    // Cut while the new one was being written: half of it, and nothing renamed yet.
    let new = root.path().join("part.new");
    fs::write(&new, b"thi").unwrap();
    set_mode(&new, 0o400);
    assert_eq!(folder().read("part", 9).unwrap().unwrap(), b"before");
    folder().write("part", b"this").unwrap();
    assert_eq!(folder().read("part", 9).unwrap().unwrap(), b"this");
    assert!(!new.exists());
    assert_eq!(mode(&root.path().join("part")), 0o600);
}

#[test]
fn what_cannot_be_a_part_of_ours_is_not_read_and_makes_room_for_one() {
    let root = tempfile::tempdir().unwrap();
    let mut folder = Folder::new(root.path());
    set_mode(root.path(), 0o700);
    let at = |name: &str| root.path().join(name);
    let plant: [(_, _, fn(&Path)); 6] = [
        ("link", IRREGULAR, |path| {
            std::os::unix::fs::symlink("/etc/hostname", path).unwrap()
        }),
        ("folder", IRREGULAR, |path| fs::create_dir(path).unwrap()),
        ("fifo", IRREGULAR, fifo),
        ("long", "it has more than 4 bytes", |path| {
            fs::write(path, b"more.").unwrap()
        }),
        ("hole", "it has more than 4 bytes", |path| {
            File::create(path).unwrap().set_len(10 << 30).unwrap();
        }),
        ("open", "others can write to it (mode 0666)", |path| {
            fs::write(path, b"evil").unwrap();
            set_mode(path, 0o666);
        }),
    ];
    for (name, why, plant) in plant {
        plant(&at(name));
        let error = folder.read(name, 4).unwrap_err();
        assert!(matches!(error, FolderError::Unfit { .. }), "{error:?}");
        assert!(error.to_string().ends_with(why), "{error}");
        folder.set_aside(name);
        assert!(
            at(&format!("{name}.refused")).symlink_metadata().is_ok(),
            "{name}"
        );
        folder.write(name, b"good").unwrap();
        assert_eq!(folder.read(name, 4).unwrap().unwrap(), b"good");
    }
}

fn fifo(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status();
    assert!(made.unwrap().success());
}

#[test]
fn a_lock_that_is_none_keeps_nobody_waiting_and_harms_no_other_file() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("state");
    let victim = root.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    fs::create_dir(&path).unwrap();
    set_mode(&path, 0o700);
    let lock = path.join(LOCK);
    let link = || std::os::unix::fs::symlink(&victim, &lock).unwrap();
    for plant in [&link as &dyn Fn(), &|| fifo(&lock)] {
        plant();
        let error = Folder::new(&path).lock().unwrap_err().to_string();
        assert!(
            error.ends_with("it is no regular file; remove it"),
            "{error}"
        );
        fs::remove_file(&lock).unwrap();
    }
    // A second name of a part is a backup's: what is written is a new file.
    let mut folder = Folder::new(&path);
    folder.write("part", b"one").unwrap();
    fs::hard_link(path.join("part"), root.path().join("backup")).unwrap();
    fs::hard_link(&victim, path.join("part.new")).unwrap();
    folder.write("part", b"two").unwrap();
    assert_eq!(fs::read(root.path().join("backup")).unwrap(), b"one");
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
    assert_eq!(folder.read("part", 9).unwrap().unwrap(), b"two");
}

#[test]
fn nothing_is_read_from_a_folder_that_could_be_anybodys() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("state");
    Folder::new(&path).write("part", b"one").unwrap();
    set_mode(&path, 0o777);
    let error = Folder::new(&path).read("part", 9).unwrap_err().to_string();
    assert!(error.contains("chmod go-w"), "{error}");
    set_mode(&path, 0o700);
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // A link to a folder of ours, by somebody else; then a folder, and a file in ours.
    let link = root.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(Folder::new(&link).read("part", 9).is_ok());
    std::os::unix::fs::lchown(&link, Some(4242), None).unwrap();
    for outcome in [
        Folder::new(&link).read("part", 9).map(drop),
        Folder::new(&link).lock(),
    ] {
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains("belongs to the user 4242"), "{error}");
    }
    std::os::unix::fs::chown(path.join("part"), Some(4242), None).unwrap();
    let error = Folder::new(&path).read("part", 9).unwrap_err().to_string();
    assert!(error.ends_with("it belongs to the user 4242"), "{error}");
}

#[test]
fn a_lock_that_was_removed_is_taken_anew() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("state");
    let mut folder = Folder::new(&path);
    folder.write("part", b"one").unwrap();
    fs::remove_dir_all(&path).unwrap();
    folder.write("part", b"two").unwrap();
    let error = Folder::new(&path).lock().unwrap_err().to_string();
    assert!(error.starts_with("another process writes to"), "{error}");
}

#[test]
fn one_writes_at_a_time_and_the_next_one_when_it_has_gone() {
    let root = tempfile::tempdir().unwrap();
    set_mode(root.path(), 0o700);
    let (mut one, mut other) = (Folder::new(root.path()), Folder::new(root.path()));
    one.write("part", b"one").unwrap();
    let error = other.write("part", b"other").unwrap_err().to_string();
    assert!(error.starts_with("another process writes to"), "{error}");
    other.set_aside("part");
    assert_eq!(other.read("part", 9).unwrap().unwrap(), b"one");
    drop(one);
    other.write("part", b"other").unwrap();
    assert_eq!(other.read("part", 9).unwrap().unwrap(), b"other");
}

/// As a process has every file open that is being started beside it, for the moment before it runs its program.
#[test]
fn it_is_free_for_the_next_process_though_somebody_has_the_lock_open_still() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("state");
    let mut folder = Folder::new(&path);
    folder.lock().unwrap();
    let open = folder.lock.as_ref().unwrap().try_clone().unwrap();
    let mut next = Folder::new(&path);
    assert!(next.lock().is_err());
    drop(folder);
    next.lock().unwrap();
    drop(open);
}
