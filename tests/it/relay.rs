//! The relay: every byte both ways, bounded memory, and what each side sees when the other breaks off.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::version::TLS13;
use serde_json::Value;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::support::PATIENCE;
use crate::upstream::{Upstream, echo};

const NAME: &str = "relay.example.test";

/// How a route treats TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Terminate,
    Pass,
    ReEncrypt,
}

const MODES: [Mode; 3] = [Mode::Terminate, Mode::Pass, Mode::ReEncrypt];

/// A stream of either kind, as an upstream sees it.
trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {
    /// The socket underneath.
    fn tcp(&self) -> &TcpStream;
}

impl Pipe for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Pipe for tokio_rustls::server::TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// A gateway with one route, and the upstream behind it.
struct Edge {
    gateway: Gateway,
    authority: Authority,
    _upstream: Upstream,
}

impl Edge {
    async fn start<F>(
        mode: Mode,
        limits: &str,
        serve: impl Fn(Box<dyn Pipe>) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let authority = Authority::new();
        let issued = authority.issue_files("edge", &[NAME]);
        let upstream = match mode {
            Mode::Terminate => Upstream::tcp(move |tcp| serve(Box::new(tcp))).await,
            Mode::Pass | Mode::ReEncrypt => {
                Upstream::tls(issued.server(&[&TLS13]), move |tls| serve(Box::new(tls))).await
            }
        };
        let passthrough = mode == Mode::Pass;
        let tls = match mode {
            Mode::ReEncrypt => {
                format!("tls = {{ roots = [\"ca.pem\"], server_name = \"{NAME}\" }}")
            }
            _ => String::new(),
        };
        let tables = format!(
            "certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
             [limits]\n{limits}\n\
             [routes.relay]\nhost = \"{NAME}\"\npassthrough = {passthrough}\nupstream = \"u\"\n\
             [upstreams.u]\naddress = \"{}\"\n{tls}\n",
            upstream.address
        );
        Self {
            gateway: Gateway::start(&authority, &tables).await,
            authority,
            _upstream: upstream,
        }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let config = Arc::new(self.authority.client(&[&TLS13]));
        self.gateway.connect_tls(&config, NAME).await.unwrap()
    }

    async fn ended(&mut self) -> Value {
        self.gateway.ended().await
    }
}

/// An upstream that hands its streams to the test.
async fn handing_over(mode: Mode, limits: &str) -> (Edge, UnboundedReceiver<Box<dyn Pipe>>) {
    let (hand, handed) = unbounded_channel();
    let edge = Edge::start(mode, limits, move |stream| {
        let _ = hand.send(stream);
        std::future::ready(())
    })
    .await;
    (edge, handed)
}

/// Both ends of one tunnel.
async fn tunnel(
    edge: &Edge,
    handed: &mut UnboundedReceiver<Box<dyn Pipe>>,
) -> (TlsStream<TcpStream>, Box<dyn Pipe>) {
    let client = edge.connect().await;
    (client, handed.recv().await.unwrap())
}

/// A text that is not the same anywhere within 64 KiB of itself; its length is prime, so that no buffer fits it.
fn text() -> Vec<u8> {
    let mut state = 1_u32;
    let next = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    next.take(65_521).collect()
}

/// Sends so many bytes of the text, over and over, and ends.
async fn send(mut to: impl AsyncWrite + Unpin, mut left: usize) {
    let text = text();
    while left > 0 {
        let count = left.min(text.len());
        to.write_all(&text[..count]).await.unwrap();
        left -= count;
    }
    to.shutdown().await.unwrap();
}

/// Receives the text until it ends; says how many bytes came.
async fn receive(mut from: impl AsyncRead + Unpin) -> usize {
    let text = text();
    let mut buffer = vec![0; 256 * 1024];
    let mut count = 0;
    loop {
        let read = from.read(&mut buffer).await.unwrap();
        if read == 0 {
            return count;
        }
        let mut new = &buffer[..read];
        while !new.is_empty() {
            let expected = &text[count % text.len()..];
            let both = expected.len().min(new.len());
            assert!(expected[..both] == new[..both], "other bytes after {count}");
            count += both;
            new = &new[both..];
        }
    }
}

