//! The load generator of `tools/bench`, with the bare server and the plain relay that a gateway is compared with.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

mod client;
mod process;
mod server;
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
    /// Open connections one after the other, and print what each cost the process
    Connections(client::Run),
    /// Have bytes sent, and print what they cost the process
    Bulk(client::Run),
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
            Command::Bulk(run) => run.bulk().await,
            Command::Idle(run) => run.idle().await,
        }
    })
}
