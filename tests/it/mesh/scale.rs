//! A thousand services in a real Consul: how soon each kind of change is live, what that costs, and that it touches no tunnel.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::{Host, POLL, Tunnel, at, configuration, plain_tags, tags};
use crate::authority::Authority;
use crate::consul::Consul;
use crate::gateway::ask;
use crate::peers;
use crate::program::Program;
use crate::soak::watch::{connections, cpu, memory};
use crate::soak::words::Words;
use crate::support::PATIENCE;

const SERVICES: usize = 1000;
/// Of each service; those that are changed and looked at have one.
const INSTANCES: usize = 5;
const NODES: usize = 20;

/// Every fifth service is dialled through sidecars, which are instances of services of their own.
const MESHED: usize = 5;

/// How often each kind of change is made, in quiet times.
const ROUNDS: usize = 15;

/// How long nothing changes before each such change.
const QUIET: Duration = Duration::from_secs(1);

/// How long changes come without pause, and how many in a second: one of each kind is timed, the others are anybody's.
const CHURN: Duration = Duration::from_secs(60);
const CHANGES: u32 = 20;

/// The figures are those of one machine in one hour, and of a build (`cargo test --release`): told, and not asserted.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_services_change_and_how_soon_each_change_is_live_is_told_while_no_tunnel_is_touched()
 {
    if !peers::long() {
        return;
    }
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    cluster.grow(0, 50);
    let gateway = Gateway::start(&cluster).await;
    gateway.changes_after_quiet(&cluster).await;
    drop(gateway);

    let start = Instant::now();
    cluster.grow(50, SERVICES);
    tell(&format!(
        "{SERVICES} services after {:.1?}",
        start.elapsed()
    ));
    let gateway = Gateway::start(&cluster).await;
    gateway.comes_to_rest().await;
    let is_over = Arc::new(AtomicBool::new(false));
    let tunnels = (0..20).map(|number| gateway.tunnel(number, Arc::clone(&is_over)));
    let tunnels: Vec<_> = tunnels.collect();
    gateway.changes_after_quiet(&cluster).await;
    gateway.changes_without_pause(&cluster).await;
    is_over.store(true, Ordering::Relaxed);
    let mut bytes = 0;
    for tunnel in tunnels {
        bytes += tunnel.await.expect("a tunnel was touched");
    }
    tell(&format!("no tunnel was touched: {bytes} bytes and back"));
}

/// A Consul, and what is behind its services: two servers that say who they are.
struct Cluster {
    consul: Consul,
    hosts: [Host; 2],
}

/// What is changed, each in a service of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// The name that clients ask for.
    Tag,
    /// Beside a critical instance another one comes, and goes.
    Instance,
    /// The check of the only instance says something else.
    Check,
    /// The only instance moves, and no check with it.
    Address,
}

impl Kind {
    /// It is the last by its name: where all services are read, it waits for the others.
    fn service(self) -> String {
        format!("x-{self:?}").to_lowercase()
    }
}

const KINDS: [Kind; 4] = [Kind::Tag, Kind::Instance, Kind::Check, Kind::Address];

impl Cluster {
    async fn start() -> Option<Arc<Self>> {
        let cluster = Self {
            consul: Consul::start()?,
            hosts: [Host::start("a").await, Host::start("b").await],
        };
        for node in 0..NODES {
            // Not `serfHealth`: by that the leader would see that no agent stands behind them, and take them out.
            let check = json!({ "CheckID": "alive", "Name": "Alive", "Status": "passing" });
            let node = format!("n{node}");
            cluster.register(&json!({ "Node": node, "Address": "127.0.0.1", "Check": check }));
        }
        for kind in KINDS {
            cluster.change(kind, 0);
        }
        let down = instance(&Kind::Instance.service(), 1, cluster.hosts[0].address);
        cluster.register(&critical(down));
        Some(Arc::new(cluster))
    }

