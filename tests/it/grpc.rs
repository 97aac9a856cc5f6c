//! gRPC from a real client to a real server, over mutual TLS that neither of them knows of: tunnels, gateways, nginx.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command};

use serde_json::Value;

use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::peers;
use crate::program::Program;
use crate::support::{Child, run};

mod nginx;

/// The name in the master's certificate.
const NAME: &str = "master.example.test";

/// What the client can do; the server tells who gives up, which the last one does not take from the one before.
const CALLS: [&str; 6] = ["unary", "stream", "bidi", "large", "cancel", "deadline"];

/// What a master asks of its workers. `SERVER` is where the server behind it listens.
const MASTER: &str = "\
[[certificates]]
chain = \"master.pem\"
key = \"master.key\"
nameless = true
[tls.options.mutual]
client_auth = \"required\"
client_ca = [\"ca.pem\"]
[routes.taskd]
rule = 'HostSNI(`*`)'
tls_options = \"mutual\"
upstream = \"SERVER\"
";

/// A server, and the client for it.
struct Grpc {
    program: PathBuf,
    server: Child,
    address: SocketAddr,
}

impl Grpc {
    fn start() -> Option<Self> {
        let program = peers::pinned("grpc")?;
        let mut command = Command::new(&program);
        let server = Child::spawn(command.args(["server", "127.0.0.1:0"]));
        let address = server.wait_for("where it listens", |line| {
            line.strip_prefix("listening on ")?.parse().ok()
        });
        Some(Self {
            program,
            server,
            address,
        })
    }

    fn client(&self, to: SocketAddr, call: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["client", &to.to_string(), call]);
        command
    }

    /// What the client says of a call, and whether it went well.
    fn call(&self, to: SocketAddr, call: &str) -> (bool, String) {
        let output = run(&self.client(to, call), b"");
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.success(), said)
    }

    /// Makes each call, each over a connection of its own.
    fn calls(&self, to: SocketAddr, between: &[&Child]) {
        for name in CALLS {
            let (done, said) = self.call(to, name);
            let between: Vec<String> = between.iter().map(|child| child.all()).collect();
            assert!(done && said == format!("ok {name}\n"), "{said} {between:?}");
            if name == "cancel" {
                self.server.wait_for("that a call was given up", |line| {
                    (line == "given up: Canceled").then_some(())
                });
            }
        }
    }
}

/// One call of which each message is answered before the next one goes up.
struct Held {
    client: Child,
    stdin: ChildStdin,
}

impl Held {
    fn new(grpc: &Grpc, to: SocketAddr) -> Self {
        let (client, stdin) = Child::spawn_with_stdin(&grpc.client(to, "hold"));
        Self { client, stdin }
    }

    fn says(&mut self, word: &str) {
        writeln!(self.stdin, "{word}").unwrap();
        self.client.wait_for("the word that was sent", |line| {
            (line == word).then_some(())
        });
    }

    fn ends(self) {
        drop(self.stdin);
        let output = self.client.finish();
        assert!(output.status.success(), "{output:?}");
    }
}

/// A CA, and the certificates of a master and a worker.
fn authority() -> Authority {
    let authority = Authority::new();
    authority.issue_files("master", &[NAME]);
    authority.issue_files("worker", &["worker.example.test"]);
    authority
}

/// `portcullis tunnel` to a master that has a certificate of this CA, without the worker's own where `proven` is false.
fn tunnel(authority: &Authority, master: SocketAddr, ca: &str, proven: bool) -> Child {
    let mut command = peers::unconfigured(Path::new(env!("CARGO_BIN_EXE_portcullis")), "CONSUL_");
    command.current_dir(authority.folder());
    command.args(["tunnel", "--listen", "127.0.0.1:0", "--alpn", "h2"]);
    command.args(["--to", &master.to_string(), "--server-name", NAME]);
    command.args(["--ca", ca]);
    if proven {
        command.args(["--cert", "worker.pem", "--key", "worker.key"]);
    }
    Child::spawn(&command)
}

/// Where a tunnel of a program listens.
fn listens(child: &Child) -> SocketAddr {
    child.wait_for("where it listens", |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let said = line["message"] == "listening for a tunnel";
        line["address"].as_str().filter(|_| said)?.parse().ok()
    })
}

