//! A go-between before a real agent, for the faults that no agent makes on demand.

use std::future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::{TlsConnector, client, server};

use super::{Consul, MANAGEMENT};
use crate::upstream::Upstream;

/// What passes questions on to an agent, and its answers back; while it is told of a fault, those that the fault is about
/// get that instead, those too which were waiting. It shows a certificate of the agent's own CA.
pub(crate) struct Between {
    /// The keys in `[consul]` of a gateway that takes it for the agent.
    pub(crate) keys: String,
    address: SocketAddr,
    shared: Arc<Shared>,
    _accepting: Upstream,
}

/// What is wrong with the answers.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// They are others.
    Altered(fn(&mut Altered)),
    /// There are none, and the connection stays.
    Hang,
    /// The connection is reset.
    Reset,
    /// The connection ends in the middle.
    Half,
    /// They do not end.
    Endless,
    /// They are in chunks, and the second is none.
    Chunks,
    /// They are those to another question: its path and query.
    Instead(&'static str),
}

/// An answer of the agent, to be made another.
pub(crate) struct Altered {
    pub(crate) status: u16,
    /// Those that tell where it ends excepted.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

struct Shared {
    agent: Agent,
    /// What is wrong, with the answers to which paths after `/v1/`, by how they begin.
    fault: watch::Sender<Option<(&'static [&'static str], Fault)>>,
    questions: AtomicUsize,
    /// The path and query of each.
    asked: Mutex<Vec<String>>,
}

/// Where the agent is, and who may say so.
struct Agent {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
}

impl Between {
    /// Stands before this agent, which is reached over HTTPS.
    pub(crate) async fn before(consul: &Consul) -> Self {
        let tls = consul.client.clone();
        let shared = Arc::new(Shared {
            agent: Agent {
                address: consul.http(),
                tls: tls.expect("the agent speaks TLS"),
            },
            fault: watch::Sender::new(None),
            questions: AtomicUsize::new(0),
            asked: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        let shown = consul.authority.issue(&["127.0.0.1"]).server(&[&TLS13]);
        let accepting =
            Upstream::tls(shown, move |gateway| serve(gateway, Arc::clone(&serving))).await;
        let (old, new) = (consul.http(), accepting.address);
        Self {
            address: new,
            keys: (consul.keys()).replace(&old.to_string(), &new.to_string()),
            shared,
            _accepting: accepting,
        }
    }

    /// From now on this is wrong with answers to paths that begin so after `/v1/`: `["catalog/", "health/"]`, or `[""]`.
    pub(crate) fn fail(&self, paths: &'static [&'static str], fault: Fault) {
        self.shared.fault.send_replace(Some((paths, fault)));
    }

    /// From now on nothing is wrong.
    pub(crate) fn heal(&self) {
        self.shared.fault.send_replace(None);
    }

    /// How many questions have come.
    pub(crate) fn questions(&self) -> usize {
        self.shared.questions.load(Ordering::SeqCst)
    }

    /// The paths and queries of all questions so far, for the message of a test that fails.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().clone()
    }
}

impl Altered {
    /// Gives a header field another value.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.unset(name);
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    /// Leaves a header field out.
    pub(crate) fn unset(&mut self, name: &str) {
        self.headers
            .retain(|(other, _)| !other.eq_ignore_ascii_case(name));
    }

    /// Changes what the body says.
    pub(crate) fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        let mut value = serde_json::from_str(&self.body).unwrap();
        change(&mut value);
        self.body = value.to_string();
    }

    /// Lists nothing, in the way that the agent would.
    pub(crate) fn empty(&mut self) {
        self.body = match self.body.trim_start().starts_with('{') {
            true => "{}".to_owned(),
            false => "[]".to_owned(),
        };
    }

    /// As it is written, less so many bytes of its end.
    fn bytes(&self, missing: usize) -> Vec<u8> {
        let mut text = format!("HTTP/1.1 {} Whatever\r\n", self.status);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        let length = self.body.len();
        text.push_str(&format!(
            "Content-Length: {length}\r\nConnection: close\r\n\r\n{}",
            self.body
        ));
        text.truncate(text.len() - missing);
        text.into_bytes()
    }
}

