//! A person's own file: by which gateway which names are reached, and whom to trust there.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use super::decode::{Item, Table, Typed};
use super::diagnostic::Findings;
use super::value::{Wrong, duration, read};
use super::{Diagnostic, Diagnostics, Gateway, Level, ProxyChoice, syntax};
use crate::name::{HostName, HostPattern, WildcardDepth};
use crate::tls::files::shell_word;
use crate::tls::passphrase::Given;
use crate::tls::pin::Pin;
use crate::watch::Files;

/// The largest file that is read.
///
/// 1 MiB: thousands of domains, and no disk image named by mistake.
const LARGEST: u64 = 1024 * 1024;

/// How long a person waits at most for a connection.
pub(crate) const LONGEST_TIMEOUT: Duration = Duration::from_secs(3600);

/// What stands in `client.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFile {
    /// The domains, in the order of their names.
    pub domains: Vec<Domain>,
}

/// How the names of one domain are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// The names. A `*` stands for one label or more, as in ssh's own configuration.
    pub pattern: HostPattern,
    /// By which gateway.
    pub gateway: Gateway,
    /// PEM files with the CAs to trust, absolute or relative to this process; empty where none is written.
    pub ca: Vec<PathBuf>,
    /// The keys that the gateway may have; empty where none is written.
    pub pins: Vec<Pin>,
    /// PEM files with the certificate to show: chain and key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The name to ask for and to have proven, in place of the target's.
    pub server_name: Option<HostName>,
    /// The protocols to offer (RFC 7301); empty where none is written.
    pub alpn: Vec<Vec<u8>>,
    /// Whether a proxy is used; `None` is what the environment says.
    pub proxy: Option<ProxyChoice>,
    /// Nothing is verified.
    pub insecure: bool,
    /// For name, TCP and TLS together.
    pub timeout: Option<Duration>,
}

impl ClientFile {
    /// The domain that a name belongs to: an exact one before a wildcard, the longest wildcard, `*` at last.
    pub fn find(&self, name: &HostName) -> Option<&Domain> {
        let fits = |domain: &&Domain| domain.pattern.matches(Some(name), WildcardDepth::Many);
        let fitting = self.domains.iter().filter(fits);
        fitting.max_by_key(|domain| match &domain.pattern {
            HostPattern::Exact(_) => usize::MAX,
            HostPattern::Wildcard(above) => above.as_str().len(),
            HostPattern::Any | HostPattern::Never(_) => 0,
        })
    }
}

/// Reads and checks a person's file; relative paths in it start at its folder, and `~/` at `home`.
///
/// # Errors
/// Every mistake in it; or that it is not this user's alone to write, as it says whom to trust.
pub fn load_client(path: &Path, home: Option<&Path>) -> Result<ClientFile, Diagnostics> {
    let whole = |(message, help): (String, String)| Diagnostics {
        path: path.to_owned(),
        text: String::new(),
        list: vec![Diagnostic {
            level: Level::Error,
            span: None,
            message,
            help: Some(help),
        }],
        files: Files::default(),
        may_pass: false,
    };
    let bytes = read_own(path).map_err(whole)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| whole(("it is not UTF-8 text".into(), "save it as UTF-8".into())))?;
    parse_client(&text, path, home)
}

/// Checks a text as if it stood in `path`, which need not exist.
pub fn parse_client(
    text: &str,
    path: &Path,
    home: Option<&Path>,
) -> Result<ClientFile, Diagnostics> {
    let mut findings = Findings::new(text, Files::default(), Given::default());
    let (tree, errors) = DeTable::parse_recoverable(text);
    syntax::report(&errors, &mut findings);
    let places = Places {
        folder: path.parent().unwrap_or(Path::new("")),
        home,
    };
    let mut root = Table::root(tree.get_ref());
    let domains = root.take("domains", &mut findings, Item::table);
    root.finish(&mut findings);
    let mut file = ClientFile::default();
    let mut patterns = HashSet::new();
    for (name, item) in domains.map(Table::into_named).unwrap_or_default() {
        let pattern = read(&name, &mut findings, |text| pattern(text));
        let domain = item.table(&mut findings);
        let domain = domain.map(|table| Section::read(table, &mut findings));
        let (Some(pattern), Some(section)) = (pattern, domain) else {
            continue;
        };
        if !patterns.insert(pattern.clone()) {
            findings.error(
                name.span.clone(),
                format!(
                    "`{}` is written twice, in another case or with a dot at its end",
                    name.key
                ),
                "keep one of the two",
            );
        }
        file.domains
            .extend(section.mean(pattern, places, &mut findings));
    }
    let is_broken = findings.has_errors();
    let diagnostics = findings.finish(path.to_owned());
    if is_broken {
        Err(diagnostics)
    } else {
        Ok(file)
    }
}

