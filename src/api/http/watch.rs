//! A question that is asked again and again, and answered when something has changed: the blocking queries of Consul and Nomad.

use std::marker::PhantomData;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{Answer, Client, Error};
use crate::retry::Backoff;

/// That an index has gone back is logged once in so long: it may do so with every answer.
const BETWEEN_WORDS: Duration = Duration::from_secs(60);

/// A blocking query ("Blocking Queries" in the documentation of either), one answer after another.
///
/// The first is the state as it is. Each that follows comes when the state's index has moved, or after five minutes: that it
/// comes is no promise that something has changed.
#[derive(Debug)]
pub struct Watch<T> {
    client: Client,
    path: String,
    parameters: Vec<String>,
    /// That of the last answer; `None` asks for the state as it is.
    index: Option<u64>,
    /// Nothing is asked before: answers come too fast, or something failed.
    not_before: Instant,
    pace: Pace,
    backoff: Backoff,
    /// Whether the last question was answered, and nobody has complained of it.
    is_well: bool,
    /// When it was last logged that the index has gone back.
    told: Option<Instant>,
    answer: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned + Send + 'static> Watch<T> {
    /// Asks nothing yet. `path` and `parameters` are those of [`Query`](super::Query).
    pub fn new(client: Client, path: &[&str], parameters: &[(&str, &str)]) -> Self {
        let limits = &client.0.agent.limits;
        let now = Instant::now();
        Self {
            path: super::path(path),
            parameters: super::parameters(parameters),
            index: None,
            not_before: now,
            pace: Pace {
                spacing: limits.spacing,
                burst: limits.burst,
                even: now,
            },
            backoff: limits.backoff.clone(),
            is_well: false,
            told: None,
            answer: PhantomData,
            client,
        }
    }

    /// The next answer, or what kept it from coming. Whatever it says, the next call goes on as it should: after an error
    /// it waits for a growing while and begins anew, as another agent or another cluster may answer then.
    ///
    /// Cancelling it loses nothing but the connection: the next call asks the same.
    pub async fn next(&mut self) -> Result<Answer<T>, Error> {
        if self.is_well {
            self.backoff.reset();
        }
        tokio::time::sleep_until(self.not_before).await;
        let limits = &self.client.0.agent.limits;
        let mut parameters = self.parameters.clone();
        let mut patience = limits.answer;
        if let Some(index) = self.index {
            parameters.push(format!("index={index}"));
            parameters.push(format!("wait={}s", limits.wait.as_secs()));
            // The server adds up to a sixteenth, so that not all queries end at once.
            patience += limits.wait * 17 / 16;
        }
        let answer = self.client.ask(&self.path, &parameters, patience).await;
        let now = Instant::now();
        match &answer {
            Ok(answer) => {
                // An index that went back is that of another history: a snapshot was restored, or a server replaced.
                let last = self.index.filter(|last| answer.index < *last);
                if let Some(last) = last
                    && self.told.is_none_or(|at| now - at >= BETWEEN_WORDS)
                {
                    self.told = Some(now);
                    let (path, index) = (&self.path, answer.index);
                    tracing::info!(
                        path,
                        last,
                        index,
                        "an index went back: everything is asked for anew"
                    );
                }
                self.index = last.is_none().then_some(answer.index);
                self.not_before = self.pace.next(now);
                self.is_well = true;
            }
            Err(_) => self.begin_anew(),
        }
        answer
    }

    /// The last answer was whole, and what it says does not serve: as after an error, the state is asked for as it is after
    /// a growing while. To wait for a change could be to wait for days.
    pub fn begin_anew(&mut self) {
        self.index = None;
        self.not_before = Instant::now() + self.backoff.next();
        self.is_well = false;
    }
}

/// Lets a few answers through at once, and those that follow without pause at even distances.
#[derive(Debug)]
struct Pace {
    spacing: Duration,
    burst: u32,
    /// When all answers so far would have come, had they come at even distances.
    even: Instant,
}

impl Pace {
    /// Counts an answer; returns when the next may be asked for.
    fn next(&mut self, now: Instant) -> Instant {
        self.even = self.even.max(now) + self.spacing;
        let ahead = self.spacing * self.burst;
        self.even.checked_sub(ahead).map_or(now, |at| at.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_answers_after_a_quiet_time_are_not_held_up_and_a_stream_of_them_is_spaced() {
        let start = Instant::now();
        let mut pace = Pace {
            spacing: Duration::from_millis(250),
            burst: 3,
            even: start,
        };
        let mut now = start;
        let mut asked = Vec::new();
        for _ in 0..11 {
            now = pace.next(now);
            asked.push((now - start).as_millis());
        }
        assert_eq!(
            asked,
            [0, 0, 0, 250, 500, 750, 1000, 1250, 1500, 1750, 2000]
        );
        now += Duration::from_secs(60);
        assert_eq!(pace.next(now), now, "quiet again");
    }
}
