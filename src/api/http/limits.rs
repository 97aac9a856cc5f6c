//! What a question to an agent may cost, in time and in bytes.

use std::time::Duration;

use crate::retry::Backoff;

/// Every bound that a question lives under. Tests shorten them.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    /// For a connection: the name, TCP, TLS. 5 s: two SYN retransmissions (1 s, 3 s) fit; an agent is near.
    pub(super) connect: Duration,
    /// From the question to the head of the answer, beyond what the question asked it to wait.
    ///
    /// 30 s: an agent holds a question for up to 7 s while its servers elect a leader (`rpc_hold_timeout`), and the
    /// first leaf certificate may wait behind others at the CA.
    pub(super) answer: Duration,
    /// From the head of the answer to its end. 30 s: the largest answer allowed comes at 2 MiB/s.
    pub(super) body: Duration,
    /// How long a blocking query asks to be held until there is a change. 5 min: Consul's own default, and Nomad's.
    pub(super) wait: Duration,
    /// Between two blocking queries of a watch whose answers come without pause: about four passes a second.
    pub(super) spacing: Duration,
    /// How many answers after a quiet time are not spaced: a registration is several changes (the service, its checks,
    /// its sidecar), and what follows them at once should not wait.
    pub(super) burst: u32,
    /// The pauses of a watch after errors.
    pub(super) backoff: Backoff,
    /// The largest answer, in bytes.
    ///
    /// 64 MiB: a thousand services with five thousand sidecars are 8 MB (measured); more than eight times that is a
    /// fault, and would have to fit into memory several times over.
    pub(super) bytes: usize,
    /// How many plain reads go on at once. 16: a thousand services are re-read within a second, and an agent allows 200
    /// connections for each address of its clients (`http_max_conns_per_client`), watches and neighbours included.
    pub(super) reads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(30),
            body: Duration::from_secs(30),
            wait: Duration::from_secs(300),
            spacing: Duration::from_millis(250),
            burst: 3,
            backoff: Backoff::default(),
            bytes: 64 * 1024 * 1024,
            reads: 16,
        }
    }
}
