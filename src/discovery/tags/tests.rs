//! What each tag means, and what a mistake in one does, as Traefik has it.

mod health_check;
mod properties;

use super::*;
use crate::config::{ProxyTlvs, ProxyVersion};

fn tags(list: &[&str]) -> Vec<Arc<str>> {
    list.iter().map(|tag| Arc::from(*tag)).collect()
}

fn read(list: &[&str]) -> Tags {
    decode(&tags(list), &Terms::default()).unwrap().unwrap()
}

fn router(list: &[&str]) -> Router {
    let tags = read(list);
    assert_eq!(tags.routers.len(), 1, "{tags:?}");
    tags.routers.into_values().next().unwrap()
}

/// A router with this one tag.
fn routed(tag: &str) -> Router {
    router(&[&format!("traefik.tcp.routers.a.{tag}")])
}

/// A service with this one tag.
fn served(tag: &str) -> Server {
    let tag = format!("traefik.tcp.services.s.loadbalancer.{tag}");
    let found = read(&[&tag]).services.into_values();
    found.last().unwrap()
}

fn mistake(list: &[&str]) -> String {
    decode(&tags(list), &Terms::default())
        .unwrap_err()
        .to_string()
}

#[test]
fn the_tags_of_a_job_are_read() {
    let found = read(&[
        "traefik.enable=true",
        "traefik.consulcatalog.connect=true",
        "traefik.tcp.routers.simple01.entrypoints=https",
        "traefik.tcp.routers.simple01.tls=true",
        "traefik.tcp.routers.simple01.rule=HostSNI(`simple01.domain.com`)",
        "traefik.tcp.routers.simple01.service=simple01",
    ]);
    let simple01 = Router {
        entry_points: vec!["https".to_owned()],
        rule: "HostSNI(`simple01.domain.com`)".to_owned(),
        service: Some("simple01".to_owned()),
        tls: Some(RouterTls::default()),
        ..Router::default()
    };
    let routers = [("simple01".to_owned(), simple01)].into();
    let expected = Tags {
        connect: true,
        routers,
        ..Tags::default()
    };
    assert_eq!(found, expected);
}

#[test]
fn both_prefixes_mean_the_same_and_ours_wins_key_by_key() {
    let both = [
        "portcullis.tcp.routers.a.rule=ours",
        "traefik.tcp.routers.a.rule=theirs",
        "traefik.tcp.routers.A.priority=7",
    ];
    let found = router(&both);
    assert_eq!((&*found.rule, found.priority), ("ours", Some(7)));
    let reversed: Vec<&str> = both.into_iter().rev().collect();
    assert_eq!(router(&reversed), found);
    assert!(
        !read(&[
            "traefik.consulcatalog.connect=true",
            "portcullis.consulcatalog.connect=0"
        ])
        .connect
    );
}

#[test]
fn what_is_no_tag_of_ours_is_ignored() {
    let found = read(&[
        "http",
        "traefik.tcp.routers.a.rule",
        "Traefik.tcp.routers.a.rule=x",
        "traefikx.tcp.routers.a.rule=x",
        "traefik.=x",
        "traefik=x",
        "other.tcp.routers.a.rule=x",
        "traefik.http.routers.a.rule=Host(`a`)",
        "traefik.http..=x",
        "traefik.udp.routers.a.entrypoints=dns",
        "traefik.tls.stores.default.defaultgeneratedcert.resolver=le",
        "traefik.docker.network=x",
        "",
        "=",
    ]);
    assert_eq!(found, Tags::default());
}

#[test]
fn keys_count_in_any_case_and_values_as_they_are() {
    let found = read(&[
        "traefik.TCP.Routers.FOO.Rule=HostSNI(`A`)",
        "traefik.tcp.routers.foo.entryPoints=Https",
        "traefik.ConsulCatalog.Connect=T",
    ]);
    assert!(found.connect);
    let foo = &found.routers["foo"];
    assert_eq!(
        (&*foo.rule, &*foo.entry_points),
        ("HostSNI(`A`)", &["Https".to_owned()][..])
    );
}

#[test]
fn a_tag_is_split_at_its_first_equals_sign() {
    assert_eq!(routed("rule=a=b=c").rule, "a=b=c");
    assert_eq!(routed("rule=").rule, "");
}

#[test]
fn of_a_tag_that_is_written_twice_the_last_counts() {
    let twice = [
        "traefik.tcp.routers.a.rule=first",
        "traefik.tcp.routers.a.rule=last",
    ];
    assert_eq!(router(&twice).rule, "last");
}

