//! The way to a target: what is typed, what the environment says, and what stands in the person's own file.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::connect::Connect;
use crate::config::{
    ClientFile, Diagnostics, Domain, Gateway, GatewayError, ProxyChoice, UnusableProxy,
    load_client, proxy_from,
};
use crate::name::HostName;
use crate::tls::client::Trust;
use crate::tls::key::KeyFile;
use crate::tls::passphrase::Source;
use crate::tls::pin::Pin;

/// For name, TCP and TLS together where nothing else is said.
///
/// 10 s: three SYNs go out in 7 s, and a person waits no longer without a word.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// The variable that names the gateway where no flag does.
const VARIABLE: &str = "PORTCULLIS_GATEWAY";

/// What was typed. It outranks the file, key by key; and of another gateway than the file's the file does not say whom to trust.
#[derive(Clone, Debug, Default)]
pub struct Typed {
    /// The gateway.
    pub gateway: Option<Gateway>,
    /// The file, in place of the usual one. It must be there.
    pub file: Option<PathBuf>,
    /// PEM files with CAs.
    pub ca: Vec<PathBuf>,
    /// The keys that the gateway may have.
    pub pins: Vec<Pin>,
    /// Nothing is verified.
    pub insecure: bool,
    /// Chain and key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// What opens a key that is encrypted, wherever it is named.
    pub passphrase: Source,
    /// The name to ask for and to have proven.
    pub server_name: Option<HostName>,
    /// The protocols to offer.
    pub alpn: Vec<Vec<u8>>,
    /// Whether a proxy is used.
    pub proxy: Option<ProxyChoice>,
    /// For name, TCP and TLS together.
    pub timeout: Option<Duration>,
}

/// Why no way is known. Nothing was tried.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// The person's file is wrong, or not to be trusted.
    #[error("{}", _0.first().0)]
    File(Diagnostics),
    /// The place where it usually is may not be looked into.
    #[error("{}: {error}", path.display())]
    NoAccess {
        /// The usual place.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// What the environment names as the gateway is none.
    #[error("{VARIABLE}: {}", _0.why())]
    Gateway(GatewayError),
    /// Nobody has said by which gateway.
    #[error("no gateway is named for {target}")]
    NoGateway {
        /// Whom to reach.
        target: HostName,
        /// The file that could say so; `None` if there is no place for one.
        file: Option<PathBuf>,
    },
    /// The environment names a proxy that cannot be used.
    #[error("{0}")]
    Proxy(UnusableProxy),
}

impl Lost {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::File(mistakes) => match mistakes.first().1 {
                help if help.is_empty() => "mend the file; nothing was tried".to_owned(),
                help => help,
            },
            Self::NoAccess { .. } => {
                "is HOME (or XDG_CONFIG_HOME) this user's own? set it, or name a file: --client-config FILE".to_owned()
            }
            Self::Gateway(_) => format!("write {VARIABLE} as HOST or HOST:PORT, or unset it"),
            Self::NoGateway { target, file } => {
                let file = match file {
                    Some(file) => format!("{} under [domains.\"{target}\"]", file.display()),
                    None => "client.toml (set HOME for it)".to_owned(),
                };
                format!("name it by --gateway HOST:PORT, {VARIABLE}, or in {file}")
            }
            Self::Proxy(_) => "mend the variable, or go without: --proxy none".to_owned(),
        }
    }
}

/// What says how a target is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The person's file, if one was read.
    pub file: Option<PathBuf>,
    /// The domain in it that the target belongs to, as it is written there.
    pub domain: Option<String>,
    /// Whether the gateway was typed, or stands in the environment.
    pub is_typed: bool,
    /// Whether it is another one than the domain's.
    pub is_another: bool,
}

