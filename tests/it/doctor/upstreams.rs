//! The doctor on a host dials as a gateway does: what refuses it is no success, and each failure has its own remedy.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{Found, Scene, nobody};
use crate::authority::{Authority, Issued};
use crate::gateway::Gateway;
use crate::upstream::{Upstream, echo};

const NAME: &str = "db.test";

/// A configuration with nothing but upstreams, each a tunnel's.
#[derive(Default)]
struct Tunnels(String);

impl Tunnels {
    /// One more, to this address, with these keys for TLS.
    fn to(&mut self, name: &str, address: impl ToString, tls: &str) {
        let address = address.to_string();
        writeln!(
            self.0,
            "[tunnels.{name}]\nlisten = \"127.0.0.1:0\"\nto = \"{address}\"\nserver_name = \"{NAME}\"\n\
             tls = {{ roots = [\"ca.pem\"], {tls} }}"
        )
        .unwrap();
    }

    fn look(&self, scene: &Scene) -> Found {
        let mut command = scene.host_as_written(&format!("admin = false\n{}", self.0));
        command.args(["--timeout", "3s"]);
        Found::by(command)
    }
}

/// A certificate of a client, and of a server, of these years.
fn of_years(authority: &Authority, years: [i32; 2]) -> Issued {
    let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    [params.not_before, params.not_after] = years.map(|year| rcgen::date_time_ymd(year, 1, 1));
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    authority.sign(params)
}

/// One that is its own CA.
fn own() -> Issued {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    Issued {
        certificate: params.self_signed(&key).unwrap(),
        key,
    }
}

fn write(scene: &Scene, name: &str, issued: &Issued) {
    let folder = &scene.authority;
    folder.write(&format!("{name}.pem"), &issued.certificate.pem());
    folder.write(&format!("{name}.key"), &issued.key.serialize_pem());
}

