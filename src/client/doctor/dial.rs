//! The way to the gateway's TCP port: its name, each of its addresses, or the proxy before it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::{failed, told};
use crate::client::connect::Connect;
use crate::client::exit::Exit;
use crate::client::failure::Failure;
use crate::client::gateway::{Unreachable, attempt};
use crate::client::proxy;
use crate::status::step::Step;

/// So many addresses are looked at: a name with more is no gateway's.
const MOST: usize = 16;

/// How long the other addresses have once one has answered.
///
/// 2 s: a SYN that is lost is sent again after one.
const SLOWEST: Duration = Duration::from_secs(2);

/// A connection, and how to open another like it.
pub(super) struct Reached {
    pub(super) tcp: TcpStream,
    /// `None` where a proxy has connected.
    address: Option<SocketAddr>,
}

impl Reached {
    /// Another connection by the same way, within the connection's timeout.
    pub(super) async fn again(connect: &Connect, address: Option<SocketAddr>) -> Option<TcpStream> {
        let dialled = timeout(connect.timeout, async {
            match (&connect.proxy, address) {
                (_, Some(address)) => attempt(address).await.ok(),
                (Some(proxy), None) => proxy::through(proxy, &connect.gateway).await.ok(),
                (None, None) => None,
            }
        });
        dialled.await.ok().flatten()
    }

    pub(super) fn into_parts(self) -> (TcpStream, Option<SocketAddr>) {
        (self.tcp, self.address)
    }
}

/// Finds the gateway and connects to it. Each step has the connection's timeout.
pub(super) async fn reach(connect: &Connect, tell: &mut dyn FnMut(Step)) -> Result<Reached, Exit> {
    match connect.proxy.is_some() {
        true => through(connect, tell).await,
        false => {
            let addresses = find(connect, tell).await?;
            dial(connect, addresses, tell).await
        }
    }
}

async fn through(connect: &Connect, tell: &mut dyn FnMut(Step)) -> Result<Reached, Exit> {
    let (Some(proxy), gateway) = (&connect.proxy, &connect.gateway) else {
        return Err(Exit::Proxy);
    };
    let began = Instant::now();
    let through = match timeout(connect.timeout, proxy::through(proxy, gateway)).await {
        Ok(through) => through.map_err(Failure::Proxy),
        Err(_) => Err(Failure::DialTimeout),
    };
    match through {
        Ok(tcp) => {
            let detail = format!("{proxy} has connected to {gateway}");
            tell(Step::ok("proxy", detail).took(began.elapsed()));
            Ok(Reached { tcp, address: None })
        }
        Err(failure) => {
            let report = connect.report(&failure);
            tell(failed("proxy", &report).took(began.elapsed()));
            Err(report.exit)
        }
    }
}

async fn find(connect: &Connect, tell: &mut dyn FnMut(Step)) -> Result<Vec<SocketAddr>, Exit> {
    let gateway = &connect.gateway;
    let began = Instant::now();
    let found = match timeout(connect.timeout, gateway.resolve()).await {
        Ok(found) => found.map_err(Failure::Resolve),
        Err(_) => {
            let what = format!("no answer from DNS within {:?}", connect.timeout);
            Err(Failure::Resolve(std::io::Error::other(what)))
        }
    };
    let took = began.elapsed();
    let addresses = match found {
        Ok(addresses) => addresses,
        Err(failure) => {
            let mut report = connect.report(&failure);
            if let Some(servers) = servers() {
                report.hint.push_str(&format!(" ({servers})"));
            }
            tell(failed("DNS", &report).took(took));
            return Err(report.exit);
        }
    };
    if gateway.host.parse::<IpAddr>().is_ok() {
        let detail = format!("{} is an address: nobody to ask", gateway.host);
        tell(Step::ok("DNS", detail));
        return Ok(addresses);
    }
    let shown: Vec<_> = (addresses.iter().take(MOST))
        .map(|address| address.ip().to_string())
        .collect();
    let more = match addresses.len() {
        all if all > MOST => format!(" and {} more", all - MOST),
        _ => String::new(),
    };
    let by = servers().map_or_else(String::new, |servers| format!(" ({servers})"));
    let detail = format!("{} is {}{more}{by}", gateway.host, shown.join(", "));
    tell(Step::ok("DNS", detail).took(took));
    Ok(addresses)
}

