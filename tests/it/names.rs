//! Names as clients write them: each reaches the route, the policy and the certificate of that name, or nothing.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::authority::Authority;
use crate::gateway::{Gateway, answer, exchange};
use crate::hello_bytes::{
    self as hello, DECODE_ERROR, Extension, HANDSHAKE, ILLEGAL_PARAMETER, INTERNAL_ERROR,
    UNRECOGNIZED_NAME, framed,
};
use crate::scene::Scene;
use crate::upstream::Upstream;

/// A server's request for a client certificate (RFC 5246 §7.4.4).
const CERTIFICATE_REQUEST: u8 = 13;

fn with_names(names: &[(u8, &[u8])]) -> Vec<u8> {
    let mut extensions = hello::tls13();
    extensions.push(hello::server_name(names));
    framed(&hello::message(0x0303, &extensions), &[])
}

#[tokio::test]
async fn every_spelling_of_a_name_reaches_the_route_of_that_name() {
    let mut scene = Scene::with("").await;
    let longest_label = format!("{}.wild.example.test", "a".repeat(63));
    for (name, route) in [
        ("open.example.test", "open"),
        ("OPEN.EXAMPLE.TEST", "open"),
        ("oPeN.eXaMpLe.TeSt", "open"),
        ("open.example.test.", "open"),
        ("Open.Example.Test.", "open"),
        ("PASS.example.test.", "pass"),
        ("mutual.example.test.", "mutual"),
        ("a.wild.example.test", "wild"),
        ("A.WILD.example.test.", "wild"),
        ("under_score.wild.example.test", "wild"),
        ("xn--bcher-kva.wild.example.test", "wild"),
        ("9.wild.example.test", "wild"),
        (&longest_label, "wild"),
    ] {
        let told = scene.tell_all(&framed(&hello::named(name), &[])).await;
        assert_eq!(told.record["route"], route, "{name}: {}", told.record);
    }
}

#[tokio::test]
async fn a_name_that_no_route_takes_is_refused_as_unknown() {
    let mut scene = Scene::with("").await;
    let longest = format!("{}.test", ["a".repeat(61).as_str(); 4].join("."));
    assert_eq!(longest.len(), 252);
    for name in [
        "nobody.example.test",
        "example.test",
        "wild.example.test",
        "a.b.wild.example.test",
        "xopen.example.test",
        "open.example.test.evil.test",
        "open.example.tes",
        "localhost",
        &format!("a{longest}"),
        &format!("{longest}."),
    ] {
        let bytes = framed(&hello::named(name), &[]);
        scene
            .refuses(name, &bytes, &UNRECOGNIZED_NAME, "unknown_name")
            .await;
    }
}

#[tokio::test]
async fn what_is_no_host_name_is_refused_before_any_look_up() {
    let mut scene = Scene::with("").await;
    let label = format!("{}.wild.example.test", "a".repeat(64));
    let long = |length: usize| {
        let labels = vec!["a".repeat(61); 5].join(".");
        let text = format!("{labels}.wild.example.test");
        text[text.len() - length..].to_owned()
    };
    for name in [
        "open.example.test..",
        ".",
        "..",
        ".open.example.test",
        ".wild.example.test",
        "open..example.test",
        "-open.wild.example.test",
        "open-.wild.example.test",
        "*.wild.example.test",
        "*",
        "a*.wild.example.test",
        "bücher.wild.example.test",
        "open.example.test\0",
        "open.example.test\0.evil.test",
        "a\0.wild.example.test",
        "open.example.test ",
        " open.example.test",
        "a b.wild.example.test",
        "open.example.test\n",
        "\x1b[2J.wild.example.test",
        "open.example.test:8443",
        "https://open.example.test",
        "open/../mutual.wild.example.test",
        "[::1]",
        "127.0.0.1.",
        "1.2.3",
        "a.wild.example.0x7f",
        &label,
        // Without its dot it would be as long as a name may be.
        &format!("{}.", long(253)),
        &long(254),
        &long(255),
        &long(300),
        &"a".repeat(5000),
    ] {
        let bytes = framed(&hello::named(name), &[]);
        scene
            .refuses(name, &bytes, &ILLEGAL_PARAMETER, "bad_hello")
            .await;
    }
    // Not even text.
    let bytes = framed(&hello::named(b"\xff\xfe.wild.example.test"), &[]);
    scene
        .refuses("bytes", &bytes, &ILLEGAL_PARAMETER, "bad_hello")
        .await;
}

