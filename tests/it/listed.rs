//! `portcullis routes`: what it shows of a gateway that runs, and what it finds out where none does.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::authority::Authority;
use crate::consul::{Consul, Options, service};
use crate::fake_consul::{FakeConsul, Fault};
use crate::peers;
use crate::program::Program;
use crate::support::run;

/// The tags of a route to this host.
fn routed(name: &str) -> [String; 2] {
    [
        format!("traefik.tcp.routers.{name}.rule=HostSNI(`{name}.example.test`)"),
        format!("traefik.tcp.routers.{name}.tls=true"),
    ]
}

/// The rights that the README names.
fn policy() -> String {
    let readme = include_str!("../../README.md");
    let mut blocks = readme.split("```hcl\n").skip(1);
    let policy = blocks.find(|block| block.starts_with("service \"portcullis\""));
    let (policy, _) = policy.unwrap().split_once("```").unwrap();
    policy.to_owned()
}

/// The command, with this configuration.
fn command(authority: &Authority, config: &str, arguments: &[&str]) -> Command {
    let config = authority.write("routes.toml", config);
    let program = Path::new(env!("CARGO_BIN_EXE_portcullis"));
    let mut command = peers::unconfigured(program, "CONSUL_");
    command.args(["routes", "--config"]).arg(config);
    command.args(arguments);
    command
}

/// What it says: status, stdout, stderr.
fn said(command: &Command) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = run(command, b"");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// An agent with a service that is routed, one with a mistake in its tags, one that has none for TCP, and one that leads to
/// this address.
fn consul(options: Options, own: SocketAddr) -> Option<Consul> {
    let consul = Consul::start_with(options)?;
    let elsewhere: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let register = |name: &str, address: SocketAddr, tags: &[String]| {
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        consul.register(&service(name, address, &tags));
    };
    register("web", elsewhere, &routed("web"));
    register("loop", own, &routed("loop"));
    let mut wrong = routed("wrong").to_vec();
    wrong.push("traefik.tcp.routers.wrong.rul=x".to_owned());
    register("wrong", elsewhere, &wrong);
    let http = "traefik.http.routers.wiki.rule=Host(`a`)";
    register("wiki", elsewhere, &[http.to_owned()]);
    Some(consul)
}

#[test]
fn before_a_gateway_runs_consul_is_asked_once_and_what_is_skipped_is_told_with_its_reason() {
    let authority = Authority::new();
    // A start would fail on this address, and a service leads there.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    let options = Options {
        acl: true,
        ..Options::default()
    };
    let Some(consul) = consul(options, listen) else {
        return;
    };
    let token = consul.token(&policy());
    let config = format!(
        "listen = [\"{listen}\"]\nadmin = \"unix:none.sock\"\nstate_dir = \"state\"\n\
         [consul]\naddress = \"{}\"\ntoken = \"{token}\"\nmesh_identity = \"portcullis\"\n\
         [routes.file]\nhost = \"file.example.test\"\npassthrough = true\nupstream = \"127.0.0.1:9\"\n",
        consul.address()
    );
    // The rights that the documentation names, less one. (An agent that has had a leaf for a service hands it out again.)
    let narrow =
        consul.token(r#"service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }"#);
    let short = ["--consul", "--timeout", "3s"];
    let without = config.replace(&token, &narrow);
    let (status, out, err) = said(&command(&authority, &without, &short));
    assert_eq!(status, 1, "{out}\n{err}");
    assert!(err.contains("identity is not ready after 3s"), "{err}");
    assert!(err.contains("service:write"), "{err}");
    assert!(out.contains("web@consul"), "what was found is shown: {out}");
    let (status, out, err) = said(&command(&authority, &config, &["--consul"]));
    assert_eq!(status, 3, "{out}\n{err}");
    for wanted in [
        "that a gateway with ",
        "would have if it started now, those of consul only.\n",
        "web@consul    consul  ends  1          serves\n    HostSNI(`web.example.test`)\n    to 127.0.0.1:9\n",
        "wrong@consul  consul  -     ",
        "wrong@consul, instance test/wrong\n      tag \"traefik.tcp.routers.wrong.rul\": there is no such key\n",
        "Notes: 1\n  wiki@consul\n",
        "loop@consul",
        "this gateway itself",
    ] {
        assert!(out.contains(wanted), "{wanted}: {out}\n{err}");
    }
    assert!(!out.contains("file"), "{out}");
    assert!(
        !authority.folder().join("state").exists(),
        "nothing is kept"
    );
    let (_, out, _) = said(&command(&authority, &config, &["--dry-run"]));
    assert!(out.contains("\nfile          file    passes  1"), "{out}");
}

