//! A machine with a real sshd, and a person who works on it through a gateway.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::task::spawn_blocking;

use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::peers;
use crate::support::{Child, run};
use crate::upstream::Upstream;

/// Enough for many windows of ssh, and for its keys to be changed on the way if a record were lost or doubled.
pub(crate) const FILE: u64 = 64 * 1024 * 1024;

/// What ssh is told to run instead of connecting itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// `openssl s_client`: what people use who have nothing of ours.
    SClient,
    /// `portcullis connect`.
    Connect,
}

/// An sshd, and what it takes to log in.
pub(crate) struct Vm {
    /// Where its sshd listens.
    pub(crate) address: SocketAddr,
    /// The client that is used alone, without the gateway.
    pub(crate) ssh: PathBuf,
    name: &'static str,
    scp: PathBuf,
    sftp: PathBuf,
    openssl: PathBuf,
    user: String,
    /// The authority's: it holds the keys, and the CA of the gateway's certificate.
    folder: PathBuf,
    /// One for each connection.
    servers: Arc<Mutex<Vec<Child>>>,
    _upstream: Upstream,
}

/// A person who reaches the machine through a gateway in one way.
pub(crate) struct Person<'a> {
    vm: &'a Vm,
    way: Way,
    proxy_command: String,
}

impl Vm {
    /// Starts the sshd of the machine that the gateway knows by this name; without the programs there is none.
    pub(crate) async fn start(name: &'static str, authority: &Authority) -> Option<Self> {
        let ssh = peers::require("ssh", "ssh")?;
        let scp = peers::require("scp", "scp")?;
        let sftp = peers::require("sftp", "sftp")?;
        let sshd = peers::require("sshd", "sshd")?;
        let openssl = peers::require("openssl", "openssl")?;
        let whoami = run(Command::new("id").arg("-un"), b"");
        let servers = Arc::default();
        let upstream = sshd_on_demand(&sshd, name, authority, &servers).await;
        Some(Self {
            address: upstream.address,
            ssh,
            name,
            scp,
            sftp,
            openssl,
            user: String::from_utf8(whoami.stdout).unwrap().trim().to_owned(),
            folder: authority.folder().to_owned(),
            servers,
            _upstream: upstream,
        })
    }

    /// A person who has the gateway's address and the CA of its certificate.
    pub(crate) fn person(&self, way: Way, gateway: SocketAddr) -> Person<'_> {
        let proxy_command = match way {
            Way::SClient => format!(
                "'{}' s_client -quiet -servername %h -connect {gateway}",
                self.openssl.display(),
            ),
            Way::Connect => format!(
                "'{}' connect --gateway {gateway} --ca '{}' %h",
                env!("CARGO_BIN_EXE_portcullis"),
                self.folder.join("ca.pem").display()
            ),
        };
        Person {
            vm: self,
            way,
            proxy_command,
        }
    }

    /// ssh with a configuration that says the way, told of all else that it needs.
    pub(crate) fn ssh_by(&self, config: &Path) -> Command {
        let mut command = Command::new(&self.ssh);
        command.arg("-F").arg(config).args(self.options());
        command
    }

    /// Sends the sshd of each connection a signal, by its name without `SIG`.
    pub(crate) fn signal(&self, name: &str) {
        for server in self.servers.lock().unwrap().iter() {
            server.signal(name);
        }
    }

    /// What a configuration of ssh says of the machine itself, under the name that the person types.
    pub(crate) fn block(&self) -> String {
        let lines = self.settings().map(|setting| format!("    {setting}\n"));
        format!("Host {}\n{}", self.name, lines.concat())
    }

    fn options(&self) -> Vec<String> {
        let settings = self.settings().into_iter();
        let options = settings.flat_map(|setting| ["-o".to_owned(), setting]);
        options.collect()
    }

    /// The keys, and nothing of this machine's.
    fn settings(&self) -> [String; 8] {
        let folder = self.folder.display();
        [
            format!("IdentityFile={folder}/user_key"),
            "BatchMode=yes".to_owned(),
            "IdentitiesOnly=yes".to_owned(),
            "IdentityAgent=none".to_owned(),
            // The host's key is known by the name alone: ssh itself checks that the right sshd was reached.
            "StrictHostKeyChecking=yes".to_owned(),
            "GlobalKnownHostsFile=none".to_owned(),
            format!("UserKnownHostsFile={folder}/known_hosts"),
            format!("User={}", self.user),
        ]
    }

    /// A file of random bytes, a place for it on the other side, and one for what comes back.
    pub(crate) fn files(&self, length: u64) -> [PathBuf; 3] {
        let files = ["here", "there", "back"].map(|name| self.folder.join(name));
        let mut random = File::open("/dev/urandom").unwrap().take(length);
        let mut file = File::create(&files[0]).unwrap();
        assert_eq!(io::copy(&mut random, &mut file).unwrap(), length);
        files
    }
}

