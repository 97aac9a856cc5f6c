//! What one snapshot takes over from the last, and what a broken part takes down.

use std::path::Path;

use super::*;
use crate::name::{SpiffeId, WildcardDepth};
use crate::rule::Facts;
use crate::tls::client;
use crate::tls::options::Options;
use crate::tls::verify::Proof;

mod former;
mod middlewares;
mod random;
mod services;
mod transports;
mod upstreams;
mod weighted;

const ROUTES: &str = r#"
    [routes.one]
    host = "one.test"
    passthrough = true
    upstream = "a"
    [routes.two]
    host = "two.test"
    passthrough = true
    upstream = "b"
    [upstreams.a]
    endpoints = ["10.0.0.1:22", "vm.internal:22"]
    [upstreams.b]
    address = "10.0.0.2:22"
"#;

fn inputs(text: &str) -> Inputs {
    let checked = config::parse(text, Path::new("portcullis.toml"));
    Inputs {
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
        denied: BTreeSet::new(),
    }
}

fn name(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

fn route<'a>(snapshot: &'a Snapshot, host: &str) -> Option<&'a Arc<Route>> {
    let name = name(host);
    let facts = Facts {
        name: Some(&name),
        client: "192.0.2.1".parse().unwrap(),
        alpn: &[],
        wildcard: WildcardDepth::One,
    };
    snapshot.table.find(ListenerId(0), &facts)
}

fn addresses(snapshot: &Snapshot, upstream: &str) -> Vec<String> {
    let endpoints = snapshot.upstream(upstream).unwrap().endpoints().iter();
    endpoints
        .map(|endpoint| endpoint.address.to_string())
        .collect()
}

fn policy() -> Arc<ServerPolicy> {
    let certificates = Arc::new(Certificates::default());
    Arc::new(ServerPolicy::new(&Options::default(), certificates, None).unwrap())
}

#[test]
fn without_a_change_every_route_and_upstream_is_the_same_object() {
    let (inputs, metrics) = (inputs(ROUTES), Metrics::new());
    let first = compile(&inputs, None, &metrics);
    let second = compile(&inputs, Some(&first), &metrics);
    assert_eq!((first.generation, second.generation), (1, 2));
    for host in ["one.test", "two.test"] {
        assert!(Arc::ptr_eq(
            route(&first, host).unwrap(),
            route(&second, host).unwrap()
        ));
    }
    for upstream in ["a", "b"] {
        assert!(Arc::ptr_eq(
            first.upstream(upstream).unwrap(),
            second.upstream(upstream).unwrap()
        ));
    }
}

#[test]
fn new_addresses_of_a_name_change_its_upstream_alone_and_keep_its_state() {
    let (mut inputs, metrics) = (inputs(ROUTES), Metrics::new());
    let first = compile(&inputs, None, &metrics);
    assert_eq!(addresses(&first, "a"), ["10.0.0.1:22"]);
    let answer = ["10.0.0.8", "fd00::8"].map(|ip| ip.parse().unwrap());
    inputs.addresses.insert(name("vm.internal"), answer.into());
    let second = compile(&inputs, Some(&first), &metrics);
    assert_eq!(
        addresses(&second, "a"),
        ["10.0.0.1:22", "10.0.0.8:22", "[fd00::8]:22"]
    );
    assert_eq!(
        addresses(&first, "a"),
        ["10.0.0.1:22"],
        "the old snapshot is as it was"
    );
    assert!(Arc::ptr_eq(
        &first.upstream("a").unwrap().state,
        &second.upstream("a").unwrap().state
    ));
    assert!(Arc::ptr_eq(
        first.upstream("b").unwrap(),
        second.upstream("b").unwrap()
    ));
    assert!(Arc::ptr_eq(
        route(&first, "two.test").unwrap(),
        route(&second, "two.test").unwrap()
    ));
}

#[test]
fn a_changed_route_is_replaced_and_one_that_is_gone_is_not_found() {
    let metrics = Metrics::new();
    let first = compile(&inputs(ROUTES), None, &metrics);
    let changed = ROUTES
        .replace("\"one.test\"", "\"new.test\"")
        .replace("[routes.two]", "[routes.other]");
    let second = compile(&inputs(&changed), Some(&first), &metrics);
    assert!(route(&second, "one.test").is_none());
    assert_eq!(&*route(&second, "new.test").unwrap().name, "one");
    assert_eq!(&*route(&second, "two.test").unwrap().name, "other");
    assert_eq!(second.table.routes().len(), 2);
    assert_eq!(
        &*route(&first, "one.test").unwrap().name,
        "one",
        "the old snapshot is as it was"
    );
}

#[test]
fn a_route_that_changes_goes_on_with_its_counters() {
    let metrics = Metrics::new();
    let first = compile(&inputs(ROUTES), None, &metrics);
    let changed = ROUTES.replace("\"one.test\"", "\"new.test\"");
    let second = compile(&inputs(&changed), Some(&first), &metrics);
    let counters = |snapshot: &Snapshot, host| Arc::clone(&route(snapshot, host).unwrap().metrics);
    assert!(Arc::ptr_eq(
        &counters(&first, "one.test"),
        &counters(&second, "new.test")
    ));
}

