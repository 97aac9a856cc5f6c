//! The doctor on a gateway's host: what a start needs, and what is asked and dialled.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rcgen::CertificateParams;
use rustls::version::TLS13;

use super::{ANY, Found, Scene, nobody};
use crate::authority::Authority;
use crate::peers;
use crate::program::Program;
use crate::splice_denied::DENY;
use crate::upstream::{Upstream, echo};

/// Tables with one route to this upstream.
fn one_route(upstream: impl std::fmt::Display) -> String {
    format!(
        "[routes.vm]\nhost = \"vm.example.test\"\nupstream = \"vm\"\n\
         [upstreams.vm]\naddress = \"{upstream}\"\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_well_is_told_so_and_its_state_stays_unmade() {
    let scene = Scene::new();
    let upstream = Upstream::echo().await;
    let state = scene.authority.folder().join("state");
    let tables = format!(
        "state_dir = {:?}\n{}",
        state.display().to_string(),
        one_route(upstream.address)
    );
    let found = Found::by(scene.host(ANY, &tables));
    found
        .exits(0)
        .tells(
            "configuration",
            "ok",
            "portcullis.toml: routes 1, certificates 1, tunnels 0",
            "",
        )
        .tells("port", "ok", "listen 127.0.0.1:0 is free", "")
        .tells("port", "unknown", "there is no `admin`: nobody can ask", "")
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
    let scene = Scene::new();
    Found::by(scene.host_as_written("admin = false\nlisen = []\n"))
        .exits(2)
        .tells(
            "configuration",
            "fail",
            "portcullis.toml:2:1: unknown key `lisen`",
            "portcullis check",
        );
    let mut command = scene.doctor();
    command.args(["--config", "/nonexistent/portcullis.toml"]);
    Found::by(command)
        .exits(2)
        .tells("configuration", "fail", "/nonexistent/portcullis.toml", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_a_port_is_named_and_a_gateway_that_runs_is_no_failure() {
    let scene = Scene::new();
    let upstream = Upstream::echo().await;
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let tables = one_route(upstream.address);
    let held = held.local_addr().unwrap();
    let pid = std::process::id();
    Found::by(scene.host(held, &tables)).exits(1).tells(
        "port",
        "fail",
        &format!("(pid {pid})"),
        "listen elsewhere",
    );
    Found::by(scene.host("192.0.2.1:8443", &tables))
        .exits(1)
        .tells("port", "fail", "does not have that address", "ip address");

    let other = Scene::new();
    let running = format!(
        "admin = \"127.0.0.1:0\"\nlog = {{ format = \"json\" }}\n\
         certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n{tables}"
    );
    let program = Program::start(&other.authority, &running);
    let pid = program.child.id();
    Found::by(scene.host(program.listener, &tables))
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
    let scene = Scene::new();
    for (name, from, until) in [("old", 2000, 2001), ("new", 2999, 3000)] {
        let mut params = CertificateParams::new(vec![format!("{name}.example.test")]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let issued = scene.authority.sign(params);
        scene
            .authority
            .write(&format!("{name}.pem"), &issued.certificate.pem());
        scene
            .authority
            .write(&format!("{name}.key"), &issued.key.serialize_pem());
    }
    let stranger = Authority::new().issue(&["db.test"]).server(&[&TLS13]);
    let stranger = Upstream::tls(stranger, echo).await;
    let proven = scene.authority.issue(&["db.test"]).server(&[&TLS13]);
    let proven = Upstream::tls(proven, echo).await;
    let down = nobody();
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
    Found::by(scene.host_as_written(&tables))
        .exits(1)
        .tells(
            "certificate",
            "fail",
            "old.pem: for old.example.test; its key fits; expired ",
            "get a new one",
        )
        .tells("certificate", "fail", "valid only in ", "clock")
        .tells("clock", "warn", "new.pem begins", "timedatectl")
        .tells("upstream", "fail", "stranger: 127.0.0.1:", "for `roots`")
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
    let scene = Scene::new();
    let upstream = Upstream::echo().await;
    let tables = one_route(upstream.address) + "[limits]\nconnections = 5000\n";
    let doctor = scene.host(ANY, &tables);
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
async fn a_consul_that_is_away_is_told_with_what_mends_it() {
    let scene = Scene::new();
    let tables = format!("[consul]\naddress = \"http://{}\"\n", nobody());
    let mut command = scene.host(ANY, &tables);
    command.args(["--timeout", "2s"]);
    Found::by(command).exits(1).tells(
        "Consul",
        "fail",
        "cannot be reached",
        "is the agent running",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_without_the_sandbox_is_a_warning_with_what_stands_in_for_it() {
    let scene = Scene::new();
    let upstream = Upstream::echo().await;
    let doctor = scene.host(ANY, &one_route(upstream.address));
    let mut python = Command::new("python3");
    let error = rustix::io::Errno::NOSYS.raw_os_error().to_string();
    python.args(["-c", DENY, "landlock_create_ruleset", &error]);
    python.arg(doctor.get_program()).args(doctor.get_args());
    Found::by(python).exits(0).tells(
        "sandbox",
        "warn",
        "the kernel has no Landlock",
        "ProtectSystem=strict",
    );
}

#[test]
fn a_state_dir_that_the_user_who_serves_cannot_write_is_told_with_the_chown() {
    if !rustix::process::geteuid().is_root() {
        return peers::skip("only root can be another user");
    }
    let scene = Scene::new();
    let at = |name: &str| scene.authority.folder().join(name);
    for folder in ["", "of-root", "of-root/state", "of-all"] {
        fs::create_dir_all(at(folder)).unwrap();
        fs::set_permissions(at(folder), PermissionsExt::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(at("of-all"), PermissionsExt::from_mode(0o777)).unwrap();
    let copy = at("portcullis");
    fs::copy(env!("CARGO_BIN_EXE_portcullis"), &copy).unwrap();
    let look = |state: &str| {
        let state = at(state);
        let text = format!(
            "listen = [\"127.0.0.1:0\"]\nadmin = false\nstate_dir = {:?}\n",
            state.display().to_string()
        );
        let doctor = scene.host_as_written(&text);
        let config = at("portcullis.toml");
        fs::set_permissions(config, PermissionsExt::from_mode(0o644)).unwrap();
        let mut nobody = Command::new("setpriv");
        nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
        nobody.arg(&copy).args(doctor.get_args());
        (Found::by(nobody), state.display().to_string())
    };
    for (state, says) in [
        ("of-root/state", "cannot be written"),
        ("of-root/none", "is not there, and cannot be made"),
    ] {
        let (found, at) = look(state);
        let hint = format!("chown USER {at}");
        let says = format!("{at} {says}");
        found.exits(1).tells("state", "fail", &says, &hint);
    }
    let (found, at) = look("of-all/none");
    found.tells(
        "state",
        "ok",
        &format!("{at} is not there yet, and can be made"),
        "",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_listener_is_at_443_it_is_said_who_must_be_led_here_from_there() {
    let scene = Scene::new();
    let upstream = Upstream::echo().await;
    let tables = one_route(upstream.address);
    let says = "no listener is at 443";
    Found::by(scene.host(ANY, &tables)).tells("port", "unknown", says, "");
    // Nobody has this address, and the port is what counts.
    let found = Found::by(scene.host("192.0.2.1:443", &tables));
    assert!(
        !found.document.to_string().contains(says),
        "{:#}",
        found.document
    );
}
