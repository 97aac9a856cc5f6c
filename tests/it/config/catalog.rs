//! The options of `[consul]` about what of the catalog is exposed, and those of Traefik that are called otherwise.

use std::time::Duration;

use portcullis::config::{Catalog, CheckState, Consistency, Consul, Level, Tagging};

use super::consul::consul;
use super::{expect, folder, parse};

#[test]
fn every_option_is_read_and_has_traefiks_default() {
    let default = consul("[consul]\n", &[]);
    assert_eq!(default.catalog, Catalog::default());
    assert_eq!(default.tagging, Tagging::default());
    let text = r#"
        [consul]
        mesh_identity = "portcullis"
        exposed_by_default = false
        connect_by_default = true
        constraints = "Tag(`edge`) && !TagRegex(`^inner`)"
        default_rule = "HostSNI(`{{ normalize .Name }}.example.com`)"
        strict_checks = ["Passing", "CRITICAL"]
        prefix = "edge"
        consistency = "stale"
        refresh_interval = "15s"
    "#;
    let Consul {
        catalog, tagging, ..
    } = consul(text, &[]);
    assert!(!tagging.exposed_by_default && catalog.connect_by_default);
    let constraints = tagging.constraints.unwrap();
    assert_eq!(constraints.text(), "Tag(`edge`) && !TagRegex(`^inner`)");
    let rule = tagging.default_rule.unwrap();
    assert_eq!(rule.text(), "HostSNI(`{{ normalize .Name }}.example.com`)");
    let states = [CheckState::Passing, CheckState::Critical];
    assert_eq!(catalog.strict_checks, states.into());
    assert_eq!(tagging.prefix, "edge");
    assert_eq!(catalog.consistency, Consistency::Stale);
    assert_eq!(catalog.refresh_interval, Duration::from_secs(15));

    let any = consul("[consul]\nstrict_checks = [\"any\"]\n", &[]).catalog;
    assert_eq!(any.strict_checks.len(), 4);
    let consistent = consul("[consul]\nconsistency = \"consistent\"\n", &[]).catalog;
    assert_eq!(consistent.consistency, Consistency::Consistent);
}

#[test]
fn a_mistake_in_an_option_is_told_with_its_place_and_its_remedy() {
    expect(
        Level::Error,
        &[
            (
                "[consul]\nconnect_by_default = «true»\n",
                "consul.connect_by_default",
                "write `mesh_identity`",
            ),
            (
                "[consul]\nconstraints = \"Tag(`a`) «and» Tag(`b`)\"\n",
                "consul.constraints",
                "joined with `&&`",
            ),
            (
                "[consul]\nconstraints = \"Tag(`a`) && «Label»(`b`)\"\n",
                "consul.constraints",
                "Tag(`edge`)",
            ),
            (
                "[consul]\nexposed_by_default = false\ndefault_rule = \"HostSNI(`{{ «upper» .Name }}`)\"\n",
                "consul.default_rule",
                "normalize",
            ),
            (
                "[consul]\nexposed_by_default = false\ndefault_rule = «\"Host(`{{ normalize .Name }}`)\"»\n",
                "consul.default_rule",
                "HostSNI",
            ),
            (
                "[consul]\nstrict_checks = «[]»\n",
                "consul.strict_checks",
                "[\"any\"]",
            ),
            (
                "[consul]\nstrict_checks = [\"passing\", «\"warn\"»]\n",
                "consul.strict_checks[1]",
                "passing, warning, critical, maintenance, any",
            ),
            (
                "[consul]\nprefix = «\"traefik.\"»\n",
                "consul.prefix",
                "such as \"traefik\"",
            ),
            (
                "[consul]\nprefix = «\"\"»\n",
                "consul.prefix",
                "such as \"traefik\"",
            ),
            (
                "[consul]\nconsistency = «\"stael\"»\n",
                "consul.consistency",
                "did you mean \"stale\"?",
            ),
            (
                "[consul]\nrefresh_interval = «15»\n",
                "consul.refresh_interval",
                "write \"15s\"",
            ),
            (
                "[consul]\nrefresh_interval = «\"10ms\"»\n",
                "consul.refresh_interval",
                "1s to 1d",
            ),
        ],
    );
}

