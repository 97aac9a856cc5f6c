//! A Consul of the test's own, for what a real one does not do on demand: it says whatever it is told to, well or badly.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use portcullis::config::{Catalog, Consul, ConsulAddress, Place, Tagging};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// It ends with its owner. Blocking queries are held as Consul holds them.
pub(crate) struct FakeConsul {
    address: SocketAddr,
    world: watch::Sender<World>,
    asked: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

/// What it says.
#[derive(Clone)]
pub(crate) struct World {
    /// That of the catalog, and of the checks.
    pub(crate) index: [u64; 2],
    /// `catalog/services`, if it is not what follows from `services`.
    pub(crate) catalog: Option<Value>,
    /// `health/state/any`.
    pub(crate) checks: Value,
    /// `health/service/NAME`.
    pub(crate) services: BTreeMap<String, Value>,
    /// `health/connect/NAME`.
    pub(crate) connect: BTreeMap<String, Value>,
    pub(crate) known_leader: bool,
    /// In milliseconds.
    pub(crate) last_contact: u64,
    /// Whether any server answers, whatever is asked for.
    pub(crate) stale: bool,
    pub(crate) filtered: bool,
    pub(crate) default_deny: bool,
    /// What becomes of a question whose path and parameters hold this text; held ones are not spared.
    pub(crate) faults: BTreeMap<&'static str, Fault>,
}

/// What becomes of a question.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Another status, with a text.
    Status(u16, &'static str),
    /// This, in place of the answer, with headers as they should be.
    Body(&'static str),
    /// A good answer of at least so many bytes, none of which is held in memory for long.
    Large(usize),
    /// The same, which may be no text.
    Bytes(Vec<u8>),
    /// Nothing, for ever.
    Hang,
    /// The end of the connection.
    Close,
}

impl FakeConsul {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (world, seen) = watch::channel(World {
            index: [10, 10],
            catalog: None,
            checks: json!([]),
            services: BTreeMap::new(),
            connect: BTreeMap::new(),
            known_leader: true,
            last_contact: 0,
            stale: false,
            filtered: false,
            default_deny: false,
            faults: BTreeMap::new(),
        });
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        let log = Arc::clone(&asked);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                tcp.set_nodelay(true).unwrap();
                let (seen, log) = (seen.clone(), Arc::clone(&log));
                let service = service_fn(move |request| {
                    let target = request.uri().path_and_query().unwrap().to_string();
                    log.lock().unwrap().push(target);
                    answer(request, seen.clone())
                });
                let served = http1::Builder::new().serve_connection(TokioIo::new(tcp), service);
                // A client that goes away is no fault of ours.
                connections.spawn(async move { drop(served.await) });
            }
        });
        Self {
            address,
            world,
            asked,
            _tasks: tasks,
        }
    }

    /// Where it answers.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How a gateway is told to ask it.
    pub(crate) fn config(&self) -> Consul {
        Consul {
            address: ConsulAddress::Tcp(self.address.ip().to_string(), self.address.port()),
            https: false,
            prefix: String::new(),
            token: None,
            login: None,
            places: vec![Place::default()],
            basic_auth: None,
            roots: Vec::new(),
            certificate: None,
            server_name: None,
            mesh_identity: None,
            tagging: Tagging::default(),
            catalog: Catalog::default(),
        }
    }

    /// Lets it say something else from now on.
    pub(crate) fn change(&self, change: impl FnOnce(&mut World)) {
        self.world.send_modify(change);
    }

    /// Lets it fail whoever asks what holds this text, in its path or parameters; `""` is everything.
    pub(crate) fn fail(&self, text: &'static str, fault: Fault) {
        self.change(|world| {
            world.faults.insert(text, fault);
        });
    }

    /// What it has been asked since this was last called: paths with their parameters.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl World {
    /// Registers an instance of a service of that name.
    pub(crate) fn register(&mut self, name: &str, tags: &[&str]) {
        let entry = json!({
            "Node": { "Node": "n1", "Address": "127.0.0.1", "Datacenter": "dc1" },
            "Service": { "ID": name, "Service": name, "Port": 9000 + self.index[0], "Tags": tags,
                "ModifyIndex": self.index[0] },
            "Checks": [],
        });
        self.services.insert(name.to_owned(), json!([entry]));
        self.index[0] += 1;
    }

    /// Takes all its instances away.
    pub(crate) fn deregister(&mut self, name: &str) {
        self.services.remove(name);
        self.index[0] += 1;
    }

    /// The union of the tags of each service.
    fn listed(&self) -> Value {
        let services = self.services.iter().map(|(name, entries)| {
            let entries = entries.as_array().unwrap().iter();
            let tags = entries.flat_map(|entry| entry["Service"]["Tags"].as_array().unwrap());
            (name.clone(), tags.cloned().collect())
        });
        services.collect::<serde_json::Map<_, _>>().into()
    }

    /// What is registered on each node, as `catalog/node-services/NODE` has it.
    fn nodes(&self) -> BTreeMap<String, Value> {
        let mut nodes = BTreeMap::new();
        let lists = self.services.values().chain(self.connect.values());
        for entry in lists.filter_map(Value::as_array).flatten() {
            if let Some(name) = entry["Node"]["Node"].as_str() {
                let empty = || json!({ "Node": entry["Node"], "Services": [] });
                let node = nodes.entry(name.to_owned()).or_insert_with(empty);
                node["Services"]
                    .as_array_mut()
                    .unwrap()
                    .push(entry["Service"].clone());
            }
        }
        nodes
    }

    /// The answer to a path, and its index.
    fn answer(&self, path: &str) -> (Value, u64) {
        let [catalog, checks] = self.index;
        let entries = |of: &BTreeMap<String, Value>, name: &str| {
            (of.get(name).cloned().unwrap_or(json!([])), catalog)
        };
        match path.split('/').collect::<Vec<_>>()[2..] {
            ["catalog", "services"] => {
                let listed = || self.listed();
                (self.catalog.clone().unwrap_or_else(listed), catalog)
            }
            ["health", "state", "any"] => (self.checks.clone(), checks),
            ["catalog", "nodes"] => (
                self.nodes()
                    .into_values()
                    .map(|node| node["Node"].clone())
                    .collect(),
                catalog,
            ),
            ["catalog", "node-services", node] => {
                let none = || json!({ "Node": null, "Services": [] });
                (self.nodes().remove(node).unwrap_or_else(none), catalog)
            }
            ["health", "service", name] => entries(&self.services, name),
            ["health", "connect", name] => entries(&self.connect, name),
            ["status", "leader"] => (json!("127.0.0.1:8300"), 0),
            _ => panic!("nobody asks {path}"),
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    mut seen: watch::Receiver<World>,
) -> Result<Response<Text>, &'static str> {
    let target = request.uri().path_and_query().unwrap().to_string();
    let parameter = |name: &str| -> Option<u64> {
        let mut pairs = request.uri().query()?.split('&');
        let value = pairs.find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
        Some(value.trim_end_matches('s').parse().unwrap())
    };
    let known = parameter("index").unwrap_or(0);
    let end = tokio::time::sleep(Duration::from_secs(parameter("wait").unwrap_or(300)));
    tokio::pin!(end);
    let mut has_ended = false;
    loop {
        let world = seen.borrow_and_update().clone();
        let mut faults = world.faults.iter();
        let fault = faults.find(|(text, _)| target.contains(**text));
        let (value, index) = world.answer(request.uri().path());
        let body = match fault {
            Some((_, Fault::Status(status, text))) => {
                let response = Response::builder().status(*status);
                return Ok(response.body(Text::once(*text)).unwrap());
            }
            Some((_, Fault::Hang)) => match future::pending::<Infallible>().await {},
            Some((_, Fault::Close)) => return Err("closed"),
            Some((_, Fault::Body(text))) => Text::once(*text),
            Some((_, Fault::Large(bytes))) => Text::large(value.is_object(), *bytes),
            Some((_, Fault::Bytes(bytes))) => Text::once(Bytes::copy_from_slice(bytes)),
            None => Text::once(value.to_string()),
        };
        if known == 0 || index > known || fault.is_some() || has_ended {
            let mut response = Response::builder()
                .header("X-Consul-Index", index)
                .header("X-Consul-LastContact", world.last_contact)
                .header("X-Consul-KnownLeader", world.known_leader.to_string());
            if world.stale {
                response = response.header("X-Consul-Effective-Consistency", "stale");
            }
            if world.filtered {
                response = response.header("X-Consul-Results-Filtered-By-ACLs", "true");
            }
            if world.default_deny {
                response = response.header("X-Consul-Default-ACL-Policy", "deny");
            }
            return Ok(response.body(body).unwrap());
        }
        tokio::select! {
            () = &mut end => has_ended = true,
            changed = seen.changed() => changed.map_err(|_| "the test is over")?,
        }
    }
}

