//! HAProxy and nginx before us and behind us: they and we write and read the same headers.

use std::process::Command;
use std::sync::Arc;

use rustls::version::TLS13;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsConnector;

use super::{REQUIRED, V1};
use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::hello_bytes::{self as hello, framed};
use crate::peers;
use crate::policy::showing;
use crate::ports;
use crate::scene::{Scene, finish};
use crate::support::{Child, PATIENCE};

const HAPROXY: &str = "global\n  nbthread 1\ndefaults\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n";

fn haproxy(authority: &Authority, sections: &str) -> Option<Child> {
    let program = peers::pinned("haproxy")?;
    let config = authority.write("haproxy.cfg", &[HAPROXY, sections].concat());
    let mut command = Command::new(program);
    command.args(["-db", "-f"]).arg(config);
    Some(Child::spawn(&command))
}

fn nginx(authority: &Authority, servers: &str) -> Option<Child> {
    let program = peers::pinned("nginx")?;
    let folder = authority.folder().display();
    // Without a master there is one process, which ends with the test.
    let config = format!(
        "daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nevents {{}}\nstream {{\n\
         ssl_certificate {folder}/peer.pem;\nssl_certificate_key {folder}/peer.key;\n{servers}}}\n"
    );
    let config = authority.write("nginx.conf", &config);
    let mut command = Command::new(program);
    command.arg("-p").arg(authority.folder());
    command.args(["-e", "stderr", "-c"]).arg(config);
    Some(Child::spawn(&command))
}

/// A certificate for what the peers are called, and in one file with its key, as HAProxy wants it.
fn issue(authority: &Authority, names: &[&str]) {
    let issued = authority.issue_files("peer", names);
    let both = issued.certificate.pem() + &issued.key.serialize_pem();
    authority.write("both.pem", &both);
}

