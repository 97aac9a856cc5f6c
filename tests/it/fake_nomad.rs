//! A Nomad of the test's own, for what a real one does not do on demand: it says whatever it is told to, well or badly.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use portcullis::config::{Agent, ConsulAddress, Namespaces, Nomad, Tagging};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::fake_consul::Fault;

/// It ends with its owner. Blocking queries are held as Nomad holds them.
pub(crate) struct FakeNomad {
    address: SocketAddr,
    world: watch::Sender<World>,
    _tasks: JoinSet<()>,
}

/// What it says.
#[derive(Clone)]
pub(crate) struct World {
    /// That of all services together: Nomad has no other.
    pub(crate) index: u64,
    /// What `service/NAME` answers, by namespace and name.
    pub(crate) services: BTreeMap<(&'static str, String), Value>,
    /// For how many milliseconds it has not heard of its leader.
    pub(crate) last_contact: u64,
    /// What stands in `services` beside what follows from them.
    pub(crate) beside: Vec<Value>,
    /// Namespaces that the token may not read: refused alone, and left out of `*`.
    pub(crate) hidden: Vec<&'static str>,
    /// What becomes of a question whose path and parameters hold this text; held ones are not spared.
    pub(crate) faults: BTreeMap<&'static str, Fault>,
}

impl FakeNomad {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (world, seen) = watch::channel(World {
            index: 10,
            services: BTreeMap::new(),
            last_contact: 0,
            beside: Vec::new(),
            hidden: Vec::new(),
            faults: BTreeMap::new(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                tcp.set_nodelay(true).unwrap();
                let seen = seen.clone();
                let service = service_fn(move |request| answer(request, seen.clone()));
                let served = http1::Builder::new().serve_connection(TokioIo::new(tcp), service);
                // A client that goes away is no fault of ours.
                connections.spawn(async move { drop(served.await) });
            }
        });
        Self {
            address,
            world,
            _tasks: tasks,
        }
    }

    /// Where it answers.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How a gateway is told to ask it for these namespaces.
    pub(crate) fn config(&self, namespaces: &[&str]) -> Nomad {
        Nomad {
            agent: Agent {
                address: ConsulAddress::Tcp(self.address.ip().to_string(), self.address.port()),
                https: false,
                prefix: String::new(),
                token: None,
                basic_auth: None,
                roots: Vec::new(),
                certificate: None,
                server_name: None,
            },
            namespaces: match namespaces {
                ["*"] => Namespaces::All,
                names => Namespaces::Only(names.iter().map(|name| (*name).to_owned()).collect()),
            },
            region: None,
            tagging: Tagging::default(),
            stale: false,
            refresh_interval: Duration::from_secs(60),
            allow_local_addresses: true,
        }
    }

    /// Lets it say something else from now on.
    pub(crate) fn change(&self, change: impl FnOnce(&mut World)) {
        self.world.send_modify(change);
    }
}

impl World {
    /// Registers an instance of a service of that name, at this port of this machine, and no other.
    pub(crate) fn register(
        &mut self,
        namespace: &'static str,
        name: &str,
        port: u16,
        tags: &[String],
    ) {
        let entry = json!({
            "ID": format!("_nomad-task-{name}"), "ServiceName": name, "Namespace": namespace, "NodeID": "a1b2c3d4-e5",
            "Datacenter": "dc1", "JobID": name, "AllocID": "f6", "Tags": tags, "Address": "127.0.0.1", "Port": port,
            "CreateIndex": self.index, "ModifyIndex": self.index,
        });
        self.services
            .insert((namespace, name.to_owned()), json!([entry]));
        self.index += 1;
    }

    /// Takes all its instances away.
    pub(crate) fn deregister(&mut self, namespace: &'static str, name: &str) {
        self.services.remove(&(namespace, name.to_owned()));
        self.index += 1;
    }

    /// Whether whoever asks for this namespace may.
    fn shows(&self, namespace: &str) -> bool {
        !self.hidden.contains(&namespace)
    }

    /// `services`, of one namespace or all.
    fn listed(&self, asked: &str) -> Value {
        let mut namespaces: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for ((namespace, name), entries) in &self.services {
            if (asked == "*" || asked == *namespace) && self.shows(namespace) {
                let entries = entries.as_array().unwrap().iter();
                let tags = entries.filter_map(|entry| entry["Tags"].as_array());
                let tags: Vec<&Value> = tags.flatten().collect();
                let stub = json!({ "ServiceName": name, "Tags": tags });
                namespaces.entry(namespace).or_default().push(stub);
            }
        }
        let listed = namespaces.into_iter();
        let listed = listed.map(|(name, stubs)| json!({ "Namespace": name, "Services": stubs }));
        listed.chain(self.beside.clone()).collect()
    }

    fn answer(&self, path: &str, namespace: &str) -> Value {
        match path.split('/').collect::<Vec<_>>()[2..] {
            ["services"] => self.listed(namespace),
            ["service", name] => {
                let known = self.services.iter();
                let mut known =
                    known.filter(|((of, called), _)| *of == namespace && called == name);
                known
                    .next()
                    .map_or(json!([]), |(_, entries)| entries.clone())
            }
            ["status", "leader"] => json!("127.0.0.1:4647"),
            _ => panic!("nobody asks {path}"),
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    mut seen: watch::Receiver<World>,
) -> Result<Response<Full<Bytes>>, &'static str> {
    let (path, query) = (
        request.uri().path(),
        request.uri().query().unwrap_or_default(),
    );
    let target = format!("{path}?{query}");
    let parameter = |name: &str| {
        let mut pairs = query.split('&');
        pairs.find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    };
    let namespace = parameter("namespace")
        .unwrap_or_default()
        .replace("%2A", "*");
    let known: u64 = parameter("index").unwrap_or("0").parse().unwrap();
    let end = tokio::time::sleep(Duration::from_secs(300));
    tokio::pin!(end);
    let mut has_ended = false;
    loop {
        let world = seen.borrow_and_update().clone();
        let fault = world
            .faults
            .iter()
            .find(|(text, _)| target.contains(**text));
        let refused = path != "/v1/status/leader" && !world.shows(&namespace);
        let body = match fault {
            Some((_, Fault::Status(status, text))) => return Ok(bad(*status, text)),
            Some((_, Fault::Bytes(_))) => panic!("no test asks for them here"),
            Some((_, Fault::Hang)) => future::pending::<Infallible>().await.to_string(),
            Some((_, Fault::Close)) => return Err("closed"),
            Some((_, Fault::Body(text))) => (*text).to_owned(),
            Some((_, Fault::Large(bytes))) => format!("[{}]", " ".repeat(*bytes)),
            None if refused => return Ok(bad(403, "Permission denied")),
            None => world.answer(path, &namespace).to_string(),
        };
        if known == 0 || world.index > known || fault.is_some() || has_ended {
            let response = Response::builder()
                .header("X-Nomad-Index", world.index)
                .header("X-Nomad-KnownLeader", "true")
                .header("X-Nomad-LastContact", world.last_contact);
            return Ok(response.body(Full::from(body)).unwrap());
        }
        tokio::select! {
            () = &mut end => has_ended = true,
            changed = seen.changed() => changed.map_err(|_| "the test is over")?,
        }
    }
}

fn bad(status: u16, text: &'static str) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status);
    response.body(Full::from(text)).unwrap()
}
