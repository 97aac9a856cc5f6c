//! What a scrape shows, and that it is the text it should be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::config::ListenAddress;

/// A registry in which every family has at least one sample.
fn full() -> Arc<Metrics> {
    let metrics = Metrics::new();
    let listener = ListenAddress::Tcp("[::]:8443".parse().unwrap());
    metrics.accepted(&listener).inc();
    metrics.accept_failed(&io::Error::from_raw_os_error(24));
    metrics.lost(&listener, 2);
    let route = metrics.route("vm");
    route.active.inc();
    route.bytes_up.inc_by(7);
    route.handshake.observe(0.02);
    metrics.ended(Some(&route), Reason::Closed);
    metrics.ended(None, Reason::NotTls);
    metrics.ended(None, Reason::NotTls);
    metrics.upstream("db").ejections.inc();
    metrics.upstream("db").checked(Checked {
        passing: 1,
        ..Checked::default()
    });
    metrics.services("consul", "partly", 2);
    metrics.shadowed(4);
    metrics.sandbox("whole");
    let used = |limit, current, max| Usage {
        limit,
        current,
        max,
    };
    metrics.used(vec![
        used(Limit::Connections, 5, Some(448)),
        used(Limit::PerRoute, 4, None),
    ]);
    metrics.published(3);
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    metrics.certificates([("edge.pem".to_owned(), end)]);
    metrics.own_certificates([("client.pem".to_owned(), end + Duration::from_secs(2))]);
    metrics.identity(Some(end + Duration::from_secs(1)));
    metrics.restored("consul", Some(end));
    metrics.restored("names", Some(end));
    metrics.restored("names", None);
    metrics.parts([("consul".into(), "degraded")].into_iter());
    metrics.state_refused("consul", true);
    metrics.state_refused("names", false);
    metrics
}

/// The sample lines of an exposition, checked line by line: each belongs to a family that was described before it.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut types = BTreeMap::new();
    let mut helps = BTreeSet::new();
    let mut samples = BTreeMap::new();
    let body = text.strip_suffix("# EOF\n").unwrap();
    for line in body.lines() {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, _] => assert!(helps.insert(name), "{name} twice"),
            ["#", "TYPE", name, kind] => {
                assert!(types.insert(name, kind).is_none(), "{name} twice")
            }
            ["#", "UNIT", name, unit] => assert!(name.ends_with(unit), "{line}"),
            _ => {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let name = series.split('{').next().unwrap();
                let suffixes = ["_total", "_info", "_bucket", "_sum", "_count", ""];
                let family = suffixes.iter().find_map(|suffix| {
                    name.strip_suffix(suffix)
                        .filter(|family| types.contains_key(family))
                });
                let family = family.unwrap_or_else(|| panic!("{line} belongs to no family"));
                assert!(helps.contains(family), "{family} has no HELP");
                assert!(
                    samples
                        .insert(series.to_owned(), value.parse().unwrap())
                        .is_none(),
                    "{line}"
                );
            }
        }
    }
    samples
}

