//! Any spelling of a name, in any frame: the route, the policy and the certificate are those of the plain name.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::gateway::answer;
use crate::hello_bytes::{self as hello, UNRECOGNIZED_NAME, framed};
use crate::scene::Scene;

/// A server's request for a client certificate (RFC 5246 §7.4.4).
const CERTIFICATE_REQUEST: u8 = 13;

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
