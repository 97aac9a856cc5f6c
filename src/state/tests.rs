//! What is kept, what is given back, and what is refused.

use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc::{Receiver, channel};

use super::*;

const PARTS: &[&str] = &["consul", "names"];

/// A folder with a state that is kept in it, and started again at will.
struct Disk {
    root: tempfile::TempDir,
    settings: Settings,
}

impl Disk {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let settings = Settings {
            folder: root.path().join("state"),
            key_file: None,
            max_age: Settings::MAX_AGE,
        };
        Self { root, settings }
    }

    fn start(&self) -> (State, Receiver<Result<(), String>>) {
        let (send, told) = channel();
        let tell = move |outcome: Result<(), FolderError>| {
            let _ = send.send(outcome.map_err(|error| error.to_string()));
        };
        let state = State::start(&self.settings, PARTS, tell).unwrap();
        (state, told)
    }

    /// Keeps these entries, confirmed, until the end of a process.
    fn keeps(&self, entries: &[(&str, u32)]) {
        let (state, _told) = self.start();
        let Opened { part, .. } = state.open("consul", "here");
        for (name, value) in entries {
            part.put(name, value);
        }
        part.confirm(&7);
        close(&state);
    }

    /// What another process finds.
    fn finds(&self) -> Result<Option<Vec<(String, u32)>>, String> {
        let (state, _told) = self.start();
        let Opened { stored, .. } = state.open("consul", "here");
        close(&state);
        Ok(stored?.map(|stored| {
            assert_eq!(stored.note::<u32>().unwrap(), 7);
            let entries = stored.entries().unwrap().into_iter();
            entries
                .map(|(name, value)| (name.to_string(), value))
                .collect()
        }))
    }

    /// What the entry `a` is, read while another process writes.
    fn number(&self) -> u32 {
        let mut folder = Folder::new(&self.settings.folder);
        let contents = Contents::read("consul", &mut folder, None);
        assert_eq!(contents.refused, None);
        contents.entries["a"].get().parse().unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.settings.folder.join(name)
    }

    fn with_key(&mut self, key: &str) {
        let path = self.root.path().join("key");
        std::fs::write(&path, key.repeat(64)).unwrap();
        self.settings.key_file = Some(path);
    }
}

/// Waits for the last write for as long as it takes: the disk of a test is busy with others too.
fn close(state: &State) {
    while !state.shared.desk().closed {
        state.close();
    }
}

fn entries(all: &[(&str, u32)]) -> Result<Option<Vec<(String, u32)>>, String> {
    let all = all.iter().map(|(name, value)| ((*name).to_owned(), *value));
    Ok(Some(all.collect()))
}

#[test]
fn what_was_kept_is_found_by_the_next_process() {
    let mut disk = Disk::new();
    assert_eq!(disk.finds(), Ok(None));
    disk.keeps(&[("api", 1), ("web", 2)]);
    assert_eq!(disk.finds(), entries(&[("api", 1), ("web", 2)]));
    disk.keeps(&[("web", 3)]);
    assert_eq!(disk.finds(), entries(&[("api", 1), ("web", 3)]));
    disk.with_key("1");
    let why = disk.finds().unwrap_err();
    assert!(why.contains("it is not sealed"), "{why}");
    disk.keeps(&[("web", 4)]);
    assert_eq!(disk.finds(), entries(&[("web", 4)]));
    assert!(
        std::fs::read(disk.file("consul"))
            .unwrap()
            .windows(3)
            .all(|part| part != b"web")
    );
}

#[test]
fn what_is_removed_is_gone_and_what_nobody_has_confirmed_is_not_written() {
    let disk = Disk::new();
    disk.keeps(&[("api", 1), ("old", 9), ("web", 2)]);
    let (state, _told) = disk.start();
    let Opened { part, .. } = state.open("consul", "here");
    part.remove("old");
    part.retain(|name| name != "api");
    part.put("new", &3);
    let Opened { part: names, .. } = state.open("names", "");
    names.put("unconfirmed", &1);
    close(&state);
    assert_eq!(disk.finds(), entries(&[("new", 3), ("web", 2)]));
    assert!(!disk.file("names").exists());
}

