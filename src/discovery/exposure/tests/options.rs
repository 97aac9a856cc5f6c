//! What the operator's options change: who counts, in which state, by which tags, and under which rule.

use super::*;
use crate::snapshot::service::Standing;

/// The service of these instances, under what a test changes.
fn under(instances: Vec<Instance>, change: impl FnOnce(&mut Exposure)) -> Service {
    let mut exposure = exposure();
    change(&mut exposure);
    service(&web(instances), &exposure)
}

fn only(text: &str) -> Option<Constraint> {
    Some(Constraint::parse(text).unwrap())
}

fn rule(text: &str) -> Option<Template> {
    Some(Template::parse(text).unwrap())
}

fn notes(service: &Service) -> Vec<&str> {
    service.notes.iter().map(|note| &**note).collect()
}

#[test]
fn an_instance_that_does_not_say_counts_by_default_or_not() {
    let instances = || {
        vec![
            instance("a", SSH),
            instance("b", &with(SSH, &["traefik.enable=true"])),
        ]
    };
    let both = under(instances(), |_| ());
    assert_eq!(addresses(&both, "web@consul").len(), 2);
    let one = under(instances(), |exposure| {
        exposure.terms.exposed_by_default = false
    });
    route(&one);
    assert_eq!(addresses(&one, "web@consul"), ["10.0.0.98:22"]);
    let none = under(vec![instance("a", SSH)], |exposure| {
        exposure.terms.exposed_by_default = false
    });
    assert!(none.routes.is_empty() && none.upstreams.is_empty());
    assert_eq!(none.standing(), Standing::Unrouted);
}

#[test]
fn an_upstream_of_the_file_needs_no_tag_to_be_exposed() {
    let made = under(
        vec![instance("a", &[]), instance("b", &["traefik.enable=no"])],
        |exposure| {
            exposure.terms.exposed_by_default = false;
            let wanted = Wanted {
                upstream: "bastion".into(),
                mesh: false,
            };
            exposure.wanted = [("web".to_owned(), vec![wanted])].into();
        },
    );
    // A value that is no boolean is a mistake, and the file does not depend on tags.
    assert_eq!(addresses(&made, "bastion").len(), 2);
}

#[test]
fn who_does_not_say_goes_through_the_mesh_by_default_or_not() {
    let found = |tags: &[&str]| Found {
        sidecars: Some(vec![sidecar("a")]),
        ..web(vec![instance("a", tags)])
    };
    let by_default = Exposure {
        terms: Terms {
            connect_by_default: true,
            ..Terms::default()
        },
        ..exposure()
    };
    let made = service(&found(SSH), &by_default);
    assert!(route(&made).mesh);
    assert_eq!(addresses(&made, "web@consul"), ["10.0.1.97:21000"]);
    let plain = with(SSH, &["traefik.consulcatalog.connect=false"]);
    assert!(!route(&service(&found(&plain), &by_default)).mesh);
    // Nothing is dialled plain in place of a sidecar that is missing.
    let bare = Found {
        sidecars: Some(Vec::new()),
        ..found(SSH)
    };
    assert!(broken(&service(&bare, &by_default)).contains("it has no sidecar there"));
    // One whose tags cannot be read asks for it all the same.
    let odd = with(SSH, &["traefik.tcp.nonsense=1"]);
    assert!(service(&found(&odd), &by_default).routes[0].mesh);
}

#[test]
fn an_instance_that_the_constraints_leave_out_is_not_there() {
    let other = with(
        &["traefik.tcp.routers.other.rule=HostSNI(`other.test`)"],
        &[],
    );
    let instances = || vec![instance("a", &with(SSH, &["edge"])), instance("b", &other)];
    let made = under(instances(), |exposure| {
        exposure.constraints = only("Tag(`edge`)")
    });
    assert_eq!(made.routes.len(), 1, "{made:#?}");
    assert!(made.skipped.is_empty(), "{made:#?}");
    assert_eq!(addresses(&made, "web@consul"), ["10.0.0.97:22"]);
    assert!(notes(&made)[0].starts_with("1 more of its instances do not match"));
    assert_eq!(made.standing(), Standing::Routed);
    let none = under(instances(), |exposure| {
        exposure.constraints = only("Tag(`x`)")
    });
    assert!(none.routes.is_empty() && none.skipped.is_empty() && none.notes.is_empty());
    let all = under(instances(), |exposure| {
        exposure.constraints = only("!Tag(`x`)")
    });
    assert_eq!(addresses(&all, "web@consul").len(), 2);
}

#[test]
fn a_sidecar_goes_with_its_instance_and_a_gateway_stays_with_the_others() {
    let tags = with(SSH, &[CONNECT, "edge"]);
    let gateway = Instance {
        beside: None,
        ..sidecar("g")
    };
    let found = Found {
        sidecars: Some(vec![sidecar("a"), sidecar("b"), gateway]),
        ..web(vec![instance("a", &tags), instance("b", SSH)])
    };
    let constrained = |text: &str| {
        let exposure = Exposure {
            constraints: only(text),
            ..exposure()
        };
        service(&found, &exposure)
    };
    assert_eq!(
        addresses(&constrained("Tag(`edge`)"), "web@consul"),
        ["10.0.1.97:21000", "10.0.1.103:21000"]
    );
    assert!(constrained("Tag(`x`)").upstreams.is_empty());
}

