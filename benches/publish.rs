//! What publishing one change among a hundred thousand routes costs, and what look-ups notice of it meanwhile.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use portcullis::config;
use portcullis::metrics::Metrics;
use portcullis::name::{HostName, WildcardDepth};
use portcullis::rule::{Facts, Rule};
use portcullis::snapshot::compile::{Inputs, compile, update};
use portcullis::snapshot::service::{
    Service, ServiceKey, ServiceRoute, ServiceTls, ServiceUpstream,
};
use portcullis::snapshot::upstream::Endpoint;
use portcullis::snapshot::{ListenerId, Snapshot, Source};

const SIZES: [usize; 2] = [1_000, 100_000];

/// How long look-ups are watched: some millions of them.
const WATCH: Duration = Duration::from_secs(2);

criterion_group!(benches, publish, look_up_meanwhile);
criterion_main!(benches);

/// From a change to the store that makes it live, with the end of the snapshot that it replaces.
fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish");
    for size in SIZES {
        let gate = Gate::new(size);
        let mut number = 0;
        let mut next = || {
            number += 1;
            number
        };
        group.bench_function(BenchmarkId::new("an endpoint", size), |bencher| {
            bencher.iter_custom(|times| {
                let one = |n| gate.timed(service(n * 997 % size, n));
                (0..times).map(|_| one(next())).sum()
            });
        });
        group.bench_function(BenchmarkId::new("a route added", size), |bencher| {
            bencher.iter_custom(|times| {
                let one = |n| {
                    let time = gate.timed(service(size + n, 0));
                    gate.publish(&gone(size + n));
                    time
                };
                (0..times).map(|_| one(next())).sum()
            });
        });
        group.bench_function(BenchmarkId::new("a route removed", size), |bencher| {
            bencher.iter_custom(|times| {
                let one = |n| {
                    let n = n * 997 % size;
                    let time = gate.timed(gone(n));
                    gate.publish(&service(n, 0));
                    time
                };
                (0..times).map(|_| one(next())).sum()
            });
        });
    }
    // What a new identity or a name's new address costs.
    let gate = Gate::new(100_000);
    group.sample_size(10);
    group.bench_function("everything/100000", |bencher| {
        bencher.iter(|| {
            let next = compile(&gate.inputs, Some(&gate.cell.load()), &gate.metrics);
            gate.cell.store(Arc::new(next));
        });
    });
}

/// Look-ups on a thread of their own, as connections make them, while nothing and while much is published.
fn look_up_meanwhile(_: &mut Criterion) {
    let gate = Gate::new(100_000);
    let names: Vec<HostName> = (0..1024)
        .map(|n| HostName::parse(&host(n * 97)).unwrap())
        .collect();
    for (what, pause) in [
        ("publishing nothing", None),
        ("100 changes a second", Some(Duration::from_millis(10))),
        ("one change after the other", Some(Duration::ZERO)),
    ] {
        let over = AtomicBool::new(false);
        let (mut times, published) = std::thread::scope(|scope| {
            let reader = scope.spawn(|| gate.look_up(&names, WATCH));
            let writer = scope.spawn(|| {
                let mut published = 0;
                while let Some(pause) = pause.filter(|_| !over.load(Ordering::Relaxed)) {
                    published += 1;
                    gate.publish(&service(published * 997 % 100_000, published));
                    std::thread::sleep(pause);
                }
                published
            });
            let times = reader.join().unwrap();
            over.store(true, Ordering::Relaxed);
            (times, writer.join().unwrap())
        });
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        println!(
            "look-up while {what} ({published} published, {} look-ups): p50 {} ns, p99 {} ns, p99.9 {} ns, most {} ns",
            times.len(),
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0),
        );
    }
}

/// What a publisher holds.
struct Gate {
    inputs: Inputs,
    metrics: Arc<Metrics>,
    cell: ArcSwap<Snapshot>,
}

/// As `compile::update` takes it.
struct Changed(BTreeMap<ServiceKey, Option<Arc<Service>>>);

