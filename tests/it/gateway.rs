//! A gateway in the test's own process, and the records of its sessions as they end.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use portcullis::config::{self, Checked, ListenAddress, LogFormat};
use portcullis::lifecycle::{Handed, Reload, Shutdown};
use portcullis::log::AccessLog;
use portcullis::serve;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::authority::Authority;
use crate::support::PATIENCE;

/// A gateway with one listener on a port of its own; its first tunnel stands in for that where it has none.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    /// Where tunnels begin, by name.
    pub(crate) tunnels: Vec<(Arc<str>, ListenAddress)>,
    pub(crate) admin: Option<ListenAddress>,
    pub(crate) shutdown: Shutdown,
    pub(crate) reload: Reload,
    pub(crate) finished: JoinHandle<anyhow::Result<()>>,
    records: UnboundedReceiver<Value>,
}

impl Gateway {
    /// Starts a gateway with these tables in its configuration, whose paths start at the authority's folder. It
    /// listens on 127.0.0.1 and a free port, and there is no admin interface, unless the text says so.
    pub(crate) async fn start(authority: &Authority, tables: &str) -> Self {
        Self::serve(Self::load(authority, tables)).await
    }

    /// The configuration of such a gateway, checked.
    pub(crate) fn load(authority: &Authority, tables: &str) -> Checked {
        let path = authority.write("portcullis.toml", &whole(tables));
        config::load(&path).unwrap_or_else(|mistakes| panic!("{mistakes}"))
    }

    /// Starts a gateway with this configuration.
    pub(crate) async fn serve(checked: Checked) -> Self {
        let (send, records) = unbounded_channel();
        let lines = Lines {
            send,
            line: Vec::new(),
        };
        // A test asks for the record of each refusal, and makes them faster than the world does.
        let log = AccessLog::start_sampled(LogFormat::Json, Box::new(lines), u32::MAX);
        let (reload, wishes) = Reload::new();
        let wishes = (reload.clone(), wishes);
        let handed = Handed::default();
        let gateway = serve::start(checked, log, Shutdown::new(), wishes, handed)
            .await
            .unwrap();
        let tcp = gateway
            .tunnels
            .iter()
            .filter_map(|(_, address)| address.tcp());
        let mut addresses = gateway.addresses.iter().copied().chain(tcp);
        Self {
            address: addresses
                .next()
                .unwrap_or_else(|| "127.0.0.1:0".parse().unwrap()),
            tunnels: gateway.tunnels.clone(),
            admin: gateway.admin.clone(),
            shutdown: gateway.shutdown(),
            reload,
            finished: tokio::spawn(gateway.finished()),
            records,
        }
    }

    /// Writes other tables into its configuration.
    pub(crate) fn rewrite(&self, authority: &Authority, tables: &str) {
        authority.write("portcullis.toml", &whole(tables));
    }

    /// A TCP connection to it.
    pub(crate) async fn connect(&self) -> TcpStream {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        tcp
    }

    /// A TLS connection to it, or through it.
    pub(crate) async fn connect_tls(
        &self,
        config: &Arc<ClientConfig>,
        name: &str,
    ) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let tcp = self.connect().await;
        TlsConnector::from(Arc::clone(config))
            .connect(name, tcp)
            .await
    }

    /// The record of the session that ends next.
    pub(crate) async fn ended(&mut self) -> Value {
        timeout(PATIENCE, self.records.recv())
            .await
            .expect("no session ended")
            .unwrap()
    }

    /// What the admin interface answers to a GET: status and body.
    pub(crate) async fn ask_admin(&self, path: &str) -> (u16, String) {
        ask(self.admin(), path).await
    }

    /// The value of a series of `/metrics`, named with its labels.
    pub(crate) async fn metric(&self, series: &str) -> Option<u64> {
        metric(self.admin(), series).await
    }

    /// How `/v1/routes` shows an endpoint of the first route.
    pub(crate) async fn endpoint(&self, address: SocketAddr) -> Value {
        let (_, text) = self.ask_admin("/v1/routes").await;
        let json: Value = serde_json::from_str(&text).unwrap();
        let mut endpoints = json["routes"][0]["endpoints"].as_array().unwrap().iter();
        let is_it = |shown: &&Value| shown["address"] == address.to_string();
        endpoints.find(is_it).unwrap().clone()
    }

    /// Its admin interface, on TCP.
    pub(crate) fn admin(&self) -> SocketAddr {
        let Some(ListenAddress::Tcp(address)) = self.admin else {
            panic!("no admin interface on TCP");
        };
        address
    }

    /// Whether no session has ended that was not asked for.
    pub(crate) fn has_no_more_records(&mut self) -> bool {
        self.records.try_recv().is_err()
    }
}

/// The configuration with these tables.
fn whole(tables: &str) -> String {
    let admin = match tables.contains("admin =") {
        true => "",
        false => "admin = false\n",
    };
    let listen = match tables.contains("listen =") {
        true => "",
        false => "listen = [\"127.0.0.1:0\"]\n",
    };
    format!("{listen}{admin}{tables}")
}

/// What an admin interface answers to a GET: status and body.
pub(crate) async fn ask(admin: SocketAddr, path: &str) -> (u16, String) {
    let mut tcp = TcpStream::connect(admin).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// The value of a series of `/metrics`, named with its labels.
pub(crate) async fn metric<T: FromStr>(admin: SocketAddr, series: &str) -> Option<T> {
    let (_, text) = ask(admin, "/metrics").await;
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

/// Sends bytes and reads the answer to its end; a reset counts as the end, and is told.
pub(crate) async fn exchange(mut tcp: TcpStream, bytes: &[u8]) -> (Vec<u8>, bool) {
    // The gateway may have closed before all is sent.
    let _ = tcp.write_all(bytes).await;
    answer(&mut tcp).await
}

/// Reads to the end; a reset counts as the end, and is told.
pub(crate) async fn answer(tcp: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, tcp.read_to_end(&mut answer)).await;
    let reset = read
        .expect("the gateway neither answers nor closes")
        .is_err();
    (answer, reset)
}

/// Splits what is written into lines, and those into JSON.
struct Lines {
    send: UnboundedSender<Value>,
    line: Vec<u8>,
}

impl Write for Lines {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        for &byte in buf {
            if byte == b'\n' {
                let record = serde_json::from_slice(&self.line).unwrap();
                // The test may be over.
                let _ = self.send.send(record);
                self.line.clear();
            } else {
                self.line.push(byte);
            }
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
