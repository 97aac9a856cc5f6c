//! `[upstreams.NAME.health_check]`: what it means, and what is said of one that is broken.

use std::time::Duration;

use portcullis::config::{HealthCheck, Level};

use super::{expect, good};

/// An upstream with these keys in its `health_check`.
fn text(keys: &str) -> String {
    format!("[upstreams.a]\naddress = \"10.0.0.5:22\"\n[upstreams.a.health_check]\n{keys}\n")
}

#[test]
fn what_is_not_written_is_as_in_traefik() {
    let check = |text: &str| good(text).config.upstreams["a"].health_check.clone();
    let written = |value: &str| {
        check(&format!(
            "[upstreams.a]\naddress = \"10.0.0.5:22\"\nhealth_check = {value}\n"
        ))
    };
    assert_eq!(written("true"), Some(HealthCheck::default()));
    assert_eq!(written("false"), None);
    assert_eq!(check(&text("")), Some(HealthCheck::default()));
    let often = check(&text("interval = \"1s\"")).unwrap();
    assert_eq!(often.unhealthy_interval, Duration::from_secs(1));
    let seldom = check(&text("interval = \"1s\"\nunhealthy_interval = \"1h\"")).unwrap();
    assert_eq!(seldom.unhealthy_interval, Duration::from_secs(3600));
}

#[test]
fn each_mistake_has_its_place_and_its_remedy() {
    let own = "listen = [\"10.0.0.5:8443\"]\n".to_owned();
    let mesh = "[consul]\nmesh_identity = \"portcullis\"\n[upstreams.a]\nservice = \"web\"\n[upstreams.a.health_check]\nport = «8080»\n";
    let long = format!("send = «\"{}\"»", "a".repeat(HealthCheck::LONGEST + 1));
    let cases = [
        (text("interval = «\"10ms\"»"), "interval", "100ms to 1h"),
        (
            text("unhealthy_interval = «\"2h\"»"),
            "unhealthy_interval",
            "100ms to 1h",
        ),
        (text("timeout = «\"2m\"»"), "timeout", "10ms to 1m"),
        (text("port = «0»"), "port", "1 to 65535"),
        (text("port = «70000»"), "port", "1 to 65535"),
        (text(&long), "send", "at most 65535"),
        (own + &text("port = «8443»"), "port", "the service itself"),
        (mesh.to_owned(), "port", "remove it"),
        (
            "[upstreams.a]\naddress = \"10.0.0.5:22\"\nhealth_check = «\"yes\"»\n".to_owned(),
            "",
            "true, false or a table",
        ),
    ];
    for (marked, key, remedy) in cases {
        let key = match key {
            "" => "upstreams.a.health_check".to_owned(),
            key => format!("upstreams.a.health_check.{key}"),
        };
        expect(Level::Error, &[(&marked, &key, remedy)]);
    }
}
