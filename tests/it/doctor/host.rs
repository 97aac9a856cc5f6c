//! The doctor on a gateway's host: what a start needs, and what is asked and dialled.

use std::net::TcpListener;
use std::process::Command;

use rcgen::CertificateParams;
use rustls::version::TLS13;

use super::{Found, doctor};
use crate::authority::Authority;
use crate::consul::{Consul, ITSELF, NODES};
use crate::peers;
use crate::program::Program;
use crate::upstream::{Upstream, echo};

/// The doctor for a gateway with this configuration.
fn of(authority: &Authority, tables: &str) -> Command {
    let config = authority.write("portcullis.toml", tables);
    let mut command = doctor(authority);
    command.arg("--config").arg(config);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CONSUL_") {
            command.env_remove(name);
        }
    }
    command
}

/// A configuration with one route to this upstream.
fn one_route(listen: impl std::fmt::Display, upstream: impl std::fmt::Display) -> String {
    format!(
        "listen = [\"{listen}\"]\nadmin = false\n\
         certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
         [routes.vm]\nhost = \"vm.example.test\"\nupstream = \"vm\"\n\
         [upstreams.vm]\naddress = \"{upstream}\"\n"
    )
}

fn authority() -> Authority {
    let authority = Authority::new();
    authority.issue_files("edge", &["*.example.test"]);
    authority
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_well_is_told_so_and_its_state_stays_unmade() {
    let authority = authority();
    let upstream = Upstream::echo().await;
    let state = authority.folder().join("state");
    let tables = format!(
        "state_dir = {:?}\n{}",
        state.display().to_string(),
        one_route("127.0.0.1:0", upstream.address)
    );
    let found = Found::by(of(&authority, &tables));
    found
        .exits(0)
        .tells(
            "configuration",
            "ok",
            "portcullis.toml: routes 1, certificates 1, tunnels 0",
            "",
        )
        .tells("port", "ok", "listen 127.0.0.1:0 is free", "")
        .tells("open files", "ok", "room for", "")
        .tells("state", "ok", "is not there yet, and can be made", "")
        .tells(
            "certificate",
            "ok",
            "edge.pem: for *.example.test; its key fits; ",
            "",
        )
        .tells("clock", "ok", "every certificate has begun", "")
        .tells("routes", "ok", "1 in the file", "")
        .tells(
            "upstream",
            "ok",
            &format!("vm: {} answers", upstream.address),
            "",
        );
    assert_eq!(found.document["end"], "gateway");
    assert!(!state.exists());
}

#[test]
fn a_broken_configuration_is_told_by_its_first_mistake_and_exits_2() {
    let authority = authority();
    Found::by(of(&authority, "admin = false\nlisen = []\n"))
        .exits(2)
        .tells(
            "configuration",
            "fail",
            "portcullis.toml:2:1: unknown key `lisen`",
            "portcullis check",
        );
    let mut command = doctor(&authority);
    command.args(["--config", "/nonexistent/portcullis.toml"]);
    Found::by(command)
        .exits(2)
        .tells("configuration", "fail", "/nonexistent/portcullis.toml", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_a_port_is_named_and_a_gateway_that_runs_is_no_failure() {
    let authority = authority();
    let upstream = Upstream::echo().await;
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let tables = one_route(held.local_addr().unwrap(), upstream.address);
    let pid = std::process::id();
    Found::by(of(&authority, &tables)).exits(1).tells(
        "port",
        "fail",
        &format!("(pid {pid})"),
        "listen elsewhere",
    );
    Found::by(of(
        &authority,
        &one_route("192.0.2.1:8443", upstream.address),
    ))
    .exits(1)
    .tells("port", "fail", "does not have that address", "ip address");

    let other = Authority::new();
    other.issue_files("edge", &["*.example.test"]);
    let running = format!(
        "admin = \"127.0.0.1:0\"\nlog = {{ format = \"json\" }}\n\
         certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
         [routes.vm]\nhost = \"vm.example.test\"\nupstream = \"vm\"\n\
         [upstreams.vm]\naddress = \"{}\"\n",
        upstream.address
    );
    let program = Program::start(&other, &running);
    let pid = program.child.id();
    Found::by(of(
        &authority,
        &one_route(program.listener, upstream.address),
    ))
    .exits(0)
    .tells(
        "port",
        "ok",
        &format!("by a portcullis that runs: portcullis (pid {pid})"),
        "",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_another_time_and_upstreams_that_prove_nothing_fail() {
    let authority = Authority::new();
    for (name, from, until) in [("old", 2000, 2001), ("new", 2999, 3000)] {
        let mut params = CertificateParams::new(vec![format!("{name}.example.test")]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let issued = authority.sign(params);
        authority.write(&format!("{name}.pem"), &issued.certificate.pem());
        authority.write(&format!("{name}.key"), &issued.key.serialize_pem());
    }
    let stranger = Authority::new().issue(&["db.test"]).server(&[&TLS13]);
    let stranger = Upstream::tls(stranger, echo).await;
    let proven = authority.issue(&["db.test"]).server(&[&TLS13]);
    let proven = Upstream::tls(proven, echo).await;
    let down = {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap();
        gone.local_addr().unwrap()
    };
    let mut tables = "listen = [\"127.0.0.1:0\"]\nadmin = false\n\
        certificates = [{ chain = \"old.pem\", key = \"old.key\" }, { chain = \"new.pem\", key = \"new.key\" }]\n"
        .to_owned();
    for (name, address) in [("stranger", stranger.address), ("proven", proven.address)] {
        tables += &format!(
            "[routes.{name}]\nhost = \"{name}.example.test\"\nupstream = \"{name}\"\n\
             [upstreams.{name}]\naddress = \"{address}\"\n\
             tls = {{ roots = [\"ca.pem\"], server_name = \"db.test\" }}\n"
        );
    }
    tables += &format!(
        "[routes.half]\nhost = \"old.example.test\"\nupstream = \"half\"\n\
         [upstreams.half]\nendpoints = [{{ address = \"{down}\" }}, {{ address = \"{}\" }}]\n",
        proven.address
    );
    Found::by(of(&authority, &tables))
        .exits(1)
        .tells(
            "certificate",
            "fail",
            "old.pem: for old.example.test; its key fits; expired ",
            "get a new one",
        )
        .tells("certificate", "fail", "valid only in ", "clock")
        .tells("clock", "warn", "new.pem begins", "timedatectl")
        .tells("upstream", "fail", "stranger: 127.0.0.1:", "is it up")
        .tells("upstream", "ok", "answers, and proves who it is (TLS)", "")
        .tells(
            "upstream",
            "warn",
            &format!("half: {down}: "),
            "other endpoints are used",
        );
}

#[tokio::test(flavor = "multi_thread")]
async fn open_files_without_room_for_the_connections_that_are_promised_fail() {
    let Some(prlimit) = peers::require("prlimit", "prlimit") else {
        return;
    };
    let authority = authority();
    let upstream = Upstream::echo().await;
    let tables = one_route("127.0.0.1:0", upstream.address) + "[limits]\nconnections = 5000\n";
    let doctor = of(&authority, &tables);
    let mut command = Command::new(prlimit);
    command.arg("--nofile=1024").arg(doctor.get_program());
    command.args(doctor.get_args());
    Found::by(command).exits(1).tells(
        "open files",
        "fail",
        "no room for `limits.connections`",
        "LimitNOFILE=",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consul_that_is_away_and_a_token_without_rights_are_told_with_what_mends_them() {
    let authority = authority();
    let base = "listen = [\"127.0.0.1:0\"]\nadmin = false\n\
        certificates = [{ chain = \"edge.pem\", key = \"edge.key\" }]\n";
    let away = {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap();
        gone.local_addr().unwrap()
    };
    let tables = format!("{base}[consul]\naddress = \"http://{away}\"\n");
    let mut command = of(&authority, &tables);
    command.args(["--timeout", "2s"]);
    Found::by(command).exits(1).tells(
        "Consul",
        "fail",
        "cannot be reached",
        "is the agent running",
    );

    let Some(consul) = Consul::strict() else {
        return;
    };
    let with = |keys: &str| {
        let tables = format!("{base}[consul]\nmesh_identity = \"portcullis\"\n{keys}");
        Found::by(of(&authority, &tables))
    };
    let well = with(&consul.keys());
    well.exits(0)
        .tells("Consul", "ok", "answers; the leader is 127.0.0.1:", "")
        .tells("Consul", "ok", "consul: ready", "")
        .tells("identity", "ok", "spiffe://", "")
        .tells("identity", "ok", "/svc/portcullis", "");
    let blind = consul.token(&[ITSELF, NODES].join("\n"));
    let found = with(&(consul.way() + &format!("token = \"{blind}\"\n")));
    assert!(!found.document.to_string().contains(&blind));
    assert!(
        found
            .course()
            .iter()
            .any(|step| step == "Consul warn" || step == "Consul fail"),
        "{:#}",
        found.document
    );
}
