//! What a gateway may no longer do once it serves, and what it says where it still may.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use portcullis::sandbox::{Extent, Sandbox, SandboxError, Writable};
use serde_json::Value;

use crate::peers;
use crate::splice_denied::DENY;
use crate::support::{Child, run, wait_until};

/// Linux: CAP_NET_BIND_SERVICE, as /proc/PID/status writes it.
const NET_BIND_SERVICE: &str = "0000000000000400";
const NONE: &str = "0000000000000000";

/// A user and group without any right of their own.
const NOBODY: u32 = 65534;

/// A folder that everybody may write to, as its own user could: the configuration, `run` for the admin socket, `other`.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        for folder in ["", "run", "other"] {
            let folder = place.path(folder);
            fs::create_dir_all(&folder).unwrap();
            fs::set_permissions(folder, PermissionsExt::from_mode(0o777)).unwrap();
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The configuration, with its admin interface at this path and these lines.
    fn configure(&self, admin: &str, lines: &str) {
        let text = format!(
            "listen = [\"127.0.0.1:0\"]\nadmin = \"unix:{admin}\"\nlog = {{ format = \"json\" }}\n{lines}\n"
        );
        fs::write(self.path("portcullis.toml"), text).unwrap();
    }

    /// A gateway, started by a command that becomes what its last arguments say.
    fn start(&self, mut starter: Command) -> Child {
        starter.arg(env!("CARGO_BIN_EXE_portcullis"));
        self.serve(starter)
    }

    fn serve(&self, mut command: Command) -> Child {
        command.args(["serve", "--config"]);
        command.arg(self.path("portcullis.toml"));
        let child = Child::spawn(&command);
        child.wait_for("admin interface", |line| {
            (message(line)? == "admin interface").then_some(())
        });
        child
    }

    /// What the admin interface answers.
    fn ask(&self, request: &str) -> String {
        let mut admin = UnixStream::connect(self.path("run/admin.sock")).unwrap();
        write!(admin, "{request} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        admin.read_to_string(&mut answer).unwrap();
        answer
    }
}

fn message(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    Some(line["message"].as_str()?.to_owned())
}

fn env() -> Command {
    Command::new("env")
}

/// Lines of /proc/PID/task/TID/status, of each thread.
fn statuses(child: &Child) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
    let status = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("status")).unwrap();
    threads.map(|thread| status(thread.unwrap())).collect()
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let mut lines = status.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value
        .unwrap_or_else(|| panic!("no {name} in {status}"))
        .trim()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this test can be made by root, which alone can become somebody else; tells so where it cannot.
fn by_root() -> bool {
    if !is_root() {
        peers::skip("only root can do this");
    }
    is_root()
}

#[test]
fn no_thread_of_a_gateway_has_a_privilege_left_and_it_leaves_no_core_dump() {
    let place = Place::new();
    place.configure("run/admin.sock", "");
    let gateway = place.start(env());
    let statuses = statuses(&gateway);
    assert!(statuses.len() > 3, "{statuses:?}");
    for status in statuses {
        assert_eq!(field(&status, "NoNewPrivs"), "1");
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(field(&status, set), NONE, "{set}");
        }
        for set in ["CapPrm", "CapEff"] {
            let kept = if is_root() { NET_BIND_SERVICE } else { NONE };
            assert_eq!(field(&status, set), kept, "{set}");
        }
        if is_root() {
            assert_eq!(field(&status, "CapBnd"), NET_BIND_SERVICE);
        }
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", gateway.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core"));
    let core: Vec<&str> = core.unwrap().split_whitespace().collect();
    assert_eq!(core, ["Max", "core", "file", "size", "0", "0", "bytes"]);

    let ready = place.ask("GET /readyz");
    assert!(ready.contains("sandbox ready\n"), "{ready}");
    let metrics = place.ask("GET /metrics");
    assert!(
        metrics.contains("portcullis_sandbox{extent=\"whole\"} 1\n"),
        "{metrics}"
    );
}

