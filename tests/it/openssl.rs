//! What `openssl s_client` sees of the gateway: another TLS stack than ours, and the one people debug with.

use std::path::PathBuf;
use std::process::{Command, Output};

use rustls::version::{TLS12, TLS13};
use tokio::io::AsyncWriteExt;
use tokio::task::spawn_blocking;

use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::peers;
use crate::support::Child;
use crate::upstream::Upstream;

const NAME: &str = "edge.example.test";
const GREETING: &str = "hello from behind the gate";
const BOTH_VERSIONS: [(&str, &str); 2] = [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")];

#[tokio::test]
async fn the_chain_and_the_name_verify_in_both_versions() {
    let Some(mut edge) = Edge::start("").await else {
        return;
    };
    for (flag, version) in BOTH_VERSIONS {
        let arguments = [flag, "-servername", NAME, "-verify_hostname", NAME];
        let seen = edge.seen(&arguments).await;
        assert!(seen.contains("Verification: OK"), "{seen}");
        assert!(
            seen.contains(&format!("Verified peername: {NAME}")),
            "{seen}"
        );
        assert!(
            seen.contains(&format!("New, {version}, Cipher is")),
            "{seen}"
        );
        assert!(seen.contains(GREETING), "{seen}");
        let record = edge.gateway.ended().await;
        assert_eq!(record["reason"], "closed", "{record}");
        assert_eq!(format!("TLSv{}", record["tls"].as_str().unwrap()), version);
    }
}

#[tokio::test]
async fn a_certificate_of_another_name_does_not_verify() {
    let Some(edge) = Edge::start("").await else {
        return;
    };
    let arguments = [
        "-servername",
        NAME,
        "-verify_hostname",
        "other.example.test",
    ];
    let seen = edge.seen(&arguments).await;
    assert!(seen.contains("hostname mismatch"), "{seen}");
    assert!(!seen.contains(GREETING), "{seen}");
}

#[tokio::test]
async fn the_chain_is_sent_whole() {
    let Some(edge) = Edge::start("").await else {
        return;
    };
    let arguments = ["-servername", "below.example.test"];
    let seen = edge.seen(&arguments).await;
    assert!(seen.contains("Verification: OK"), "{seen}");
    // What it lists is what was sent, not what it made of it.
    assert!(seen.contains("\n 1 s:CN = Test CA between 1\n"), "{seen}");
    assert!(!seen.contains("\n 2 s:"), "{seen}");
}

#[tokio::test]
async fn a_common_protocol_is_agreed_and_another_is_no_error() {
    let Some(mut edge) = Edge::start("").await else {
        return;
    };
    for (offered, agreed) in [
        ("h2,http/1.1", "ALPN protocol: h2"),
        ("http/1.1", "ALPN protocol: http/1.1"),
        ("ssh", "No ALPN negotiated"),
    ] {
        let seen = edge.seen(&["-servername", NAME, "-alpn", offered]).await;
        assert!(seen.contains(agreed), "{offered}: {seen}");
        assert!(seen.contains(GREETING), "{offered}: {seen}");
        assert_eq!(edge.gateway.ended().await["reason"], "closed");
    }
}

#[tokio::test]
async fn a_list_of_protocols_is_obeyed_strictly() {
    let Some(edge) = Edge::start(r#"alpn = ["http/1.1"]"#).await else {
        return;
    };
    for (offered, agreed) in [
        ("h2,http/1.1", "ALPN protocol: http/1.1"),
        ("h2", "SSL alert number 120"),
    ] {
        let seen = edge.seen(&["-servername", NAME, "-alpn", offered]).await;
        assert!(seen.contains(agreed), "{offered}: {seen}");
    }
}

#[tokio::test]
async fn a_list_of_ciphers_is_obeyed_in_both_versions() {
    let list = "ciphers = \"ECDHE-ECDSA-AES256-GCM-SHA384:TLS_CHACHA20_POLY1305_SHA256:DHE-RSA-AES256-SHA\"";
    let Some(edge) = Edge::start(list).await else {
        return;
    };
    let tls12 = |suite| ["-tls1_2", "-cipher", suite];
    let tls13 = |suite| ["-tls1_3", "-ciphersuites", suite];
    for (flags, says) in [
        (
            tls12("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"),
            "New, TLSv1.2, Cipher is ECDHE-ECDSA-AES256-GCM-SHA384",
        ),
        (tls12("ECDHE-ECDSA-AES128-GCM-SHA256"), "Cipher is (NONE)"),
        (
            tls13("TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"),
            "New, TLSv1.3, Cipher is TLS_CHACHA20_POLY1305_SHA256",
        ),
        (tls13("TLS_AES_256_GCM_SHA384"), "Cipher is (NONE)"),
    ] {
        let seen = edge
            .seen(&[&["-servername", NAME][..], &flags].concat())
            .await;
        assert!(seen.contains(says), "{flags:?}: {seen}");
    }
}

#[tokio::test]
async fn an_unknown_name_and_none_are_refused_with_unrecognized_name() {
    let Some(mut edge) = Edge::start("").await else {
        return;
    };
    for (arguments, reason) in [
        (
            ["-servername", "nobody.example.test"].as_slice(),
            "unknown_name",
        ),
        (&["-noservername"], "no_name"),
    ] {
        for (flag, _) in BOTH_VERSIONS {
            let seen = edge.seen(&[arguments, &[flag]].concat()).await;
            assert!(seen.contains("unrecognized name"), "{seen}");
            assert!(seen.contains("SSL alert number 112"), "{seen}");
            assert!(!seen.contains("BEGIN CERTIFICATE"), "{seen}");
            let record = edge.gateway.ended().await;
            assert_eq!(record["reason"], reason, "{record}");
        }
    }
}

#[tokio::test]
async fn a_required_client_certificate_opens_and_the_lack_of_one_does_not() {
    client_certificates("required", false).await;
}

#[tokio::test]
async fn an_optional_client_certificate_may_be_left_out() {
    client_certificates("optional", true).await;
}

/// With the right certificate it always opens, with a stranger's never; without one as told.
async fn client_certificates(policy: &str, opens_without: bool) {
    let options = format!("client_auth = \"{policy}\"\nclient_ca = [\"ca.pem\"]");
    let Some(mut edge) = Edge::start(&options).await else {
        return;
    };
    let stranger = Authority::new();
    edge.authority
        .issue_files("client", &["person.example.test"]);
    stranger.issue_files("client", &["person.example.test"]);
    let own = edge.authority.folder().display().to_string();
    let foreign = stranger.folder().display().to_string();
    let files = |folder: &str| {
        [
            format!("{folder}/client.pem"),
            format!("{folder}/client.key"),
        ]
    };
    for (flag, _) in BOTH_VERSIONS {
        for (folder, opens) in [
            (Some(&own), true),
            (Some(&foreign), false),
            (None, opens_without),
        ] {
            let files = folder.map(|folder| files(folder));
            let mut arguments = vec![flag, "-servername", NAME];
            if let Some([certificate, key]) = &files {
                arguments.extend(["-cert", certificate, "-key", key]);
            }
            let seen = edge.seen(&arguments).await;
            assert_eq!(seen.contains(GREETING), opens, "{arguments:?}: {seen}");
            assert_eq!(
                seen.contains("SSL alert number"),
                !opens,
                "{arguments:?}: {seen}"
            );
            let reason = if opens {
                "closed"
            } else {
                "client_certificate"
            };
            let record = edge.gateway.ended().await;
            assert_eq!(record["reason"], reason, "{arguments:?}: {record}");
        }
    }
}

#[tokio::test]
async fn through_a_passed_route_the_upstreams_own_certificate_is_seen() {
    let Some(openssl) = peers::require("openssl", "openssl") else {
        return;
    };
    let authority = Authority::new();
    let issued = authority.issue(&["pass.example.test"]);
    let upstream = Upstream::tls(issued.server(&[&TLS12, &TLS13]), |mut stream| async move {
        let _ = stream.write_all(GREETING.as_bytes()).await;
        let _ = stream.shutdown().await;
    })
    .await;
    let route = format!(
        r#"
        [routes.pass]
        host = "pass.example.test"
        passthrough = true
        upstream = "{}"
        "#,
        upstream.address
    );
    let gateway = Gateway::start(&authority, &route).await;
    let mut edge = Edge {
        openssl,
        authority,
        gateway,
        _upstream: upstream,
    };
    for (flag, version) in BOTH_VERSIONS {
        let name = "pass.example.test";
        let arguments = [flag, "-servername", name, "-verify_hostname", name];
        let seen = edge.seen(&arguments).await;
        assert!(seen.contains("Verification: OK"), "{seen}");
        assert!(
            seen.contains(&format!("New, {version}, Cipher is")),
            "{seen}"
        );
        assert!(seen.contains(GREETING), "{seen}");
        let record = edge.gateway.ended().await;
        assert_eq!(record["reason"], "closed", "{record}");
        assert_eq!(record["tls"], serde_json::Value::Null, "{record}");
    }
}

/// A gateway that terminates in front of an upstream that greets, and the program to look at it with.
struct Edge {
    openssl: PathBuf,
    authority: Authority,
    gateway: Gateway,
    _upstream: Upstream,
}

impl Edge {
    /// Starts one, with these lines in the option set of its route.
    async fn start(options: &str) -> Option<Self> {
        let openssl = peers::require("openssl", "openssl")?;
        let authority = Authority::new();
        authority.issue_files("edge", &[NAME]);
        authority.issue_files_below(1, "below", &["below.example.test"]);
        let upstream = Upstream::greeter(GREETING).await;
        let gateway = Gateway::start(
            &authority,
            &format!(
                r#"
                certificates = [
                    {{ chain = "edge.pem", key = "edge.key" }},
                    {{ chain = "below.pem", key = "below.key" }},
                ]
                [tls.options.tried]
                {options}
                [routes.greeter]
                host = ["{NAME}", "below.example.test"]
                tls_options = "tried"
                upstream = "{}"
                "#,
                upstream.address
            ),
        )
        .await;
        Some(Self {
            openssl,
            authority,
            gateway,
            _upstream: upstream,
        })
    }

    /// All that `openssl s_client` prints, until the other side ends or it gives up itself.
    async fn seen(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(&self.openssl);
        command
            .args(["s_client", "-connect", &self.gateway.address.to_string()])
            .arg("-verify_return_error")
            .arg("-CAfile")
            .arg(self.authority.folder().join("ca.pem"))
            .args(arguments);
        // At the end of its stdin it would not wait for an answer.
        let (child, stdin) = Child::spawn_with_stdin(&command);
        let Output { stdout, stderr, .. } = spawn_blocking(|| child.finish()).await.unwrap();
        drop(stdin);
        String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned()
    }
}