#[test]
fn every_family_is_described_and_every_documented_metric_is_there() {
    let text = full().encode();
    let samples = samples(&text);
    let documented: Vec<&str> = include_str!("../metrics.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("/// | `")?.split('`').next())
        .collect();
    assert!(!documented.is_empty());
    for name in documented {
        assert!(
            samples.keys().any(|series| series.starts_with(name)),
            "{name} is missing in\n{text}"
        );
    }
}

#[test]
fn a_scrape_shows_what_was_counted() {
    let samples = samples(&full().encode());
    for (series, value) in [
        (
            r#"portcullis_connections_accepted_total{listener="[::]:8443"}"#,
            1.0,
        ),
        (
            r#"portcullis_connections_ended_total{route="vm",reason="closed",fault="none"}"#,
            1.0,
        ),
        (
            r#"portcullis_connections_ended_total{route="",reason="not_tls",fault="client"}"#,
            2.0,
        ),
        (r#"portcullis_connections_active{route="vm"}"#, 1.0),
        (r#"portcullis_bytes_total{route="vm",direction="up"}"#, 7.0),
        (
            r#"portcullis_bytes_total{route="vm",direction="down"}"#,
            0.0,
        ),
        (r#"portcullis_handshake_seconds_bucket{le="0.025"}"#, 1.0),
        (r#"portcullis_handshake_seconds_bucket{le="0.01"}"#, 0.0),
        ("portcullis_dial_seconds_count", 0.0),
        (
            r#"portcullis_part_state{part="consul",state="degraded"}"#,
            1.0,
        ),
        (r#"portcullis_endpoint_ejections_total{upstream="db"}"#, 1.0),
        (r#"portcullis_accept_errors_total{kind="files"}"#, 1.0),
        ("portcullis_access_log_dropped_total", 0.0),
        (
            r#"portcullis_discovery_services{source="consul",state="partly"}"#,
            2.0,
        ),
        ("portcullis_routes_shadowed", 4.0),
        (r#"portcullis_limit_current{limit="connections"}"#, 5.0),
        (r#"portcullis_limit_max{limit="connections"}"#, 448.0),
        (r#"portcullis_limit_current{limit="per_route"}"#, 4.0),
        ("portcullis_snapshot_generation", 3.0),
        (
            r#"portcullis_certificate_not_after_seconds{name="edge.pem"}"#,
            1_800_000_000.0,
        ),
        (
            r#"portcullis_own_certificate_not_after_seconds{name="client.pem"}"#,
            1_800_000_002.0,
        ),
        (
            "portcullis_mesh_identity_not_after_seconds",
            1_800_000_001.0,
        ),
    ] {
        assert_eq!(
            samples.get(series),
            Some(&value),
            "{series} in {samples:#?}"
        );
    }
}

#[test]
fn a_limit_that_is_off_has_no_series() {
    let text = full().encode();
    assert!(!text.contains(r#"limit_max{limit="per_route"}"#), "{text}");
}

#[test]
fn labels_are_configured_names_and_closed_sets_only() {
    let text = full().encode();
    let keys: BTreeSet<_> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('{')?.1.rsplit_once('}'))
        .flat_map(|(labels, _)| {
            labels
                .split(',')
                .filter_map(|label| Some(label.split_once('=')?.0))
        })
        .collect();
    let allowed = [
        "direction",
        "extent",
        "enforced",
        "fault",
        "kind",
        "outcome",
        "part",
        "le",
        "limit",
        "listener",
        "name",
        "reason",
        "route",
        "source",
        "state",
        "upstream",
        "version",
    ];
    assert_eq!(keys, BTreeSet::from(allowed));
}

#[test]
fn a_gateway_outside_of_every_mesh_tells_no_end_of_its_identity() {
    let text = Metrics::new().encode();
    assert!(!text.contains("mesh_identity_not_after_seconds"), "{text}");
}

#[test]
fn the_same_name_gives_the_same_counters() {
    let metrics = Metrics::new();
    metrics.route("a").bytes_up.inc();
    metrics.route("a").bytes_up.inc();
    assert_eq!(metrics.route("a").bytes_up.get(), 2);
}

#[test]
fn a_forgotten_route_shows_until_its_last_connection_ends() {
    let metrics = Metrics::new();
    let route = metrics.route("gone");
    metrics.route("kept");
    metrics.forget_route("gone");
    metrics.ended(Some(&route), Reason::Drained);
    assert!(
        metrics
            .encode()
            .contains(r#"{route="gone",reason="drained",fault="none"}"#)
    );
    drop(route);
    let text = metrics.encode();
    assert!(!text.contains("gone"), "{text}");
    assert!(text.contains(r#"{route="kept"}"#), "{text}");
}

#[test]
fn a_route_that_comes_back_counts_on_with_its_old_connections() {
    let metrics = Metrics::new();
    let before = metrics.route("flaps");
    before.active.inc();
    metrics.forget_route("flaps");
    assert!(Arc::ptr_eq(&before, &metrics.route("flaps")));
    assert_eq!(
        metrics
            .encode()
            .matches(r#"connections_active{route="flaps"} 1"#)
            .count(),
        1
    );
}

#[test]
fn a_name_with_quotes_and_newlines_stays_within_its_label() {
    let metrics = Metrics::new();
    metrics.route("a\"} 1\nb\\").active.inc();
    let text = metrics.encode();
    assert!(
        text.contains(r#"connections_active{route="a\"} 1\nb\\"} 1"#),
        "{text}"
    );
}

#[test]
fn a_forgotten_upstream_shows_until_nothing_dials_it() {
    let metrics = Metrics::new();
    let gone = metrics.upstream("gone");
    metrics.upstream("calm");
    metrics.forget_upstream("gone");
    gone.ejections.inc();
    let text = metrics.encode();
    assert!(
        text.contains(r#"endpoint_ejections_total{upstream="gone"} 1"#),
        "{text}"
    );
    assert!(
        !text.contains("calm"),
        "one that never failed has no series"
    );
    drop(gone);
    assert!(!metrics.encode().contains("gone"));
}

#[test]
fn a_name_from_a_source_commands_no_terminal() {
    let metrics = Metrics::new();
    let name = "web\u{1b}[31m\r@consul";
    metrics.ended(Some(&metrics.route(name)), Reason::Closed);
    let text = metrics.encode();
    assert!(!text.contains(['\u{1b}', '\r']), "{text}");
    assert!(text.contains(r"web\\u{1b}[31m\\r@consul"), "{text}");
}
