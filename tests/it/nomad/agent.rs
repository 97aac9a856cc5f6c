//! A real Nomad agent, server and client in one, on ports of its own: started, told of jobs, killed and restarted.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::{Value, json};

use crate::authority::Authority;
use crate::consul::{Answer, exchange};
use crate::support::{Child, PATIENCE, wait_until};
use crate::{peers, ports};

/// The token that may do everything, where tokens are asked for.
pub(crate) const MANAGEMENT: &str = "6f2b9a52-3c1d-4a7e-9b46-0d5f8c7e1a23";

/// An agent whose data outlives a restart; dropped, it is killed. Its calls wait, and panic if it says no.
pub(crate) struct Nomad {
    /// First, so that it is dead when its folder goes.
    child: Option<Child>,
    program: PathBuf,
    folder: Authority,
    acl: bool,
    /// Who asks it where it wants a certificate shown.
    client: Option<Arc<ClientConfig>>,
    http: u16,
    rpc: u16,
    serf: u16,
}

impl Nomad {
    /// Starts an agent, which has a leader; with `acl` nothing is seen or done without a token. None where there is no Nomad.
    pub(crate) fn start(acl: bool) -> Option<Self> {
        Self::start_with(acl, false)
    }

    /// The same, over HTTPS to whoever shows a certificate of its CA's: one stands in `client.pem` and `client.key`.
    pub(crate) fn start_secure() -> Option<Self> {
        Self::start_with(true, true)
    }

    fn start_with(acl: bool, is_secure: bool) -> Option<Self> {
        let folder = Authority::new();
        let mut nomad = Self {
            child: None,
            program: peers::pinned("nomad")?,
            client: is_secure.then(|| client(&folder)),
            folder,
            acl,
            http: 0,
            rpc: 0,
            serf: 0,
        };
        loop {
            (nomad.http, nomad.rpc, nomad.serf) = (ports::free(), ports::free(), ports::free());
            if nomad.launch() {
                break;
            }
        }
        if acl {
            let secret = json!({ "BootstrapSecret": MANAGEMENT });
            nomad.put("/v1/acl/bootstrap", &secret);
        }
        Some(nomad)
    }

    /// Ends it as a lack of memory would.
    pub(super) fn kill(&mut self) {
        self.child = None;
    }

    /// Starts it again on the same ports, with the data it has kept.
    pub(super) fn restart(&mut self) {
        self.kill();
        assert!(self.launch(), "someone has taken the agent's ports");
    }

    /// What `NOMAD_ADDR` would be.
    pub(crate) fn address(&self) -> String {
        let scheme = if self.client.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://127.0.0.1:{}", self.http)
    }