impl Person<'_> {
    /// `USER@NAME`, for the programs that want it.
    pub(crate) fn login(&self) -> String {
        format!("{}@{}", self.vm.user, self.vm.name)
    }

    /// ssh, or a program that starts it, told of everything that it needs and of nothing of this machine's.
    pub(crate) fn command(&self, program: &str) -> Command {
        let vm = self.vm;
        let mut command = Command::new(match program {
            "scp" => &vm.scp,
            "sftp" => &vm.sftp,
            _ => &vm.ssh,
        });
        command.args(["-F", "none"]).args(vm.options());
        command.args(["-o", &format!("ProxyCommand={}", self.proxy_command)]);
        command
    }

    /// This command over there.
    pub(crate) fn ssh(&self, remote: &str) -> Command {
        let mut ssh = self.command("ssh");
        ssh.args([self.vm.name, remote]);
        ssh
    }

    /// Runs a command that reads its stdin, writes to both streams and fails: all of that must come back.
    pub(crate) async fn runs_a_command(&self) {
        let done = end(self.ssh("cat; echo done >&2; exit 3"), b"one\ntwo").await;
        assert_eq!(done.status.code(), Some(3), "{}", self.tell(&done));
        assert_eq!(done.stdout, b"one\ntwo");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(said.contains("done\n"), "{said}");
    }

    /// Copies a file there and back, each by an scp of its own.
    pub(crate) async fn copies_a_file_both_ways(&self) {
        let [here, there, back] = self.vm.files(FILE);
        let remote = format!("{}:{}", self.login(), there.display());

        let mut up = self.command("scp");
        up.args(["-q"]).arg(&here).arg(&remote);
        self.succeeds(up, b"").await;
        assert_same(&here, &there);

        let mut down = self.command("scp");
        down.args(["-q"]).arg(&remote).arg(&back);
        self.succeeds(down, b"").await;
        assert_same(&here, &back);
    }

    /// Runs a program, which must succeed.
    pub(crate) async fn succeeds(&self, command: Command, input: &[u8]) {
        let done = end(command, input).await;
        assert!(done.status.success(), "{}", self.tell(&done));
    }

    /// The record of the session that ends next, which must have ended as it should.
    ///
    /// ssh hangs up on its helper while sshd's last words are under way. `connect` takes its leave even so; `s_client`
    /// just ends, and the kernel resets a connection with bytes that nobody has read.
    pub(crate) async fn ended(&self, gateway: &mut Gateway) -> Value {
        let record = gateway.ended().await;
        match self.way {
            Way::Connect => assert_eq!(record["reason"], "closed", "{record}"),
            Way::SClient => assert!(
                record["reason"] == "closed" || record["reason"] == "client_reset",
                "{record}"
            ),
        }
        record
    }

    /// What both sides have said, for a test that fails.
    pub(crate) fn tell(&self, done: &Output) -> String {
        let servers = self.vm.servers.lock().unwrap();
        let servers: Vec<String> = servers.iter().map(Child::all).collect();
        format!("{done:?}; the servers: {servers:?}")
    }
}

/// A port where each connection gets an sshd of its own, so that no port is ever chosen by hand.
async fn sshd_on_demand(
    sshd: &Path,
    name: &str,
    authority: &Authority,
    servers: &Arc<Mutex<Vec<Child>>>,
) -> Upstream {
    let folder = authority.folder();
    for key in ["host_key", "user_key"] {
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]);
        let done = run(keygen.arg(folder.join(key)), b"");
        assert!(done.status.success(), "{done:?}");
    }
    let host_key = fs::read_to_string(folder.join("host_key.pub")).unwrap();
    authority.write("known_hosts", &format!("{name} {host_key}"));
    let folder = folder.display();
    // A bash that is started by sshd as the first of its kind reads what the user of this machine has written for it.
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
             Subsystem sftp internal-sftp\n\
             SetEnv SHLVL=2\n"
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
pub(crate) async fn end(command: Command, input: &[u8]) -> Output {
    let input = input.to_vec();
    spawn_blocking(move || run(&command, &input)).await.unwrap()
}

/// Fails if two files differ.
pub(crate) fn assert_same(one: &Path, other: &Path) {
    let lengths = [one, other].map(|path| fs::metadata(path).unwrap().len());
    let [mut left, mut right] =
        [one, other].map(|path| BufReader::with_capacity(1 << 20, File::open(path).unwrap()));
    let mut at = 0;
    loop {
        let (a, b) = (left.fill_buf().unwrap(), right.fill_buf().unwrap());
        let common = a.len().min(b.len());
        // `assert_eq` would print both.
        assert!(
            a[..common] == b[..common] && lengths[0] == lengths[1],
            "{} has {} bytes, {} has {}, and from {at} on they are not the same",
            one.display(),
            lengths[0],
            other.display(),
            lengths[1]
        );
        if common == 0 {
            return;
        }
        left.consume(common);
        right.consume(common);
        at += common;
    }
}
