//! The configurations of config/examples as they are written: on machines of their own, which have their names and files.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use tokio::net::TcpListener;

use crate::authority::Authority;
use crate::network;
use crate::peers;
use crate::support::{Child, run, wait_until};
use crate::upstream::{Upstream, echo};
use crate::vm::{Vm, Way, end};

/// Where the files stand that the examples name.
const FILES: &str = "/etc/portcullis";

/// A machine in a network of the test's: a network namespace to which the test's own is the router, and with its disk.
struct Machine {
    name: &'static str,
    nsenter: PathBuf,
}

impl Machine {
    /// This program there; `portcullis` is ours.
    fn command(&self, program: &Path) -> Command {
        let mut command = peers::unconfigured(&self.nsenter, "CONSUL_");
        command.arg(format!("--net=/run/netns/{}", self.name));
        command.arg("--").arg(program);
        command
    }

    fn portcullis(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(Path::new(env!("CARGO_BIN_EXE_portcullis")));
        command.args(arguments);
        command
    }

    /// An example, found good and without a warning, and run as its first lines say. It is told what it says once it listens.
    fn runs(&self, subcommand: &str, example: &str) -> Child {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("config/examples")
            .join(example);
        let text = fs::read_to_string(&path).unwrap();
        let told = format!("`portcullis {subcommand} --config {example}`");
        assert!(text.contains(&told), "{example} does not say {told}");
        let path = path.to_str().unwrap();
        let checked = run(&self.portcullis(&["check", "--config", path]), b"");
        assert!(checked.status.success(), "{checked:?}");
        assert_eq!(String::from_utf8_lossy(&checked.stderr), "", "{example}");
        self.starts(&self.portcullis(&[subcommand, "--config", path]))
    }

    /// A gateway or a tunnel, once it listens.
    fn starts(&self, command: &Command) -> Child {
        let child = Child::spawn(command);
        child.wait_for("that it listens", |line| {
            line.contains("\"listening").then_some(())
        });
        child
    }
}

/// The machines, each with the names by which the others know it.
///
/// What is mounted and made here ends with the test.
fn machines<const N: usize>(known: [(&'static str, &str); N]) -> Option<[Machine; N]> {
    let nsenter = peers::require("nsenter", "unshare")?;
    peers::require("ip", "ip")?;
    let mut hosts = "127.0.0.1 localhost\n".to_owned();
    // Machines that are no example's stand in the test's own process. Hosts has all names, and what is
    // asked beside (their AAAA) is answered by nobody.
    let mut script = "\
        mount -t tmpfs tmpfs /run\n\
        mkdir -p /run/upper /run/work /run/sshd\n\
        mount -t overlay -o lowerdir=/etc,upperdir=/run/upper,workdir=/run/work overlay /etc\n\
        mkdir -p /etc/portcullis/flow\n\
        printf 'nameserver 127.0.0.1\\noptions timeout:1 attempts:1\\n' > /etc/resolv.conf\n\
        echo 1 > /proc/sys/net/ipv4/ip_forward\n\
        for address in 1 5 21; do ip addr add 10.0.0.$address/32 dev lo; done\n"
        .to_owned();
    for (at, (name, names)) in known.iter().enumerate() {
        let address = format!("10.0.0.{}", 101 + at);
        hosts += &format!("{address} {names}\n");
        script += &format!(
            "ip netns add {name}\n\
             ip link add port{at} type veth peer name eth0 netns {name}\n\
             ip link set port{at} up\n\
             ip route add {address} dev port{at}\n\
             ip -n {name} link set lo up\n\
             ip -n {name} link set eth0 up\n\
             ip -n {name} addr add {address}/32 dev eth0\n\
             ip -n {name} route add 10.0.0.1 dev eth0\n\
             ip -n {name} route add default via 10.0.0.1\n"
        );
    }
    script += "cat > /etc/hosts\n";
    let mut shell = Command::new("sh");
    let done = run(shell.args(["-ec", &script]), hosts.as_bytes());
    assert!(done.status.success(), "{done:?}");
    Some(known.map(|(name, _)| Machine {
        name,
        nsenter: nsenter.clone(),
    }))
}

/// A file that the examples name, without what its name ends with.
fn file(name: &str) -> String {
    format!("{FILES}/{name}")
}

/// The certificate of a CA as one of the files.
fn trust(authority: &Authority, name: &str) {
    let text = fs::read_to_string(authority.folder().join("ca.pem")).unwrap();
    fs::write(file(name), text).unwrap();
}

/// A server of gRPC on that machine.
fn grpc_server(machine: &Machine, grpc: &Path, address: &str) -> Child {
    let mut command = machine.command(grpc);
    let child = Child::spawn(command.args(["server", address]));
    child.wait_for("that it listens", |line| {
        line.starts_with("listening on ").then_some(())
    });
    child
}

/// A call of a program there, in the clear: whether it went well, and what it said.
fn call(machine: &Machine, grpc: &Path, address: &str, name: &str) -> (bool, String) {
    let mut command = machine.command(grpc);
    let output = run(command.args(["client", address, name]), b"");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), said)
}

