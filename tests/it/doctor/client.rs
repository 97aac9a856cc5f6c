//! The doctor at a client's end, against gateways that are well and gateways that are not.

use std::process::Command;

use rcgen::CertificateParams;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::{Found, Scene, nobody};
use crate::authority::Issued;
use crate::gateway::Gateway;
use crate::support::run;
use crate::upstream::{Upstream, echo};

/// Whom every test wants to reach.
const TARGET: &str = "vm.example.test";

const ROUTES: &str = r#"
certificates = [{ chain = "edge.pem", key = "edge.key" }]
[tls.options.mutual]
client_auth = "required"
client_ca = ["ca.pem"]
[tls.options.optional]
client_auth = "optional"
client_ca = ["ca.pem"]
[limits]
dial_timeout = "2s"
dial_attempts = 1
"#;

impl Scene {
    /// The doctor with a certificate to show.
    fn showing(&self, mut command: Command) -> Command {
        for (flag, file) in [("--cert", "me.pem"), ("--key", "me.key")] {
            command.arg(flag).arg(self.authority.folder().join(file));
        }
        command
    }

    /// A gateway of ours with a route for each name: its option set, if any, and its upstream.
    async fn gateway(&self, routes: &[(&str, &str, String)]) -> Gateway {
        let mut tables = ROUTES.to_owned();
        for (name, options, upstream) in routes {
            let options = match *options {
                "" => String::new(),
                options => format!("tls_options = \"{options}\"\n"),
            };
            tables += &format!(
                "[upstreams.{name}]\naddress = \"{upstream}\"\n\
             [routes.{name}]\nhost = \"{name}.example.test\"\n{options}upstream = \"{name}\"\n"
            );
        }
        Gateway::start(&self.authority, &tables).await
    }
}

/// A server that ends TLS for the target, and is no gateway of ours.
async fn server<F>(
    issued: &Issued,
    serve: impl Fn(TlsStream<TcpStream>) -> F + Clone + Send + Sync + 'static,
) -> Upstream
where
    F: Future<Output = ()> + Send + 'static,
{
    Upstream::tls(issued.server(&[&TLS12, &TLS13]), serve).await
}

