//! `portcullis connect`: stdin and stdout through the gateway, as ssh's ProxyCommand.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::SignedDuration;

use super::passphrase::{self, Asking, PassphraseArgs, Stops};
use crate::client::connect::{Connect, Failure, relay};
use crate::client::gateway::Gateway;
use crate::name::HostName;
use crate::tls::key::KeyFile;
use crate::tls::passphrase::Source;

/// What ended it, and where to look, for a script as for a person.
const EXIT_CODES: &str = "\
Exit codes:
   0  the tunnel ended, or its user hung up
   1  stdin or stdout failed
   2  wrong arguments, or a file they name does not serve
  10  the gateway cannot be reached
  11  no TLS handshake with it
  12  it does not prove the target's name
  13  it has no route for the target
  14  it wants a client certificate, or another one
  15  what stands behind it did not take the connection
  16  the tunnel broke off
 130  interrupted

In ~/.ssh/config:
  Host *.vm.example.com
      ProxyCommand portcullis connect --gateway gate.example.com -- %h %p";

/// A wait beyond an hour is a typing error.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3600);

/// Opens a TLS connection to the gateway, asks for HOST, and connects stdin and stdout to what stands behind it.
/// The certificate must be valid for HOST: nothing turns that off.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct ConnectArgs {
    /// The gateway's address; the port is 8443 if none is given
    #[arg(long, value_name = "HOST[:PORT]")]
    pub gateway: Gateway,

    /// Trust the CAs in this PEM file, and not the system's; may be repeated
    #[arg(long, value_name = "FILE")]
    pub ca: Vec<PathBuf>,

    /// The certificate to show if the gateway asks for one (PEM, with its chain)
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,

    /// The certificate's key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,

    /// What opens the key if it is encrypted
    #[command(flatten)]
    pub passphrase: PassphraseArgs,

    /// Ask for this name and check it, in place of HOST
    #[arg(long, value_name = "NAME", value_parser = HostName::parse)]
    pub server_name: Option<HostName>,

    /// For finding, dialling and the handshake together
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = timeout)]
    pub timeout: Duration,

    /// The target; ssh's %h
    #[arg(value_name = "HOST", value_parser = HostName::parse)]
    pub host: HostName,

    /// Taken for ssh's %p, and not used: the gateway goes by the name
    #[arg(value_name = "PORT")]
    pub port: Option<u16>,
}

/// Runs the command.
pub fn run(args: ConnectArgs) -> ExitCode {
    let is_over = Arc::new(AtomicBool::new(false));
    let asking = Asking::AtTerminal(Stops::Connect(Arc::clone(&is_over)));
    let given = match args.passphrase.given(&asking) {
        Ok(given) => given,
        Err(error) => return fail(2, &passphrase::told(&error)),
    };
    let with_passphrase = |path| KeyFile {
        path,
        passphrase: Source::Start(given),
    };
    let connect = Connect {
        gateway: args.gateway,
        target: args.host,
        server_name: args.server_name,
        roots: args.ca,
        certificate: args.cert.zip(args.key.map(with_passphrase)),
        timeout: args.timeout,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &format!("portcullis: cannot start: {error}")),
    };
    let ended = runtime.block_on(tunnel(&connect));
    // The thread that reads stdin may wait there for ever.
    runtime.shutdown_background();
    match ended {
        Ended::Done(Ok(())) => ExitCode::SUCCESS,
        // While a person was asked for a passphrase.
        Ended::Done(Err(_)) if is_over.load(Ordering::SeqCst) => ExitCode::SUCCESS,
        Ended::Done(Err(failure)) => {
            let report = connect.report(&failure);
            fail(report.exit as u8, &report.to_string())
        }
        Ended::Interrupted => ExitCode::from(130),
    }
}

/// How the command ended.
enum Ended {
    Done(Result<(), Failure>),
    /// By Ctrl-C.
    Interrupted,
}

async fn tunnel(connect: &Connect) -> Ended {
    let mut hang_up = std::pin::pin!(signals::hang_up());
    let opened = tokio::select! {
        opened = connect.open() => opened,
        () = &mut hang_up => return Ended::Done(Ok(())),
    };
    let tunnel = match opened {
        Ok(tunnel) => tunnel,
        Err(failure) => return Ended::Done(Err(failure)),
    };
    let input_ended = AtomicBool::new(false);
    let interrupt = signals::interrupt(&input_ended);
    tokio::select! {
        ended = relay(tunnel, &input_ended, hang_up) => Ended::Done(ended),
        () = interrupt => Ended::Interrupted,
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    // With stderr gone there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{message}");
    ExitCode::from(code)
}

/// A time that a person waits: an hour at most.
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    let time = text.parse::<SignedDuration>().ok();
    time.and_then(|time| Duration::try_from(time).ok())
        .filter(|time| !time.is_zero() && *time <= LONGEST_TIMEOUT)
        .ok_or_else(|| "write a time such as 10s or 1m30s, an hour at most".to_owned())
}

