//! A test that runs once more in a process of its own, whose surroundings no other test shares.

use std::env;
use std::process::{Command, Stdio};

/// Whether this process was started for this test alone; `marker` is the variable that tells so.
pub(crate) fn is_inside(marker: &str) -> bool {
    env::var_os(marker).is_some()
}

/// Runs `test`, named as `cargo test` takes it, in a process that `outer` makes ready; panics if it fails there.
///
/// The kernel kills it with the thread that started it: this one, which waits.
pub(crate) fn inside(outer: &Command, test: &str, marker: &str) {
    let mut again = Command::new(outer.get_program());
    again
        .args(outer.get_args())
        .args(["setpriv", "--pdeathsig", "KILL", "--"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(marker, "1");
    let output = again.stdin(Stdio::null()).output().unwrap();
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    eprintln!("{}{}", said[0], said[1]);
    // A name that no test has would be a success of none.
    let passed = said[0].contains("test result: ok. 1 passed");
    assert!(
        output.status.success() && passed,
        "it failed in a process of its own"
    );
}
