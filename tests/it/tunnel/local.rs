//! Tunnels that begin at a UNIX socket: who may connect, and how the log names them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::{Pair, VERIFIED};
use crate::edge::text;
use crate::peers;
use crate::support::PATIENCE;

/// A pair whose worker listens on a socket in a folder that everybody may look into.
async fn pair(keys: &str) -> (Pair, tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let socket = folder.path().join("tunnel.sock");
    let listen = format!("listen = \"unix:{}\"\n{keys}", socket.display());
    (Pair::with(&listen, VERIFIED).await, folder, socket)
}

fn mode(socket: &Path) -> u32 {
    fs::metadata(socket).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn bytes_go_both_ways_and_each_direction_ends_by_itself() {
    let (mut pair, _folder, socket) = pair("").await;
    let text = text();
    let stream = UnixStream::connect(&socket).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let sending = async {
        write.write_all(&text).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut heard = Vec::new();
    let (received, ()) = tokio::join!(read.read_to_end(&mut heard), sending);
    received.unwrap();
    assert_eq!(heard, text);
    let record = pair.worker.ended().await;
    assert_eq!(record["reason"], "closed", "{record}");
    assert_eq!(record["client"], "unix");
    assert_eq!(record["uid"], rustix::process::geteuid().as_raw());
    assert_eq!(record["listener"], format!("unix:{}", socket.display()));
    assert_eq!(pair.master.ended().await["reason"], "closed");
}

#[tokio::test]
async fn a_socket_is_its_users_alone_unless_a_mode_says_otherwise_and_goes_with_the_worker() {
    let (own, _folder, socket) = pair("").await;
    assert_eq!(mode(&socket), 0o600);
    own.worker.shutdown.begin_drain();
    own.worker.finished.await.unwrap().unwrap();
    assert!(!socket.exists());
    let (shared, _folder, socket) = pair("mode = \"0660\"\n").await;
    assert_eq!(mode(&socket), 0o660);
    let listen = format!("listen = \"unix:{}\"\n", socket.display());
    let tables = super::worker(&shared.authority, &shared.master, &listen, VERIFIED);
    shared.worker.rewrite(&shared.folder, &tables);
    shared.worker.reload.done("the test").await.unwrap();
    // The listener's task does it in its next turn.
    while mode(&socket) != 0o600 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_socket_whose_file_is_gone_is_made_again_at_a_reload_and_one_that_is_anothers_now_is_told()
 {
    let (mut own, _folder, socket) = pair("").await;
    let mut kept = UnixStream::connect(&socket).await.unwrap();
    kept.write_all(b"word").await.unwrap();
    kept.read_exact(&mut [0; 4]).await.unwrap();
    fs::remove_file(&socket).unwrap();
    own.worker.reload.done("the test").await.unwrap();
    let mut again = UnixStream::connect(&socket).await.unwrap();
    again.write_all(b"word").await.unwrap();
    again.read_exact(&mut [0; 4]).await.unwrap();
    assert_eq!(mode(&socket), 0o600);
    let (_, ready) = own.worker.ask_admin("/readyz").await;
    assert!(ready.contains("listeners ready"), "{ready}");
    kept.write_all(b"more").await.unwrap();
    kept.read_exact(&mut [0; 4]).await.unwrap();
    drop(kept);
    assert_eq!(own.worker.ended().await["reason"], "closed");

    fs::remove_file(&socket).unwrap();
    let stranger = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    own.worker.reload.done("the test").await.unwrap();
    let (status, ready) = own.worker.ask_admin("/readyz").await;
    let told = "listeners degraded: nobody finds these sockets";
    assert!(
        ready.contains(told) && ready.contains(socket.to_str().unwrap()),
        "{status} {ready}"
    );
    again.write_all(b"more").await.unwrap();
    again.read_exact(&mut [0; 4]).await.unwrap();
    // What a program that was killed leaves is in nobody's way.
    drop(stranger);
    own.worker.reload.done("the test").await.unwrap();
    UnixStream::connect(&socket).await.unwrap();
    let (_, ready) = own.worker.ask_admin("/readyz").await;
    assert!(ready.contains("listeners ready"), "{ready}");
}

#[tokio::test]
async fn users_who_are_not_listed_are_refused_though_the_mode_lets_them() {
    if !rustix::process::geteuid().is_root() {
        peers::skip("to be another user takes root");
        return;
    }
    let (mut pair, _folder, socket) = pair("mode = \"0666\"\nallow_uids = [65534]\n").await;
    let mut own = UnixStream::connect(&socket).await.unwrap();
    let mut heard = Vec::new();
    // What was not read when it was closed makes the close a reset.
    let ended = timeout(PATIENCE, own.read_to_end(&mut heard)).await;
    assert!(ended.is_ok(), "it goes on");
    assert!(heard.is_empty());
    let record = pair.worker.ended().await;
    assert_eq!(record["reason"], "client_not_allowed", "{record}");
    assert_eq!(record["fault"], "client");
    assert_eq!(
        record["detail"],
        "the user 0 is not in `allow_uids` of the tunnel"
    );
    assert_eq!(record["endpoint"], Value::Null);

    let listed = visit(&socket).await;
    assert_eq!(listed.as_deref(), Some("word"));
    let record = pair.worker.ended().await;
    assert_eq!(
        (&record["reason"], &record["uid"]),
        (&"closed".into(), &65534.into())
    );
}

#[tokio::test]
async fn users_who_are_listed_come_in_where_no_mode_is_written_and_others_are_refused() {
    let (mut pair, _folder, socket) = pair("allow_uids = [65534]\n").await;
    assert_eq!(mode(&socket), 0o666);
    if !rustix::process::geteuid().is_root() {
        peers::skip("to be another user takes root");
        return;
    }
    assert_eq!(visit(&socket).await.as_deref(), Some("word"));
    assert_eq!(pair.worker.ended().await["reason"], "closed");
    let _own = UnixStream::connect(&socket).await.unwrap();
    assert_eq!(pair.worker.ended().await["reason"], "client_not_allowed");
}

#[tokio::test]
async fn users_whom_the_mode_keeps_out_never_come_in() {
    if !rustix::process::geteuid().is_root() {
        peers::skip("to be another user takes root");
        return;
    }
    let (mut pair, _folder, socket) = pair("").await;
    assert_eq!(visit(&socket).await, None);
    assert!(pair.worker.has_no_more_records());
}

#[tokio::test]
async fn where_a_mode_takes_the_place_of_a_list_of_users_nobody_slips_in_between() {
    if !rustix::process::geteuid().is_root() {
        peers::skip("to be another user takes root");
        return;
    }
    let (mut pair, _folder, socket) = pair("allow_uids = [0]\n").await;
    // They come again and again until the system keeps them out, so that some always wait to be accepted, and tell what they
    // have heard.
    let mut perl = Command::new("perl");
    let script = "use IO::Socket::UNIX; $SIG{PIPE} = 'IGNORE'; fork || last for 1..16; \
                  while (my $s = IO::Socket::UNIX->new($ARGV[0])) { \
                  $s->print('word'); $s->flush; $s->shutdown(1); print <$s>; } 1 while wait > 0;";
    perl.args(["-e", script]).arg(&socket).uid(65534).gid(65534);
    let knocking = spawn_blocking(move || perl.output());
    assert_eq!(pair.worker.ended().await["reason"], "client_not_allowed");
    let listen = format!("listen = \"unix:{}\"\n", socket.display());
    let alone = super::worker(&pair.authority, &pair.master, &listen, VERIFIED);
    pair.worker.rewrite(&pair.folder, &alone);
    pair.worker.reload.done("the test").await.unwrap();
    let knocked = timeout(PATIENCE, knocking).await.unwrap().unwrap().unwrap();
    assert_eq!(mode(&socket), 0o600);
    assert_eq!(String::from_utf8_lossy(&knocked.stdout), "");
}

/// What another user hears who says a word; `None` if the system does not let him.
async fn visit(socket: &Path) -> Option<String> {
    let mut perl = Command::new("perl");
    let script = "use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new($ARGV[0]) or exit 7; \
                  $s->print('word'); $s->flush; $s->shutdown(1); print <$s>;";
    perl.args(["-e", script]).arg(socket).uid(65534).gid(65534);
    let ended = spawn_blocking(move || perl.output())
        .await
        .unwrap()
        .unwrap();
    let said = String::from_utf8(ended.stdout).unwrap();
    match ended.status.code() {
        Some(0) => Some(said),
        Some(7) => None,
        _ => panic!("{}", String::from_utf8_lossy(&ended.stderr)),
    }
}