#[test]
fn what_another_source_has_told_is_dropped() {
    let disk = Disk::new();
    disk.keeps(&[("web", 2)]);
    let (state, _told) = disk.start();
    let Opened { part, stored } = state.open("consul", "elsewhere");
    assert!(stored.unwrap().is_none());
    part.put("api", &1);
    part.confirm(&7);
    close(&state);
    assert_eq!(disk.finds(), Ok(None));
}

#[test]
fn it_is_written_while_the_process_runs_and_that_is_told() {
    let disk = Disk::new();
    let (state, told) = disk.start();
    assert_eq!(told.recv().unwrap(), Ok(()), "the folder is good");
    let Opened { part, .. } = state.open("consul", "here");
    part.put("web", &1);
    part.confirm(&7);
    assert_eq!(told.recv().unwrap(), Ok(()));
    std::mem::forget(state);
    assert_eq!(disk.finds(), entries(&[("web", 1)]), "as after a power cut");
}

#[test]
fn a_disk_that_does_not_answer_is_told_of_once_and_what_comes_of_it_after_that() {
    let disk = Disk::new();
    let (state, told) = disk.start();
    assert_eq!(told.recv().unwrap(), Ok(()), "the folder is good");
    let begun = Instant::now() - Duration::from_millis(4_900);
    let write_hangs = |since| {
        state.shared.desk().writing = since;
        state.shared.turn.notify_all();
    };
    write_hangs(Some(begun));
    let heard = told.recv_timeout(Duration::from_secs(10));
    let why = heard.unwrap().unwrap_err();
    assert!(begun.elapsed() >= Duration::from_secs(5));
    assert!(why.contains("the disk does not answer"), "{why}");
    assert!(why.contains("takes more than 5 s"), "{why}");
    state.shared.turn.notify_all();
    write_hangs(None);
    let Opened { part, .. } = state.open("consul", "here");
    part.put("web", &1);
    part.confirm(&7);
    assert_eq!(told.recv().unwrap(), Ok(()));
    close(&state);
    assert_eq!(told.iter().count(), 0, "both threads have ended");
}

#[test]
fn ten_thousand_changes_in_a_moment_are_a_handful_of_writes() {
    let disk = Disk::new();
    let (state, told) = disk.start();
    let Opened { part, .. } = state.open("consul", "here");
    let begun = Instant::now();
    for n in 0..10_000 {
        part.put("web", &n);
        part.confirm(&7);
    }
    let took = begun.elapsed();
    close(&state);
    let most = 3 + took.as_secs() as usize;
    let writes = told.iter().count();
    assert!(writes <= most, "{writes} in {took:?}");
    assert_eq!(disk.finds(), entries(&[("web", 9999)]));
}

#[test]
fn a_damaged_part_is_refused_and_kept_aside_and_the_others_are_good() {
    let disk = Disk::new();
    disk.keeps(&[("web", 1)]);
    let mut bytes = std::fs::read(disk.file("consul")).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(disk.file("consul"), &bytes).unwrap();
    let why = disk.finds().unwrap_err();
    assert_eq!(why, "what the disk keeps is refused: it is damaged");
    assert_eq!(std::fs::read(disk.file("consul.refused")).unwrap(), bytes);
    assert_eq!(disk.finds(), Ok(None));
    disk.keeps(&[("web", 2)]);
    assert_eq!(disk.finds(), entries(&[("web", 2)]));
}

#[test]
fn another_key_opens_nothing_and_destroys_nothing() {
    let mut disk = Disk::new();
    disk.with_key("1");
    disk.keeps(&[("web", 1)]);
    disk.with_key("2");
    let why = disk.finds().unwrap_err();
    assert!(why.contains("sealed with another key"), "{why}");
    disk.settings.key_file = None;
    let why = disk.finds().unwrap_err();
    assert!(why.contains("no `state_key_file` is set"), "{why}");
    disk.with_key("1");
    assert_eq!(disk.finds(), entries(&[("web", 1)]));
    disk.settings.key_file = Some(disk.root.path().join("none"));
    let started = State::start(&disk.settings, PARTS, |_| {});
    assert!(started.unwrap_err().to_string().contains("cannot be read"));
}

