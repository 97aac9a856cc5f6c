//! The section `[limits]`: what is typed, and what it means.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use super::decode::{Item, Typed};
use super::diagnostic::Findings;
use super::value::{self, Wrong, read};
use super::{Cap, Keepalive, Limits, Rate, RemovedRoutes, Span};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// What is typed; `None` is a key that is absent, or wrong and reported.
#[derive(Debug, Default)]
pub(super) struct Section {
    handshake_timeout: Option<Typed<String>>,
    max_hello: Option<Typed<String>>,
    dial_timeout: Option<Typed<String>>,
    dial_attempts: Option<Typed<i64>>,
    idle_timeout: Option<Span>,
    lifetime: Option<Span>,
    connections: Option<Cap>,
    handshakes: Option<Cap>,
    per_source: Option<Cap>,
    accept_rate: Option<Rate>,
    per_route: Option<Cap>,
    half_closed_timeout: Option<Typed<String>>,
    keepalive: Option<KeepaliveSection>,
    drain_delay: Option<Typed<String>>,
    drain_timeout: Option<Typed<String>>,
    drain_spread: Option<Typed<String>>,
    removed_routes: Option<Typed<String>>,
}

impl Section {
    pub(super) fn read(item: Item<'_>, findings: &mut Findings<'_>) -> Option<Self> {
        let mut table = item.table(findings)?;
        let seconds = |item: Item<'_>, findings: &mut Findings<'_>| item.quantity("s", findings);
        let default = Limits::default();
        let limits = Self {
            handshake_timeout: table.take("handshake_timeout", findings, seconds),
            max_hello: table.take("max_hello", findings, |item, findings| {
                item.quantity("B", findings)
            }),
            dial_timeout: table.take("dial_timeout", findings, seconds),
            dial_attempts: table.take("dial_attempts", findings, Item::integer),
            idle_timeout: table.take("idle_timeout", findings, |item, findings| {
                span(item, default.idle, findings)
            }),
            lifetime: table.take("lifetime", findings, |item, findings| {
                span(item, default.lifetime, findings)
            }),
            connections: table.take("connections", findings, |item, findings| {
                cap(item, default.connections, "auto", findings)
            }),
            handshakes: table.take("handshakes", findings, |item, findings| {
                cap(item, default.handshakes, "off", findings)
            }),
            per_source: table.take("per_source", findings, |item, findings| {
                cap(item, default.per_source, "off", findings)
            }),
            accept_rate: table.take("accept_rate", findings, |item, findings| {
                rate(item, default.accept_rate, findings)
            }),
            per_route: table.take("per_route", findings, of_route),
            half_closed_timeout: table.take("half_closed_timeout", findings, seconds),
            drain_delay: table.take("drain_delay", findings, seconds),
            drain_timeout: table.take("drain_timeout", findings, seconds),
            drain_spread: table.take("drain_spread", findings, seconds),
            removed_routes: table.take("removed_routes", findings, seconds),
            keepalive: table.take("keepalive", findings, KeepaliveSection::read),
        };
        table.finish(findings);
        Some(limits)
    }
}

/// `[limits.keepalive]`, and that of a transport.
#[derive(Debug)]
pub(super) struct KeepaliveSection {
    idle: Option<Typed<String>>,
    interval: Option<Typed<String>>,
    count: Option<Typed<i64>>,
}

impl KeepaliveSection {
    pub(super) fn read(item: Item<'_>, findings: &mut Findings<'_>) -> Option<Self> {
        let mut table = item.table(findings)?;
        let seconds = |item: Item<'_>, findings: &mut Findings<'_>| item.quantity("s", findings);
        let keepalive = Self {
            idle: table.take("idle", findings, seconds),
            interval: table.take("interval", findings, seconds),
            count: table.take("count", findings, Item::integer),
        };
        table.finish(findings);
        Some(keepalive)
    }

    /// What it means; what is not written is as in `default`.
    pub(super) fn mean(&self, default: Keepalive, findings: &mut Findings<'_>) -> Keepalive {
        // Linux keeps TCP_KEEPIDLE and TCP_KEEPINTVL below 32,768 s and TCP_KEEPCNT below 128.
        const LONGEST: Duration = Duration::from_secs(32_767);
        let mut duration = |typed: &Option<Typed<String>>, default| {
            let typed = typed.as_ref();
            let read = typed.and_then(|typed| {
                read(typed, findings, |text| {
                    value::duration(text, SECOND..=LONGEST)
                })
            });
            read.unwrap_or(default)
        };
        let idle = duration(&self.idle, default.idle);
        let interval = duration(&self.interval, default.interval);
        let count = self.count.as_ref();
        let count =
            count.and_then(|typed| read(typed, findings, |&count| value::number(count, 1..=127)));
        Keepalive {
            idle,
            interval,
            count: count.unwrap_or(default.count),
        }
    }
}

