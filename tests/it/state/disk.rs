//! A disk that is really full, under a gateway that serves.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Site, metric, ready, says, stop};
use crate::network;
use crate::program::Program;
use crate::upstream::Upstream;

fn mount(arguments: &[&str], at: &Path) {
    let mounted = Command::new("mount").args(arguments).arg(at).status();
    assert!(mounted.unwrap().success(), "mount {arguments:?}");
}

/// Takes all room that is left.
fn fill(folder: &Path) {
    let mut filler = fs::File::create(folder.join("filler")).unwrap();
    while filler.write_all(&[7; 512]).is_ok() {}
}

/// Two upstreams by names of the system's own file; the second one changes what is kept.
fn tables(port: u16, names: &[&str]) -> String {
    let routes = names.iter().map(|name| {
        format!("[routes.{name}]\nhost = \"{name}.example.test\"\nupstream = \"{name}.internal:{port}\"\n")
    });
    routes.collect()
}

/// A tunnel to an upstream that echoes.
struct Tunnel(TlsStream<TcpStream>);

impl Tunnel {
    async fn open(site: &Site, gateway: &Program, host: &str) -> Self {
        let tcp = TcpStream::connect(gateway.listener).await.unwrap();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let connecting = TlsConnector::from(Arc::clone(&site.client)).connect(name, tcp);
        Self(connecting.await.unwrap())
    }

    async fn goes_on(&mut self) {
        self.0.write_all(b"still here").await.unwrap();
        let mut back = [0; 10];
        self.0.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"still here");
    }
}

#[test]
fn a_full_disk_degrades_the_status_and_nothing_else_until_there_is_room_again() {
    let test =
        "state::disk::a_full_disk_degrades_the_status_and_nothing_else_until_there_is_room_again";
    network::of_its_own(test, async {
        let echo = Upstream::echo().await;
        let port = echo.address.port();
        let mut site = Site::alone();
        let names = ["one", "two"];
        let hosts = names.map(|name| format!("127.0.0.1 {name}.internal\n"));
        let hosts = site.authority.write("hosts", &hosts.concat());
        mount(
            &["--bind", hosts.to_str().unwrap()],
            Path::new("/etc/hosts"),
        );
        let folder = site.folder();
        fs::create_dir(&folder).unwrap();
        mount(
            &["-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs"],
            &folder,
        );

        site.consul = tables(port, &names[..1]);
        let gateway = site.start();
        let is_ready = |parts: &str| parts.lines().all(|line| line.ends_with(" ready"));
        ready(&gateway, is_ready).await;
        let mut tunnel = Tunnel::open(&site, &gateway, "one.example.test").await;
        tunnel.goes_on().await;
        let part = folder.join("names");
        crate::support::wait_until("it is written", || part.exists());
        let before = fs::read(&part).unwrap();

        // Full: what was good stays, whole.
        fill(&folder);
        site.consul = tables(port, &names[..2]);
        site.rewrite();
        let full =
            |parts: &str| parts.contains("state degraded: ") && parts.contains("make room there");
        let (status, parts) = ready(&gateway, full).await;
        assert_eq!(status, 200, "{parts}");
        says(&gateway, "the new configuration serves");
        says(&gateway, "make room there");
        tunnel.goes_on().await;
        Tunnel::open(&site, &gateway, "two.example.test")
            .await
            .goes_on()
            .await;
        assert_eq!(fs::read(&part).unwrap(), before);
        assert!(
            !folder.join("names.new").exists(),
            "a full disk is not kept full by it"
        );
        let failed = "portcullis_state_writes_total{outcome=\"failed\"}";
        assert!(metric(&gateway, failed).await.unwrap() >= 1.0);
        fs::remove_file(folder.join("filler")).unwrap();
        ready(&gateway, is_ready).await;
        let text = fs::read_to_string(&part).unwrap();
        assert!(text.contains("two.internal"), "{text}");

        tunnel.goes_on().await;
        drop(tunnel);
        stop(gateway);
    });
}
