//! What tags say of checks, and what a mistake in one does.

use std::time::Duration;

use super::*;

/// How a service with these tags under its `loadbalancer` is to be checked.
fn checked(tags: &[&str]) -> Option<HealthCheck> {
    let tags: Vec<String> = tags
        .iter()
        .map(|tag| format!("traefik.tcp.services.s.loadbalancer.{tag}"))
        .collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    read(&tags).services["s"].check.clone()
}

#[test]
fn a_check_has_the_defaults_of_traefik_and_what_is_written() {
    let default = HealthCheck::default();
    let seconds = Duration::from_secs;
    assert_eq!(checked(&["healthcheck=true"]), Some(default.clone()));
    assert_eq!(checked(&["healthcheck="]), Some(default.clone()));
    assert_eq!(checked(&["server.port=1"]), None);
    for off in ["healthcheck=false", "healthcheck=yes", "healthcheck=1"] {
        assert_eq!(checked(&[off, "healthcheck.send=x"]), None, "{off}");
    }
    let all = checked(&[
        "HealthCheck.Port=8080",
        "healthcheck.send=PING\r\n",
        "healthcheck.expect=PONG",
        "healthcheck.interval=10",
        "healthcheck.unhealthyInterval=1m30s",
        "healthcheck.timeout=1.5s",
    ]);
    let expected = HealthCheck {
        port: Some(8080),
        send: (*b"PING\r\n").into(),
        expect: (*b"PONG").into(),
        interval: seconds(10),
        unhealthy_interval: seconds(90),
        timeout: Duration::from_millis(1500),
    };
    assert_eq!(all, Some(expected));
    // What fails is asked as often, unless it is said.
    let often = checked(&["healthcheck.interval=2s", "healthcheck.unhealthyinterval="]);
    assert_eq!(often.unwrap().unhealthy_interval, seconds(2));
    for (tag, interval) in [
        ("healthcheck.interval=0", seconds(30)),
        ("healthcheck.interval=-5s", seconds(30)),
        ("healthcheck.interval=", seconds(30)),
        ("healthcheck.interval=1ns", seconds(1)),
        ("healthcheck.interval=+1h30m", seconds(3600)),
        ("healthcheck.port=0", seconds(30)),
    ] {
        let check = checked(&[tag]).unwrap();
        assert_eq!((check.interval, check.port), (interval, None), "{tag}");
    }
}

#[test]
fn a_check_that_cannot_be_read_takes_the_instance_out() {
    let long = format!(
        "healthcheck.expect={}",
        "a".repeat(HealthCheck::LONGEST + 1)
    );
    for wrong in [
        "healthcheck.interval=soon",
        "healthcheck.interval=1.2.3s",
        "healthcheck.interval=5x",
        "healthcheck.interval=.",
        "healthcheck.interval=-",
        "healthcheck.interval=99999999999999999999",
        "healthcheck.timeout=99999999999999999999h",
        "healthcheck.port=65536",
        "healthcheck.port=http",
        "healthcheck.path=/ping",
        "healthcheck.port.number=1",
        &long,
    ] {
        let tag = format!("traefik.tcp.services.s.loadbalancer.{wrong}");
        let error = decode(&[tag.as_str().into()], &Terms::default()).unwrap_err();
        assert!(error.tag.contains("healthcheck."), "{error}");
    }
}
