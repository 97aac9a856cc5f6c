//! Configurations that are refused for a reason that passes: they serve when it has, and nobody has to ask.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use portcullis::lifecycle::{Handed, Reload, Shutdown};
use portcullis::log::AccessLog;
use portcullis::serve;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::version::TLS13;
use serde_json::Value;

use super::{EDGE, dial, eventually, route, said};
use crate::again;
use crate::authority::Authority;
use crate::gateway::{Gateway, ask};
use crate::program::Program;
use crate::support::PATIENCE;
use crate::upstream::Upstream;

const REFUSED: &str = "portcullis_configuration_reads_total{outcome=\"refused\"} ";

/// A gateway in a process of its own, with a route of `a`.
struct Desk {
    authority: Authority,
    greeter: Upstream,
    program: Program,
}

impl Desk {
    async fn new() -> Self {
        let authority = Authority::new();
        authority.issue_files("edge", &["*.example.test"]);
        let greeter = Upstream::greeter("hello").await;
        let program = Program::start(&authority, &tables(&greeter));
        Self {
            authority,
            greeter,
            program,
        }
    }

    fn write(&self, listen: &str, more: &str) {
        let text = format!("listen = [{listen}]\n{}{more}", tables(&self.greeter));
        self.authority.write("portcullis.toml", &text);
    }

    /// How often a configuration was refused.
    async fn refused(&self) -> u64 {
        let (_, metrics) = ask(self.program.admin, "/metrics").await;
        let count = metrics.lines().find_map(|line| line.strip_prefix(REFUSED));
        count.map_or(0, |count| count.parse().unwrap())
    }

    async fn ready(&self) -> String {
        ask(self.program.admin, "/readyz").await.1
    }

    async fn serves(&self, address: SocketAddr) -> bool {
        let client = Arc::new(self.authority.client(&[&TLS13]));
        match dial(address, &client).await {
            Ok(tls) => said(tls).await == "hello",
            Err(_) => false,
        }
    }

    /// The lines of the log with this message at their beginning.
    fn logged(&self, message: &str) -> usize {
        let all = self.program.child.all();
        all.matches(&format!("\"message\\\":\\\"{message}")).count()
    }
}

fn tables(greeter: &Upstream) -> String {
    let route = route("a", greeter);
    format!("admin = \"127.0.0.1:0\"\nlog.format = \"json\"\n{EDGE}{route}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_becomes_free_is_served_without_anybody_asking_and_was_told_of_once() {
    let desk = Desk::new().await;
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap();
    desk.write(&format!("\"127.0.0.1:0\", \"{address}\""), "");
    eventually("it is tried again, and again", async || {
        desk.refused().await >= 3
    })
    .await;
    let ready = desk.ready().await;
    assert!(
        ready.contains(&format!("cannot listen on {address}"))
            && ready.contains("it is tried again"),
        "{ready}"
    );
    assert!(desk.serves(desk.program.listener).await);

    drop(busy);
    eventually("the port is served", async || desk.serves(address).await).await;
    assert!(desk.serves(desk.program.listener).await);
    eventually("all is well", async || {
        desk.ready().await.contains("configuration ready")
    })
    .await;
    let all = desk.program.child.all();
    assert_eq!(desk.logged("the new configuration is refused"), 1, "{all}");
    assert_eq!(desk.logged("reading the configuration"), 1, "{all}");
    assert!(all.contains("hint: this may pass: it is tried again"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mistake_ends_the_tries_and_is_not_tried_again() {
    let desk = Desk::new().await;
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("\"127.0.0.1:0\", \"{}\"", busy.local_addr().unwrap());
    desk.write(&listen, "");
    eventually("it is refused for the port", async || {
        desk.ready().await.contains("it is tried again")
    })
    .await;
    desk.write(&listen, "oops = 1\n");
    eventually("it is refused for the mistake", async || {
        desk.ready().await.contains("oops")
    })
    .await;
    let ready = desk.ready().await;
    assert!(!ready.contains("tried again"), "{ready}");
    // Nothing can be waited for that must not come: the first try would be made within a second.
    let (counted, begin) = (desk.refused().await, Instant::now());
    while begin.elapsed() < Duration::from_millis(1500) {
        assert_eq!(desk.refused().await, counted);
        sleep(Duration::from_millis(50));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_cannot_be_read_for_want_of_descriptors_are_read_when_there_are_some() {
    let desk = Desk::new().await;
    let id = desk.program.child.id();
    let limit = |files: &str| {
        let mut prlimit = Command::new("prlimit");
        prlimit.args(["--pid", &id.to_string(), &format!("--nofile={files}:")]);
        assert!(prlimit.status().unwrap().success());
    };
    let heard = |what: &str, message: &str| {
        desk.program.child.wait_for(what, |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            let said = line["message"].as_str()?;
            said.starts_with(message).then(|| said.to_owned())
        })
    };
    // Who has no descriptor left opens nothing.
    limit("3");
    desk.write("\"127.0.0.1:0\"", "[limits]\ndrain_timeout = \"7s\"\n");
    let why = heard("the refusal", "the new configuration is refused");
    assert!(
        why.contains("Too many open files") && why.contains("hint: this may pass"),
        "{why}"
    );
    limit("1024");
    let begin = Instant::now();
    heard("that it serves", "the new configuration serves");
    assert!(begin.elapsed() < PATIENCE);
    assert_eq!(desk.logged("the new configuration is refused"), 1);
}

/// Set where the next test runs in a process of its own, whose descriptors it spends.
const SPENT: &str = "PORTCULLIS_TEST_SPENT";

#[tokio::test]
async fn a_file_of_cas_that_cannot_be_read_just_now_takes_no_route_down_but_refuses_the_whole() {
    const NAME: &str = "reload::retry::a_file_of_cas_that_cannot_be_read_just_now_takes_no_route_down_but_refuses_the_whole";
    if !again::is_inside(SPENT) {
        return again::inside(&Command::new("env"), NAME, SPENT);
    }
    let authority = Authority::new();
    authority.issue_files("edge", &["*.example.test"]);
    let tables = format!(
        "{EDGE}[upstreams.a]\naddress = \"127.0.0.1:9\"\n\
         tls = {{ server_name = \"a.test\", roots = [\"edge.pem\"] }}\n"
    );
    let checked = Gateway::load(&authority, &tables);
    // It was read while it was checked, and is read once more for the upstream.
    let (soft, hard) = (Some(3), getrlimit(Resource::Nofile).maximum);
    let spent = Rlimit {
        current: soft,
        maximum: hard,
    };
    setrlimit(Resource::Nofile, spent).unwrap();
    let (reload, wishes) = Reload::new();
    let (log, shutdown) = (AccessLog::off(), Shutdown::new());
    let handed = Handed::default();
    let started = serve::start(checked, log, shutdown, (reload, wishes), handed).await;
    let why = started.unwrap_err().to_string();
    assert!(
        why.contains("edge.pem") && why.contains("Too many open files"),
        "{why}"
    );
}
