//! Checks of an upstream by the gateway itself: what is typed in `[upstreams.NAME.health_check]`, and what it means.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeValue;

use super::decode::{Item, Typed};
use super::diagnostic::Findings;
use super::listen;
use super::proxy_protocol::Way;
use super::upstreams::Own;
use super::value::{self, Wrong, read};
use super::{Endpoint, EndpointAddress};

/// How the endpoints of an upstream are asked whether they work.
///
/// The meaning and the defaults are those of Traefik's `healthCheck` of a TCP service (since its version 3.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Dialled in place of the endpoint's own port.
    pub port: Option<u16>,
    /// What is sent once the endpoint is reached; may be nothing.
    pub send: Arc<[u8]>,
    /// What its answer must begin with; nothing is an endpoint that need not answer.
    pub expect: Arc<[u8]>,
    /// How long after a check the next one begins. Default: 30 s.
    pub interval: Duration,
    /// The same after one that failed. Default: `interval`.
    pub unhealthy_interval: Duration,
    /// For all of it together. Default: 5 s.
    pub timeout: Duration,
}

impl HealthCheck {
    /// What an interval may be. 100 ms: ten checks a second find a failure sooner than a person notices. 1 h: what is
    /// checked more seldom is not checked.
    pub const INTERVALS: RangeInclusive<Duration> =
        Duration::from_millis(100)..=Duration::from_secs(3600);
    /// What the time for one check may be; a minute holds one of the places for checks, of which there are few.
    pub const TIMEOUTS: RangeInclusive<Duration> =
        Duration::from_millis(10)..=Duration::from_secs(60);
    /// The most bytes that are sent, or expected: as many as Traefik takes.
    pub const LONGEST: usize = 65_535;
}

impl Default for HealthCheck {
    fn default() -> Self {
        let interval = Duration::from_secs(30);
        Self {
            port: None,
            send: [].into(),
            expect: [].into(),
            interval,
            unhealthy_interval: interval,
            timeout: Duration::from_secs(5),
        }
    }
}

/// `[upstreams.NAME.health_check]`, or `health_check = true` for its defaults.
#[derive(Debug, Default)]
pub(super) struct Section {
    port: Option<Typed<i64>>,
    send: Option<Typed<String>>,
    expect: Option<Typed<String>>,
    interval: Option<Typed<String>>,
    unhealthy_interval: Option<Typed<String>>,
    timeout: Option<Typed<String>>,
}

impl Section {
    /// Reads the section; `None` for `health_check = false`.
    pub(super) fn read(item: Item<'_>, findings: &mut Findings<'_>) -> Option<Self> {
        match item.value() {
            DeValue::Boolean(true) => Some(Self::default()),
            DeValue::Boolean(false) => None,
            DeValue::Table(_) => {
                let mut table = item.table(findings)?;
                let section = Self {
                    port: table.take("port", findings, Item::integer),
                    send: table.take("send", findings, Item::string),
                    expect: table.take("expect", findings, Item::string),
                    interval: table.take("interval", findings, Item::string),
                    unhealthy_interval: table.take("unhealthy_interval", findings, Item::string),
                    timeout: table.take("timeout", findings, Item::string),
                };
                table.finish(findings);
                Some(section)
            }
            _ => item.wrong("true, false or a table", findings),
        }
    }

    /// What it means for an upstream with these endpoints. What is wrong is reported, and as if it were not written.
    pub(super) fn mean(
        &self,
        endpoints: &[Endpoint],
        way: Way,
        own: Own<'_>,
        findings: &mut Findings<'_>,
    ) -> HealthCheck {
        let default = HealthCheck::default();
        let mut time = |typed: &Option<Typed<String>>, bounds: RangeInclusive<Duration>| {
            let typed = typed.as_ref()?;
            read(typed, findings, |text| value::duration(text, bounds))
        };
        let interval = time(&self.interval, HealthCheck::INTERVALS).unwrap_or(default.interval);
        let unhealthy_interval = time(&self.unhealthy_interval, HealthCheck::INTERVALS);
        let timeout = time(&self.timeout, HealthCheck::TIMEOUTS).unwrap_or(default.timeout);
        let mut bytes = |typed: &Option<Typed<String>>| {
            let typed = typed.as_ref()?;
            read(typed, findings, |text| short_enough(text))
        };
        HealthCheck {
            send: bytes(&self.send).unwrap_or(default.send),
            expect: bytes(&self.expect).unwrap_or(default.expect),
            port: self.port(endpoints, way, own, findings),
            interval,
            unhealthy_interval: unhealthy_interval.unwrap_or(interval),
            timeout,
        }
    }

    fn port(
        &self,
        endpoints: &[Endpoint],
        way: Way,
        own: Own<'_>,
        findings: &mut Findings<'_>,
    ) -> Option<u16> {
        let typed = self.port.as_ref()?;
        let port = read(typed, findings, |port| value::number(*port, 1..=u16::MAX))?;
        if way == Way::Mesh {
            findings.error(
                typed.span.clone(),
                format!(
                    "`{}`: a sidecar speaks for its service on one port",
                    typed.key
                ),
                "remove it: in the mesh the check goes the way of the connections",
            );
        }
        for endpoint in endpoints {
            let checked = match &endpoint.address {
                EndpointAddress::Ip(address) => EndpointAddress::Ip((address.ip(), port).into()),
                EndpointAddress::Dns(name, _) => EndpointAddress::Dns(name.clone(), port),
            };
            let (key, place) = (typed.key.as_str(), typed.span.clone());
            listen::refuse_loop(&checked, own, key, place, findings);
        }
        Some(port)
    }
}

fn short_enough(text: &str) -> Result<Arc<[u8]>, Wrong> {
    match text.len() <= HealthCheck::LONGEST {
        true => Ok(text.as_bytes().into()),
        false => Err(Wrong::new(
            format!("it has {} bytes", text.len()),
            format!("write at most {}", HealthCheck::LONGEST),
        )),
    }
}