    /// Where a file of its CA's is.
    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.folder().join(name).display().to_string()
    }

    /// A token that may read the jobs of the namespace `default`, and nothing else.
    pub(crate) fn reader(&self) -> String {
        self.reader_of(&["default"])
    }

    /// The same of these namespaces, which there are then.
    pub(crate) fn reader_of(&self, namespaces: &[&str]) -> String {
        let mut rules = String::new();
        for name in namespaces {
            self.put("/v1/namespace", &json!({ "Name": name }));
            rules += &format!("namespace \"{name}\" {{ capabilities = [\"read-job\"] }}\n");
        }
        let policy = json!({ "Name": "edge", "Rules": rules });
        self.put("/v1/acl/policy/edge", &policy);
        let token = json!({ "Name": "edge", "Type": "client", "Policies": ["edge"] });
        let made = self.put("/v1/acl/token", &token);
        made["SecretID"].as_str().unwrap().to_owned()
    }

    /// Runs a job of one task, which does nothing; its service is said to be on this port of this machine.
    pub(super) fn run(&self, name: &str, port: u16, tags: &[&str]) {
        self.put("/v1/jobs", &job(name, port, tags));
    }

    /// Runs a job without a service, whose task has a JWT for this audience in `nomad_consul.jwt` among its secrets. Nomad
    /// puts another one there before it is so many seconds old.
    pub(crate) fn run_workload(&self, name: &str, audience: &str, seconds: u64) {
        let mut job = job(name, 1, &[]);
        let group = &mut job["Job"]["TaskGroups"][0];
        group["Services"] = json!([]);
        let life = seconds * 1_000_000_000;
        group["Tasks"][0]["Identities"] =
            json!([{ "Name": "consul", "Audience": [audience], "File": true, "TTL": life }]);
        self.put("/v1/jobs", &job);
    }

    /// Runs such a job as another service.
    pub(super) fn run_as(&self, service: &str, name: &str, port: u16, tags: &[&str]) {
        let mut job = job(name, port, tags);
        job["Job"]["TaskGroups"][0]["Services"][0]["Name"] = service.into();
        self.put("/v1/jobs", &job);
    }

    /// Runs a job whose next version is tried out beside the last one, with other tags, until [`Nomad::promote`].
    pub(super) fn roll_out(&self, name: &str, port: u16, tags: &[&str], canary: &[&str]) {
        let mut job = job(name, port, tags);
        let group = &mut job["Job"]["TaskGroups"][0];
        group["Services"][0]["CanaryTags"] = json!(canary);
        // What changes of a service alone is changed in its place, without a canary.
        group["Tasks"][0]["Env"] = json!({ "PORT": port.to_string() });
        group["Update"] = json!({ "Canary": 1, "MaxParallel": 1, "HealthCheck": "task_states", "MinHealthyTime": 0 });
        self.put("/v1/jobs", &job);
    }

    /// Lets the version that is tried out be the only one.
    pub(super) fn promote(&self, name: &str) {
        let deployment = || {
            let path = format!("/v1/job/{name}/deployment");
            let deployment = self.ask("GET", &path, &Value::Null);
            let group = &deployment["TaskGroups"][name];
            let is_well = group["DesiredCanaries"] == 1 && group["HealthyAllocs"] == 1;
            is_well.then(|| deployment["ID"].as_str().unwrap().to_owned())
        };
        wait_until("the canary is well", || deployment().is_some());
        let id = deployment().unwrap();
        let all = json!({ "DeploymentID": id, "All": true });
        self.put(&format!("/v1/deployment/promote/{id}"), &all);
    }

    /// The same in another namespace.
    pub(super) fn run_in(&self, namespace: &str, name: &str, port: u16, tags: &[&str]) {
        let mut job = job(name, port, tags);
        job["Job"]["Namespace"] = namespace.into();
        self.put(&format!("/v1/jobs?namespace={namespace}"), &job);
    }

    /// Takes a token's rights away.
    pub(super) fn revoke(&self, secret: &str) {
        let all = self.ask("GET", "/v1/acl/tokens", &Value::Null);
        for stub in all.as_array().unwrap() {
            let accessor = stub["AccessorID"].as_str().unwrap();
            let path = format!("/v1/acl/token/{accessor}");
            if self.ask("GET", &path, &Value::Null)["SecretID"] == secret {
                self.ask("DELETE", &path, &Value::Null);
            }
        }
    }

    /// Stops a job, and forgets it.
    pub(super) fn stop(&self, name: &str) {
        self.ask(
            "DELETE",
            &format!("/v1/job/{name}?purge=true"),
            &Value::Null,
        );
    }

    /// The folder of secrets that the task of a job has, as this process sees it.
    pub(crate) fn secrets(&self, name: &str) -> PathBuf {
        let process = self.child.as_ref().expect("the agent runs").id();
        // Where it has mounts of its own, they are seen by way of the process.
        let root = PathBuf::from(format!("/proc/{process}/root"));
        let data = self.data();
        let allocations = root.join(data.strip_prefix("/").unwrap()).join("alloc");
        let found = || {
            let all = fs::read_dir(&allocations).ok()?.filter_map(Result::ok);
            let mut all = all.map(|one| one.path().join(name).join("secrets"));
            all.find(|secrets| {
                secrets.join("nomad_token").exists() && secrets.join("api.sock").exists()
            })
        };
        wait_until("the task has its secrets", || found().is_some());
        found().unwrap()
    }

    fn put(&self, path: &str, body: &Value) -> Value {
        self.ask("PUT", path, body)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.answer(method, path, body).unwrap();
        assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
        match answer.body.is_empty() {
            true => Value::Null,
            false => answer.json(),
        }
    }

    fn answer(&self, method: &str, path: &str, body: &Value) -> std::io::Result<Answer> {
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, self.http))?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        let token = self.acl.then_some(("X-Nomad-Token", MANAGEMENT));
        let Some(client) = &self.client else {
            return exchange(tcp, method, path, token, &body);
        };
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let tls = ClientConnection::new(Arc::clone(client), name).unwrap();
        exchange(StreamOwned::new(tls, tcp), method, path, token, &body)
    }

    /// Starts it on its ports and waits until it leads and its client can run tasks; false if a port is taken.
    fn launch(&mut self) -> bool {
        let config = self.folder.write("agent.json", &self.config().to_string());
        let mut agent = peers::unconfigured(&self.program, "NOMAD_");
        agent.args(["agent", "-config"]).arg(config);
        let agent = with_own_mounts(&agent);
        let child = Child::spawn(&agent);
        let started = child.wait_for("it leads", |line| {
            let taken = line.contains("address already in use");
            let leads = line.contains("cluster leadership acquired");
            (taken || leads).then_some(!taken)
        });
        self.child = started.then_some(child);
        if started {
            wait_until("it answers", || {
                let leader = self.answer("GET", "/v1/status/leader", &Value::Null);
                leader.is_ok_and(|answer| answer.status == 200)
            });
        }
        started
    }

    fn config(&self) -> Value {
        let mut config = json!({
            "name": "test",
            "bind_addr": "127.0.0.1",
            "advertise": { "http": "127.0.0.1", "rpc": "127.0.0.1", "serf": "127.0.0.1" },
            "ports": { "http": self.http, "rpc": self.rpc, "serf": self.serf },
            "data_dir": self.data(),
            "disable_update_check": true,
            "acl": { "enabled": self.acl },
            "server": { "enabled": true, "bootstrap_expect": 1, "raft_multiplier": 1 },
            "client": { "enabled": true, "network_interface": "lo", "options": {
                // A driver whose tasks are no processes: with no log to collect, nothing outlives the agent.
                "driver.allowlist": "mock_driver",
                "fingerprint.denylist": "env_aws,env_azure,env_gce,env_digitalocean,consul,vault",
            } },
        });
        if self.client.is_some() {
            config["tls"] = json!({
                "http": true,
                "ca_file": self.file("ca.pem"),
                "cert_file": self.file("agent.pem"),
                "key_file": self.file("agent.key"),
                "verify_https_client": true,
            });
        }
        config
    }

    fn data(&self) -> PathBuf {
        Path::new(self.folder.folder()).join("data")
    }
}

