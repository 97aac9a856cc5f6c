//! Answers that are none: cut off, endless, broken, refused.

use super::*;

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";

/// Asks a server that does this once.
async fn fault(fault: Reply) -> Error {
    within(Limits::default(), fault).await
}

/// The same of a server that would have to be waited for.
async fn stall(fault: Reply) -> Error {
    within(short(), fault).await
}

async fn within(limits: Limits, fault: Reply) -> Error {
    let server = Server::start([fault]).await;
    let client = Client::with_limits(&server.consul(), limits).unwrap();
    let asked = tokio::time::timeout(Duration::from_secs(20), ask(&client));
    asked.await.expect("it takes too long").unwrap_err()
}

#[tokio::test]
async fn an_agent_that_does_not_answer_or_stops_in_the_middle_is_given_up() {
    let nothing = stall(Reply::Hang(String::new())).await;
    assert!(matches!(nothing, Error::Timeout { .. }), "{nothing}");
    let half_a_head = stall(Reply::Hang("HTTP/1.1 200 OK\r\nX-".to_owned())).await;
    assert!(
        matches!(half_a_head, Error::Timeout { .. }),
        "{half_a_head}"
    );
    let after_the_head = stall(Reply::Hang(HEAD.to_owned())).await;
    assert!(
        matches!(after_the_head, Error::Timeout { .. }),
        "{after_the_head}"
    );
    let drip = Reply::Repeat(HEAD.to_owned(), b"1".to_vec(), Duration::from_millis(20));
    let drip = stall(drip).await;
    assert!(matches!(drip, Error::Timeout { .. }), "{drip}");
    let text = drip.to_string();
    assert!(
        text.ends_with("did not answer /v1/health/service/web within 200ms"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_asks_for_a_pause_is_not_asked_in_it_and_a_pause_is_a_minute_at_most() {
    for (status, after, pause) in [
        ("429 Too Many Requests", "7", 7),
        ("503 Service Unavailable", "86400", 60),
        ("429 Too Many Requests", "Wed, 21 Oct 2099 07:28:00 GMT", 0),
        ("429 Too Many Requests", "-1", 0),
        ("500 Internal Server Error", "7", 0),
    ] {
        let busy = reply(
            status,
            &format!("Retry-After: {after}\r\n"),
            "rate limit exceeded",
        );
        let mut server = Server::start([busy, good(7, "[]")]).await;
        let client = client(&server);
        let began = tokio::time::Instant::now();
        let refused = ask(&client).await.unwrap_err();
        assert!(
            refused.to_string().contains("rate limit exceeded"),
            "{refused}"
        );
        server.asked().await;
        while pause > began.elapsed().as_secs() {
            // Whoever shares the agent is held off, too.
            assert_eq!(ask(&client.apart()).await.unwrap_err(), refused);
            assert_eq!(server.unseen(), 0);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!(ask(&client).await.is_ok(), "{status} {after}");
    }
}

#[tokio::test]
async fn half_an_answer_is_none() {
    let half = format!("{HEAD}[1, 2");
    let closed = fault(Reply::Close(half.clone())).await;
    assert!(matches!(closed, Error::BrokenOff { .. }), "{closed}");
    let reset = fault(Reply::Reset(half)).await;
    assert!(matches!(reset, Error::BrokenOff { .. }), "{reset}");
    let reset_at_once = fault(Reply::Reset(String::new())).await;
    assert!(
        matches!(reset_at_once, Error::BrokenOff { .. }),
        "{reset_at_once}"
    );
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n";
    let chunked = fault(Reply::Close(chunked.to_owned())).await;
    assert!(matches!(chunked, Error::BrokenOff { .. }), "{chunked}");
}

#[tokio::test]
async fn what_is_no_http_is_told_as_such() {
    for bytes in [
        "SSH-2.0-OpenSSH_9.2p1\r\n",
        "\x15\x03\x01\0\x02\x02\x46",
        "HTTP/9.9 200\r\n\r\n",
    ] {
        let error = fault(Reply::Hang(bytes.to_owned())).await;
        assert!(
            matches!(error, Error::BrokenOff { .. }),
            "{bytes:?}: {error}"
        );
    }
    let many: String = (0..10_000).map(|i| format!("X-{i}: x\r\n")).collect();
    let error = fault(Reply::Hang(format!("HTTP/1.1 200 OK\r\n{many}\r\n"))).await;
    assert!(matches!(error, Error::BrokenOff { .. }), "{error}");
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let endless = "HTTP/1.1 200 OK\r\n\r\n[".to_owned();
    let reply = Reply::Repeat(endless, vec![b' '; 4096], Duration::ZERO);
    let server = Server::start([reply]).await;
    let limits = Limits {
        bytes: 100_000,
        ..Limits::default()
    };
    let client = Client::with_limits(&server.consul(), limits).unwrap();
    let error = ask(&client).await.unwrap_err();
    assert!(
        matches!(error, Error::TooLarge { most: 100_000, .. }),
        "{error}"
    );
    assert!(client.0.agent.idle.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_largest_answer_allowed_is_taken_and_one_byte_more_is_not() {
    let limits = Limits {
        bytes: 10,
        ..Limits::default()
    };
    let server = Server::start([good(1, "\"12345678\""), good(1, "\"123456789\"")]).await;
    let client = Client::with_limits(&server.consul(), limits).unwrap();
    assert_eq!(ask(&client).await.unwrap().value, "12345678");
    assert!(matches!(ask(&client).await, Err(Error::TooLarge { .. })));
}

#[tokio::test]
async fn an_answer_that_is_said_to_be_too_large_is_not_waited_for() {
    let limits = Limits {
        bytes: 10,
        ..Limits::default()
    };
    let said = "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n[".to_owned();
    let server = Server::start([Reply::Hang(said)]).await;
    let client = Client::with_limits(&server.consul(), limits).unwrap();
    assert!(matches!(ask(&client).await, Err(Error::TooLarge { .. })));
}

#[tokio::test]
async fn large_answers_are_taken_two_at_a_time_and_small_ones_at_any_time() {
    let large = format!("\"{}\"", "x".repeat(2 * 1024 * 1024));
    let half = |length: usize| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        Reply::Hang(head + &large[..large.len() * 3 / 4])
    };
    let server = Server::start([half(large.len()), half(large.len())]).await;
    let client = client(&server);
    let ask_aside = || {
        let client = client.clone();
        tokio::spawn(async move { ask(&client).await })
    };
    let hanging = [ask_aside(), ask_aside()];
    while client.0.agent.large.available_permits() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    server.then(good(1, &large));
    let mut third = ask_aside();
    let soon = Duration::from_millis(200);
    assert!(tokio::time::timeout(soon, &mut third).await.is_err());
    server.then(good(1, "[]"));
    assert_eq!(ask(&client).await.unwrap().value, json!([]));
    hanging[0].abort();
    assert_eq!(
        third.await.unwrap().unwrap().value,
        json!(large[1..large.len() - 1])
    );
}

#[tokio::test]
async fn a_refusal_is_told_with_the_beginning_of_its_reason_in_one_visible_line() {
    let long = format!("No cluster\r\n\x1b[31mleader\0 {}", "x".repeat(100_000));
    let error = fault(reply("500 Internal Server Error", "", &long)).await;
    let Error::Status { code, text, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(*code, 500);
    assert!(
        text.starts_with("No cluster\\r\\n\\u{1b}[31mleader\\0 xxx"),
        "{text}"
    );
    assert!(text.ends_with('…') && text.len() < 400, "{text}");
    assert!(!error.is_denied());
    let denied = fault(reply("403 Forbidden", "", "Permission denied")).await;
    assert!(denied.is_denied());
    assert_eq!(
        denied.to_string(),
        "consul answered /v1/health/service/web with the status 403: Permission denied"
    );
    let old = fault(reply("500 x", "", "rpc error making call: ACL not found")).await;
    assert!(old.is_denied());
}

#[tokio::test]
async fn a_redirect_is_an_answer_that_is_none() {
    let elsewhere = Server::start([good(1, "[]")]).await;
    let location = format!(
        "Location: http://{}/v1/health/service/web\r\n",
        elsewhere.address
    );
    for status in [
        "301 Moved",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
    ] {
        let server = Server::start([reply(status, &location, "")]).await;
        let consul = with_token(&server, secret("a-token"));
        let error = ask(&Client::new(&consul).unwrap()).await.unwrap_err();
        assert!(
            matches!(
                error,
                Error::Status {
                    code: 301..=308,
                    ..
                }
            ),
            "{error}"
        );
    }
    assert_eq!(elsewhere.unseen(), 0);
}

#[tokio::test]
async fn only_200_is_an_answer() {
    for status in [
        "204 No Content",
        "206 Partial Content",
        "404 Not Found",
        "429 Too Many",
    ] {
        let error = fault(reply(status, "", "")).await;
        assert!(matches!(error, Error::Status { .. }), "{status}: {error}");
    }
}

#[tokio::test]
async fn json_that_is_none_or_of_another_shape_is_told_with_its_place() {
    let server = Server::start([good(1, "[1,"), good(1, "{\"a\": 1}")]).await;
    let client = client(&server);
    let error = ask(&client).await.unwrap_err().to_string();
    assert!(
        error.contains("EOF while parsing a value at line 1 column 3"),
        "{error}"
    );
    let error = client.read::<Vec<u8>>(&HEALTH).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "consul's answer to /v1/health/service/web is not what was expected: \
         invalid type: map, expected a sequence at line 1 column 0"
    );
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_told_with_its_address_and_the_reason() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let consul = Consul {
        address: ConsulAddress::Tcp("127.0.0.1".to_owned(), address.port()),
        ..Server::start([]).await.consul()
    };
    let error = ask(&Client::new(&consul).unwrap()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("consul at {address} cannot be reached: Connection refused (os error 111)")
    );
    let socket = Consul {
        address: ConsulAddress::Unix("/nonexistent/consul.sock".into()),
        ..consul
    };
    let error = ask(&Client::new(&socket).unwrap()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "consul at unix:///nonexistent/consul.sock cannot be reached: No such file or directory (os error 2)"
    );
}
