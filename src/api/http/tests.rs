//! Questions to a server that answers as it is told to: what is asked, what is believed, what is an error.

use std::time::Duration;

use serde_json::{Value, json};

use self::server::{Reply, Server, good, reply};
use super::limits::Limits;
use super::*;
use crate::config::{Consul, Secret, Token};

mod faults;
mod security;
mod server;
mod tokens;
mod watches;

const HEALTH: Query<'static> = Query {
    path: &["health", "service", "web"],
    parameters: &[],
    consistent: false,
};

async fn ask(client: &Client) -> Result<Answer<Value>, Error> {
    client.read(&HEALTH).await
}

fn client(server: &Server) -> Client {
    Client::new(&server.consul()).unwrap()
}

fn with_token(server: &Server, token: Token) -> Consul {
    Consul {
        token: Some(token),
        ..server.consul()
    }
}

fn secret(text: &str) -> Token {
    Token::Value(Secret::new(text.to_owned()))
}

/// Short enough to wait for.
fn short() -> Limits {
    Limits {
        answer: Duration::from_millis(200),
        body: Duration::from_millis(200),
        ..Limits::default()
    }
}

#[tokio::test]
async fn a_question_names_what_is_asked_for_and_nothing_can_pass_for_something_else() {
    let mut server = Server::start([good(7, "[]"), good(7, "[]")]).await;
    let consul = Consul {
        prefix: "/behind/proxy".to_owned(),
        basic_auth: Some(("user".to_owned(), Secret::new("pass".to_owned()))),
        ..with_token(&server, secret("a-token"))
    };
    let client = Client::new(&consul).unwrap();
    let query = Query {
        path: &["health", "service", "we/b?x=1 %2F#é"],
        parameters: &[("filter", "Service.Meta[\"a\"] == 1&stale")],
        consistent: true,
    };
    client.read::<Value>(&query).await.unwrap();
    let head = server.asked().await;
    let mut lines = head.lines();
    assert_eq!(
        lines.next().unwrap(),
        "GET /behind/proxy/v1/health/service/we%2Fb%3Fx%3D1%20%252F%23%C3%A9\
         ?filter=Service.Meta%5B%22a%22%5D%20%3D%3D%201%26stale&consistent HTTP/1.1"
    );
    let headers: Vec<String> = lines.map(str::to_ascii_lowercase).collect();
    for header in [
        &format!("host: {}", server.address),
        "x-consul-token: a-token",
        "authorization: basic dxnlcjpwyxnz",
    ] {
        assert!(
            headers.iter().any(|line| line == header),
            "{header}: {head}"
        );
    }

    let bare = Consul {
        token: None,
        basic_auth: None,
        ..consul
    };
    ask(&Client::new(&bare).unwrap()).await.unwrap();
    let head = server.asked().await.to_ascii_lowercase();
    assert!(!head.contains("token") && !head.contains("authorization"));
}

#[tokio::test]
async fn an_answer_comes_with_what_its_headers_say() {
    let headers = "X-Consul-Index: 42\r\nX-Consul-KnownLeader: true\r\n\
        X-Consul-Results-Filtered-By-ACLs: true\r\nX-Consul-Default-ACL-Policy: deny\r\n";
    let server = Server::start([reply("200 OK", headers, r#"[{"Node":"a"}]"#)]).await;
    let answer = ask(&client(&server)).await.unwrap();
    assert_eq!(answer.value, json!([{"Node": "a"}]));
    assert_eq!(answer.index, 42);
    assert!(answer.known_leader && answer.filtered && answer.default_deny);
    assert!(answer.token.is_anonymous());
}

#[tokio::test]
async fn an_answer_of_megabytes_is_read_whole() {
    let services: Vec<String> = (0..40_000).map(|i| format!("service-number-{i}")).collect();
    let body = serde_json::to_string(&services).unwrap();
    let chunked = body.as_bytes().chunks(1000).map(|chunk| {
        let chunk = std::str::from_utf8(chunk).unwrap();
        format!("{:x}\r\n{chunk}\r\n", chunk.len())
    });
    let chunked = Reply::Send(format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        chunked.collect::<String>()
    ));
    let server = Server::start([good(1, &body), chunked]).await;
    let client = client(&server);
    for _ in 0..2 {
        let answer = client.read::<Vec<String>>(&HEALTH).await.unwrap();
        assert_eq!(answer.value, services);
    }
}

#[tokio::test]
async fn a_null_is_an_empty_list_where_the_reader_says_so() {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Node {
        #[serde(default, deserialize_with = "null_is_default")]
        tags: Vec<String>,
    }
    let server = Server::start([good(1, r#"[{"Tags":null},{}]"#), good(1, "null")]).await;
    let client = client(&server);
    let nodes = client.read::<Vec<Node>>(&HEALTH).await.unwrap().value;
    assert!(nodes.len() == 2 && nodes.iter().all(|node| node.tags.is_empty()));
    let none = client.read::<Option<Vec<Node>>>(&HEALTH).await.unwrap();
    assert!(none.value.is_none());
}

#[tokio::test]
async fn connections_are_used_again_and_one_that_has_ended_meanwhile_costs_no_question() {
    let mut server = Server::start([good(1, "1"), good(1, "2")]).await;
    let client = client(&server);
    assert_eq!(ask(&client).await.unwrap().value, 1);
    assert_eq!(ask(&client).await.unwrap().value, 2);
    let idle = || client.0.agent.idle.lock().unwrap().len();
    assert_eq!(idle(), 1);

    // It takes the question and ends without a word: as a server does that was about to close.
    server.then(Reply::Close(String::new()));
    server.then(good(1, "3"));
    assert_eq!(ask(&client).await.unwrap().value, 3);
    for _ in 0..4 {
        server.asked().await;
    }

    // The answer is the last on its connection.
    let last = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n4";
    server.then(Reply::Close(last.to_owned()));
    server.then(good(1, "5"));
    assert_eq!(ask(&client).await.unwrap().value, 4);
    assert_eq!(ask(&client).await.unwrap().value, 5);
}

#[tokio::test]
async fn no_more_reads_go_on_at_once_than_allowed() {
    let mut server = Server::start([]).await;
    let limits = Limits {
        reads: 2,
        ..Limits::default()
    };
    let client = Client::with_limits(&server.consul(), limits).unwrap();
    let mut reads = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let client = client.clone();
        reads.spawn(async move { ask(&client).await.map(drop) });
    }
    server.asked().await;
    server.asked().await;
    // Those two are never answered: the third is not asked until one of them is given up.
    let third = tokio::time::timeout(Duration::from_millis(100), server.asked());
    assert!(third.await.is_err());
    reads.abort_all();
    while reads.join_next().await.is_some() {}
    server.then(good(1, "1"));
    ask(&client).await.unwrap();
}
