//! The four matchers of a rule: how their names and arguments are read, and when they hold.

use std::ops::Range;

use ipnet::IpNet;

use super::host_template::HostTemplate;
use super::lex::Literal;
use super::regexp::Regexp;
use super::{Facts, RuleError, Syntax, client};
use crate::name::{HostName, HostPattern};

/// One matcher with its argument.
#[derive(Clone, Debug)]
pub(super) enum Matcher {
    Host(HostPattern),
    Regexp(Regexp),
    Client(IpNet),
    Alpn(Box<[u8]>),
}

impl Matcher {
    /// Reads the argument of a matcher; what is legal and cannot match goes to `warnings`.
    ///
    /// A regular expression takes its size from `room`, which starts as [`regexp::ROOM`](super::regexp::ROOM).
    pub(super) fn parse(
        name: Name,
        argument: &Literal,
        syntax: Syntax,
        room: &mut usize,
        warnings: &mut Vec<RuleError>,
    ) -> Result<Self, RuleError> {
        let whole = argument.span(0..argument.bytes.len());
        if argument.bytes.is_empty() {
            // The quotes are all there is to point at.
            let span = whole.start - 1..whole.end + 1;
            return Err(RuleError::new(
                span,
                format!("the argument of {} is empty", name.as_str()),
                name.example(),
            ));
        }
        match name {
            Name::HostSni => host(&text(name, argument)?, whole, syntax, warnings),
            Name::HostSniRegexp => regexp(&text(name, argument)?, argument, syntax, room, warnings),
            Name::ClientIp => client(&text(name, argument)?, whole),
            Name::Alpn => alpn(&argument.bytes, whole, warnings),
        }
    }

    /// What takes every client that names a host, in the place of an argument.
    pub(super) fn any_name(argument: &Literal, room: &mut usize) -> Result<Self, RuleError> {
        regexp(".", argument, Syntax::V3, room, &mut Vec::new())
    }

    /// Whether it holds for these facts.
    pub(super) fn matches(&self, facts: &Facts<'_>) -> bool {
        match self {
            Matcher::Host(pattern) => pattern.matches(facts.name, facts.wildcard),
            Matcher::Regexp(regexp) => regexp.matches(facts.name.map(HostName::as_str)),
            Matcher::Client(net) => client::covers(net, facts.client),
            Matcher::Alpn(protocol) => facts.alpn.iter().any(|offered| **offered == **protocol),
        }
    }
}

/// The argument as text, for the matchers that only take ASCII.
fn text(name: Name, argument: &Literal) -> Result<String, RuleError> {
    let foreign = |byte: &u8| !byte.is_ascii();
    if let Some(start) = argument.bytes.iter().position(foreign) {
        let count = argument
            .bytes
            .iter()
            .skip(start)
            .take_while(|&byte| foreign(byte))
            .count();
        let help = match name {
            Name::HostSni | Name::HostSniRegexp => {
                "write the name as clients send it, in punycode: xn--…"
            }
            _ => name.example(),
        };
        let message = format!("the argument of {} is not ASCII", name.as_str());
        return Err(RuleError::new(
            argument.span(start..start + count),
            message,
            help,
        ));
    }
    Ok(argument
        .bytes
        .iter()
        .map(|&byte| char::from(byte))
        .collect())
}

fn host(
    text: &str,
    span: Range<usize>,
    syntax: Syntax,
    warnings: &mut Vec<RuleError>,
) -> Result<Matcher, RuleError> {
    if let (Syntax::V2, Some(above)) = (syntax, text.strip_prefix("*.")) {
        let message = "rules of syntax v2 have no wildcards";
        let help = format!("write HostSNIRegexp(`{{label}}.{above}`)");
        return Err(RuleError::new(span, message, help));
    }
    let pattern = HostPattern::parse(text).map_err(|error| {
        let help = if text.contains(['{', '[', '(', '^', '$', '+', '|']) {
            "a regular expression goes into HostSNIRegexp(`…`)"
        } else {
            "write a name, as in HostSNI(`ssh.example.com`), or HostSNI(`*.example.com`) for every name one label below"
        };
        RuleError::new(span.clone(), error.to_string(), help)
    })?;
    if let HostPattern::Never(_) = &pattern {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let why = HostName::parse(name)
            .err()
            .map(|error| format!(": {error}"))
            .unwrap_or_default();
        let message = format!("no client can ask for this name{why}");
        warnings.push(RuleError::new(
            span,
            message,
            "write the host name that clients connect to",
        ));
    }
    Ok(Matcher::Host(pattern))
}