/// The limits, each within what cannot be anything but a slip of the pen.
pub(super) fn limits(typed: &Section, findings: &mut Findings<'_>) -> Limits {
    const TENTH: Duration = Duration::from_millis(100);
    const TEN_MINUTES: Duration = Duration::from_secs(600);
    let default = Limits::default();
    let mut duration = |typed: &Option<Typed<String>>, bounds, default| {
        let typed = typed.as_ref();
        let read =
            typed.and_then(|typed| read(typed, findings, |text| value::duration(text, bounds)));
        read.unwrap_or(default)
    };
    let handshake = duration(
        &typed.handshake_timeout,
        TENTH..=TEN_MINUTES,
        default.handshake,
    );
    let dial = duration(&typed.dial_timeout, TENTH..=TEN_MINUTES, default.dial);
    let half_closed = duration(
        &typed.half_closed_timeout,
        SECOND..=DAY * 30,
        default.half_closed,
    );
    let drain_delay = duration(
        &typed.drain_delay,
        Duration::ZERO..=TEN_MINUTES,
        default.drain_delay,
    );
    let drain = duration(&typed.drain_timeout, Duration::ZERO..=DAY, default.drain);
    let drain_spread = duration(
        &typed.drain_spread,
        Duration::ZERO..=DAY,
        default.drain_spread,
    );
    let keepalive = typed.keepalive.as_ref();
    let keepalive = keepalive.map(|typed| typed.mean(default.keepalive, findings));
    let removed_routes = typed.removed_routes.as_ref();
    let removed_routes = removed_routes.and_then(|typed| {
        read(typed, findings, |text| match text.as_str() {
            "keep" => Ok(RemovedRoutes::Keep),
            "close" => Ok(RemovedRoutes::End(Duration::ZERO)),
            text => match value::duration(text, SECOND..=DAY) {
                Ok(span) => Ok(RemovedRoutes::End(span)),
                Err(wrong) => Err(wrong.or("\"keep\" or \"close\"")),
            },
        })
    });
    let mut number = |typed: &Option<Typed<i64>>, bounds, default| {
        let typed = typed.as_ref();
        let read =
            typed.and_then(|typed| read(typed, findings, |value| value::number(*value, bounds)));
        read.unwrap_or(default)
    };
    let dial_attempts = number(&typed.dial_attempts, 1..=10, 2);
    let hello = typed.max_hello.as_ref();
    // Below 4 KiB the hello of a browser of today may not fit; above 64 KiB rustls refuses it.
    let hello =
        hello.and_then(|typed| read(typed, findings, |text| value::size(text, 4096..=65_536)));
    Limits {
        handshake,
        hello_bytes: hello.unwrap_or(default.hello_bytes),
        dial,
        dial_attempts: usize::try_from(dial_attempts).unwrap_or(default.dial_attempts),
        idle: typed.idle_timeout.unwrap_or(default.idle),
        lifetime: typed.lifetime.unwrap_or(default.lifetime),
        connections: typed.connections.unwrap_or(default.connections),
        handshakes: typed.handshakes.unwrap_or(default.handshakes),
        per_source: typed.per_source.unwrap_or(default.per_source),
        accept_rate: typed.accept_rate.unwrap_or(default.accept_rate),
        per_route: typed.per_route.unwrap_or(default.per_route),
        half_closed,
        keepalive: keepalive.unwrap_or(default.keepalive),
        drain_delay,
        drain,
        drain_spread,
        removed_routes: removed_routes.unwrap_or(default.removed_routes),
    }
}

/// How many connections a route may have: `"off"`, a number, or a table with `max` and `enforce`.
pub(super) fn of_route(item: Item<'_>, findings: &mut Findings<'_>) -> Option<Cap> {
    cap(item, Limits::default().per_route, "off", findings)
}

/// A number, the word for none, or a table with `max` and `enforce`.
fn cap(item: Item<'_>, default: Cap, none: &str, findings: &mut Findings<'_>) -> Option<Cap> {
    // More connections than that fit into no machine: a slip of the pen.
    const BOUNDS: RangeInclusive<usize> = 1..=10_000_000;
    let DeValue::Table(_) = item.value() else {
        let max = number(item, none, BOUNDS, findings)?;
        return Some(Cap { max, ..default });
    };
    let mut table = item.table(findings)?;
    let max = table.take("max", findings, |item, findings| {
        number(item, none, BOUNDS, findings)
    });
    let enforced = table.take("enforce", findings, enforce);
    table.finish(findings);
    Some(Cap {
        max: max.unwrap_or(default.max),
        enforce: enforced.unwrap_or(default.enforce),
    })
}

