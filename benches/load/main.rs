//! The load generator of `tools/bench`, with the bare server and the plain relays that a gateway is compared with.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

mod attack;
mod check;
mod client;
mod connection;
mod process;
mod server;
mod splice;
mod tls;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// What `cargo bench` passes on
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Write a certificate and its key, for the names that the client asks for
    Certificate {
        /// The folder for edge.pem and edge.key
        folder: PathBuf,
    },
    /// Serve as an upstream, or as a gateway that is not there
    Serve(server::Serve),
    /// Relay as plainly as can be
    Relay(server::Relay),
    /// Relay by splice(2), which is less than that
    Splice(splice::Splice),
    /// See whether the right upstream answers, and gives back what it is sent
    Check(check::Check),
    /// Open connections one after the other, and print what each cost the process
    Connections(client::Run),
    /// Have bytes sent, or send them, and print what they cost the process
    Bulk(client::Bulk),
    /// Send a few bytes and wait for them, and print how long that takes
    Pingpong(client::Run),
    /// Serve as a client beside an attack, and print how long it waits without it and with it
    Attack(attack::Attack),
    /// Open connections, keep them, and print the memory of the process that each takes
    Idle(client::Run),
}

fn main() -> anyhow::Result<()> {
    let Some(command) = Arguments::parse().command else {
        println!("load: the commands of this program are run by tools/bench");
        return Ok(());
    };
    // One thread: each program has one CPU to itself.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        match command {
            Command::Certificate { folder } => tls::write_certificate(&folder),
            Command::Serve(serve) => serve.run().await,
            Command::Relay(relay) => relay.run().await,
            Command::Connections(run) => run.connections().await,
            Command::Splice(splice) => Ok(splice.run()?),
            Command::Check(check) => check.run().await,
            Command::Bulk(bulk) => bulk.run().await,
            Command::Pingpong(run) => run.pingpong().await,
            Command::Attack(attack) => attack.run().await,
            Command::Idle(run) => run.idle().await,
        }
    })
}
