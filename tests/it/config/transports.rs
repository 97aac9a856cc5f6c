//! The transports: what they mean, and what they must not say.

use std::time::Duration;

use portcullis::config::{Level, ProxyVersion, Timing};

use super::{expect, good};

#[test]
fn a_transport_says_how_upstreams_are_dialled_and_an_upstream_may_name_it() {
    let config = good(
        "[limits.keepalive]\ncount = 3\n\
         [transports.db]\nproxy_protocol = \"v1\"\ndial_timeout = \"250ms\"\nhalf_closed_timeout = \"off\"\n\
         tls = { server_name = \"db.internal\", roots = [\"internal-ca.pem\"] }\nkeepalive = { idle = \"7s\" }\n\
         [transports.plain]\nproxy_protocol = { version = \"v2\", inside_tls = true }\n\
         [upstreams.db]\naddress = \"10.0.0.1:1\"\ntransport = \"db\"\n\
         [upstreams.web]\nservice = \"web\"\ntransport = \"plain\"\n\
         [consul]\nmesh_identity = \"portcullis\"\n",
    )
    .config;
    let (db, through) = (&config.upstreams["db"], &config.transports["db"]);
    assert_eq!(db.tls, through.tls);
    assert_eq!(db.tls.as_ref().unwrap().server_name.to_str(), "db.internal");
    assert_eq!(db.send_proxy.unwrap().version, ProxyVersion::V1);
    assert_eq!(db.timing, through.timing);
    assert_eq!(db.timing.dial, Some(Duration::from_millis(250)));
    assert_eq!(db.timing.half_closed, Some(Timing::ENDLESS));
    let keepalive = db.timing.keepalive.unwrap();
    assert_eq!((keepalive.idle.as_secs(), keepalive.count), (7, 3));
    let web = &config.upstreams["web"];
    assert!(web.tls.is_none() && web.send_proxy.unwrap().inside_tls);
    assert_eq!(web.timing, Timing::default());
}

#[test]
fn a_transport_that_cannot_serve_is_refused() {
    expect(
        Level::Error,
        &[
            (
                "[transports.a]\ntls = «true»",
                "transports.a.tls.server_name",
                "add `server_name",
            ),
            (
                "[transports.a]\ndial_timeout = «\"0s\"»",
                "transports.a.dial_timeout",
                "100ms to 10m",
            ),
            (
                "[transports.a]\nhalf_closed_timeout = «\"never\"»",
                "transports.a.half_closed_timeout",
                "\"off\"",
            ),
            (
                "[transports.a]\nkeepalive = { count = «0» }",
                "transports.a.keepalive.count",
                "1 to 127",
            ),
            (
                "[transports.a]\n«termination_delay» = \"1s\"",
                "termination_delay",
                "known here: tls, proxy_protocol, dial_timeout",
            ),
            (
                "[transports.db]\n[upstreams.a]\naddress = \"a:1\"\ntransport = «\"db@file\"»",
                "upstreams.a.transport",
                "did you mean \"db\"",
            ),
            (
                "[transports.db]\n[upstreams.a]\naddress = \"a:1\"\ntls = true\ntransport = «\"db\"»",
                "upstreams.a.transport",
                "keep the transport",
            ),
            (
                "[transports.db]\ntls = { server_name = \"a\" }\n[consul]\n[upstreams.a]\nservice = \"a\"\ntransport = «\"db\"»",
                "upstreams.a.transport",
                "without `tls`",
            ),
        ],
    );
}