    /// Registers these services, with their instances and sidecars.
    fn grow(&self, from: usize, to: usize) {
        let address = self.hosts[0].address;
        thread::scope(|scope| {
            for part in 0..8 {
                scope.spawn(move || {
                    for number in (from..to).skip(part).step_by(8) {
                        for of in 0..INSTANCES {
                            let name = format!("s{number}");
                            let body = instance(&name, of, address);
                            self.register(&body);
                            if number % MESHED == 0 {
                                self.register(&sidecar(&name, of, body));
                            }
                        }
                    }
                });
            }
        });
    }

    fn register(&self, body: &Value) {
        self.consul.put("/v1/catalog/register", body);
    }

    /// Makes a change of this kind, the one of this number, counted from 0; returns under which name who is seen then: one of
    /// the hosts, or nobody.
    fn change(&self, kind: Kind, number: usize) -> (String, Option<&'static str>) {
        let is_odd = number % 2 == 1;
        let [a, b] = [0, 1].map(|host: usize| self.hosts[host].address);
        let name = kind.service();
        let host = format!("{name}.example.test");
        match kind {
            Kind::Tag => {
                let host = format!("{name}{number}.example.test");
                let mut body = instance(&name, 0, a);
                body["Service"]["Tags"] = json!(plain_tags(&name, &host));
                self.register(&body);
                (host, Some("a"))
            }
            Kind::Instance if is_odd => {
                let body = json!({ "Node": "n0", "ServiceID": "x-instance-0" });
                self.consul.put("/v1/catalog/deregister", &body);
                (host, None)
            }
            Kind::Check if is_odd => {
                self.register(&critical(instance(&name, 0, a)));
                (host, None)
            }
            Kind::Address if is_odd => {
                self.register(&instance(&name, 0, b));
                (host, Some("b"))
            }
            Kind::Instance | Kind::Check | Kind::Address => {
                self.register(&instance(&name, 0, a));
                (host, Some("a"))
            }
        }
    }

    /// Makes one of all kinds of changes, in one of the services that nobody looks at.
    fn change_anything(&self, number: usize) {
        let [a, b] = [0, 1].map(|host: usize| self.hosts[host].address);
        let name = format!("s{}", number * 7 % SERVICES);
        self.register(&match number % 4 {
            0 => {
                let mut body = instance(&name, 4, a);
                let tags = body["Service"]["Tags"].as_array_mut().unwrap();
                tags.push(json!(format!("version={number}")));
                body
            }
            1 => instance(&name, INSTANCES, a),
            2 => critical(instance(&name, 3, a)),
            _ => instance(&name, 2, b),
        });
    }
}

/// The real program beside it, which is ready.
struct Gateway {
    program: Program,
    client: Arc<ClientConfig>,
    /// Of the agent.
    agent: SocketAddr,
    _authority: Authority,
}

impl Gateway {
    async fn start(cluster: &Cluster) -> Arc<Self> {
        let authority = Authority::new();
        authority.issue_files("edge", &["*.example.test"]);
        let limits = "[limits]\nper_source = \"off\"\naccept_rate = { per_second = \"off\" }\n";
        let tables = configuration(&at(&cluster.consul), limits);
        let tables = format!("log = {{ format = \"json\" }}\nstate_dir = \"state\"\n{tables}");
        let start = Instant::now();
        let gateway = Self {
            program: Program::start(&authority, &tables),
            client: Arc::new(authority.client(rustls::ALL_VERSIONS)),
            agent: cluster.consul.http(),
            _authority: authority,
        };
        while ask(gateway.program.admin, "/readyz").await.0 != 200 {
            assert!(start.elapsed() < 2 * PATIENCE, "it is not ready");
            sleep(POLL).await;
        }
        gateway.tell_of_itself(&format!("ready after {:.1?}", start.elapsed()));
        Arc::new(gateway)
    }

    fn tell_of_itself(&self, when: &str) {
        let resident = memory(self.process()) / 1024;
        let connections = self.connections();
        tell(&format!(
            "{when}: {resident} MiB resident, {connections} connections to the agent"
        ));
    }

