//! From a file that is written to the new certificate on the wire: within a second, however the file was written.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis::config;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::version::TLS13;
use tokio::time::sleep;

use super::{EDGE, eventually, route};
use crate::authority::{self, Authority};
use crate::gateway::Gateway;
use crate::support::PATIENCE;
use crate::upstream::Upstream;

/// What is promised.
const LIVE: Duration = Duration::from_secs(1);

/// Each way is tried so often, and the best counts: the machine may be busy with other tests.
const TRIES: usize = 3;

struct Desk {
    authority: Authority,
    gateway: Gateway,
    client: Arc<ClientConfig>,
    _upstream: Upstream,
}

impl Desk {
    /// A gateway with this configuration, once its files are there; `ROUTE` stands for a route of `a`.
    async fn new(text: &str, file: &str, make: impl FnOnce(&Authority)) -> Self {
        let authority = Authority::new();
        make(&authority);
        let upstream = Upstream::greeter("hello").await;
        let text = text.replace("ROUTE", &route("a", &upstream));
        let text = format!("listen = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n{text}");
        let path = authority.write(file, &text);
        let checked = config::load(&path).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        Self {
            client: Arc::new(authority.client(&[&TLS13])),
            gateway: Gateway::serve(checked).await,
            authority,
            _upstream: upstream,
        }
    }

    /// The certificate that is shown for a name. The handshake proves that its key is there too.
    async fn shown(&self, name: &str) -> io::Result<CertificateDer<'static>> {
        let tls = self.gateway.connect_tls(&self.client, name).await?;
        Ok(tls.get_ref().1.peer_certificates().unwrap()[0].clone())
    }

    /// Changes a certificate in this way, and waits until it is shown; until then the one before is.
    async fn is_live(&self, way: &str, change: impl Fn(usize)) {
        let mut best = PATIENCE;
        for n in 0..TRIES {
            let before = self.shown("a.example.test").await.unwrap();
            change(n);
            let begin = Instant::now();
            while self.shown("a.example.test").await.unwrap() == before {
                assert!(begin.elapsed() < PATIENCE, "{way}: never");
                sleep(Duration::from_millis(5)).await;
            }
            best = best.min(begin.elapsed());
        }
        eprintln!("{way}: live after {best:?}");
        assert!(best < LIVE, "{way}: {best:?}");
    }

    async fn ready(&self) -> String {
        self.gateway.ask_admin("/readyz").await.1
    }
}

fn edge(authority: &Authority) {
    authority.issue_files("edge", &["*.example.test"]);
}

/// A pair in a folder.
fn pair(authority: &Authority, folder: &Path, chain: &str, key: &str) {
    let issued = authority.issue(&["*.example.test"]);
    fs::write(folder.join(chain), issued.certificate.pem()).unwrap();
    authority::write(&folder.join(key), &issued.key.serialize_pem());
}

#[tokio::test]
async fn a_certificate_that_is_written_or_renamed_is_live_within_a_second() {
    let desk = Desk::new(&format!("{EDGE}ROUTE"), "portcullis.toml", edge).await;
    let folder = desk.authority.folder();
    desk.is_live("written in place", |_| edge(&desk.authority))
        .await;
    desk.is_live("renamed into place", |_| {
        pair(&desk.authority, folder, "new.pem", "new.key");
        fs::rename(folder.join("new.pem"), folder.join("edge.pem")).unwrap();
        fs::rename(folder.join("new.key"), folder.join("edge.key")).unwrap();
    })
    .await;
    desk.is_live("removed, then written", |_| {
        fs::remove_file(folder.join("edge.pem")).unwrap();
        fs::remove_file(folder.join("edge.key")).unwrap();
        edge(&desk.authority);
    })
    .await;
}

