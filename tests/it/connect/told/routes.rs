//! What a gateway of ours says of a client, of its route, and of what stands behind it.

use std::io::Write;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose};
use rustls::version::TLS13;

use super::{Book, showing};
use crate::authority::Authority;
use crate::connect::{connect, to};
use crate::gateway::Gateway;
use crate::support::{Child, run};
use crate::upstream::{Upstream, echo};

/// What the routes ask of their clients; `down` is dialled by those that are let in.
const CLIENTS: &str = r#"
certificates = [{ chain = "edge.pem", key = "edge.key" }]
[tls.options.mutual]
client_auth = "required"
client_ca = ["ca.pem"]
[middlewares.elsewhere]
ip_allow_list = ["192.0.2.0/24"]
[middlewares.none]
in_flight_conn = 0
[routes.mutual]
host = "mutual.example.test"
tls_options = "mutual"
upstream = "down"
[routes.elsewhere]
host = "elsewhere.example.test"
middlewares = ["elsewhere"]
upstream = "down"
[routes.full]
host = "full.example.test"
middlewares = ["none"]
upstream = "down"
[limits]
dial_timeout = "2s"
dial_attempts = 1
drain_timeout = "200ms"
"#;

pub(super) async fn tell(book: &Book) {
    let authority = Authority::new();
    authority.issue_files("edge", &["*.example.test"]);
    let closed = crate::connect::nobody();
    let (_deaf, _queued, deaf) = crate::upstreams::deaf().await;
    let plain = Upstream::echo().await;
    let stranger = Authority::new().issue(&["db.test"]).server(&[&TLS13]);
    let stranger = Upstream::tls(stranger, echo).await;
    let mut tables = CLIENTS.to_owned();
    for (name, address, tls) in [
        ("down", closed.to_string(), false),
        ("deaf", deaf.to_string(), false),
        ("nameless", "nothing.invalid:22".to_owned(), false),
        ("up", plain.address.to_string(), false),
        ("plain", plain.address.to_string(), true),
        ("stranger", stranger.address.to_string(), true),
    ] {
        let tls = match tls {
            true => "tls = { roots = [\"ca.pem\"], server_name = \"db.test\" }\n",
            false => "",
        };
        tables += &format!(
            "[upstreams.{name}]\naddress = \"{address}\"\n{tls}\
             [routes.{name}]\nhost = \"{name}.example.test\"\nupstream = \"{name}\"\n"
        );
    }
    let mut gateway = Gateway::start(&authority, &tables).await;
    let address = gateway.address;
    for (what, host, reason) in [
        ("an unknown name", "vm.elsewhere.test", "unknown_name"),
        ("for other addresses", "elsewhere", "client_not_allowed"),
        ("as many as may be", "full", "in_flight_limit"),
        ("no client certificate", "mutual", "client_certificate"),
        ("the target is down", "down", "dial_failed"),
        ("the target is silent", "deaf", "dial_timeout"),
        (
            "the target has no address",
            "nameless",
            "no_healthy_upstream",
        ),
        ("the target speaks no TLS", "plain", "upstream_tls"),
        (
            "the target is somebody else",
            "stranger",
            "upstream_identity",
        ),
    ] {
        let host = match host.contains('.') {
            true => host.to_owned(),
            false => format!("{host}.example.test"),
        };
        book.tell(what, &authority, address, &[&host]);
        let record = gateway.ended().await;
        assert_eq!(record["reason"], reason, "{what}: {record}");
    }

    let stranger = Authority::new();
    stranger.issue_files("me", &["me.example.test"]);
    let mut params = CertificateParams::new(vec!["me.example.test".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let expired = authority.sign(params);
    authority.write("me.pem", &expired.certificate.pem());
    authority.write("me.key", &expired.key.serialize_pem());
    let early = Authority::new();
    let mut params = CertificateParams::new(vec!["me.example.test".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = rcgen::date_time_ymd(2999, 1, 1);
    params.not_after = rcgen::date_time_ymd(3000, 1, 1);
    let issued = authority.sign(params);
    early.write("me.pem", &issued.certificate.pem());
    early.write("me.key", &issued.key.serialize_pem());
    for (what, whose) in [
        ("a client certificate of another CA", &stranger),
        ("a client certificate whose time has not come", &early),
        ("a client certificate whose time is over", &authority),
    ] {
        let command = showing(connect(&authority, address), whose.folder(), "me");
        let done = run(&to(command, &["mutual.example.test"]), b"");
        book.write(what, whose, address, &done);
        let record = gateway.ended().await;
        assert_eq!(record["reason"], "client_certificate", "{what}: {record}");
    }

    let command = to(connect(&authority, address), &["up.example.test"]);
    let (child, mut stdin) = Child::spawn_with_stdin(&command);
    stdin.write_all(b"hello\n").unwrap();
    child.wait_for("its echo", |line| (line == "hello").then_some(()));
    gateway.shutdown.begin_drain();
    let done = child.finish();
    book.write("the gateway is stopped", &authority, address, &done);
    assert_eq!(gateway.ended().await["reason"], "drained");
}
