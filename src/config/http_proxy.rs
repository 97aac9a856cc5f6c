//! The proxy on the way out: as it is typed, as the environment says it, and for whom it is not meant.

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use data_encoding::BASE64;
use ipnet::IpNet;
use percent_encoding::percent_decode_str;

use super::{Gateway, Secret};
use crate::rule;

/// The port of a proxy that is named without one: that of its scheme (RFC 9110 §4.2.1).
const DEFAULT_PORT: u16 = 80;

/// A proxy that opens tunnels on request (HTTP's CONNECT, RFC 9110 §9.3.6), spoken to without TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpProxy {
    /// Where it listens.
    pub address: Gateway,
    /// What goes behind `Proxy-Authorization: Basic` (RFC 7617), if it is to be told who asks.
    pub login: Option<Secret>,
}

/// Whether a proxy is used, where that was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyChoice {
    /// None, whatever the environment says.
    Direct,
    /// This one, whatever the environment says.
    Through(HttpProxy),
}

/// Why a text names no proxy. It does not show the text: a password may stand in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; write http://[USER:PASSWORD@]HOST:PORT")]
pub struct HttpProxyError(String);

impl HttpProxyError {
    /// Without what to write instead.
    pub fn why(&self) -> &str {
        &self.0
    }
}

/// A variable of the environment that names no proxy that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} in the environment: {error}")]
pub struct UnusableProxy {
    /// Which.
    pub variable: &'static str,
    /// Why.
    pub error: HttpProxyError,
}

impl FromStr for HttpProxy {
    type Err = HttpProxyError;

    fn from_str(text: &str) -> Result<Self, HttpProxyError> {
        let wrong = |why: &str| HttpProxyError(why.to_owned());
        let rest = match text.split_once("://") {
            None => text,
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => {
                return Err(wrong("a proxy that is spoken to over TLS is not supported"));
            }
            Some((scheme, _)) if scheme.to_ascii_lowercase().starts_with("socks") => {
                return Err(wrong("a SOCKS proxy is not supported"));
            }
            Some(_) => return Err(wrong("a proxy of this scheme is not supported")),
        };
        // A password may hold an `@`; a host cannot.
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (Some(login), rest),
            None => (None, rest),
        };
        let address = rest.strip_suffix('/').unwrap_or(rest);
        if address.contains(['/', '?', '#']) {
            return Err(wrong("a proxy's address has no path"));
        }
        let address =
            Gateway::parse(address, DEFAULT_PORT).map_err(|_| wrong("this is no host and port"))?;
        let login = login
            .map(|login| basic(login).ok_or_else(|| wrong("user and password are not usable")));
        Ok(Self {
            address,
            login: login.transpose()?,
        })
    }
}

/// Without the password.
impl fmt::Display for HttpProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.address)
    }
}

/// `none`, or a proxy.
impl FromStr for ProxyChoice {
    type Err = HttpProxyError;

    fn from_str(text: &str) -> Result<Self, HttpProxyError> {
        match text {
            "none" => Ok(Self::Direct),
            text => Ok(Self::Through(text.parse()?)),
        }
    }
}

/// User and password as RFC 7617 §2 puts them: no colon in the one, no control character in either.
fn basic(login: &str) -> Option<Secret> {
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let decoded = |text: &str| -> Option<String> {
        let text = percent_decode_str(text).decode_utf8().ok()?;
        (!text.chars().any(char::is_control)).then(|| text.into_owned())
    };
    let (user, password) = (decoded(user)?, decoded(password)?);
    let is_usable = !user.is_empty() && !user.contains(':');
    is_usable.then(|| Secret::new(BASE64.encode(format!("{user}:{password}").as_bytes())))
}

/// The proxy that the environment has for this gateway: `HTTPS_PROXY` or `ALL_PROXY`, also in lower case, unless the
/// gateway is one of `NO_PROXY` or on this machine.
///
/// # Errors
/// A variable names a proxy that cannot be used; nothing is dialled past it in silence.
pub fn proxy_from(
    variable: impl Fn(&str) -> Option<OsString>,
    gateway: &Gateway,
) -> Result<Option<HttpProxy>, UnusableProxy> {
    let read = |name: &'static str| {
        let value = variable(name).filter(|value| !value.is_empty())?;
        Some((name, value.to_string_lossy().into_owned()))
    };
    let no_proxy = read("NO_PROXY").or_else(|| read("no_proxy"));
    let is_exempt = no_proxy.is_some_and(|(_, list)| exempts(&list, gateway));
    if is_exempt || is_of_this_machine(&gateway.host) {
        return Ok(None);
    }
    let names = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let Some((variable, value)) = names.into_iter().find_map(read) else {
        return Ok(None);
    };
    match value.parse() {
        Ok(proxy) => Ok(Some(proxy)),
        Err(error) => Err(UnusableProxy { variable, error }),
    }
}

fn is_of_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Whether a list exempts the gateway: `*`, names with all below them, addresses and networks, any of the first three with
/// a port.
fn exempts(list: &str, gateway: &Gateway) -> bool {
    let mut entries = list
        .split([',', ' ', '\t'])
        .filter(|entry| !entry.is_empty());
    entries.any(|entry| is_meant(entry, gateway))
}

