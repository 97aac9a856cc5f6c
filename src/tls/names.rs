//! The subject alternative names of a certificate: counted, and shown to people.

use std::fmt;
use std::net::IpAddr;

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

use super::files::parse;
use crate::name::SpiffeId;

/// How many names a message shows, and how many bytes of each: a stranger may have written them.
const SHOWN: usize = 5;
const SHOWN_BYTES: usize = 120;

/// A certificate's subject alternative names (RFC 5280 §4.2.1.6).
pub(super) struct Names {
    uris: Vec<Vec<u8>>,
    others: Vec<Vec<u8>>,
}

impl Names {
    /// `None` if the certificate or its names cannot be read to the end.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        const URI: u32 = 6;
        let parsed = parse(certificate)?;
        let extension = parsed.subject_alternative_name().ok()?;
        let (mut uris, mut others) = (Vec::new(), Vec::new());
        for name in extension.iter().flat_map(|it| &it.value.general_names) {
            match name {
                GeneralName::URI(uri) => uris.push(uri.as_bytes().to_vec()),
                GeneralName::Invalid(tag, bytes) if tag.0 == URI => uris.push(bytes.to_vec()),
                GeneralName::DNSName(name) => others.push(name.as_bytes().to_vec()),
                GeneralName::IPAddress(bytes) => others.push(address(bytes).into_bytes()),
                other => others.push(other.to_string().into_bytes()),
            }
        }
        Some(Self { uris, others })
    }

    /// How many URIs there are, whatever is in them.
    pub(super) fn uris(&self) -> usize {
        self.uris.len()
    }

    /// The URI, if there is just one and it is text.
    pub(super) fn only_uri(&self) -> Option<&str> {
        match self.uris.as_slice() {
            [uri] => std::str::from_utf8(uri).ok(),
            _ => None,
        }
    }
}

/// The URIs first; escaped, and cut where they are many or long.
impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<&[u8]> = self
            .uris
            .iter()
            .chain(&self.others)
            .map(|n| &n[..])
            .collect();
        f.write_str(&list(&all))
    }
}

/// The SPIFFE ID of a certificate: its one URI (X509-SVID §2), if that is one. It proves something only after the chain has
/// been verified.
pub fn spiffe_id(certificate: &CertificateDer<'_>) -> Option<SpiffeId> {
    let names = Names::of(certificate)?;
    SpiffeId::parse(names.only_uri()?).ok()
}

/// The common name of a certificate's subject, if there is just one and it is text of at most 64 characters (RFC 5280
/// appendix A.1). It proves something only after the chain has been verified.
pub fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    const LONGEST: usize = 64;
    let parsed = parse(certificate)?;
    let mut names = parsed.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?;
    (names.next().is_none() && name.chars().count() <= LONGEST).then(|| name.to_owned())
}

/// Names as rustls tells them, such as `DnsName("a.example")`, in plain words: escaped, and cut where they are many.
pub fn presented(names: &[String]) -> String {
    let plain = |name: &'_ String| {
        let quoted = name
            .strip_prefix("DnsName(\"")
            .and_then(|rest| rest.strip_suffix("\")"));
        let address = name
            .strip_prefix("IpAddress(")
            .and_then(|rest| rest.strip_suffix(')'));
        quoted.or(address).unwrap_or(name).to_owned()
    };
    let names: Vec<String> = names.iter().map(plain).collect();
    let names: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
    list(&names)
}

fn list(names: &[&[u8]]) -> String {
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| cut(name)).collect();
    let shown = shown.join(", ");
    match names.len() {
        0 => "no name at all".to_owned(),
        all if all > SHOWN => format!("{shown} and {} more", all - SHOWN),
        _ => shown,
    }
}

fn cut(name: &[u8]) -> String {
    match name.split_at_checked(SHOWN_BYTES) {
        Some((start, rest)) if !rest.is_empty() => format!("{}...", start.escape_ascii()),
        _ => name.escape_ascii().to_string(),
    }
}

fn address(bytes: &[u8]) -> String {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let address = v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
    address.map_or_else(|_| "an unreadable address".to_owned(), |it| it.to_string())
}
