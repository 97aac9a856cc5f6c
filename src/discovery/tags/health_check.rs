//! The `healthcheck` of a `tcp.services.NAME.loadbalancer`, as Traefik has it since its version 3.6.

use std::sync::Arc;
use std::time::Duration;

use super::{Place, TagError, Wrong};
use crate::config::HealthCheck;

/// The shortest interval that a tag gets.
///
/// 1 s: a tag is written by whoever may register a service, and ten checks a second of each instance are the operator's to allow.
const SHORTEST: Duration = Duration::from_secs(1);

/// What an interval and a time mean that are not positive, as in Traefik.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(5);

/// Takes in the tag whose key goes on with `path`; `on` is the switch that stands at `healthcheck` itself.
///
/// Keys come in the order of the alphabet: `unhealthyinterval` after the `interval` that it is by default.
pub(super) fn take(
    found: &mut Option<HealthCheck>,
    path: &[&str],
    place: &Place<'_>,
    on: bool,
) -> Result<(), TagError> {
    const KEYS: [&str; 6] = [
        "port",
        "send",
        "expect",
        "interval",
        "unhealthyinterval",
        "timeout",
    ];
    if !matches!(path, [] | [_]) || path.iter().any(|key| !KEYS.contains(key)) {
        return Err(place.wrong(Wrong::Unknown));
    }
    // What stands under a switch that is off is not even read.
    if !on {
        return Ok(());
    }
    let check = found.get_or_insert_default();
    match path {
        ["port"] if place.value == "0" => {}
        ["port"] => check.port = place.port()?,
        ["send"] => check.send = bytes(place)?,
        ["expect"] => check.expect = bytes(place)?,
        ["interval"] => {
            check.interval = interval(place)?;
            check.unhealthy_interval = check.interval;
        }
        ["unhealthyinterval"] if place.value.is_empty() => {}
        ["unhealthyinterval"] => check.unhealthy_interval = interval(place)?,
        ["timeout"] => {
            let (least, most) = HealthCheck::TIMEOUTS.into_inner();
            check.timeout = duration(place)?.unwrap_or(TIMEOUT).clamp(least, most);
        }
        _ => {}
    }
    Ok(())
}

fn bytes(place: &Place<'_>) -> Result<Arc<[u8]>, TagError> {
    match place.value.len() <= HealthCheck::LONGEST {
        true => Ok(place.value.as_bytes().into()),
        false => Err(place.not("at most 65535 bytes long")),
    }
}

fn interval(place: &Place<'_>) -> Result<Duration, TagError> {
    let asked = duration(place)?.unwrap_or(INTERVAL);
    Ok(asked.clamp(SHORTEST, *HealthCheck::INTERVALS.end()))
}

/// `None` for one that is not positive.
fn duration(place: &Place<'_>) -> Result<Option<Duration>, TagError> {
    let value = place.value;
    if value.is_empty() {
        return Ok(None);
    }
    let parsed = parse(value).ok_or_else(|| place.not("a number of seconds, or a duration"))?;
    Ok(parsed.filter(|duration| !duration.is_zero()))
}

/// Whole seconds, or what Go's `time.ParseDuration` takes: `90`, `1m30s`, `1.5h`, `-1s`. `Some(None)` is a negative one.
fn parse(text: &str) -> Option<Option<Duration>> {
    let (is_negative, text) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds = text.parse().ok()?;
        return Some((!is_negative).then(|| Duration::from_secs(seconds)));
    }
    let (mut total, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let (number, after) = rest.split_at(rest.find(|c| !is_number(c))?);
        let (unit, after) = after.split_at(after.find(is_number).unwrap_or(after.len()));
        let seconds: f64 = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = after;
    }
    Some((!is_negative).then_some(total))
}
