//! What a certificate says of itself, for a person who looks at a chain.

use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use x509_parser::x509::X509Name;

use super::files::{parse, validity};
use super::names::Names;

/// How much of a subject is told, in bytes: a stranger may have written it.
const SHOWN: usize = 120;

/// What a certificate says of itself; the texts are escaped, and cut where they are long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Whose it is.
    pub subject: String,
    /// Who signed it, as it says.
    pub issuer: String,
    /// The subject alternative names, some of them.
    pub names: String,
    /// From when it is valid.
    pub not_before: SystemTime,
    /// Until when.
    pub not_after: SystemTime,
}

/// How a certificate's time stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// It has so long to go.
    Left(Duration),
    /// It has so long to go, and that is less than a tenth of what it was issued for: by then it should be another.
    Short(Duration),
    /// It ended so long ago.
    Over(Duration),
    /// It begins in so long.
    NotYet(Duration),
}

impl Described {
    /// Reads a certificate; `None` if it is none.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let parsed = parse(certificate)?;
        let (not_before, not_after) = validity(&parsed);
        Some(Self {
            subject: distinguished(parsed.subject()),
            issuer: distinguished(parsed.issuer()),
            names: Names::of(certificate)
                .map_or_else(|| "unreadable names".to_owned(), |names| names.to_string()),
            not_before,
            not_after,
        })
    }

    /// How its time stands.
    pub fn time(&self, now: SystemTime) -> Time {
        time(self.not_before, self.not_after, now)
    }
}

/// How the time stands of what is valid from then to then.
pub fn time(not_before: SystemTime, not_after: SystemTime, now: SystemTime) -> Time {
    if let Ok(wait) = not_before.duration_since(now)
        && !wait.is_zero()
    {
        return Time::NotYet(wait);
    }
    let whole = not_after.duration_since(not_before).unwrap_or_default();
    match not_after.duration_since(now) {
        Ok(left) if left < whole / 10 => Time::Short(left),
        Ok(left) => Time::Left(left),
        Err(over) => Time::Over(over.duration()),
    }
}

/// The names of CAs as a server lists them (RFC 8446 §4.2.4), those that can be read.
pub fn authority(der: &[u8]) -> Option<String> {
    use x509_parser::prelude::FromDer;
    let (_, name) = X509Name::from_der(der).ok()?;
    Some(distinguished(&name))
}

fn distinguished(name: &X509Name<'_>) -> String {
    let text = name.to_string();
    let text = match text.is_empty() {
        true => "no name",
        false => text.as_str(),
    };
    let mut shown: String = (text.chars().take(SHOWN))
        .flat_map(|c| match c.is_control() {
            true => c.escape_default().collect::<Vec<_>>(),
            false => vec![c],
        })
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push_str("...");
    }
    shown
}

/// A time span in the largest unit that says enough: `89 days`, `7 h`, `12 min`.
pub fn span(time: Duration) -> String {
    const HOUR: u64 = 3600;
    match time.as_secs() {
        seconds if seconds < 120 => format!("{seconds} s"),
        seconds if seconds < 2 * HOUR => format!("{} min", seconds / 60),
        seconds if seconds < 48 * HOUR => format!("{} h", seconds / HOUR),
        seconds => format!("{} days", seconds / (24 * HOUR)),
    }
}

/// `89 days left`, and what else there is to say of a certificate's time.
pub fn told(time: Time) -> String {
    match time {
        Time::Left(left) | Time::Short(left) => format!("{} left", span(left)),
        Time::Over(over) => format!("expired {} ago", span(over)),
        Time::NotYet(wait) => format!("valid only in {}", span(wait)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::tls::test_certs::Ca;

    #[test]
    fn a_certificate_s_time_is_short_in_its_last_tenth() {
        const DAY: Duration = Duration::from_secs(86_400);
        let from = SystemTime::UNIX_EPOCH + 1000 * DAY;
        let until = from + 90 * DAY;
        for (day, says) in [
            (-1, "valid only in 24 h"),
            (0, "90 days left"),
            (80, "10 days left"),
            (82, "8 days left"),
            (89, "24 h left"),
            (95, "5 days ago"),
        ] {
            let now = match u32::try_from(day) {
                Ok(days) => from + days * DAY,
                Err(_) => from - DAY,
            };
            let time = time(from, until, now);
            assert!(told(time).contains(says), "{day}: {time:?}");
            assert_eq!(matches!(time, Time::Short(_)), (82..90).contains(&day));
        }
    }

    #[test]
    fn who_signed_a_certificate_is_told_and_what_is_no_certificate_is_none() {
        let ca = Ca::new("the test's CA");
        let issued = ca.issue(&["db.example.com"]);
        let leaf = issued.certified_key().cert.first().unwrap().clone();
        let described = Described::of(&leaf).unwrap();
        assert!(described.issuer.contains("the test's CA"), "{described:?}");
        assert_eq!(described.names, "db.example.com");
        assert_eq!(Described::of(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}
