//! A passphrase that a person types at a terminal, which shows nothing of it and is as it was before in the end.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use super::memory::holds;
use super::{NAME, PASSPHRASE, Scene, connecting, portcullis};
use crate::gateway::Gateway;
use crate::peers;
use crate::support::{run, wait_until};
use crate::terminal::Terminal;
use crate::upstream::Upstream;

impl Terminal {
    /// Waits until so many questions stand there.
    fn asked(&self, times: usize) {
        wait_until("it asks", || self.shows_times("passphrase for") == times);
        // It asks when nothing is shown any more, and not before.
        assert!(!self.echoes());
    }
}

/// What ends a program while it asks.
enum End {
    Key(&'static str),
    Signal(&'static str),
}

/// What starts a gateway with an encrypted key and no other source.
async fn serving(scene: &Scene, upstream: &Upstream) -> Command {
    scene.encrypt("edge.key", "");
    scene.encrypt("second.key", "");
    let tables = format!(
        "listen = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nlog = {{ format = \"json\" }}\n\
         [[certificates]]\nchain = \"edge.pem\"\nkey = \"edge.key\"\n\
         [[certificates]]\nchain = \"edge.pem\"\nkey = \"second.key\"\n\
         [routes.vm]\nhost = \"{NAME}\"\nupstream = \"{}\"\n",
        upstream.address
    );
    let config = scene.authority.write("portcullis.toml", &tables);
    portcullis(&["serve", "--config", config.to_str().unwrap()])
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_asks_at_the_start_until_the_key_opens_and_a_reload_asks_nobody() {
    let Some(scene) = Scene::new() else { return };
    let upstream = Upstream::echo().await;
    let terminal = Terminal::new();
    let child = terminal.start(&serving(&scene, &upstream).await, None);
    terminal.asked(1);
    terminal.types("wrong\n");
    terminal.asked(2);
    terminal.types(&format!("oops\u{15}{PASSPHRASE}\n"));
    // The second key has the same, and is opened without a word.
    let serves = |line: &str| line.contains("admin interface").then_some(());
    child.wait_for("that it serves", serves);
    assert!(terminal.echoes());
    assert!(terminal.shows("that does not open it; passphrase for"));
    assert!(!terminal.shows(PASSPHRASE) && !terminal.shows("wrong"));

    child.signal("HUP");
    child.wait_for("that it serves", |line| {
        line.contains("the new configuration serves").then_some(())
    });
    scene.passphrase("passphrase", "another one");
    scene.encrypt("edge.key", "");
    child.signal("HUP");
    child.wait_for("a refusal", |line| {
        line.contains("a reload asks nobody").then_some(())
    });
    assert_eq!(terminal.shows_times("passphrase for"), 2);
    assert!(!child.all().contains(PASSPHRASE));
}

#[tokio::test(flavor = "multi_thread")]
async fn three_wrong_answers_or_none_at_all_end_the_start() {
    let Some(scene) = Scene::new() else { return };
    let upstream = Upstream::echo().await;
    let command = serving(&scene, &upstream).await;
    let refused = |answers: &[&str], says: &str| {
        let terminal = Terminal::new();
        let child = terminal.start(&command, None);
        for (number, answer) in answers.iter().enumerate() {
            terminal.asked(number + 1);
            terminal.types(answer);
        }
        let done = child.finish();
        let told = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(2), "{told}");
        assert!(told.contains(says), "{told}");
        assert!(terminal.echoes());
    };
    // Both keys are asked for.
    let wrong = ["1\n", "2\n", "3\n", "4\n", "5\n", "6\n"];
    refused(&wrong, "the passphrase does not open the key");
    refused(&["\u{4}", "\n"], "there was no answer");
    // Without a terminal there is nobody to ask.
    let mut alone = Command::new("setsid");
    alone.arg(command.get_program()).args(command.get_args());
    let done = run(&alone, b"");
    let told = String::from_utf8(done.stderr).unwrap();
    assert!(
        told.contains("cannot be asked for: there is no terminal"),
        "{told}"
    );
    for way in ["--passphrase-file", "`key_passphrase_command`"] {
        assert!(told.contains(way), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_ends_it_while_it_asks_leaves_a_terminal_that_shows_what_is_typed() {
    let Some(scene) = Scene::new() else { return };
    let upstream = Upstream::echo().await;
    let serve = serving(&scene, &upstream).await;
    let gateway = "127.0.0.1:1";
    let connect = connecting(&scene, gateway, &scene.path("edge.key"));
    let connect: Vec<&str> = connect.iter().map(String::as_str).chain([NAME]).collect();
    let connect = portcullis(&connect);
    let ends = [
        // As a stop before it serves.
        (&serve, End::Key("half\u{3}"), (Some(0), None)),
        (&serve, End::Signal("TERM"), (Some(0), None)),
        (&serve, End::Signal("INT"), (Some(0), None)),
        (&serve, End::Signal("QUIT"), (None, Some(3))),
        // As every command.
        (&connect, End::Key("half\u{3}"), (None, Some(2))),
        (&connect, End::Key("half\u{1c}"), (None, Some(3))),
        (&connect, End::Signal("INT"), (None, Some(2))),
        (&connect, End::Signal("QUIT"), (None, Some(3))),
        // Whoever has started it is gone.
        (&connect, End::Signal("TERM"), (Some(0), None)),
        (&connect, End::Signal("HUP"), (Some(0), None)),
    ];
    for (number, (command, end, status)) in ends.into_iter().enumerate() {
        let terminal = Terminal::new();
        let child = terminal.start(command, None);
        terminal.asked(1);
        match end {
            End::Key(keys) => terminal.types(keys),
            End::Signal(name) => child.signal(name),
        }
        let done = child.finish();
        assert!(terminal.echoes(), "{number}: {done:?}");
        let ended = (done.status.code(), done.status.signal());
        assert_eq!(ended, status, "{number}: {done:?}");
        assert!(done.stderr.is_empty(), "{number}: {done:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_asks_at_the_terminal_while_its_stdin_is_the_tunnels() {
    let Some(scene) = Scene::new() else { return };
    if peers::require("setsid", "setsid").is_none() {
        return;
    }
    scene.encrypt("client.key", "");
    let upstream = Upstream::echo().await;
    let tables = format!(
        "certificates = [{{ chain = \"edge.pem\", key = \"plain.key\" }}]\n\
         [tls.options.default]\nclient_auth = \"required\"\nclient_ca = [\"ca.pem\"]\n\
         [routes.vm]\nhost = \"{NAME}\"\nupstream = \"{}\"\n",
        upstream.address
    );
    let gateway = Gateway::start(&scene.authority, &tables).await;
    let arguments = connecting(&scene, gateway.address, &scene.path("client.key"));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain([NAME]).collect();
    let input = scene.path("input");
    let fifo = run(Command::new("mkfifo").arg(&input), b"");
    assert!(fifo.status.success());
    let mut stdin = File::options().read(true).write(true).open(&input).unwrap();
    let terminal = Terminal::new();
    let child = terminal.start(&portcullis(&arguments), Some(&input));
    terminal.asked(1);
    terminal.types(&format!("{PASSPHRASE}\r"));
    stdin.write_all(b"hello\n").unwrap();
    child.wait_for("its echo", |line| (line == "hello").then_some(()));
    if rustix::process::geteuid().is_root() {
        assert!(!holds(child.id(), PASSPHRASE.as_bytes()));
    }
    drop(stdin);
    let done = child.finish();
    assert_eq!(String::from_utf8_lossy(&done.stderr), "");
    assert_eq!(done.stdout, b"hello\n");
    assert!(terminal.echoes());
}
