//! What the gateway exists for: ssh by its name, to a machine behind a sidecar that has proved who it is.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::{IDENTITY, Mesh, POLL, Proxy};
use crate::authority::Authority;
use crate::consul::{Sidecar, service};
use crate::support::{run, wait_until};
use crate::vm::{FILE, Vm, Way};

mod broken;
mod control_master;
mod files;
mod sessions;
mod terminal;

/// How long what is left over when something was ended may take to end too.
const SOON: Duration = Duration::from_secs(10);

const NAME: &str = "simple01.domain.com";

/// The tags of a job that Traefik routes today.
const TAGS: [&str; 6] = [
    "traefik.enable=true",
    "traefik.consulcatalog.connect=true",
    "traefik.tcp.routers.simple01.entrypoints=https",
    "traefik.tcp.routers.simple01.tls=true",
    "traefik.tcp.routers.simple01.rule=HostSNI(`simple01.domain.com`)",
    "traefik.tcp.routers.simple01.service=simple01",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_person_works_on_a_vm_behind_consuls_built_in_sidecar() {
    a_person_works(Proxy::BuiltIn).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_works_on_a_vm_behind_envoy() {
    a_person_works(Proxy::Envoy).await;
}

async fn a_person_works(proxy: Proxy) {
    let authority = Authority::new();
    let Some(vm) = Vm::start(NAME, &authority).await else {
        return;
    };
    let service = service("simple01", vm.address, &TAGS);
    let Some((mut mesh, sidecar)) = Mesh::before(proxy, service, authority).await else {
        return;
    };
    let routes = mesh.routes().await;
    let route = routes.route("simple01@consul").unwrap();
    assert_eq!(route["source"], "consul");
    assert_eq!(route["rule"], "HostSNI(`simple01.domain.com`)");
    assert_eq!(route["action"], "terminate");
    assert_eq!(route["warnings"], json!([]), "{route}");
    assert_eq!(route["upstream"]["name"], "simple01@consul");
    assert_eq!(route["upstream"]["mesh"], true, "{route}");
    let spiffe = mesh.consul.spiffe_id("simple01");
    assert_eq!(route["upstream"]["spiffe"], spiffe);

    for way in [Way::SClient, Way::Connect] {
        let person = vm.person(way, mesh.gateway.address);
        person.runs_a_command().await;
        let record = person.ended(&mut mesh.gateway).await;
        assert_eq!(record["sni"], NAME);
        assert_eq!(record["route"], "simple01@consul");
        assert_eq!(record["upstream"], "simple01@consul");
        assert_eq!(record["endpoint"], sidecar.address.to_string());

        person.copies_a_file_both_ways().await;
        for moved in ["bytes_up", "bytes_down"] {
            let record = person.ended(&mut mesh.gateway).await;
            assert!(record[moved].as_u64().unwrap() > FILE, "{record}");
        }
    }
    // Who the gateway is in the mesh is no service that anybody could dial.
    let services = mesh.consul.get("/v1/catalog/services");
    assert!(services[IDENTITY].is_null(), "{services}");
}

/// The machine behind its sidecar, and a person whose ssh finds the way by what `portcullis ssh-config` has put in.
struct Scene {
    mesh: Mesh,
    vm: Vm,
    config: PathBuf,
    sidecar: Sidecar,
}

impl Scene {
    /// Starts all of it; these are further arguments of `ssh-config`. None where a program is missing.
    async fn start(proxy: Proxy, arguments: &[&str]) -> Option<Self> {
        let authority = Authority::new();
        let vm = Vm::start(NAME, &authority).await?;
        let service = service("simple01", vm.address, &TAGS);
        let config = authority.write("ssh_config", &vm.block());
        let (mesh, sidecar) = Mesh::before(proxy, service, authority).await?;
        let scene = Self {
            mesh,
            vm,
            config,
            sidecar,
        };
        scene.install(NAME, arguments);
        Some(scene)
    }

    /// Lets ssh know the way to a domain.
    fn install(&self, domain: &str, arguments: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.args(["ssh-config", "--domain", domain, "--install", "--file"]);
        command
            .arg(&self.config)
            .arg("--ca")
            .arg(self.path("ca.pem"));
        command.args(["--gateway", &self.mesh.gateway.address.to_string()]);
        let done = run(command.args(arguments), b"");
        assert!(done.status.success(), "{done:?}");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.mesh.authority.folder().join(name)
    }

    /// `ssh`, `scp` or `sftp` of the person, told nothing that does not stand in the configuration.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-F").arg(&self.config);
        command
    }

    /// This command over there.
    fn ssh(&self, remote: &str) -> Command {
        let mut ssh = self.command("ssh");
        ssh.args([NAME, remote]);
        ssh
    }

    /// What is typed to the same end.
    fn typed(&self, options: &str, remote: &str) -> String {
        let config = self.config.display();
        format!("ssh -F {config} {options} {NAME} '{remote}'\n")
    }

    /// The record of the session that ends next, which must have ended as it should.
    async fn closed(&mut self) -> Value {
        let record = self.mesh.gateway.ended().await;
        assert_eq!(record["sni"], NAME, "{record}");
        assert_eq!(record["reason"], "closed", "{record}");
        record
    }

    /// What was moved both ways until now, by sessions that have not ended too.
    async fn moved(&self) -> [u64; 2] {
        let mut moved = [0; 2];
        for (moved, direction) in moved.iter_mut().zip(["up", "down"]) {
            let labels = format!("route=\"simple01@consul\",direction=\"{direction}\"");
            let series = format!("portcullis_bytes_total{{{labels}}}");
            *moved = self.mesh.gateway.metric(&series).await.unwrap_or(0);
        }
        moved
    }

    /// The processes of `portcullis connect` that run for the person.
    fn helpers(&self) -> Vec<u32> {
        self.processes("connect")
    }

    /// Waits until nothing runs any more that the person has started, ssh or `connect`.
    fn nothing_is_left(&self) {
        wait_until("nothing of it runs any more", || {
            self.helpers().is_empty() && self.processes("ssh").is_empty()
        });
    }

    /// Those that run with this word and a path of the person's among their arguments.
    fn processes(&self, word: &str) -> Vec<u32> {
        let [config, ca] =
            [&self.config, &self.path("ca.pem")].map(|path| path.display().to_string());
        let all = fs::read_dir("/proc").unwrap().flatten();
        let ids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter(|id| {
            // One that has ended meanwhile, or has ended and is not waited for yet, has none.
            let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            let arguments: Vec<&str> = line.split('\0').collect();
            let is_ours = |argument: &&str| *argument == config || *argument == ca;
            arguments.contains(&word) && arguments.iter().any(is_ours)
        })
        .collect()
    }
}

/// The most that was resident of a process at a time, in KiB (proc_pid_status(5)); none if it has ended.
fn peak(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}