/// Reads a regular file that nobody else can write; what is wrong with it otherwise, and what to do.
fn read_own(path: &Path) -> Result<Vec<u8>, (String, String)> {
    let unreadable = |error: io::Error| {
        (
            format!("it cannot be read: {error}"),
            "give the path of a TOML file that you may read".to_owned(),
        )
    };
    // Asked before opening: opening a FIFO would wait for its writer.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(unreadable(io::Error::other("it is no regular file")));
    }
    let file = File::open(path).map_err(unreadable)?;
    is_own(&file.metadata().map_err(unreadable)?, path)?;
    let mut bytes = Vec::new();
    let mut bounded = file.take(LARGEST + 1);
    bounded.read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST {
        return Err(unreadable(io::Error::other("it is larger than 1 MiB")));
    }
    Ok(bytes)
}

/// As ssh asks it of its own configuration.
#[cfg(unix)]
fn is_own(metadata: &std::fs::Metadata, path: &Path) -> Result<(), (String, String)> {
    use std::os::unix::fs::MetadataExt;
    let shown = shell_word(path);
    let owner = metadata.uid();
    let own = rustix::process::geteuid().as_raw();
    if owner != 0 && owner != own {
        return Err((
            format!("it belongs to another user ({owner}), and says whom to trust"),
            format!("take it over: chown {own} {shown}"),
        ));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err((
            "others may write it, and it says whom to trust".to_owned(),
            format!("keep it to yourself: chmod go-w {shown}"),
        ));
    }
    Ok(())
}

#[cfg(not(unix))]
fn is_own(_: &std::fs::Metadata, _: &Path) -> Result<(), (String, String)> {
    Ok(())
}

fn pattern(text: &str) -> Result<HostPattern, Wrong> {
    let help = "write a name, `*.` and a domain, or `*`, in quotes: [domains.\"*.vm.example.com\"]";
    let pattern = HostPattern::parse(text);
    match pattern.map_err(|error| Wrong::new(error.to_string(), help))? {
        HostPattern::Never(text) => Err(Wrong::new(format!("{text:?} is no host name"), help)),
        pattern => Ok(pattern),
    }
}

/// A protocol that a person's client may offer (RFC 7301 §3.1): 1 to 255 bytes, and none of ours.
///
/// # Errors
/// What is wrong with it.
pub fn protocol(text: &str) -> Result<Vec<u8>, String> {
    match text {
        "portcullis/1" => {
            Err("portcullis/1 is offered by itself where no other protocol is asked for".into())
        }
        text if (1..=255).contains(&text.len()) => Ok(text.as_bytes().to_vec()),
        text => Err(format!(
            "a protocol name of {} bytes; write 1 to 255, such as h2",
            text.len()
        )),
    }
}

/// Where paths start.
#[derive(Clone, Copy)]
struct Places<'a> {
    folder: &'a Path,
    home: Option<&'a Path>,
}

impl Places<'_> {
    fn path(&self, typed: &Typed<String>, findings: &mut Findings<'_>) -> Option<PathBuf> {
        read(typed, findings, |text| {
            let wrong = |what: &str, help: &str| Err(Wrong::new(format!("the path {what}"), help));
            match (text.strip_prefix("~/"), self.home) {
                _ if text.is_empty() => wrong("is empty", "name a file, or leave the key out"),
                _ if text.contains('\0') => wrong("holds a NUL byte", "name a file"),
                (Some(below), Some(home)) => Ok(home.join(below)),
                (Some(_), None) => wrong(
                    "begins with `~/`, and this user has no home directory",
                    "set HOME, or write a path from the root",
                ),
                (None, _) => Ok(self.folder.join(text)),
            }
        })
    }

    fn paths(&self, typed: Vec<Typed<String>>, findings: &mut Findings<'_>) -> Vec<PathBuf> {
        let paths = typed.iter().filter_map(|typed| self.path(typed, findings));
        paths.collect()
    }
}

/// `[domains."PATTERN"]`
struct Section {
    gateway: Option<Typed<String>>,
    ca: Vec<Typed<String>>,
    pin: Vec<Typed<String>>,
    certificate: Option<(Typed<String>, Typed<String>)>,
    server_name: Option<Typed<String>>,
    alpn: Vec<Typed<String>>,
    proxy: Option<Typed<String>>,
    insecure: Option<Typed<bool>>,
    timeout: Option<Typed<String>>,
}