#[test]
fn a_boolean_is_what_go_takes_for_one() {
    for yes in ["1", "t", "T", "TRUE", "true", "True"] {
        assert!(
            read(&[&format!("traefik.consulcatalog.connect={yes}")]).connect,
            "{yes}"
        );
    }
    for no in ["0", "f", "F", "FALSE", "false", "False"] {
        assert_eq!(
            decode(&tags(&[&format!("traefik.enable={no}")]), &Terms::default()),
            Ok(None),
            "{no}"
        );
    }
    for neither in ["", "yes", "on", "tRUE", " true", "2"] {
        let said = mistake(&[&format!("traefik.enable={neither}")]);
        assert_eq!(
            said,
            format!("tag \"traefik.enable\": {neither:?} is not true or false")
        );
    }
}

#[test]
fn an_instance_that_is_left_out_is_so_whatever_its_other_tags_are() {
    let tags = tags(&[
        "traefik.enable=false",
        "traefik.tcp.nonsense=1",
        "traefik.tcp..=x",
    ]);
    assert_eq!(decode(&tags, &Terms::default()), Ok(None));
}

#[test]
fn a_list_is_split_at_commas_and_trimmed() {
    let entry_points =
        |value: &str| router(&[&format!("traefik.tcp.routers.a.entrypoints={value}")]).entry_points;
    assert_eq!(
        entry_points("https, websecure ,x"),
        ["https", "websecure", "x"]
    );
    assert_eq!(entry_points("https,"), ["https", ""]);
    assert!(entry_points("").is_empty());
}

#[test]
fn tls_is_on_by_true_by_nothing_or_by_what_stands_under_it_and_off_by_anything_else() {
    for on in [
        "tls=true",
        "tls=TRUE",
        "tls=",
        "tls.passthrough=false",
        "tls.options=x@file",
    ] {
        let found = routed(on);
        assert!(found.tls.is_some(), "{on}");
    }
    for off in ["false", "yes", "1", " true", "on"] {
        let found = router(&[
            &format!("traefik.tcp.routers.a.tls={off}"),
            "traefik.tcp.routers.a.tls.passthrough=rubbish",
            "traefik.tcp.routers.a.tls.options=x@file",
            "traefik.tcp.routers.a.tls.certresolver=le",
            "traefik.tcp.routers.a.tls.domains[0].main=a",
        ]);
        assert_eq!(found, Router::default(), "{off}");
    }
    let rubbish = [
        "traefik.tcp.routers.a.tls=true",
        "traefik.tcp.routers.a.tls.passthrough=rubbish",
    ];
    assert!(mistake(&rubbish).contains("is not true or false"));
}

#[test]
fn a_rule_may_say_its_syntax() {
    let syntax = |value: &str| routed(&format!("rulesyntax={value}")).rule_syntax;
    assert_eq!(syntax("v2"), Some(Syntax::V2));
    assert_eq!(syntax("v3"), Some(Syntax::V3));
    assert_eq!(syntax("default"), Some(Syntax::V3));
    assert_eq!(syntax(""), None);
}

#[test]
fn a_priority_is_a_number_of_64_bits_and_0_is_the_rules_own() {
    let priority = |value: &str| routed(&format!("priority={value}")).priority;
    assert_eq!(priority("42"), Some(42));
    assert_eq!(priority("+42"), Some(42));
    assert_eq!(priority("-1"), Some(-1));
    assert_eq!(priority("0"), None);
    for wrong in ["", "high", "1.5", "9223372036854775808", " 1"] {
        let said = mistake(&[&format!("traefik.tcp.routers.a.priority={wrong}")]);
        let expected = format!(
            "tag \"traefik.tcp.routers.a.priority\": {wrong:?} is not a whole number of 64 bits"
        );
        assert_eq!(said, expected);
    }
}

#[test]
fn a_port_is_a_number_from_1_to_65535_or_a_name_or_nothing() {
    let port = |value: &str| served(&format!("server.port={value}")).port;
    assert_eq!(port("22"), Some(Port::Number(22)));
    assert_eq!(port(""), None);
    for name in ["ssh", "http-2", "gRPC_1"] {
        assert_eq!(port(name), Some(Port::Name(name.to_owned())));
    }
    let long = "a".repeat(64);
    for wrong in ["0", "65536", "-1", "22 ", "s sh", "ssh:22", &long] {
        let said = mistake(&[&format!(
            "traefik.tcp.services.s.loadbalancer.server.port={wrong}"
        )]);
        assert!(
            said.ends_with(&format!(
                "{wrong:?} is not a port from 1 to 65535, or the name that one was registered under"
            )),
            "{said}"
        );
    }
}

