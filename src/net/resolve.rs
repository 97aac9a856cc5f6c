//! Names of upstreams into addresses: in the control plane, by TTL, the last good answer kept.

use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep_until};

use crate::name::HostName;

/// A name is asked for again no sooner.
///
/// 5 s: Consul's and many cloud zones' TTL is 0, and a query a second for each upstream serves nobody.
const SHORTEST: Duration = Duration::from_secs(5);

/// A name is asked for again no later.
///
/// 60 s: what one waits for after moving a service whose TTL says an hour.
const LONGEST: Duration = Duration::from_secs(60);

/// An answer that stays is told again after so long: what is kept of it on the disk is as old as the last word of it.
const TOLD_AGAIN: Duration = Duration::from_secs(600);

/// One answer to a name, sent at first, whenever it changes, and now and then while it stays.
#[derive(Debug)]
pub struct Answer {
    /// The name.
    pub name: HostName,
    /// Its addresses, sorted; or why there are none. A failure is sent only while there never was an answer,
    /// because the last good one stays.
    pub addresses: Result<Vec<IpAddr>, String>,
}

/// One name that is kept resolved.
///
/// Follows `/etc/resolv.conf` and `/etc/hosts`; A and AAAA together (RFC 1035, RFC 3596).
#[derive(Debug)]
pub struct Resolving {
    name: HostName,
    resolver: Option<TokioResolver>,
    last: Option<Result<Vec<IpAddr>, String>>,
    /// The failure that was told of last, while it lasts.
    told: Option<String>,
    /// When the last answer was given.
    given: Instant,
    /// When it is asked for again.
    next: Instant,
}

impl Resolving {
    /// Nothing has been asked yet.
    pub fn new(name: HostName) -> Self {
        Self {
            name,
            resolver: None,
            last: None,
            told: None,
            given: Instant::now(),
            next: Instant::now(),
        }
    }

    /// Asks once; gives the answer if it is news, as the first one is, or was given long ago.
    pub async fn ask(&mut self) -> Option<Answer> {
        let name = &self.name;
        let (addresses, next) = match lookup(&mut self.resolver, name).await {
            Ok((addresses, next)) => (Ok(addresses), next),
            Err(error) => {
                // The system's settings may have changed: they are read again for the next try.
                self.resolver = None;
                (Err(error.to_string()), Instant::now() + SHORTEST)
            }
        };
        self.next = next;
        let was_good = matches!(self.last, Some(Ok(_)));
        // A failure is told when it begins, when it becomes another one, and when it ends.
        let failure = addresses.as_ref().err().cloned();
        if self.told != failure {
            match &failure {
                Some(error) => {
                    let kept = was_good;
                    tracing::warn!(%name, %error, kept, "an upstream's name does not resolve");
                }
                None => tracing::info!(%name, "an upstream's name resolves again"),
            }
            self.told = failure;
        }
        let keeps_last = addresses.is_err() && was_good;
        let is_due = addresses.is_ok() && self.given.elapsed() >= TOLD_AGAIN;
        if keeps_last || (!is_due && self.last.as_ref() == Some(&addresses)) {
            return None;
        }
        self.given = Instant::now();
        self.last = Some(addresses.clone());
        let name = name.clone();
        Some(Answer { name, addresses })
    }

    /// Keeps it resolved until the receiver is gone.
    pub async fn follow(mut self, answers: Sender<Answer>) {
        loop {
            tokio::select! {
                () = sleep_until(self.next) => {}
                () = answers.closed() => return,
            }
            if let Some(answer) = self.ask().await
                && answers.send(answer).await.is_err()
            {
                return;
            }
        }
    }
}

async fn lookup(
    resolver: &mut Option<TokioResolver>,
    name: &HostName,
) -> Result<(Vec<IpAddr>, Instant), NetError> {
    let resolver = match resolver {
        Some(resolver) => resolver,
        None => {
            let mut builder = TokioResolver::builder_tokio()?;
            // The answers are kept here, by their TTL; a second cache would only add its age to it.
            builder.options_mut().cache_size = 0;
            resolver.insert(builder.build()?)
        }
    };
    let found = resolver.lookup_ip(name.as_str()).await?;
    let mut addresses: Vec<IpAddr> = found.iter().collect();
    addresses.sort_unstable();
    addresses.dedup();
    let now = Instant::now();
    let next = Instant::from_std(found.valid_until()).clamp(now + SHORTEST, now + LONGEST);
    Ok((addresses, next))
}