#[tokio::test]
async fn a_volume_of_kubernetes_that_is_swapped_is_live_within_a_second() {
    let version = |authority: &Authority, name: &str| {
        let folder = authority.folder().join("mount").join(name);
        fs::create_dir_all(&folder).unwrap();
        pair(authority, &folder, "tls.crt", "tls.key");
        folder
    };
    let make = |authority: &Authority| {
        version(authority, "..0");
        let mount = authority.folder().join("mount");
        symlink("..0", mount.join("..data")).unwrap();
        for file in ["tls.crt", "tls.key", "portcullis.toml"] {
            symlink(format!("..data/{file}"), mount.join(file)).unwrap();
        }
    };
    let text = "certificates = [{ chain = \"tls.crt\", key = \"tls.key\" }]\nROUTE";
    let desk = Desk::new(text, "mount/portcullis.toml", make).await;
    let mount = desk.authority.folder().join("mount");
    desk.is_live("a whole volume swapped", |n| {
        let folder = version(&desk.authority, &format!("..{}", n + 1));
        // The configuration comes along.
        fs::copy(
            mount.join("portcullis.toml"),
            folder.join("portcullis.toml"),
        )
        .unwrap();
        let before = fs::canonicalize(mount.join("..data")).unwrap();
        symlink(format!("..{}", n + 1), mount.join("..data_tmp")).unwrap();
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
        fs::remove_dir_all(before).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_pair_that_is_copied_in_two_steps_is_never_shown_half() {
    let listed = format!("{EDGE}ROUTE");
    let directory = "certificates = [{ directory = \"certs\" }]\nROUTE";
    for (text, folder, told) in [
        (listed.as_str(), "", "the key does not belong"),
        (directory, "certs", "what they were before is shown"),
    ] {
        let make = |authority: &Authority| {
            fs::create_dir_all(authority.folder().join(folder)).unwrap();
            pair(
                authority,
                &authority.folder().join(folder),
                "edge.pem",
                "edge.key",
            );
        };
        let desk = Desk::new(text, "portcullis.toml", make).await;
        let folder = desk.authority.folder().join(folder);
        let before = desk.shown("a.example.test").await.unwrap();
        let next = desk.authority.issue(&["*.example.test"]);
        fs::write(folder.join("edge.pem"), next.certificate.pem()).unwrap();
        eventually("the half is refused", async || {
            assert_eq!(desk.shown("a.example.test").await.unwrap(), before);
            desk.ready().await.contains(told)
        })
        .await;
        assert_eq!(desk.shown("a.example.test").await.unwrap(), before);
        fs::write(folder.join("edge.key"), next.key.serialize_pem()).unwrap();
        eventually("both fit", async || {
            desk.shown("a.example.test").await.unwrap() == *next.certificate.der()
        })
        .await;
        eventually("all is well", async || {
            desk.ready().await.contains("configuration ready")
        })
        .await;
    }
}

#[tokio::test]
async fn a_directory_that_gets_one_more_certificate_serves_it() {
    let make = |authority: &Authority| {
        fs::create_dir(authority.folder().join("certs")).unwrap();
        authority.issue_files("certs/a", &["a.example.test"]);
    };
    let text = "certificates = [{ directory = \"certs\" }]\n\
                [routes.b]\nhost = \"b.example.test\"\nupstream = \"127.0.0.1:9\"\nROUTE";
    let desk = Desk::new(text, "portcullis.toml", make).await;
    assert!(desk.shown("b.example.test").await.is_err());
    desk.authority.issue_files("certs/b", &["b.example.test"]);
    eventually("it is shown", async || {
        desk.shown("b.example.test").await.is_ok()
    })
    .await;
    desk.shown("a.example.test").await.unwrap();
}

#[tokio::test]
async fn a_file_that_vanishes_changes_nothing_but_what_is_told_until_it_is_back() {
    let desk = Desk::new(&format!("{EDGE}ROUTE"), "portcullis.toml", edge).await;
    let before = desk.shown("a.example.test").await.unwrap();
    for file in ["edge.key", "portcullis.toml"] {
        let (path, aside) = (
            desk.authority.folder().join(file),
            desk.authority.folder().join("aside"),
        );
        fs::rename(&path, &aside).unwrap();
        eventually("it is missed", async || {
            desk.ready().await.contains("configuration degraded")
        })
        .await;
        assert_eq!(desk.shown("a.example.test").await.unwrap(), before);
        fs::rename(&aside, &path).unwrap();
        eventually("it is back", async || {
            desk.ready().await.contains("configuration ready")
        })
        .await;
        assert_eq!(desk.shown("a.example.test").await.unwrap(), before);
    }
}
