//! Whatever stdin and stdout are, and whether they block or not: what goes in comes back, and nobody else's flags are touched.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::{TARGET, brought, connect, gate, noise, to};
use crate::authority::Authority;
use crate::support::{Child, wait_until};
use crate::terminal::Terminal;
use crate::upstream::echo;

/// More than all buffers on the way hold.
const MUCH: usize = 16 << 20;

/// Has it block, or not.
fn set(end: impl AsFd, blocks: bool) {
    let flags = fcntl_getfl(&end).unwrap();
    let flags = match blocks {
        true => flags - OFlags::NONBLOCK,
        false => flags | OFlags::NONBLOCK,
    };
    fcntl_setfl(&end, flags).unwrap();
}

fn blocks(end: impl AsFd) -> bool {
    !fcntl_getfl(&end).unwrap().contains(OFlags::NONBLOCK)
}

/// The two ends of a way that bytes go: where they are written, and where they are read.
type Way = (OwnedFd, OwnedFd);

fn pipe() -> Way {
    let (read, write) = std::io::pipe().unwrap();
    (write.into(), read.into())
}

fn unix() -> Way {
    let (one, other) = UnixStream::pair().unwrap();
    (one.into(), other.into())
}

fn tcp() -> Way {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (one.into(), listener.accept().unwrap().0.into())
}

/// A way by a name in this folder.
fn fifo(authority: &Authority) -> Way {
    let path = authority.folder().join("fifo");
    let _ = std::fs::remove_file(&path);
    let done = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(done.unwrap().success());
    // Each would wait for the other.
    let both = File::options().read(true).write(true).open(&path).unwrap();
    let write = File::options().write(true).open(&path).unwrap();
    let read = File::open(&path).unwrap();
    drop(both);
    (write.into(), read.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn pipes_and_sockets_carry_all_bytes_whether_they_block_or_not() {
    let authority = Authority::new();
    let gate = gate(&authority, echo).await;
    let command = to(connect(&authority, gate.address), &[TARGET]);
    let bytes = noise(5, MUCH);
    let makes: [(&str, &dyn Fn() -> Way); 4] = [
        ("pipes", &pipe),
        ("UNIX sockets", &unix),
        ("TCP sockets", &tcp),
        ("FIFOs", &|| fifo(&authority)),
    ];
    for (name, make) in makes {
        for is_blocking in [true, false] {
            let ((up, stdin), (stdout, down)) = (make(), make());
            for end in [&stdin, &stdout] {
                set(end, is_blocking);
            }
            let kept = [&stdin, &stdout].map(|end| end.try_clone().unwrap());
            let child = Child::spawn_between(&command, stdin, stdout);
            let writes = thread::spawn({
                let (mut up, bytes) = (File::from(up), bytes.clone());
                move || up.write_all(&bytes).unwrap()
            });
            let mut came = vec![0; MUCH];
            let mut down = File::from(down);
            down.read_exact(&mut came).unwrap();
            assert!(came == bytes, "{name}, {is_blocking}");
            // Whoever shares them finds them as they were, while they are in use.
            for end in &kept {
                assert_eq!(blocks(end), is_blocking, "{name}");
            }
            drop(kept);
            writes.join().unwrap();
            assert_eq!(down.read(&mut came).unwrap(), 0, "{name}, {is_blocking}");
            brought(&child.finish(), b"");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_socket_for_both_ends_is_half_closed_at_the_end_of_the_answer() {
    let authority = Authority::new();
    let gate = gate(&authority, |mut stream| async move {
        use tokio::io::AsyncWriteExt;
        stream.write_all(b"all of it").await.unwrap();
        stream.shutdown().await.unwrap();
        echo(stream).await;
    })
    .await;
    let command = to(connect(&authority, gate.address), &[TARGET]);
    for make in [unix, tcp] {
        for is_blocking in [true, false] {
            let (own, its) = make();
            set(&its, is_blocking);
            let child = Child::spawn_between(&command, its.try_clone().unwrap(), its);
            // Its reader hears of the end, and has not said anything yet.
            let mut all = String::new();
            let mut own = File::from(own);
            own.read_to_string(&mut all).unwrap();
            assert_eq!(all, "all of it");
            drop(own);
            brought(&child.finish(), b"");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_devices_are_read_to_their_end_whether_they_block_or_not() {
    let authority = Authority::new();
    let gate = gate(&authority, echo).await;
    let command = to(connect(&authority, gate.address), &[TARGET]);
    let bytes = noise(6, 1 << 20);
    let input = authority.folder().join("input");
    std::fs::write(&input, &bytes).unwrap();
    for is_blocking in [true, false] {
        let output = authority.folder().join("output");
        let (stdin, stdout) = (File::open(&input).unwrap(), File::create(&output).unwrap());
        set(&stdin, is_blocking);
        set(&stdout, is_blocking);
        let child = Child::spawn_between(&command, stdin.into(), stdout.into());
        brought(&child.finish(), b"");
        assert!(std::fs::read(&output).unwrap() == bytes);

        let nothing = || File::options().read(true).write(true).open("/dev/null");
        let (stdin, stdout) = (nothing().unwrap(), nothing().unwrap());
        set(&stdin, is_blocking);
        set(&stdout, is_blocking);
        brought(
            &Child::spawn_between(&command, stdin.into(), stdout.into()).finish(),
            b"",
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_read_line_by_line_and_stays_as_its_shell_has_it() {
    let authority = Authority::new();
    let gate = gate(&authority, echo).await;
    let command = to(connect(&authority, gate.address), &[TARGET]);
    for is_blocking in [true, false] {
        let terminal = Terminal::new();
        set(&terminal.program, is_blocking);
        let stdin = terminal.program.try_clone().unwrap();
        let stdout = terminal.program.try_clone().unwrap();
        let child = Child::spawn_between(&command, stdin, stdout);
        // Two lines at once, which are read one by one.
        terminal.types("first\nsecond\n");
        // As they are typed, and as they come back.
        wait_until("both came back", || {
            terminal.shows_times("first") == 2 && terminal.shows_times("second") == 2
        });
        assert_eq!(blocks(&terminal.program), is_blocking);
        terminal.types("\u{4}");
        brought(&child.finish(), b"");
    }
}
