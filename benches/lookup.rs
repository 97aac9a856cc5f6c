//! What finding a route costs, and changing one, among ten hosts and among a hundred thousand.

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use portcullis::metrics::{Metrics, RouteMetrics};
use portcullis::name::{HostName, WildcardDepth};
use portcullis::rule::{Facts, Rule};
use portcullis::snapshot::table::Table;
use portcullis::snapshot::{Action, ListenerId, Listeners, Route, Source};

const SIZES: [usize; 3] = [10, 1_000, 100_000];

/// Beside the exact hosts: a look-up has to go past them whenever they could precede what it has found.
const REGEXPS: usize = 20;

criterion_group!(benches, find, change);
criterion_main!(benches);

fn find(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("find");
    let parts = Parts::new();
    for size in SIZES {
        let table = parts.table(size);
        // Names from all over the table, so that the large one does not run from the cache alone.
        let exact = (0..1024).map(|n| name(&host(n * 997 % size)));
        let miss = (0..1024).map(|n| name(&format!("nobody{n}.example.com")));
        let wildcard = (0..1024).map(|n| name(&format!("vm{n}.wild.example.com")));
        let regexp = (0..1024).map(|n| name(&format!("r{}-abc.example.net", n % REGEXPS)));
        for (what, names, found) in [
            ("exact", exact.collect::<Vec<_>>(), true),
            ("wildcard", wildcard.collect(), true),
            ("regexp", regexp.collect(), true),
            ("miss", miss.collect(), false),
        ] {
            assert!(
                names
                    .iter()
                    .all(|name| look_up(&table, name).is_some() == found)
            );
            let mut next = names.iter().cycle();
            group.bench_function(BenchmarkId::new(what, size), |bencher| {
                bencher.iter(|| look_up(&table, black_box(next.next().unwrap())));
            });
        }
    }
}

/// What a publisher does when one route among many changes: a copy of the table, with that route in it.
fn change(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("change");
    let parts = Parts::new();
    for size in SIZES {
        let table = parts.table(size);
        let mut number = 0;
        group.bench_function(BenchmarkId::new("one route", size), |bencher| {
            bencher.iter_batched(
                || {
                    number += 1;
                    parts.route(&host(number * 997 % size), "HostSNI(`changed.example.com`)")
                },
                |route| {
                    let mut next = table.clone();
                    next.insert(route);
                    next
                },
                criterion::BatchSize::PerIteration,
            );
        });
    }
}

fn look_up<'a>(table: &'a Table, name: &HostName) -> Option<&'a Arc<Route>> {
    let facts = Facts {
        name: Some(name),
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        alpn: &[],
        wildcard: WildcardDepth::One,
    };
    table.find(ListenerId(0), &facts)
}

fn host(number: usize) -> String {
    format!("host{number}.example.com")
}

fn name(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

/// What all routes share.
struct Parts {
    metrics: Arc<RouteMetrics>,
    upstream: Arc<str>,
}

impl Parts {
    fn new() -> Self {
        Self {
            metrics: Metrics::new().route("bench"),
            upstream: "u".into(),
        }
    }

    fn route(&self, name: &str, rule: &str) -> Arc<Route> {
        let rule = Rule::parse(rule).unwrap();
        Arc::new(Route {
            name: name.into(),
            source: Source::File,
            service: None,
            listeners: Listeners::All,
            priority: rule.priority(),
            rule,
            action: Action::PassThrough,
            upstream: Arc::clone(&self.upstream),
            mesh: false,
            max_connections: None,
            middlewares: Vec::new(),
            warnings: Vec::new(),
            metrics: Arc::clone(&self.metrics),
        })
    }

    fn table(&self, size: usize) -> Table {
        let mut table = Table::default();
        for host in (0..size).map(host) {
            table.insert(self.route(&host, &format!("HostSNI(`{host}`)")));
        }
        table.insert(self.route("wildcard", "HostSNI(`*.wild.example.com`)"));
        for n in 0..REGEXPS {
            let rule = format!(r"HostSNIRegexp(`^r{n}-[a-z]+\.example\.net$`)");
            table.insert(self.route(&format!("regexp{n}"), &rule));
        }
        table
    }
}
