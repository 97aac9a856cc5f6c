//! Upstreams by name, and no DNS: what is served from the disk, what is refused, and when.

use std::fs;
use std::net::UdpSocket;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Site, metric, ready, routed, says, stop};
use crate::consul::{Consul, PERSISTENT};
use crate::network;
use crate::program::Program;
use crate::upstream::Upstream;

const NAME: &str = "app.example.test";
const RESTORED: &str = "portcullis_state_restored_timestamp_seconds{part=\"names\"}";
const REFUSED: &str = "portcullis_state_refused{part=\"names\"}";

/// A DNS server that knows one address for every name (RFC 1035), until it is dropped.
struct Dns {
    ended: Arc<AtomicBool>,
    serving: Option<thread::JoinHandle<()>>,
}

impl Dns {
    /// `answers` says whether it speaks at all.
    fn start(answers: bool) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
        let pause = Duration::from_millis(20);
        socket.set_read_timeout(Some(pause)).unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let serving = {
            let ended = Arc::clone(&ended);
            thread::spawn(move || {
                let mut query = [0; 512];
                while !ended.load(Ordering::Relaxed) {
                    if let Ok((length, from)) = socket.recv_from(&mut query)
                        && answers
                    {
                        let _ = socket.send_to(&answer(&query[..length]), from);
                    }
                }
            })
        };
        let serving = Some(serving);
        Self { ended, serving }
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = self.serving.take().map(thread::JoinHandle::join);
    }
}

fn answer(query: &[u8]) -> Vec<u8> {
    let name = query[12..].iter().position(|byte| *byte == 0).unwrap();
    let question = &query[12..12 + name + 5];
    let is_a = question[name + 1..name + 3] == [0, 1];
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    answer.extend(question);
    if is_a {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    answer
}

/// The system asks our server, in this mount namespace.
fn settle(site: &Site) {
    for (name, text) in [
        ("resolv.conf", "nameserver 127.0.0.1\n"),
        ("hosts", "127.0.0.1 localhost\n"),
    ] {
        let ours = site.authority.write(name, text);
        let mut mount = Command::new("mount");
        mount.arg("--bind").arg(ours).arg(format!("/etc/{name}"));
        assert!(mount.status().unwrap().success());
    }
}

fn from_disk(routes: &str) -> bool {
    let routes: serde_json::Value = serde_json::from_str(routes).unwrap();
    routes["routes"][0]["upstream"]["from_disk"].is_string()
}

/// Whether it is served from the disk, by every word of it.
async fn serves_from_the_disk(site: &Site, gateway: &Program) {
    let (status, parts) = ready(gateway, |parts| {
        parts.contains("names degraded: not resolving, and served from the disk as it was at 2")
    })
    .await;
    assert_eq!(status, 200, "{parts}");
    site.serves(gateway, NAME, "app").await;
    let (_, routes) = crate::gateway::ask(gateway.admin, "/v1/routes").await;
    assert!(from_disk(&routes), "{routes}");
    assert!(metric(gateway, RESTORED).await.unwrap() > 1.7e9);
    assert_eq!(metric(gateway, REFUSED).await, None);
}

async fn refuses(site: &Site, gateway: &Program) {
    let (status, parts) = ready(gateway, |parts| {
        parts.contains(
            "names degraded: not resolving: app.example.test; what the disk keeps is refused",
        )
    })
    .await;
    // Other routes serve.
    assert_eq!(status, 200, "{parts}");
    says(gateway, "what the disk keeps is refused: it is of 2");
    assert_eq!(site.greeting(gateway.listener, NAME).await, None);
    assert_eq!(metric(gateway, RESTORED).await, None);
    assert_eq!(metric(gateway, REFUSED).await, Some(1.0));
}

#[test]
fn without_dns_a_name_is_served_from_the_disk_until_it_is_too_old_or_dns_is_back() {
    let test = "state::names::without_dns_a_name_is_served_from_the_disk_until_it_is_too_old_or_dns_is_back";
    network::of_its_own(test, async {
        let app = Upstream::greeter("app").await;
        let mut site = Site::alone();
        settle(&site);
        let port = app.address.port();
        site.consul = format!("[routes.app]\nhost = \"{NAME}\"\nupstream = \"{NAME}:{port}\"\n");
        let dns = Dns::start(true);
        let gateway = site.start();
        site.serves(&gateway, NAME, "app").await;
        let (_, routes) = crate::gateway::ask(gateway.admin, "/v1/routes").await;
        assert!(!from_disk(&routes), "{routes}");
        stop(gateway);
        drop(dns);
        let good = fs::read(site.folder().join("names")).unwrap();

        // Nobody listens there; or somebody, who says nothing.
        for hangs in [false, true] {
            let _dns = hangs.then(|| Dns::start(false));
            let gateway = site.start();
            let begun = Instant::now();
            site.serves(&gateway, NAME, "app").await;
            let took = begun.elapsed();
            println!("without dns (it hangs: {hangs}): served {took:?} after it listens");
            assert!(took < Duration::from_secs(2), "{took:?}");
            serves_from_the_disk(&site, &gateway).await;
            stop(gateway);
        }
        assert_eq!(
            fs::read(site.folder().join("names")).unwrap(),
            good,
            "it is as old as it was"
        );

        // Too old at a start.
        site.keys = "state_max_age = \"1s\"".to_owned();
        let gateway = site.start();
        refuses(&site, &gateway).await;
        stop(gateway);

        // Another bound counts at once, either way.
        site.keys = "state_max_age = \"1h\"".to_owned();
        let gateway = site.start();
        serves_from_the_disk(&site, &gateway).await;
        site.keys = "state_max_age = \"1s\"".to_owned();
        site.rewrite();
        refuses(&site, &gateway).await;
        site.keys = "state_max_age = \"1h\"".to_owned();
        site.rewrite();
        serves_from_the_disk(&site, &gateway).await;

        let _dns = Dns::start(true);
        ready(&gateway, |parts| parts.contains("names ready")).await;
        let (_, routes) = crate::gateway::ask(gateway.admin, "/v1/routes").await;
        assert!(!from_disk(&routes), "{routes}");
        assert_eq!(metric(&gateway, RESTORED).await, None);
        stop(gateway);
    });
}

#[test]
fn without_dns_and_consul_a_service_with_a_name_is_served_from_the_disk() {
    let test = "state::names::without_dns_and_consul_a_service_with_a_name_is_served_from_the_disk";
    network::of_its_own(test, async {
        let app = Upstream::greeter("app").await;
        let Some(mut consul) = Consul::start_with(PERSISTENT) else {
            return;
        };
        let mut service = routed("app", NAME, app.address);
        service["Address"] = NAME.into();
        consul.register(&service);
        let mut site = Site::new(&consul);
        site.consul += "allow_local_addresses = true\n";
        settle(&site);
        let dns = Dns::start(true);
        let gateway = site.start();
        site.serves(&gateway, NAME, "app").await;
        stop(gateway);
        drop(dns);

        for hangs in [false, true] {
            let _dns = hangs.then(|| Dns::start(false));
            if hangs {
                consul.kill();
            }
            let gateway = site.start();
            let begun = Instant::now();
            site.serves(&gateway, NAME, "app").await;
            let took = begun.elapsed();
            println!("without dns (it hangs, and consul is gone: {hangs}): served after {took:?}");
            assert!(took < Duration::from_secs(4), "{took:?}");
            let (status, _) = ready(&gateway, |parts| {
                parts.contains("names degraded: not resolving, and served from the disk")
            })
            .await;
            assert_eq!(status, 200);
            stop(gateway);
        }
    });
}