/// Reads to the end; a reset or a truncation is told.
async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> (Vec<u8>, Option<ErrorKind>) {
    let mut bytes = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    let error = read.expect("the stream does not end").err();
    (bytes, error.map(|e| e.kind()))
}

/// Makes the close that comes a reset.
fn reset_on_close(tcp: &TcpStream) {
    let socket = SockRef::from(tcp);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_mebibytes_both_ways_at_once_arrive_in_every_mode() {
    const SIZE: usize = 64 << 20;
    let check = async |mode| {
        let (tell, mut told) = unbounded_channel();
        let mut edge = Edge::start(mode, "", move |stream| {
            let tell = tell.clone();
            async move {
                let (from, to) = tokio::io::split(stream);
                let sending = tokio::spawn(send(to, SIZE));
                tell.send(receive(from).await).unwrap();
                sending.await.unwrap();
            }
        })
        .await;
        let (from, to) = tokio::io::split(edge.connect().await);
        let sending = tokio::spawn(send(to, SIZE));
        assert_eq!(receive(from).await, SIZE, "{mode:?}");
        sending.await.unwrap();
        assert_eq!(told.recv().await, Some(SIZE), "{mode:?}");
        let record = edge.ended().await;
        assert_eq!(record["reason"], "closed", "{record}");
        if mode != Mode::Pass {
            assert_eq!(
                (&record["bytes_up"], &record["bytes_down"]),
                (&SIZE.into(), &SIZE.into())
            );
        }
    };
    tokio::join!(check(MODES[0]), check(MODES[1]), check(MODES[2]));
}

#[tokio::test]
async fn bytes_one_by_one_come_back_one_by_one() {
    for mode in MODES {
        let mut edge = Edge::start(mode, "", echo).await;
        let mut client = edge.connect().await;
        for byte in 0..=255 {
            client.write_all(&[byte]).await.unwrap();
            client.flush().await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), byte, "{mode:?}");
        }
        client.shutdown().await.unwrap();
        assert_eq!(read_all(&mut client).await, (vec![], None));
        assert_eq!(edge.ended().await["reason"], "closed");
    }
}

#[tokio::test]
async fn a_silent_tunnel_stays_open() {
    for mode in MODES {
        let (edge, mut handed) = handing_over(mode, "").await;
        let (mut client, mut upstream) = tunnel(&edge, &mut handed).await;
        for turn in 0..3 {
            client.write_all(&[turn]).await.unwrap();
            client.flush().await.unwrap();
            assert_eq!(upstream.read_u8().await.unwrap(), turn);
            tokio::time::sleep(Duration::from_millis(20)).await;
            upstream.write_all(&[turn]).await.unwrap();
            upstream.flush().await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), turn);
        }
    }
}

/// Writes until nothing more is taken for a while; what was taken is counted.
async fn fill(to: &mut (impl AsyncWrite + Unpin), taken: &AtomicU64) {
    let text = text();
    let mut at = 0;
    while let Ok(wrote) = timeout(Duration::from_millis(300), to.write(&text[at..])).await {
        let wrote = wrote.unwrap();
        taken.fetch_add(wrote as u64, Ordering::Relaxed);
        at = (at + wrote) % text.len();
    }
}

#[tokio::test]
async fn a_reader_that_pauses_stops_the_sender_and_gets_every_byte_when_it_goes_on() {
    // The kernel keeps up to 4 MiB to send and 32 MiB received of each leg.
    const MOST: u64 = 96 << 20;
    for mode in MODES {
        let (mut edge, mut handed) = handing_over(mode, "").await;
        let (mut client, mut upstream) = tunnel(&edge, &mut handed).await;
        for socket in [client.get_ref().0, upstream.tcp()] {
            SockRef::from(socket)
                .set_send_buffer_size(64 << 10)
                .unwrap();
            SockRef::from(socket)
                .set_recv_buffer_size(64 << 10)
                .unwrap();
        }
        let taken = AtomicU64::new(0);
        fill(&mut client, &taken).await;
        let up = usize::try_from(taken.load(Ordering::Relaxed)).unwrap();
        assert!(
            up < usize::try_from(MOST).unwrap(),
            "{mode:?}: the gateway took {up} bytes"
        );
        let (upload, download) = tokio::join!(
            async {
                let end = client.shutdown().await;
                (end, read_all(&mut client).await)
            },
            async {
                let count = receive(&mut upstream).await;
                upstream.write_all(b"all").await.unwrap();
                upstream.shutdown().await.unwrap();
                count
            }
        );
        upload.0.unwrap();
        assert_eq!(upload.1, (b"all".to_vec(), None));
        assert_eq!(download, up, "{mode:?}");
        assert_eq!(edge.ended().await["reason"], "closed");
    }
}