/// The records of a program that is told to end.
fn records(child: Child) -> Vec<Value> {
    child.signal("TERM");
    let output = child.finish();
    assert!(output.status.success(), "{output:?}");
    let lines = String::from_utf8(output.stdout).unwrap();
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn every_kind_of_call_goes_through_a_tunnel_and_a_gateway_that_have_proven_themselves() {
    let Some(grpc) = Grpc::start() else { return };
    let authority = authority();
    let tables = MASTER.replace("SERVER", &grpc.address.to_string());
    let master = Program::start(&authority, &format!("admin = \"127.0.0.1:0\"\n{tables}"));
    let worker = tunnel(&authority, master.listener, "ca.pem", true);
    grpc.calls(listens(&worker), &[&worker, &master.child]);
    // One connection a call: nothing is pooled, and nothing broke a call to be tried again.
    let (worker, master) = (records(worker), records(master.child));
    assert_eq!((worker.len(), master.len()), (CALLS.len(), CALLS.len()));
    for record in &worker {
        assert_eq!(record["route"], "tunnel", "{record}");
    }
    for record in &master {
        assert_eq!(record["route"], "taskd", "{record}");
        assert_eq!(
            (&record["alpn"], &record["tls"]),
            (&"h2".into(), &"1.3".into())
        );
        assert_eq!(record["sni"], NAME);
    }
    // 16 MiB went up and came down.
    let moved = master.iter().filter(|record| {
        let bytes = ["bytes_up", "bytes_down"].map(|key| record[key].as_u64().unwrap());
        bytes.iter().all(|bytes| *bytes > 16 << 20)
    });
    assert_eq!(moved.count(), 1, "{master:?}");
}

#[test]
fn no_call_goes_through_where_either_side_does_not_prove_itself() {
    let Some(grpc) = Grpc::start() else { return };
    let authority = authority();
    let tables = MASTER.replace("SERVER", &grpc.address.to_string());
    let master = Program::start(&authority, &format!("admin = \"127.0.0.1:0\"\n{tables}"));
    let other = std::fs::read_to_string(Authority::new().folder().join("ca.pem")).unwrap();
    authority.write("other-ca.pem", &other);
    for (ca, proven, reason) in [
        ("ca.pem", false, "upstream_tls"),
        ("other-ca.pem", true, "upstream_identity"),
    ] {
        let worker = tunnel(&authority, master.listener, ca, proven);
        let (done, said) = grpc.call(listens(&worker), "unary");
        assert!(!done && said.contains("code = Unavailable"), "{said}");
        let records = records(worker);
        let told = records.iter().any(|record| record["reason"] == reason);
        assert!(told, "{records:?}");
    }
    let records = records(master.child);
    for reason in ["client_certificate", "handshake_failed"] {
        let told = records.iter().any(|record| record["reason"] == reason);
        assert!(told, "{reason} in {records:?}");
    }
}

/// Waits for a connection that ended for this reason; calls that went well ended before it.
async fn ended(gateway: &mut Gateway, reason: &str) {
    while gateway.ended().await["reason"] != reason {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_rotated_under_a_running_stream_without_cutting_it() {
    let Some(grpc) = Grpc::start() else { return };
    let (authority, stranger, folder) = (authority(), authority(), Authority::new());
    let tables = MASTER.replace("SERVER", &grpc.address.to_string());
    let mut master = Gateway::start(&authority, &tables).await;
    let files = authority.folder().display();
    let tables = format!(
        "[tunnels.taskd]\nlisten = \"127.0.0.1:0\"\nto = \"{}\"\nserver_name = \"{NAME}\"\nalpn = [\"h2\"]\n\
         tls = {{ roots = [\"{files}/ca.pem\"], chain = \"{files}/worker.pem\", key = \"{files}/worker.key\" }}\n",
        master.address
    );
    let mut worker = Gateway::start(&folder, &tables).await;
    let mut held = Held::new(&grpc, worker.address);
    held.says("before");
    for who in ["worker", "master"] {
        // What is shown is what stands in the files now: of another CA it is refused, by the one who sees it.
        for name in [format!("{who}.key"), format!("{who}.pem")] {
            let text = std::fs::read_to_string(stranger.folder().join(&name)).unwrap();
            authority.write(&name, &text);
        }
        let reload = match who {
            "worker" => worker.reload.clone(),
            _ => master.reload.clone(),
        };
        reload.done("the test").await.unwrap();
        let (done, said) = grpc.call(worker.address, "unary");
        assert!(!done, "{said}");
        match who {
            "worker" => ended(&mut master, "client_certificate").await,
            _ => ended(&mut worker, "upstream_identity").await,
        }
        held.says(&format!("{who} of another CA"));

        authority.issue_files(who, &[NAME]);
        reload.done("the test").await.unwrap();
        let (done, said) = grpc.call(worker.address, "unary");
        assert!(done, "{said}");
        held.says(&format!("{who} renewed"));
    }
    held.says("after");
    held.ends();
}
