//! The `portcullis` program: everything it does is in the library.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    portcullis::cli::run(portcullis::cli::Cli::parse())
}
