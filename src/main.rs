//! The `portcullis` program: everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    match portcullis::cli::Cli::read() {
        Ok(cli) => portcullis::cli::run(cli),
        Err(code) => code,
    }
}