#[tokio::test]
async fn a_hello_with_no_name_or_an_address_for_one_is_refused() {
    let mut scene = Scene::with("").await;
    let none = framed(&hello::message(0x0303, &hello::tls13()), &[]);
    scene
        .refuses("none", &none, &UNRECOGNIZED_NAME, "no_name")
        .await;
    for address in ["127.0.0.1", "::1", "2001:db8::1", "::ffff:127.0.0.1"] {
        let bytes = framed(&hello::named(address), &[]);
        scene
            .refuses(address, &bytes, &UNRECOGNIZED_NAME, "no_name")
            .await;
    }
}

#[tokio::test]
async fn a_list_of_names_holds_one() {
    let mut scene = Scene::with("").await;
    let (open, mutual) = (&b"open.example.test"[..], &b"mutual.example.test"[..]);
    let raw = |data: &[u8]| {
        let mut extensions = hello::tls13();
        extensions.push(Extension(0, data.to_vec()));
        framed(&hello::message(0x0303, &extensions), &[])
    };
    let twice = {
        let mut extensions = hello::tls13();
        extensions.push(hello::server_name(&[(0, open)]));
        extensions.push(hello::server_name(&[(0, mutual)]));
        framed(&hello::message(0x0303, &extensions), &[])
    };
    for (what, bytes, alert) in [
        (
            "two names",
            with_names(&[(0, open), (0, mutual)]),
            DECODE_ERROR,
        ),
        (
            "one name twice",
            with_names(&[(0, open), (0, open)]),
            DECODE_ERROR,
        ),
        (
            "an unknown kind first",
            with_names(&[(1, mutual), (0, open)]),
            ILLEGAL_PARAMETER,
        ),
        (
            "an unknown kind alone",
            with_names(&[(9, open)]),
            ILLEGAL_PARAMETER,
        ),
        ("an empty list", with_names(&[]), DECODE_ERROR),
        ("an empty name", with_names(&[(0, b"")]), DECODE_ERROR),
        ("no list", raw(b""), DECODE_ERROR),
        (
            "a list longer than it is",
            raw(b"\0\x20\0\0\x04open"),
            DECODE_ERROR,
        ),
        (
            "bytes behind the list",
            raw(b"\0\x07\0\0\x04openx"),
            DECODE_ERROR,
        ),
        ("the extension twice", twice, DECODE_ERROR),
    ] {
        scene.refuses(what, &bytes, &alert, "bad_hello").await;
    }
    // What comes behind a name and is no name says nothing (RFC 6066 §3 knows no other kind).
    let told = scene.tell_all(&with_names(&[(0, open), (9, mutual)])).await;
    assert_eq!(told.record["route"], "open");
}

#[tokio::test]
async fn grease_and_encrypted_hellos_are_routed_by_the_name_in_the_clear() {
    let mut scene = Scene::with("").await;
    // RFC 8701 §3.1; and a hello within, which none but its server could read (RFC 9849 §5).
    let mut extensions = vec![Extension(0x0a0a, vec![])];
    extensions.extend(hello::tls13());
    extensions.push(hello::server_name(&[(0, b"mutual.example.test")]));
    extensions.push(hello::alpn(&[&b"\x1a\x1a"[..]]));
    let within = [
        &[0, 0, 1, 0, 1, 42, 0, 32][..],
        &[5; 32],
        &[0, 144],
        &[6; 144],
    ]
    .concat();
    extensions.push(Extension(0xfe0d, within));
    extensions.push(Extension(0xfafa, vec![0]));
    let told = scene
        .tell_all(&framed(&hello::message(0x0303, &extensions), &[]))
        .await;
    assert_eq!(told.answer[..3], [HANDSHAKE, 3, 3]);
    assert_eq!(told.record["route"], "mutual");
}

