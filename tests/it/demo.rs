//! `portcullis demo` as a newcomer meets it: what it shows is pasted as it stands, and works.

use std::path::Path;
use std::process::{Command, Output};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::peers;
use crate::support::{Child, run, wait_until};
use crate::upstream::Upstream;

/// A demo on free ports, with what it has shown.
struct Demo {
    child: Child,
    lines: Vec<String>,
    /// What a demo that is killed leaves behind goes with this.
    _temporary: tempfile::TempDir,
}

impl Demo {
    fn start(sshd: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.args(["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        let temporary = tempfile::tempdir().unwrap();
        command
            .args(["--sshd", sshd])
            .env("TMPDIR", temporary.path());
        let child = Child::spawn(&command);
        let lines = std::cell::RefCell::new(Vec::new());
        child.wait_for("how it is ended", |line| {
            lines.borrow_mut().push(line.to_owned());
            line.contains("Ctrl-C ends the demo").then_some(())
        });
        // Each wait begins with the first line anew.
        let mut lines = lines.into_inner();
        let first = lines
            .iter()
            .rposition(|line| line.starts_with("A gateway listens on "));
        lines.drain(..first.unwrap());
        Self {
            child,
            lines,
            _temporary: temporary,
        }
    }

    /// The rest of the line that holds this.
    fn after(&self, words: &str) -> String {
        let found = self.lines.iter().find_map(|line| line.split_once(words));
        found
            .unwrap_or_else(|| panic!("no {words:?} in {:#?}", self.lines))
            .1
            .to_owned()
    }

    /// The command that begins so, over all its lines.
    fn command(&self, start: &str) -> String {
        let begin = |line: &String| {
            line.strip_prefix("  ")
                .is_some_and(|line| line.starts_with(start))
        };
        let first = self.lines.iter().position(begin);
        let first = first.unwrap_or_else(|| panic!("no {start:?} in {:#?}", self.lines));
        let last = self.lines[first..]
            .iter()
            .position(|line| !line.ends_with('\\'))
            .unwrap();
        self.lines[first..=first + last].join("\n")
    }

    /// Pastes a command into a shell of another folder.
    fn paste(&self, before: &str, start: &str) -> Output {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{before}{}", self.command(start))]);
        run(shell.current_dir("/"), b"")
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_command_that_it_shows_works_as_it_stands() {
    let (Some(_), Some(_)) = (
        peers::require("openssl", "openssl"),
        peers::require("curl", "curl"),
    ) else {
        return;
    };
    let demo = Demo::start("127.0.0.1:1");
    let done = demo.paste("", "echo hello | ");
    assert_eq!(
        (text(&done.stdout), text(&done.stderr)),
        ("hello\n".into(), String::new())
    );
    assert!(done.status.success());

    let done = demo.paste("", "(echo hello; sleep 1) | openssl ");
    assert_eq!(text(&done.stdout), "hello\n", "{}", text(&done.stderr));

    let done = demo.paste("", "curl ");
    let routes: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let names: Vec<_> = routes["routes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|route| &route["name"])
        .collect();
    assert_eq!(names, ["echo", "pass"]);

    assert_eq!(
        demo.after("no sshd answers at "),
        "127.0.0.1:1. --sshd names another.)"
    );
    demo.child.wait_for("the session of the echo", |line| {
        line.contains(" echo.portcullis.test -> echo -> ")
            .then_some(())
    });
    for line in &demo.lines {
        assert!(line.len() <= 80, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_reaches_the_sshd_that_it_has_found() {
    let Some(_) = peers::require("ssh", "ssh") else {
        return;
    };
    // One that greets and goes no further.
    let sshd = Upstream::tcp(|mut tcp| async move {
        let _ = tcp.write_all(b"SSH-2.0-portcullis_demo\r\n").await;
        let _ = tcp.shutdown().await;
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let demo = Demo::start(&sshd.address.to_string());
    let done = demo.paste(
        "ssh() { command ssh -v -F none -o BatchMode=yes \"$@\"; }\n",
        "ssh -o ",
    );
    let said = text(&done.stderr);
    assert!(
        said.contains("remote software version portcullis_demo"),
        "{said}"
    );
    let ended = "portcullis: ssh.portcullis.test greeted, and hung up at the first word";
    assert!(said.contains(ended), "{said}");
    let done = demo.paste("", "curl ");
    assert!(text(&done.stdout).contains(&format!("\"{}\"", sshd.address)));
}

#[test]
fn its_files_go_with_it_whatever_ends_it() {
    for signal in ["INT", "TERM", "HUP"] {
        let demo = Demo::start("127.0.0.1:1");
        let folder = demo.after("Its configuration and its CA are in ");
        assert!(Path::new(&folder).join("portcullis.toml").exists());
        demo.child.signal(signal);
        let done = demo.child.finish();
        assert_eq!(
            (done.status.code(), text(&done.stderr)),
            (Some(0), String::new())
        );
        wait_until("the folder is gone", || !Path::new(&folder).exists());
    }
}

#[test]
fn a_port_in_use_is_told_with_a_way_out() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    for (listen, admin) in [(taken.as_str(), "127.0.0.1:0"), ("127.0.0.1:0", &taken)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.args([
            "demo",
            "--listen",
            listen,
            "--admin",
            admin,
            "--sshd",
            "127.0.0.1:1",
        ]);
        let done = run(&command, b"");
        let said = text(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{said}");
        assert!(
            said.starts_with("portcullis: ") && said.contains(&taken),
            "{said}"
        );
        assert!(
            said.contains("\nhint: ") && said.contains("--listen 127.0.0.1:0"),
            "{said}"
        );
        assert_eq!(text(&done.stdout), "");
    }
}
