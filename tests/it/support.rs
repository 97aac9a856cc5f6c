//! Other programs as children of a test, which they never outlive.

use std::fs;
use std::io::{Read, Write};
use std::mem;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for what must come; only a failing test waits that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a program to its end, with these bytes on its stdin; panics if it does not end in [`PATIENCE`].
pub(crate) fn run(command: &Command, input: &[u8]) -> Output {
    let (child, mut stdin) = Child::spawn_with_stdin(command);
    let input = input.to_vec();
    // A program may answer before it has read all, or end without reading: then there is no one to write to.
    thread::spawn(move || stdin.write_all(&input));
    child.finish()
}

/// Waits for what no event tells; panics if it does not come in [`PATIENCE`].
pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let late = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < late, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A program that runs beside the test. Dropped, it is killed; if the test process dies, the kernel kills it.
pub(crate) struct Child {
    name: String,
    process: std::process::Child,
    said: Arc<Said>,
}

impl Child {
    /// Starts a program with nothing on its stdin. Of the command its arguments, environment and folder count.
    pub(crate) fn spawn(command: &Command) -> Child {
        Child::start(command, Stdio::null())
    }

    /// Starts a program whose stdin is written by the test, and ends when it is dropped.
    pub(crate) fn spawn_with_stdin(command: &Command) -> (Child, ChildStdin) {
        let mut child = Child::start(command, Stdio::piped());
        let stdin = child.process.stdin.take().unwrap();
        (child, stdin)
    }

    /// Starts a program that speaks on this socket, its stdin and stdout, as inetd would.
    pub(crate) fn spawn_on_socket(command: &Command, socket: TcpStream) -> Child {
        let socket = OwnedFd::from(socket);
        Child::spawn_between(command, socket.try_clone().unwrap(), socket)
    }

    /// Starts a program with this on its stdin and that on its stdout.
    pub(crate) fn spawn_between(command: &Command, stdin: OwnedFd, stdout: OwnedFd) -> Child {
        let mut bound = bound_to_us(command);
        bound.stdin(stdin).stdout(stdout);
        Child::watch(command, bound)
    }

    /// Starts a program with this on its stdin.
    pub(crate) fn spawn_with(command: &Command, stdin: OwnedFd) -> Child {
        Child::start(command, Stdio::from(stdin))
    }

    fn start(command: &Command, stdin: Stdio) -> Child {
        let mut bound = bound_to_us(command);
        bound.stdin(stdin).stdout(Stdio::piped());
        Child::watch(command, bound)
    }

    fn watch(command: &Command, mut bound: Command) -> Child {
        bound.stderr(Stdio::piped());
        let mut process = spawn_from_a_lasting_thread(bound);
        let said = Arc::new(Said::default());
        match process.stdout.take() {
            Some(stdout) => said.listen(stdout, |words| &mut words.stdout),
            // It goes to a socket: as far as we hear, it has ended.
            None => said.words.lock().unwrap().ended += 1,
        }
        said.listen(process.stderr.take().unwrap(), |words| &mut words.stderr);
        let name = command.get_program().to_string_lossy().into_owned();
        Child {
            name,
            process,
            said,
        }
    }

    /// Waits for a line, on stdout or stderr, of which `pick` makes something; one that has already come counts.
    ///
    /// Panics with all that the program has said if it ends without such a line, or says none in [`PATIENCE`].
    pub(crate) fn wait_for<T>(&self, what: &str, pick: impl Fn(&str) -> Option<T>) -> T {
        let found = self.said.until(|words| {
            let picked = words.lines().find_map(|line| pick(&line));
            picked
                .map(Some)
                .or_else(|| (words.ended == STREAMS).then_some(None))
        });
        found
            .flatten()
            .unwrap_or_else(|| panic!("{} did not say {what}; {}", self.name, self.all()))
    }

    /// Waits until the program ends of itself; panics with all that it has said if it does not in [`PATIENCE`].
    pub(crate) fn finish(mut self) -> Output {
        let silent = self
            .said
            .until(|words| (words.ended == STREAMS).then_some(()));
        assert!(
            silent.is_some(),
            "{} did not end; {}",
            self.name,
            self.all()
        );
        wait_until("a program that has closed its output ends", || {
            !alive(&self.process.id().to_string())
        });
        let status = self.process.wait().unwrap();
        let mut words = self.said.words.lock().unwrap();
        let (stdout, stderr) = (mem::take(&mut words.stdout), mem::take(&mut words.stderr));
        Output {
            status,
            stdout,
            stderr,
        }
    }

