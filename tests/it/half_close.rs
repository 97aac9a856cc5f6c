//! Half-close: the end of one direction is passed on, and the other flows to its last byte.

use std::sync::Arc;
use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, SupportedProtocolVersion};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::upstream::Upstream;

/// What the clients of these tests ask for.
const NAME: &str = "half.example.test";

/// What the side that ends first has said before.
const QUESTION: usize = 3_000;

/// What ends first, and what comes back how late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Case {
    upstream_first: bool,
    delay: Duration,
    reply: usize,
}

impl Case {
    /// The client tells the upstream its part.
    fn to_bytes(self) -> [u8; 9] {
        let millis = u32::try_from(self.delay.as_millis()).unwrap();
        let reply = u32::try_from(self.reply).unwrap();
        let mut bytes = [u8::from(self.upstream_first); 9];
        bytes[1..5].copy_from_slice(&millis.to_be_bytes());
        bytes[5..].copy_from_slice(&reply.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; 9]) -> Self {
        let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        Self {
            upstream_first: bytes[0] == 1,
            delay: Duration::from_millis(number(1).into()),
            reply: usize::try_from(number(5)).unwrap(),
        }
    }

    fn all() -> impl Iterator<Item = Self> {
        let delays = [0, 150, 5_000].map(Duration::from_millis);
        delays.into_iter().flat_map(|delay| {
            [false, true].into_iter().flat_map(move |upstream_first| {
                [0, 1, 1 << 20].map(|reply| Self {
                    upstream_first,
                    delay,
                    reply,
                })
            })
        })
    }
}

fn text(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

/// Says something, ends its direction, and takes the answer to its end, which must be a clean one.
async fn ends_first<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, reply: usize) {
    stream.write_all(&text(QUESTION)).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer == text(reply), "{} bytes", answer.len());
}

/// Listens until the other has ended, and only then answers, after its time.
async fn ends_last<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, case: Case) {
    let mut question = Vec::new();
    stream.read_to_end(&mut question).await.unwrap();
    assert!(question == text(QUESTION), "{} bytes", question.len());
    tokio::time::sleep(case.delay).await;
    stream.write_all(&text(case.reply)).await.unwrap();
    stream.shutdown().await.unwrap();
}

async fn as_client<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, case: Case) {
    stream.write_all(&case.to_bytes()).await.unwrap();
    if case.upstream_first {
        ends_last(stream, case).await;
    } else {
        ends_first(stream, case.reply).await;
    }
}

/// Does the upstream's part, and tells of a case only when everything in it came as it should.
pub(crate) async fn as_upstream<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    well: UnboundedSender<Case>,
) {
    let mut bytes = [0; 9];
    stream.read_exact(&mut bytes).await.unwrap();
    let case = Case::from_bytes(bytes);
    if case.upstream_first {
        ends_first(stream, case.reply).await;
    } else {
        ends_last(stream, case).await;
    }
    well.send(case).unwrap();
}

/// All cases at once through one route, with one version of TLS.
async fn every_case(mode: &str, version: &'static SupportedProtocolVersion) {
    let authority = Authority::new();
    let issued = authority.issue_files("edge", &[NAME]);
    let (well, went_well) = unbounded_channel();
    let upstream = if mode == "terminate" {
        Upstream::tcp(move |tcp| as_upstream(tcp, well.clone())).await
    } else {
        Upstream::tls(issued.server(&[version]), move |tls| {
            as_upstream(tls, well.clone())
        })
        .await
    };
    let route = match mode {
        "pass" => "passthrough = true\nupstream = \"u\"",
        _ => "upstream = \"u\"",
    };
    let tls = match mode {
        "re-encrypt" => format!("tls = {{ roots = [\"ca.pem\"], server_name = \"{NAME}\" }}"),
        _ => String::new(),
    };
    let tables = format!(
        "certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
         [routes.half]\nhost = \"{NAME}\"\n{route}\n\
         [upstreams.u]\naddress = \"{}\"\n{tls}\n",
        upstream.address
    );
    let mut gateway = Gateway::start(&authority, &tables).await;
    let config = Arc::new(authority.client(&[version]));
    every_case_through(&mut gateway, &config, NAME, mode, went_well).await;
}

/// All cases at once through the route for this name, to an upstream that does its part by [`as_upstream`].
pub(crate) async fn every_case_through(
    gateway: &mut Gateway,
    config: &Arc<ClientConfig>,
    name: &str,
    mode: &str,
    mut went_well: UnboundedReceiver<Case>,
) {
    let mut clients = JoinSet::new();
    let mut cases = Vec::new();
    for case in Case::all() {
        let stream = gateway.connect_tls(config, name).await.unwrap();
        cases.push((stream.get_ref().0.local_addr().unwrap().to_string(), case));
        clients.spawn(as_client(stream, case));
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    let mut well = Vec::new();
    for _ in &cases {
        well.push(went_well.recv().await.unwrap());
    }
    well.sort_unstable();
    let mut all: Vec<Case> = cases.iter().map(|(_, case)| *case).collect();
    all.sort_unstable();
    assert_eq!(well, all, "{mode}");
    for _ in &cases {
        let record = gateway.ended().await;
        let (_, case) = (cases
            .iter()
            .find(|(client, _)| record["client"] == **client))
        .unwrap();
        is_right(&record, *case, mode);
    }
}

/// Closed, with the bytes of both directions; passed through, those of the TLS around them come on top.
fn is_right(record: &Value, case: Case, mode: &str) {
    assert_eq!(record["reason"], "closed", "{mode} {case:?} {record}");
    let head = case.to_bytes().len();
    let (up, down) = match case.upstream_first {
        true => (head + case.reply, QUESTION),
        false => (head + QUESTION, case.reply),
    };
    for (key, expected) in [("bytes_up", up), ("bytes_down", down)] {
        let counted = usize::try_from(record[key].as_u64().unwrap()).unwrap();
        let fits = if mode != "pass" {
            counted == expected
        } else {
            counted > expected
        };
        assert!(fits, "{key} is not {expected}: {mode} {case:?} {record}");
    }
}

/// All at once: most of their time they wait for late answers.
async fn every_mode(version: &'static SupportedProtocolVersion) {
    tokio::join!(
        every_case("terminate", version),
        every_case("pass", version),
        every_case("re-encrypt", version)
    );
}

#[tokio::test]
async fn under_tls_1_2_the_end_of_one_direction_leaves_the_other_in_every_mode() {
    every_mode(&TLS12).await;
}

#[tokio::test]
async fn under_tls_1_3_the_end_of_one_direction_leaves_the_other_in_every_mode() {
    every_mode(&TLS13).await;
}
