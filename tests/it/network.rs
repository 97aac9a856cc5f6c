//! A network of a test's own: what uses up the ports of one takes none from the tests beside it.

use std::path::Path;
use std::process::Command;

use tokio::runtime::Runtime;

use crate::again;
use crate::peers;

/// Set where a test runs in such a network.
const INSIDE: &str = "PORTCULLIS_TEST_NETWORK";

/// Runs the test once more, in a network namespace that ends with it, where `body` is run; panics if it fails there.
/// `test` is its name, as `cargo test` takes it.
pub(crate) fn of_its_own(test: &str, body: impl Future<Output = ()>) {
    apart(test, &["--net"], body);
}

/// The same in a mount namespace besides, where `body` may mount what it likes.
pub(crate) fn with_mounts_of_its_own(test: &str, body: impl Future<Output = ()>) {
    apart(test, &["--net", "--mount"], body);
}

fn apart(test: &str, namespaces: &[&str], body: impl Future<Output = ()>) {
    if again::is_inside(INSIDE) {
        return Runtime::new().unwrap().block_on(body);
    }
    let (Some(unshare), Some(ip)) = (
        peers::require("unshare", "unshare"),
        peers::require("ip", "ip"),
    ) else {
        return;
    };
    let Some(mut outer) = permitted(&unshare, namespaces) else {
        return peers::skip_or_fail("no right to namespaces (root has it)");
    };
    outer
        .args(["sh", "-c", "\"$0\" link set lo up && exec \"$@\""])
        .arg(ip);
    again::inside(&outer, test, INSIDE);
}

/// `unshare` as this user may call it.
fn permitted(unshare: &Path, namespaces: &[&str]) -> Option<Command> {
    let ways: [&[&str]; 2] = [&[], &["--user", "--map-root-user"]];
    ways.into_iter().find_map(|way| {
        let tried = Command::new(unshare)
            .args(way)
            .args(namespaces)
            .arg("true")
            .output();
        let mut command = Command::new(unshare);
        command.args(way).args(namespaces);
        tried
            .is_ok_and(|tried| tried.status.success())
            .then_some(command)
    })
}
