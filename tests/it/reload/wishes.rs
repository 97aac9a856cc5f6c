//! Wishes for a reload from several sides at once, and names that have to be resolved for it.

use std::sync::Arc;
use std::time::Instant;

use rustls::version::TLS13;
use tokio::task::JoinSet;

use super::{EDGE, route, said};
use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::support::PATIENCE;
use crate::upstream::Upstream;

#[tokio::test]
async fn a_storm_of_wishes_is_a_few_reloads_and_each_is_told_the_outcome() {
    let authority = Authority::new();
    authority.issue_files("edge", &["*.example.test"]);
    let greeter = Upstream::greeter("hello").await;
    let tables = |more: &str| {
        let route = route("a", &greeter);
        format!("admin = \"127.0.0.1:0\"\n{EDGE}{route}{more}")
    };
    let gateway = Gateway::start(&authority, &tables("")).await;
    for (more, is_good) in [
        ("[limits]\ndrain_timeout = \"7s\"\n", true),
        ("oops = 1\n", false),
    ] {
        gateway.rewrite(&authority, &tables(more));
        let begin = Instant::now();
        let mut storm = JoinSet::new();
        for _ in 0..1000 {
            let reload = gateway.reload.clone();
            // As SIGHUP does, and as a request does.
            reload.ask("a test");
            storm.spawn(async move { reload.done("a test").await });
        }
        for told in storm.join_all().await {
            assert_eq!(told.is_ok(), is_good, "{told:?}");
        }
        assert!(begin.elapsed() < PATIENCE);
    }
    let (_, metrics) = gateway.ask_admin("/metrics").await;
    let reads = metrics.lines().filter_map(|line| {
        let count = line.strip_prefix("portcullis_configuration_reads_total{")?;
        count.rsplit_once(' ')?.1.parse::<u64>().ok()
    });
    let reads: u64 = reads.sum();
    eprintln!("{reads} readings for 4,000 wishes");
    assert!((2..40).contains(&reads), "{reads}");
    let client = Arc::new(authority.client(&[&TLS13]));
    let tls = gateway.connect_tls(&client, "a.example.test").await;
    assert_eq!(said(tls.unwrap()).await, "hello");
}

#[tokio::test]
async fn a_route_to_a_name_serves_from_the_moment_in_which_it_is_there() {
    let authority = Authority::new();
    authority.issue_files("edge", &["*.example.test"]);
    let greeter = Upstream::greeter("hello").await;
    let gateway = Gateway::start(&authority, &format!("{EDGE}{}", route("a", &greeter))).await;
    let client = Arc::new(authority.client(&[&TLS13]));
    // The address is 127.0.0.1 alone: the other address that the name may have refuses.
    let port = greeter.address.port();
    for _ in 0..5 {
        let named =
            format!("[routes.a]\nhost = \"a.example.test\"\nupstream = \"localhost:{port}\"\n");
        gateway.rewrite(&authority, &format!("{EDGE}{named}"));
        gateway.reload.done("a test").await.unwrap();
        let tls = gateway.connect_tls(&client, "a.example.test").await;
        assert_eq!(said(tls.unwrap()).await, "hello");
        gateway.rewrite(&authority, &format!("{EDGE}{}", route("a", &greeter)));
        gateway.reload.done("a test").await.unwrap();
    }
}
