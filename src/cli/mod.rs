//! The command line: one file a command.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand};

pub mod check;
pub mod completions;
pub mod connect;
pub mod demo;
pub mod doctor;
pub mod man;
mod mistake;
pub mod passphrase;
pub mod probe;
pub mod routes;
pub mod serve;
mod shortage;
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
    match Cli::read() {
        Ok(cli) => run(cli),
        Err(code) => code,
    }
}

impl Cli {
    /// Reads the command line of this process; or the exit code, when it has been said what is wrong with it.
    fn read() -> Result<Self, ExitCode> {
        let words: Vec<OsString> = std::env::args_os().collect();
        let command = Self::command().mut_subcommands(|one| one.mut_args(without_empty_variable));
        let matches = command.try_get_matches_from(&words);
        let read = matches.and_then(|matches| Self::from_arg_matches(&matches));
        read.map_err(|error| mistake::tell(&error, &words))
    }
}

/// A variable that is empty counts as not set, as those of proxies do.
fn without_empty_variable(arg: Arg) -> Arg {
    match arg.get_env().and_then(std::env::var_os) {
        Some(value) if value.is_empty() => arg.env(None),
        _ => arg,
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
