//! The values that are typed as strings: durations, sizes, addresses, names, and one word out of several.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::EndpointAddress;
use super::decode::Typed;
use super::diagnostic::Findings;
use crate::name::HostName;

/// What is wrong with a value, and what to write instead. The message goes on after the name of the key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    message: String,
    help: String,
}

impl Wrong {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: help.into(),
        }
    }

    /// With another remedy to choose from.
    pub(super) fn or(mut self, help: &str) -> Self {
        self.help.push_str(", or ");
        self.help.push_str(help);
        self
    }
}

/// Reads a value, or reports what is wrong with it.
pub(super) fn read<T, V>(
    typed: &Typed<V>,
    findings: &mut Findings<'_>,
    parse: impl FnOnce(&V) -> Result<T, Wrong>,
) -> Option<T> {
    match parse(&typed.value) {
        Ok(value) => Some(value),
        Err(wrong) => {
            findings.error(
                typed.span.clone(),
                format!("`{}`: {}", typed.key, wrong.message),
                wrong.help,
            );
            None
        }
    }
}

/// One word out of several.
pub(super) fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, Wrong> {
    if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
    let known = format!("it may be {}", words.join(", "));
    let help = match suggest(text, &words) {
        Some(meant) => format!("did you mean \"{meant}\"? {known}"),
        None => known,
    };
    Err(Wrong::new(format!("{text:?} is not known"), help))
}

/// The word that was probably meant: the same but for case and separators, or a few slips away.
pub(super) fn suggest<'a>(typed: &str, known: &[&'a str]) -> Option<&'a str> {
    let typed_plain = plain(typed);
    let near = known.iter().map(|word| {
        let distance = strsim::damerau_levenshtein(&typed_plain, &plain(word));
        (distance, *word)
    });
    let (distance, word) = near.min()?;
    (distance <= typed_plain.len().max(3) / 3).then_some(word)
}

/// Whether two words differ in case and separators only.
pub(super) fn is_same(a: &str, b: &str) -> bool {
    plain(a) == plain(b)
}

fn plain(text: &str) -> String {
    text.replace(['-', '_', '.'], "").to_ascii_lowercase()
}

/// A duration within bounds: whole numbers with units, the largest first, such as `10s` or `1h30m`.
pub(super) fn duration(text: &str, bounds: RangeInclusive<Duration>) -> Result<Duration, Wrong> {
    const HELP: &str = "write a number and a unit (ms, s, m, h or d), such as \"10s\" or \"1h30m\"";
    let wrong = || Wrong::new(format!("{text:?} is not a duration"), HELP);
    let mut rest = text;
    let mut total = Duration::ZERO;
    let mut smaller_than = u64::MAX;
    while !rest.is_empty() || total.is_zero() && smaller_than == u64::MAX {
        let (number, unit, after) = number_and_unit(rest).ok_or_else(wrong)?;
        let milliseconds: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        if milliseconds >= smaller_than {
            return Err(wrong());
        }
        smaller_than = milliseconds;
        let part = number.checked_mul(milliseconds).ok_or_else(wrong)?;
        total = total
            .checked_add(Duration::from_millis(part))
            .ok_or_else(wrong)?;
        rest = after;
    }
    if bounds.contains(&total) {
        return Ok(total);
    }
    let range = format!("{} to {}", written(*bounds.start()), written(*bounds.end()));
    Err(Wrong::new(
        format!("{text:?} is out of range"),
        format!("write a duration of {range}"),
    ))
}

/// A size in bytes within bounds: a whole number with the unit `B`, `KiB` or `MiB`.
pub(super) fn size(text: &str, bounds: RangeInclusive<usize>) -> Result<usize, Wrong> {
    let wrong = || {
        Wrong::new(
            format!("{text:?} is not a size"),
            "write a number and a unit (B, KiB or MiB), such as \"64KiB\"",
        )
    };
    let (number, unit, after) = number_and_unit(text).ok_or_else(wrong)?;
    let unit: u64 = match (unit, after) {
        ("B", "") => 1,
        ("KiB", "") => 1024,
        ("MiB", "") => 1024 * 1024,
        _ => return Err(wrong()),
    };
    let bytes = number.checked_mul(unit).ok_or_else(wrong)?;
    let bytes = usize::try_from(bytes).map_err(|_| wrong())?;
    if bounds.contains(&bytes) {
        return Ok(bytes);
    }
    let (least, most) = (bounds.start() / 1024, bounds.end() / 1024);
    Err(Wrong::new(
        format!("{text:?} is out of range"),
        format!("write a size of {least}KiB to {most}KiB"),
    ))
}

/// A whole number within bounds.
pub(super) fn number<T>(value: i64, bounds: RangeInclusive<T>) -> Result<T, Wrong>
where
    T: TryFrom<i64> + PartialOrd + std::fmt::Display,
{
    match T::try_from(value) {
        Ok(number) if bounds.contains(&number) => Ok(number),
        _ => Err(Wrong::new(
            format!("{value} is out of range"),
            format!("write a number from {} to {}", bounds.start(), bounds.end()),
        )),
    }
}

/// An address to listen on: an IP address and a port, or `:PORT` for every address of this machine.
pub(super) fn listen_address(text: &str) -> Result<SocketAddr, Wrong> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let port = |port: &str| port.parse::<u16>().ok();
    if let Some(port) = text.strip_prefix(':').and_then(port) {
        return Ok(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
    }
    let help = if port(text).is_some() {
        format!("write \":{text}\" for every address of this machine, or \"127.0.0.1:{text}\"")
    } else if let Ok(ip) = text.parse::<IpAddr>() {
        format!("add a port: \"{}\"", SocketAddr::new(ip, 8443))
    } else if let Some(port) = text.strip_prefix("localhost:").and_then(port) {
        format!(
            "write the IP address instead of the name: \"127.0.0.1:{port}\" or \"[::1]:{port}\""
        )
    } else {
        "write an IP address and a port, such as \"[::]:8443\" or \"192.0.2.1:8443\"".to_owned()
    };
    Err(Wrong::new(
        format!("{text:?} is not an address to listen on"),
        help,
    ))
}