/// The DNS servers of this system, as far as that is written where resolvers read it.
fn servers() -> Option<String> {
    let text = std::fs::read_to_string("/etc/resolv.conf").ok()?;
    let servers: Vec<_> = (text.lines())
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|address| address.trim().parse::<IpAddr>().ok())
        .map(|address| address.to_string())
        .take(3)
        .collect();
    (!servers.is_empty()).then(|| format!("resolv.conf names {}", servers.join(", ")))
}

/// What one address has come to.
struct Tried {
    result: Result<TcpStream, Unreachable>,
    took: Duration,
}

async fn dial(
    connect: &Connect,
    addresses: Vec<SocketAddr>,
    tell: &mut dyn FnMut(Step),
) -> Result<Reached, Exit> {
    let addresses: Vec<_> = addresses.into_iter().take(MOST).collect();
    let (mut tried, patience) = try_each(&addresses, connect.timeout).await;
    let works = (tried.iter().flatten()).any(|one| one.result.is_ok());
    let mut reached = None;
    let mut first = None;
    for (index, address) in addresses.into_iter().enumerate() {
        let family = match address.is_ipv4() {
            true => "IPv4",
            false => "IPv6",
        };
        let tried = tried.get_mut(index).and_then(Option::take);
        let (failure, took) = match tried {
            Some(Tried {
                result: Ok(tcp),
                took,
            }) => {
                tell(Step::ok("TCP", format!("{address} answers, {family}")).took(took));
                reached.get_or_insert(Reached {
                    tcp,
                    address: Some(address),
                });
                continue;
            }
            Some(Tried {
                result: Err(error),
                took,
            }) => (Failure::Unreachable(error), took),
            None => (Failure::DialTimeout, patience),
        };
        let mut report = connect.report(&failure);
        if matches!(failure, Failure::DialTimeout) {
            report.message = format!(
                "the gateway {} ({address}) did not answer within {patience:?}",
                connect.gateway
            );
        }
        let step = match works {
            true => Step::warn(
                "TCP",
                report.message.as_str(),
                "the first address that answers is used; this one costs time: mend it, or take it out of DNS",
            ),
            false => failed("TCP", &report),
        };
        tell(step.took(took));
        first.get_or_insert(report);
    }
    match (reached, first) {
        (Some(reached), _) => Ok(reached),
        (None, Some(report)) => Err(report.exit),
        (None, None) => Err(told("TCP", &connect.report(&Failure::DialTimeout), tell)),
    }
}

/// Dials every address at once; `None` for one that was silent for so long.
async fn try_each(addresses: &[SocketAddr], longest: Duration) -> (Vec<Option<Tried>>, Duration) {
    let began = Instant::now();
    let mut deadline = began + longest;
    let mut attempts = JoinSet::new();
    for (index, address) in addresses.iter().copied().enumerate() {
        attempts.spawn(async move {
            let result = attempt(address).await;
            let took = began.elapsed();
            (index, Tried { result, took })
        });
    }
    let mut tried: Vec<_> = addresses.iter().map(|_| None).collect();
    loop {
        tokio::select! {
            ended = attempts.join_next() => match ended {
                Some(Ok((index, one))) => {
                    if one.result.is_ok() {
                        deadline = deadline.min(Instant::now() + SLOWEST);
                    }
                    if let Some(place) = tried.get_mut(index) {
                        *place = Some(one);
                    }
                }
                Some(Err(_)) => {}
                None => break,
            },
            () = sleep_until(deadline) => break,
        }
    }
    (tried, deadline - began)
}
