//! The section `[limits]`: what is typed, and what it means.

use std::time::Duration;

use super::decode::{Item, Typed};
use super::diagnostic::Findings;
use super::value::{self, read};
use super::{Keepalive, Limits, RemovedRoutes};

/// What is typed; `None` is a key that is absent, or wrong and reported.
#[derive(Debug, Default)]
pub(super) struct Section {
    handshake_timeout: Option<Typed<String>>,
    max_hello: Option<Typed<String>>,
    dial_timeout: Option<Typed<String>>,
    dial_attempts: Option<Typed<i64>>,
    idle_timeout: Option<Typed<String>>,
    half_closed_timeout: Option<Typed<String>>,
    keepalive_idle: Option<Typed<String>>,
    keepalive_interval: Option<Typed<String>>,
    keepalive_count: Option<Typed<i64>>,
    drain_timeout: Option<Typed<String>>,
    removed_routes: Option<Typed<String>>,
}

impl Section {
    pub(super) fn read(item: Item<'_>, findings: &mut Findings<'_>) -> Option<Self> {
        let mut table = item.table(findings)?;
        let seconds = |item: Item<'_>, findings: &mut Findings<'_>| item.quantity("s", findings);
        let mut limits = Self {
            handshake_timeout: table.take("handshake_timeout", findings, seconds),
            max_hello: table.take("max_hello", findings, |item, findings| {
                item.quantity("B", findings)
            }),
            dial_timeout: table.take("dial_timeout", findings, seconds),
            dial_attempts: table.take("dial_attempts", findings, Item::integer),
            idle_timeout: table.take("idle_timeout", findings, seconds),
            half_closed_timeout: table.take("half_closed_timeout", findings, seconds),
            drain_timeout: table.take("drain_timeout", findings, seconds),
            removed_routes: table.take("removed_routes", findings, seconds),
            ..Self::default()
        };
        let keepalive = table.take("keepalive", findings, |item, findings| item.table(findings));
        if let Some(mut keepalive) = keepalive {
            limits.keepalive_idle = keepalive.take("idle", findings, seconds);
            limits.keepalive_interval = keepalive.take("interval", findings, seconds);
            limits.keepalive_count = keepalive.take("count", findings, Item::integer);
            keepalive.finish(findings);
        }
        table.finish(findings);
        Some(limits)
    }
}

/// The limits, each within what cannot be anything but a slip of the pen.
pub(super) fn limits(typed: &Section, findings: &mut Findings<'_>) -> Limits {
    const DAY: Duration = Duration::from_secs(86_400);
    const TENTH: Duration = Duration::from_millis(100);
    const SECOND: Duration = Duration::from_secs(1);
    const TEN_MINUTES: Duration = Duration::from_secs(600);
    // Linux keeps TCP_KEEPIDLE and TCP_KEEPINTVL below 32,768 s and TCP_KEEPCNT below 128.
    const LONGEST_KEEPALIVE: Duration = Duration::from_secs(32_767);
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
    let drain = duration(&typed.drain_timeout, Duration::ZERO..=DAY, default.drain);
    let keepalive = default.keepalive;
    let keepalive_idle = duration(
        &typed.keepalive_idle,
        SECOND..=LONGEST_KEEPALIVE,
        keepalive.idle,
    );
    let keepalive_interval = duration(
        &typed.keepalive_interval,
        SECOND..=LONGEST_KEEPALIVE,
        keepalive.interval,
    );
    let off_or_duration = |text: &String| match text.as_str() {
        "off" => Ok(None),
        text => match value::duration(text, SECOND..=DAY * 365) {
            Ok(duration) => Ok(Some(duration)),
            Err(wrong) => Err(wrong.or("\"off\"")),
        },
    };
    let idle = typed.idle_timeout.as_ref();
    let idle = idle.and_then(|typed| read(typed, findings, off_or_duration));
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
    let keepalive_count = number(&typed.keepalive_count, 1..=127, keepalive.count);
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
        idle: idle.unwrap_or(default.idle),
        half_closed,
        keepalive: Keepalive {
            idle: keepalive_idle,
            interval: keepalive_interval,
            count: keepalive_count,
        },
        drain,
        removed_routes: removed_routes.unwrap_or(default.removed_routes),
    }
}
