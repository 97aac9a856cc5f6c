//! The command line: one file a command.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod check;
pub mod completions;
pub mod connect;
pub mod demo;
pub mod doctor;
pub mod man;
pub mod passphrase;
pub mod probe;
pub mod routes;
pub mod serve;
pub mod ssh_config;
mod stdout;
pub mod tunnel;
pub mod way;

/// A single-port SNI edge gateway with TCP tunnelling.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a gateway
    Serve(serve::ServeArgs),
    /// Reach a host through a gateway, as ssh's ProxyCommand
    Connect(connect::ConnectArgs),
    /// Listen for plain bytes on this machine, and carry them on over mutual TLS
    Tunnel(Box<tunnel::TunnelArgs>),
    /// Have ssh reach a domain's machines through a gateway: its configuration, printed or installed
    SshConfig(ssh_config::SshConfigArgs),
    /// Find out whether a machine can be reached without a gateway, for ssh's `Match exec`
    Probe(probe::ProbeArgs),
    /// Find out what is wrong, from a client's end or on a gateway's host
    Doctor(Box<doctor::DoctorArgs>),
    /// Try it: a gateway on this machine, with a CA and upstreams of its own
    Demo(demo::DemoArgs),
    /// Check a configuration, and report every mistake in it at once
    Check(check::CheckArgs),
    /// Show what a gateway routes, or would: every route, and what was skipped and why
    Routes(routes::RoutesArgs),
    /// Print what a shell completes these commands with
    Completions(completions::CompletionsArgs),
    /// Print the manual, or write its pages
    Man(man::ManArgs),
}

/// Runs the command that the process was started with; or shows the help that was asked for, or what is wrong with it.
pub fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => run(cli),
        Err(told) if told.use_stderr() => told.exit(),
        Err(told) => {
            let shown = told.print().and_then(|()| io::stdout().flush());
            stdout::end(stdout::heard(shown), 0)
        }
    }
}

/// Runs the command.
pub fn run(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Serve(args) => serve::run(args),
        Command::Connect(args) => connect::run(args),
        Command::Tunnel(args) => tunnel::run(*args),
        Command::SshConfig(args) => ssh_config::run(args),
        Command::Probe(args) => probe::run(args),
        Command::Doctor(args) => doctor::run(*args),
        Command::Demo(args) => demo::run(args),
        Command::Check(args) => check::run(args),
        Command::Routes(args) => routes::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
    }
}
