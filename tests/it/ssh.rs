//! A real ssh through a real gateway to a real sshd: what people do with it every day.

use std::io::Write;
use std::process::Command;

use serde_json::Value;
use tokio::task::spawn_blocking;

use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::support::{Child, run, wait_until};
use crate::vm::{FILE, Person, Vm, Way, assert_same, end};

const NAME: &str = "ssh.vm.example.test";

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_through_s_client_and_its_exit_status_comes_back() {
    a_command_runs(Way::SClient).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_through_connect_and_its_exit_status_comes_back() {
    a_command_runs(Way::Connect).await;
}

async fn a_command_runs(way: Way) {
    let Some(mut scene) = Scene::start(way).await else {
        return;
    };
    scene.person().runs_a_command().await;
    let record = scene.ended().await;
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
    let Some(mut scene) = Scene::start(way).await else {
        return;
    };
    scene.person().copies_a_file_both_ways().await;
    for moved in ["bytes_up", "bytes_down"] {
        let record = scene.ended().await;
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
    let Some(mut scene) = Scene::start(way).await else {
        return;
    };
    let person = scene.person();
    let [here, there, back] = scene.vm.files(FILE);
    let mut sftp = person.command("sftp");
    sftp.args(["-q", "-b", "-", &person.login()]);
    let batch = format!(
        "put {} {}\nget {} {}\n",
        here.display(),
        there.display(),
        there.display(),
        back.display()
    );
    person.succeeds(sftp, batch.as_bytes()).await;
    assert_same(&here, &there);
    assert_same(&here, &back);
    scene.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sessions_run_beside_each_other() {
    let Some(mut scene) = Scene::start(Way::SClient).await else {
        return;
    };
    let (first, mut stdin) = Child::spawn_with_stdin(&scene.person().ssh("cat"));
    stdin.write_all(b"before\n").unwrap();
    let first = hear(first, "before").await;

    let done = end(scene.person().ssh("echo second"), b"").await;
    assert_eq!(done.stdout, b"second\n", "{}", scene.person().tell(&done));
    scene.ended().await;
    assert!(scene.gateway.has_no_more_records());

    stdin.write_all(b"after\n").unwrap();
    let first = hear(first, "after").await;
    drop(stdin);
    let done = spawn_blocking(|| first.finish()).await.unwrap();
    assert!(done.status.success(), "{}", scene.person().tell(&done));
    scene.ended().await;
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
    let Some(mut scene) = Scene::start(way).await else {
        return;
    };
    let person = scene.person();
    let socket = scene.authority.folder().join("master");
    let mut master = person.command("ssh");
    master.args(["-M", "-N", "-S"]).arg(&socket).arg(NAME);
    let master = Child::spawn(&master);
    let control = |request: &[&str]| {
        let mut ssh = Command::new(&scene.vm.ssh);
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
        assert_eq!(done.stdout, word.as_bytes(), "{}", person.tell(&done));
    }
    stdin.write_all(b"still here\n").unwrap();
    let first = hear(first, "still here").await;
    drop(stdin);
    let done = spawn_blocking(|| first.finish()).await.unwrap();
    assert!(done.status.success(), "{}", person.tell(&done));
    let exit = control(&["-O", "exit", NAME]);
    assert!(scene.gateway.has_no_more_records());

    let done = end(exit, b"").await;
    assert!(done.status.success(), "{}", scene.person().tell(&done));
    spawn_blocking(|| master.finish()).await.unwrap();
    scene.ended().await;
    assert!(scene.gateway.has_no_more_records());
}

/// A machine behind a gateway that knows its address from the configuration.
struct Scene {
    way: Way,
    authority: Authority,
    gateway: Gateway,
    vm: Vm,
}

impl Scene {
    /// Starts both; without the programs there is nothing to test.
    async fn start(way: Way) -> Option<Self> {
        let authority = Authority::new();
        let vm = Vm::start(NAME, &authority).await?;
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
                vm.address
            ),
        )
        .await;
        Some(Self {
            way,
            authority,
            gateway,
            vm,
        })
    }

    fn person(&self) -> Person<'_> {
        self.vm.person(self.way, self.gateway.address)
    }

    async fn ended(&mut self) -> Value {
        let person = self.vm.person(self.way, self.gateway.address);
        person.ended(&mut self.gateway).await
    }
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