#[test]
fn what_is_refused_for_its_age_is_not_lost_and_the_bound_may_be_another() {
    let mut disk = Disk::new();
    disk.keeps(&[("web", 1)]);
    disk.settings.max_age = Duration::ZERO;
    let late = SystemTime::now() + Duration::from_secs(2);
    while SystemTime::now() < late {
        std::thread::sleep(Duration::from_millis(10));
    }
    let (state, _told) = disk.start();
    let Opened { part, stored } = state.open("consul", "here");
    let stored = stored.unwrap().unwrap();
    assert!(part.judge(stored.confirmed).is_err());
    assert_eq!(stored.entries::<u32>().unwrap().len(), 1);
    state.set_max_age(Duration::from_secs(3600));
    let Opened { part, stored } = state.open("consul", "here");
    let confirmed = stored.unwrap().unwrap().confirmed;
    assert!(part.judge(confirmed).is_ok());
    state.set_max_age(Duration::ZERO);
    assert!(part.judge(confirmed).is_err());
    close(&state);
    disk.settings.max_age = Settings::MAX_AGE;
    assert_eq!(disk.finds(), entries(&[("web", 1)]));
}

#[test]
fn another_key_in_the_same_file_is_noticed() {
    let mut disk = Disk::new();
    let (state, _told) = disk.start();
    assert!(state.is_sealed_with(None).unwrap());
    drop(state);
    disk.with_key("1");
    let file = disk.settings.key_file.clone();
    let (state, _told) = disk.start();
    assert!(state.is_sealed_with(file.as_deref()).unwrap());
    assert!(!state.is_sealed_with(None).unwrap());
    disk.with_key("2");
    assert!(!state.is_sealed_with(file.as_deref()).unwrap());
    std::fs::remove_file(file.as_deref().unwrap()).unwrap();
    assert!(state.is_sealed_with(file.as_deref()).is_err());
}

#[test]
fn what_others_could_have_written_is_refused() {
    let disk = Disk::new();
    disk.keeps(&[("web", 1)]);
    let mode = |mode| std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(&disk.settings.folder, mode(0o777)).unwrap();
    let why = disk.finds().unwrap_err();
    assert!(why.contains("chmod go-w"), "{why}");
    std::fs::set_permissions(&disk.settings.folder, mode(0o700)).unwrap();
    assert_eq!(disk.finds(), entries(&[("web", 1)]), "it was not touched");
}

/// Set in the process that writes until it is killed, to the folder.
const VICTIM: &str = "PORTCULLIS_TEST_STATE_VICTIM";

/// How often it is killed.
const KILLS: u32 = 200;

