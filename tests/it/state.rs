//! A gateway that starts without its sources: what it serves from the disk, what it says of it, and what it refuses.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::authority::Authority;
use crate::consul::{Consul, Options, PERSISTENT, meshed, service};
use crate::gateway::ask;
use crate::ports;
use crate::program::Program;
use crate::support::{PATIENCE, wait_until};
use crate::upstream::Upstream;

mod age;
mod disk;
mod names;

const POLL: Duration = Duration::from_millis(5);

/// A service without a sidecar, and one behind one; each greets with its name.
const PLAIN: &str = "plain.example.test";
const MESH: &str = "mesh.example.test";

/// The files of one gateway, and who asks it. Its folder is that of the configuration.
struct Site {
    authority: Authority,
    client: Arc<ClientConfig>,
    keys: String,
    /// The table that names the agent, and what is routed by the file.
    consul: String,
    /// Where it is kept, as the configuration has it.
    state_dir: &'static str,
}

impl Site {
    fn new(consul: &Consul) -> Self {
        let consul = format!(
            "[consul]\naddress = \"{}\"\nmesh_identity = \"portcullis\"\n",
            consul.address()
        );
        Self {
            consul,
            ..Self::alone()
        }
    }

    /// Without Consul.
    fn alone() -> Self {
        let authority = Authority::new();
        authority.issue_files("edge", &["*.example.test"]);
        Self {
            client: Arc::new(authority.client(rustls::ALL_VERSIONS)),
            authority,
            keys: String::new(),
            consul: String::new(),
            state_dir: "\"state\"",
        }
    }

    fn folder(&self) -> PathBuf {
        self.authority.folder().join("state")
    }

    fn tables(&self) -> String {
        format!(
            "admin = \"127.0.0.1:0\"\nstate_dir = {}\n{}\n\
             certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
             log.format = \"json\"\n{}",
            self.state_dir, self.keys, self.consul
        )
    }

    /// Starts the gateway, which listens then.
    fn start(&self) -> Program {
        Program::start(&self.authority, &self.tables())
    }

    /// Writes the configuration anew, as it is by now; the gateway sees that it has changed.
    fn rewrite(&self) {
        let text = format!("listen = [\"127.0.0.1:0\"]\n{}", self.tables());
        self.authority.write("portcullis.toml", &text);
    }

    /// Who answers under this name, if anybody does.
    async fn greeting(&self, gateway: SocketAddr, host: &str) -> Option<String> {
        let tcp = TcpStream::connect(gateway).await.ok()?;
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let connecting = TlsConnector::from(Arc::clone(&self.client)).connect(name, tcp);
        let mut tls = connecting.await.ok()?;
        let mut bytes = [0; 64];
        let read = timeout(PATIENCE, tls.read(&mut bytes)).await.ok()?.ok()?;
        let text = String::from_utf8_lossy(&bytes[..read]).into_owned();
        (!text.is_empty()).then_some(text)
    }

    /// Waits until this one answers under a name.
    async fn serves(&self, gateway: &Program, host: &str, name: &str) {
        let late = Instant::now() + PATIENCE;
        while self.greeting(gateway.listener, host).await.as_deref() != Some(name) {
            assert!(Instant::now() < late, "{host}: {}", gateway.child.all());
            sleep(POLL).await;
        }
    }

    /// A gateway that serves both and has kept everything, ended as `systemctl stop` ends it.
    async fn learns(&self) {
        let gateway = self.start();
        ready(&gateway, |parts| {
            parts.lines().all(|line| line.ends_with(" ready"))
        })
        .await;
        self.serves(&gateway, PLAIN, "plain").await;
        self.serves(&gateway, MESH, "mesh").await;
        stop(gateway);
    }
}

fn stop(gateway: Program) {
    gateway.child.signal("TERM");
    let ended = gateway.child.finish();
    assert!(ended.status.success(), "{:?}", ended.status);
}