/// A server that speaks first, and waits for the client's end.
async fn greeting(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) {
    let _ = stream.write_all(b"SSH-2.0-Test\x1b[2J\r\n").await;
    let _ = stream.flush().await;
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_way_is_told_step_by_step_to_the_target_s_first_bytes() {
    let scene = Scene::new();
    let sshd = Upstream::tcp(greeting).await;
    let gateway = scene.gateway(&[("vm", "", sshd.address.to_string())]).await;
    let found = Found::by(scene.to(gateway.address, TARGET));
    assert_eq!(found.code, 0, "{:#}", found.document);
    assert_eq!(
        found.course(),
        [
            "configuration ok",
            "DNS ok",
            "TCP ok",
            "TLS ok",
            "certificate ok",
            "clock ok",
            "trust ok",
            "route ok",
            "client certificate ok",
            "upstream ok",
            "first bytes ok"
        ]
    );
    assert_eq!(found.document["end"], "client");
    assert_eq!(found.document["about"], TARGET);
    found
        .tells("TLS", "ok", "TLS 1.3, X25519MLKEM768, ", "")
        .tells("TLS", "ok", "not resumed, portcullis/1", "")
        .tells(
            "certificate",
            "ok",
            "for *.example.test; signed by CN=Test CA; ",
            "",
        )
        .tells("certificate", "ok", " days left", "")
        .tells("trust", "ok", "vm.example.test is proven, by a CA in /", "")
        .tells("client certificate", "ok", "asks for none", "")
        .tells(
            "upstream",
            "ok",
            "the gateway has reached vm.example.test",
            "",
        )
        .tells("first bytes", "ok", "SSH-2.0-Test\\x1b[2J\\r\\n", "");

    let done = run(&scene.to(gateway.address, TARGET), b"");
    let words = String::from_utf8(done.stdout).unwrap();
    assert!(
        words.contains("\nok   TLS                 TLS 1.3, "),
        "{words}"
    );
    assert!(
        words.ends_with("\nvm.example.test can be reached\n"),
        "{words}"
    );
    assert!(!words.contains('\x1b'), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_to_the_gateway_is_told_with_its_remedy() {
    let scene = Scene::new();
    Found::by(scene.to("gate.invalid", TARGET)).exits(20).tells(
        "DNS",
        "fail",
        "cannot find the address of the gateway gate.invalid",
        "--gateway",
    );
    Found::by(scene.to(nobody(), TARGET)).exits(21).tells(
        "TCP",
        "fail",
        "refuses connections",
        "is it running",
    );
    let (_deaf, _queued, address) = crate::upstreams::deaf().await;
    let mut command = scene.to(address, TARGET);
    command.args(["--timeout", "500ms"]);
    Found::by(command)
        .exits(22)
        .tells("TCP", "fail", "did not answer within 500ms", "a firewall");
    let mut command = scene.to("gate.example.test", TARGET);
    command.args(["--proxy", &format!("http://me:secret@{}", nobody())]);
    let found = Found::by(command);
    found.exits(36).tells(
        "proxy",
        "fail",
        "no connection by the proxy",
        "--proxy none",
    );
    assert!(!found.document.to_string().contains("secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_speaks_no_tls_or_falls_silent_is_told_at_the_step_of_tls() {
    let scene = Scene::new();
    let answering = Upstream::greeter("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    Found::by(scene.to(answering.address, TARGET))
        .exits(23)
        .tells("TCP", "ok", "127.0.0.1:", "")
        .tells(
            "TLS",
            "fail",
            "does not speak TLS: it answers in HTTP",
            "another service's port",
        );
    let silent = Upstream::tcp(|mut tcp| async move {
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let mut command = scene.to(silent.address, TARGET);
    command.args(["--timeout", "500ms"]);
    Found::by(command).exits(24).tells(
        "TLS",
        "fail",
        "no TLS handshake within 500ms",
        "the gateway hangs",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_proves_nothing_is_shown_before_it_is_refused() {
    let scene = Scene::new();
    let ours = server(&scene.authority.issue(&[TARGET]), echo).await;
    let namesake = Scene::new();
    Found::by(namesake.to(ours.address, TARGET))
        .exits(12)
        .tells("TLS", "ok", "it is spoken there", "")
        .tells(
            "certificate",
            "ok",
            "for vm.example.test; signed by CN=Test CA",
            "",
        )
        .tells(
            "trust",
            "fail",
            "another CA with the name of a trusted one",
            "made anew",
        );

    let other = server(&scene.authority.issue(&["gate.example.test"]), echo).await;
    Found::by(scene.to(other.address, TARGET))
        .exits(27)
        .tells("certificate", "ok", "for gate.example.test;", "")
        .tells(
            "trust",
            "fail",
            "not for vm.example.test, but for gate.example.test",
            "check the name",
        );

    for (from, until, code, says, fails) in [
        (2000, 2001, 25, "expired ", "expired at 2001-01-01"),
        (
            2999,
            3000,
            26,
            "valid only in ",
            "valid only from 2999-01-01",
        ),
    ] {
        let mut params = CertificateParams::new(vec![TARGET.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let gate = server(&scene.authority.sign(params), echo).await;
        Found::by(scene.to(gate.address, TARGET))
            .exits(code)
            .tells("certificate", "warn", says, "")
            .tells(
                "clock",
                "warn",
                "valid from 2",
                "if this machine's clock is wrong",
            )
            .tells("trust", "fail", fails, "clock");
    }

    let mut command = scene.doctor();
    command.args([
        "--insecure",
        "--gateway",
        &other.address.to_string(),
        TARGET,
    ]);
    Found::by(command)
        .exits(0)
        .tells("trust", "warn", "nothing proves", "--ca FILE");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gateway_of_ours_says_of_the_name_the_client_and_the_target_is_told_at_its_step() {
    let scene = Scene::new();
    scene.authority.issue_files("me", &["me.example.test"]);
    let (plain, down) = (Upstream::echo().await, nobody());
    let up = plain.address.to_string();
    let (_deaf, _queued, deaf) = crate::upstreams::deaf().await;
    let gateway = scene
        .gateway(&[
            ("vm", "", up.clone()),
            ("mutual", "mutual", up.clone()),
            ("optional", "optional", up),
            ("down", "", down),
            ("deaf", "", deaf.to_string()),
        ])
        .await;
    let by = |target: &str| scene.to(gateway.address, target);

    Found::by(by("vm.elsewhere.test"))
        .exits(13)
        .tells("TLS", "ok", "it is spoken there", "")
        .tells(
            "route",
            "fail",
            "has no route for vm.elsewhere.test",
            "/v1/routes",
        );
    Found::by(by("mutual.example.test"))
        .exits(14)
        .tells("route", "ok", "has one for mutual.example.test", "")
        .tells(
            "client certificate",
            "fail",
            "it takes those signed by CN=Test CA",
            "--cert FILE",
        );
    Found::by(scene.showing(by("mutual.example.test")))
        .exits(0)
        .tells("client certificate", "ok", "me.pem was taken", "");
    Found::by(by("optional.example.test")).exits(0).tells(
        "client certificate",
        "ok",
        "not required: none was shown",
        "",
    );
    Found::by(by("down.example.test"))
        .exits(15)
        .tells("client certificate", "ok", "asks for none", "")
        .tells(
            "upstream",
            "fail",
            "has no way to down.example.test",
            "is it up?",
        );
    let mut command = by("deaf.example.test");
    command.args(["--timeout", "700ms"]);
    Found::by(command).exits(15).tells(
        "upstream",
        "fail",
        "has not reached deaf.example.test within 700ms",
        "--timeout",
    );
    Found::by(by(TARGET)).exits(0).tells(
        "first bytes",
        "unknown",
        "where the client speaks first",
        "",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_server_that_is_no_gateway_of_ours_it_is_said_what_cannot_be_told() {
    let scene = Scene::new();
    let issued = scene.authority.issue(&[TARGET]);
    let silent = server(&issued, echo).await;
    Found::by(scene.to(silent.address, TARGET))
        .exits(0)
        .tells("upstream", "unknown", "does not speak portcullis/1", "")
        .tells("first bytes", "unknown", "none within 1s", "");
    let done = run(&scene.to(silent.address, TARGET), b"");
    let words = String::from_utf8(done.stdout).unwrap();
    assert!(words.contains("whether it is up cannot be told"), "{words}");
    let greeter = server(&issued, greeting).await;
    Found::by(scene.to(greeter.address, TARGET)).exits(0).tells(
        "first bytes",
        "ok",
        "SSH-2.0-Test",
        "",
    );
    // What `connect` takes for an end in order is one, and odd.
    let closing = server(&issued, |mut stream| async move {
        let _ = stream.shutdown().await;
    })
    .await;
    Found::by(scene.to(closing.address, TARGET)).exits(0).tells(
        "first bytes",
        "warn",
        "without a word",
        "its own log",
    );
    let cut = server(&issued, |mut stream| async move {
        let _ = stream.get_mut().0.shutdown().await;
    })
    .await;
    Found::by(scene.to(cut.address, TARGET)).exits(15).tells(
        "first bytes",
        "fail",
        "before a byte came back",
        "probably down",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_names_the_gateway_is_told_and_so_is_what_is_wrong_with_it() {
    let scene = Scene::new();
    Found::by({
        let mut command = scene.doctor();
        command.arg(TARGET);
        command
    })
    .exits(2)
    .tells(
        "configuration",
        "fail",
        "no gateway is named for vm.example.test",
        "--gateway HOST:PORT",
    );

    let config = |text: &str| {
        let folder = scene.authority.folder().join("portcullis");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("client.toml"), text).unwrap();
        let mut command = scene.doctor();
        command.arg(TARGET);
        Found::by(command)
    };
    let gateway = nobody();
    config(&format!(
        "[domains.\"*.example.test\"]\ngateway = \"{gateway}\"\n"
    ))
    .exits(21)
    .tells(
        "configuration",
        "ok",
        "[domains.\"*.example.test\"] in /",
        "",
    );
    config("[domains.\"*.example.test\"]\ngatway = \"x\"\n")
        .exits(2)
        .tells("configuration", "fail", "client.toml:2:1: ", "gateway");

    let scene = Scene::new();
    let mut command = scene.to(&gateway, TARGET);
    command.args(["--cert", "/nonexistent.pem", "--key", "/nonexistent.key"]);
    Found::by(command)
        .exits(2)
        .tells("files", "fail", "/nonexistent.pem", "");
}
