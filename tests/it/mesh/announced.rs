//! A service behind a sidecar that is told who the client is, by a header inside the mesh's TLS.

use std::sync::Arc;

use portcullis::net::proxy_header::Header;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsConnector;

use super::{POLL, configuration};
use crate::authority::Authority;
use crate::consul::{Consul, meshed, service};
use crate::gateway::ask;
use crate::ports;
use crate::program::Program;
use crate::support::PATIENCE;
use crate::upstream::Upstream;

const NAME: &str = "vm.example.test";

#[tokio::test(flavor = "multi_thread")]
async fn a_service_in_the_mesh_gets_the_header_of_the_program_from_its_sidecar() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let (told, mut heard) = unbounded_channel();
    let upstream = Upstream::tcp(move |mut tcp| {
        let told = told.clone();
        async move {
            let mut all = Vec::new();
            while !all.ends_with(b"word") {
                // Consul looks whether somebody is there, and says nothing.
                if tcp.read_buf(&mut all).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            tcp.write_all(b"bye").await.unwrap();
            let _ = told.send(all);
            let _ = tcp.read_to_end(&mut Vec::new()).await;
        }
    })
    .await;
    let vm = service("vm", upstream.address, &[]);
    consul.register(&meshed(vm, ports::free()));
    let _sidecar = consul.builtin_sidecar("vm");

    let authority = Authority::new();
    authority.issue_files("edge", &["*.example.test"]);
    let tables = format!(
        "[log]\nformat = \"json\"\n[routes.vm]\nhost = \"{NAME}\"\nupstream = \"vm\"\n\
         [upstreams.vm]\nservice = \"vm\"\n\
         proxy_protocol = {{ version = \"v2\", inside_tls = true, tlvs = [\"authority\", \"unique-id\", \"crc32c\"] }}\n"
    );
    let tables = configuration("", &tables);
    let program = Program::start_with(&authority, &tables, &consul.gateway_environment());
    let late = Instant::now() + PATIENCE;
    loop {
        // Ready it may be before the sidecar is healthy.
        let (_, routes) = ask(program.admin, "/v1/routes").await;
        let routes: Value = serde_json::from_str(&routes).unwrap();
        if routes["routes"][0]["endpoints"][0].is_object() {
            break;
        }
        assert!(Instant::now() < late, "{routes}; {}", program.child.all());
        sleep(POLL).await;
    }
    let connector = TlsConnector::from(Arc::new(authority.client(rustls::ALL_VERSIONS)));
    let tcp = TcpStream::connect(program.listener).await.unwrap();
    let client = tcp.local_addr().unwrap();
    let name = ServerName::try_from(NAME).unwrap();
    let mut tls = connector.connect(name, tcp).await.unwrap();
    tls.write_all(b"word").await.unwrap();
    let mut answer = [0; 3];
    tls.read_exact(&mut answer).await.unwrap();
    // Consul's own sidecar may omit its close_notify.
    tls.shutdown().await.unwrap();
    let _ = tls.read_to_end(&mut Vec::new()).await;

    let all = heard.recv().await.unwrap();
    let (header, length) = Header::parse(&all).unwrap().unwrap();
    assert_eq!(&all[length..], b"word");
    let addresses = header.addresses.unwrap();
    assert_eq!(addresses.source, client);
    assert_eq!(addresses.destination, program.listener);
    let told = String::from_utf8_lossy(&all[..length]);
    assert!(told.contains(NAME), "{told:?}");
    assert_eq!(&answer, b"bye");

    let id: String = (header.unique_id.unwrap().iter())
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let is_record = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["sni"] == NAME).then_some(line)
    };
    let record = program.child.wait_for("the record", is_record);
    assert_eq!(record["unique_id"], id, "{record}");
    assert_eq!(record["client"], client.to_string());
    assert_eq!(record["bytes_up"], 4, "{record}");
}