/// What ssh, a terminal and a person send. Each is listened for from the call on.
#[cfg(unix)]
mod signals {
    use std::future::pending;
    use std::io::IsTerminal;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::process::Signal;
    use tokio::signal::unix::{Signal as Signals, SignalKind, signal};

    /// Returns when whoever started the command is done with it: ssh sends SIGHUP at its own end.
    pub(super) fn hang_up() -> impl Future<Output = ()> {
        let mut signals = listen(&[SignalKind::hangup(), SignalKind::terminate()]);
        async move { next(&mut signals).await }
    }

    /// Returns on a Ctrl-C that is meant for the tunnel.
    ///
    /// Between ssh and the gateway it is not: a tunnel that a ControlMaster shares stays in the foreground of the
    /// terminal where it was opened, and a Ctrl-C or Ctrl-Z there, meant for something else, must not end or stop it.
    /// With its input at an end, or a terminal in place of ssh, the command does what commands do.
    pub(super) fn interrupt(input_ended: &AtomicBool) -> impl Future<Output = ()> {
        let terminal = std::io::stdin().is_terminal() || std::io::stdout().is_terminal();
        let (mut ending, _stopping) = if terminal {
            (Vec::new(), Vec::new())
        } else {
            let stop = SignalKind::from_raw(Signal::TSTP.as_raw());
            (
                listen(&[SignalKind::interrupt(), SignalKind::quit()]),
                listen(&[stop]),
            )
        };
        async move {
            loop {
                next(&mut ending).await;
                if input_ended.load(Ordering::Relaxed) {
                    return;
                }
            }
        }
    }

    /// Signals do from now on nothing but what is written here; one that the system does not give keeps its meaning.
    fn listen(kinds: &[SignalKind]) -> Vec<Signals> {
        kinds.iter().filter_map(|kind| signal(*kind).ok()).collect()
    }

    async fn next(signals: &mut [Signals]) {
        match signals {
            [] => pending().await,
            [one] => {
                one.recv().await;
            }
            [first, rest @ ..] => tokio::select! {
                _ = first.recv() => {}
                () = Box::pin(next(rest)) => {}
            },
        }
    }
}

#[cfg(not(unix))]
mod signals {
    use std::sync::atomic::AtomicBool;

    /// Nothing of the kind is sent here.
    pub(super) fn hang_up() -> impl Future<Output = ()> {
        std::future::pending()
    }

    /// Ctrl-C does here what it does to every command.
    pub(super) fn interrupt(_: &AtomicBool) -> impl Future<Output = ()> {
        std::future::pending()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(line: &str) -> Result<ConnectArgs, String> {
        let words = ["portcullis", "connect"].into_iter();
        match Cli::try_parse_from(words.chain(line.split_whitespace())) {
            Ok(Cli {
                command: Command::Connect(args),
            }) => Ok(args),
            Ok(_) => unreachable!(),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn what_ssh_puts_for_its_tokens_is_understood() {
        let args = parse("--gateway gate:443 -- VM1.Example.COM. 22").unwrap();
        assert_eq!(args.host.as_str(), "vm1.example.com");
        assert_eq!(args.port, Some(22));
        assert_eq!(args.gateway.to_string(), "gate:443");
        assert_eq!(args.timeout, Duration::from_secs(10));
        let args = parse("--gateway gate --timeout 1m30s --ca a --ca b vm1").unwrap();
        assert_eq!(args.gateway.port, 8443);
        assert_eq!(args.timeout, Duration::from_secs(90));
        assert_eq!(args.ca.len(), 2);
    }

    #[test]
    fn what_no_tunnel_can_have_is_refused_before_it_is_tried() {
        for (line, says) in [
            ("vm1", "--gateway"),
            ("--gateway gate", "HOST"),
            ("--gateway gate -- -oProxyCommand=x", "cannot hold"),
            ("--gateway gate -- -vm1", "starts or ends with `-`"),
            ("--gateway gate -vm1", "unexpected argument"),
            ("--gateway gate 10.0.0.1", "is an IP address"),
            ("--gateway gate vm1 ssh", "PORT"),
            ("--gateway gate vm1 65536", "PORT"),
            ("--gateway gate:x vm1", "is no port"),
            ("--gateway gate --cert a vm1", "--key"),
            ("--gateway gate --key a vm1", "--cert"),
            ("--gateway gate --timeout 0s vm1", "such as 10s"),
            ("--gateway gate --timeout 2h vm1", "an hour at most"),
            ("--gateway gate --timeout ten vm1", "such as 10s"),
            ("--gateway gate --server-name a/b vm1", "cannot hold"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
