//! `portcullis connect`: stdin and stdout through the gateway, as ssh's ProxyCommand.

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

pub(super) use super::way::timeout;

use super::way::WayArgs;
use super::{mistake, passphrase, shortage};
use crate::client::connect::Connect;
use crate::client::exit::{self, Exit};
use crate::client::failure::Failure;
use crate::client::tunnel::relay;
use crate::name::HostName;
use crate::sandbox;

const EXAMPLES: &str = "
Examples (portcullis ssh-config writes the first one for you):
  ssh -o ProxyCommand='portcullis connect --gateway gate.example.com -- %h' vm1
  portcullis connect --ca ca.pem --cert me.pem --key me.key vm.example < request";

/// Connects stdin and stdout to HOST through a gateway. The gateway proves by its certificate that it may speak for HOST.
/// What is not said here may stand in client.toml, in ~/.config/portcullis.
#[derive(Debug, clap::Args)]
#[command(after_help = exit::help() + "\n" + passphrase::HELP + "\n" + EXAMPLES)]
pub struct ConnectArgs {
    /// The way there.
    #[command(flatten)]
    pub way: WayArgs,

    /// Tell a failure as one object of JSON
    #[arg(long)]
    pub json: bool,

    /// The target; ssh's %h
    #[arg(value_name = "HOST", value_parser = HostName::parse)]
    pub host: HostName,

    /// Taken for ssh's %p, and not used: the gateway goes by the name
    #[arg(value_name = "PORT", value_parser = port)]
    pub port: Option<u16>,
}

/// Runs the command.
pub fn run(args: ConnectArgs) -> ExitCode {
    if let Err(error) = signals::listen() {
        return fail(
            1,
            &format!("portcullis: cannot listen for signals: {error}"),
        );
    }
    let began = Instant::now();
    let mut connect = match args.way.find(args.host, args.json) {
        Ok(connect) => connect,
        Err(report) => return mistake::end(&report, args.json),
    };
    // For a passphrase, if it comes from a descriptor.
    let waited = began.elapsed();
    // Before a key is read; and behind the descriptor of a passphrase, whose name in /proc is root's from then on.
    if let Err(error) = sandbox::no_dumps() {
        return fail(1, &format!("portcullis: cannot start: {error}"));
    }
    let ended = shortage::caught(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let ended = runtime.block_on(tunnel(&mut connect, waited));
        // The thread that reads stdin may wait there for ever.
        runtime.shutdown_background();
        Ok(ended)
    });
    let report = match ended {
        Ok(Ended::Done(Ok(()))) => return ExitCode::from(Exit::Ended.code()),
        Ok(Ended::Interrupted) => return ExitCode::from(Exit::Interrupted.code()),
        Ok(Ended::Done(Err(failure))) => connect.report(&failure),
        Err(report) => report,
    };
    mistake::end(&report, args.json)
}

fn port(text: &str) -> Result<u16, &'static str> {
    text.parse().map_err(|_| "write a number up to 65535")
}

/// How the command ended.
enum Ended {
    Done(Result<(), Failure>),
    /// By Ctrl-C.
    Interrupted,
}

async fn tunnel(connect: &mut Connect, waited: Duration) -> Ended {
    let tunnel = match connect.open(waited).await {
        Ok(tunnel) => tunnel,
        Err(failure) => return Ended::Done(Err(failure)),
    };
    let hang_up = signals::hang_up();
    let input_ended = AtomicBool::new(false);
    let interrupt = signals::interrupt(&input_ended);
    tokio::select! {
        ended = relay(tunnel, connect.timeout, &input_ended, hang_up) => Ended::Done(ended),
        () = interrupt => Ended::Interrupted,
    }
}

pub(super) fn fail(code: u8, message: &str) -> ExitCode {
    // With stderr gone there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{message}");
    ExitCode::from(code)
}

/// What ssh, a terminal and a person send. Each is listened for from the call on.
#[cfg(unix)]
mod signals {
    use std::future::pending;
    use std::io::{self, IsTerminal};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::fs::{FileType, fstat};
    use rustix::process::Signal;
    use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
    use tokio::time::sleep;

    use crate::stop::{self, End};

    /// How soon after its SIGHUP the end of ssh is seen.
    const SOON: Duration = Duration::from_millis(100);

    /// Whoever has started the command may be done with it before there is a tunnel: then it ends at once, without a word.
    pub(super) fn listen() -> io::Result<()> {
        stop::listen(&[
            (Signal::HUP, End::Quietly),
            (Signal::TERM, End::Quietly),
            (Signal::INT, End::AsEver),
            (Signal::QUIT, End::AsEver),
        ])
    }

    /// Returns when whoever started the command is done with it: ssh sends SIGHUP at its own end.
    ///
    /// A terminal that is closed sends one too, to what was opened there: a ControlMaster goes on all the same, for those
    /// who share its tunnel, and what it has not closed still serves it.
    pub(super) fn hang_up() -> impl Future<Output = ()> {
        let mut ends = take(&[Signal::TERM]);
        let mut hang_ups = take(&[Signal::HUP]);
        let hung_up = async move {
            next(&mut hang_ups).await;
            while has_input() {
                sleep(SOON).await;
            }
        };
        async move {
            tokio::select! {
                () = next(&mut ends) => {}
                () = hung_up => {}
            }
        }
    }

    /// Whether stdin is a pipe, as ssh makes one, whose other end a program holds.
    fn has_input() -> bool {
        let stdin = rustix::stdio::stdin();
        let kind = fstat(stdin).map(|file| FileType::from_raw_mode(file.st_mode));
        let mut polled = [PollFd::new(&stdin, PollFlags::empty())];
        let is_known = poll(&mut polled, Some(&Timespec::default())).is_ok();
        let gone = PollFlags::HUP | PollFlags::ERR;
        let is_held = !polled.iter().any(|fd| fd.revents().intersects(gone));
        kind == Ok(FileType::Fifo) && is_known && is_held
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
            (take(&[Signal::INT, Signal::QUIT]), take(&[Signal::TSTP]))
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
    fn take(taken: &[Signal]) -> Vec<Signals> {
        let kinds = taken.iter().map(|one| SignalKind::from_raw(one.as_raw()));
        let listening = kinds.filter_map(|kind| signal(kind).ok()).collect();
        stop::leave(taken);
        listening
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
    use std::io;
    use std::sync::atomic::AtomicBool;

    /// Nothing of the kind is sent here.
    pub(super) fn listen() -> io::Result<()> {
        Ok(())
    }

    /// Nor later.
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
        assert_eq!(args.way.gateway.unwrap().to_string(), "gate:443");
        assert_eq!(args.way.timeout, None);
        let args = parse("--gateway gate --timeout 1m30s --ca a --ca b vm1").unwrap();
        assert_eq!(args.way.gateway.unwrap().port, 8443);
        assert_eq!(args.way.timeout, Some(Duration::from_secs(90)));
        assert_eq!(args.way.ca.len(), 2);
        let args = parse("--alpn h2 --alpn postgresql --proxy none --insecure vm1").unwrap();
        assert_eq!(args.way.alpn.len(), 2);
        assert!(args.way.insecure);
    }

    #[test]
    fn what_no_tunnel_can_have_is_refused_before_it_is_tried() {
        for (line, says) in [
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
            ("--gateway gate --pin sha1/x vm1", "`sha256/`"),
            ("--gateway gate --insecure --ca a vm1", "--ca"),
            ("--gateway gate --insecure --pin a vm1", "`sha256/`"),
            ("--gateway gate --alpn portcullis/1 vm1", "by itself"),
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