#[test]
fn an_unknown_key_or_a_broken_path_takes_the_instance_out() {
    for (key, why) in [
        ("tcp.routers.a.rules", "no such key"),
        ("tcp.routers.a.rule.x", "no such key"),
        ("tcp.routers.a.entrypoints[0]", "no such key"),
        ("tcp.routers.a[0].rule", "no such key"),
        ("tcp.routers.a].rule", "no such key"),
        ("tcp.routers.a.tls.x", "no such key"),
        ("tcp.routers.a.tls.domains[x].main", "no such key"),
        ("tcp.routers.a.tls.domains[0].x", "no such key"),
        ("tcp.router.a.rule", "no such key"),
        ("tcpx.routers.a.rule", "no such key"),
        ("tcp.services.s.port", "no such key"),
        ("tcp.services.s.weighted.services", "no such key"),
        ("tcp.services.s.loadbalancer.servers", "no such key"),
        ("tcp.services.s.loadbalancer.server.scheme", "no such key"),
        ("tcp.middlewares.m.ratelimit.average", "no such key"),
        ("tcp.serverstransports.t.dialtimeout", "no such key"),
        ("consulcatalog.conect", "no such key"),
        ("tcp", "says nothing"),
        ("tcp.routers", "says nothing"),
        ("tcp.services.s", "says nothing"),
        ("tcp.services.s.loadbalancer", "says nothing"),
        ("tcp..routers.a.rule", "empty or begins with `[`"),
        ("tcp.routers..rule", "empty or begins with `[`"),
        ("tcp.routers.a.rule.", "empty or begins with `[`"),
        ("tcp.routers.[0].rule", "empty or begins with `[`"),
        ("consulcatalog..connect", "empty or begins with `[`"),
    ] {
        let said = mistake(&[&format!("portcullis.{key}=true"), "traefik.enable=true"]);
        assert!(
            said.starts_with(&format!("tag \"portcullis.{key}\": ")),
            "{said}"
        );
        assert!(said.contains(why), "{key}: {said}");
    }
}

#[test]
fn a_value_where_only_more_keys_belong_is_ignored_if_there_are_more_keys() {
    let found = read(&[
        "traefik.tcp=true",
        "traefik.tcp.routers=x",
        "traefik.tcp.routers.a=x",
        "traefik.tcp.routers.a.rule=r",
        "traefik.tcp.services.s=x",
        "traefik.tcp.services.s.loadbalancer=x",
        "traefik.tcp.services.s.loadbalancer.server=x",
        "traefik.tcp.services.s.loadbalancer.server.port=1",
        "traefik.tcp-x",
    ]);
    assert_eq!(found.routers["a"].rule, "r");
    assert_eq!(found.services["s"].port, Some(Port::Number(1)));
    assert_eq!(router(&["traefik.tcp.routers.a=x"]), Router::default());
}

#[test]
fn what_is_asked_for_in_vain_is_remembered() {
    for (tag, asked) in [
        ("rulesyntax=V2", Unsupported::RuleSyntax),
        ("tls.certresolver=le", Unsupported::CertResolver),
        ("tls.domains[0].main=a", Unsupported::Domains),
        ("tls.domains[12].sans=a,b", Unsupported::Domains),
    ] {
        let found = routed(tag);
        assert_eq!(found.unsupported, [asked].into(), "{tag}");
    }
}

#[test]
fn how_instances_are_dialled_is_read_as_traefik_reads_it() {
    let transport = |tags: &[&str]| {
        let tags = tags.iter();
        let tags: Vec<String> = tags
            .map(|tag| format!("traefik.tcp.services.s.LoadBalancer.{tag}"))
            .collect();
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        read(&tags).services["s"].transport.clone()
    };
    let v2 = Some(ProxyVersion::V2(ProxyTlvs::default()));
    let v1 = Some(ProxyVersion::V1);
    assert_eq!(
        transport(&["Server.TLS=1", "ServersTransport=T@file"]),
        Transport {
            tls: true,
            reference: Some("T@file".to_owned()),
            ..Transport::default()
        }
    );
    for (tags, proxy) in [
        (&["proxyprotocol=true"][..], v2),
        (&["proxyprotocol="], v2),
        (&["proxyprotocol.version=2"], v2),
        (&["proxyprotocol.version=1"], v1),
        (&["proxyprotocol=true", "proxyprotocol.version=1"], v1),
        (&["proxyprotocol=no", "proxyprotocol.version=1"], None),
    ] {
        assert_eq!(transport(tags).proxy, proxy, "{tags:?}");
    }
    for (value, delay) in [("100", 100), ("-1", -1), ("0", 0)] {
        let found = transport(&[&format!("terminationdelay={value}")]);
        assert_eq!(found.termination_delay, Some(delay), "{value}");
    }
    for (tag, why) in [
        ("proxyprotocol.version=3", "1 or 2"),
        ("proxyprotocol.version=", "1 or 2"),
        ("terminationdelay=100ms", "whole number"),
        ("server.tls=yes", "true or false"),
    ] {
        let tag = format!("traefik.tcp.services.s.loadbalancer.{tag}");
        let why_not = mistake(&[&tag]);
        assert!(why_not.contains(why), "{tag}: {why_not}");
    }
}

