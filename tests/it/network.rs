//! A network of a test's own: what uses up the ports of one takes none from the tests beside it.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

use tokio::runtime::Runtime;

use crate::peers;

/// Set where a test runs in such a network.
const INSIDE: &str = "PORTCULLIS_TEST_NETWORK";

/// Runs the test once more, in a network namespace that ends with it, where `body` is run; panics if it fails there.
/// `test` is its name, as `cargo test` takes it.
pub(crate) fn of_its_own(test: &str, body: impl Future<Output = ()>) {
    if env::var_os(INSIDE).is_some() {
        return Runtime::new().unwrap().block_on(body);
    }
    let (Some(unshare), Some(ip)) = (
        peers::require("unshare", "unshare"),
        peers::require("ip", "ip"),
    ) else {
        return;
    };
    let Some(mut again) = permitted(&unshare) else {
        return peers::skip_or_fail("no right to a network namespace (root has it)");
    };
    // The kernel kills it with the thread that started it: this one, which waits.
    again
        .args(["setpriv", "--pdeathsig", "KILL", "--"])
        .args(["sh", "-c", "\"$0\" link set lo up && exec \"$@\""])
        .arg(ip)
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1");
    let output = again.stdin(Stdio::null()).output().unwrap();
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    eprintln!("{}{}", said[0], said[1]);
    // A name that no test has would be a success of none.
    let passed = said[0].contains("test result: ok. 1 passed");
    assert!(
        output.status.success() && passed,
        "it failed in a network of its own"
    );
}

/// `unshare` as this user may call it.
fn permitted(unshare: &Path) -> Option<Command> {
    let ways: [&[&str]; 2] = [&["--net"], &["--user", "--map-root-user", "--net"]];
    ways.into_iter().find_map(|way| {
        let tried = Command::new(unshare).args(way).arg("true").output();
        let mut command = Command::new(unshare);
        command.args(way);
        tried
            .is_ok_and(|tried| tried.status.success())
            .then_some(command)
    })
}
