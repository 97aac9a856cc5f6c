//! A gateway whose services a real Nomad tells it of.

use std::io;
use std::path::Path;
use std::sync::Arc;

use portcullis::config::{self, Checked, Environment};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::block_in_place;
use tokio::time::{Duration, Instant, sleep, timeout};

use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::support::PATIENCE;
use crate::upstream::Upstream;

pub(crate) mod agent;
mod keeping;
mod options;
mod tagged;

use agent::Nomad;

/// A gateway beside an agent, with a certificate for every `NAME.example.test`.
struct Edge {
    gateway: Gateway,
    client: Arc<ClientConfig>,
    authority: Authority,
}

impl Edge {
    /// Starts it with these keys in `[nomad]`, in this environment; it is ready.
    async fn start(authority: Authority, keys: &str, variables: &[(&str, &str)]) -> Self {
        Self::start_with(authority, "", keys, variables).await
    }

    /// The same with these keys before all tables.
    async fn start_with(
        authority: Authority,
        top: &str,
        keys: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        let edge = Self::unready(authority, top, keys, variables).await;
        edge.eventually("it is ready", async || edge.readyz().await.0 == 200)
            .await;
        edge
    }

    /// The same, which may never be ready.
    async fn unready(
        authority: Authority,
        top: &str,
        keys: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        authority.issue_files("edge", &["*.example.test"]);
        let text = format!(
            "listen = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n{top}\
             certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n[nomad]\nallow_local_addresses = true\n{keys}"
        );
        Self {
            gateway: Gateway::serve(checked(authority.folder(), &text, variables)).await,
            client: Arc::new(authority.client(rustls::ALL_VERSIONS)),
            authority,
        }
    }

    /// Stops it, as `systemctl stop` does; leaves what it had on the disk.
    async fn stop(self) -> Authority {
        self.gateway.shutdown.begin_drain();
        let finished = timeout(PATIENCE, self.gateway.finished).await;
        finished.unwrap().unwrap().unwrap();
        self.authority
    }

    async fn readyz(&self) -> (u16, String) {
        self.gateway.ask_admin("/readyz").await
    }

    /// Whether clients of this name are served.
    async fn serves(&self, name: &str) -> bool {
        self.tunnel(name).await.is_ok()
    }

    async fn tunnel(&self, name: &str) -> io::Result<()> {
        let name = format!("{name}.example.test");
        let mut tls = self.gateway.connect_tls(&self.client, &name).await?;
        tls.write_all(b"hello").await?;
        let mut answer = [0; 5];
        tls.read_exact(&mut answer).await?;
        assert_eq!(&answer, b"hello");
        Ok(())
    }