/// The gateway that the environment names; an empty variable names none.
pub fn gateway(variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<Gateway>, Lost> {
    let named = variable(VARIABLE).filter(|value| !value.is_empty());
    let named = named.map(|value| value.to_string_lossy().parse());
    named.transpose().map_err(Lost::Gateway)
}

/// Finds out how to connect to a target. `variable` reads the environment.
pub fn find(
    typed: Typed,
    target: HostName,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Connect, Lost> {
    find_with_origin(typed, target, variable).map(|(connect, _)| connect)
}

/// The same, and what says so.
pub fn find_with_origin(
    typed: Typed,
    target: HostName,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<(Connect, Origin), Lost> {
    let said = match typed.gateway.clone() {
        None => gateway(&variable)?,
        typed => typed,
    };
    let home = directory(&variable, "HOME");
    let usual = usual_file(&variable, home.as_deref());
    let path = file_to_read(typed.file.as_deref(), usual.as_deref())?;
    let file = match path {
        Some(path) => load_client(path, home.as_deref()).map_err(Lost::File)?,
        None => ClientFile::default(),
    };
    let domain = file.find(&target);
    let is_said = said.is_some();
    let Some(gateway) = said.or(domain.map(|domain| domain.gateway.clone())) else {
        return Err(Lost::NoGateway {
            target,
            file: typed.file.or(usual),
        });
    };
    // Whom to trust, and whom to be there, was written for one gateway: of another one it says nothing.
    let its_own = domain.filter(|domain| domain.gateway.is(&gateway));
    let origin = Origin {
        file: path.map(Path::to_owned),
        domain: domain.map(|domain| domain.pattern.to_string()),
        is_typed: is_said,
        is_another: its_own.is_none() && domain.is_some(),
    };
    let choice = typed
        .proxy
        .clone()
        .or(domain.and_then(|domain| domain.proxy.clone()));
    let proxy = match choice {
        Some(ProxyChoice::Direct) => None,
        Some(ProxyChoice::Through(proxy)) => Some(proxy),
        None => proxy_from(&variable, &gateway).map_err(Lost::Proxy)?,
    };
    let timeout = typed.timeout.or(domain.and_then(|domain| domain.timeout));
    let server_name = typed.server_name.clone();
    let certificate = typed.certificate.clone();
    let certificate = certificate.or(its_own.and_then(|domain| domain.certificate.clone()));
    let with_passphrase = |path| KeyFile {
        path,
        passphrase: typed.passphrase.clone(),
    };
    let connect = Connect {
        gateway,
        target,
        server_name: server_name.or(its_own.and_then(|domain| domain.server_name.clone())),
        trust: trust(&typed, its_own),
        certificate: certificate.map(|(chain, key)| (chain, with_passphrase(key))),
        proxy,
        alpn: or(typed.alpn, domain.map(|domain| &domain.alpn)),
        timeout: timeout.unwrap_or(TIMEOUT),
        witness: Arc::default(),
    };
    Ok((connect, origin))
}

/// Whoever types whom to trust wants that verified, and whoever types that nothing is gets it: of the file that leaves
/// nothing weaker than was asked for.
fn trust(typed: &Typed, domain: Option<&Domain>) -> Trust {
    let says_whom = !(typed.ca.is_empty() && typed.pins.is_empty());
    let insecure = domain.is_some_and(|domain| domain.insecure);
    if typed.insecure || insecure && !says_whom {
        return Trust {
            insecure: true,
            ..Trust::default()
        };
    }
    Trust {
        roots: or(typed.ca.clone(), domain.map(|domain| &domain.ca)),
        pins: or(typed.pins.clone(), domain.map(|domain| &domain.pins)),
        insecure: false,
    }
}

/// A list that was typed, or the file's.
fn or<T: Clone>(typed: Vec<T>, file: Option<&Vec<T>>) -> Vec<T> {
    match file {
        Some(file) if typed.is_empty() => file.clone(),
        _ => typed,
    }
}

/// The file that is named, or the usual one where there is one: most people have none, and many services no home.
fn file_to_read<'a>(
    named: Option<&'a Path>,
    usual: Option<&'a Path>,
) -> Result<Option<&'a Path>, Lost> {
    let Some(path) = usual.filter(|_| named.is_none()) else {
        return Ok(named);
    };
    match path.try_exists() {
        Ok(false) => Ok(None),
        Err(error) if error.kind() == ErrorKind::NotADirectory => Ok(None),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(Lost::NoAccess {
            path: path.to_owned(),
            error,
        }),
        // Of any other failure the reader tells.
        _ => Ok(Some(path)),
    }
}

/// `portcullis/client.toml` where the person's configuration is (XDG Base Directory Specification).
fn usual_file(variable: impl Fn(&str) -> Option<OsString>, home: Option<&Path>) -> Option<PathBuf> {
    let folder = directory(&variable, "XDG_CONFIG_HOME");
    let folder = folder.or_else(|| Some(home?.join(".config")))?;
    Some(folder.join("portcullis").join("client.toml"))
}

/// A relative one is none, as that specification says.
fn directory(variable: impl Fn(&str) -> Option<OsString>, name: &str) -> Option<PathBuf> {
    variable(name)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
}