#[test]
fn what_cannot_be_used_of_an_instance_that_is_left_out_is_not_told() {
    let found = Found {
        unusable: vec![("node/b".into(), "it has no port".into())],
        ..web(vec![instance("a", SSH), instance("b", &["inner"])])
    };
    let exposure = Exposure {
        constraints: only("!Tag(`inner`)"),
        ..exposure()
    };
    assert!(service(&found, &exposure).skipped.is_empty());
    assert_eq!(skipped(&service(&found, &super::exposure())).len(), 1);
}

#[test]
fn a_service_without_a_router_has_the_default_rule_and_ends_tls() {
    let template = "HostSNI(`{{ normalize .Name | lower }}.{{ index .Labels \"traefik.zone\" }}`)";
    let made = under(vec![instance("a", &["traefik.zone=a.test"])], |exposure| {
        exposure.default_rule = rule(template)
    });
    let found = route(&made);
    assert_eq!(found.rule.text(), "HostSNI(`web.a.test`)");
    assert_eq!(
        (&*found.name, &found.tls),
        ("web@consul", &ServiceTls::Terminate(None))
    );
    assert_eq!(addresses(&made, "web@consul"), ["10.0.0.97:22"]);
    // A router of its own is all it has.
    let made = under(vec![instance("a", SSH)], |exposure| {
        exposure.default_rule = rule("HostSNI(`x.test`)")
    });
    assert_eq!(route(&made).rule.text(), "HostSNI(`web.test`)");
    let made = under(vec![instance("a", SSH), instance("b", &[])], |exposure| {
        exposure.default_rule = rule("HostSNI(`x.test`)")
    });
    assert_eq!(route(&made).rule.text(), "HostSNI(`web.test`)");
    // And whoever is not exposed has none.
    let made = under(vec![instance("a", &["traefik.enable=false"])], |exposure| {
        exposure.default_rule = rule("HostSNI(`x.test`)")
    });
    assert!(
        made.routes.is_empty() && made.upstreams.is_empty(),
        "{made:#?}"
    );
}

#[test]
fn what_the_default_rule_makes_is_judged_like_the_rule_of_a_tag() {
    let by = |text: &str, tags: &[&str]| {
        under(vec![instance("a", tags)], |exposure| {
            exposure.default_rule = rule(text)
        })
    };
    let made = by("HostSNI(`{{ index .Labels \"traefik.zone\" }}`)", &[]);
    assert!(made.routes.is_empty());
    let told = skipped(&made);
    assert!(
        told[0].starts_with("- web: what `default_rule` makes of it is no rule: "),
        "{told:?}"
    );
    assert!(skipped(&by("{{ index .Labels \"traefik.rule\" }}", &[]))[0].contains("empty"));
    // A tag cannot make a default route by the operator's rule either.
    let made = by(
        "HostSNI(`{{ index .Labels \"traefik.zone\" }}`)",
        &["traefik.zone=a`) || HostSNI(`*"],
    );
    assert!(made.routes.is_empty());
    assert!(skipped(&made)[0].contains("allow_default_from_tags"));
    // One whose tags cannot be read refuses its clients.
    let made = by("HostSNI(`web.test`)", &["traefik.tcp.nonsense=1"]);
    assert_eq!(broken(&made), "its tags cannot be read");
}

#[test]
fn instances_are_dialled_in_the_states_that_are_accepted() {
    let state = |health| Instance {
        health,
        weight_warning: 0,
        ..instance("a", SSH)
    };
    let accepting = |accepted: &[Health], health| {
        let made = under(vec![state(health)], |exposure| {
            exposure.accepted = accepted.iter().copied().collect()
        });
        let upstream = &made.upstreams[0];
        (
            upstream.endpoints.len(),
            upstream.empty.as_deref().map(str::to_owned),
        )
    };
    let out = |why: &str| (0, Some(format!("its only instance is {why}")));
    let default = [Health::Passing, Health::Warning];
    assert_eq!(accepting(&default, Health::Passing).0, 1);
    assert_eq!(accepting(&default, Health::Warning).0, 1);
    assert_eq!(accepting(&default, Health::Critical), out("critical"));
    assert_eq!(
        accepting(&default, Health::Maintenance),
        out("in maintenance")
    );
    assert_eq!(
        accepting(&[Health::Passing], Health::Warning),
        out("warning")
    );
    assert_eq!(
        accepting(&[Health::Critical], Health::Passing),
        out("passing")
    );
    // It has the share of a warning, which is none here.
    let (endpoints, empty) = accepting(&[Health::Critical], Health::Critical);
    assert_eq!(
        (endpoints, empty.unwrap().as_str()),
        (1, "its only instance is of weight 0")
    );
}

#[test]
fn tags_that_mean_nothing_here_are_noted_once_and_are_no_failure() {
    let http = [
        "traefik.http.routers.web.rule=Host(`web.test`)",
        "traefik.udp.routers.a.service=b",
    ];
    let made = under(
        vec![
            instance("a", &with(SSH, &http)),
            instance("b", &with(SSH, &http)),
        ],
        |_| (),
    );
    route(&made);
    assert!(made.skipped.is_empty());
    assert_eq!(
        notes(&made),
        ["its tags under `http`, `udp` mean nothing here: only `tcp` routers are served"]
    );
    assert_eq!(made.standing(), Standing::Routed);
    let made = under(vec![instance("a", &http)], |_| ());
    assert_eq!((made.standing(), made.notes.len()), (Standing::Unrouted, 1));
    let off = with(&http, &["traefik.enable=false"]);
    assert!(under(vec![instance("a", &off)], |_| ()).notes.is_empty());
}