#[test]
fn every_start_after_a_kill_at_any_moment_finds_a_whole_part() {
    if let Some(folder) = std::env::var_os(VICTIM) {
        write_for_ever(Path::new(&folder));
    }
    let disk = Disk::new();
    disk.keeps(&[("a", 0), ("b", 0), ("z", 0)]);
    let test = "state::tests::every_start_after_a_kill_at_any_moment_finds_a_whole_part";
    let mut last = 0;
    let mut left_halves = 0;
    for kill in 0..KILLS {
        let mut victim = std::process::Command::new("setpriv");
        victim
            .args(["--pdeathsig", "KILL", "--"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(VICTIM, &disk.settings.folder)
            .stdout(std::process::Stdio::null());
        let mut victim = victim.spawn().unwrap();
        // By then it writes; and a little longer each time, so that every step of it is hit.
        let late = Instant::now() + Duration::from_secs(60);
        while disk.number() == last {
            assert!(Instant::now() < late, "it does not write");
        }
        let until = Instant::now() + Duration::from_micros(u64::from(kill) * 37 % 4000);
        while Instant::now() < until {}
        victim.kill().unwrap();
        victim.wait().unwrap();
        left_halves += u32::from(disk.file("consul.new").exists());
        let found = disk.finds().unwrap().unwrap();
        assert_eq!(found.len(), 3, "after {kill} kills");
        assert!(
            found.iter().all(|(_, number)| *number == found[0].1),
            "after {kill} kills"
        );
        last = found[0].1;
    }
    println!("{left_halves} of {KILLS} were killed in the middle of a part");
    assert!(left_halves > 0);
}

/// Two entries that are the same, and a third one of 32 KiB between them, as often as the disk takes them.
fn write_for_ever(folder: &Path) -> ! {
    let mut folder = Folder::new(folder);
    let before = Contents::read("consul", &mut folder, None);
    let mut number: u32 = before.entries["a"].get().parse().unwrap();
    loop {
        number += 1;
        let mut contents = Contents::of("here");
        contents.confirmed = Some(SystemTime::now());
        contents.note = to_raw_value(&7).ok().map(Arc::from);
        let value: Arc<RawValue> = to_raw_value(&number).unwrap().into();
        let names = ["a".to_owned(), "b".repeat(1 << 15), "z".to_owned()];
        for name in names {
            contents.entries.insert(name.into(), Arc::clone(&value));
        }
        let bytes = part::encode("consul", contents.body().unwrap(), None).unwrap();
        folder.write("consul", &bytes).unwrap();
    }
}

#[test]
fn two_processes_both_find_it_and_one_writes_until_it_has_gone() {
    let disk = Disk::new();
    disk.keeps(&[("web", 1)]);
    let (one, told_one) = disk.start();
    assert_eq!(told_one.recv().unwrap(), Ok(()));
    let (other, told) = disk.start();
    let why = told.recv().unwrap().unwrap_err();
    assert!(why.starts_with("another process writes to"), "{why}");
    let Opened { part, stored } = other.open("consul", "here");
    assert!(stored.unwrap().is_some());
    part.put("web", &2);
    part.confirm(&7);
    assert!(told.recv().unwrap().is_err());
    close(&one);
    while told.recv().unwrap().is_err() {}
    close(&other);
    assert_eq!(disk.finds(), entries(&[("web", 2)]));
}

#[test]
fn a_folder_that_cannot_be_written_is_told_and_used_again_when_it_can_be() {
    let disk = Disk::new();
    let (state, told) = disk.start();
    assert_eq!(told.recv().unwrap(), Ok(()));
    let mode = |mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&disk.settings.folder, mode).unwrap();
    };
    mode(0o777);
    let Opened { part, .. } = state.open("consul", "here");
    part.put("web", &1);
    part.confirm(&7);
    let why = told.recv().unwrap().unwrap_err();
    assert!(why.contains("chmod go-w"), "{why}");
    mode(0o700);
    while told.recv().unwrap().is_err() {}
    assert!(disk.file("consul").exists());
    // On the way out nobody tries for ever.
    mode(0o777);
    part.put("web", &2);
    close(&state);
    mode(0o700);
    assert_eq!(disk.finds(), entries(&[("web", 1)]));
}

#[test]
fn what_was_written_from_something_else_is_not_read() {
    let disk = Disk::new();
    disk.keeps(&[("web", 1)]);
    let (state, _told) = disk.start();
    let Opened { part, stored } = state.open("consul", "here");
    let stored = stored.unwrap().unwrap();
    let error = stored.entries::<String>().unwrap_err();
    assert!(error.starts_with("\"web\": invalid type"), "{error}");
    assert!(stored.note::<String>().is_err());
    let shown = format!("{state:?} {part:?} {stored:?}");
    assert!(!shown.contains("web"), "{shown}");
}

#[test]
fn whoever_goes_on_is_given_nothing_from_the_disk_and_keeps_what_was_kept_of_the_same_source() {
    let disk = Disk::new();
    disk.keeps(&[("one", 1), ("two", 2)]);
    let (state, _told) = disk.start();
    let Opened { part, stored } = state.go_on("consul", "here");
    assert!(stored.unwrap().is_none());
    part.put("two", &3);
    part.confirm(&7);
    close(&state);
    assert_eq!(disk.finds(), entries(&[("one", 1), ("two", 3)]));
}

#[test]
fn whoever_goes_on_with_another_source_keeps_only_what_that_has_told() {
    let disk = Disk::new();
    disk.keeps(&[("one", 1), ("two", 2)]);
    let (state, _told) = disk.start();
    // Its source has told nothing: what another one had told is not lost for it.
    let Opened { .. } = state.go_on("consul", "there");
    close(&state);
    assert_eq!(disk.finds(), entries(&[("one", 1), ("two", 2)]));

    let (state, _told) = disk.start();
    state.go_on("consul", "there").part.confirm(&7);
    close(&state);
    let (state, _told) = disk.start();
    let stored = state.open("consul", "there").stored.unwrap().unwrap();
    assert_eq!(stored.entries::<u32>().unwrap(), []);
}
