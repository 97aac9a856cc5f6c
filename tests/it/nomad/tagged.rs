//! What tags mean to the clients of Nomad's own services: with a real Nomad that speaks TLS and lets a token read jobs only.

use std::collections::BTreeSet;

use serde_json::Value;
use tokio_rustls::client::TlsStream;

use super::*;

/// An agent that may be asked over TLS with a token, and a gateway whose token may read jobs.
struct Scene {
    nomad: Nomad,
    edge: Edge,
}

impl Scene {
    async fn start() -> Option<Self> {
        let nomad = block_in_place(Nomad::start_secure)?;
        let authority = Authority::new();
        authority.write("token", &block_in_place(|| nomad.reader()));
        let keys = format!(
            "address = \"{}\"\ntoken_file = \"token\"\nroots = [{:?}]\nchain = {:?}\nkey = {:?}\n\
             server_name = \"server.global.nomad\"\n",
            nomad.address(),
            nomad.file("ca.pem"),
            nomad.file("client.pem"),
            nomad.file("client.key"),
        );
        let edge = Edge::start(authority, &keys, &[]).await;
        Some(Self { nomad, edge })
    }

    /// A route of this name, when it has so many endpoints.
    async fn route(&self, name: &str, endpoints: usize) -> Value {
        let find = async || {
            let (_, routes) = self.edge.gateway.ask_admin("/v1/routes").await;
            let routes: Value = serde_json::from_str(&routes).unwrap();
            let mut all = routes["routes"].as_array().unwrap().iter();
            let found = all.find(|route| route["name"] == name)?;
            let shown = found["endpoints"].as_array()?.len();
            (shown == endpoints).then(|| found.clone())
        };
        let what = format!("{name} has {endpoints} endpoints");
        self.edge
            .eventually(&what, async || find().await.is_some())
            .await;
        find().await.unwrap()
    }

    async fn connect(&self, name: &str) -> io::Result<TlsStream<tokio::net::TcpStream>> {
        let name = format!("{name}.example.test");
        let connected = self.edge.gateway.connect_tls(&self.edge.client, &name);
        let mut tls = connected.await?;
        tls.write_all(b"word").await?;
        Ok(tls)
    }

    /// What a client hears under this name, with the client's address; or for what reason it is refused.
    async fn hears(&mut self, name: &str) -> Result<(String, String), String> {
        let heard = async {
            let mut tls = self.connect(name).await?;
            let client = tls.get_ref().0.local_addr()?.to_string();
            let mut line = String::new();
            while !line.ends_with('\n') {
                line.push(char::from(tls.read_u8().await?));
            }
            tls.shutdown().await?;
            tls.read_to_end(&mut Vec::new()).await?;
            io::Result::Ok((line.trim_end().to_owned(), client))
        };
        let heard = timeout(PATIENCE, heard)
            .await
            .expect("neither word nor end");
        let record = self.edge.gateway.ended().await;
        assert_eq!(record["sni"], format!("{name}.example.test"), "{record}");
        heard.map_err(|_| record["reason"].as_str().unwrap().to_owned())
    }
}

/// The tags of a router for `NAME.example.test`, with these of its own and of its service.
fn with(name: &str, more: &[&str]) -> Vec<String> {
    let mut tags = tags(name).to_vec();
    if more.iter().any(|tag| tag.starts_with("R.rule=")) {
        tags.retain(|tag| !tag.contains(".rule="));
    }
    tags.extend(more.iter().map(|tag| {
        let router = format!("traefik.tcp.routers.{name}.");
        let service = format!("traefik.tcp.services.{name}.loadbalancer.");
        tag.replacen("R.", &router, 1).replacen("S.", &service, 1)
    }));
    tags
}

