//! The rules of tags: their syntax, those that take everybody, and what they ask of ACME.

use super::*;
use crate::rule::Syntax;

/// The service of one instance with this rule beside other tags, where tags may make defaults or not.
fn ruled(rule: &str, tags: &[&str], allow_default_from_tags: bool) -> Service {
    let rule = format!("portcullis.tcp.routers.web.rule={rule}");
    let tags = [SSH, &[&*rule], tags].concat();
    let exposure = Exposure {
        allow_default_from_tags,
        ..exposure()
    };
    service(&web(vec![instance("a", &tags)]), &exposure)
}

#[test]
fn a_default_route_is_made_where_tags_may() {
    for (rule, whom) in [
        ("HostSNI(`*`)", "that name no host"),
        ("!HostSNI(`a`)", "that name no host"),
        ("HostSNIRegexp(`.*`)", "that name no host"),
        ("HostSNIRegexp(`.+`)", "whatever host they name"),
        (
            "HostSNIRegexp(`^[a-z.-]+$`) && ALPN(`ssh`)",
            "whatever host they name",
        ),
        (
            "HostSNI(`a.b`) || HostSNIRegexp(`^[^.]+\\.[^.]+\\.[^.]+$`)",
            "whatever host they name",
        ),
    ] {
        assert_eq!(
            &*route(&ruled(rule, &[], true)).name,
            "web@consul",
            "{rule}"
        );
        assert_eq!(
            skipped(&ruled(rule, &[], false)),
            [format!(
                "- web: its rule takes clients {whom}: from tags that needs `allow_default_from_tags = true` in [consul]"
            )],
            "{rule}"
        );
    }
    for rule in [
        "HostSNIRegexp(`^[a-z-]+\\.example\\.com$`)",
        "HostSNIRegexp(`^vm-[0-9]+\\.`)",
        "HostSNIRegexp(`.+`) && HostSNI(`*.example.com`)",
    ] {
        route(&ruled(rule, &[], false));
    }
}

#[test]
fn a_rule_is_read_in_the_syntax_of_its_router_or_else_in_the_default_one() {
    let v2 = "HostSNI(`a.b`, `c.d`) || HostSNIRegexp(`{vm:[a-z]+}.e.f`)";
    for (tag, default, taken) in [
        (None, Syntax::V3, false),
        (None, Syntax::V2, true),
        (Some("v2"), Syntax::V3, true),
        (Some("v3"), Syntax::V2, false),
        (Some("default"), Syntax::V2, false),
        (Some(""), Syntax::V2, true),
    ] {
        let rule = format!("portcullis.tcp.routers.web.rule={v2}");
        let syntax = tag.map(|tag| format!("traefik.tcp.routers.web.rulesyntax={tag}"));
        let mut tags = with(SSH, &[&rule]);
        tags.extend(syntax.as_deref());
        let exposure = Exposure {
            default_rule_syntax: default,
            ..exposure()
        };
        let made = service(&web(vec![instance("a", &tags)]), &exposure);
        if taken {
            let route = route(&made);
            assert_eq!(route.rule.text(), v2, "as it was written");
            assert_eq!(route.rule.syntax(), Syntax::V2);
            assert_eq!(
                (route.priority, route.rule.priority()),
                (None, v2.len() as i64)
            );
        } else {
            assert!(skipped(&made)[0].starts_with("- web: its rule: `HostSNI` takes one argument"));
        }
    }
}

#[test]
fn another_syntax_alone_makes_another_route() {
    let rule = "HostSNIRegexp(`a.b`)";
    let [v2, v3] = ["v2", "v3"].map(|syntax| {
        let syntax = format!("traefik.tcp.routers.web.rulesyntax={syntax}");
        ruled(rule, &[&syntax], false)
    });
    assert_ne!(v2, v3);
    assert_eq!(v2.routes[0].rule.text(), v3.routes[0].rule.text());
}

#[test]
fn what_is_asked_of_acme_is_one_warning_of_a_route_that_serves() {
    let service = ruled(
        "HostSNI(`a.b`)",
        &[
            "traefik.tcp.routers.web.tls.certresolver=le",
            "traefik.tcp.routers.web.tls.domains[0].main=a.b",
            "traefik.tcp.routers.web.tls.domains[0].sans=c.b,d.b",
            "traefik.tcp.routers.web.tls.domains[1].main=e.b",
        ],
        false,
    );
    let warnings: Vec<&str> = route(&service)
        .warnings
        .iter()
        .map(|text| &**text)
        .collect();
    let acme: Vec<_> = warnings
        .iter()
        .filter(|text| text.contains("certresolver"))
        .collect();
    assert_eq!(
        acme,
        [
            &"`tls.certresolver` and `tls.domains` are not supported yet: it serves with the certificates that the gateway is given"
        ]
    );
    assert_eq!(
        warnings
            .iter()
            .filter(|text| text.contains("domains"))
            .count(),
        1
    );
    assert_eq!(skipped(&service), [""; 0]);
}
