//! How soon a change in Consul is live: told, and not asserted, since on a busy machine it would fail for nothing.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use super::{Host, Mesh, plain_tags, tagged, tags};
use crate::consul::meshed;
use crate::support::PATIENCE;
use crate::{peers, ports};

/// How many services come, one after the other.
const SERVICES: usize = 50;

/// How long nothing changes before each change, as most changes of a cluster come after longer whiles.
const QUIET: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread")]
async fn fifty_services_come_and_go_and_the_time_until_each_is_live_is_told() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    for (how, pause) in [("after a quiet while", QUIET), ("at once", Duration::ZERO)] {
        let [mut registered, mut moved, mut gone] = [(); 3].map(|()| Vec::new());
        for number in 0..SERVICES {
            let name = format!("vm{number}");
            let [first, second] = ["a", "b"].map(|a| format!("{a}{number}.example.test"));
            sleep(pause).await;
            let start = scene.register(&scene.service(&name, &first));
            scene.until(&first, true).await;
            registered.push(start.elapsed());

            sleep(pause).await;
            let start = scene.register(&scene.service(&name, &second));
            scene.until(&second, true).await;
            moved.push(start.elapsed());

            sleep(pause).await;
            let start = Instant::now();
            let path = format!("/v1/agent/service/deregister/{name}");
            scene.mesh.consul.put(&path, &Value::Null);
            scene.until(&second, false).await;
            gone.push(start.elapsed());
        }
        tell(&format!("registered, {how}"), registered);
        tell(&format!("moved to another host, {how}"), moved);
        tell(&format!("deregistered, {how}"), gone);
    }
}

/// As far as `/v1/routes` tells: fifty sidecars would take too much of a machine.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_services_come_into_the_mesh_and_the_time_until_each_can_be_dialled_is_told() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    let mut registered = Vec::new();
    for number in 0..SERVICES {
        let name = format!("vm{number}");
        let tags = tags(&name, &format!("{name}.example.test"));
        let service = meshed(tagged(&name, scene.host.address, &tags), ports::free());
        sleep(QUIET).await;
        let start = scene.register(&service);
        let route = format!("{name}@consul");
        while scene.mesh.routes().await.endpoints(&route).is_empty() {
            assert!(start.elapsed() < PATIENCE, "{route}");
        }
        registered.push(start.elapsed());
    }
    tell("registered with a sidecar, after a quiet while", registered);
}

/// What the catalog itself is told is known there when it answers: the rest of the time is the gateway's.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_services_come_into_the_catalog_and_the_time_until_each_is_live_is_told() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    let mut registered = Vec::new();
    for number in 0..SERVICES {
        let name = format!("vm{number}");
        let host_name = format!("{name}.example.test");
        let service = scene.service(&name, &host_name);
        let body = json!({
            "Node": "elsewhere",
            "Address": "127.0.0.1",
            "Service": {
                "Service": service["Name"],
                "Address": service["Address"],
                "Port": service["Port"],
                "Tags": service["Tags"],
            },
        });
        sleep(QUIET).await;
        scene.mesh.consul.put("/v1/catalog/register", &body);
        let start = Instant::now();
        scene.until(&host_name, true).await;
        registered.push(start.elapsed());
    }
    tell("in the catalog, after a quiet while", registered);
}

/// A gateway, and what stands behind every service.
struct Scene {
    mesh: Mesh,
    host: Host,
}

impl Scene {
    /// None where long tests are not wanted, or there is no Consul.
    async fn start() -> Option<Self> {
        if !peers::long() {
            return None;
        }
        let scene = Self {
            mesh: Mesh::start().await?,
            host: Host::start("vm").await,
        };
        // When the last service goes, it is doubted whether that is so.
        scene.register(&scene.service("last", "last.example.test"));
        scene.until("last.example.test", true).await;
        Some(scene)
    }

    /// A service that is dialled plainly, and has no checks.
    fn service(&self, name: &str, host_name: &str) -> Value {
        let tags = plain_tags(name, host_name);
        let mut service = tagged(name, self.host.address, &tags);
        service.as_object_mut().unwrap().remove("Check");
        service
    }

    /// The agent takes it, and tells the catalog as soon as it can.
    fn register(&self, service: &Value) -> Instant {
        let start = Instant::now();
        let path = "/v1/agent/service/register";
        self.mesh.consul.put(path, service);
        start
    }

    /// Waits until a client gets through, or no more. Where there is no route, the alert comes before a handshake has
    /// begun: a try costs little.
    async fn until(&self, host_name: &str, live: bool) {
        let late = Instant::now() + PATIENCE;
        while self.mesh.open(host_name).await.is_ok() != live {
            assert!(Instant::now() < late, "{host_name}");
        }
    }
}

/// Written to stderr itself: what a test says through `eprintln!`, libtest shows only if the test fails.
fn tell(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    let line = format!(
        "{what}: median {:.1?}, p90 {:.1?}, longest {:.1?}\n",
        at(50),
        at(90),
        at(100)
    );
    std::io::stderr().lock().write_all(line.as_bytes()).unwrap();
}