    /// Whether these bytes are all that it has written.
    pub(crate) fn has_written(&self, bytes: &[u8]) -> bool {
        self.said.words.lock().unwrap().stdout == bytes
    }

    /// Whether it says no more, as one that has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.said.words.lock().unwrap().ended == STREAMS
    }

    /// Whether none of its threads runs, as a while after SIGSTOP.
    pub(crate) fn is_stopped(&self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.id())).unwrap();
        threads.flatten().all(|thread| {
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.contains(") T ")
        })
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends it a signal, by its name without `SIG`.
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -s {name} {}", self.process.id());
        assert!(
            Command::new("sh")
                .args(["-c", &kill])
                .status()
                .unwrap()
                .success()
        );
    }

    /// The lines on its stderr until now.
    pub(crate) fn stderr(&self) -> Vec<String> {
        whole_lines(&self.said.words.lock().unwrap().stderr)
    }

    /// What it has said until now, for the message of a test that fails.
    pub(crate) fn all(&self) -> String {
        let words = self.said.words.lock().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        format!(
            "stdout: {:?}, stderr: {:?}",
            text(&words.stdout),
            text(&words.stderr)
        )
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a child has said until now.
#[derive(Default)]
struct Said {
    words: Mutex<Words>,
    more: Condvar,
}

#[derive(Default)]
struct Words {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// How many of the two have come to their end.
    ended: usize,
}

const STREAMS: usize = 2;

impl Said {
    fn listen(
        self: &Arc<Self>,
        mut stream: impl Read + Send + 'static,
        place: fn(&mut Words) -> &mut Vec<u8>,
    ) {
        let said = Arc::clone(self);
        thread::spawn(move || {
            let mut chunk = vec![0; 64 * 1024];
            loop {
                let count = stream.read(&mut chunk).unwrap_or(0);
                let mut words = said.words.lock().unwrap();
                place(&mut words).extend_from_slice(&chunk[..count]);
                words.ended += usize::from(count == 0);
                said.more.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
    }

    /// Waits until there is an answer; none if it does not come in [`PATIENCE`].
    fn until<T>(&self, answer: impl Fn(&Words) -> Option<T>) -> Option<T> {
        let late = Instant::now() + PATIENCE;
        let mut words = self.words.lock().unwrap();
        loop {
            let found = answer(&words);
            let left = late.saturating_duration_since(Instant::now());
            if found.is_some() || left.is_zero() {
                return found;
            }
            words = self.more.wait_timeout(words, left).unwrap().0;
        }
    }
}

impl Words {
    /// The lines that are whole.
    fn lines(&self) -> impl Iterator<Item = String> {
        [&self.stdout, &self.stderr]
            .into_iter()
            .flat_map(|bytes| whole_lines(bytes))
    }
}

fn whole_lines(bytes: &[u8]) -> Vec<String> {
    let end = bytes.iter().rposition(|byte| *byte == b'\n');
    let whole = &bytes[..end.map_or(0, |end| end + 1)];
    let text = String::from_utf8_lossy(whole);
    text.lines().map(str::to_owned).collect()
}

/// Whether a process runs; one that is dead and not yet waited for does not.
fn alive(process: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

/// The same command, killed by the kernel when the thread that starts it ends.
fn bound_to_us(command: &Command) -> Command {
    let mut bound = Command::new("setpriv");
    bound
        .args(["--pdeathsig", "KILL", "--"])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bound.env(name, value),
            None => bound.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        bound.current_dir(folder);
    }
    bound
}

/// A child is bound to the thread that starts it, and a test's thread ends with the test: a peer that several tests
/// share would end with the first of them. This thread ends with the process.
fn spawn_from_a_lasting_thread(command: Command) -> std::process::Child {
    static STARTER: OnceLock<Sender<(Command, Sender<std::io::Result<std::process::Child>>)>> =
        OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (sender, orders) = mpsc::channel::<(Command, Sender<_>)>();
        thread::spawn(move || {
            for (mut command, answer) in orders {
                // A test that waits no more has failed.
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let (answer, started) = mpsc::channel();
    starter.send((command, answer)).unwrap();
    started
        .recv()
        .unwrap()
        .expect("setpriv is here (get it with: tools/peers setpriv)")
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

#[test]
fn a_program_is_run_to_its_end_with_all_its_bytes() {
    let input: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let done = run(shell("cat; echo done >&2; exit 3").env("A", "b"), &input);
    assert_eq!(
        (done.status.code(), done.stderr.as_slice()),
        (Some(3), b"done\n".as_slice())
    );
    assert!(done.stdout == input);
}

#[test]
fn the_environment_and_the_folder_of_a_command_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let done = run(
        shell("echo $A; pwd")
            .env("A", "b")
            .current_dir(folder.path()),
        b"",
    );
    assert_eq!(
        String::from_utf8(done.stdout).unwrap(),
        format!("b\n{}\n", folder.path().display())
    );
}

#[test]
fn a_line_is_waited_for_on_both_streams() {
    let (child, mut stdin) =
        Child::spawn_with_stdin(&shell("read a; echo port $a >&2; read b; echo $b"));
    stdin.write_all(b"17\n").unwrap();
    let port = child.wait_for("its port", |line| {
        line.strip_prefix("port ")?.parse::<u16>().ok()
    });
    assert_eq!(port, 17);
    stdin.write_all(b"end\n").unwrap();
    child.wait_for("the end", |line| (line == "end").then_some(()));
    assert!(child.finish().status.success());
}

#[test]
#[should_panic = "sh did not say a word; stdout: \"\", stderr: \"no\\n\""]
fn a_program_that_ends_without_the_line_is_not_waited_for() {
    Child::spawn(&shell("echo no >&2")).wait_for("a word", |line| (line == "yes").then_some(()));
}

#[test]
fn a_signal_reaches_the_program() {
    let child = Child::spawn(&shell(
        "trap 'echo drained; exit 0' TERM; echo ready; while :; do sleep 0.01; done",
    ));
    child.wait_for("ready", |line| (line == "ready").then_some(()));
    child.signal("TERM");
    assert_eq!(child.finish().stdout, b"ready\ndrained\n");
}

#[test]
fn a_dropped_child_is_dead() {
    let child = Child::spawn(&shell("echo $$; exec sleep 600"));
    let process = child.wait_for("its number", |line| Some(line.to_owned()));
    assert!(alive(&process));
    drop(child);
    assert!(!alive(&process));
}

#[test]
fn a_child_outlives_the_thread_that_has_started_it() {
    let (started, thread) = thread::spawn(|| {
        let started = Child::spawn_with_stdin(&shell("echo ready; read a; echo $a"));
        started
            .0
            .wait_for("ready", |line| (line == "ready").then_some(()));
        (started, fs::read_link("/proc/thread-self").unwrap())
    })
    .join()
    .unwrap();
    // A thread is joined a moment before it is gone, and its end is what a child would die of.
    wait_until("the thread is gone", || {
        !Path::new("/proc").join(&thread).exists()
    });
    let (child, mut stdin) = started;
    stdin.write_all(b"alive\n").unwrap();
    child.wait_for("a sign of life", |line| (line == "alive").then_some(()));
}

#[test]
fn a_child_does_not_outlive_the_test_process() {
    if std::env::var_os("PORTCULLIS_TEST_OF_CHILDREN").is_some() {
        let child = Child::spawn(&shell("echo $$; exec sleep 600"));
        let process = child.wait_for("its number", |line| Some(line.to_owned()));
        // Past libtest, which keeps what a test prints to itself.
        writeln!(std::io::stderr(), "process {process}").unwrap();
        // The one who has started this test kills it here.
        child.finish();
        return;
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args([
        "--exact",
        "support::a_child_does_not_outlive_the_test_process",
    ]);
    let parent = Child::spawn(again.env("PORTCULLIS_TEST_OF_CHILDREN", "1"));
    let process = parent.wait_for("a number", |line| {
        Some(line.split_once("process ")?.1.to_owned())
    });
    assert!(alive(&process));
    drop(parent);
    wait_until("the child is gone", || !alive(&process));
}