fn regexp(
    text: &str,
    argument: &Literal,
    syntax: Syntax,
    room: &mut usize,
    warnings: &mut Vec<RuleError>,
) -> Result<Matcher, RuleError> {
    let template = match syntax {
        Syntax::V2 => Some(HostTemplate::parse(text, argument)?),
        Syntax::V3 => None,
    };
    let place = |fault: super::regexp::Fault| {
        let span = match &template {
            Some(template) => template.span(fault.span),
            None => fault.span,
        };
        RuleError::new(argument.span(span), fault.message, fault.help)
    };
    let pattern = template.as_ref().map_or(text, |template| &template.pattern);
    let (regexp, faults) = Regexp::parse(pattern, room).map_err(place)?;
    warnings.extend(faults.into_iter().map(place));
    Ok(Matcher::Regexp(regexp))
}

fn client(text: &str, span: Range<usize>) -> Result<Matcher, RuleError> {
    let help = Name::ClientIp.example();
    client::network(text)
        .map(Matcher::Client)
        .map_err(|message| RuleError::new(span, message, help))
}

fn alpn(
    protocol: &[u8],
    span: Range<usize>,
    warnings: &mut Vec<RuleError>,
) -> Result<Matcher, RuleError> {
    if protocol == b"acme-tls/1" {
        let message = "no rule may take the probes of a certificate authority (acme-tls/1)";
        return Err(RuleError::new(
            span,
            message,
            "delete it: the gateway answers them itself (RFC 8737)",
        ));
    }
    if protocol.len() > 255 {
        let message = "no client can offer a protocol longer than 255 bytes (RFC 7301 section 3.1)";
        warnings.push(RuleError::new(span, message, Name::Alpn.example()));
    }
    Ok(Matcher::Alpn(protocol.into()))
}

/// Which matcher is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    HostSni,
    HostSniRegexp,
    ClientIp,
    Alpn,
}

impl Name {
    const ALL: [Name; 4] = [
        Name::HostSni,
        Name::HostSniRegexp,
        Name::ClientIp,
        Name::Alpn,
    ];

    /// Reads a name in one of the four casings that Traefik takes; `span` is where it stands.
    pub(super) fn parse(text: &str, span: Range<usize>) -> Result<Self, RuleError> {
        let found = Self::ALL.into_iter().find(|name| {
            let own = name.as_str();
            // `same` makes the text as long as `own`, and ASCII.
            let same = text.eq_ignore_ascii_case(own);
            let rest = text.get(1..).unwrap_or_default();
            let lower = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase());
            let upper = |text: &str| text.bytes().all(|byte| byte.is_ascii_uppercase());
            let title = text.starts_with(char::is_uppercase) && lower(rest);
            same && (text == own || lower(text) || upper(text) || title)
        });
        found.ok_or_else(|| {
            RuleError::new(
                span,
                format!("there is no matcher `{text}`"),
                Self::instead_of(text),
            )
        })
    }

    /// Its usual spelling.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Name::HostSni => "HostSNI",
            Name::HostSniRegexp => "HostSNIRegexp",
            Name::ClientIp => "ClientIP",
            Name::Alpn => "ALPN",
        }
    }

    /// What to write, where its argument is not usable.
    pub(super) fn example(self) -> &'static str {
        match self {
            Name::HostSni => "write a name, as in HostSNI(`ssh.example.com`)",
            Name::HostSniRegexp => {
                r"write a regular expression, as in HostSNIRegexp(`^vm-[0-9]+\.example\.com$`)"
            }
            Name::ClientIp => "write an address or a network, as in ClientIP(`10.0.0.0/8`)",
            Name::Alpn => "write a protocol, as in ALPN(`h2`)",
        }
    }

    /// What the writer of an unknown name may have meant.
    fn instead_of(text: &str) -> String {
        let lower = text.to_lowercase();
        let meant = |name: Name| format!("did you mean `{}`?", name.as_str());
        if let Some(name) = Self::ALL
            .into_iter()
            .find(|name| name.as_str().to_lowercase() == lower)
        {
            return meant(name);
        }
        match lower.as_str() {
            "host" => {
                return "TCP routes have no `Host`: write `HostSNI`, the name in the TLS hello"
                    .to_owned();
            }
            "hostregexp" => {
                return "TCP routes have no `HostRegexp`: write `HostSNIRegexp`".to_owned();
            }
            _ => {}
        }
        if HTTP_ONLY.contains(&lower.as_str()) {
            return format!("`{text}` looks into HTTP, which a TCP route does not see: {KNOWN}");
        }
        let near = |name: &Name| strsim::jaro_winkler(&name.as_str().to_lowercase(), &lower);
        let nearest = Self::ALL
            .into_iter()
            .max_by(|a, b| near(a).total_cmp(&near(b)));
        match nearest.filter(|name| near(name) > 0.8) {
            Some(name) => meant(name),
            None => KNOWN.to_owned(),
        }
    }
}

/// Matchers of Traefik's HTTP rules, v2's among them, in lower case.
const HTTP_ONLY: [&str; 10] = [
    "path",
    "pathprefix",
    "pathregexp",
    "header",
    "headers",
    "headerregexp",
    "headersregexp",
    "method",
    "query",
    "queryregexp",
];

const KNOWN: &str = "the matchers are HostSNI, HostSNIRegexp, ClientIP and ALPN";