#[tokio::test]
async fn a_client_that_resets_is_a_reset_for_the_upstream_and_never_an_end() {
    for mode in MODES {
        let (mut edge, mut handed) = handing_over(mode, "").await;
        let (mut client, mut upstream) = tunnel(&edge, &mut handed).await;
        client.write_all(b"half an upload").await.unwrap();
        client.flush().await.unwrap();
        upstream.read_exact(&mut [0; 14]).await.unwrap();
        reset_on_close(client.get_ref().0);
        drop(client);
        let (_, error) = read_all(&mut upstream).await;
        assert_eq!(error, Some(ErrorKind::ConnectionReset), "{mode:?}");
        let record = edge.ended().await;
        assert_eq!(
            (&record["reason"], &record["fault"]),
            (&"client_reset".into(), &"client".into()),
            "{record}"
        );
    }
}

#[tokio::test]
async fn a_client_that_resets_while_it_is_written_to_is_a_reset_for_the_upstream() {
    for mode in MODES {
        let (mut edge, mut handed) = handing_over(mode, "").await;
        let (client, mut upstream) = tunnel(&edge, &mut handed).await;
        // The gateway has bytes that the client does not take: it learns of the reset from a write.
        fill(&mut upstream, &AtomicU64::new(0)).await;
        reset_on_close(client.get_ref().0);
        drop(client);
        let (_, error) = read_all(&mut upstream).await;
        assert_eq!(error, Some(ErrorKind::ConnectionReset), "{mode:?}");
        assert_eq!(edge.ended().await["reason"], "client_reset");
    }
}

#[tokio::test]
async fn an_upstream_that_resets_is_no_clean_end_for_the_client() {
    for mode in MODES {
        let (mut edge, mut handed) = handing_over(mode, "").await;
        let (mut client, mut upstream) = tunnel(&edge, &mut handed).await;
        upstream.write_all(b"half an answer").await.unwrap();
        upstream.flush().await.unwrap();
        let mut half = [0; 14];
        client.read_exact(&mut half).await.unwrap();
        reset_on_close(upstream.tcp());
        drop(upstream);
        let (rest, error) = read_all(&mut client).await;
        assert_eq!(
            (rest, error),
            (vec![], Some(ErrorKind::UnexpectedEof)),
            "{mode:?}"
        );
        let record = edge.ended().await;
        assert_eq!(
            (&record["reason"], &record["fault"]),
            (&"upstream_reset".into(), &"upstream".into()),
            "{record}"
        );
    }
}

#[tokio::test]
async fn an_answer_arrives_whole_from_an_upstream_that_resets_because_it_has_not_read_all() {
    for mode in MODES {
        let (mut edge, mut handed) = handing_over(mode, "").await;
        let (client, mut upstream) = tunnel(&edge, &mut handed).await;
        let (mut from, mut to) = tokio::io::split(client);
        let upload = tokio::spawn(async move { while to.write_all(&[7; 4096]).await.is_ok() {} });
        upstream.read_exact(&mut [0; 10_000]).await.unwrap();
        upstream.write_all(&text()[..10_000]).await.unwrap();
        upstream.flush().await.unwrap();
        // Closing with something unread is a reset (RFC 9293 3.10.4, RFC 2525 2.17).
        upstream.tcp().readable().await.unwrap();
        drop(upstream);
        let (answer, error) = read_all(&mut from).await;
        assert!(
            answer == text()[..10_000],
            "{mode:?}: {} bytes",
            answer.len()
        );
        assert!(
            error.is_some(),
            "{mode:?}: nobody knows whether the answer was whole"
        );
        upload.await.unwrap();
        let record = edge.ended().await;
        assert_eq!(record["reason"], "upstream_reset", "{mode:?}: {record}");
    }
}

