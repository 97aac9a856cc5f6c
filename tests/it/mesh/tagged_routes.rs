//! What each tag of a router means to the clients of its service: with a real Consul that denies what no policy allows.

use rustls::version::TLS13;
use serde_json::{Value, json};

use super::{Host, IDENTITY, Mesh, Tunnel, tagged};
use crate::authority::Authority;
use crate::consul::meshed;
use crate::policy::showing;
use crate::ports;

use Then::{Broken, Refuses, Serves, Silent, Unrouted, Warns};

/// What a client of a service meets.
enum Then {
    /// The service, under each of these names.
    Serves(&'static [&'static str]),
    /// The service, with a warning that says this.
    Warns(&'static str),
    /// A refusal for this reason, while its route is whole.
    Refuses(&'static str),
    /// A route that is down, and says this.
    Broken(&'static str),
    /// No route, and what is skipped says this.
    Unrouted(&'static str),
    /// No route, and no word of it.
    Silent,
}

/// A tag as it is short for here: of the router, of the service's `loadbalancer`, or of a middleware.
pub(super) fn tag(name: &str, short: &str) -> String {
    match short.split_once('.') {
        Some(("R", rest)) => format!("traefik.tcp.routers.{name}.{rest}"),
        Some(("S", rest)) => format!("traefik.tcp.services.{name}.loadbalancer.{rest}"),
        Some(("M", rest)) => format!("traefik.tcp.middlewares.{rest}"),
        _ => short.to_owned(),
    }
}

/// The tags of a router that ends TLS for `NAME.example.test`, unless they have a rule of their own, and these.
pub(super) fn tags(name: &str, more: &[&str]) -> Vec<String> {
    let mut tags = vec![tag(name, "R.tls=true")];
    if !more.iter().any(|tag| tag.starts_with("R.rule=")) {
        tags.push(tag(name, &format!("R.rule=HostSNI(`{name}.example.test`)")));
    }
    tags.extend(more.iter().map(|short| tag(name, short)));
    tags
}

const SETS: &str = r#"
    [tls.options.open]
    max_version = "1.3"
    [tls.options.staff]
    client_auth = "required"
    client_ca = ["ca.pem"]
    [tls.options.damaged]
    client_auth = "required"
    client_ca = ["lost.pem"]
"#;

/// The service, its tags, and what its clients meet.
const ROUTERS: &[(&str, &[&str], Then)] = &[
    ("open", &["R.tls.options=open@file"], Serves(&["open"])),
    (
        "staff",
        &["R.tls.options=staff@file"],
        Refuses("client_certificate"),
    ),
    (
        "gone",
        &["R.tls.options=gone@file"],
        Broken("option set `gone` does not exist"),
    ),
    (
        "placeless",
        &["R.tls.options=staff"],
        Broken("write `NAME@file`"),
    ),
    (
        "damaged",
        &["R.tls.options=damaged@file"],
        Broken("option set `damaged`: "),
    ),
    (
        "resolver",
        &["R.tls.certresolver=le"],
        Warns("`tls.certresolver` is not supported yet"),
    ),
    (
        "domains",
        &[
            "R.tls.domains[0].main=domains.example.test",
            "R.tls.domains[0].sans=a.example.test, b.example.test",
        ],
        Warns("`tls.domains` is not supported yet"),
    ),
    (
        "ours",
        &["R.entrypoints=postgres, https"],
        Serves(&["ours"]),
    ),
    (
        "theirs",
        &["R.entrypoints=postgres"],
        Unrouted("it is for the entry points \"postgres\""),
    ),
    (
        "old",
        &[
            "R.rulesyntax=v2",
            "R.rule=HostSNI(`old.example.test`, `older.example.test`)",
        ],
        Serves(&["old", "older"]),
    ),
    (
        "pattern",
        &[
            "R.rulesyntax=v2",
            "R.rule=HostSNIRegexp(`{any:pattern[0-9]+}.example.test`)",
        ],
        Serves(&["pattern7", "pattern42"]),
    ),
    (
        "new",
        &[
            "R.rulesyntax=v3",
            "R.rule=HostSNIRegexp(`^new[0-9]+\\.example\\.test$`)",
        ],
        Serves(&["new7"]),
    ),
    (
        "mixed",
        &["R.rule=HostSNI(`mixed.example.test`, `other.example.test`)"],
        Unrouted("its rule: "),
    ),
    (
        "future",
        &["R.rulesyntax=v4"],
        Broken("`rulesyntax` is not supported yet"),
    ),
    (
        "allowed",
        &[
            "M.local.ipallowlist.sourcerange=10.0.0.0/8, 127.0.0.0/8",
            "R.middlewares=local",
        ],
        Serves(&["allowed"]),
    ),
    (
        "barred",
        &[
            "M.far.ipallowlist.sourcerange=10.0.0.0/8",
            "R.middlewares=local@consulcatalog,far",
        ],
        Refuses("client_not_allowed"),
    ),
    (
        "white",
        &[
            "M.former.ipwhitelist.sourcerange=127.0.0.1",
            "R.middlewares=former",
        ],
        Serves(&["white"]),
    ),
    (
        "unlisted",
        &[
            "M.whitest.ipwhitelist.sourcerange=192.0.2.0/24",
            "R.middlewares=whitest",
        ],
        Refuses("client_not_allowed"),
    ),
    (
        "elsewhere",
        &[
            "traefik.http.routers.elsewhere.opitons=x",
            "traefik.udp..=x",
            "R",
        ],
        Serves(&["elsewhere"]),
    ),
    (
        "typo",
        &["R.tls.opitons=open@file"],
        Broken("its tags cannot be read"),
    ),
];

/// Tags as they may be spelled, and what the clients of their services meet.
const SPELLED: &[(&str, &[&str], Then)] = &[
    ("t", &["traefik.enable=T"], Serves(&["t"])),
    ("one", &["traefik.Enable=1"], Serves(&["one"])),
    ("off", &["traefik.ENABLE=f"], Silent),
    ("zero", &["portcullis.enable=0"], Silent),
    (
        "nearly",
        &["traefik.enable=yes"],
        Broken("its tags cannot be read"),
    ),
    (
        "loud",
        &[
            "traefik.TCP.Middlewares.Few.InFlightConn.Amount=3",
            "traefik.tcp.ROUTERS.loud.MiddleWares=fEW",
            "traefik.tcp.routers.LOUD.EntryPoints=https",
        ],
        Serves(&["loud"]),
    ),
    (
        "louder",
        &[
            "traefik.TCP.Middlewares.None.IPAllowList.SourceRange=192.0.2.1",
            "traefik.tcp.ROUTERS.louder.MiddleWares=none",
        ],
        Refuses("client_not_allowed"),
    ),
];

impl Mesh {
    /// Waits until what a service has asked for in vain is told, in words that hold this; gives the entry.
    pub(super) async fn skips(&self, service: &str, why: &str) -> Value {
        let has = |entry: &&Value| entry["reason"].as_str().is_some_and(|it| it.contains(why));
        let what = format!("{service} is skipped: {why}");
        let routes = self.told(&what, |routes| {
            routes.skipped(service).into_iter().any(|entry| has(&entry))
        });
        let routes = routes.await;
        let found = routes.skipped(service).into_iter().find(has);
        found.unwrap().clone()
    }

    /// Waits until `/v1/routes` has a route of this name, whatever it leads to.
    async fn shown(&self, name: &str) -> Value {
        let routes = self.told(name, |routes| routes.route(name).is_some()).await;
        routes.route(name).unwrap().clone()
    }

    /// What the clients of a service meet is this.
    async fn meets(&mut self, name: &str, host: &Host, then: &Then) {
        let full = |name: &str| format!("{name}.example.test");
        let route = format!("{name}@consul");
        let dials = host.dials();
        match then {
            Serves(names) => {
                let shown = self.route(&route).await;
                assert_eq!(shown["warnings"].to_string().find("not support"), None);
                for name in *names {
                    assert_eq!(self.greets(&full(name)).await, "vm", "{name}");
                }
                return;
            }
            Warns(why) => {
                let shown = self.route(&route).await;
                assert!(shown["warnings"].to_string().contains(why), "{shown}");
                assert_eq!(self.greets(&full(name)).await, "vm", "{name}");
                return;
            }
            Refuses(reason) => {
                let shown = self.route(&route).await;
                assert_eq!(shown["action"], "terminate", "{shown}");
                let record = self.refuses(&full(name)).await;
                assert_eq!(record["reason"], *reason, "{record}");
            }
            Broken(why) => {
                let shown = self.shown(&route).await;
                let told = shown["broken_reason"].as_str().unwrap_or_default();
                assert!(told.contains(why), "{shown}");
                let record = self.refuses(&full(name)).await;
                assert_eq!(record["reason"], "route_broken", "{record}");
            }
            Unrouted(why) => {
                self.skips(name, why).await;
                assert!(self.routes().await.route(&route).is_none());
                let record = self.refuses(&full(name)).await;
                assert_eq!(record["reason"], "unknown_name", "{record}");
            }
            Silent => {
                let routes = self.routes().await;
                assert_eq!(routes.skipped(name), Vec::<&Value>::new());
                assert!(routes.route(&route).is_none());
                let record = self.refuses(&full(name)).await;
                assert_eq!(record["reason"], "unknown_name", "{record}");
            }
        }
        assert_eq!(host.dials(), dials, "{name} was dialled");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_tag_of_a_router_means_to_its_clients_what_it_says_or_takes_the_route_down() {
    let authority = Authority::new();
    let ca = std::fs::read_to_string(authority.folder().join("ca.pem")).unwrap();
    authority.write("lost.pem", &ca);
    let Some(mut mesh) = Mesh::guarded(authority, SETS, &["lost.pem"]).await else {
        return;
    };
    let host = Host::start("vm").await;
    for (name, more, _) in ROUTERS {
        mesh.consul
            .register(&tagged(name, host.address, &tags(name, more)));
    }
    for (name, _, then) in ROUTERS {
        mesh.meets(name, &host, then).await;
    }
    // Who shows what the set asks for is served.
    let known = mesh.authority.issue(&["client.example.test"]);
    let config = showing(&mesh.authority, &known, &TLS13);
    let name = "staff.example.test";
    let tls = mesh.gateway.connect_tls(&config, name).await.unwrap();
    let tunnel = Tunnel::open(tls).await.unwrap();
    assert_eq!(tunnel.greeting, "vm");
    tunnel.end().await;
    assert_eq!(mesh.gateway.ended().await["reason"], "closed");
    // A set whose file is back is obeyed, without a restart.
    mesh.authority.write("lost.pem", &ca);
    mesh.told("the set is mended", |routes| {
        routes.route("damaged@consul").unwrap()["action"] == "terminate"
    })
    .await;
    mesh.meets("damaged", &host, &Refuses("client_certificate"))
        .await;
    // The reason why nothing can be read names the key.
    let typo = mesh.skips("typo", "there is no such key").await;
    assert!(typo["reason"].to_string().contains("opitons"), "{typo}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_count_in_any_case_and_booleans_in_every_spelling_of_go() {
    let Some(mut mesh) = Mesh::guarded(Authority::new(), "", &[]).await else {
        return;
    };
    let host = Host::start("vm").await;
    for (name, more, _) in SPELLED {
        mesh.consul
            .register(&tagged(name, host.address, &tags(name, more)));
    }
    // Through its sidecar, and to a port that is another than the one it was registered with.
    let mut spelled = tags("sidecar", &["traefik.ConsulCatalog.Connect=TRUE"]);
    spelled.push("traefik.enable=True".to_owned());
    let service = tagged("sidecar", host.address, &spelled);
    mesh.consul.register(&meshed(service, ports::free()));
    let _sidecar = mesh.consul.builtin_sidecar("sidecar");
    mesh.consul.intend(IDENTITY, "sidecar", true);
    let nobody = format!("127.0.0.1:{}", ports::free()).parse().unwrap();
    let port = format!("S.Server.Port={}", host.address.port());
    mesh.consul
        .register(&tagged("port", nobody, &tags("port", &[&port])));

    for (name, _, then) in SPELLED {
        mesh.meets(name, &host, then).await;
    }
    let few = mesh.route("loud@consul").await;
    let few = &few["middlewares"][0];
    assert_eq!(few["in_flight_conn"], 3, "{few}");
    mesh.meets("port", &host, &Serves(&["port"])).await;
    assert_eq!(
        mesh.route("sidecar@consul").await["upstream"]["mesh"],
        json!(true)
    );
    mesh.meets("sidecar", &host, &Serves(&["sidecar"])).await;
}
