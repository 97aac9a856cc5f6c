//! Tunnels on the sockets that systemd hands over: whose they stay, what mode they have, and what is no such socket.

use std::fs::{self, Permissions};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

use super::program::{Scene, ended, through, through_socket, tunnel};
use crate::program::handed;
use crate::support::{Child, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sockets_that_systemd_hands_over_are_listened_on_and_stay_when_it_ends() {
    let mut scene = Scene::new().await;
    let path = scene.authority.folder().join("s");
    let (tcp, unix) = (
        TcpListener::bind("127.0.0.1:0").unwrap(),
        UnixListener::bind(&path).unwrap(),
    );
    let address = tcp.local_addr().unwrap();
    for socket in [
        OwnedFd::from(tcp.try_clone().unwrap()),
        unix.try_clone().unwrap().into(),
    ] {
        let is_unix = socket2::SockRef::from(&socket).domain().unwrap() == socket2::Domain::UNIX;
        let visit = || match is_unix {
            true => through_socket(&path),
            false => through(address),
        };
        let command = scene.command(&["--systemd"]);
        let child = Child::spawn_with(&handed(&command, 1), socket);
        child.wait_for("that it listens", |line| {
            line.contains("listening for a tunnel").then_some(())
        });
        assert_eq!(visit(), b"word");
        assert_eq!(scene.master.ended().await["reason"], "closed");
        ended(child);
    }
    // Whoever holds them has them still.
    let _waits = TcpStream::connect(address).unwrap();
    let _waits = UnixStream::connect(&path).unwrap();
}

/// What a tunnel on a handed socket of this mode has said of it, with these flags.
async fn said_of_mode(mode: u32, flags: &[&str]) -> String {
    let scene = Scene::new().await;
    let path = scene.authority.folder().join("s");
    let socket = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    let command = scene.command(&[&["--systemd"], flags].concat());
    let child = Child::spawn_with(&handed(&command, 1), socket.into());
    child.wait_for("that it listens", |line| {
        line.contains("listening for a tunnel").then_some(())
    });
    let found = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(found & 0o777, mode);
    ended(child).1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mode_of_a_handed_socket_is_systemds_and_another_one_that_is_asked_for_is_told() {
    let said = said_of_mode(0o666, &["--mode", "0600"]).await;
    let told = "`mode` is 0600, and the service manager has made the socket 0666: it stays so; write `SocketMode=0600`";
    assert!(said.contains(told), "{said}");
    let said = said_of_mode(0o666, &[]).await;
    assert!(said.contains("every user of this machine may"), "{said}");
    for (mode, flags) in [
        (0o660, &["--mode", "0660"][..]),
        (0o666, &["--allow-uid", "0"]),
        (0o660, &[]),
    ] {
        let said = said_of_mode(mode, flags).await;
        assert!(!said.contains("service manager has made"), "{said}");
    }
}

/// What ends a start with this handed over, which its unit calls so.
fn refused(command: &Command, socket: OwnedFd) -> String {
    let mut command = handed(command, 1);
    command.env("LISTEN_FDNAMES", "clusterd.socket");
    let ended = Child::spawn_with(&command, socket).finish();
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    String::from_utf8(ended.stderr).unwrap()
}

#[test]
fn what_is_handed_over_and_does_not_listen_ends_the_start_by_its_name() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = ["--to", "127.0.0.1:1", "--systemd"];
    // What is listened on besides changes nothing of that.
    for more in [&[][..], &["--listen", "127.0.0.1:0"]] {
        let command = tunnel(&[&to[..], more].concat());
        let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let said = refused(&command, connected.into());
        let told = "portcullis: `--systemd`: the service manager has handed over a socket that does not listen \
                    (\"clusterd.socket\", descriptor 3)\nhint: ";
        assert!(said.contains(told), "{said}");
        let said = refused(&command, fs::File::open("/dev/null").unwrap().into());
        assert!(
            said.contains("is not a socket (\"clusterd.socket\""),
            "{said}"
        );

        let none = String::from_utf8(run(&command, b"").stderr).unwrap();
        let told = "portcullis: `--systemd`: no socket was handed over\nhint: ";
        assert!(none.contains(told), "{none}");
    }
}