impl Section {
    fn read(mut table: Table<'_>, findings: &mut Findings<'_>) -> Self {
        let has_certificate = table.place("cert").is_some() || table.place("key").is_some();
        let (mut ca, mut pin, mut alpn) = (Vec::new(), Vec::new(), Vec::new());
        for (key, list) in [("ca", &mut ca), ("pin", &mut pin), ("alpn", &mut alpn)] {
            let Some(typed) = table.take(key, findings, Item::strings) else {
                continue;
            };
            if typed.is_empty {
                findings.error(
                    typed.span,
                    format!("`{}` is an empty list", typed.key),
                    "write something in it, or leave the key out",
                );
            }
            *list = typed.value;
        }
        let section = Self {
            gateway: table.require(
                "gateway",
                "\"gate.example.com:8443\"",
                findings,
                Item::string,
            ),
            ca,
            pin,
            certificate: if has_certificate {
                let cert = table.require("cert", "\"me.pem\"", findings, Item::string);
                let key = table.require("key", "\"me.key\"", findings, Item::string);
                cert.zip(key)
            } else {
                table.take("cert", findings, Item::string);
                table.take("key", findings, Item::string);
                None
            },
            server_name: table.take("server_name", findings, Item::string),
            alpn,
            proxy: table.take("proxy", findings, |item, findings| {
                // A password may stand in it.
                let typed = item.secret(findings)?;
                Some(Typed {
                    value: typed.value.reveal().to_owned(),
                    key: typed.key,
                    span: typed.span,
                })
            }),
            insecure: table.take("insecure", findings, Item::boolean),
            timeout: table.take("timeout", findings, |item, findings| {
                item.quantity("s", findings)
            }),
        };
        if let Some(switch) = section.insecure.as_ref().filter(|switch| switch.value)
            && !(section.ca.is_empty() && section.pin.is_empty())
        {
            findings.error(
                switch.span.clone(),
                format!(
                    "`{}` is true, and beside it stands whom to trust",
                    switch.key
                ),
                "remove `insecure`; or `ca` and `pin`, if nothing is to be verified",
            );
        }
        table.finish(findings);
        section
    }

    fn mean(
        self,
        pattern: HostPattern,
        places: Places<'_>,
        findings: &mut Findings<'_>,
    ) -> Option<Domain> {
        let said = |error: String| Wrong::new(error, "write it so, or leave the key out");
        let gateway = self.gateway.and_then(|typed| {
            read(&typed, findings, |text| {
                let help = "write HOST, HOST:PORT or [IPV6]:PORT";
                text.parse()
                    .map_err(|error: super::GatewayError| Wrong::new(error.why(), help))
            })
        });
        let certificate = self.certificate.and_then(|(cert, key)| {
            places
                .path(&cert, findings)
                .zip(places.path(&key, findings))
        });
        let mut each = |list: Vec<Typed<String>>| places.paths(list, findings);
        let ca = each(self.ca);
        let pins = self.pin.iter().filter_map(|typed| {
            read(typed, findings, |text| {
                let help = "`portcullis connect` shows the key that a gateway has when it is not a pinned one";
                text.parse().map_err(|error: crate::tls::pin::PinError| Wrong::new(error.to_string(), help))
            })
        });
        let pins = pins.collect();
        let alpn = self.alpn.iter();
        let alpn =
            alpn.filter_map(|typed| read(typed, findings, |text| protocol(text).map_err(said)));
        let alpn = alpn.collect();
        let server_name = self.server_name.and_then(|typed| {
            read(&typed, findings, |text| {
                HostName::parse(text).map_err(|error| {
                    Wrong::new(
                        error.to_string(),
                        "write the name in the gateway's certificate",
                    )
                })
            })
        });
        let proxy = self.proxy.and_then(|typed| {
            read(&typed, findings, |text| {
                text.parse().map_err(|error: super::HttpProxyError| {
                    Wrong::new(
                        error.why(),
                        "write \"http://[USER:PASSWORD@]HOST:PORT\", or \"none\"",
                    )
                })
            })
        });
        let timeout = self.timeout.and_then(|typed| {
            let bounds = Duration::from_millis(1)..=LONGEST_TIMEOUT;
            read(&typed, findings, |text| duration(text, bounds))
        });
        Some(Domain {
            pattern,
            gateway: gateway?,
            ca,
            pins,
            certificate,
            server_name,
            alpn,
            proxy,
            insecure: self.insecure.is_some_and(|switch| switch.value),
            timeout,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