/// A server that requires a certificate of this authority.
fn requiring(
    authority: &Authority,
    version: &'static rustls::SupportedProtocolVersion,
) -> Arc<ServerConfig> {
    let issued = authority.issue(&[NAME]);
    let provider = portcullis::tls::provider();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(authority.roots().into(), provider.clone());
    let key = PrivateKeyDer::try_from(issued.key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![issued.certificate.der().clone()], key);
    Arc::new(config.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_ours_that_is_refused_after_the_handshake_is_a_failure_with_its_remedy() {
    let scene = Scene::new();
    write(&scene, "good", &scene.authority.issue(&[NAME]));
    write(&scene, "old", &of_years(&scene.authority, [2000, 2001]));
    write(&scene, "foreign", &Authority::new().issue(&[NAME]));
    for version in [&TLS13, &TLS12] {
        let upstream = Upstream::tls(requiring(&scene.authority, version), echo).await;
        let mut tunnels = Tunnels::default();
        tunnels.to("none", upstream.address, "");
        for name in ["good", "old", "foreign"] {
            let pair = format!("chain = \"{name}.pem\", key = \"{name}.key\"");
            tunnels.to(name, upstream.address, &pair);
        }
        let found = tunnels.look(&scene);
        found.exits(1);
        found.tells("upstream", "fail", "", "name ours: `chain` and `key`");
        found.tells("upstream", "fail", "", "ours has expired: get a new one");
        found.tells("upstream", "fail", "", "from a CA that is accepted there");
        found.tells("upstream", "ok", "answers, and proves who it is (TLS)", "");
        let of_upstreams = found.steps().iter().filter(|one| one["step"] == "upstream");
        let well = of_upstreams.filter(|one| one["state"] == "ok").count();
        assert_eq!(well, 1, "{:#}", found.document);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_of_an_upstream_has_its_own_remedy() {
    let scene = Scene::new();
    let server = |issued: Issued| issued.server(&[&TLS13]);
    let mut tunnels = Tunnels::default();
    let mut held = Vec::new();
    for (name, config) in [
        ("stranger", server(own())),
        ("remade", server(Authority::new().issue(&[NAME]))),
        ("expired", server(of_years(&scene.authority, [2000, 2001]))),
        ("early", server(of_years(&scene.authority, [2999, 3000]))),
        ("misnamed", server(scene.authority.issue(&["other.test"]))),
    ] {
        let upstream = Upstream::tls(config, echo).await;
        tunnels.to(name, upstream.address, "");
        held.push(upstream);
    }
    let ssh = Upstream::greeter("SSH-2.0-OpenSSH_9.9\r\n").await;
    tunnels.to("ssh", ssh.address, "");
    let plain = Upstream::greeter("+OK ready to serve\r\n").await;
    tunnels.to("plain", plain.address, "");
    let gone = Upstream::tcp(|mut tcp| async move {
        let _ = tcp.read(&mut [0; 1024]).await;
    })
    .await;
    tunnels.to("gone", gone.address, "");
    let config = server(scene.authority.issue(&[NAME]));
    let closing = Upstream::tls(config.clone(), |tls| async move { drop(tls) }).await;
    tunnels.to("closing", closing.address, "");
    // It takes connections, and nobody there reads.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    tunnels.to("silent", silent.local_addr().unwrap(), "");
    let mut only_h2 = ServerConfig::clone(&config);
    only_h2.alpn_protocols = vec![b"h2".to_vec()];
    let only_h2 = Upstream::tls(Arc::new(only_h2), echo).await;
    tunnels.to("protocol", only_h2.address, "alpn = [\"postgresql\"]");
    let old = scene.authority.issue(&[NAME]).server(&[&TLS12]);
    let old = Upstream::tls(old, echo).await;
    tunnels.to(
        "cipher",
        old.address,
        "ciphers = \"TLS_AES_128_GCM_SHA256\"",
    );
    let down: SocketAddr = nobody().parse().unwrap();
    tunnels.to("down", down, "");
    let found = tunnels.look(&scene);
    found.exits(1);
    let is_its_port = format!("is it running, and is {} its port?", down.port());
    let another = format!("{} is another service's port", ssh.address.port());
    let not_tls = format!(
        "check that {} is its port, and not one",
        plain.address.port()
    );
    let hangs_up = format!(
        "check that {} is its port; its own log",
        gone.address.port()
    );
    for (says, hints) in [
        (&*format!("{down}: Connection refused"), &*is_its_port),
        (
            "no CA that is trusted here",
            "name its certificate in `roots`",
        ),
        (
            "another CA with the name",
            "get its present certificate for `roots`",
        ),
        ("expired at 2001", "whoever runs it must renew it"),
        ("not valid before 2999", "set the clock right"),
        (
            "is not for db.test, but for other.test",
            "check `server_name`",
        ),
        ("SSH-2.0-", &another),
        ("the peer speaks no TLS", &not_tls),
        (&gone.address.to_string(), &hangs_up),
        (&closing.address.to_string(), "probably not ready"),
        ("no TLS handshake within 3s", "is it a port with TLS?"),
        (&only_h2.address.to_string(), "name one of them in `alpn`"),
        (
            &old.address.to_string(),
            "no TLS version or cipher in common",
        ),
    ] {
        found.tells("upstream", "fail", says, hints);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gateway_refuses_or_does_not_reach_is_told_with_its_remedy() {
    let (scene, edge) = (Scene::new(), Authority::new());
    edge.issue_files("edge", &["*.example.test"]);
    let upstream = Upstream::echo().await;
    let tables = format!(
        "certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
         [routes.down]\nhost = \"down.example.test\"\nupstream = \"{}\"\n\
         [routes.up]\nhost = \"up.example.test\"\nupstream = \"{}\"\n\
         [routes.near]\nhost = \"near.example.test\"\nupstream = \"{}\"\nmiddlewares = [\"office\"]\n\
         [middlewares.office]\nip_allow_list = [\"192.0.2.1\"]\n",
        nobody(),
        upstream.address,
        upstream.address
    );
    let gateway = Gateway::start(&edge, &tables).await;
    let ca = edge.folder().join("ca.pem");
    let mut text = "admin = false\n".to_owned();
    for name in ["down", "up", "near", "unknown"] {
        writeln!(
            text,
            "[tunnels.{name}]\nlisten = \"127.0.0.1:0\"\ngateway = \"{}\"\n\
             name = \"{name}.example.test\"\ntls = {{ roots = [\"{}\"] }}",
            gateway.address,
            ca.display()
        )
        .unwrap();
    }
    let found = Found::by(scene.host_as_written(&text));
    found.exits(1);
    found.tells(
        "upstream",
        "fail",
        "the gateway says: ",
        "is it up? the gateway's operator",
    );
    found.tells(
        "upstream",
        "fail",
        "",
        "for other addresses than this machine's",
    );
    found.tells(
        "upstream",
        "fail",
        "",
        "nothing there goes by unknown.example.test",
    );
    found.tells("upstream", "ok", "answers, and proves who it is (TLS)", "");

    // One that has promised to tell, and does not.
    let issued = edge.issue(&["up.example.test"]);
    let mut config = issued.server_by(portcullis::tls::provider(), &[&TLS13]);
    config.alpn_protocols = vec![b"portcullis/1".to_vec()];
    let stalled = Upstream::tls(Arc::new(config), |mut tls| async move {
        let _ = tls.read(&mut [0; 1]).await;
        let _ = tls.shutdown().await;
    })
    .await;
    let text = format!(
        "admin = false\n[tunnels.t]\nlisten = \"127.0.0.1:0\"\ngateway = \"{}\"\n\
         name = \"up.example.test\"\ntls = {{ roots = [\"{}\"] }}\n",
        stalled.address,
        ca.display()
    );
    let mut command = scene.host_as_written(&text);
    command.args(["--timeout", "1s"]);
    Found::by(command).exits(1).tells(
        "upstream",
        "fail",
        "the gateway has not reached up.example.test within 1s",
        "--timeout waits longer",
    );
}