/// Where an endpoint is dialled: an IP address or a DNS name, and a port.
pub(super) fn endpoint_address(text: &str) -> Result<EndpointAddress, Wrong> {
    const EXAMPLE: &str = "write a host and a port, such as \"10.0.0.5:22\", \"[2001:db8::5]:22\" or \"db.internal:5432\"";
    let wrong = |help: &str| Wrong::new(format!("{text:?} is not an address with a port"), help);
    if let Some((scheme, _)) = text.split_once("://") {
        let help = match scheme {
            "https" | "tls" => {
                "leave the scheme out; TLS is asked for by an [upstreams.NAME.tls] section"
            }
            _ => "leave the scheme out: the gateway moves bytes, whatever their protocol",
        };
        return Err(wrong(help));
    }
    let address = match text.parse::<SocketAddr>() {
        Ok(address) => EndpointAddress::Ip(address),
        Err(_) => {
            if let Ok(ip) = text.parse::<IpAddr>() {
                return Err(wrong(&format!(
                    "add a port: \"{}\"",
                    SocketAddr::new(ip, 22)
                )));
            }
            let (host, port) = text.rsplit_once(':').ok_or_else(|| {
                wrong(&format!("add a port, as in \"{}:22\"", text.escape_debug()))
            })?;
            let port = port.parse().map_err(|_| wrong(EXAMPLE))?;
            let name = HostName::parse(host)
                .map_err(|error| wrong(&format!("{EXAMPLE}; {host:?} is no host name: {error}")))?;
            EndpointAddress::Dns(name, port)
        }
    };
    match address {
        EndpointAddress::Ip(ip) if ip.port() == 0 => Err(wrong(
            "port 0 cannot be dialled; write the port of the service",
        )),
        EndpointAddress::Dns(_, 0) => Err(wrong(
            "port 0 cannot be dialled; write the port of the service",
        )),
        address => Ok(address),
    }
}

/// A name of ours: it stands in logs, metrics and URLs, and must not look like an address or a reference.
pub(super) fn name(text: &str) -> Result<(), Wrong> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=64).contains(&text.len()) && text.chars().all(allowed) {
        return Ok(());
    }
    Err(Wrong::new(
        "not a usable name",
        "write 1 to 64 letters, digits, `-`, `_` or `.`",
    ))
}

/// Splits `10s…` into 10, `s` and what follows.
fn number_and_unit(text: &str) -> Option<(u64, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, rest) = text.split_at_checked(digits)?;
    let unit = rest
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(rest.len());
    let (unit, after) = rest.split_at_checked(unit)?;
    Some((number.parse().ok()?, unit, after))
}

fn written(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let units = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
    ];
    let whole = |(_, unit): &&(&str, u128)| milliseconds > 0 && milliseconds.is_multiple_of(*unit);
    match units.iter().find(whole) {
        Some((name, unit)) => format!("{}{name}", milliseconds / unit),
        None if milliseconds == 0 => "0s".to_owned(),
        None => format!("{milliseconds}ms"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn any_duration(text: &str) -> Option<Duration> {
        duration(text, Duration::ZERO..=Duration::MAX).ok()
    }

    #[test]
    fn a_duration_is_numbers_with_units_the_largest_first() {
        assert_eq!(any_duration("10s"), Some(Duration::from_secs(10)));
        assert_eq!(any_duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(any_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(any_duration("0s"), Some(Duration::ZERO));
        for wrong in [
            "",
            "10",
            "s",
            "10 s",
            "-1s",
            "1.5s",
            "30m1h",
            "1s1s",
            "1week",
            "10S",
            "99999999999999999999s",
            "99999999999999999d",
        ] {
            assert_eq!(any_duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_duration_out_of_range_says_the_range() {
        let bounds = Duration::from_millis(100)..=Duration::from_secs(600);
        let wrong = duration("0s", bounds).unwrap_err();
        assert_eq!(wrong.help, "write a duration of 100ms to 10m");
    }

    #[test]
    fn a_size_is_a_number_with_a_binary_unit() {
        let any = 0..=usize::MAX;
        assert_eq!(size("64KiB", any.clone()), Ok(65536));
        assert_eq!(size("1MiB", any.clone()), Ok(1 << 20));
        assert_eq!(size("512B", any.clone()), Ok(512));
        for wrong in ["64", "64KB", "64k", "KiB", "", "64KiB ", "1KiB2KiB"] {
            assert!(size(wrong, any.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_port_alone_listens_on_every_address() {
        assert_eq!(
            listen_address(":8443"),
            "[::]:8443".parse().map_err(|_| unreachable!())
        );
        assert_eq!(
            listen_address("8443").unwrap_err().help,
            "write \":8443\" for every address of this machine, or \"127.0.0.1:8443\""
        );
        assert_eq!(
            listen_address("::1").unwrap_err().help,
            "add a port: \"[::1]:8443\""
        );
    }

    #[test]
    fn what_was_meant_is_found_over_slips_case_and_separators() {
        let known = ["host", "tls_options", "passthrough"];
        assert_eq!(suggest("hots", &known), Some("host"));
        assert_eq!(suggest("tlsOptions", &known), Some("tls_options"));
        assert_eq!(suggest("pass-through", &known), Some("passthrough"));
        assert_eq!(suggest("certificate", &known), None);
        assert_eq!(suggest("", &[]), None);
    }
}