/// A connection to a program that has just been started.
async fn connect(port: u16, program: &Child) -> TcpStream {
    let late = Instant::now() + PATIENCE;
    loop {
        match TcpStream::connect(("127.0.0.1", port)).await {
            Ok(tcp) => return tcp,
            Err(error) => assert!(Instant::now() < late, "{error}: {}", program.all()),
        }
        assert!(!program.has_ended(), "{}", program.all());
        sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// A whole connection through `program` to `open`: the gateway's record must have the client that `program` saw.
async fn comes_through(scene: &mut Scene, port: u16, program: &Child, id: Option<&str>) {
    let mut tcp = connect(port, program).await;
    let client = tcp.local_addr().unwrap().to_string();
    let (mut tls, message) = hello::client(&scene.client(&[&TLS13]), "open.example.test");
    tcp.write_all(&framed(&message, &[])).await.unwrap();
    let heard = finish(&mut tcp, &mut tls, b"word").await;
    let record = scene.gateway.ended().await;
    assert_eq!(heard.unwrap(), b"word", "{record}; {}", program.all());
    assert_eq!(record["client"], client, "{record}");
    assert_ne!(record["peer"], client, "{record}");
    assert!(
        record["peer"].as_str().unwrap().starts_with("127.0.0.1:"),
        "{record}"
    );
    assert_eq!(record["route"], "open");
    assert_eq!(record["bytes_up"], 4);
    assert_eq!(record.get("unique_id").and_then(|id| id.as_str()), id);
}

#[tokio::test]
async fn haproxy_in_front_of_us_is_understood() {
    let mut scene = Scene::with(REQUIRED).await;
    issue(&scene.authority, &["open.example.test"]);
    let [v1, v2, plain, tls] = [(); 4].map(|()| ports::free());
    let (gateway, both) = (
        scene.gateway.address,
        scene.authority.folder().join("both.pem"),
    );
    let sections = format!(
        "listen v1\n  bind 127.0.0.1:{v1}\n  server us {gateway} send-proxy\n\
         listen v2\n  bind 127.0.0.1:{v2}\n  server us {gateway} send-proxy-v2\n\
         listen plain\n  bind 127.0.0.1:{plain}\n  unique-id-format req-%{{+X}}o-7\n  \
         server us {gateway} send-proxy-v2 proxy-v2-options crc32c,unique-id\n\
         listen tls\n  bind 127.0.0.1:{tls} ssl crt {both} alpn h2\n  \
         server us {gateway} ssl verify none sni ssl_fc_sni send-proxy-v2-ssl-cn \
         proxy-v2-options authority,crc32c,ssl,cert-cn,ssl-cipher,cert-sig,cert-key\n",
        both = both.display()
    );
    let Some(haproxy) = haproxy(&scene.authority, &sections) else {
        return;
    };
    comes_through(&mut scene, v1, &haproxy, None).await;
    comes_through(&mut scene, v2, &haproxy, None).await;
    comes_through(&mut scene, plain, &haproxy, Some("req--7")).await;
    comes_through(&mut scene, tls, &haproxy, None).await;
}

#[tokio::test]
async fn nginx_in_front_of_us_is_understood() {
    let mut scene = Scene::with(REQUIRED).await;
    issue(&scene.authority, &["open.example.test"]);
    let port = ports::free();
    let servers = format!(
        "server {{ listen 127.0.0.1:{port}; proxy_pass {}; proxy_protocol on; }}\n",
        scene.gateway.address
    );
    let Some(nginx) = nginx(&scene.authority, &servers) else {
        return;
    };
    comes_through(&mut scene, port, &nginx, None).await;
}

/// A gateway behind a proxy whose header is [`V1`], and a route to each of these: its name, its port, how it wants the
/// header, and whether TLS is spoken to it.
async fn before(authority: &Authority, upstreams: &[(&str, u16, &str, bool)]) -> Gateway {
    let mut tables = format!(
        "{REQUIRED}\n[[certificates]]\nchain = \"edge.pem\"\nkey = \"edge.key\"\n\
         [tls.options.asking]\nclient_auth = \"required\"\nclient_ca = [\"ca.pem\"]\nalpn = [\"http/1.1\"]\n"
    );
    for (name, port, header, tls) in upstreams {
        tables += &format!(
            "[routes.{name}]\nhost = \"{name}.peer.test\"\ntls_options = \"asking\"\nupstream = \"{name}\"\n\
             [upstreams.{name}]\naddress = \"127.0.0.1:{port}\"\nproxy_protocol = {header}\n"
        );
        if *tls {
            tables += &format!(
                "[upstreams.{name}.tls]\nroots = [\"ca.pem\"]\nserver_name = \"inner.peer.test\"\n"
            );
        }
    }
    authority.issue_files("edge", &["*.peer.test"]);
    Gateway::start(authority, &tables).await
}

/// What the upstream behind a name answers to a client called `ann`.
async fn answer(authority: &Authority, gateway: &mut Gateway, name: &str) -> String {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "ann");
    let id = rcgen::SanType::URI("spiffe://peer.test/ann".try_into().unwrap());
    params.subject_alt_names = vec![id];
    let mut config = (*showing(authority, &authority.sign(params), &TLS13)).clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut tcp = gateway.connect().await;
    tcp.write_all(V1).await.unwrap();
    let host = format!("{name}.peer.test");
    let connector = TlsConnector::from(Arc::new(config));
    let mut tls = connector
        .connect(host.try_into().unwrap(), tcp)
        .await
        .unwrap();
    // nginx answers and closes before it has read a word.
    let _ = tls.write_all(b"GET / HTTP/1.0\r\n\r\n").await;
    let mut answer = Vec::new();
    let _ = tls.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

const V2: &str = r#"{ version = "v2", tlvs = ["alpn", "authority", "cert-cn", "unique-id", "spiffe", "crc32c"] }"#;
const INSIDE: &str = r#"{ version = "v2", inside_tls = true, tlvs = ["alpn", "authority", "cert-cn", "unique-id", "spiffe", "crc32c"] }"#;

/// A header of each version: alone, before TLS and inside it. A name, the port, the key, and whether there is TLS.
fn every_way(plain: u16, tls: u16, outer: u16) -> [(&'static str, u16, &'static str, bool); 6] {
    [
        ("one", plain, "\"v1\"", false),
        ("two", plain, V2, false),
        ("one-before", tls, "\"v1\"", true),
        ("two-before", tls, V2, true),
        (
            "one-inside",
            outer,
            "{ version = \"v1\", inside_tls = true }",
            true,
        ),
        ("two-inside", outer, INSIDE, true),
    ]
}

#[tokio::test]
async fn haproxy_behind_us_hears_who_the_client_is() {
    let authority = Authority::new();
    issue(&authority, &["inner.peer.test"]);
    let [plain, tls, outer] = [(); 3].map(|()| ports::free());
    let both = authority.folder().join("both.pem");
    let says = "http-request return status 200 content-type text/plain lf-string \
        \"%[src]:%[src_port] %[dst]:%[dst_port] %[fc_pp_authority] %[fc_pp_unique_id,hex,length]\"";
    let sections = format!(
        "frontend plain\n  mode http\n  bind 127.0.0.1:{plain} accept-proxy\n  {says}\n\
         frontend tls\n  mode http\n  bind 127.0.0.1:{tls} accept-proxy ssl crt {both}\n  {says}\n\
         listen outer\n  mode tcp\n  bind 127.0.0.1:{outer} ssl crt {both}\n  server inner 127.0.0.1:{plain}\n",
        both = both.display()
    );
    let Some(haproxy) = haproxy(&authority, &sections) else {
        return;
    };
    drop(connect(outer, &haproxy).await);
    let upstreams = every_way(plain, tls, outer);
    let mut gateway = before(&authority, &upstreams).await;
    for (name, ..) in upstreams {
        let heard = answer(&authority, &mut gateway, name).await;
        let body = heard.split("\r\n\r\n").nth(1).unwrap_or_default();
        let more = match name.starts_with("two") {
            true => format!("{name}.peer.test 32"),
            false => " ".to_owned(),
        };
        let expected = format!("192.0.2.1:4711 198.51.100.2:443 {more}");
        assert_eq!(body, expected, "{name}: {heard}; {}", haproxy.all());
    }
}

#[tokio::test]
async fn nginx_behind_us_hears_who_the_client_is() {
    let authority = Authority::new();
    issue(&authority, &["inner.peer.test"]);
    let [plain, tls, outer] = [(); 3].map(|()| ports::free());
    let says = "return \"$proxy_protocol_addr:$proxy_protocol_port \
        $proxy_protocol_server_addr:$proxy_protocol_server_port $proxy_protocol_tlv_alpn \
        $proxy_protocol_tlv_authority $proxy_protocol_tlv_ssl_version $proxy_protocol_tlv_ssl_verify \
        $proxy_protocol_tlv_ssl_cn $proxy_protocol_tlv_0xe5\";";
    let servers = format!(
        "server {{ listen 127.0.0.1:{plain} proxy_protocol; {says} }}\n\
         server {{ listen 127.0.0.1:{tls} ssl proxy_protocol; {says} }}\n\
         server {{ listen 127.0.0.1:{outer} ssl; proxy_pass 127.0.0.1:{plain}; }}\n"
    );
    let Some(nginx) = nginx(&authority, &servers) else {
        return;
    };
    drop(connect(outer, &nginx).await);
    let upstreams = every_way(plain, tls, outer);
    let mut gateway = before(&authority, &upstreams).await;
    for (name, ..) in upstreams {
        let heard = answer(&authority, &mut gateway, name).await;
        let more = match name.starts_with("two") {
            true => format!("http/1.1 {name}.peer.test TLSv1.3 0 ann spiffe://peer.test/ann"),
            false => "     ".to_owned(),
        };
        let expected = format!("192.0.2.1:4711 198.51.100.2:443 {more}");
        assert_eq!(heard, expected, "{name}: {}", nginx.all());
    }
}