/// CVE-2020-8660 of Envoy: the name was not seen in a hello of TLS 1.3 alone.
#[tokio::test]
async fn every_version_a_hello_offers_leads_to_the_same_route() {
    let mut scene = Scene::with("").await;
    let only13 = {
        let mut extensions = hello::tls13();
        extensions.retain(|extension| extension.0 != 43);
        extensions.push(Extension(43, vec![2, 3, 4]));
        extensions
    };
    for mut extensions in [hello::tls12(), hello::tls13(), only13] {
        extensions.insert(0, hello::server_name(&[(0, b"mutual.example.test")]));
        let told = scene
            .tell_all(&framed(&hello::message(0x0303, &extensions), &[]))
            .await;
        assert_eq!(told.record["route"], "mutual");
        assert_eq!(told.answer[..3], [HANDSHAKE, 3, 3]);
    }
}

/// A name as a client may write it, and the hello around it.
#[derive(Clone, Debug)]
struct Spelling {
    name: String,
    route: Option<&'static str>,
    protocols: Vec<&'static str>,
    records: Vec<usize>,
    segments: Vec<usize>,
}

fn spelling() -> impl Strategy<Value = Spelling> {
    // Of refusals no more than a hundred a second are written, so they are few here.
    let plain = prop_oneof![
        2 => Just(("open.example.test".to_owned(), Some("open"))),
        2 => Just(("mutual.example.test".to_owned(), Some("mutual"))),
        2 => Just(("pass.example.test".to_owned(), Some("pass"))),
        2 => "[a-z0-9_]{1,20}".prop_map(|label| (format!("{label}.wild.example.test"), Some("wild"))),
        1 => "[a-z0-9_]{1,5}\\.[a-z0-9]{1,5}".prop_map(|labels| (format!("{labels}.wild.example.test"), None)),
        1 => "[a-z]{1,10}\\.example\\.test"
            .prop_filter("a route's", |name| !["open.", "mutual.", "pass.", "wild."].iter().any(|own| name.starts_with(own)))
            .prop_map(|name| (name, None)),
    ];
    let protocols = prop::sample::subsequence(vec!["h2", "http/1.1", "ssh", "portcullis/1"], 0..=4);
    let cuts = || prop::collection::vec(1_usize..80, 0..6);
    (
        plain,
        any::<u128>(),
        any::<bool>(),
        protocols,
        cuts(),
        cuts(),
    )
        .prop_map(
            |((name, route), upper, dot, protocols, records, segments)| {
                let cased = name.chars().enumerate().map(|(at, c)| {
                    if upper >> (at % 128) & 1 == 1 {
                        c.to_ascii_uppercase()
                    } else {
                        c
                    }
                });
                let name = cased.chain(dot.then_some('.')).collect();
                Spelling {
                    name,
                    route,
                    protocols,
                    records,
                    segments,
                }
            },
        )
}

/// CVE-2026-32305, GHSA-hrhx-6h34-j5hc, CVE-2026-48491 and CVE-2026-53622 of Traefik: a hello in several records, a
/// trailing dot, a name under a wildcard and a name in mixed case each got other options than their route's.
#[test]
fn every_spelling_gets_the_route_the_client_auth_and_the_certificate_of_its_name() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let scene = std::cell::RefCell::new(runtime.block_on(Scene::with("")));
    let config = Config {
        cases: 256,
        failure_persistence: None,
        ..Config::default()
    };
    let run = TestRunner::new(config).run(&spelling(), |spelling| {
        runtime.block_on(gets_what_its_name_gets(&mut scene.borrow_mut(), &spelling));
        Ok(())
    });
    run.unwrap();
}

