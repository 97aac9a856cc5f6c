//! A person at a terminal: what Ctrl-C and `~.` do, and that nothing is left behind.

use std::time::Instant;

use tokio::net::{TcpListener, TcpStream};

use super::{Proxy, SOON, Scene};
use crate::support::Child;
use crate::terminal::Terminal;

const CTRL_C: &str = "\u{3}";

/// Says when it runs, and ends in a way of its own when it is interrupted.
const TRAPS: &str = "trap \"echo was interrupted; exit 7\" INT; echo now\\ ready; read line";

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_goes_to_the_command_over_there_whose_status_comes_back() {
    let Some(mut scene) = Scene::start(Proxy::BuiltIn, &[]).await else {
        return;
    };
    let (terminal, shell) = person();
    terminal.types(&scene.typed("-t", TRAPS));
    terminal.wait_for("now ready\r\n");
    terminal.types(CTRL_C);
    terminal.wait_for("was interrupted\r\n");
    status(&terminal, 7);
    scene.closed().await;
    scene.is_as_before(&terminal, shell);
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_an_ssh_without_a_terminal_over_there_and_its_helper_without_a_word() {
    for proxy in [Proxy::BuiltIn, Proxy::Envoy] {
        let Some(mut scene) = Scene::start(proxy, &[]).await else {
            return;
        };
        let (terminal, shell) = person();
        terminal.types(&scene.typed("", "echo now\\ ready; cat"));
        terminal.wait_for("now ready\r\n");
        terminal.types(CTRL_C);
        status(&terminal, 255);
        scene.closed().await;
        scene.is_as_before(&terminal, shell);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tilde_dot_ends_a_session_at_once_and_without_a_word_of_the_helper() {
    for proxy in [Proxy::BuiltIn, Proxy::Envoy] {
        let Some(mut scene) = Scene::start(proxy, &[]).await else {
            return;
        };
        let (terminal, shell) = person();
        terminal.types(&scene.typed("-t", "echo now\\ ready; cat"));
        terminal.wait_for("now ready\r\n");
        // It does not have to wait for the other end, which hears nothing any more.
        scene.vm.signal("STOP");
        let ended = Instant::now();
        terminal.types("\r~.");
        status(&terminal, 255);
        scene.nothing_is_left();
        assert!(ended.elapsed() < SOON, "{:?}", ended.elapsed());
        scene.vm.signal("CONT");
        scene.closed().await;
        scene.is_as_before(&terminal, shell);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_before_there_is_a_tunnel_ends_both_and_says_nothing() {
    let Some(scene) = Scene::start(Proxy::BuiltIn, &[]).await else {
        return;
    };
    // It takes the connection, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connect = format!(
        "{} connect --gateway {} --ca {} -- %h",
        env!("CARGO_BIN_EXE_portcullis"),
        silent.local_addr().unwrap(),
        scene.path("ca.pem").display()
    );
    let (terminal, shell) = person();
    let options = format!("-o \"ProxyCommand={connect}\"");
    terminal.types(&scene.typed(&options, "true"));
    let (mut tcp, _) = silent.accept().await.unwrap();
    said_hello(&mut tcp).await;
    terminal.types(CTRL_C);
    status(&terminal, 130);
    scene.is_as_before(&terminal, shell);
}

/// A person who has typed nothing yet into a shell at a terminal.
fn person() -> (Terminal, Child) {
    let terminal = Terminal::new();
    let shell = terminal.start_shell();
    (terminal, shell)
}

/// Waits until the first command has ended, with this status.
fn status(terminal: &Terminal, code: u8) {
    terminal.asks(2);
    terminal.types("echo it was $?.\n");
    terminal.asks(3);
    let shown = terminal.shown();
    assert!(shown.contains(&format!("it was {code}.")), "{shown}");
}

async fn said_hello(tcp: &mut TcpStream) {
    let mut first = [0];
    tcp.readable().await.unwrap();
    assert_eq!(tcp.peek(&mut first).await.unwrap(), 1);
}

impl Scene {
    /// Checks that nothing of ours was said, that nothing is left, and that the shell goes on.
    fn is_as_before(&self, terminal: &Terminal, shell: Child) {
        self.nothing_is_left();
        terminal.types("exit\n");
        assert!(shell.finish().status.success());
        let shown = terminal.shown();
        for word in ["portcullis: ", "hint: ", "warning: "] {
            assert!(!shown.contains(word), "{shown}");
        }
    }
}