const TERMINATED: &str = r#"
    [tls.options.strict]
    min_version = "1.3"
    [routes.strict]
    host = "strict.test"
    tls_options = "strict"
    upstream = "10.0.0.1:22"
    [routes.default]
    host = "default.test"
    upstream = "10.0.0.1:22"
    [routes.pass]
    host = "pass.test"
    passthrough = true
    upstream = "10.0.0.1:22"
"#;

fn terminated() -> Inputs {
    // `check` would warn that no certificate is there; a snapshot does not mind.
    let text = TERMINATED;
    let mut inputs = inputs(text);
    inputs.policies.insert(None, Ok(policy()));
    inputs
        .policies
        .insert(Some("strict".to_owned()), Ok(policy()));
    inputs
}

fn action(snapshot: &Snapshot, host: &str) -> Action {
    route(snapshot, host).unwrap().action.clone()
}

#[test]
fn a_broken_option_set_takes_exactly_its_routes_down_and_is_not_replaced_by_another() {
    let (mut inputs, metrics) = (terminated(), Metrics::new());
    let first = compile(&inputs, None, &metrics);
    assert!(matches!(
        action(&first, "strict.test"),
        Action::Terminate { .. }
    ));
    inputs
        .policies
        .insert(Some("strict".to_owned()), Err("no CA".to_owned()));
    let second = compile(&inputs, Some(&first), &metrics);
    assert_eq!(
        action(&second, "strict.test"),
        Action::Broken("option set `strict`: no CA".to_owned())
    );
    for host in ["default.test", "pass.test"] {
        assert!(Arc::ptr_eq(
            route(&first, host).unwrap(),
            route(&second, host).unwrap()
        ));
    }
    inputs.policies.remove(&Some("strict".to_owned()));
    let third = compile(&inputs, Some(&second), &metrics);
    assert_eq!(
        action(&third, "strict.test"),
        Action::Broken("option set `strict` does not exist".to_owned())
    );
}

#[test]
fn a_new_policy_under_the_same_name_reaches_its_routes() {
    let (mut inputs, metrics) = (terminated(), Metrics::new());
    let first = compile(&inputs, None, &metrics);
    let new = policy();
    inputs
        .policies
        .insert(Some("strict".to_owned()), Ok(Arc::clone(&new)));
    let second = compile(&inputs, Some(&first), &metrics);
    let Action::Terminate { policy, .. } = action(&second, "strict.test") else {
        panic!("it is not terminated");
    };
    assert!(Arc::ptr_eq(&policy, &new));
    assert_eq!(
        action(&first, "default.test"),
        action(&second, "default.test")
    );
}

#[test]
fn an_upstream_whose_tls_is_broken_is_never_plain() {
    let text = r#"
        [routes.one]
        host = "one.test"
        passthrough = true
        upstream = "u"
        [routes.two]
        host = "two.test"
        passthrough = true
        upstream = "10.0.0.2:22"
        [upstreams.u]
        address = "10.0.0.1:22"
        tls = { server_name = "db.test" }
    "#;
    let (mut inputs, metrics) = (inputs(text), Metrics::new());
    inputs
        .client_configs
        .insert("u".to_owned(), Err("no roots".to_owned()));
    let first = compile(&inputs, None, &metrics);
    let transport = |snapshot: &Snapshot| snapshot.upstream("u").unwrap().transport.clone();
    assert_eq!(transport(&first), Transport::Broken("no roots".into()));

    let roots = crate::tls::test_certs::Ca::new("ca").roots();
    let made = client::from_parts(roots, None, Proof::ServerName).unwrap();
    inputs
        .client_configs
        .insert("u".to_owned(), Ok(Arc::clone(&made)));
    let second = compile(&inputs, Some(&first), &metrics);
    let Transport::Tls(tls) = transport(&second) else {
        panic!("{:?}", transport(&second));
    };
    assert!(Arc::ptr_eq(&tls.config, &made));
    assert!(Arc::ptr_eq(
        &first.upstream("u").unwrap().state,
        &second.upstream("u").unwrap().state
    ));

    // Nothing was made for it: that is no reason to dial it plainly.
    inputs.client_configs.clear();
    let third = compile(&inputs, Some(&second), &metrics);
    assert!(matches!(transport(&third), Transport::Broken(_)));
}

#[test]
fn the_id_that_an_upstream_of_the_file_must_prove_stands_in_the_snapshot() {
    let text = "[upstreams.u]\naddress = \"10.0.0.1:22\"\ntls = { server_name = \"db.test\" }";
    let (mut inputs, metrics) = (inputs(text), Metrics::new());
    let id = SpiffeId::parse("spiffe://mesh.test/db").unwrap();
    let tls = inputs.config.upstreams.get_mut("u").unwrap().tls.as_mut();
    tls.unwrap().proof = Proof::Spiffe(id.clone());
    let roots = crate::tls::test_certs::Ca::new("ca").roots();
    let made = client::from_parts(roots, None, Proof::Spiffe(id.clone()));
    let configs = &mut inputs.client_configs;
    configs.insert("u".to_owned(), Ok(made.unwrap()));
    let snapshot = compile(&inputs, None, &metrics);
    let upstream = snapshot.upstream("u").unwrap();
    let Transport::Tls(tls) = &upstream.transport else {
        panic!("{:?}", upstream.transport);
    };
    assert_eq!(tls.spiffe, Some(id));
    assert!(!upstream.is_mesh(), "the file says how, not the mesh");
}