#[test]
fn an_ordinary_user_gets_the_same_sandbox_and_its_process_is_closed_to_others_of_the_user() {
    if !by_root() {
        return;
    }
    let place = Place::new();
    place.configure("run/admin.sock", "");
    // The one that was built may be where only root can go.
    let program = place.path("portcullis");
    fs::copy(env!("CARGO_BIN_EXE_portcullis"), &program).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
    // A change of user takes back what kills it with the test.
    command.args(["setpriv", "--pdeathsig", "KILL", "--"]);
    let gateway = place.serve({
        command.arg(program);
        command
    });
    for status in statuses(&gateway) {
        assert_eq!(field(&status, "NoNewPrivs"), "1");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(field(&status, set), NONE, "{set}");
        }
    }
    let memory = fs::metadata(format!("/proc/{}/environ", gateway.id())).unwrap();
    assert_eq!(memory.uid(), 0, "another process of the user could look in");
    assert_eq!(
        fs::metadata(place.path("run/admin.sock")).unwrap().uid(),
        NOBODY
    );
    let ready = place.ask("GET /readyz");
    assert!(ready.contains("sandbox ready\n"), "{ready}");
    gateway.signal("TERM");
    assert!(gateway.finish().status.success());
    assert!(!place.path("run/admin.sock").exists());
}