/// Waits until the parts of the status are so, and gives them with the status of `/readyz`.
async fn ready(gateway: &Program, is_so: impl Fn(&str) -> bool) -> (u16, String) {
    let late = Instant::now() + PATIENCE;
    loop {
        let (status, parts) = ask(gateway.admin, "/readyz").await;
        if is_so(&parts) {
            return (status, parts);
        }
        assert!(Instant::now() < late, "{parts}{}", gateway.child.all());
        sleep(POLL).await;
    }
}

/// The value of a series of `/metrics`.
async fn metric(gateway: &Program, series: &str) -> Option<f64> {
    crate::gateway::metric(gateway.admin, series).await
}

/// Waits for a line of the log that holds this.
fn says(gateway: &Program, text: &str) {
    gateway
        .child
        .wait_for(text, |line| line.contains(text).then_some(()));
}

fn routed(name: &str, host: &str, address: SocketAddr) -> Value {
    let tags = [
        "traefik.enable=true".to_owned(),
        format!("traefik.tcp.routers.{name}.rule=HostSNI(`{host}`)"),
        format!("traefik.tcp.routers.{name}.tls=true"),
    ];
    service(name, address, &tags.each_ref().map(String::as_str))
}

fn in_mesh(name: &str, host: &str, address: SocketAddr) -> Value {
    let mut service = routed(name, host, address);
    let tags = service["Tags"].as_array_mut().unwrap();
    tags.push("traefik.consulcatalog.connect=true".into());
    meshed(service, ports::free())
}

/// An agent with both services, whose sidecar serves on without it where it is Envoy.
struct World {
    consul: Consul,
    _plain: Upstream,
    _mesh: Upstream,
    _sidecar: crate::consul::Sidecar,
}

