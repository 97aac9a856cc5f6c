//! The records of TLS under schedules that nobody would write: those that libFuzzer found worth keeping, and new ones.

use std::env;
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::chance::Chance;

#[path = "../fuzz/records/mod.rs"]
mod schedules;

/// Less than two seconds of one processor, where `tools/fuzz` spends minutes.
const TRIES: usize = 2000;

#[test]
fn the_schedules_that_were_worth_keeping_break_no_promise() {
    run_kept("records", schedules::run);
}

#[test]
fn no_schedule_by_chance_breaks_a_promise() {
    run_by_chance(TRIES, schedules::run);
}

#[test]
fn no_schedule_like_those_that_were_kept_breaks_a_promise() {
    run_like_those_kept("records", TRIES, schedules::run);
}

/// The inputs of a target that were kept.
pub(crate) fn run_kept(target: &str, run: fn(&[u8])) {
    for (name, input) in kept(target) {
        let _told = Told(name);
        run(&input);
    }
}

/// So many inputs that mean anything.
pub(crate) fn run_by_chance(tries: usize, run: fn(&[u8])) {
    let seed = seed();
    let mut chance = Chance::new(seed);
    for number in 0..tries {
        let _told = Told(format!("PORTCULLIS_SEED={seed}, number {number}"));
        let length = 2 + chance.below(200);
        let input: Vec<u8> = (0..length).map(|_| chance.next() as u8).collect();
        run(&input);
    }
}

/// So many inputs that are nearly one that was kept.
pub(crate) fn run_like_those_kept(target: &str, tries: usize, run: fn(&[u8])) {
    let kept = kept(target);
    let seed = seed();
    let mut chance = Chance::new(seed);
    for number in 0..tries {
        let (name, mut input) = kept[chance.below(kept.len())].clone();
        let _told = Told(format!("PORTCULLIS_SEED={seed}, number {number}, {name}"));
        for _ in 0..=chance.below(4) {
            let at = chance.below(input.len());
            match chance.below(4) {
                0 => input[at] = chance.next() as u8,
                1 => input.insert(at, chance.next() as u8),
                2 if input.len() > 1 => drop(input.remove(at)),
                // The steps of another from somewhere on.
                _ => {
                    let (_, other) = &kept[chance.below(kept.len())];
                    input.truncate(at + 1);
                    input.extend_from_slice(&other[chance.below(other.len())..]);
                }
            }
        }
        run(&input);
    }
}

/// The inputs in this folder of `tests/fuzz/corpus`, none of them empty.
fn kept(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let folder = folder.join(target);
    let mut kept: Vec<(String, Vec<u8>)> = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .map(|path| (path.display().to_string(), fs::read(path).unwrap()))
        .collect();
    kept.sort();
    assert!(!kept.is_empty());
    kept
}

/// Another one each time, unless one is wanted again.
fn seed() -> u64 {
    match env::var("PORTCULLIS_SEED") {
        Ok(seed) => seed.parse().expect("PORTCULLIS_SEED is a number"),
        Err(_) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            now.as_nanos() as u64
        }
    }
}

/// Tells which input it was, when a promise is broken.
struct Told(String);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the input: {}", self.0);
        }
    }
}
