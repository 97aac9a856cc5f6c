//! An agent of Consul that is none: it answers what a test tells it to, for faults that a real one will not make on demand.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

/// One answer to one question.
pub(crate) enum Reply {
    /// This index and this JSON.
    Good(u64, Value),
    /// This status and this text.
    Bad(u16, &'static str),
}

/// Questions to a path take its replies in their order; one without a reply waits for it. Ends with its owner.
pub(crate) struct Agent {
    pub(crate) address: SocketAddr,
    paths: Arc<Paths>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Paths {
    replies: Mutex<HashMap<String, Replies>>,
    /// The path and query of every question.
    asked: Mutex<Vec<String>>,
}

struct Replies {
    send: UnboundedSender<Reply>,
    queue: Arc<tokio::sync::Mutex<UnboundedReceiver<Reply>>>,
}

impl Agent {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let paths = Arc::new(Paths::default());
        let mut tasks = JoinSet::new();
        let served = Arc::clone(&paths);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                connections.spawn(serve(tcp, Arc::clone(&served)));
            }
        });
        Self {
            address,
            paths,
            _tasks: tasks,
        }
    }

    /// What the next question to this path is answered.
    pub(crate) fn reply(&self, path: &str, reply: Reply) {
        self.paths
            .with(path, |replies| replies.send.send(reply).ok());
    }

    /// The path and query of every question so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.paths.asked.lock().unwrap().clone()
    }
}

impl Paths {
    fn with<T>(&self, path: &str, what: impl FnOnce(&Replies) -> T) -> T {
        let mut paths = self.replies.lock().unwrap();
        let replies = paths.entry(path.to_owned()).or_insert_with(|| {
            let (send, queue) = unbounded_channel();
            let queue = Arc::new(tokio::sync::Mutex::new(queue));
            Replies { send, queue }
        });
        what(replies)
    }
}

/// Answers each question of a connection, until the client goes.
async fn serve(tcp: TcpStream, paths: Arc<Paths>) {
    let mut stream = BufReader::new(tcp);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let target = head.split(' ').nth(1).unwrap();
        paths.asked.lock().unwrap().push(target.to_owned());
        let path = target.split('?').next().unwrap();
        let queue = paths.with(path, |replies| Arc::clone(&replies.queue));
        let reply = queue.lock().await.recv().await;
        let (status, index, body) = match reply {
            Some(Reply::Good(index, value)) => (200, index, value.to_string()),
            Some(Reply::Bad(status, text)) => (status, 0, text.to_owned()),
            None => return,
        };
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status} So\r\nX-Consul-Index: {index}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}