impl Gate {
    fn new(size: usize) -> Self {
        let file = "[routes.file]\nhost = \"file.test\"\nupstream = \"10.0.0.1:1\"\n";
        let checked = config::parse(file, Path::new("portcullis.toml"));
        let inputs = Inputs {
            config: checked
                .unwrap_or_else(|mistakes| panic!("{mistakes}"))
                .config,
            listeners: BTreeMap::new(),
            own: Arc::default(),
            certificates: Arc::default(),
            policies: BTreeMap::new(),
            client_configs: BTreeMap::new(),
            transport_configs: BTreeMap::new(),
            addresses: BTreeMap::new(),
            restored: BTreeMap::new(),
            identity: None,
            denied: Default::default(),
        };
        let metrics = Metrics::new();
        let all = (0..size).flat_map(|n| service(n, 0).0);
        let first = compile(&inputs, None, &metrics);
        let full = update(&inputs, &first, &all.collect(), &metrics);
        Self {
            inputs,
            metrics,
            cell: ArcSwap::from_pointee(full),
        }
    }

    fn publish(&self, Changed(services): &Changed) {
        let next = update(&self.inputs, &self.cell.load(), services, &self.metrics);
        self.cell.store(Arc::new(next));
    }

    fn timed(&self, change: Changed) -> Duration {
        let start = Instant::now();
        self.publish(&change);
        start.elapsed()
    }

    /// The time of each look-up, in nanoseconds.
    fn look_up(&self, names: &[HostName], watch: Duration) -> Vec<u64> {
        let mut times = Vec::with_capacity(1 << 24);
        let begin = Instant::now();
        for name in names.iter().cycle() {
            let start = Instant::now();
            let snapshot = self.cell.load_full();
            let facts = Facts {
                name: Some(name),
                client: IpAddr::V4(Ipv4Addr::LOCALHOST),
                alpn: &[],
                wildcard: WildcardDepth::One,
            };
            let route = snapshot.table.find(ListenerId(0), &facts).unwrap();
            assert!(snapshot.upstream(&route.upstream).is_some());
            drop(snapshot);
            times.push(u64::try_from(start.elapsed().as_nanos()).unwrap());
            if start - begin > watch || times.len() == times.capacity() {
                return times;
            }
        }
        times
    }
}

fn host(n: usize) -> String {
    format!("host{n}.example.com")
}

fn key(n: usize) -> ServiceKey {
    ServiceKey {
        place: None,
        source: Source::Consul,
        name: format!("s{n}").into(),
    }
}

/// A service with one route and one endpoint, which `version` tells from the one before.
fn service(n: usize, version: usize) -> Changed {
    let name: Arc<str> = format!("s{n}@consul").into();
    let last = u32::try_from(version % (1 << 24)).unwrap();
    let address = SocketAddr::from((Ipv4Addr::from_bits(10 << 24 | last), 22));
    let service = Service {
        key: key(n),
        upstreams: vec![ServiceUpstream {
            dialling: Ok(Default::default()),
            name: Arc::clone(&name),
            endpoints: vec![Endpoint {
                address,
                configured: address.to_string().into(),
                weight: 1,
            }],
            named: Vec::new(),
            mesh: None,
            empty: None,
            check: None,
        }],
        routes: vec![ServiceRoute {
            name: Arc::clone(&name),
            rule: Rule::parse(&format!("HostSNI(`{}`)", host(n))).unwrap(),
            priority: None,
            tls: ServiceTls::PassThrough,
            upstream: name,
            broken: None,
            middlewares: Vec::new(),
            mesh: false,
            warnings: Vec::new(),
        }],
        middlewares: BTreeMap::new(),
        skipped: Vec::new(),
        restored: None,
        notes: Vec::new(),
    };
    Changed([(key(n), Some(Arc::new(service)))].into())
}

fn gone(n: usize) -> Changed {
    Changed([(key(n), None)].into())
}
