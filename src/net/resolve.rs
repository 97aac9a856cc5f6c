//! Names of upstreams into addresses: in the control plane, by TTL, the last good answer kept.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use tokio::sync::mpsc::Sender;
use tokio::task::spawn_blocking;
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
        let (addresses, next) = match lookup(&mut self.resolver, name, HOSTS).await {
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

/// Where the system keeps names of its own (hosts(5)).
const HOSTS: &str = "/etc/hosts";

/// A name that the file of hosts has, in either family, is answered by it alone, as the system's own resolver does: where no DNS
/// server answers, nobody waits for addresses of the other family.
async fn lookup(
    resolver: &mut Option<TokioResolver>,
    name: &HostName,
    hosts: &'static str,
) -> Result<(Vec<IpAddr>, Instant), NetError> {
    // Where it cannot be read, it has no name.
    let hosts = spawn_blocking(move || fs::read(hosts).unwrap_or_default()).await;
    let mut addresses = listed(&String::from_utf8_lossy(&hosts.unwrap_or_default()), name);
    if !addresses.is_empty() {
        addresses.sort_unstable();
        addresses.dedup();
        return Ok((addresses, Instant::now() + SHORTEST));
    }
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

/// The addresses of a name in a file of hosts.
fn listed(hosts: &str, name: &HostName) -> Vec<IpAddr> {
    let lines = hosts.lines().map(|line| line.split('#').next());
    let addresses = lines.filter_map(|line| {
        let mut words = line?.split_whitespace();
        let address = words.next()?.parse().ok()?;
        let mut names = words.map(|word| word.strip_suffix('.').unwrap_or(word));
        let is_there = names.any(|word| word.eq_ignore_ascii_case(name.as_str()));
        is_there.then_some(address)
    });
    addresses.collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_the_file_of_hosts_has_in_either_family_is_answered_without_asking_dns() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        let text = "# gate.invalid\n\u{feff}\n10.0.0.9 other.invalid # gate.invalid\n\
                    no-address gate.invalid\n10.0.0.5\tnode GATE.invalid. gate.invalid\n10.0.0.4 gate.invalid\n";
        fs::write(&path, text).unwrap();
        let path: &'static str = path.to_str().unwrap().to_owned().leak();
        let mut resolver = None;
        let name = HostName::parse("gate.invalid").unwrap();
        let (addresses, _) = lookup(&mut resolver, &name, path).await.unwrap();
        assert_eq!(
            addresses,
            ["10.0.0.4", "10.0.0.5"].map(|it| it.parse::<IpAddr>().unwrap())
        );
        // Nobody was needed who could have been asked.
        assert!(resolver.is_none());
    }
}