#[test]
fn a_gateway_that_runs_is_asked_and_a_source_is_shown_alone() {
    let authority = Authority::new();
    let Some(consul) = consul(Options::default(), "127.0.0.1:8".parse().unwrap()) else {
        return;
    };
    let tables = |admin: &str| {
        format!(
            "admin = \"{admin}\"\n[log]\nformat = \"json\"\n[consul]\naddress = \"{}\"\n\
             [routes.file]\nhost = \"file.example.test\"\npassthrough = true\nupstream = \"127.0.0.1:9\"\n",
            consul.address()
        )
    };
    let gateway = Program::start(&authority, &tables("127.0.0.1:0"));
    let admin = gateway.admin.to_string();
    let config = tables(&admin);
    let all = command(&authority, &config, &[]);
    crate::support::wait_until("the services are routed", || {
        said(&all).1.contains("4 routes")
    });
    let (status, out, err) = said(&all);
    assert_eq!(status, 3, "{out}\n{err}");
    assert!(
        out.starts_with(&format!("Routes of the gateway at {admin}, generation ")),
        "{out}"
    );
    assert!(out.contains("\nfile "), "{out}");
    let (_, out, _) = said(&command(&authority, &config, &["--source", "file"]));
    assert!(out.contains("\nfile ") && !out.contains("web"), "{out}");
    assert!(out.contains("1 route: 1 serves; 0 skipped."), "{out}");

    let url = format!("http://{admin}");
    let (_, raw, _) = said(&command(&authority, "no = 1", &["--admin", &url, "--json"]));
    let raw: Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(raw["routes"].as_array().unwrap().len(), 4);
    let (_, only, _) = said(&command(&authority, &config, &["--consul", "--json"]));
    let only: Value = serde_json::from_str(&only).unwrap();
    assert_eq!(only["routes"].as_array().unwrap().len(), 3);
    assert_eq!(only["generation"], raw["generation"]);
}

#[test]
fn where_no_gateway_answers_that_is_told_and_nothing_else_is_shown() {
    let authority = Authority::new();
    for admin in ["unix:none.sock", "127.0.0.1:1"] {
        let config = format!("admin = \"{admin}\"\n");
        let (status, out, err) = said(&command(&authority, &config, &[]));
        assert_eq!((status, out.as_str()), (1, ""), "{err}");
        assert!(err.contains("cannot be reached"), "{err}");
        assert!(
            err.contains("hint: no gateway runs there; `--dry-run`"),
            "{err}"
        );
    }
    // Who names an address means that one.
    let (status, out, err) = said(&command(
        &authority,
        "",
        &["--consul", "--admin", "127.0.0.1:1"],
    ));
    assert_eq!((status, out.as_str()), (1, ""), "{err}");
    let (status, _, err) = said(&command(&authority, "admin = false\n", &[]));
    assert!(status == 1 && err.contains("no admin interface"), "{err}");
    let remedy = "hint: write `admin = \"127.0.0.1:9443\"` into it";
    assert!(err.contains(remedy), "{err}");
    let (status, out, err) = said(&command(&authority, "lisen = []\n", &["--dry-run"]));
    assert_eq!((status, out.as_str()), (2, ""));
    assert!(
        err.contains("unknown key `lisen`") && err.contains("hint: `--admin"),
        "{err}"
    );
    let (status, _, _) = said(&command(&authority, "", &["--source", "docker"]));
    assert_eq!(status, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consul_that_fails_is_waited_for_no_longer_than_asked_and_its_reason_is_told() {
    let authority = Authority::new();
    let consul = FakeConsul::start().await;
    let [rule, tls] = routed("web");
    consul.change(|world| world.register("web", &[&rule, &tls]));
    let config = format!(
        "admin = \"unix:none.sock\"\n[consul]\naddress = \"{}\"\n",
        consul.address()
    );
    let ask = |arguments: &[&str]| {
        let mut all = vec!["--consul", "--timeout", "1500ms"];
        all.extend(arguments);
        let command = command(&authority, &config, &all);
        let start = Instant::now();
        let said = tokio::task::block_in_place(|| said(&command));
        (said, start.elapsed())
    };
    let ((status, out, err), _) = ask(&[]);
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("1 route: 1 serves; 0 skipped."), "{out}");
    for (fault, why) in [
        (Fault::Hang, "waiting for consul"),
        (Fault::Status(403, "Permission denied"), "403"),
        (Fault::Body("{\"web\": [1"), "waiting for consul"),
        (Fault::Close, "waiting for consul"),
    ] {
        consul.fail("", fault.clone());
        let ((status, out, err), took) = ask(&[]);
        assert_eq!(status, 1, "{fault:?}: {out}\n{err}");
        assert!(
            err.contains("consul is not ready after 1.5s"),
            "{fault:?}: {err}"
        );
        assert!(err.contains(why), "{fault:?}: {err}");
        assert!(out.contains("No routes; 0 skipped."), "{fault:?}: {out}");
        assert!(took < Duration::from_secs(10), "{fault:?}: {took:?}");
    }
    // What is read cannot be written into a terminal as it is.
    consul.change(|world| {
        world.faults.clear();
        world.register(
            "evil",
            &["traefik.tcp.routers.\x1b[2Jx.rule=HostSNI(`\x1b]0;`)"],
        );
    });
    let ((status, out, _), _) = ask(&[]);
    assert_eq!(status, 3, "{out}");
    assert!(
        out.contains("evil@consul") && !out.contains('\x1b'),
        "{out:?}"
    );
}