async fn gets_what_its_name_gets(scene: &mut Scene, spelling: &Spelling) {
    // In a handshake of TLS 1.2 the certificate and the request for one are in the clear.
    let mut extensions = hello::tls12();
    extensions.push(hello::server_name(&[(0, spelling.name.as_bytes())]));
    if !spelling.protocols.is_empty() {
        extensions.push(hello::alpn(&spelling.protocols));
    }
    let bytes = framed(&hello::message(0x0303, &extensions), &spelling.records);
    let mut tcp = scene.gateway.connect().await;
    let mut rest = bytes.as_slice();
    for size in &spelling.segments {
        let (now, later) = rest.split_at((*size).min(rest.len()));
        tcp.write_all(now).await.unwrap();
        tokio::task::yield_now().await;
        rest = later;
    }
    tcp.write_all(rest).await.unwrap();
    tcp.shutdown().await.unwrap();
    let (answer, _) = answer(&mut tcp).await;
    let record = scene.gateway.ended().await;
    assert!(scene.gateway.has_no_more_records());
    assert_eq!(
        record["route"],
        spelling.route.map_or(Value::Null, Value::from),
        "{record}"
    );
    let own = scene
        .certificates
        .iter()
        .find(|(route, _)| Some(*route) == spelling.route);
    match (spelling.route, own) {
        (Some(route), Some((_, own))) => {
            let (kinds, certificate) = hello::flight(&answer);
            assert!(certificate == *own, "{route} has shown another certificate");
            assert_eq!(kinds.contains(&CERTIFICATE_REQUEST), route != "open");
        }
        (Some(_), None) => assert!(answer == bytes, "what is passed on is as it was"),
        (None, _) => assert_eq!(answer, UNRECOGNIZED_NAME),
    }
}

#[tokio::test]
async fn an_unknown_name_is_told_so_closed_or_reset_as_configured() {
    for (action, alert, reset) in [
        ("alert", &UNRECOGNIZED_NAME[..], false),
        ("close", b"", false),
        ("reset", b"", true),
    ] {
        let mut scene = Scene::with(&format!("unknown_name = \"{action}\"")).await;
        for (name, reason) in [
            (Some("nobody.example.test"), "unknown_name"),
            (None, "no_name"),
        ] {
            let names: Vec<(u8, &[u8])> = name.iter().map(|name| (0, name.as_bytes())).collect();
            let mut extensions = hello::tls13();
            if !names.is_empty() {
                extensions.push(hello::server_name(&names));
            }
            let mut bytes = framed(&hello::message(0x0303, &extensions), &[]);
            for more in [0, 100_000] {
                bytes.extend(vec![0x17; more]);
                let told = scene.tell(&bytes).await;
                assert_eq!(told.answer, alert, "{action} {more}");
                assert_eq!(told.reset, reset, "{action} {more}");
                assert_eq!(told.record["reason"], reason);
                assert_eq!(told.record["sni"], name.map_or(Value::Null, Value::from));
            }
        }
        assert_eq!(scene.dials(), 0);
    }
}

#[tokio::test]
async fn a_default_route_takes_clients_without_a_name_where_it_is_written_down() {
    let authority = Authority::new();
    let upstream = Upstream::echo().await;
    let tables = format!(
        "[routes.any]\nrule = 'HostSNI(`*`)'\npassthrough = true\nupstream = \"{}\"\n\
         [routes.named]\nhost = \"named.example.test\"\nupstream = \"{}\"\n",
        upstream.address, upstream.address
    );
    let mut gateway = Gateway::start(&authority, &tables).await;
    let nameless = framed(&hello::message(0x0303, &hello::tls13()), &[]);
    let named = |name: &str| framed(&hello::named(name), &[]);
    for bytes in [
        nameless,
        named("10.0.0.1"),
        named("::1"),
        named("nobody.example.test"),
    ] {
        let mut tcp = gateway.connect().await;
        tcp.write_all(&bytes).await.unwrap();
        tcp.shutdown().await.unwrap();
        assert!(answer(&mut tcp).await.0 == bytes);
        assert_eq!(gateway.ended().await["route"], "any");
    }
    // Who asks for a route that cannot serve does not land on the default, and who asks for no name at all neither.
    for (name, alert, reason) in [
        ("named.example.test", UNRECOGNIZED_NAME, "no_certificate"),
        ("-no-.name", ILLEGAL_PARAMETER, "bad_hello"),
    ] {
        let (answer, reset) = exchange(gateway.connect().await, &named(name)).await;
        assert_eq!((answer.as_slice(), reset), (&alert[..], false));
        assert_eq!(gateway.ended().await["reason"], reason);
    }
    assert!(gateway.has_no_more_records());
}

