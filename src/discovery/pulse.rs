//! Whether an agent is there at all: a blocking query that waits looks like one that hangs.

use std::time::Duration;

use serde::de::IgnoredAny;
use tokio::time::{sleep, timeout};

use crate::api::http::{Client, Query};

/// Between two questions.
///
/// 10 s: it costs an agent nothing, and an operator who looks at `/readyz` sees a hanging one within a quarter of a minute.
const PULSE: Duration = Duration::from_secs(10);

/// How long the answer may take. 5 s: it comes from memory; an election in between may take as long.
const ANSWER: Duration = Duration::from_secs(5);

/// Waits for a while, and asks for the leader (`/v1/status/leader`, which needs no token), of the datacenter or the region that
/// a parameter says, if that is another than the agent's own. Returns what keeps the agent from answering whatever it is asked,
/// if anything does.
pub(super) async fn beat(client: &Client, parameters: Option<(&str, &str)>) -> Option<String> {
    sleep(PULSE).await;
    let query = Query {
        path: &["status", "leader"],
        parameters: parameters.as_slice(),
        ..Query::default()
    };
    match timeout(ANSWER, client.read::<IgnoredAny>(&query)).await {
        Ok(answer) => answer.err().map(|error| error.to_string()),
        Err(_) => Some(format!(
            "{} does not answer within {ANSWER:?}",
            client.api()
        )),
    }
}