    /// Waits until nothing is left of the first questions, and tells what it does from then on: within a minute, everything is
    /// read once again.
    async fn comes_to_rest(&self) {
        let late = Instant::now() + 2 * PATIENCE;
        while self.connections() >= 10 {
            assert!(Instant::now() < late, "it keeps its connections");
            sleep(QUIET).await;
        }
        let (start, before) = (Instant::now(), cpu(self.process()));
        let mut most = 0;
        while start.elapsed() < 2 * PATIENCE {
            most = most.max(self.connections());
            sleep(QUIET / 10).await;
        }
        let used = Duration::from_nanos(cpu(self.process()) - before);
        self.tell_of_itself(&format!(
            "at rest, {used:.1?} of CPU in {:?}",
            start.elapsed()
        ));
        assert!(most < 10 && used < PATIENCE / 10, "{most}, {used:?}");
    }

    /// Makes changes of each kind by turns, each when the last one has long been live.
    async fn changes_after_quiet(&self, cluster: &Cluster) {
        let mut took: BTreeMap<Kind, Vec<_>> = BTreeMap::new();
        for number in 1..=ROUNDS {
            for kind in KINDS {
                sleep(QUIET).await;
                let took = took.entry(kind).or_default();
                took.push(self.live(cluster, kind, number).await);
            }
        }
        for (kind, took) in took {
            tell_times(&format!("{kind:?} after quiet"), took);
        }
        for kind in KINDS {
            self.live(cluster, kind, ROUNDS + 1).await;
        }
    }

    /// Makes changes of any kind all the time, and looks when some of them are live.
    async fn changes_without_pause(self: &Arc<Self>, cluster: &Arc<Cluster>) {
        let (start, before) = (Instant::now(), cpu(self.process()));
        let others = Arc::clone(cluster);
        let others = thread::spawn(move || {
            let pace = Duration::from_secs(1) / (CHANGES - 4);
            for number in 0.. {
                let due = start + pace * number;
                if due > start + CHURN {
                    return number;
                }
                thread::sleep(due.saturating_duration_since(Instant::now()));
                others.change_anything(number as usize);
            }
            unreachable!("the time is over before");
        });
        let timed = KINDS.map(|kind| {
            let (gateway, cluster) = (Arc::clone(self), Arc::clone(cluster));
            tokio::spawn(async move {
                let mut took = Vec::new();
                // Not all four in one moment.
                sleep(QUIET / 4 * kind as u32).await;
                while start.elapsed() < CHURN {
                    let second = Instant::now();
                    took.push(gateway.live(&cluster, kind, took.len() + 1).await);
                    sleep(QUIET.saturating_sub(second.elapsed())).await;
                }
                took
            })
        });
        let (mut connections, mut resident) = (0, 0);
        while start.elapsed() < CHURN {
            connections = connections.max(self.connections());
            resident = resident.max(memory(self.process()) / 1024);
            sleep(QUIET / 4).await;
        }
        let used = Duration::from_nanos(cpu(self.process()) - before);
        let share = 100.0 * used.as_secs_f64() / start.elapsed().as_secs_f64();
        let others = others.join().unwrap();
        tell(&format!(
            "under {CHANGES} changes/s ({others} that nobody timed): {share:.0} % of a processor, at most {resident} MiB \
             resident and {connections} connections to the agent"
        ));
        let mut all = Vec::new();
        for (kind, took) in KINDS.into_iter().zip(timed) {
            let took = took.await.unwrap();
            all.extend(&took);
            tell_times(&format!("{kind:?} under them"), took);
        }
        tell_times("any kind under them", all);
        assert!(connections < 40, "{connections}");
    }

    /// Makes a change; how long it takes from then on until clients see it.
    async fn live(&self, cluster: &Cluster, kind: Kind, number: usize) -> Duration {
        let (host, expected) = cluster.change(kind, number);
        let start = Instant::now();
        loop {
            let opened = open(self.program.listener, &self.client, &host).await;
            let seen = opened.ok().map(|tunnel| tunnel.greeting);
            if seen.as_deref() == expected {
                return start.elapsed();
            }
            assert!(start.elapsed() < PATIENCE, "{host}: {seen:?}");
            sleep(POLL).await;
        }
    }

