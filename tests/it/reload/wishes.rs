//! Wishes for a reload from several sides at once, and names that have to be resolved for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rustls::version::TLS13;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::{JoinSet, spawn_blocking};

use super::{EDGE, dial, eventually, route, said};
use crate::authority::Authority;
use crate::gateway::{Gateway, ask, exchange};
use crate::program::Program;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_a_request_and_a_changed_file_at_once_each_end_and_the_last_content_serves() {
    let authority = Authority::new();
    authority.issue_files("edge", &["*.example.test"]);
    authority.write("token", "a-token-of-a-test");
    let (even, odd) = (
        Upstream::greeter("even").await,
        Upstream::greeter("odd").await,
    );
    let tables = |upstream: &Upstream, more: &str| {
        let route = route("a", upstream);
        format!(
            "admin = \"127.0.0.1:0\"\nadmin_token_file = \"token\"\nlog.format = \"json\"\n{more}{EDGE}{route}"
        )
    };
    let program = Arc::new(Program::start(&authority, &tables(&even, "")));
    let client = Arc::new(authority.client(&[&TLS13]));
    for round in 0..12 {
        // Every third one is wrong, and the last one is not.
        let (upstream, says) = match round % 2 {
            0 => (&even, "even"),
            _ => (&odd, "odd"),
        };
        let is_good = round % 3 != 1;
        let more = if is_good { "" } else { "oops = 1\n" };
        let text = tables(upstream, more);
        authority.write(
            "portcullis.toml",
            &format!("listen = [\"127.0.0.1:0\"]\n{text}"),
        );
        let signalled = Arc::clone(&program);
        let signal = spawn_blocking(move || signalled.child.signal("HUP"));
        let mut asking = JoinSet::new();
        for _ in 0..3 {
            asking.spawn(post(program.admin));
        }
        for status in asking.join_all().await {
            assert_eq!(status, if is_good { 200 } else { 422 }, "round {round}");
        }
        signal.await.unwrap();
        if is_good {
            let tls = dial(program.listener, &client).await.unwrap();
            assert_eq!(said(tls).await, says, "round {round}");
        }
    }
    eventually("all is well", async || {
        let (_, ready) = ask(program.admin, "/readyz").await;
        ready.contains("configuration ready")
    })
    .await;
    let tls = dial(program.listener, &client).await.unwrap();
    assert_eq!(said(tls).await, "odd");
}

/// Asks for a reload, and tells the status of the one answer.
async fn post(admin: SocketAddr) -> u16 {
    let request = format!(
        "POST /v1/reload HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer a-token-of-a-test\r\nContent-Length: 0\r\n\r\n"
    );
    let tcp = TcpStream::connect(admin).await.unwrap();
    let (answer, reset) = exchange(tcp, request.as_bytes()).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        !reset && answer.matches("HTTP/1.1 ").count() == 1,
        "{answer}"
    );
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_logged_with_its_line_and_a_caret_under_the_mistake() {
    let authority = Authority::new();
    authority.issue_files("edge", &["*.example.test"]);
    let greeter = Upstream::greeter("hello").await;
    let tables = format!(
        "admin = \"127.0.0.1:0\"\nlog.format = \"json\"\n{EDGE}{}",
        route("a", &greeter)
    );
    let program = Program::start(&authority, &tables);
    let text = format!("listen = [\"127.0.0.1:0\"]\n{tables}upstraem = \"a:1\"\n");
    let line = text.lines().count();
    let path = authority.write("portcullis.toml", &text);
    program.child.signal("HUP");
    let said = program.child.wait_for("the refusal", |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let said = line["message"].as_str()?.to_owned();
        said.starts_with("the new configuration is refused")
            .then_some(said)
    });
    let place = format!("--> {}:{line}:1", path.display());
    assert!(said.contains(&place), "{place} in {said}");
    // The caret stands under the key, as rustc writes it: `8 | upstraem = …`, below it `  | ^^^^^^^^`.
    let lines: Vec<&str> = said.lines().collect();
    let at = lines.iter().position(|line| line.contains("| upstraem"));
    let at = at.unwrap_or_else(|| panic!("no line of the file: {said}"));
    let column = lines[at].find("upstraem").unwrap();
    assert_eq!(lines[at + 1].find('^'), Some(column), "{said}");
    assert!(lines[at + 1].contains("^^^^^^^^"), "{said}");
}
