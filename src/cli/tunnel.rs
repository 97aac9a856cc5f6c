//! `portcullis tunnel`: plain bytes on this machine, verified TLS on the wire, until a signal ends it.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use super::passphrase::{self, PassphraseArgs};
use super::serve;
use crate::config::{Checked, Diagnostic, Diagnostics, Flags, Level, Source};
use crate::lifecycle::{NotListening, Sockets};
use crate::tls::passphrase::Given;
use crate::watch::Files;

/// Listens for plain bytes, and carries each connection on over TLS of its own, to a peer that proves who it is.
#[derive(Debug, clap::Args)]
#[command(after_help = [EXAMPLES, passphrase::HELP].join("\n"), override_usage = USAGE)]
pub struct TunnelArgs {
    /// Listen here: HOST:PORT or unix:/PATH
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Vec<String>,

    /// Carry the bytes there
    #[arg(long, value_name = "HOST:PORT")]
    pub to: Option<String>,

    /// The name that it must prove, not HOST
    #[arg(long, value_name = "NAME", requires = "to")]
    pub server_name: Option<String>,

    /// Carry them to NAME behind it [port: 8443]
    #[arg(
        long,
        value_name = "HOST[:PORT]",
        requires = "name",
        conflicts_with = "to"
    )]
    pub gateway: Option<String>,

    /// The name of a route of the gateway, which the certificate must have
    #[arg(value_name = "NAME", requires = "gateway")]
    pub name: Option<String>,

    /// Trust these CAs (PEM), not the system's
    #[arg(long, value_name = "FILE")]
    pub ca: Vec<PathBuf>,

    /// The certificate to show (PEM chain)
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,

    /// Its key (PEM); both are watched
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,

    /// What opens keys that are encrypted.
    #[command(flatten)]
    pub passphrase: PassphraseArgs,

    /// Offer this protocol: gRPC needs h2
    #[arg(long, value_name = "PROTOCOL")]
    pub alpn: Vec<String>,

    /// Who alone may connect to UNIX sockets
    #[arg(long, value_name = "UID")]
    pub allow_uid: Vec<u32>,

    /// Of the UNIX sockets [default: 0600, with --allow-uid 0666]
    #[arg(long, value_name = "MODE")]
    pub mode: Option<String>,

    /// Listen in the clear for other machines, too
    #[arg(long)]
    pub insecure_listen: bool,

    /// Serve /readyz and /metrics here
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<String>,

    /// Listen on what systemd hands over
    #[arg(long)]
    pub systemd: bool,

    /// To connect to it [default: 5s]
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<String>,

    /// All of it from the `tunnels` of this file
    #[arg(
        long,
        short,
        value_name = "FILE",
        conflicts_with_all = [
            "listen", "to", "server_name", "gateway", "name", "ca", "cert", "key", "alpn", "allow_uid", "mode",
            "insecure_listen", "admin", "systemd", "timeout",
        ]
    )]
    pub config: Option<PathBuf>,
}

const USAGE: &str = "\
portcullis tunnel --listen ADDRESS --to HOST:PORT [OPTIONS]
       portcullis tunnel --listen ADDRESS --gateway HOST[:PORT] NAME [OPTIONS]
       portcullis tunnel --config FILE";

const EXAMPLES: &str = "\
Examples:
  portcullis tunnel --listen 127.0.0.1:8899 --to master.example.com:8443 \\
      --alpn h2 --ca ca.pem --cert worker.pem --key worker.key
  portcullis tunnel --listen 127.0.0.1:3389 --gateway gate.example.com \\
      rdp.vm.example.com

SIGTERM and SIGINT drain, a second one cuts at once; SIGHUP reads the files again.

Exit statuses:
  0  stopped as it was told to
  1  it cannot start, or a part of it has died of a defect
  2  the arguments are wrong, or a file that they name does not serve";

/// Runs the command.
pub fn run(args: TunnelArgs) -> ExitCode {
    match args.config.clone() {
        Some(path) => {
            let source = Source::Tunnels(path);
            let load = |_: Result<&Sockets, &NotListening>, given: &Given| source.load(given);
            serve::run_by(&args.passphrase, load, serve::say)
        }
        None => {
            let load =
                |handed: Result<&Sockets, &NotListening>, given: &Given| args.check(handed, given);
            serve::run_by(&args.passphrase, load, say)
        }
    }
}

impl TunnelArgs {
    /// What the flags mean, with the sockets that were handed over if they are asked for.
    fn check(
        &self,
        handed: Result<&Sockets, &NotListening>,
        given: &Given,
    ) -> Result<Checked, Diagnostics> {
        let mut listen = self.listen.clone();
        if self.systemd {
            listen.extend(handed_over(handed)?);
        }
        if listen.is_empty() {
            return Err(mistake(
                "`--listen` is missing".to_owned(),
                "add `--listen 127.0.0.1:8899`, or `--systemd` for the sockets that systemd hands over",
            ));
        }
        let flags = Flags {
            listen,
            to: self.to.clone(),
            server_name: self.server_name.clone(),
            gateway: self.gateway.clone(),
            name: self.name.clone(),
            roots: self.ca.clone(),
            certificate: self.cert.clone().zip(self.key.clone()),
            alpn: self.alpn.clone(),
            allow_uids: self.allow_uid.clone(),
            mode: self.mode.clone(),
            insecure_listen: self.insecure_listen,
            admin: self.admin.clone(),
            timeout: self.timeout.clone(),
            folder: std::env::current_dir().unwrap_or_default(),
        };
        Source::Flags(Arc::new(flags)).load(given)
    }
}

/// The addresses of the sockets that were handed over. That there are none to listen on is no wish of who writes `--systemd`.
fn handed_over(handed: Result<&Sockets, &NotListening>) -> Result<Vec<String>, Diagnostics> {
    const HELP: &str = "start it by a socket unit with `ListenStream=` and `Accept=no`, or write `--listen` in place of `--systemd`";
    let wrong = |why: &dyn fmt::Display| mistake(format!("`--systemd`: {why}"), HELP);
    let sockets = handed.map_err(|error| wrong(error))?;
    let addresses: Vec<String> = sockets.addresses().map(ToString::to_string).collect();
    match (addresses.is_empty(), sockets.malformed()) {
        (false, _) => Ok(addresses),
        (true, Some(malformed)) => Err(wrong(malformed)),
        (true, None) => Err(wrong(&"no socket was handed over")),
    }
}

fn mistake(message: String, help: &str) -> Diagnostics {
    Diagnostics {
        path: PathBuf::new(),
        text: String::new(),
        list: vec![Diagnostic {
            level: Level::Error,
            span: None,
            message,
            help: Some(help.to_owned()),
        }],
        files: Files::default(),
        may_pass: false,
    }
}

/// Each mistake with its remedy, as `connect` tells its failures.
fn say(diagnostics: &Diagnostics) {
    let mut text = String::new();
    for one in &diagnostics.list {
        // Writing into a String does not fail.
        let _ = writeln!(text, "portcullis: {}", one.message);
        if let Some(help) = &one.help {
            let _ = writeln!(text, "hint: {help}");
        }
    }
    // With stderr gone there is nobody to tell.
    let _ = io::stderr().write_all(text.as_bytes());
}
