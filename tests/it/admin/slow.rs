//! Clients of the admin interface that take their time.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_client_that_dribbles_its_headers_is_cut() {
    let admin = Admin::on_loopback().await;
    let start = Instant::now();
    let mut stream = admin.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let dribble = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if write.write_all(b"X: y\r\n").await.is_err() {
                break;
            }
        }
    });
    let mut text = Vec::new();
    // An end or a reset, and perhaps an error page before it: never an answer.
    let _ = read.read_to_end(&mut text).await;
    assert!(!text.starts_with(b"HTTP/1.1 200"));
    assert_eq!(start.elapsed().as_secs(), 5);
    dribble.abort();
}

#[tokio::test(start_paused = true)]
async fn silent_connections_keep_nobody_out_for_longer_than_their_deadline() {
    let admin = Admin::on_loopback().await;
    let start = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(admin.connect().await);
    }
    assert_eq!(admin.get("/livez").await.status, 200);
    // The sixty-fifth had to wait for a place: there is a bound, and it moves on.
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_is_cut() {
    let admin = Admin::on_loopback().await;
    for number in 0..50_000 {
        admin
            .sources
            .metrics
            .route(&format!("a-route-with-a-name-of-some-length-{number}"));
    }
    let mut stream = admin.connect().await;
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    let start = Instant::now();
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    // Megabytes do not fit into the system's buffers: the rest is stuck until the deadline.
    tokio::time::sleep(Duration::from_secs(31)).await;
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(start.elapsed() < Duration::from_secs(32));
    assert!(
        !rest.ends_with(b"# EOF\n"),
        "the whole answer of {} bytes came",
        rest.len()
    );
}