#[test]
fn a_default_rule_for_everybody_is_warned_of() {
    expect(
        Level::Warning,
        &[(
            "[consul]\ndefault_rule = «\"HostSNI(`{{ .Name }}.example.com`)\"»\n",
            "consul.default_rule",
            "write `exposed_by_default = false`",
        )],
    );
    for meant in [
        "exposed_by_default = true",
        "exposed_by_default = false",
        "constraints = \"Tag(`edge`)\"",
    ] {
        consul(
            &format!(
                "[consul]\n{meant}\ndefault_rule = \"HostSNI(`{{{{ .Name }}}}.example.com`)\"\n"
            ),
            &[],
        );
    }
}

#[test]
fn what_consul_knows_beside_services_is_refused_by_name() {
    expect(
        Level::Error,
        &[
            (
                "[consul]\n[upstreams.a]\n«prepared_query» = \"geo\"\n",
                "prepared_query",
                "not supported: prepared queries",
            ),
            (
                "[consul]\n[upstreams.a]\nservice = «\"geo.query.consul\"»\n",
                "upstreams.a.service",
                "not supported: prepared queries",
            ),
            (
                "[consul]\n[upstreams.a]\nservice = \"web\"\n«peer» = \"east\"\n",
                "peer",
                "not supported: services that a peer exports",
            ),
            (
                "[consul]\n[upstreams.a]\nservice = \"web\"\n«subset» = \"v2\"\n",
                "subset",
                "not supported: subsets",
            ),
            (
                "[consul]\n[upstreams.a]\nservice = \"web\"\n«failover» = [\"dc2\"]\n",
                "failover",
                "`weighted`",
            ),
            (
                "[consul]\n[upstreams.a]\nservice = \"web\"\n«redirect» = \"api\"\n",
                "redirect",
                "not supported: redirects",
            ),
            (
                "[consul]\n[upstreams.a]\nservice = \"web\"\n«meshGateway» = \"local\"\n",
                "meshGateway",
                "not supported: mesh gateways",
            ),
            (
                "[consul]\n[upstreams.a]\nservice = \"web\"\n«partition» = \"west\"\n",
                "partition",
                "in [consul]",
            ),
            (
                "[consul]\n«peer» = \"east\"\n",
                "peer",
                "not supported: services that a peer exports",
            ),
        ],
    );
}

#[test]
fn an_option_by_traefiks_name_is_told_by_ours() {
    expect(
        Level::Error,
        &[
            (
                "[consul]\n«connectAware» = true\n",
                "connectAware",
                "`mesh_identity`",
            ),
            (
                "[consul]\n«serviceName» = \"edge\"\n",
                "serviceName",
                "`mesh_identity`",
            ),
            (
                "[consul]\n«service_name» = \"edge\"\n",
                "service_name",
                "`mesh_identity`",
            ),
            (
                "[consul]\n«requireConsistent» = true\n",
                "requireConsistent",
                "consistency = \"consistent\"",
            ),
            (
                "[consul]\n«stale» = true\n",
                "stale",
                "consistency = \"stale\"",
            ),
            ("[consul]\n«cache» = true\n", "cache", "leave it out"),
            ("[consul]\n«watch» = true\n", "watch", "leave it out"),
            (
                "[consul]\n«endpoint».address = \"127.0.0.1:8500\"\n",
                "endpoint",
                "`address`",
            ),
            (
                "[consul]\n«exposedByDefault» = false\n",
                "exposedByDefault",
                "did you mean `exposed_by_default`?",
            ),
        ],
    );
    // Each is told once, and no word of it is said to be known.
    let text = "[consul]\nwatch = true\nnonsense = 1\n";
    let list = parse(&folder(), text).unwrap_err().list;
    assert_eq!(list.len(), 2);
    assert!(!list.iter().any(|one| {
        one.help
            .as_ref()
            .is_some_and(|help| help.contains("watch,"))
    }));
}