/// Calls of some kinds go through from there, once the names are resolved.
fn calls(machine: &Machine, grpc: &Path, address: &str, between: &[&Child]) {
    wait_until("a call goes through", || {
        call(machine, grpc, address, "unary").0
    });
    for name in ["bidi", "large"] {
        let (done, said) = call(machine, grpc, address, name);
        let between: Vec<String> = between.iter().map(|child| child.all()).collect();
        assert!(done, "{name} to {address}: {said} {between:?}");
    }
}

#[test]
fn taskd_clusterd_and_noded_call_each_other_over_mutual_tls_and_no_other_way() {
    let test =
        "examples::taskd_clusterd_and_noded_call_each_other_over_mutual_tls_and_no_other_way";
    network::of_its_own(test, async {
        let Some(grpc) = peers::pinned("grpc") else {
            return;
        };
        let Some([taskd, worker, clusterd, node]) = machines([
            ("taskd", "taskd.example.com"),
            ("worker", "worker.example.com"),
            (
                "clusterd",
                "clusterd.example.com nodes.clusterd.example.com",
            ),
            ("node", "node.example.com"),
        ]) else {
            return;
        };
        let [of_taskd, of_workers, of_clusterd, of_nodes] = [(); 4].map(|()| Authority::new());
        of_taskd.issue_files(&file("master"), &["taskd.internal"]);
        trust(&of_taskd, "master-ca.pem");
        trust(&of_taskd, "taskd-ca.pem");
        of_workers.issue_files(&file("worker"), &["worker.example.com"]);
        of_workers.issue_files(&file("clusterd-client"), &["clusterd.example.com"]);
        trust(&of_workers, "workers-ca.pem");
        let names = ["clusterd.example.com", "nodes.clusterd.example.com"];
        of_clusterd.issue_files(&file("clusterd"), &names);
        trust(&of_clusterd, "clusterd-ca.pem");
        of_nodes.issue_files(&file("node"), &["node.example.com"]);
        trust(&of_nodes, "nodes-ca.pem");

        let _servers = [
            (&taskd, "127.0.0.1:8899"),
            (&clusterd, "127.0.0.1:8900"),
            (&clusterd, "127.0.0.1:8901"),
        ]
        .map(|(machine, address)| grpc_server(machine, &grpc, address));
        let running = [
            taskd.runs("serve", "taskd-master.toml"),
            worker.runs("tunnel", "taskd-worker.toml"),
            clusterd.runs("serve", "clusterd.toml"),
            node.runs("tunnel", "noded.toml"),
        ];
        let running: Vec<&Child> = running.iter().collect();
        for (machine, address) in [
            (&worker, "127.0.0.1:8899"),
            (&clusterd, "127.0.0.1:8899"),
            (&taskd, "127.0.0.1:8900"),
            (&node, "127.0.0.1:8901"),
        ] {
            calls(machine, &grpc, address, &running);
        }
        twenty_at_once_are_let_in(&worker, &grpc, running[0]);
        // Nobody gets in by the certificate of somebody else's door, nor without one.
        for (to, name, shown) in [
            ("10.0.0.103:8443", "clusterd.example.com", Some("node")),
            ("10.0.0.101:8443", "taskd.internal", Some("node")),
            ("10.0.0.101:8443", "taskd.internal", None),
        ] {
            let of = name.split('.').next().unwrap().replace("taskd", "master");
            let ca = file(&format!("{of}-ca.pem"));
            let mut tunnel =
                node.portcullis(&["tunnel", "--alpn", "h2", "--listen", "127.0.0.1:1"]);
            tunnel.args(["--to", to, "--server-name", name, "--ca", &ca]);
            if let Some(shown) = shown {
                let [cert, key] = ["pem", "key"].map(|end| format!("{}.{end}", file(shown)));
                tunnel.args(["--cert", &cert, "--key", &key]);
            }
            let tunnel = node.starts(&tunnel);
            let (done, said) = call(&node, &grpc, "127.0.0.1:1", "unary");
            assert!(!done && said.contains("code = Unavailable"), "{said}");
            tunnel.signal("TERM");
            let records = String::from_utf8(tunnel.finish().stdout).unwrap();
            assert!(records.contains("\"reason\":\"upstream_tls\""), "{records}");
        }
    });
}

