//! `portcullis demo`: a gateway with everything around it that shows what it does, on this machine alone.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};

mod echo;
mod files;
mod screen;

use crate::config::{self, ListenAddress, LogFormat};
use crate::lifecycle::{Handed, Reload, Shutdown};
use crate::log::AccessLog;
use crate::serve::{self, Gateway};
use files::{Files, Upstreams};
use screen::Screen;

/// How long a server on this machine may take to say that it is an sshd.
///
/// 1 s: it answers at once, or is none.
const GREETING: Duration = Duration::from_secs(1);

/// A gateway with a throw-away CA, two echoes behind it, and the commands that prove that it works. Its configuration is
/// an ordinary one, and goes with all other files when the demo ends.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Where the gateway listens; port 0 takes any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8443")]
    pub listen: SocketAddr,

    /// Where its admin interface listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9443")]
    pub admin: SocketAddr,

    /// The sshd to reach through it, if one answers there
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:22")]
    pub sshd: SocketAddr,
}

/// Runs the command. Exits 0 after Ctrl-C, 1 when the demo cannot start.
pub fn run(args: DemoArgs) -> ExitCode {
    let demo = tokio::runtime::Runtime::new()
        .context("cannot start")
        .and_then(|runtime| runtime.block_on(demo(&args)));
    match demo {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let hint = if serve::is_in_use(&error) {
                "\nhint: something else listens there; take any free ports: --listen 127.0.0.1:0 --admin 127.0.0.1:0"
            } else {
                ""
            };
            // With stderr gone there is nobody to tell.
            let _ = writeln!(io::stderr(), "portcullis: {error:#}{hint}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(args: &DemoArgs) -> anyhow::Result<()> {
    let ended = ended().context("cannot listen for signals")?;
    let files = Files::create().context("cannot write the demo's files")?;
    let echo = echo::start().await.context("cannot start the echo")?;

    // What the passed-through route leads to ends TLS itself: another gateway is the nearest that can.
    let inner = files.write_inner(echo)?;
    let inner = start(
        &inner,
        AccessLog::start(LogFormat::Text, Box::new(io::sink())),
    )
    .await?;
    let upstreams = Upstreams {
        echo,
        pass: first(&inner)?,
        sshd: is_sshd(args.sshd).await.then_some(args.sshd),
    };
    let outer = files.write(args.listen, args.admin, &upstreams)?;
    let log = AccessLog::start(LogFormat::Text, Box::new(io::stdout()));
    let gateway = start(&outer, log).await?;

    let screen = Screen {
        program: std::env::current_exe().context("cannot find this program's own path")?,
        listen: reachable(first(&gateway)?),
        admin: match gateway.admin {
            Some(ListenAddress::Tcp(address)) => reachable(address),
            _ => args.admin,
        },
        folder: files.folder().to_owned(),
        tried_sshd: args.sshd,
        has_sshd: upstreams.sshd.is_some(),
    };
    // A reader that goes away, as `head` does, is no reason to end.
    let _ = write!(io::stdout(), "{screen}").and_then(|()| io::stdout().flush());

    ended.await;
    for gateway in [gateway, inner] {
        gateway.shutdown().cut();
        gateway.finished().await?;
    }
    Ok(())
}

/// Loads a configuration and starts its gateway as `portcullis serve` does.
async fn start(path: &std::path::Path, log: AccessLog) -> anyhow::Result<Gateway> {
    let checked = config::load(path)
        .map_err(|mistakes| anyhow::anyhow!("the demo's own configuration is wrong: {mistakes}"))?;
    serve::start(
        checked,
        log,
        Shutdown::new(),
        Reload::new(),
        Handed::default(),
    )
    .await
}

/// Listens from the call on for what ends a command in a terminal.
fn ended() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
    })
}

/// Whether the server there greets as RFC 4253 §4.2 has it.
async fn is_sshd(address: SocketAddr) -> bool {
    let greeting = async {
        let mut greeting = [0; 4];
        let mut tcp = TcpStream::connect(address).await?;
        tcp.read_exact(&mut greeting).await?;
        io::Result::Ok(&greeting == b"SSH-")
    };
    matches!(tokio::time::timeout(GREETING, greeting).await, Ok(Ok(true)))
}

fn first(gateway: &Gateway) -> anyhow::Result<SocketAddr> {
    let address = gateway.addresses.first().copied();
    address.context("the gateway has no listener")
}

/// An address that a client can dial: one that stands for all of this machine's becomes its loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => {
            address.set_ip(std::net::Ipv4Addr::LOCALHOST.into())
        }
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            address.set_ip(std::net::Ipv6Addr::LOCALHOST.into())
        }
        _ => {}
    }
    address
}