fn is_meant(entry: &str, gateway: &Gateway) -> bool {
    let address: Option<IpAddr> = gateway.host.parse().ok();
    if let Ok(network) = entry.parse::<IpNet>() {
        return address.is_some_and(|address| rule::covers(&network, address));
    }
    if entry == "*" {
        return true;
    }
    // What is written with a leading dot or `*.` in other programs means the name itself here, too, as for curl.
    let entry = entry.trim_start_matches('*').trim_start_matches('.');
    let Ok(meant) = Gateway::parse(entry, gateway.port) else {
        return false;
    };
    if meant.port != gateway.port {
        return false;
    }
    match (meant.host.parse::<IpAddr>(), address) {
        (Ok(meant), Some(address)) => meant == address,
        (Err(_), None) => is_below(&gateway.host, &meant.host),
        _ => false,
    }
}

/// Whether a name is this one or lies below it, in any case and with or without a trailing dot.
fn is_below(name: &str, ancestor: &str) -> bool {
    let plain = |name: &str| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let (name, ancestor) = (plain(name), plain(ancestor));
    let before = name.strip_suffix(&ancestor);
    before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn gateway(text: &str) -> Gateway {
        text.parse().unwrap()
    }

    #[test]
    fn a_proxy_is_a_host_and_port_with_or_without_a_login() {
        let proxy: HttpProxy = "http://proxy.example.com:3128/".parse().unwrap();
        assert_eq!(
            (proxy.address.to_string().as_str(), &proxy.login),
            ("proxy.example.com:3128", &None)
        );
        assert_eq!(
            "PROXY:3128".parse::<HttpProxy>().unwrap().address.port,
            3128
        );
        assert_eq!(
            "http://[::1]".parse::<HttpProxy>().unwrap().address.port,
            80
        );
        let proxy: HttpProxy = "HTTP://me:p%40s%3as@w@proxy:1".parse().unwrap();
        let login = proxy.login.clone().unwrap();
        assert_eq!(
            BASE64.decode(login.reveal().as_bytes()).unwrap(),
            b"me:p@s:s@w"
        );
        assert_eq!(proxy.to_string(), "http://proxy:1");
        assert!(!format!("{proxy:?}").contains(login.reveal()));
        assert_eq!("none".parse(), Ok(ProxyChoice::Direct));
    }

    #[test]
    fn what_is_no_usable_proxy_is_refused_without_its_password() {
        for (text, says) in [
            ("https://me:secret@proxy:1", "over TLS"),
            ("socks5h://me:secret@proxy:1", "SOCKS"),
            ("ftp://me:secret@proxy:1", "scheme"),
            ("http://me:secret@proxy:1/path", "path"),
            ("http://me:secret@pro xy:1", "no host and port"),
            ("http://me:secret@proxy:0", "no host and port"),
            ("http://me%0a:secret@proxy:1", "user and password"),
            ("http://:secret@proxy:1", "user and password"),
            ("", "no host and port"),
        ] {
            let error = text.parse::<ProxyChoice>().unwrap_err().to_string();
            assert!(
                error.contains(says) && error.contains("; write http://"),
                "{text}: {error}"
            );
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn the_environment_says_which_proxy_and_for_whom_it_is_not() {
        let gate = gateway("gate.example.com:8443");
        let from = |variables: &[(&str, &str)], gateway: &Gateway| {
            let read = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| OsString::from(value))
            };
            proxy_from(read, gateway).map(|proxy| proxy.map(|proxy| proxy.address.host))
        };
        let named = |host: &str| Ok(Some(host.to_owned()));
        assert_eq!(from(&[], &gate), Ok(None));
        assert_eq!(
            from(
                &[("HTTPS_PROXY", "http://a:1"), ("https_proxy", "http://b:1")],
                &gate
            ),
            named("a")
        );
        assert_eq!(
            from(&[("HTTPS_PROXY", ""), ("https_proxy", "b:1")], &gate),
            named("b")
        );
        assert_eq!(from(&[("all_proxy", "http://c:1")], &gate), named("c"));
        assert_eq!(from(&[("HTTP_PROXY", "http://d:1")], &gate), Ok(None));
        let error = from(&[("ALL_PROXY", "socks5://me:secret@e:1")], &gate).unwrap_err();
        let told = error.to_string();
        assert!(
            told.starts_with("ALL_PROXY in the environment: a SOCKS proxy"),
            "{told}"
        );

        let with = |exempt: &str, to: &str| {
            let variables = [("HTTPS_PROXY", "http://a:1"), ("no_proxy", exempt)];
            from(&variables, &gateway(to)).unwrap().is_none()
        };
        for (list, to) in [
            ("*", "gate.example.com"),
            ("a.test, Example.COM", "gate.example.com"),
            (".example.com", "gate.example.com."),
            ("*.example.com b.test", "gate.example.com"),
            ("gate.example.com:8443", "gate.example.com"),
            ("10.0.0.0/8", "10.1.2.3"),
            ("10.1.2.3", "10.1.2.3"),
            ("[2001:db8::1]", "[2001:db8::1]:443"),
            ("2001:db8::/32", "[2001:db8::1]:443"),
            ("", "localhost"),
            ("", "127.0.0.1:443"),
            ("", "[::1]:443"),
        ] {
            assert!(with(list, to), "{list}: {to}");
        }
        for (list, to) in [
            ("ample.com", "gate.example.com"),
            ("gate.example.com:443", "gate.example.com"),
            ("10.0.0.0/8", "gate.example.com"),
            ("10.0.0.0/8", "11.1.2.3"),
            ("gate.example.com.evil.test", "gate.example.com"),
            (",, ,", "gate.example.com"),
        ] {
            assert!(!with(list, to), "{list}: {to}");
        }
    }
}