/// A number a second, `"off"`, or a table with `per_second`, `burst` and `enforce`.
fn rate(item: Item<'_>, default: Rate, findings: &mut Findings<'_>) -> Option<Rate> {
    const PER_SECOND: RangeInclusive<u32> = 1..=100_000;
    let DeValue::Table(_) = item.value() else {
        let per_second = number(item, "off", PER_SECOND, findings)?;
        return Some(Rate {
            per_second,
            ..default
        });
    };
    let mut table = item.table(findings)?;
    let per_second = table.take("per_second", findings, |item, findings| {
        number(item, "off", PER_SECOND, findings)
    });
    let burst = table.take("burst", findings, Item::integer);
    let burst = burst.and_then(|typed| {
        read(&typed, findings, |burst| {
            value::number(*burst, 1..=1_000_000)
        })
    });
    let enforced = table.take("enforce", findings, enforce);
    table.finish(findings);
    Some(Rate {
        per_second: per_second.unwrap_or(default.per_second),
        burst: burst.unwrap_or(default.burst),
        enforce: enforced.unwrap_or(default.enforce),
    })
}

/// A duration, `"off"`, or a table with `max` and `enforce`.
fn span(item: Item<'_>, default: Span, findings: &mut Findings<'_>) -> Option<Span> {
    let DeValue::Table(_) = item.value() else {
        let max = duration_or_off(item, findings)?;
        return Some(Span { max, ..default });
    };
    let mut table = item.table(findings)?;
    let max = table.take("max", findings, duration_or_off);
    let enforced = table.take("enforce", findings, enforce);
    table.finish(findings);
    Some(Span {
        max: max.unwrap_or(default.max),
        enforce: enforced.unwrap_or(default.enforce),
    })
}

fn duration_or_off(item: Item<'_>, findings: &mut Findings<'_>) -> Option<Option<Duration>> {
    let typed = item.quantity("s", findings)?;
    read(&typed, findings, |text| match text.as_str() {
        "off" => Ok(None),
        text => match value::duration(text, SECOND..=DAY * 365) {
            Ok(duration) => Ok(Some(duration)),
            Err(wrong) => Err(wrong.or("\"off\"")),
        },
    })
}

/// A number within bounds; `None` is the word for none.
fn number<T>(
    item: Item<'_>,
    none: &str,
    bounds: RangeInclusive<T>,
    findings: &mut Findings<'_>,
) -> Option<Option<T>>
where
    T: TryFrom<i64> + PartialOrd + std::fmt::Display,
{
    let DeValue::String(_) = item.value() else {
        let typed = item.integer(findings)?;
        let number = read(&typed, findings, |value| value::number(*value, bounds));
        return number.map(Some);
    };
    let typed = item.string(findings)?;
    read(&typed, findings, |text| match text == none {
        true => Ok(None),
        false => Err(Wrong::new(
            format!("{text:?} is not a number"),
            format!("write a whole number without quotes, or \"{none}\""),
        )),
    })
}

/// Whether a limit refuses, or only counts.
fn enforce(item: Item<'_>, findings: &mut Findings<'_>) -> Option<bool> {
    const HELP: &str = "write true, or \"dry-run\" to count only what it would refuse";
    match item.value() {
        DeValue::String(_) => {
            let typed = item.string(findings)?;
            read(&typed, findings, |text| match text.as_str() {
                "dry-run" => Ok(false),
                text => Err(Wrong::new(format!("{text:?} is not known"), HELP)),
            })
        }
        DeValue::Boolean(false) => {
            let typed = item.typed(());
            read(&typed, findings, |()| {
                Err(Wrong::new(
                    "false does not say what becomes of the limit",
                    HELP,
                ))
            })
        }
        _ => item.boolean(findings).map(|typed| typed.value),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::super::parse;
    use super::*;

    fn read(text: &str) -> Limits {
        let parsed = parse(&format!("[limits]\n{text}\n"), Path::new("portcullis.toml"));
        parsed.unwrap().config.limits
    }

    #[test]
    fn what_limits_a_source_is_off_in_a_word_and_in_a_table() {
        assert_eq!(read("per_source = \"off\"").per_source.max, None);
        assert_eq!(read("per_source = { max = \"off\" }").per_source.max, None);
        let default = Limits::default().accept_rate;
        for text in ["\"off\"", "{ per_second = \"off\" }"] {
            let rate = read(&format!("accept_rate = {text}")).accept_rate;
            assert_eq!(rate.per_second, None, "{text}");
            assert_eq!(rate.burst, default.burst, "{text}");
        }
        assert_eq!(
            read("accept_rate.per_second = \"off\"")
                .accept_rate
                .per_second,
            None
        );
        assert_eq!(read("accept_rate = 50").accept_rate.per_second, Some(50));
        let wrong = parse(
            "[limits]\naccept_rate = true\n",
            Path::new("portcullis.toml"),
        );
        assert!(wrong.unwrap_err().to_string().contains("accept_rate"));
    }
}
