//! What goes wrong after the handshake, at gateways of the test's own.

use std::time::Duration;

use portcullis::net::frame::{Frame, Refusal};
use portcullis::reason::Reason;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::Book;
use crate::authority::Authority;
use crate::connect::status::telling;
use crate::connect::{TARGET, gate};

/// How a gateway goes away.
#[derive(Clone, Copy)]
enum Leaves {
    /// As TLS ends.
    Politely,
    /// Without an end of TLS.
    Abruptly,
    WithAReset,
    /// Not at all.
    Never,
}

async fn leave(mut stream: TlsStream<TcpStream>, how: Leaves) {
    match how {
        Leaves::Politely => {
            let _ = stream.shutdown().await;
        }
        Leaves::Abruptly => {
            let _ = stream.get_mut().0.shutdown().await;
        }
        Leaves::WithAReset => {
            let socket = SockRef::from(stream.get_ref().0);
            let _ = socket.set_linger(Some(Duration::ZERO));
            return;
        }
        Leaves::Never => std::future::pending().await,
    }
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

pub(super) async fn tell(book: &Book) {
    let authority = Authority::new();
    let refusal = |reason, text| Frame::Failed(Refusal::new(reason, text)).encode();
    let ok = Frame::Ok.encode();
    let began = [&ok[..], b"half an ans"].concat();
    for (what, says, how) in [
        (
            "the mesh denies it, says the gateway",
            refusal(
                Reason::DeniedByIntention,
                "an intention of the mesh denies it to the gateway",
            ),
            Leaves::Politely,
        ),
        (
            "the gateway has no files left",
            refusal(
                Reason::Shortage,
                "the gateway has nothing left to connect with",
            ),
            Leaves::Politely,
        ),
        (
            "the route turns out to be broken",
            refusal(Reason::RouteBroken, "its route is broken"),
            Leaves::Politely,
        ),
        ("a status that is none", b"SSH-2.0-".to_vec(), Leaves::Never),
        ("no status in time", Vec::new(), Leaves::Never),
        ("an end before the status", Vec::new(), Leaves::Politely),
        ("an end behind a good status", ok, Leaves::Abruptly),
        ("cut in mid-stream", began.clone(), Leaves::Abruptly),
        ("reset in mid-stream", began, Leaves::WithAReset),
    ] {
        let gate = telling(&authority, move |mut stream| {
            let says = says.clone();
            async move {
                let _ = stream.write_all(&says).await;
                let _ = stream.flush().await;
                if let Leaves::WithAReset = how {
                    // What a reset overtakes is lost: the client ends its side when it has all.
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                }
                leave(stream, how).await;
            }
        })
        .await;
        let patience = ["--timeout", "2s", TARGET];
        book.tell(what, &authority, gate.address, &patience);
    }

    // One that has promised no status, as other programs do not.
    let plain = gate(&authority, |stream| leave(stream, Leaves::Abruptly)).await;
    book.tell(
        "an end before the first byte",
        &authority,
        plain.address,
        &[TARGET],
    );
    let denied = gate(&authority, |mut stream| async move {
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").await;
        let _ = stream.flush().await;
        let _ = stream.read(&mut [0; 64]).await;
        leave(stream, Leaves::Abruptly).await;
    })
    .await;
    let command = crate::connect::to(
        crate::connect::connect(&authority, denied.address),
        &[TARGET],
    );
    let (child, mut stdin) = crate::support::Child::spawn_with_stdin(&command);
    std::io::Write::write_all(&mut stdin, b"SSH-2.0-client\r\n").unwrap();
    // Its input stays open, as ssh's does.
    let done = child.finish();
    book.write("an end after the banner", &authority, denied.address, &done);
}