/// The test starts itself once more, in a process that can be shut in, and there does what is not to succeed.
fn in_a_process_of_its_own(test: &str, inside: impl FnOnce(&Path)) {
    const VARIABLE: &str = "PORTCULLIS_TEST_OF_THE_SANDBOX";
    if let Some(place) = std::env::var_os(VARIABLE) {
        return inside(Path::new(&place));
    }
    let place = Place::new();
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", test]).env(VARIABLE, place.path(""));
    let done = run(&again, b"");
    let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn in_the_sandbox_files_are_written_where_it_is_said_and_nothing_is_executed() {
    let name = "sandbox::in_the_sandbox_files_are_written_where_it_is_said_and_nothing_is_executed";
    in_a_process_of_its_own(name, |place| {
        let [run, other] = ["run", "other"].map(|name| place.join(name));
        let state = place.join("state");
        fs::create_dir_all(state.join("deep")).unwrap();
        fs::write(other.join("old"), "old").unwrap();
        let program = state.join("program");
        fs::copy("/bin/true", &program).unwrap();
        let writable = Writable {
            files: vec![state.clone()],
            sockets: vec![run.join("admin.sock")],
        };
        let sandbox = Sandbox::enter(writable, &[]).unwrap();
        assert_eq!(sandbox.extent(), Extent::Whole);
        assert_eq!(sandbox.has_dropped(), is_root());

        // A thread made later is in it too.
        let tried = thread::spawn(move || {
            fs::write(state.join("deep/new"), "new").unwrap();
            fs::rename(state.join("deep/new"), state.join("moved")).unwrap();
            fs::remove_file(state.join("moved")).unwrap();
            UnixListener::bind(run.join("admin.sock")).unwrap();
            fs::remove_file(run.join("admin.sock")).unwrap();

            assert_eq!(fs::read_to_string(other.join("old")).unwrap(), "old");
            let denied = [
                fs::write(run.join("file"), ""),
                fs::create_dir(run.join("folder")),
                fs::write(other.join("new"), ""),
                fs::write(other.join("old"), "changed"),
                fs::OpenOptions::new()
                    .append(true)
                    .open(other.join("old"))
                    .map(drop),
                fs::remove_file(other.join("old")),
                fs::create_dir(other.join("folder")),
                std::os::unix::fs::symlink("/", other.join("link")),
                UnixListener::bind(other.join("socket")).map(drop),
                Command::new("/bin/true").status().map(drop),
                // Not even what it could write itself.
                Command::new(program).status().map(drop),
            ];
            for (number, outcome) in denied.into_iter().enumerate() {
                let error = outcome.expect_err(&format!("number {number} succeeded"));
                assert_eq!(error.kind(), ErrorKind::PermissionDenied, "number {number}");
            }
        });
        tried.join().unwrap();
    });
}

#[test]
fn a_directory_that_must_stay_writable_and_is_not_there_is_named() {
    let name = "sandbox::a_directory_that_must_stay_writable_and_is_not_there_is_named";
    in_a_process_of_its_own(name, |place| {
        let writable = Writable {
            files: vec![place.join("none")],
            sockets: Vec::new(),
        };
        match Sandbox::enter(writable, &[]) {
            Err(SandboxError::Directory { path, .. }) => assert_eq!(path, place.join("none")),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn an_admin_socket_moves_within_its_directory_and_not_out_of_it() {
    let place = Place::new();
    place.configure("run/admin.sock", "");
    let gateway = place.start(env());

    place.configure("other/admin.sock", "");
    let answer = place.ask("POST /v1/reload");
    for words in [
        "422",
        "`admin` cannot become",
        "other/admin.sock",
        "restart",
    ] {
        assert!(answer.contains(words), "{answer}");
    }
    assert!(!place.path("other/admin.sock").exists());

    place.configure("run/second.sock", "");
    let answer = place.ask("POST /v1/reload");
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    wait_until("the first socket is gone", || {
        !place.path("run/admin.sock").exists()
    });
    assert!(place.path("run/second.sock").exists());
    drop(gateway);
}

/// What the path leads to is another directory than at the start: only the kernel can tell, and it does.
#[test]
fn the_kernel_holds_the_threads_of_a_gateway_that_serves() {
    let place = Place::new();
    place.configure("run/admin.sock", "");
    let gateway = place.start(env());
    fs::rename(place.path("run"), place.path("before")).unwrap();
    fs::create_dir(place.path("run")).unwrap();
    place.configure("run/second.sock", "");
    gateway.signal("HUP");
    let refused = gateway.wait_for("a refusal", |line| {
        message(line).filter(|message| message.contains("configuration is refused"))
    });
    assert!(refused.contains("Permission denied"), "{refused}");
    assert!(!place.path("run/second.sock").exists());
}

#[test]
fn without_the_sandbox_everything_is_as_before_and_the_log_readyz_and_metrics_say_so() {
    let place = Place::new();
    place.configure("run/admin.sock", "insecure_no_sandbox = true");
    let gateway = place.start(env());
    gateway.wait_for("a warning", |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let lack = line["lack"].as_str()?.contains("insecure_no_sandbox");
        (lack && line["level"] == "WARN").then_some(())
    });
    let own = fs::read_to_string("/proc/thread-self/status").unwrap();
    for status in statuses(&gateway) {
        for name in ["NoNewPrivs", "CapEff", "CapBnd"] {
            assert_eq!(field(&status, name), field(&own, name), "{name}");
        }
    }
    let ready = place.ask("GET /readyz");
    assert!(ready.starts_with("HTTP/1.0 200"), "{ready}");
    let line = "sandbox degraded: off by `insecure_no_sandbox = true`\n";
    assert!(ready.contains(line), "{ready}");
    let metrics = place.ask("GET /metrics");
    assert!(metrics.contains("portcullis_sandbox{extent=\"off\"} 1\n"));

    // To leave it out is not to be had later, nor to enter it.
    place.configure("run/admin.sock", "");
    place.ask("POST /v1/reload");
    gateway.wait_for("when it counts", |line| {
        message(line)?
            .contains("counts at the next start")
            .then_some(())
    });
}

#[test]
fn a_kernel_without_landlock_is_told_once_and_keeps_nobody_from_being_ready() {
    let place = Place::new();
    place.configure("run/admin.sock", "");
    let mut python = Command::new("python3");
    let error = rustix::io::Errno::NOSYS.raw_os_error().to_string();
    python.args(["-c", DENY, "landlock_create_ruleset", &error]);
    let gateway = place.start(python);
    let ready = place.ask("GET /readyz");
    assert!(ready.starts_with("HTTP/1.0 200"), "{ready}");
    let line = "sandbox degraded: the kernel has no Landlock";
    assert!(ready.contains(line), "{ready}");
    for status in statuses(&gateway) {
        assert_eq!(field(&status, "NoNewPrivs"), "1");
        assert_eq!(field(&status, "CapAmb"), NONE);
    }
    // Nothing forbids another directory then.
    place.configure("other/admin.sock", "");
    let answer = place.ask("POST /v1/reload");
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    gateway.signal("TERM");
    let said = String::from_utf8(gateway.finish().stderr).unwrap();
    assert_eq!(
        said.matches("the sandbox is not whole").count(),
        1,
        "{said}"
    );
}

/// A reload would miss them: better that the start does.
#[test]
fn files_that_root_reads_by_a_capability_only_are_missed_at_the_start_with_a_hint() {
    if !by_root() {
        return;
    }
    let place = Place::new();
    let token = place.path("token");
    let tables = "admin_token_file = \"token\"\n";
    fs::write(&token, "secret").unwrap();
    fs::set_permissions(&token, PermissionsExt::from_mode(0o600)).unwrap();
    chown(&token, Some(NOBODY), Some(NOBODY)).unwrap();
    place.configure("run/admin.sock", tables);
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(["serve", "--config"]);
    let done = run(command.arg(place.path("portcullis.toml")), b"");
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(2), "{said}");
    for words in ["admin_token_file", "Permission denied", "hint: root"] {
        assert!(said.contains(words), "{said}");
    }
    place.configure(
        "run/admin.sock",
        &format!("{tables}insecure_no_sandbox = true"),
    );
    drop(place.start(env()));
}

#[test]
fn what_was_open_before_stays_open_logs_go_to_files_elsewhere() {
    let place = Place::new();
    place.configure("run/admin.sock", "");
    let log = place.path("other/log");
    let mut shell = Command::new("sh");
    let script = r#"exec 2>>"$0"; exec "$@" serve --config portcullis.toml"#;
    shell.args(["-c", script]).arg(&log);
    shell.arg(env!("CARGO_BIN_EXE_portcullis"));
    let gateway = Child::spawn(shell.current_dir(place.path("")));
    wait_until("it listens", || place.path("run/admin.sock").exists());
    place.configure("run/second.sock", "");
    gateway.signal("HUP");
    wait_until("what came later is in the file too", || {
        let log = fs::read_to_string(&log).unwrap();
        log.contains("the new configuration serves")
    });
}

#[test]
fn a_gateway_in_its_sandbox_writes_its_state() {
    let place = Place::new();
    let upstream = "[upstreams.own]\nendpoints = [\"localhost:22\"]";
    place.configure(
        "run/admin.sock",
        &format!("state_dir = \"state/deep\"\n{upstream}"),
    );
    let gateway = place.start(env());
    wait_until("the name is kept", || {
        place.path("state/deep/names").exists()
    });
    let mode = fs::metadata(place.path("state/deep")).unwrap().mode();
    assert_eq!(mode & 0o777, 0o700);
    let ready = place.ask("GET /readyz");
    for line in ["sandbox ready\n", "state ready\n"] {
        assert!(ready.contains(line), "{ready}");
    }
    drop(gateway);

    // What can be made nowhere keeps nobody from serving.
    place.configure("run/admin.sock", "state_dir = \"portcullis.toml/state\"");
    let gateway = place.start(env());
    let ready = place.ask("GET /readyz");
    assert!(ready.starts_with("HTTP/1.0 200"), "{ready}");
    let line = "state degraded: the last good is not kept: cannot make";
    assert!(ready.contains(line), "{ready}");
    drop(gateway);
}