    async fn eventually(&self, what: &str, is_so: impl AsyncFn() -> bool) {
        let late = Instant::now() + PATIENCE;
        while !is_so().await {
            if Instant::now() > late {
                let routes = self.gateway.ask_admin("/v1/routes").await;
                panic!("in vain until {what}: {:?} {routes:?}", self.readyz().await);
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

fn checked(folder: &Path, text: &str, variables: &[(&str, &str)]) -> Checked {
    let environment: Environment = variables.iter().copied().collect();
    let path = folder.join("portcullis.toml");
    config::parse_with(text, &path, &environment).unwrap_or_else(|wrong| panic!("{wrong}"))
}

/// The tags of a route to `NAME.example.test`.
fn tags(name: &str) -> [String; 3] {
    [
        "traefik.enable=true".to_owned(),
        format!("traefik.tcp.routers.{name}.rule=HostSNI(`{name}.example.test`)"),
        format!("traefik.tcp.routers.{name}.tls=true"),
    ]
}

fn run(nomad: &Nomad, job: &str, upstream: &Upstream, tags: &[String]) {
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    block_in_place(|| nomad.run(job, upstream.address.port(), &tags));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_route_of_a_job_appears_changes_and_disappears_for_a_token_that_may_only_read_jobs() {
    let Some(nomad) = block_in_place(|| Nomad::start(true)) else {
        return;
    };
    let authority = Authority::new();
    let token = block_in_place(|| nomad.reader());
    authority.write("nomad-token", &token);
    let address = nomad.address();
    let keys = format!("address = \"{address}\"\ntoken_file = \"nomad-token\"\n");
    let edge = Edge::start(authority, &keys, &[]).await;
    let (echo, other) = (Upstream::echo().await, Upstream::echo().await);
    run(&nomad, "stays", &other, &tags("stays"));
    run(&nomad, "web", &echo, &tags("web"));
    edge.eventually("both are served", async || {
        edge.serves("web").await && edge.serves("stays").await
    })
    .await;
    let (_, routes) = edge.gateway.ask_admin("/v1/routes").await;
    assert!(routes.contains("\"web@nomad\""), "{routes}");
    let (_, metrics) = edge.gateway.ask_admin("/metrics").await;
    let counted = "portcullis_discovery_services{source=\"nomad\",state=\"routed\"} 2";
    assert!(metrics.contains(counted), "{metrics}");

    run(&nomad, "web", &echo, &tags("moved"));
    edge.eventually("it has another name", async || {
        edge.serves("moved").await && !edge.serves("web").await
    })
    .await;
    let mut in_mesh = tags("moved").to_vec();
    in_mesh.push("traefik.consulcatalog.connect=true".to_owned());
    run(&nomad, "web", &echo, &in_mesh);
    edge.eventually("it is refused, as it asks for a mesh", async || {
        !edge.serves("moved").await
    })
    .await;
    let (_, routes) = edge.gateway.ask_admin("/v1/routes").await;
    assert!(routes.contains("have no sidecars"), "{routes}");

    block_in_place(|| nomad.stop("web"));
    edge.eventually("it is gone", async || {
        let (_, routes) = edge.gateway.ask_admin("/v1/routes").await;
        !routes.contains("web@nomad")
    })
    .await;
    assert!(edge.serves("stays").await && edge.readyz().await.1.contains("nomad ready"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_takes_no_route_with_it_and_is_followed_when_it_is_back() {
    let Some(mut nomad) = block_in_place(|| Nomad::start(false)) else {
        return;
    };
    let echo = Upstream::echo().await;
    run(&nomad, "web", &echo, &tags("web"));
    let keys = format!("address = \"{}\"\n", nomad.address());
    let edge = Edge::start(Authority::new(), &keys, &[]).await;
    edge.eventually("it is served", async || edge.serves("web").await)
        .await;

    block_in_place(|| nomad.kill());
    edge.eventually("that is told", async || {
        edge.readyz()
            .await
            .1
            .contains("nomad degraded: what was known")
    })
    .await;
    assert_eq!(edge.readyz().await.0, 200);
    assert!(edge.serves("web").await);

    block_in_place(|| nomad.restart());
    run(&nomad, "new", &echo, &tags("new"));
    edge.eventually("what is new is served too", async || {
        let is_ready = edge.readyz().await.1.contains("nomad ready");
        is_ready && edge.serves("new").await && edge.serves("web").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_of_nomad_needs_no_address_no_token_and_no_policy() {
    let Some(nomad) = block_in_place(|| Nomad::start(true)) else {
        return;
    };
    let echo = Upstream::echo().await;
    run(&nomad, "web", &echo, &tags("web"));
    let secrets = block_in_place(|| nomad.secrets("web"));
    let variables = [
        ("NOMAD_SECRETS_DIR", secrets.to_str().unwrap()),
        ("NOMAD_NAMESPACE", "default"),
        ("NOMAD_ADDR_http", "127.0.0.1:1"),
    ];
    let edge = Edge::start(Authority::new(), "", &variables).await;
    edge.eventually("it is served", async || edge.serves("web").await)
        .await;
}