    /// Sends words through one of the services, and hears them again, until it is over; returns how many bytes that were.
    fn tunnel(&self, number: u64, is_over: Arc<AtomicBool>) -> JoinHandle<u64> {
        let (gateway, client) = (self.program.listener, Arc::clone(&self.client));
        tokio::spawn(async move {
            // None of those that are dialled through sidecars, which nobody runs.
            let host = format!("s{}.example.test", number * MESHED as u64 + 1);
            let mut tunnel = open(gateway, &client, &host).await.unwrap();
            let (words, mut sent) = (Words::new(number, true), 0);
            let mut block = vec![0; 4096];
            while !is_over.load(Ordering::Relaxed) {
                words.fill(sent, &mut block);
                tunnel.stream.write_all(&block).await.unwrap();
                let heard = timeout(PATIENCE, tunnel.stream.read_exact(&mut block));
                heard.await.unwrap().unwrap();
                assert!(words.are(sent, &block), "something else comes back");
                sent += block.len() as u64;
                sleep(QUIET / 20).await;
            }
            tunnel.end().await;
            sent
        })
    }

    fn process(&self) -> u32 {
        self.program.child.id()
    }

    fn connections(&self) -> usize {
        connections(self.process(), self.agent)
    }
}

async fn open(gateway: SocketAddr, client: &Arc<ClientConfig>, host: &str) -> io::Result<Tunnel> {
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let tcp = TcpStream::connect(gateway).await?;
    tcp.set_nodelay(true)?;
    let connector = TlsConnector::from(Arc::clone(client));
    Tunnel::open(connector.connect(name, tcp).await?).await
}

/// An instance of a service with its check, which passes, as of `/v1/catalog/register`.
fn instance(service: &str, of: usize, address: SocketAddr) -> Value {
    let host = format!("{service}.example.test");
    let number: Option<usize> = service.strip_prefix('s').and_then(|n| n.parse().ok());
    let tags = match number.is_some_and(|number| number % MESHED == 0) {
        true => tags(service, &host),
        false => plain_tags(service, &host),
    };
    let node = format!("n{}", (number.unwrap_or(0) * INSTANCES + of) % NODES);
    let id = format!("{service}-{of}");
    json!({
        "Node": node,
        "Address": "127.0.0.1",
        "SkipNodeUpdate": true,
        "Service": { "ID": id, "Service": service, "Tags": tags,
            "Address": address.ip(), "Port": address.port() },
        "Checks": [{ "Node": node, "CheckID": format!("service:{id}"), "Name": "TTL",
            "ServiceID": id, "Status": "passing" }],
    })
}

fn critical(mut body: Value) -> Value {
    body["Checks"][0]["Status"] = json!("critical");
    body
}

/// The sidecar of an instance.
fn sidecar(service: &str, of: usize, mut body: Value) -> Value {
    let (beside, id) = (
        format!("{service}-{of}"),
        format!("{service}-{of}-sidecar-proxy"),
    );
    body["Service"]["Kind"] = json!("connect-proxy");
    body["Service"]["ID"] = json!(id);
    body["Service"]["Service"] = json!(format!("{service}-sidecar-proxy"));
    body["Service"]["Proxy"] =
        json!({ "DestinationServiceName": service, "DestinationServiceID": beside });
    body["Checks"][0]["CheckID"] = json!(format!("service:{id}"));
    body["Checks"][0]["ServiceID"] = json!(id);
    body
}

fn tell_times(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    let ([median, p95, longest], of) = ([50, 95, 100].map(at), times.len());
    let times = format!("median {median:.1?}, p95 {p95:.1?}, longest {longest:.1?} of {of}");
    tell(&format!("{what}: {times}"));
}

/// To stderr itself: what a test says through `eprintln!`, libtest shows only if the test fails.
fn tell(what: &str) {
    writeln!(io::stderr().lock(), "{what}").unwrap();
}
