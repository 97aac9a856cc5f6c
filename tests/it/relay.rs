//! The relay: every byte both ways, no more held than needed, and its limits.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

use crate::authority::Authority;
use crate::edge::{Edge, MODES, Mode, NAME, fill, handing_over, read_all, text, tunnel};
use crate::program::Program;
use crate::upstream::{Upstream, echo};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_uses_no_processor() {
    let authority = Authority::new();
    authority.issue_files("edge", &[NAME]);
    let (hand, mut handed) = unbounded_channel();
    let upstream = Upstream::tcp(move |tcp| {
        let _ = hand.send(tcp);
        std::future::ready(())
    })
    .await;
    let tables = format!(
        "admin = \"127.0.0.1:0\"\nlog = {{ format = \"json\" }}\n\
         certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
         [routes.relay]\nhost = \"{NAME}\"\nupstream = \"{}\"\n",
        upstream.address
    );
    let program = Program::start(&authority, &tables);
    let connector = TlsConnector::from(Arc::new(authority.client(&[&TLS13])));
    let mut waiting = Vec::new();
    for state in [
        "silent",
        "client ended",
        "upstream ended",
        "upload blocked",
        "download blocked",
    ] {
        let tcp = TcpStream::connect(program.listener).await.unwrap();
        let name = ServerName::try_from(NAME).unwrap();
        let mut client = connector.connect(name, tcp).await.unwrap();
        let mut upstream = handed.recv().await.unwrap();
        match state {
            "client ended" => client.shutdown().await.unwrap(),
            "upstream ended" => upstream.shutdown().await.unwrap(),
            "upload blocked" => fill(&mut client, &AtomicU64::new(0)).await,
            "download blocked" => fill(&mut upstream, &AtomicU64::new(0)).await,
            _ => {}
        }
        waiting.push((client, upstream));
    }
    let mut half_a_hello = TcpStream::connect(program.listener).await.unwrap();
    half_a_hello
        .write_all(b"\x16\x03\x01\x02\x00\x01")
        .await
        .unwrap();
    // The last words above are on their way.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = program.ticks();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let used = program.ticks() - before;
    // One task that spins would use all of it, some 50 ticks.
    assert!(used < 10, "{used} ticks in half a second of waiting");
    drop((waiting, half_a_hello));
}
