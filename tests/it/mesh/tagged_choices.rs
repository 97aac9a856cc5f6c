//! Who gets a client by what tags say: of two rules, of canaries and of an instance that cannot be read, with a real Consul.

use tokio::time::{Instant, sleep};

use super::tagged_routes::tags;
use super::{Host, Mesh, POLL, tagged};
use crate::authority::Authority;
use crate::support::PATIENCE;

#[tokio::test(flavor = "multi_thread")]
async fn of_two_rules_for_one_name_the_one_of_the_higher_priority_wins_whatever_their_kinds() {
    let Some(mut mesh) = Mesh::guarded(Authority::new(), "", &[]).await else {
        return;
    };
    let (narrow, wide) = (Host::start("narrow").await, Host::start("wide").await);
    let exact = "R.rule=HostSNI(`name.example.test`)";
    let regexp = "R.rule=HostSNIRegexp(`^name\\.example\\.test$`)";
    // The priority of each, and who wins; 0 is none, which is the length of the rule.
    for (of_narrow, of_wide, winner) in [
        (None, None, "wide"),
        (Some("100"), None, "narrow"),
        (Some("100"), Some("101"), "wide"),
        (Some("100"), Some("100"), "narrow"),
        (Some("-1"), Some("0"), "wide"),
    ] {
        for (name, host, rule, priority) in [
            ("narrow", &narrow, exact, of_narrow),
            ("wide", &wide, regexp, of_wide),
        ] {
            let priority = priority.map(|it| format!("R.priority={it}"));
            let mut more = vec![rule];
            more.extend(priority.as_deref());
            mesh.consul
                .register(&tagged(name, host.address, &tags(name, &more)));
        }
        let length = |rule: &str| i64::try_from(rule.len() - "R.rule=".len()).unwrap();
        let asked =
            |asked: Option<&str>, rule: &str| match asked.map_or(0, |it| it.parse().unwrap()) {
                0 => length(rule),
                priority => priority,
            };
        let expected = [asked(of_narrow, exact), asked(of_wide, regexp)];
        mesh.told("both have their priorities", |routes| {
            let of = |name: &str| routes.route(name).and_then(|it| it["priority"].as_i64());
            [of("narrow@consul"), of("wide@consul")] == expected.map(Some)
        })
        .await;
        let greeting = mesh.greets("name.example.test").await;
        assert_eq!(greeting, winner, "{of_narrow:?} against {of_wide:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn canaries_get_the_clients_of_their_own_routers_and_an_instance_that_cannot_be_read_none() {
    let Some(mut mesh) = Mesh::guarded(Authority::new(), "", &[]).await else {
        return;
    };
    let (stable, canary) = (Host::start("stable").await, Host::start("canary").await);
    let instance = |id: &str, host: &Host, tags: &[String]| {
        let mut service = tagged("web", host.address, tags);
        service["ID"] = id.into();
        service
    };
    let tried = [
        "traefik.consulcatalog.canary=true",
        "traefik.tcp.routers.tried.tls=true",
        "traefik.tcp.routers.tried.rule=HostSNI(`tried.example.test`)",
    ];
    let tried = tried.map(str::to_owned);
    mesh.consul
        .register(&instance("web-1", &stable, &tags("web", &[])));
    mesh.consul.register(&instance("web-2", &canary, &tried));
    mesh.route("web@consul").await;
    let route = mesh.route("web/tried@consul").await;
    let upstream = route["upstream"]["name"].as_str().unwrap();
    assert!(upstream.starts_with("web/~"), "{route}");
    for _ in 0..4 {
        assert_eq!(mesh.greets("web.example.test").await, "stable");
        assert_eq!(mesh.greets("tried.example.test").await, "canary");
    }

    // Promoted, it is one of them.
    mesh.consul
        .register(&instance("web-2", &canary, &tags("web", &[])));
    mesh.told("there are two", |routes| {
        routes.endpoints("web@consul").len() == 2
    })
    .await;
    let both = [
        mesh.greets("web.example.test").await,
        mesh.greets("web.example.test").await,
    ];
    assert!(both.contains(&"stable".to_owned()) && both.contains(&"canary".to_owned()));
    let record = mesh.refuses("tried.example.test").await;
    assert_eq!(record["reason"], "unknown_name", "{record}");

    // A key that nobody knows takes this instance out, and it alone.
    let unread = tags("web", &["S.loadbalancer=2"]);
    mesh.consul.register(&instance("web-2", &canary, &unread));
    mesh.told("there is one", |routes| {
        routes.endpoints("web@consul") == [(stable.address, 1)]
    })
    .await;
    let skipped = mesh.skips("web", "there is no such key").await;
    assert!(
        skipped["instance"].to_string().contains("web-2"),
        "{skipped}"
    );
    for _ in 0..4 {
        assert_eq!(mesh.greets("web.example.test").await, "stable");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_connections_as_tags_allow_are_let_in_and_one_more_when_one_has_ended() {
    let Some(mut mesh) = Mesh::guarded(Authority::new(), "", &[]).await else {
        return;
    };
    let host = Host::start("vm").await;
    for (name, more) in [
        (
            "few",
            &["M.two.inflightconn.amount=2", "R.middlewares=two"][..],
        ),
        ("free", &[]),
    ] {
        mesh.consul
            .register(&tagged(name, host.address, &tags(name, more)));
        mesh.route(&format!("{name}@consul")).await;
    }
    let name = "few.example.test";
    let mut first = mesh.open(name).await.unwrap();
    let second = mesh.open(name).await.unwrap();
    let dials = host.dials();
    let record = mesh.refuses(name).await;
    assert_eq!(record["reason"], "in_flight_limit", "{record}");
    assert_eq!(host.dials(), dials);
    assert_eq!(mesh.greets("free.example.test").await, "vm");
    first.is_alive().await;
    second.end().await;
    assert_eq!(mesh.gateway.ended().await["reason"], "closed");
    let late = Instant::now() + PATIENCE;
    let third = loop {
        match mesh.open(name).await {
            Ok(tunnel) => break tunnel,
            Err(error) => assert!(Instant::now() < late, "none is let in: {error}"),
        }
        sleep(POLL).await;
    };
    first.is_alive().await;
    third.end().await;
    first.end().await;
}