/// An answer in pieces, of which all but the first and the last are alike.
struct Text {
    first: Option<Bytes>,
    again: Bytes,
    times: usize,
    last: Option<Bytes>,
}

impl Text {
    fn once(text: impl Into<Bytes>) -> Self {
        Self {
            first: Some(text.into()),
            again: Bytes::new(),
            times: 0,
            last: None,
        }
    }

    /// Services with their tags, or instances of one.
    fn large(is_map: bool, bytes: usize) -> Self {
        let (first, again, last) = match is_map {
            true => (
                "{",
                r#""a-service":["traefik.enable=true"],"#,
                r#""last":[]}"#,
            ),
            false => (
                "[",
                r#"{"Node":{"Node":"n1","Address":"10.0.0.1"}},"#,
                "{}]",
            ),
        };
        let again = again.repeat(1024);
        Self {
            first: Some(first.into()),
            times: bytes / again.len() + 1,
            again: again.into(),
            last: Some(last.into()),
        }
    }
}

impl Body for Text {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match self.first.take() {
            Some(first) => Some(first),
            None if self.times > 0 => {
                self.times -= 1;
                Some(self.again.clone())
            }
            None => self.last.take(),
        };
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.times == 0 && self.last.is_none()
    }

    /// What comes in one piece has a length; the rest comes in chunks, as Consul sends what is large.
    fn size_hint(&self) -> SizeHint {
        match (&self.first, self.times) {
            (Some(first), 0) => SizeHint::with_exact(first.len() as u64),
            _ => SizeHint::default(),
        }
    }
}