#[test]
fn middlewares_are_defined_under_their_names_and_named_by_routers() {
    let found = read(&[
        "traefik.tcp.routers.a.middlewares=M, n@file",
        "traefik.tcp.middlewares.M.IPAllowList.SourceRange=10.0.0.0/8, 192.0.2.7",
        "portcullis.tcp.middlewares.n.ipwhitelist.sourcerange=",
        "traefik.tcp.middlewares.few.inflightconn.amount=3",
    ]);
    assert_eq!(found.routers["a"].middlewares, ["M", "n@file"]);
    let ranges = ["10.0.0.0/8", "192.0.2.7"].map(str::to_owned);
    assert_eq!(
        found.middlewares["m"].ip_allow_list,
        Some(ranges.into()),
        "{found:?}"
    );
    assert_eq!(found.middlewares["n"].ip_white_list, Some(Vec::new()));
    assert_eq!(found.middlewares["few"].in_flight_conn, Some(Some(3)));
    assert!(routed("middlewares=").middlewares.is_empty());
    assert!(mistake(&["traefik.tcp.middlewares.m.inflightconn.amount=x"]).contains("whole number"));
}

#[test]
fn what_is_asked_for_by_no_value_is_not_asked_for() {
    let found = read(&[
        "traefik.tcp.routers.a.rulesyntax=v3",
        "traefik.tcp.routers.a.tls.certresolver=",
        "traefik.tcp.services.s.loadbalancer.server.tls=false",
        "traefik.tcp.services.s.loadbalancer.server.address=10.0.0.1",
        "traefik.tcp.services.s.loadbalancer.serverstransport=",
        "traefik.tcp.services.s.loadbalancer.proxyprotocol=no",
        "traefik.tcp.services.s.loadbalancer.proxyprotocol.version=1",
    ]);
    assert!(found.routers["a"].unsupported.is_empty());
    assert_eq!(found.services["s"], Server::default());
}

#[test]
fn a_message_quotes_a_strangers_text_escaped_and_cut() {
    let said = mistake(&["traefik.tcp.routers.a.priority=\x1b[31m\u{202e}x"]);
    assert!(said.contains(r#""\u{1b}[31m\u{202e}x""#), "{said}");
    let long = format!("traefik.tcp.{}={}", "k".repeat(5_000), "v".repeat(5_000));
    assert!(mistake(&[&long]).len() < 300);
}

#[test]
fn what_tags_do_not_say_is_as_the_operator_says() {
    let terms = Terms {
        prefix: "edge".into(),
        exposed_by_default: false,
        connect_by_default: true,
    };
    let read = |list: &[&str]| decode(&tags(list), &terms);
    assert_eq!(read(&["edge.tcp.routers.a.rule=x"]), Ok(None));
    // Nobody has asked for it to be read.
    assert_eq!(read(&["edge.tcp.routers.a.nonsense=x"]), Ok(None));
    assert_eq!(
        read(&["edge.tcp.routers.a.rule=x", "traefik.enable=true"]),
        Ok(None)
    );
    let found = read(&["edge.tcp.routers.a.rule=x", "edge.enable=true"]);
    let found = found.unwrap().unwrap();
    assert!(found.connect && found.routers.contains_key("a"));
    let found = read(&["portcullis.enable=true", "edge.consulcatalog.connect=false"]);
    assert!(!found.unwrap().unwrap().connect);
    let wrong = read(&["edge.enable=true", "edge.tcp.x=1"]).unwrap_err();
    assert!(wrong.tag.contains("edge.tcp.x"), "{wrong}");
}
