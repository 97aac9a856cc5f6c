//! What each side sees when the other breaks off: a reset, an end without a word, or what is no TLS.

use std::io::{self, ErrorKind};
use std::sync::atomic::AtomicU64;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::edge::{MODES, Mode, Pipe, fill, handing_over, read_all, reset_on_close, text, tunnel};

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