/// Who shows a certificate of this CA's, which stands in files; another one, for the agent, does too.
fn client(authority: &Authority) -> Arc<ClientConfig> {
    authority.issue_files("agent", &["server.global.nomad", "127.0.0.1"]);
    let issued = authority.issue_files("client", &["client.global.nomad"]);
    let key = PrivateKeyDer::try_from(issued.key.serialize_der()).unwrap();
    let config = ClientConfig::builder_with_provider(portcullis::tls::provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(authority.roots())
        .with_client_auth_cert(vec![issued.certificate.der().clone()], key)
        .unwrap();
    Arc::new(config)
}

fn job(name: &str, port: u16, tags: &[&str]) -> Value {
    let service = json!({ "Name": name, "Provider": "nomad", "Address": "127.0.0.1", "PortLabel": port.to_string(),
        "Tags": tags });
    let task = json!({ "Name": name, "Driver": "mock_driver", "Config": { "run_for": "10h" },
        "LogConfig": { "Disabled": true }, "Identity": { "File": true }, "Resources": { "CPU": 20, "MemoryMB": 10 } });
    let group = json!({ "Name": name, "Count": 1, "Services": [service], "Tasks": [task] });
    json!({ "Job": { "ID": name, "Name": name, "Type": "service", "Datacenters": ["*"], "TaskGroups": [group] } })
}

/// An agent of root mounts a tmpfs for each task, which would stay behind: mounts of its own end with it.
fn with_own_mounts(agent: &Command) -> Command {
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private"]);
    if !unshare
        .arg("true")
        .output()
        .is_ok_and(|done| done.status.success())
    {
        let mut plain = Command::new(agent.get_program());
        plain.args(agent.get_args());
        return plain;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    command.arg(agent.get_program()).args(agent.get_args());
    for (name, value) in agent.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}