/// One question a connection.
async fn serve(mut gateway: Gateway, shared: Arc<Shared>) {
    let Some(question) = Question::read(&mut gateway).await else {
        return;
    };
    shared.questions.fetch_add(1, Ordering::SeqCst);
    shared.asked.lock().unwrap().push(question.target.clone());
    let mut faults = shared.fault.subscribe();
    let answer = loop {
        let fault = *faults.borrow_and_update();
        let fault = fault.filter(|(paths, _)| question.is_about(paths));
        tokio::select! {
            answer = question.answer(&shared.agent, fault.map(|(_, fault)| fault)) => break answer,
            // A question that waits is given up with the connection that asked it.
            _ = gateway.read_u8() => return,
            _ = faults.changed() => {}
        }
    };
    // The gateway may be gone, and so may the agent: then the connection just ends.
    let _ = match answer {
        Ok(Answered::With(bytes)) => say(&mut gateway, &bytes).await,
        Ok(Answered::Reset) => gateway.get_ref().0.set_zero_linger(),
        Ok(Answered::Endlessly) => write_endlessly(&mut gateway).await,
        Err(_) => Ok(()),
    };
}

/// A gateway that asks.
type Gateway = server::TlsStream<TcpStream>;

/// All there is to be said.
async fn say(gateway: &mut Gateway, bytes: &[u8]) -> io::Result<()> {
    gateway.write_all(bytes).await?;
    gateway.shutdown().await
}

async fn write_endlessly(gateway: &mut Gateway) -> io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    gateway.write_all(head.as_bytes()).await?;
    let chunk = format!("100000\r\n{}\r\n", " ".repeat(0x10_0000));
    loop {
        gateway.write_all(chunk.as_bytes()).await?;
    }
}

/// A chunk that is one, and then what is no length of any.
const CHUNKS: &[u8] = b"HTTP/1.1 200 OK\r\nX-Consul-Index: 9\r\nX-Consul-KnownLeader: true\r\n\
    Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n\xffgarbage\r\n\r\n0\r\n\r\n";

enum Answered {
    With(Vec<u8>),
    Reset,
    Endlessly,
}

/// A GET.
struct Question {
    /// Path and query.
    target: String,
    /// The header fields, each with its end of line.
    fields: String,
}

impl Question {
    async fn read(gateway: &mut Gateway) -> Option<Self> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(gateway.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).ok()?;
        let (line, fields) = head.split_once("\r\n")?;
        let dropped = ["accept-encoding:", "connection:"];
        let kept = fields.trim_end().lines().filter(|line| {
            let line = line.to_ascii_lowercase();
            !dropped.iter().any(|name| line.starts_with(name))
        });
        Some(Self {
            target: line.split(' ').nth(1)?.to_owned(),
            fields: kept.map(|line| format!("{line}\r\n")).collect(),
        })
    }

    fn is_about(&self, paths: &[&str]) -> bool {
        let path = self.target.strip_prefix("/v1/").unwrap_or_default();
        paths.iter().any(|begin| path.starts_with(begin))
    }

    async fn answer(&self, agent: &Agent, fault: Option<Fault>) -> io::Result<Answered> {
        let Some(fault) = fault else {
            let answer = self.ask(agent, &self.target).await?;
            return Ok(Answered::With(answer.bytes(0)));
        };
        match fault {
            Fault::Hang => future::pending().await,
            Fault::Reset => Ok(Answered::Reset),
            Fault::Endless => Ok(Answered::Endlessly),
            Fault::Chunks => Ok(Answered::With(CHUNKS.to_vec())),
            Fault::Instead(other) => {
                let answer = self.ask(agent, other).await?;
                Ok(Answered::With(answer.bytes(0)))
            }
            Fault::Altered(alter) => {
                let mut answer = self.ask(agent, &self.without_waiting()).await?;
                alter(&mut answer);
                Ok(Answered::With(answer.bytes(0)))
            }
            Fault::Half => {
                let answer = self.ask(agent, &self.without_waiting()).await?;
                Ok(Answered::With(answer.bytes(answer.body.len() / 2)))
            }
        }
    }

    /// The same, to be answered at once.
    fn without_waiting(&self) -> String {
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let kept = query
            .split('&')
            .filter(|pair| !pair.starts_with("index=") && !pair.starts_with("wait="));
        format!("{path}?{}", kept.collect::<Vec<_>>().join("&"))
    }

    async fn ask(&self, agent: &Agent, target: &str) -> io::Result<Altered> {
        let mut tls = connect(agent.address, &agent.tls).await?;
        // In HTTP/1.0 the answer comes in one piece and ends where the connection does.
        let question = format!("GET {target} HTTP/1.0\r\n{}\r\n", self.fields);
        tls.write_all(question.as_bytes()).await?;
        tls.flush().await?;
        let mut answer = String::new();
        tls.read_to_string(&mut answer).await?;
        let parsed = answer.split_once("\r\n\r\n").and_then(|(head, body)| {
            let (status, fields) = head.split_once("\r\n")?;
            let fields = fields.lines().filter_map(|line| line.split_once(": "));
            let kept = fields.filter(|(name, _)| {
                let name = name.to_ascii_lowercase();
                !["content-length", "connection", "transfer-encoding"].contains(&name.as_str())
            });
            Some(Altered {
                status: status.split(' ').nth(1)?.parse().ok()?,
                headers: kept
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect(),
                body: body.to_owned(),
            })
        });
        parsed.ok_or_else(|| io::Error::other(format!("no HTTP: {answer:?}")))
    }
}