fn refs(tags: &[String]) -> Vec<&str> {
    tags.iter().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_of_nomads_services_mean_to_their_clients_what_they_do_in_consul() {
    let Some(mut scene) = Scene::start().await else {
        return;
    };
    let told = Upstream::told().await;
    // The service, its tags, and which header it gets or why nobody is served.
    let cases: [(&str, &[&str], Result<&str, &str>); 7] = [
        ("bare", &[], Ok("nothing")),
        (
            "old",
            &[
                "R.rulesyntax=v2",
                "R.rule=HostSNI(`older.example.test`, `old.example.test`)",
                "S.proxyprotocol.version=1",
            ],
            Ok("v1"),
        ),
        ("two", &["S.proxyprotocol=true"], Ok("v2")),
        (
            "near",
            &[
                "traefik.tcp.middlewares.local.ipallowlist.sourcerange=127.0.0.1",
                "R.middlewares=local@nomad",
            ],
            Ok("nothing"),
        ),
        (
            "far",
            &[
                "traefik.tcp.middlewares.away.ipwhitelist.sourcerange=192.0.2.0/24",
                "R.middlewares=away",
            ],
            Err("client_not_allowed"),
        ),
        ("gone", &["R.middlewares=gone@file"], Err("route_broken")),
        (
            "few",
            &[
                "traefik.tcp.middlewares.few.inflightconn.amount=1",
                "R.middlewares=few",
            ],
            Ok("nothing"),
        ),
    ];
    for (name, more, _) in cases {
        run(&scene.nomad, name, &told, &with(name, more));
    }
    for (name, _, expected) in cases {
        scene.route(&format!("{name}@nomad"), 1).await;
        let heard = scene.hears(name).await;
        let expected = match (&heard, expected) {
            (Ok((_, client)), Ok(version)) if version != "nothing" => {
                Ok(format!("{version} {client}"))
            }
            (_, expected) => expected.map(str::to_owned).map_err(str::to_owned),
        };
        assert_eq!(heard.map(|(said, _)| said), expected, "{name}");
    }
    // It has two names.
    let (said, client) = scene.hears("older").await.unwrap();
    assert_eq!(said, format!("v1 {client}"));
    let mut held = scene.connect("few").await.unwrap();
    held.read_u8().await.unwrap();
    assert_eq!(scene.hears("few").await, Err("in_flight_limit".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_in_nomad_that_fails_the_check_of_its_tags_is_passed_over() {
    let Some(mut scene) = Scene::start().await else {
        return;
    };
    let (well, ill) = (
        Upstream::greeter("well\n").await,
        Upstream::greeter("ill\n").await,
    );
    let asking = with(
        "pair",
        &[
            "S.healthcheck=true",
            "S.healthcheck.interval=1s",
            "S.healthcheck.expect=well",
        ],
    );
    for (job, upstream) in [("one", &well), ("other", &ill)] {
        let port = upstream.address.port();
        block_in_place(|| scene.nomad.run_as("pair", job, port, &refs(&asking)));
    }
    scene.route("pair@nomad", 2).await;
    let edge = &scene.edge;
    edge.eventually("both are checked", async || {
        let of = async |upstream: &Upstream| edge.gateway.endpoint(upstream.address).await;
        of(&well).await["check"] == "passing" && of(&ill).await["check"] == "failing"
    })
    .await;
    for _ in 0..4 {
        assert_eq!(scene.hears("pair").await.unwrap().0, "well");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_canary_of_a_deployment_has_the_clients_of_its_own_router_until_it_is_promoted() {
    let Some(mut scene) = Scene::start().await else {
        return;
    };
    let (old, new) = (
        Upstream::greeter("old\n").await,
        Upstream::greeter("new\n").await,
    );
    let stable = with("web", &[]);
    let mut canary = with("tried", &[]);
    canary.push("traefik.nomad.canary=true".to_owned());
    let roll_out = |scene: &Scene, upstream: &Upstream| {
        let port = upstream.address.port();
        let nomad = &scene.nomad;
        block_in_place(|| nomad.roll_out("web", port, &refs(&stable), &refs(&canary)));
    };
    roll_out(&scene, &old);
    scene.route("web@nomad", 1).await;
    assert_eq!(scene.hears("web").await.unwrap().0, "old");
    roll_out(&scene, &new);
    let tried = scene.route("web/tried@nomad", 1).await;
    let upstream = tried["upstream"]["name"].as_str().unwrap();
    assert!(upstream.starts_with("web/~"), "{tried}");
    let mut heard = BTreeSet::new();
    for _ in 0..4 {
        for name in ["web", "tried"] {
            heard.insert((name, scene.hears(name).await.unwrap().0));
        }
    }
    let expected = [("tried", "new".to_owned()), ("web", "old".to_owned())];
    assert_eq!(heard, expected.into());

    block_in_place(|| scene.nomad.promote("web"));
    let edge = &scene.edge;
    edge.eventually("the new version is the only one", async || {
        let (_, routes) = edge.gateway.ask_admin("/v1/routes").await;
        let port = format!("127.0.0.1:{}", old.address.port());
        !routes.contains("web/tried@nomad") && !routes.contains(&port)
    })
    .await;
    scene.route("web@nomad", 1).await;
    assert_eq!(scene.hears("web").await.unwrap().0, "new");
    assert_eq!(scene.hears("tried").await, Err("unknown_name".to_owned()));
}
