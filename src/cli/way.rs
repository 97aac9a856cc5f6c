//! The flags that say how a target is reached, and what is done when nobody says it.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;

use super::passphrase::{self, Asking, PassphraseArgs};
use crate::client::connect::Connect;
use crate::client::exit::Exit;
use crate::client::gateway::Gateway;
use crate::client::report::Report;
use crate::client::way::{self, Typed};
use crate::config::{HttpProxyError, LONGEST_TIMEOUT, Secret, protocol};
use crate::name::HostName;
use crate::tls::passphrase::Source;
use crate::tls::pin::Pin;

/// The exit code of a command line, or a file, that says nothing usable.
pub(super) const USAGE: u8 = 2;

/// The way to a target.
#[derive(Debug, clap::Args)]
pub struct WayArgs {
    /// Port 8443 by default; or $PORTCULLIS_GATEWAY
    #[arg(long, value_name = "HOST[:PORT]")]
    pub gateway: Option<Gateway>,

    /// In place of ~/.config/portcullis/client.toml
    #[arg(long, value_name = "FILE")]
    pub client_config: Option<PathBuf>,

    /// Trust these CAs (PEM), not the system's
    #[arg(long, value_name = "FILE")]
    pub ca: Vec<PathBuf>,

    /// Trust the key sha256/BASE64; with --ca, both
    #[arg(long, value_name = "PIN")]
    pub pin: Vec<Pin>,

    /// Verify nothing: anybody in between reads all
    #[arg(long, conflicts_with_all = ["ca", "pin"])]
    pub insecure: bool,

    /// The certificate to show if asked (PEM chain)
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,

    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,

    /// What opens the key if it is encrypted.
    #[command(flatten)]
    pub passphrase: PassphraseArgs,

    /// Ask for this name and check it, not HOST
    #[arg(long, value_name = "NAME", value_parser = HostName::parse)]
    pub server_name: Option<HostName>,

    /// Offer this protocol (ALPN)
    #[arg(long, value_name = "PROTOCOL", value_parser = alpn)]
    pub alpn: Vec<Alpn>,

    /// An HTTP proxy, or none; or $HTTPS_PROXY
    #[arg(long, value_name = "URL", value_parser = secret)]
    pub proxy: Option<Secret>,

    /// To connect, then to reach HOST [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = timeout)]
    pub timeout: Option<Duration>,
}

/// A protocol's name (RFC 7301 §3.1). A list of lists would be one to clap.
#[derive(Clone, Debug)]
pub struct Alpn(Vec<u8>);

impl WayArgs {
    /// What was typed; or what is wrong with it.
    pub(super) fn typed(self) -> Result<Typed, Report> {
        let limit = self.timeout.unwrap_or(way::TIMEOUT);
        let given = self.passphrase.given(Asking::BesideTunnel(limit));
        let given = given.map_err(|error| passphrase::report(&error))?;
        let proxy = self.proxy.map(|proxy| proxy.reveal().parse());
        let proxy = proxy.transpose().map_err(|error: HttpProxyError| {
            let hint = "write --proxy http://[USER:PASSWORD@]HOST:PORT, or --proxy none";
            Report::new(Exit::Usage, format!("--proxy: {}", error.why()), hint)
        })?;
        Ok(Typed {
            gateway: self.gateway,
            file: self.client_config,
            ca: self.ca,
            pins: self.pin,
            insecure: self.insecure,
            certificate: self.cert.zip(self.key),
            passphrase: Source::Start(given),
            server_name: self.server_name,
            alpn: self.alpn.into_iter().map(|Alpn(name)| name).collect(),
            proxy,
            timeout: self.timeout,
        })
    }

    /// The way to a target, or why there is none. Where nothing is verified that is told, as an object if `json`.
    pub(super) fn find(self, target: HostName, json: bool) -> Result<Connect, Report> {
        let connect = way::find(self.typed()?, target, environment);
        let connect =
            connect.map_err(|lost| Report::new(Exit::Usage, lost.to_string(), lost.hint()))?;
        if connect.trust.insecure {
            let warning = format!(
                "insecure: nothing proves that {} is the gateway; whoever is in between reads and changes all",
                connect.gateway
            );
            let line = match json {
                true => serde_json::json!({ "warning": warning }).to_string(),
                false => format!("portcullis: warning: {warning}"),
            };
            // With stderr gone there is nobody to warn.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
        Ok(connect)
    }
}

/// What the environment says. Without HOME the system knows the home, as it does for ssh.
pub(super) fn environment(name: &str) -> Option<OsString> {
    match std::env::var_os(name) {
        None if name == "HOME" => std::env::home_dir().map(PathBuf::into_os_string),
        value => value,
    }
}

/// A mistake in it is told later: clap would show the password.
fn secret(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(text.to_owned()))
}

fn alpn(text: &str) -> Result<Alpn, String> {
    protocol(text).map(Alpn)
}

/// A time that a person waits: an hour at most, as more is a typing error.
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    let time = text.parse::<SignedDuration>().ok();
    time.and_then(|time| Duration::try_from(time).ok())
        .filter(|time| !time.is_zero() && *time <= LONGEST_TIMEOUT)
        .ok_or_else(|| "write a time such as 10s or 1m30s, an hour at most".to_owned())
}