async fn connect(
    address: SocketAddr,
    tls: &Arc<ClientConfig>,
) -> io::Result<client::TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::from(address.ip());
    TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_passes_on_what_is_asked_and_answered_until_it_is_told_of_a_fault() {
    let Some(consul) = Consul::strict() else {
        return;
    };
    let between = Between::before(&consul).await;
    let path = "/v1/catalog/services";
    let (index, answer) = ask(&between, path).await.unwrap();
    assert_eq!(answer, r#"{"consul":[]}"#);

    // A question that waits gets the fault, too, and the truth when it has ended.
    let waiting = format!("{path}?index={index}&wait=60s");
    let fault = Fault::Altered(|answer| {
        answer.set("X-Consul-Index", "1");
        answer.edit(|services| services["more"] = Value::Null);
    });
    let (asked, _) = tokio::join!(ask(&between, &waiting), async {
        while between.questions() < 2 {
            tokio::task::yield_now().await;
        }
        between.fail(&["catalog/"], fault);
    });
    assert_eq!(asked, Some((1, r#"{"consul":[],"more":null}"#.to_owned())));
    assert_eq!(ask(&between, "/v1/agent/checks").await.unwrap().1, "{}");
    between.fail(&[""], Fault::Reset);
    assert_eq!(ask(&between, path).await, None);
    between.fail(&[""], Fault::Half);
    assert_eq!(ask(&between, path).await, None);
    between.fail(&[""], Fault::Hang);
    let (asked, _) = tokio::join!(ask(&between, path), async {
        while between.questions() < 6 {
            tokio::task::yield_now().await;
        }
        between.heal();
    });
    assert_eq!(asked, Some((index, answer)));
    assert_eq!(between.asked().last().unwrap(), path);
}

/// The index of an answer, and its body without spaces; none if it is not whole.
async fn ask(between: &Between, target: &str) -> Option<(u64, String)> {
    let tls = &between.shared.agent.tls;
    let mut tls = connect(between.address, tls).await.unwrap();
    let token = format!("X-Consul-Token: {MANAGEMENT}\r\n");
    let text = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{token}\r\n");
    tls.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tls.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let head = head.to_ascii_lowercase();
    let field = |name: &str| {
        let mut fields = head.lines();
        fields.find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    let whole = field("content-length:") == Some(body.len() as u64);
    let body: String = body.split_whitespace().collect();
    whole.then(|| (field("x-consul-index:").unwrap_or(0), body))
}