/// Of a worker's connections to TaskD, which is refused the one after those.
fn twenty_at_once_are_let_in(worker: &Machine, grpc: &Path, taskd: &Child) {
    let mut held = Vec::new();
    while held.len() < 20 {
        let mut command = worker.command(grpc);
        command.args(["client", "127.0.0.1:8899", "hold"]);
        let (client, mut stdin) = Child::spawn_with_stdin(&command);
        stdin.write_all(b"word\n").unwrap();
        let is_in = client.wait_for("a word, or why not", |line| match line {
            "word" => Some(true),
            _ => line.starts_with("failed: ").then_some(false),
        });
        // Those of before count for a while among the twenty that may come in a second.
        if is_in {
            held.push((client, stdin));
        }
    }
    wait_until("one more is refused for their number", || {
        assert!(!call(worker, grpc, "127.0.0.1:8899", "unary").0);
        let said = taskd.all();
        said.contains("route_limit")
    });
}

#[test]
fn direktivs_flow_is_called_and_calls_over_mutual_tls() {
    let test = "examples::direktivs_flow_is_called_and_calls_over_mutual_tls";
    network::of_its_own(test, async {
        let Some(grpc) = peers::pinned("grpc") else {
            return;
        };
        let Some([flow, functions, secrets]) = machines([
            ("flow", "flow.direktiv.svc flow.direktiv.svc.cluster.local"),
            ("functions", "functions.direktiv.svc.cluster.local"),
            ("secrets", "secrets.direktiv.svc.cluster.local"),
        ]) else {
            return;
        };
        let authority = Authority::new();
        let names = ["flow.direktiv.svc", "flow.direktiv.svc.cluster.local"];
        authority.issue_files(&file("flow/tls"), &names);
        fs::rename(file("flow/tls.pem"), file("flow/tls.crt")).unwrap();
        trust(&authority, "flow/ca.crt");
        let mut running = vec![
            grpc_server(&flow, &grpc, "127.0.0.1:7777"),
            flow.runs("serve", "direktiv-flow.toml"),
        ];
        for machine in [&functions, &secrets] {
            let name = format!("{}.direktiv.svc.cluster.local", machine.name);
            authority.issue_files(machine.name, &[&name]);
            let config = authority.write(
                &format!("{}.toml", machine.name),
                &format!(
                    "listen = [\"[::]:8443\"]\ncertificates = [{{ chain = \"{0}.pem\", key = \"{0}.key\" }}]\n\
                     [tls.options.default]\nclient_auth = \"required\"\nclient_ca = [\"ca.pem\"]\n\
                     [routes.own]\nhost = \"{name}\"\nupstream = \"127.0.0.1:9000\"\n",
                    machine.name
                ),
            );
            let serve = machine.portcullis(&["serve", "--config", config.to_str().unwrap()]);
            running.push(machine.starts(&serve));
            running.push(grpc_server(machine, &grpc, "127.0.0.1:9000"));
        }
        let running: Vec<&Child> = running.iter().collect();
        calls(&flow, &grpc, "127.0.0.1:5555", &running);
        calls(&flow, &grpc, "127.0.0.1:2610", &running);
        let mut tunnel =
            functions.portcullis(&["tunnel", "--alpn", "h2", "--listen", "127.0.0.1:7777"]);
        tunnel.current_dir(authority.folder());
        tunnel.args(["--to", "flow.direktiv.svc:8443", "--ca", "ca.pem"]);
        tunnel.args(["--cert", "functions.pem", "--key", "functions.key"]);
        let tunnel = functions.starts(&tunnel);
        calls(
            &functions,
            &grpc,
            "127.0.0.1:7777",
            &[&running[..], &[&tunnel]].concat(),
        );
    });
}

