//! Signals while a program is asked for a passphrase: whom they end, and that nothing is left of the program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{NAME, PASSPHRASE, Scene, connecting, portcullis};
use crate::support::{Child, run, wait_until};

/// How a process ends.
type Status = (Option<i32>, Option<i32>);

/// Without a word.
const QUIETLY: Status = (Some(0), None);

/// Writes a program that tells its number and that of what it has started, and hangs.
fn hanging(scene: &Scene) -> String {
    let numbers = scene.path("numbers").display().to_string();
    let script = format!(
        "#!/bin/sh\nsleep 600 &\necho $$ $! >{numbers}.new\nmv {numbers}.new {numbers}\nwait\n"
    );
    let path = scene.authority.write("hanging", &script);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    path.display().to_string()
}

/// Waits until the program runs; its number, and that of what it has started.
fn running(scene: &Scene) -> Vec<String> {
    let path = scene.path("numbers");
    wait_until("the program runs", || path.exists());
    let numbers = fs::read_to_string(&path).unwrap();
    fs::remove_file(path).unwrap();
    numbers.split_whitespace().map(str::to_owned).collect()
}

/// Whether a process is there, and no corpse.
fn runs(number: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{number}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z ") && !stat.contains(") X "))
}

/// Sends this signal while the program runs, and takes it away with the process.
#[track_caller]
fn ended(scene: &Scene, child: Child, signal: &str) -> (Status, String) {
    let numbers = running(scene);
    assert_eq!(numbers.len(), 2);
    assert!(numbers.iter().all(|number| runs(number)), "{numbers:?}");
    let start = Instant::now();
    child.signal(signal);
    let done = child.finish();
    // Of itself the program would be given up after ten.
    assert!(start.elapsed() < Duration::from_secs(5));
    for number in numbers {
        // The last of them is killed before the process ends, and dies in its own time.
        wait_until("it is gone", || !runs(&number));
    }
    let status = (done.status.code(), done.status.signal());
    (status, String::from_utf8(done.stderr).unwrap())
}

#[test]
fn a_signal_ends_connect_and_doctor_while_they_ask_a_program_and_the_program_with_them() {
    let Some(scene) = Scene::new() else { return };
    scene.encrypt("client.key", "");
    let program = hanging(&scene);
    let connect = connecting(&scene, "127.0.0.1:1", &scene.path("client.key"));
    let as_ever = |number| (None, Some(number));
    for (signal, connects, doctors) in [
        ("HUP", QUIETLY, as_ever(1)),
        ("TERM", QUIETLY, as_ever(15)),
        ("INT", as_ever(2), as_ever(2)),
        ("QUIT", as_ever(3), as_ever(3)),
    ] {
        for (name, status) in [("connect", connects), ("doctor", doctors)] {
            let own = connect.iter().skip(1).map(String::as_str);
            let arguments: Vec<&str> = [name].into_iter().chain(own).collect();
            let more = ["--passphrase-command", &program, NAME];
            let child = Child::spawn(&portcullis(&[&arguments[..], &more].concat()));
            let (ended, told) = ended(&scene, child, signal);
            assert_eq!(ended, status, "{name} by {signal}: {told}");
            assert_eq!(told, "", "{name} by {signal}");
        }
    }
}

/// What starts a gateway with an encrypted key, and this program to ask.
fn serving(scene: &Scene, program: &str) -> Command {
    let text = "listen = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nlog = { format = \"json\" }\n\
                insecure_no_sandbox = true\n[[certificates]]\nchain = \"edge.pem\"\nkey = \"edge.key\"\n";
    let config = scene.authority.write("portcullis.toml", text);
    let config = config.display().to_string();
    portcullis(&[
        "serve",
        "--config",
        &config,
        "--passphrase-command",
        program,
    ])
}

#[test]
fn a_stop_before_it_serves_ends_a_gateway_or_a_tunnel_and_the_program_that_it_asks() {
    let Some(scene) = Scene::new() else { return };
    scene.encrypt("edge.key", "");
    let program = hanging(&scene);
    let file = |name: &str| scene.path(name).display().to_string();
    let (cert, key) = (file("edge.pem"), file("edge.key"));
    let mut tunnel = portcullis(&[
        "tunnel",
        "--listen",
        "127.0.0.1:0",
        "--to",
        "gate.invalid:1",
    ]);
    tunnel.args([
        "--cert",
        &cert,
        "--key",
        &key,
        "--passphrase-command",
        &program,
    ]);
    for command in [serving(&scene, &program), tunnel] {
        for (signal, status) in [
            ("TERM", QUIETLY),
            ("INT", QUIETLY),
            ("QUIT", (None, Some(3))),
        ] {
            let (ended, told) = ended(&scene, Child::spawn(&command), signal);
            assert_eq!(ended, status, "{command:?} by {signal}: {told}");
        }
    }
}

#[test]
fn a_stop_in_a_reload_ends_the_program_that_it_asks() {
    let Some(scene) = Scene::new() else { return };
    scene.encrypt("edge.key", "");
    let hanging = hanging(&scene);
    let hangs = scene.path("hangs").display().to_string();
    let script = format!("#!/bin/sh\n[ -e {hangs} ] && exec {hanging}\necho {PASSPHRASE}\n");
    let path = scene.authority.write("at-first", &script);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    let child = Child::spawn(&serving(&scene, &path.display().to_string()));
    child.wait_for("that it serves", |line| {
        line.contains("admin interface").then_some(())
    });
    fs::write(&hangs, "").unwrap();
    child.signal("HUP");
    let (status, told) = ended(&scene, child, "TERM");
    assert_eq!(status, QUIETLY, "{told}");
}

#[test]
fn only_the_first_line_of_a_descriptor_is_waited_for_and_what_is_behind_it_is_left() {
    let Some(scene) = Scene::new() else { return };
    scene.encrypt("client.key", "");
    let own = connecting(&scene, "127.0.0.1:1", &scene.path("client.key"));
    let mut shell = Command::new("sh");
    // Whoever writes there goes on and on; the command would not end if it waited for that.
    let script = "mkfifo \"$FIFO\"; exec 3<>\"$FIFO\"; printf '%s\\nrest\\n' \"$PASSPHRASE\" >&3; \
                  \"$0\" \"$@\"; read rest <&3; echo \"$rest\"";
    shell.args(["-c", script, env!("CARGO_BIN_EXE_portcullis")]);
    shell.args(own).args(["--passphrase-fd", "3", NAME]);
    shell
        .env("FIFO", scene.path("fifo"))
        .env("PASSPHRASE", PASSPHRASE);
    let done = run(&shell, b"");
    let told = String::from_utf8(done.stderr).unwrap();
    assert!(told.contains("127.0.0.1:1 refuses connections"), "{told}");
    assert_eq!(String::from_utf8(done.stdout).unwrap(), "rest\n");
}
