//! How the instances of services are dialled, by what their tags and the transports of the file say.

use std::time::Duration;

use super::services::{Desk, identity, in_mesh, usual};
use super::*;
use crate::config::{ProxyTlvs, ProxyVersion, SendProxy, Timing};
use crate::snapshot::service::Dialling;

const TRANSPORTS: &str = r#"
    [transports.db]
    proxy_protocol = { version = "v1" }
    dial_timeout = "2s"
    half_closed_timeout = "off"
    [transports.db.keepalive]
    idle = "7s"
    [transports.db.tls]
    server_name = "db.internal"
    [transports.slow]
    dial_timeout = "1m"
"#;

/// A desk where the TLS of that transport is made.
fn desk() -> Desk {
    let mut inputs = inputs(TRANSPORTS);
    let roots = crate::tls::test_certs::Ca::new("ca").roots();
    let made = client::from_parts(roots, None, Proof::ServerName);
    inputs
        .transport_configs
        .insert("db".to_owned(), Ok(made.unwrap()));
    Desk::new(inputs)
}

/// A service whose tags ask for this.
fn asking(dialling: Result<Dialling, Arc<str>>) -> Service {
    let mut web = usual("web", "10.0.1.1:80");
    web.upstreams[0].dialling = dialling;
    web
}

fn named(transport: &str, tls: bool) -> Dialling {
    Dialling {
        tls,
        transport: Some(transport.into()),
        ..Dialling::default()
    }
}

fn broken(upstream: &Upstream) -> String {
    match &upstream.transport {
        Transport::Broken(why) => why.to_string(),
        other => panic!("{other:?}"),
    }
}

fn warnings(desk: &Desk) -> Vec<String> {
    let route = route(&desk.snapshot, "web.test").unwrap();
    route.warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn a_transport_of_the_file_says_how_a_service_is_dialled() {
    let mut desk = desk();
    desk.learn([asking(Ok(named("db", true)))]);
    let web = desk.upstream("web@consul");
    let Transport::Tls(tls) = &web.transport else {
        panic!("{web:?}");
    };
    assert_eq!(tls.server_name.to_str(), "db.internal");
    let send = SendProxy {
        version: ProxyVersion::V1,
        inside_tls: false,
    };
    assert_eq!(web.send_proxy, Some(send));
    let keepalive = web.timing.keepalive.unwrap();
    assert_eq!(keepalive.idle, Duration::from_secs(7));
    assert_eq!(
        keepalive.count, 6,
        "what is not written is as in the limits"
    );
    assert_eq!(web.timing.dial, Some(Duration::from_secs(2)));
    assert_eq!(web.timing.half_closed, Some(Timing::ENDLESS));
    assert!(warnings(&desk).is_empty());

    // It changes with the configuration.
    let transports = &mut desk.inputs.config.transports;
    transports.get_mut("db").unwrap().timing.dial = None;
    desk.compile();
    assert_eq!(desk.upstream("web@consul").timing.dial, None);
}

#[test]
fn what_a_service_needs_and_does_not_get_takes_it_down() {
    let mut desk = desk();
    for (dialling, why) in [
        (Ok(named("gone", false)), "add a [transports.gone] section"),
        (Ok(named("gone", true)), "add a [transports.gone] section"),
        (Ok(named("slow", true)), "add [transports.slow.tls]"),
        (Err("it is wrong".into()), "it is wrong"),
    ] {
        desk.learn([asking(dialling)]);
        let reason = broken(&desk.upstream("web@consul"));
        assert!(reason.contains(why), "{reason}");
        let route = route(&desk.snapshot, "web.test").unwrap();
        assert!(desk.snapshot.way(route).unwrap_err().contains(why));
    }
    desk.inputs.transport_configs.clear();
    desk.learn([asking(Ok(named("db", true)))]);
    broken(&desk.upstream("web@consul"));
    // The mesh is no way around it.
    desk.inputs.identity = Some(identity());
    let mut web = asking(Ok(named("gone", false)));
    web.upstreams[0].mesh = in_mesh("web");
    desk.learn([web]);
    broken(&desk.upstream("web@consul"));
}

#[test]
fn tls_of_a_transport_that_has_no_effect_is_told_of() {
    let mut desk = desk();
    desk.learn([asking(Ok(named("db", false)))]);
    assert_eq!(desk.upstream("web@consul").transport, Transport::Plain);
    assert!(warnings(&desk)[0].contains("do not ask for it"));

    desk.inputs.identity = Some(identity());
    let mut web = asking(Ok(named("db", false)));
    web.upstreams[0].mesh = in_mesh("web");
    desk.learn([web]);
    let upstream = desk.upstream("web@consul");
    assert!(upstream.is_mesh());
    assert!(upstream.send_proxy.unwrap().inside_tls);
    assert_eq!(upstream.timing.dial, Some(Duration::from_secs(2)));
    assert!(warnings(&desk)[0].contains("the mesh brings its own"));
}

#[test]
fn tags_ask_for_a_header_and_a_delay_of_their_own() {
    let mut desk = desk();
    let version = ProxyVersion::V2(ProxyTlvs::default());
    desk.learn([asking(Ok(Dialling {
        send_proxy: Some(version),
        half_closed: Some(Duration::from_millis(250)),
        ..Dialling::default()
    }))]);
    let web = desk.upstream("web@consul");
    assert_eq!(web.send_proxy.unwrap().version, version);
    assert_eq!(web.timing.half_closed, Some(Duration::from_millis(250)));
}
