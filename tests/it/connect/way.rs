//! How `portcullis connect` finds its way: flags, environment, client.toml; and whom it trusts at the end of it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use portcullis::tls::pin::Pin;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;

use super::{TARGET, bare, brought, connect, failed, gate, to};
use crate::authority::Authority;
use crate::peers;
use crate::support::run;
use crate::upstream::{Upstream, echo};

/// Writes the person's file, where it is looked for.
pub(super) fn file(authority: &Authority, text: &str) {
    let folder = authority.folder().join("portcullis");
    fs::create_dir_all(&folder).unwrap();
    let path = authority.write("portcullis/client.toml", text);
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_of_openssls_making_is_trust_enough_and_another_key_is_shown() {
    let Some(openssl) = peers::require("openssl", "openssl") else {
        return;
    };
    let authority = Authority::new();
    let issued = authority.issue_files("edge", &[TARGET]);
    let gate = Upstream::tls(issued.server(&[&rustls::version::TLS13]), echo).await;
    let mut hash = Command::new("sh");
    hash.args([
        "-c",
        "\"$0\" x509 -in \"$1\" -pubkey -noout | \"$0\" pkey -pubin -outform der | \"$0\" dgst -sha256 -binary | \"$0\" base64",
    ]);
    let done = run(
        hash.arg(openssl).arg(authority.folder().join("edge.pem")),
        b"",
    );
    let pin = format!("sha256/{}", String::from_utf8(done.stdout).unwrap().trim());
    let pinned = |pins: &[&str]| {
        let mut command = bare(&authority);
        command.args(["--gateway", &gate.address.to_string()]);
        for pin in pins {
            command.args(["--pin", pin]);
        }
        // There is nothing that this system trusts, and nothing is looked for.
        command
            .env("SSL_CERT_FILE", "/nowhere")
            .env("SSL_CERT_DIR", "/nowhere");
        run(&to(command, &[TARGET]), b"hello")
    };
    let other = "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    brought(&pinned(&[&pin]), b"hello");
    brought(&pinned(&[other, &pin]), b"hello");
    let says = format!("another key than the pinned one: {pin}");
    failed(&pinned(&[other]), 12, &says, "somebody stands in between");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_beside_a_ca_is_asked_for_too_and_no_pin_vouches_for_the_name() {
    let authority = Authority::new();
    let issued = authority.issue(&[TARGET]);
    let pin = Pin::of(issued.certificate.der()).unwrap().to_string();
    let gate = Upstream::tls(issued.server(&[&rustls::version::TLS13]), echo).await;
    let with = |arguments: &[&str]| {
        let command = connect(&authority, gate.address);
        run(&to(command, arguments), b"hello")
    };
    brought(&with(&["--pin", &pin, TARGET]), b"hello");
    let other = "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    failed(
        &with(&["--pin", other, TARGET]),
        12,
        "another key",
        "pin that one",
    );
    let mut command = bare(&authority);
    command.args(["--gateway", &gate.address.to_string(), "--pin", &pin]);
    failed(
        &run(&to(command, &["other.example.test"]), b""),
        27,
        "not for other.example.test, but for vm.example.test",
        "check the name",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn insecure_takes_anybody_and_says_so_each_time() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let gate = Upstream::tls(
        stranger
            .issue(&["elsewhere.test"])
            .server(&[&rustls::version::TLS13]),
        echo,
    )
    .await;
    let mut command = bare(&authority);
    command.args(["--gateway", &gate.address.to_string(), "--insecure", TARGET]);
    for _ in 0..2 {
        let done = run(&command, b"hello");
        assert_eq!(
            (done.status.code(), done.stdout),
            (Some(0), b"hello".to_vec())
        );
        let told = String::from_utf8(done.stderr).unwrap();
        assert!(
            told.starts_with("portcullis: warning: insecure: "),
            "{told}"
        );
        assert_eq!(told.lines().count(), 1, "{told}");
    }
    command.args(["--ca", "ca.pem"]);
    failed(&run(&command, b""), 2, "cannot be used with", "--help");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protocol_is_offered_only_where_it_is_asked_for() {
    let authority = Authority::new();
    let mut config = authority
        .issue(&[TARGET])
        .server_by(portcullis::tls::provider(), &[&rustls::version::TLS13]);
    config.alpn_protocols = vec![b"b".to_vec(), b"a".to_vec()];
    let gate = Upstream::tls(Arc::new(config), |mut stream| async move {
        use tokio::io::AsyncWriteExt;
        let agreed = stream
            .get_ref()
            .1
            .alpn_protocol()
            .unwrap_or(b"none")
            .to_vec();
        stream.write_all(&agreed).await.unwrap();
        echo(stream).await;
    })
    .await;
    let with = |arguments: &[&str]| {
        let command = connect(&authority, gate.address);
        run(&to(command, arguments), b"")
    };
    brought(&with(&["--alpn", "a", "--alpn", "b", TARGET]), b"b");
    brought(&with(&["--alpn", "a", TARGET]), b"a");
    brought(&with(&[TARGET]), b"none");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_says_what_flags_do_not_and_they_outrank_it() {
    let authority = Authority::new();
    let gate = gate(&authority, echo).await;
    let address = gate.address;
    let find = |arguments: &[&str], gateway: Option<&str>| {
        let mut command = bare(&authority);
        if let Some(gateway) = gateway {
            command.env("PORTCULLIS_GATEWAY", gateway);
        }
        run(&to(command, arguments), b"hello")
    };
    let closed = {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        gone.local_addr().unwrap().to_string()
    };
    let ca = "../ca.pem";
    file(
        &authority,
        &format!(
            "[domains.\"*\"]\ngateway = \"{closed}\"\n[domains.\"*.example.test\"]\ngateway = \"{address}\"\nca = [\"{ca}\"]\n"
        ),
    );
    brought(&find(&[TARGET], None), b"hello");
    failed(&find(&["other.test"], None), 21, &closed, "is it running");
    failed(
        &find(&[TARGET], Some(&closed)),
        21,
        &closed,
        "is it running",
    );
    let typed = address.to_string();
    brought(
        &find(&["--gateway", &typed, TARGET], Some(&closed)),
        b"hello",
    );
    failed(
        &find(&["--gateway", &closed, TARGET], None),
        21,
        &closed,
        "is it running",
    );

    // What is typed of trust is not made weaker by the file.
    file(
        &authority,
        &format!("[domains.\"{TARGET}\"]\ngateway = \"{address}\"\ninsecure = true\n"),
    );
    let done = find(&[TARGET], None);
    let told = String::from_utf8(done.stderr).unwrap();
    assert!(
        done.status.success() && told.contains("warning: insecure"),
        "{told}"
    );
    let stranger = Authority::new();
    let ca = stranger.folder().join("ca.pem").display().to_string();
    failed(
        &find(&["--ca", &ca, TARGET], None),
        12,
        "the name of a trusted one",
        "made anew",
    );

    let named = authority.write(
        "mine.toml",
        &format!("[domains.\"*\"]\ngateway = \"{address}\"\nca = [\"ca.pem\"]\n"),
    );
    let named = named.display().to_string();
    brought(&find(&["--client-config", &named, TARGET], None), b"hello");
    failed(
        &find(&["--client-config", "/nowhere", TARGET], None),
        2,
        "/nowhere: it cannot be read: ",
        "give the path of a TOML file",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_file_says_of_trust_is_for_its_gateway_and_for_no_other() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let gates = [
        gate(&authority, echo).await,
        gate(&authority, echo).await,
        Upstream::tls(asking(&authority), echo).await,
    ];
    let [its_own, other, asking] = gates.each_ref().map(|gate| gate.address.to_string());
    authority.issue_files("me", &["me.example.test"]);
    let find = |says: &str, gateway: &str, more: &[&str]| {
        let text = format!("[domains.\"{TARGET}\"]\ngateway = \"{its_own}\"\n{says}\n");
        file(&authority, &text);
        let find = |mut command: Command| {
            // Somebody else's CA is all that this system trusts.
            command.env("SSL_CERT_FILE", stranger.folder().join("ca.pem"));
            command.env("SSL_CERT_DIR", "/nowhere");
            run(&to(to(command, more), &[TARGET]), b"hello")
        };
        let mut set = bare(&authority);
        set.env("PORTCULLIS_GATEWAY", gateway);
        [
            find(to(bare(&authority), &["--gateway", gateway])),
            find(set),
        ]
    };
    let pin = "pin = [\"sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\"]";
    for says in ["insecure = true", "ca = [\"../ca.pem\"]", pin] {
        for done in find(says, &other, &[]) {
            failed(
                &done,
                12,
                "another CA with the name of a trusted one",
                "--ca FILE",
            );
        }
    }
    let ca = authority.folder().join("ca.pem").display().to_string();
    let trusting = ["--ca", ca.as_str()];
    for done in find("server_name = \"other.example.test\"", &other, &trusting) {
        brought(&done, b"hello");
    }
    let pair = "cert = \"../me.pem\"\nkey = \"../me.key\"";
    for done in find(pair, &asking, &trusting) {
        failed(&done, 14, "asks for a client certificate", "--cert");
    }
    // Its own is no other one, however it is named.
    for done in find("ca = [\"../ca.pem\"]", &its_own, &[]) {
        brought(&done, b"hello");
    }
}

#[test]
fn the_example_of_the_file_is_good_and_shows_every_key() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/client/client.toml");
    let text = fs::read_to_string(&path).unwrap();
    let parse =
        |text: &str| portcullis::config::parse_client(text, &path, Some(Path::new("/home/me")));
    let file = parse(&text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(file.domains.len(), 2);
    let wrong = parse("[domains.\"*\"]\ngateway = \"a\"\nnonsense = 1\n").unwrap_err();
    let help = wrong.list[0].help.clone().unwrap();
    let (_, known) = help.split_once("known here: ").unwrap();
    for key in known.split(", ") {
        assert!(text.contains(&format!("\n{key} = ")), "{key} is not shown");
    }
}

/// A server that asks for a certificate of this authority.
pub(super) fn asking(authority: &Authority) -> Arc<ServerConfig> {
    let issued = authority.issue(&[TARGET]);
    let key = PrivateKeyDer::try_from(issued.key.serialize_der()).unwrap();
    let provider = portcullis::tls::provider();
    let roots = Arc::new(authority.roots());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![issued.certificate.der().clone()], key);
    Arc::new(config.unwrap())
}