#[tokio::test]
async fn a_client_that_ends_without_close_notify_ends_its_direction_and_gets_the_answer() {
    for mode in [Mode::Terminate, Mode::Pass] {
        let (mut edge, mut handed) = handing_over(mode, "").await;
        let (mut client, mut upstream) = tunnel(&edge, &mut handed).await;
        client.write_all(b"question").await.unwrap();
        client.flush().await.unwrap();
        SockRef::from(client.get_ref().0)
            .shutdown(std::net::Shutdown::Write)
            .unwrap();
        let (question, error) = read_all(&mut upstream).await;
        // Through TLS the upstream learns that no end was announced; over plain TCP there is no word for it.
        let told = (mode == Mode::Pass).then_some(ErrorKind::UnexpectedEof);
        assert_eq!((question, error), (b"question".to_vec(), told), "{mode:?}");
        upstream.write_all(b"answer").await.unwrap();
        upstream.shutdown().await.unwrap();
        assert_eq!(
            read_all(&mut client).await,
            (b"answer".to_vec(), None),
            "{mode:?}"
        );
        assert_eq!(edge.ended().await["reason"], "closed");
    }
}

#[tokio::test]
async fn an_end_that_one_side_has_not_announced_is_not_announced_to_the_other() {
    for (upstream_first, mode) in [
        (true, Mode::Pass),
        (true, Mode::ReEncrypt),
        (false, Mode::ReEncrypt),
    ] {
        let (mut edge, mut handed) = handing_over(mode, "").await;
        let (mut client, mut upstream) = tunnel(&edge, &mut handed).await;
        let (first, last): (&mut dyn Pipe, &mut (dyn AsyncRead + Send + Unpin)) = if upstream_first
        {
            (&mut *upstream, &mut client)
        } else {
            (&mut Client(&mut client), &mut upstream)
        };
        first.write_all(b"all but the end").await.unwrap();
        first.flush().await.unwrap();
        SockRef::from(first.tcp())
            .shutdown(std::net::Shutdown::Write)
            .unwrap();
        let mut last = last;
        let seen = read_all(&mut last).await;
        assert_eq!(
            seen,
            (b"all but the end".to_vec(), Some(ErrorKind::UnexpectedEof)),
            "{mode:?}"
        );
        drop((client, upstream));
        edge.ended().await;
    }
}

/// The client's stream, as a pipe.
struct Client<'a>(&'a mut TlsStream<TcpStream>);

impl Pipe for Client<'_> {
    fn tcp(&self) -> &TcpStream {
        self.0.get_ref().0
    }
}

impl AsyncRead for Client<'_> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut *self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Client<'_> {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut *self.0).poll_write(cx, buf)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut *self.0).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut *self.0).poll_shutdown(cx)
    }
}

/// A record that no TLS peer can have sealed (RFC 8446 5.2).
const GARBAGE: &[u8] = b"\x17\x03\x03\x00\x20not sealed with any key of ours!";

#[tokio::test]
async fn garbage_from_the_client_in_mid_stream_ends_the_tunnel_with_an_alert_and_resets_the_upstream()
 {
    let (mut edge, mut handed) = handing_over(Mode::Terminate, "").await;
    let (mut client, mut upstream) = tunnel(&edge, &mut handed).await;
    client.get_mut().0.write_all(GARBAGE).await.unwrap();
    let (seen, error) = read_all(&mut upstream).await;
    assert_eq!((seen, error), (vec![], Some(ErrorKind::ConnectionReset)));
    let told = client.read_u8().await.unwrap_err().to_string();
    assert!(told.contains("BadRecordMac"), "{told}");
    let record = edge.ended().await;
    assert_eq!(record["reason"], "client_reset", "{record}");
}

