//! What is left of keys and passphrases in the memory of a gateway: nothing but the key that it signs with.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

use super::{FROM_FILE, NAME, PASSPHRASE, Scene, by_nobody, connecting};
use crate::peers;
use crate::program::Program;
use crate::support::Child;
use crate::upstream::Upstream;

/// Whether these bytes stand anywhere in the memory that a process may write to.
pub(super) fn holds(process: u32, bytes: &[u8]) -> bool {
    let memory = File::open(format!("/proc/{process}/mem")).unwrap();
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let writable = maps.lines().filter(|line| line.contains(" rw"));
    writable.into_iter().any(|line| {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16).unwrap());
        let mut content = vec![0; usize::try_from(to - from).unwrap()];
        // Some of them cannot be read, such as [vvar].
        memory.read_exact_at(&mut content, from).is_ok() && stands_in(&content, bytes)
    })
}

/// Whether `bytes` stand in `content`.
fn stands_in(content: &[u8], bytes: &[u8]) -> bool {
    let mut rest = content;
    while let Some(at) = rest.iter().position(|byte| *byte == bytes[0]) {
        if rest[at..].starts_with(bytes) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_key_file_or_a_passphrase_stays_in_memory_or_is_told() {
    let Some(scene) = Scene::new() else { return };
    if !rustix::process::geteuid().is_root() {
        return peers::skip("only root may look into a gateway");
    }
    scene.encrypt("edge.key", "");
    std::fs::copy(scene.path("plain.key"), scene.path("client.key")).unwrap();
    let upstream = Upstream::echo().await;
    let tables = format!(
        "admin = \"127.0.0.1:0\"\nlog = {{ format = \"json\" }}\n\
         [[certificates]]\nchain = \"edge.pem\"\nkey = \"edge.key\"\n{FROM_FILE}\n\
         [routes.vm]\nhost = \"{NAME}\"\nupstream = \"db\"\n\
         [upstreams.db]\naddress = \"{}\"\n[upstreams.db.tls]\nroots = [\"ca.pem\"]\nserver_name = \"{NAME}\"\n\
         chain = \"edge.pem\"\nkey = \"client.key\"\n",
        upstream.address
    );
    let variables = [("PORTCULLIS_LOG", "trace".to_owned())];
    let program = Program::start_with(&scene.authority, &tables, &variables);
    let pem = std::fs::read_to_string(scene.path("plain.key")).unwrap();
    let lines: Vec<&str> = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = data_encoding::BASE64
        .decode(lines.concat().as_bytes())
        .unwrap();
    // The name stands in the certificate: what is looked for would be found.
    let process = program.child.id();
    assert!(holds(process, NAME.as_bytes()));
    for (what, bytes) in [
        ("the passphrase", PASSPHRASE.as_bytes()),
        ("the text of the key", lines[0].as_bytes()),
        ("the DER of the key", &der[16..68]),
    ] {
        assert!(!holds(process, bytes), "{what} is there");
    }
    program.child.signal("TERM");
    program
        .child
        .wait_for("its end", |line| line.contains("stopped").then_some(()));
    let said = program.child.all();
    assert!(!said.contains(PASSPHRASE) && !said.contains(lines[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_leaves_no_core_dump_nor_its_passphrase_and_its_user_cannot_look_into_it() {
    let Some(scene) = Scene::new() else { return };
    let issued = scene.authority.issue(&[NAME]);
    let server = issued.server(&[&rustls::version::TLS13]);
    let gate = Upstream::tls(server, crate::upstream::echo).await;
    let own = connecting(&scene, gate.address, &scene.path("client.key"));
    scene.encrypt("client.key", "");
    let Some(mut command) = by_nobody(&scene) else {
        return;
    };
    command.args(&own).args(["--passphrase-fd", "3", NAME]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" \"$@\" 3<\"$FILE\""]);
    shell.env("FILE", scene.path("passphrase"));
    shell.arg(command.get_program()).args(command.get_args());
    let (child, mut stdin) = Child::spawn_with_stdin(&shell);
    stdin.write_all(b"ready\n").unwrap();
    child.wait_for("its echo", |line| (line == "ready").then_some(()));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core"));
    let core: Vec<&str> = core.unwrap().split_whitespace().collect();
    assert_eq!(core, ["Max", "core", "file", "size", "0", "0", "bytes"]);
    let memory = std::fs::metadata(format!("/proc/{}/environ", child.id())).unwrap();
    assert_eq!(memory.uid(), 0, "another process of the user could look in");
    assert!(holds(child.id(), NAME.as_bytes()));
    assert!(!holds(child.id(), PASSPHRASE.as_bytes()));
    drop(stdin);
    assert!(child.finish().status.success());
}
