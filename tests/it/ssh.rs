//! A real ssh through a real gateway to a real sshd: what people do with it every day.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::task::spawn_blocking;

use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::peers;
use crate::support::{Child, run, wait_until};
use crate::upstream::Upstream;

const NAME: &str = "ssh.vm.example.test";

/// Enough for many windows of ssh, and for its keys to be changed on the way if a record were lost or doubled.
const FILE: u64 = 64 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_through_s_client_and_its_exit_status_comes_back() {
    a_command_runs(Way::SClient).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_through_connect_and_its_exit_status_comes_back() {
    a_command_runs(Way::Connect).await;
}

async fn a_command_runs(way: Way) {
    let Some(mut vm) = Vm::start(way).await else {
        return;
    };
    let ssh = vm.ssh("cat; echo done >&2; exit 3");
    let done = end(ssh, b"one\ntwo").await;
    assert_eq!(done.status.code(), Some(3), "{}", vm.tell(&done));
    assert_eq!(done.stdout, b"one\ntwo");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(said.contains("done\n"), "{said}");
    let record = vm.ended().await;
    assert_eq!(record["route"], "vm");
    assert_eq!(record["sni"], NAME);
}

#[tokio::test(flavor = "multi_thread")]
async fn scp_copies_64_mib_both_ways_through_s_client() {
    scp_copies(Way::SClient).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scp_copies_64_mib_both_ways_through_connect() {
    scp_copies(Way::Connect).await;
}

async fn scp_copies(way: Way) {
    let Some(mut vm) = Vm::start(way).await else {
        return;
    };
    let [here, there, back] = vm.files();
    let remote = format!("{}@{NAME}:{}", vm.user, there.display());

    let mut up = vm.command("scp");
    up.args(["-q"]).arg(&here).arg(&remote);
    vm.succeeds(up, b"").await;
    assert_same(&here, &there);

    let mut down = vm.command("scp");
    down.args(["-q"]).arg(&remote).arg(&back);
    vm.succeeds(down, b"").await;
    assert_same(&here, &back);

    for moved in ["bytes_up", "bytes_down"] {
        let record = vm.ended().await;
        assert!(record[moved].as_u64().unwrap() > FILE, "{record}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sftp_copies_64_mib_both_ways_through_s_client() {
    sftp_copies(Way::SClient).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sftp_copies_64_mib_both_ways_through_connect() {
    sftp_copies(Way::Connect).await;
}

async fn sftp_copies(way: Way) {
    let Some(mut vm) = Vm::start(way).await else {
        return;
    };
    let [here, there, back] = vm.files();
    let mut sftp = vm.command("sftp");
    sftp.args(["-q", "-b", "-"])
        .arg(format!("{}@{NAME}", vm.user));
    let batch = format!(
        "put {} {}\nget {} {}\n",
        here.display(),
        there.display(),
        there.display(),
        back.display()
    );
    vm.succeeds(sftp, batch.as_bytes()).await;
    assert_same(&here, &there);
    assert_same(&here, &back);
    vm.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sessions_run_beside_each_other() {
    let Some(mut vm) = Vm::start(Way::SClient).await else {
        return;
    };
    let (first, mut stdin) = Child::spawn_with_stdin(&vm.ssh("cat"));
    stdin.write_all(b"before\n").unwrap();
    let first = hear(first, "before").await;

    let done = end(vm.ssh("echo second"), b"").await;
    assert_eq!(done.stdout, b"second\n", "{}", vm.tell(&done));
    vm.ended().await;
    assert!(vm.gateway.has_no_more_records());

    stdin.write_all(b"after\n").unwrap();
    let first = hear(first, "after").await;
    drop(stdin);
    let done = spawn_blocking(|| first.finish()).await.unwrap();
    assert!(done.status.success(), "{}", vm.tell(&done));
    vm.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_share_the_connection_of_a_master_that_outlives_them_through_s_client() {
    sessions_share_a_connection(Way::SClient).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_share_the_connection_of_a_master_that_outlives_them_through_connect() {
    sessions_share_a_connection(Way::Connect).await;
}

async fn sessions_share_a_connection(way: Way) {
    let Some(mut vm) = Vm::start(way).await else {
        return;
    };
    let socket = vm.folder().join("master");
    let mut master = vm.command("ssh");
    master.args(["-M", "-N", "-S"]).arg(&socket).arg(NAME);
    let master = Child::spawn(&master);
    let control = |request: &[&str]| {
        let mut ssh = Command::new(&vm.programs.ssh);
        ssh.args(["-F", "none", "-S"]).arg(&socket).args(request);
        ssh
    };
    let check = control(&["-O", "check", NAME]);
    spawn_blocking(move || {
        wait_until("the master is there", || run(&check, b"").status.success());
    })
    .await
    .unwrap();

    // The first stays while others come and go.
    let (first, mut stdin) = Child::spawn_with_stdin(&control(&[NAME, "cat"]));
    for word in ["one\n", "two\n"] {
        let done = end(control(&[NAME, "cat"]), word.as_bytes()).await;
        assert_eq!(done.stdout, word.as_bytes(), "{}", vm.tell(&done));
    }
    stdin.write_all(b"still here\n").unwrap();
    let first = hear(first, "still here").await;
    drop(stdin);
    let done = spawn_blocking(|| first.finish()).await.unwrap();
    assert!(done.status.success(), "{}", vm.tell(&done));
    assert!(vm.gateway.has_no_more_records());

    let done = end(control(&["-O", "exit", NAME]), b"").await;
    assert!(done.status.success(), "{}", vm.tell(&done));
    spawn_blocking(|| master.finish()).await.unwrap();
    vm.ended().await;
    assert!(vm.gateway.has_no_more_records());
}

/// What ssh is told to run instead of connecting itself.
#[derive(Clone, Copy)]
enum Way {
    /// `openssl s_client`: what people use who have nothing of ours.
    SClient,
    /// `portcullis connect`.
    Connect,
}

/// An sshd behind a gateway, and what it takes to log in.
struct Vm {
    authority: Authority,
    gateway: Gateway,
    programs: Programs,
    user: String,
    way: Way,
    proxy_command: String,
    servers: Servers,
    _upstream: Upstream,
}

struct Programs {
    ssh: PathBuf,
    scp: PathBuf,
    sftp: PathBuf,
}

/// One sshd for each connection.
type Servers = Arc<Mutex<Vec<Child>>>;

impl Vm {
    /// Starts both; without the programs there is nothing to test.
    async fn start(way: Way) -> Option<Self> {
        let programs = Programs {
            ssh: peers::require("ssh", "ssh")?,
            scp: peers::require("scp", "scp")?,
            sftp: peers::require("sftp", "sftp")?,
        };
        let sshd = peers::require("sshd", "sshd")?;
        let openssl = peers::require("openssl", "openssl")?;
        let authority = Authority::new();
        let servers = Servers::default();
        let upstream = sshd_on_demand(&sshd, &authority, &servers).await;

        authority.issue_files("edge", &[NAME]);
        let gateway = Gateway::start(
            &authority,
            &format!(
                r#"
                certificates = [{{ chain = "edge.pem", key = "edge.key" }}]
                [routes.vm]
                host = "{NAME}"
                upstream = "{}"
                "#,
                upstream.address
            ),
        )
        .await;
        let proxy_command = match way {
            Way::SClient => format!(
                "'{}' s_client -quiet -servername %h -connect {}",
                openssl.display(),
                gateway.address
            ),
            Way::Connect => format!(
                "'{}' connect --gateway {} --ca '{}' %h",
                env!("CARGO_BIN_EXE_portcullis"),
                gateway.address,
                authority.folder().join("ca.pem").display()
            ),
        };
        let whoami = run(Command::new("id").arg("-un"), b"");
        Some(Self {
            authority,
            gateway,
            programs,
            user: String::from_utf8(whoami.stdout).unwrap().trim().to_owned(),
            way,
            proxy_command,
            servers,
            _upstream: upstream,
        })
    }

    fn folder(&self) -> &Path {
        self.authority.folder()
    }

    /// ssh, or a program that starts it, told of everything that it needs and of nothing of this machine's.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(match program {
            "scp" => &self.programs.scp,
            "sftp" => &self.programs.sftp,
            _ => &self.programs.ssh,
        });
        let known_hosts = self.folder().join("known_hosts");
        command
            .args(["-F", "none", "-i"])
            .arg(self.folder().join("user_key"));
        for option in [
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            // The host's key is known by the name alone: ssh itself checks that the right sshd was reached.
            "StrictHostKeyChecking=yes",
            "GlobalKnownHostsFile=none",
            &format!("UserKnownHostsFile={}", known_hosts.display()),
            &format!("User={}", self.user),
            &format!("ProxyCommand={}", self.proxy_command),
        ] {
            command.args(["-o", option]);
        }
        command
    }

    fn ssh(&self, remote: &str) -> Command {
        let mut ssh = self.command("ssh");
        ssh.args([NAME, remote]);
        ssh
    }

    /// A file of random bytes, a place for it on the other side, and one for what comes back.
    fn files(&self) -> [PathBuf; 3] {
        let files = ["here", "there", "back"].map(|name| self.folder().join(name));
        let mut random = std::fs::File::open("/dev/urandom").unwrap().take(FILE);
        let mut file = std::fs::File::create(&files[0]).unwrap();
        assert_eq!(std::io::copy(&mut random, &mut file).unwrap(), FILE);
        files
    }

    /// The record of the session that ends next: one that ended well.
    async fn ended(&mut self) -> Value {
        let record = self.gateway.ended().await;
        let ended_well = match (self.way, record["reason"].as_str().unwrap()) {
            (_, "closed") => true,
            // ssh kills it as it goes, and what s_client has not read by then turns its end into a reset.
            (Way::SClient, "client_reset") => true,
            _ => false,
        };
        assert!(ended_well, "{record}");
        record
    }

    async fn succeeds(&self, command: Command, input: &[u8]) {
        let done = end(command, input).await;
        assert!(done.status.success(), "{}", self.tell(&done));
    }

    /// What both sides have said, for a test that fails.
    fn tell(&self, done: &Output) -> String {
        let servers: Vec<String> = self
            .servers
            .lock()
            .unwrap()
            .iter()
            .map(Child::all)
            .collect();
        format!("{done:?}; the servers: {servers:?}")
    }
}

/// A port where each connection gets an sshd of its own, so that no port is ever chosen by hand.
async fn sshd_on_demand(sshd: &Path, authority: &Authority, servers: &Servers) -> Upstream {
    let folder = authority.folder();
    for key in ["host_key", "user_key"] {
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]);
        let done = run(keygen.arg(folder.join(key)), b"");
        assert!(done.status.success(), "{done:?}");
    }
    let host_key = std::fs::read_to_string(folder.join("host_key.pub")).unwrap();
    authority.write("known_hosts", &format!("{NAME} {host_key}"));
    let folder = folder.display();
    let config = authority.write(
        "sshd_config",
        &format!(
            "HostKey {folder}/host_key\n\
             AuthorizedKeysFile {folder}/user_key.pub\n\
             PidFile none\n\
             UsePAM no\n\
             StrictModes no\n\
             PasswordAuthentication no\n\
             KbdInteractiveAuthentication no\n\
             Subsystem sftp internal-sftp\n"
        ),
    );
    let mut test = Command::new(sshd);
    let done = run(test.args(["-t", "-f"]).arg(&config), b"");
    assert!(
        done.status.success(),
        "sshd does not start (see to it with: tools/peers sshd): {done:?}"
    );

    let mut command = Command::new(sshd);
    command.args(["-i", "-e", "-f"]).arg(&config);
    let (command, servers) = (Arc::new(command), Arc::clone(servers));
    Upstream::tcp(move |tcp| {
        let (command, servers) = (Arc::clone(&command), Arc::clone(&servers));
        async move {
            let tcp = tcp.into_std().unwrap();
            tcp.set_nonblocking(false).unwrap();
            let server = Child::spawn_on_socket(&command, tcp);
            servers.lock().unwrap().push(server);
        }
    })
    .await
}

/// Runs a program to its end while the gateway runs beside it.
async fn end(command: Command, input: &[u8]) -> Output {
    let input = input.to_vec();
    spawn_blocking(move || run(&command, &input)).await.unwrap()
}

/// Waits until a program has said this line.
async fn hear(child: Child, line: &'static str) -> Child {
    spawn_blocking(move || {
        child.wait_for(line, |said| (said == line).then_some(()));
        child
    })
    .await
    .unwrap()
}

fn assert_same(one: &Path, other: &Path) {
    let [one_bytes, other_bytes] = [one, other].map(|path| std::fs::read(path).unwrap());
    // `assert_eq` would print both.
    assert!(
        one_bytes == other_bytes,
        "{} has {} bytes, {} has {}, and they are not the same",
        one.display(),
        one_bytes.len(),
        other.display(),
        other_bytes.len()
    );
}