#[tokio::test]
async fn garbage_from_the_upstream_in_mid_stream_is_no_clean_end_for_the_client() {
    let (mut edge, mut handed) = handing_over(Mode::ReEncrypt, "").await;
    let (mut client, upstream) = tunnel(&edge, &mut handed).await;
    upstream.tcp().try_write(GARBAGE).unwrap();
    let seen = read_all(&mut client).await;
    assert_eq!(seen, (vec![], Some(ErrorKind::UnexpectedEof)));
    assert_eq!(edge.ended().await["reason"], "upstream_reset");
}

#[tokio::test]
async fn keys_are_updated_in_mid_stream() {
    let mut edge = Edge::start(Mode::ReEncrypt, "", echo).await;
    let mut client = edge.connect().await;
    for turn in 0..50 {
        client.write_all(&[turn]).await.unwrap();
        client.get_mut().1.refresh_traffic_keys().unwrap();
        client.write_all(&[turn]).await.unwrap();
        client.flush().await.unwrap();
        let mut both = [0; 2];
        client.read_exact(&mut both).await.unwrap();
        assert_eq!(both, [turn, turn]);
    }
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut client).await, (vec![], None));
    assert_eq!(edge.ended().await["reason"], "closed");
}

#[tokio::test]
async fn a_tunnel_with_one_end_and_silence_is_ended_after_its_limit() {
    for mode in [Mode::Terminate, Mode::Pass] {
        let limits = "half_closed_timeout = \"1s\"";
        let (mut edge, mut handed) = handing_over(mode, limits).await;
        let (mut client, mut upstream) = tunnel(&edge, &mut handed).await;
        client.shutdown().await.unwrap();
        assert_eq!(read_all(&mut upstream).await, (vec![], None));
        let (_, error) = read_all(&mut client).await;
        assert_eq!(error, Some(ErrorKind::UnexpectedEof), "{mode:?}");
        assert_eq!(edge.ended().await["reason"], "half_closed_timeout");
    }
}

#[tokio::test]
async fn a_tunnel_whose_upstream_has_ended_is_a_reset_for_it_when_the_client_stays_silent() {
    let (mut edge, mut handed) =
        handing_over(Mode::Terminate, "half_closed_timeout = \"1s\"").await;
    let (mut client, mut upstream) = tunnel(&edge, &mut handed).await;
    upstream.shutdown().await.unwrap();
    assert_eq!(read_all(&mut client).await, (vec![], None));
    let (_, error) = read_all(&mut upstream).await;
    assert_eq!(error, Some(ErrorKind::ConnectionReset));
    assert_eq!(edge.ended().await["reason"], "half_closed_timeout");
}

#[tokio::test]
async fn an_idle_limit_ends_a_silent_tunnel_and_leaves_one_that_talks() {
    for mode in MODES {
        let (mut edge, mut handed) = handing_over(mode, "idle_timeout = \"1s\"").await;
        let (_silent, mut its_upstream) = tunnel(&edge, &mut handed).await;
        let (mut talks, mut upstream) = tunnel(&edge, &mut handed).await;
        let (stop, mut stopped) = oneshot::channel::<()>();
        let talking = tokio::spawn(async move {
            while stopped.try_recv().is_err() {
                talks.write_all(b".").await.unwrap();
                talks.flush().await.unwrap();
                upstream.read_u8().await.unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            (talks, upstream)
        });
        let record = edge.ended().await;
        assert_eq!(
            (&record["reason"], &record["fault"]),
            (&"idle_timeout".into(), &"none".into()),
            "{record}"
        );
        let (_, error) = read_all(&mut its_upstream).await;
        assert!(
            error.is_some(),
            "{mode:?}: an upload that was given up looks like a whole one"
        );
        assert!(edge.gateway.has_no_more_records());
        stop.send(()).unwrap();
        let (mut talks, mut upstream) = talking.await.unwrap();
        talks.shutdown().await.unwrap();
        upstream.shutdown().await.unwrap();
        assert_eq!(edge.ended().await["reason"], "closed");
    }
}