#[test]
fn machines_are_reached_by_ssh_and_by_remote_desktop_through_their_gateways() {
    let test = "examples::machines_are_reached_by_ssh_and_by_remote_desktop_through_their_gateways";
    network::of_its_own(test, async {
        let Some([ssh, rdp]) = machines([("ssh", "ssh.example.com"), ("rdp", "gate.example.com")])
        else {
            return;
        };
        let (authority, staff) = (Authority::new(), Authority::new());
        authority.issue_files(&file("vm"), &["*.vm.example.com"]);
        trust(&staff, "staff-ca.pem");
        staff.issue_files("me", &["me.example.com"]);
        let Some(vm) = Vm::start("build.vm.example.com", &authority).await else {
            return;
        };
        let sshd = vm.address;
        let _build = Upstream::on(
            TcpListener::bind("10.0.0.5:22").await.unwrap(),
            move |mut tcp| {
                async move {
                    let mut far = tokio::net::TcpStream::connect(sshd).await.unwrap();
                    // Its end is for whoever asked to see.
                    let _ = tokio::io::copy_bidirectional(&mut tcp, &mut far).await;
                }
            },
        );
        let _desk = Upstream::on(TcpListener::bind("10.0.0.21:3389").await.unwrap(), echo);

        let _gate = ssh.runs("serve", "vm-ssh.toml");
        let person = vm.person(Way::Connect, "10.0.0.101:8443".parse().unwrap());
        person.runs_a_command().await;
        let ca = authority.folder().join("ca.pem");
        let ours = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
            command.args(arguments).arg("--ca").arg(&ca);
            command
        };
        let away = ours(&[
            "connect",
            "--gateway",
            "ssh.example.com:8443",
            "vault.vm.example.com",
        ]);
        let away = end(away, b"").await;
        // README.md, "When connect fails": the route is not for this address.
        assert_eq!(away.status.code(), Some(30), "{away:?}");

        let _gate = rdp.runs("serve", "vm-rdp.toml");
        let arguments = ["--gateway", "gate.example.com:8443", "desk.vm.example.com"];
        let mut tunnel = ours(&["tunnel", "--listen", "127.0.0.1:3389"]);
        tunnel.current_dir(staff.folder());
        tunnel
            .args(["--cert", "me.pem", "--key", "me.key"])
            .args(arguments);
        let tunnel = rdp_client(&tunnel);
        let through = || {
            let mut tcp = TcpStream::connect("127.0.0.1:3389").unwrap();
            // Until the gateway's name is resolved it is reset.
            let said = tcp
                .write_all(b"word")
                .and_then(|()| tcp.shutdown(Shutdown::Write));
            let mut heard = Vec::new();
            said.is_ok() && tcp.read_to_end(&mut heard).is_ok() && heard == b"word"
        };
        let tunnel = tokio::task::spawn_blocking(move || {
            wait_until("the desk answers", through);
            tunnel
        });
        drop(tunnel.await.unwrap());
    });
}

/// A tunnel of whoever sits in front of the test, once it listens.
fn rdp_client(command: &Command) -> Child {
    let child = Child::spawn(command);
    child.wait_for("that it listens", |line| {
        line.contains("\"listening for a tunnel\"").then_some(())
    });
    child
}

#[test]
fn every_example_is_run_by_a_test() {
    let own =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/examples.rs"));
    let own = own.unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples");
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"));
    let readme = readme.unwrap();
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            own.contains(&format!("runs(\"serve\", \"{name}\")"))
                || own.contains(&format!("runs(\"tunnel\", \"{name}\")")),
            "{name}"
        );
        assert!(
            readme.contains(&format!("](config/examples/{name})")),
            "{name}"
        );
        seen += 1;
    }
    assert_eq!(seen, 7);
}
