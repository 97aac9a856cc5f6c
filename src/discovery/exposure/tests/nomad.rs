//! What is made of services of Nomad's own: the same, but for the mesh, the names of providers, and namespaces.

use super::*;

/// The service `web` of a namespace, of one instance with these tags, by what it is called here.
fn of(key: &str, tags: &[&str]) -> Service {
    let mut found = web(vec![instance("a", tags)]);
    found.key = ServiceKey {
        place: None,
        source: Source::Nomad,
        name: key.into(),
    };
    let exposure = Exposure {
        mesh: false,
        ..exposure()
    };
    service(&found, &exposure)
}

#[test]
fn a_tag_names_services_of_its_own_namespace_and_others_with_theirs() {
    for (key, target, upstream) in [
        ("web", "web", "web@nomad"),
        ("web", "other", "other@nomad"),
        ("web", "other@nomad", "other@nomad"),
        ("web.prod", "web", "web.prod@nomad"),
        ("web.prod", "other", "other.prod@nomad"),
        ("web.prod", "other.default", "other@nomad"),
        ("web", "other.prod@nomad", "other.prod@nomad"),
        ("web.prod", "bastion@file", "bastion"),
    ] {
        let tag = format!("traefik.tcp.routers.web.service={target}");
        let service = of(key, &with(SSH, &[&tag]));
        let route = route(&service);
        assert_eq!(&*route.upstream, upstream, "{key} {target}");
        assert_eq!(*route.name, *format!("{key}@nomad"));
    }
}

#[test]
fn a_service_of_another_provider_is_none_here() {
    for provider in ["consulcatalog", "consul"] {
        let tag = format!("traefik.tcp.routers.web.service=web@{provider}");
        let reason = broken(&of("web", &with(SSH, &[&tag]))).to_owned();
        assert!(reason.contains("only `@file` and `@nomad`"), "{reason}");
    }
    let consul = tagged(&with(SSH, &["traefik.tcp.routers.web.service=web@nomad"]));
    assert!(broken(&consul).contains("only `@file` and `@consul`"));
}

#[test]
fn whoever_asks_for_a_mesh_is_refused_for_there_is_none() {
    for tag in [
        CONNECT,
        "traefik.nomad.connect=true",
        "portcullis.nomad.connect=1",
    ] {
        let service = of("web", &with(SSH, &[tag]));
        let reason = broken(&service);
        assert!(reason.contains("no sidecars"), "{tag}: {reason}");
        assert_eq!(addresses(&service, "web@nomad"), [""; 0]);
    }
    assert_eq!(
        addresses(
            &of("web", &with(SSH, &["traefik.consulcatalog.connect=false"])),
            "web@nomad"
        ),
        ["10.0.0.97:22"]
    );
}

#[test]
fn messages_name_the_section_and_the_tags_of_nomad() {
    for tag in [
        "traefik.tcp.routers.web.entrypoints=other",
        "portcullis.tcp.routers.web.rule=HostSNI(`*`)",
    ] {
        let service = of("web", &with(SSH, &[tag]));
        assert!(skipped(&service)[0].ends_with("in [nomad]"), "{service:#?}");
    }
    // What Traefik does not read either is nobody's mistake.
    route(&of("web", &with(SSH, &["traefik.nomad.else=1"])));
}

#[test]
fn canaries_of_nomad_are_apart_too() {
    let canary = of("web", &with(SSH, &["traefik.nomad.canary=true"]));
    assert_eq!(
        addresses(&canary, &route(&canary).upstream),
        ["10.0.0.97:22"]
    );
    assert!(route(&canary).upstream.starts_with("web/~"), "{canary:#?}");
}