#[tokio::test]
async fn a_terminated_name_without_a_certificate_is_refused_as_unrecognized() {
    let authority = Authority::new();
    authority.issue_files("other", &["other.example.test"]);
    let upstream = Upstream::echo().await;
    let tables = format!(
        "certificates = [{{ chain = \"other.pem\", key = \"other.key\" }}]\n\
         [routes.any]\nrule = 'HostSNI(`*`)'\nupstream = \"{}\"\n",
        upstream.address
    );
    let mut gateway = Gateway::start(&authority, &tables).await;
    for name in ["bare.example.test", "127.0.0.1", "a.other.example.test"] {
        let bytes = framed(&hello::named(name), &[]);
        let (answer, reset) = exchange(gateway.connect().await, &bytes).await;
        assert_eq!((answer.as_slice(), reset), (&UNRECOGNIZED_NAME[..], false));
        let record = gateway.ended().await;
        assert_eq!(record["reason"], "no_certificate", "{record}");
        assert_eq!(
            (&record["fault"], &record["route"]),
            (&"gateway".into(), &"any".into())
        );
    }
}

/// CVE-2022-46153 of Traefik: a route whose options were broken was served with empty ones.
#[tokio::test]
async fn a_route_whose_option_set_is_broken_is_refused_and_never_served_with_another() {
    let authority = Authority::new();
    authority.issue_files("edge", &["broken.example.test", "whole.example.test"]);
    let ca = std::fs::read_to_string(authority.folder().join("ca.pem")).unwrap();
    let file = authority.write("clients.pem", &ca);
    let upstream = Upstream::echo().await;
    let tables = format!(
        r#"
        certificates = [{{ chain = "edge.pem", key = "edge.key" }}]
        [tls.options.mutual]
        client_auth = "required"
        client_ca = ["clients.pem"]
        [routes.broken]
        host = "broken.example.test"
        tls_options = "mutual"
        upstream = "{0}"
        [routes.wide]
        host = "*.example.test"
        upstream = "{0}"
        "#,
        upstream.address
    );
    let config = Gateway::load(&authority, &tables);
    // Between its check and its use.
    std::fs::remove_file(file).unwrap();
    let mut gateway = Gateway::serve(config).await;
    for name in ["broken.example.test", "BROKEN.example.test."] {
        let bytes = framed(&hello::named(name), &[]);
        let (answer, reset) = exchange(gateway.connect().await, &bytes).await;
        assert_eq!((answer.as_slice(), reset), (&INTERNAL_ERROR[..], false));
        let record = gateway.ended().await;
        assert_eq!(record["reason"], "route_broken", "{record}");
        assert_eq!(
            (&record["fault"], &record["route"]),
            (&"gateway".into(), &"broken".into())
        );
    }
    let mut tcp = gateway.connect().await;
    tcp.write_all(&framed(&hello::named("whole.example.test"), &[]))
        .await
        .unwrap();
    tcp.shutdown().await.unwrap();
    assert_eq!(answer(&mut tcp).await.0[..3], [HANDSHAKE, 3, 3]);
    assert_eq!(gateway.ended().await["route"], "wide");
}

/// CVE-2023-25076 of sniproxy: the name became the address that was dialled.
#[tokio::test]
async fn a_name_is_never_dialled() {
    let authority = Authority::new();
    let mine = Upstream::greeter("mine").await;
    let other = Upstream::greeter("other").await;
    let tables = format!(
        "[routes.any]\nrule = 'HostSNI(`*`)'\npassthrough = true\nupstream = \"{}\"\n",
        mine.address
    );
    let mut gateway = Gateway::start(&authority, &tables).await;
    assert_eq!(other.address.ip(), IpAddr::from([127, 0, 0, 1]));
    for name in ["localhost", "127.0.0.1", "nobody.invalid"] {
        let mut tcp = gateway.connect().await;
        tcp.write_all(&framed(&hello::named(name), &[]))
            .await
            .unwrap();
        tcp.shutdown().await.unwrap();
        let mut said = Vec::new();
        tcp.read_to_end(&mut said).await.unwrap();
        assert_eq!(said, b"mine");
        let endpoint = gateway.ended().await["endpoint"].as_str().unwrap().parse();
        assert_eq!(endpoint, Ok::<SocketAddr, _>(mine.address));
    }
}
