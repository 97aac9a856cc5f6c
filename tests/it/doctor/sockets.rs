//! The doctor on a host, and UNIX sockets: who has them is told, and nobody there hears of it.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use super::{Found, Scene};
use crate::program::Program;
use crate::upstream::Upstream;

/// A tunnel that begins at this socket.
fn tunnel(socket: &Path, to: impl std::fmt::Display) -> String {
    format!(
        "[upstreams.up]\naddress = \"{to}\"\n[tunnels.t]\nlisten = \"unix:{}\"\nupstream = \"up\"\n",
        socket.display()
    )
}

fn look(scene: &Scene, socket: &Path, to: impl std::fmt::Display) -> Found {
    Found::by(scene.host_as_written(&format!("admin = false\n{}", tunnel(socket, to))))
}

fn socket(scene: &Scene) -> PathBuf {
    scene.authority.folder().join("t.sock")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_another_program_has_is_a_failure_with_its_name_and_it_hears_nothing() {
    let (scene, upstream) = (Scene::new(), Upstream::echo().await);
    let socket = socket(&scene);
    let listener = UnixListener::bind(&socket).unwrap();
    look(&scene, &socket, upstream.address).exits(1).tells(
        "port",
        "fail",
        &format!("(pid {})", std::process::id()),
        "listen elsewhere",
    );
    listener.set_nonblocking(true).unwrap();
    let came = listener.accept().unwrap_err();
    assert_eq!(came.kind(), ErrorKind::WouldBlock);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_whose_queue_is_full_keeps_nobody_waiting() {
    let (scene, upstream) = (Scene::new(), Upstream::echo().await);
    let path = socket(&scene);
    let address = SockAddr::unix(&path).unwrap();
    let full = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    full.bind(&address).unwrap();
    full.listen(0).unwrap();
    let mut waiting = Vec::new();
    loop {
        let one = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).unwrap();
        match one.connect(&address) {
            Ok(()) => waiting.push(one),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                break;
            }
        }
    }
    look(&scene, &path, upstream.address).exits(1).tells(
        "port",
        "fail",
        &format!("(pid {})", std::process::id()),
        "listen elsewhere",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_runs_holds_its_socket_and_none_is_opened_through_it() {
    let (scene, other) = (Scene::new(), Scene::new());
    let upstream = Upstream::echo().await;
    let socket = socket(&scene);
    let running = format!(
        "admin = \"127.0.0.1:0\"\nlog = {{ format = \"json\" }}\n{}",
        tunnel(&socket, upstream.address)
    );
    let program = Program::start(&other.authority, &running);
    let held = format!("portcullis (pid {})", program.child.id());
    let says = format!("is held by a portcullis that runs: {held}");
    look(&scene, &socket, upstream.address)
        .exits(0)
        .tells("port", "ok", &says, "");

    fs::remove_file(&socket).unwrap();
    let says = format!("its file is gone, and nobody can come to {held}");
    look(&scene, &socket, upstream.address)
        .exits(1)
        .tells("port", "fail", &says, "reload it");

    let _taken = UnixListener::bind(&socket).unwrap();
    let says = "the file is one's alone";
    let found = look(&scene, &socket, upstream.address);
    found.exits(1).tells("port", "fail", &held, "stop one");
    found.tells("port", "fail", says, "");
    found.tells("port", "fail", &format!("(pid {})", std::process::id()), "");
    program.child.signal("TERM");
    assert_eq!(program.records(), Vec::<serde_json::Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_without_a_listener_is_told_for_what_it_is() {
    let (scene, upstream) = (Scene::new(), Upstream::echo().await);
    let path = socket(&scene);
    let told = |path: &Path| look(&scene, path, upstream.address);
    told(&path)
        .exits(0)
        .tells("port", "ok", "t.sock is free", "");
    drop(UnixListener::bind(&path).unwrap());
    let left = told(&path);
    left.exits(0)
        .tells("port", "ok", "is left from before, and taken over", "");
    fs::remove_file(&path).unwrap();
    fs::write(&path, "").unwrap();
    let (says, hint) = ("is a file, and no socket", "where nothing else is");
    let file = told(&path);
    file.exits(2).tells("configuration", "fail", says, hint);
    let nowhere = told(&path.with_file_name("none").join("t.sock"));
    nowhere.exits(1).tells(
        "port",
        "fail",
        "its folder is not there",
        "RuntimeDirectory=",
    );
}
