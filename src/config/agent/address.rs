//! The address of an agent, in every form that Consul's and Nomad's own clients take.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::Program;
use crate::config::ConsulAddress;
use crate::config::listen::LONGEST_SOCKET_PATH;
use crate::config::value::Wrong;
use crate::name::HostName;

/// What an address says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) address: ConsulAddress,
    /// Whether it asks for TLS; `None` if it does not say.
    pub(super) https: Option<bool>,
    /// Empty, or `/prefix`.
    pub(super) prefix: String,
}

impl Parsed {
    /// An agent of this machine.
    pub(super) fn local(port: u16) -> Self {
        Self {
            address: ConsulAddress::Tcp("127.0.0.1".to_owned(), port),
            https: None,
            prefix: String::new(),
        }
    }

    pub(super) fn socket(path: PathBuf) -> Self {
        Self {
            address: ConsulAddress::Unix(path),
            https: None,
            prefix: String::new(),
        }
    }
}

/// Reads `HOST:PORT`, `http://HOST[:PORT][/PREFIX]`, the same with `https`, or `unix:///PATH`. A message shows nothing of
/// an address in which there may be a password.
pub(super) fn parse(text: &str, program: &Program) -> Result<Parsed, Wrong> {
    if text.contains('@') && !text.starts_with("unix:") {
        return Err(Wrong::new(
            "an address with a user or password in it",
            format!(
                "leave them out of the address; {}=USER:PASSWORD in the environment gives them",
                program.auth
            ),
        ));
    }
    let (https, rest) = match text.split_once("://") {
        Some(("unix", path)) => return unix(path, program),
        Some(("http", rest)) => (Some(false), rest),
        Some(("https", rest)) => (Some(true), rest),
        Some(_) => return Err(wrong(text, program.address_help)),
        None => (None, text),
    };
    let (authority, prefix) = match rest.split_once('/') {
        Some(_) if https.is_none() => {
            let help = "write http:// or https:// before an address with a path";
            return Err(wrong(text, help));
        }
        Some((authority, path)) => (authority, path.trim_end_matches('/')),
        None => (rest, ""),
    };
    // What a path may hold (RFC 3986 §3.3), and `%`.
    let in_path = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&b);
    if !prefix.bytes().all(in_path) {
        return Err(wrong(
            text,
            "a path before the API is plain text without `?`, `#` or blanks",
        ));
    }
    let (host, port) =
        host_and_port(authority, https, program).map_err(|help| wrong(text, &help))?;
    Ok(Parsed {
        address: ConsulAddress::Tcp(host, port),
        https,
        prefix: match prefix {
            "" => String::new(),
            prefix => format!("/{prefix}"),
        },
    })
}

fn wrong(text: &str, help: &str) -> Wrong {
    Wrong::new(format!("{text:?} is not the address of an agent"), help)
}

fn unix(path: &str, program: &Program) -> Result<Parsed, Wrong> {
    let text = format!("unix://{path}");
    if !path.starts_with('/') || path.contains('\0') {
        let help = format!(
            "write a path from the root after unix://, as in \"unix:///run/{}.sock\"",
            program.section
        );
        return Err(wrong(&text, &help));
    }
    if path.len() > LONGEST_SOCKET_PATH {
        let length = path.len();
        return Err(Wrong::new(
            format!(
                "the socket's path has {length} bytes, more than the {LONGEST_SOCKET_PATH} that the system allows"
            ),
            "have the agent listen on a shorter one",
        ));
    }
    Ok(Parsed::socket(PathBuf::from(path)))
}

/// The host and the port; that of the scheme, as in any URL, if there is a scheme and no port. Otherwise what to write.
fn host_and_port(
    authority: &str,
    https: Option<bool>,
    program: &Program,
) -> Result<(String, u16), String> {
    let usual = program.port;
    if let Ok(address) = authority.parse::<SocketAddr>() {
        return match address.port() {
            0 => Err(format!("port 0 cannot be dialled; an agent's is {usual}")),
            port => Ok((address.ip().to_string(), port)),
        };
    }
    if let Ok(port) = authority.parse::<u16>() {
        return Err(format!("write the host too, as in \"127.0.0.1:{port}\""));
    }
    if let Ok(ip @ IpAddr::V6(_)) = authority.parse() {
        return Err(format!("write \"[{ip}]:{usual}\""));
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !authority.ends_with(']') => {
            // Rust reads a sign too.
            let digits = port.bytes().all(|b| b.is_ascii_digit());
            let port = port.parse().ok().filter(|port: &u16| digits && *port > 0);
            (host, port.ok_or(program.address_help)?)
        }
        _ => match https {
            Some(true) => (authority, 443),
            Some(false) => (authority, 80),
            None => {
                return Err(format!(
                    "add the port, as in \"{}:{usual}\"",
                    authority.escape_debug()
                ));
            }
        },
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let ip = match bare {
        Some(bare) => bare.parse().ok().filter(IpAddr::is_ipv6),
        None => host.parse().ok().filter(IpAddr::is_ipv4),
    };
    match ip {
        Some(ip) => Ok((ip.to_string(), port)),
        None => HostName::parse(host)
            .map(|name| (name.as_str().to_owned(), port))
            .map_err(|error| {
                format!(
                    "{}; {host:?} is no host name: {error}",
                    program.address_help
                )
            }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::consul::CONSUL;

    fn tcp(host: &str, port: u16, https: Option<bool>, prefix: &str) -> Parsed {
        Parsed {
            address: ConsulAddress::Tcp(host.to_owned(), port),
            https,
            prefix: prefix.to_owned(),
        }
    }

    #[test]
    fn every_form_that_consuls_clients_take_is_read() {
        for (text, parsed) in [
            ("127.0.0.1:8500", tcp("127.0.0.1", 8500, None, "")),
            (
                "Consul.internal:8500",
                tcp("consul.internal", 8500, None, ""),
            ),
            ("[::1]:8500", tcp("::1", 8500, None, "")),
            ("http://localhost:1", tcp("localhost", 1, Some(false), "")),
            (
                "https://[2001:db8::1]:8501",
                tcp("2001:db8::1", 8501, Some(true), ""),
            ),
            ("http://consul", tcp("consul", 80, Some(false), "")),
            ("https://consul/", tcp("consul", 443, Some(true), "")),
            ("https://[::1]", tcp("::1", 443, Some(true), "")),
            ("https://10.0.0.1", tcp("10.0.0.1", 443, Some(true), "")),
            ("https://a.b:1/x/y/", tcp("a.b", 1, Some(true), "/x/y")),
        ] {
            assert_eq!(parse(text, &CONSUL).unwrap(), parsed, "{text}");
        }
        let unix = parse("unix:///run/consul@1.sock", &CONSUL).unwrap();
        let path = PathBuf::from("/run/consul@1.sock");
        assert_eq!(unix.address, ConsulAddress::Unix(path));
        assert_eq!(unix.https, None);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "8500",
            ":8500",
            "localhost",
            "::1",
            "[::1]",
            "127.0.0.1:0",
            "a:99999",
            "a:-1",
            "a:+1",
            "a b:1",
            "tcp://a:1",
            "http://",
            "http:///v1",
            "https://[::1",
            "https://[10.0.0.1]:1",
            "https://a:1/x?y",
            "https://a:1/x y",
            "a:1/x",
            "unix://run/consul.sock",
            "unix://",
            "unix:///a\0b",
            "https://user:pass@a:1",
        ] {
            assert!(parse(text, &CONSUL).is_err(), "{text}");
        }
        let long = format!("unix:///{}", "a".repeat(107));
        assert!(parse(&long, &CONSUL).is_err());
    }
}