impl World {
    async fn start(options: Options) -> Option<Self> {
        let consul = Consul::start_with(options)?;
        let plain = Upstream::greeter("plain").await;
        let mesh = Upstream::greeter("mesh").await;
        consul.register(&routed("plain", PLAIN, plain.address));
        consul.register(&in_mesh("mesh", MESH, mesh.address));
        let sidecar = consul.envoy_sidecar("mesh")?;
        Some(Self {
            consul,
            _plain: plain,
            _mesh: mesh,
            _sidecar: sidecar,
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_starts_without_consul_serves_what_it_knew_and_says_so_until_consul_is_back()
{
    let Some(mut world) = World::start(PERSISTENT).await else {
        return;
    };
    let site = Site::new(&world.consul);
    site.learns().await;
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(site.folder()), 0o700);
    assert_eq!(mode(site.folder().join("identity")), 0o600);
    world.consul.kill();

    let begun = Instant::now();
    let gateway = site.start();
    let listens = begun.elapsed();
    site.serves(&gateway, PLAIN, "plain").await;
    let plain = begun.elapsed();
    site.serves(&gateway, MESH, "mesh").await;
    let mesh = begun.elapsed();
    println!(
        "without consul: listens after {listens:?}, serves after {plain:?}, the mesh after {mesh:?}"
    );
    let degraded = |parts: &str| parts.matches("from the disk").count() == 2;
    let (status, parts) = ready(&gateway, degraded).await;
    assert_eq!(status, 200, "{parts}");
    assert!(
        parts.contains("consul degraded: what was known of consul's services at 2"),
        "{parts}"
    );
    assert!(parts.contains("mesh identity degraded: "), "{parts}");
    assert!(parts.contains("state ready"), "{parts}");
    says(&gateway, "served from the disk");
    for part in ["consul", "mesh identity"] {
        let series = format!("portcullis_state_restored_timestamp_seconds{{part=\"{part}\"}}");
        assert!(metric(&gateway, &series).await.unwrap() > 1.7e9, "{part}");
    }

    world.consul.restart();
    ready(&gateway, |parts| {
        parts.lines().all(|line| line.ends_with(" ready"))
    })
    .await;
    let series = "portcullis_state_restored_timestamp_seconds";
    assert_eq!(
        metric(&gateway, &format!("{series}{{part=\"consul\"}}")).await,
        None
    );
    world.consul.deregister("plain");
    let late = Instant::now() + PATIENCE;
    while site.greeting(gateway.listener, PLAIN).await.is_some() {
        assert!(Instant::now() < late, "consul is obeyed again");
        sleep(POLL).await;
    }
    stop(gateway);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consul_that_hangs_is_waited_for_half_a_second_and_an_empty_one_is_doubted() {
    let Some(mut world) = World::start(Options::default()).await else {
        return;
    };
    let site = Site::new(&world.consul);
    site.learns().await;
    world.consul.freeze();
    let begun = Instant::now();
    let gateway = site.start();
    site.serves(&gateway, PLAIN, "plain").await;
    site.serves(&gateway, MESH, "mesh").await;
    println!(
        "with a consul that hangs: both served after {:?}",
        begun.elapsed()
    );
    let (status, parts) = ready(&gateway, |parts| {
        parts.contains("until consul has answered")
    })
    .await;
    assert_eq!(status, 200, "{parts}");
    stop(gateway);

    world.consul.restart_empty();
    let gateway = site.start();
    // The new cluster's leaf may come a moment later.
    let doubts =
        |parts: &str| parts.contains("no longer lists 2 of 2") && !parts.contains("not ready");
    let (status, parts) = ready(&gateway, doubts).await;
    assert_eq!(status, 200, "{parts}");
    assert!(parts.contains("lost its data"), "{parts}");
    site.serves(&gateway, PLAIN, "plain").await;
    stop(gateway);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_is_refused_loudly_and_so_is_what_another_key_has_sealed() {
    let Some(mut world) = World::start(Options::default()).await else {
        return;
    };
    let mut site = Site::new(&world.consul);
    site.authority.write("one.key", &"1a".repeat(32));
    site.authority.write("other.key", &"2b".repeat(32));
    site.keys = "state_key_file = \"one.key\"".to_owned();
    site.learns().await;
    let identity = fs::read(site.folder().join("identity")).unwrap();
    assert!(!identity.windows(7).any(|text| text == b"PRIVATE"));
    world.consul.kill();

    site.keys = "state_key_file = \"other.key\"".to_owned();
    refuses(&site, "sealed with another key").await;
    site.keys = String::new();
    refuses(&site, "no `state_key_file` is set").await;

    site.keys = "state_key_file = \"one.key\"\nstate_max_age = \"1s\"".to_owned();
    let written = fs::metadata(site.folder().join("consul"))
        .unwrap()
        .modified()
        .unwrap();
    wait_until("it is too old", || {
        written
            .elapsed()
            .is_ok_and(|age| age > Duration::from_secs(3))
    });
    refuses(&site, "and `state_max_age` is 1 s").await;

    site.keys = "state_key_file = \"one.key\"".to_owned();
    let gateway = site.start();
    site.serves(&gateway, MESH, "mesh").await;
    stop(gateway);
}

/// A gateway that is not ready for this reason, says it, and serves nothing.
async fn refuses(site: &Site, why: &str) {
    let gateway = site.start();
    says(&gateway, why);
    let (status, parts) = ready(&gateway, |parts| parts.matches(why).count() == 2).await;
    assert_eq!(status, 503, "{parts}");
    assert_eq!(site.greeting(gateway.listener, PLAIN).await, None);
    stop(gateway);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_used_degrades_the_status_and_nothing_else() {
    let Some(world) = World::start(Options::default()).await else {
        return;
    };
    let site = Site::new(&world.consul);
    let gateway = site.start();
    let is_ready = |parts: &str| parts.lines().all(|line| line.ends_with(" ready"));
    ready(&gateway, is_ready).await;
    let second = site.start();
    let (status, parts) = ready(&second, |parts| {
        parts.contains("state degraded: ") && !parts.contains("not ready")
    })
    .await;
    assert_eq!(status, 200, "{parts}");
    assert!(parts.contains("another process writes to"), "{parts}");
    site.serves(&second, MESH, "mesh").await;
    stop(gateway);
    ready(&second, is_ready).await;

    // Root writes everywhere: what the system would refuse to others is refused here by what it is.
    let set_mode = |mode| fs::set_permissions(site.folder(), fs::Permissions::from_mode(mode));
    set_mode(0o777).unwrap();
    world.consul.deregister("plain");
    let (status, parts) = ready(&second, |parts| parts.contains("chmod go-w")).await;
    assert_eq!(status, 200, "{parts}");
    site.serves(&second, MESH, "mesh").await;
    set_mode(0o700).unwrap();
    ready(&second, is_ready).await;
    stop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_what_is_from_the_disk_and_what_is_learnt_after_it_is_kept_there() {
    let Some(mut world) = World::start(PERSISTENT).await else {
        return;
    };
    let mut site = Site::new(&world.consul);
    site.learns().await;
    world.consul.kill();
    let gateway = site.start();
    let from_the_disk = |parts: &str| parts.matches("from the disk").count() == 2;
    ready(&gateway, from_the_disk).await;
    let series =
        |part: &str| format!("portcullis_state_restored_timestamp_seconds{{part=\"{part}\"}}");
    let mut before = Vec::new();
    for part in ["consul", "mesh identity"] {
        before.push(metric(&gateway, &series(part)).await.unwrap());
    }

    let whole = site.consul.clone();
    site.consul.push_str("allow_default_from_tags = true\n");
    site.rewrite();
    says(&gateway, "the new configuration serves");
    let (status, parts) = ready(&gateway, from_the_disk).await;
    assert_eq!(status, 200, "{parts}");
    site.serves(&gateway, PLAIN, "plain").await;
    site.serves(&gateway, MESH, "mesh").await;
    let mut after = Vec::new();
    for part in ["consul", "mesh identity"] {
        after.push(metric(&gateway, &series(part)).await.unwrap());
    }
    assert_eq!(before, after, "it is as old as it was");

    world.consul.restart();
    let is_ready = |parts: &str| parts.lines().all(|line| line.ends_with(" ready"));
    ready(&gateway, is_ready).await;
    for part in ["consul", "mesh identity"] {
        assert_eq!(metric(&gateway, &series(part)).await, None, "{part}");
    }
    world.consul.deregister("plain");
    let late = Instant::now() + PATIENCE;
    while site.greeting(gateway.listener, PLAIN).await.is_some() {
        assert!(Instant::now() < late, "consul is obeyed again");
        sleep(POLL).await;
    }
    stop(gateway);

    // What was learnt by those that came with the reload. (An agent that has just started may have taken the sidecar for
    // critical: only its route is certain.)
    world.consul.kill();
    let gateway = site.start();
    ready(&gateway, from_the_disk).await;
    let routes = async || ask(gateway.admin, "/v1/routes").await.1;
    let has_learnt =
        |routes: &str| ["mesh@consul", "plain@consul"].map(|name| routes.contains(name));
    assert_eq!(has_learnt(&routes().await), [true, false]);

    // Without Consul there is nothing of it, and with it again what is on the disk.
    site.consul.clear();
    site.rewrite();
    ready(&gateway, |parts| !parts.contains("consul")).await;
    for part in ["consul", "mesh identity"] {
        assert_eq!(metric(&gateway, &series(part)).await, None, "{part}");
    }
    assert_eq!(has_learnt(&routes().await), [false, false]);
    site.consul = whole;
    site.rewrite();
    ready(&gateway, from_the_disk).await;
    assert_eq!(has_learnt(&routes().await), [true, false]);
    stop(gateway);
}
