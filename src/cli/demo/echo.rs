//! A server that says what it is told.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

/// Starts an echo on a free port, for as long as the runtime lives.
pub(super) async fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((tcp, _)) => {
                    tokio::spawn(echo(tcp));
                }
                // Too many open files, most likely: others have to end first.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
            }
        }
    });
    Ok(address)
}

/// Sends back what comes until the client has ended its direction, and then ends the other.
async fn echo(mut tcp: TcpStream) {
    let (mut read, mut write) = tcp.split();
    // A client that is gone needs no answer.
    let _ = tokio::io::copy(&mut read, &mut write).await;
    let _ = write.shutdown().await;
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn an_echo_answers_before_and_after_its_client_has_ended() {
        let mut tcp = TcpStream::connect(start().await.unwrap()).await.unwrap();
        tcp.write_all(b"hello").await.unwrap();
        let mut answer = [0; 5];
        tcp.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"hello");
        let large = vec![7; 1 << 20];
        let (mut read, mut write) = tcp.split();
        let mut rest = Vec::new();
        let (sent, read) = tokio::join!(
            async {
                write.write_all(&large).await?;
                write.shutdown().await
            },
            read.read_to_end(&mut rest)
        );
        sent.unwrap();
        read.unwrap();
        assert!(rest == large);
    }
}
