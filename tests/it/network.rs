//! A network of a test's own, and its mounts: what uses up the ports of one takes none from the tests beside it.

use std::path::Path;
use std::process::Command;

use tokio::runtime::Runtime;

use crate::again;
use crate::peers;

/// Set where a test runs in such a network.
const INSIDE: &str = "PORTCULLIS_TEST_NETWORK";

/// Runs the test once more, in a network namespace that ends with it, as what it mounts does, where `body` is run; panics if
/// it fails there.
/// `test` is its name, as `cargo test` takes it.
pub(crate) fn of_its_own(test: &str, body: impl Future<Output = ()>) {
    if again::is_inside(INSIDE) {
        return Runtime::new().unwrap().block_on(body);
    }
    let (Some(unshare), Some(ip)) = (
        peers::require("unshare", "unshare"),
        peers::require("ip", "ip"),
    ) else {
        return;
    };
    let Some(mut outer) = permitted(&unshare) else {
        return peers::skip_or_fail("no right to a network namespace (root has it)");
    };
    outer
        .args(["sh", "-c", "\"$0\" link set lo up && exec \"$@\""])
        .arg(ip);
    again::inside(&outer, test, INSIDE);
}

/// `unshare` as this user may call it.
fn permitted(unshare: &Path) -> Option<Command> {
    let ways: [&[&str]; 2] = [
        &["--net", "--mount"],
        &["--user", "--map-root-user", "--net", "--mount"],
    ];
    ways.into_iter().find_map(|way| {
        let tried = Command::new(unshare).args(way).arg("true").output();
        let mut command = Command::new(unshare);
        command.args(way);
        tried
            .is_ok_and(|tried| tried.status.success())
            .then_some(command)
    })
}
