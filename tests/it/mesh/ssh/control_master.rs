//! Sessions that share a connection, as the installed block lets them: what ends the first of them ends no other.

use std::io::Write;
use std::path::PathBuf;
use std::process::{ChildStdin, Command};
use std::time::{Duration, Instant};

use super::{NAME, Proxy, Scene};
use crate::support::{Child, run, wait_until};
use crate::terminal::Terminal;

const CTRL_C: &str = "\u{3}";
const CTRL_Z: &str = "\u{1a}";

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_z_and_ctrl_c_in_the_terminal_of_the_first_session_end_no_other() {
    for proxy in [Proxy::BuiltIn, Proxy::Envoy] {
        let Some(mut shared) = Shared::start(proxy).await else {
            return;
        };
        // The helper is in the foreground with it, and stays there when ssh has gone to the background.
        shared.terminal.types(CTRL_Z);
        shared.terminal.asks(2);
        shared.others_go_on();

        shared.terminal.types("fg\n");
        let shell = shared.shell.as_ref().unwrap().id();
        wait_until("the session is in the foreground again", || {
            shared.terminal.foreground() != shell
        });
        shared.terminal.types(CTRL_C);
        shared.terminal.asks(3);
        shared.others_go_on();

        shared.terminal.types("exit\n");
        shared.shell.take().unwrap().finish();
        shared.others_go_on();
        shared.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_is_closed_on_the_first_session_ends_no_other() {
    let Some(mut shared) = Shared::start(Proxy::BuiltIn).await else {
        return;
    };
    // With the shell goes what is in the foreground.
    drop(shared.shell.take());
    wait_until("the first has ended", || {
        shared.scene.processes("ssh").len() == 1
    });
    // Longer than a tunnel goes on whose user has hung up.
    let told = Instant::now();
    while told.elapsed() < Duration::from_secs(3) {
        shared.others_go_on();
    }
    shared.end().await;
}

/// A session in a terminal, which has opened a connection, and a second one that shares it.
struct Shared {
    terminal: Terminal,
    shell: Option<Child>,
    second: Child,
    stdin: ChildStdin,
    words: usize,
    helpers: Vec<u32>,
    master: Master,
    scene: Scene,
}

impl Shared {
    async fn start(proxy: Proxy) -> Option<Self> {
        let scene = Scene::start(proxy, &["--control-master"]).await?;
        let master = Master {
            config: scene.config.clone(),
            socket: scene.path("cm-%C"),
        };
        let terminal = Terminal::new();
        let shell = terminal.start_shell();
        // What is typed is the shell's: else ssh would wait for it in place of the shell, and all that share it.
        let options = format!("-n -S {}", master.socket.display());
        let lasts = "echo now\\ ready; while sleep 1; do echo; done";
        terminal.types(&scene.typed(&options, lasts));
        terminal.wait_for("now ready\r\n");

        let (second, stdin) = Child::spawn_with_stdin(&master.ssh(&[NAME, "cat"]));
        let mut shared = Self {
            terminal,
            shell: Some(shell),
            second,
            stdin,
            words: 0,
            helpers: scene.helpers(),
            master,
            scene,
        };
        shared.others_go_on();
        assert_eq!(shared.helpers.len(), 1);
        Some(shared)
    }

    /// Checks that the second session goes on, and that a third one comes and goes over the same connection.
    fn others_go_on(&mut self) {
        self.words += 1;
        let word = format!("word {}", self.words);
        writeln!(self.stdin, "{word}").unwrap();
        self.second
            .wait_for(&word, |line| (line == word).then_some(()));
        let done = run(&self.master.ssh(&[NAME, "echo third"]), b"");
        assert_eq!(done.stdout, b"third\n", "{done:?}");
        assert_eq!(self.scene.helpers(), self.helpers);
        assert!(self.scene.mesh.gateway.has_no_more_records());
    }

    /// Ends all of it.
    async fn end(mut self) {
        drop(self.stdin);
        let done = self.second.finish();
        assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
        drop(self.master);
        self.scene.closed().await;
        assert!(self.scene.mesh.gateway.has_no_more_records());
        self.scene.nothing_is_left();
        let shown = self.terminal.shown();
        assert!(!shown.contains("portcullis: "), "{shown}");
    }
}

/// What keeps the connection; dropped, it is told to end, or it would outlive the test.
struct Master {
    config: PathBuf,
    /// The installed block has one in the home of the person, which is no test's.
    socket: PathBuf,
}

impl Master {
    fn ssh(&self, arguments: &[&str]) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(&self.config).arg("-S").arg(&self.socket);
        ssh.args(arguments);
        ssh
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        let exit = self.ssh(&["-O", "exit", NAME]);
        let mut bounded = Command::new("timeout");
        bounded.arg("10").arg(exit.get_program());
        // It may have ended before.
        let _ = bounded.args(exit.get_args()).output();
    }
}
