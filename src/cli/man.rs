//! `portcullis man`: the manual, made from the same words as `--help`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::CommandFactory;
use clap_mangen::Man;

use super::Cli;
use super::connect::fail;
use super::stdout;

/// How it is used.
const EXAMPLES: &str = "\
Examples:
  portcullis man | man -l -
  portcullis man --dir /usr/local/share/man/man1    # then: man portcullis-connect";

/// Prints the page portcullis(1), or writes a page for each command.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ManArgs {
    /// Write all pages into this directory, which is there
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: ManArgs) -> ExitCode {
    let written = match &args.dir {
        Some(dir) => pages(dir),
        None => match page() {
            Ok(page) => return stdout::end(stdout::say(&page), 0),
            Err(error) => Err(error),
        },
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(
            1,
            &format!(
                "portcullis: cannot write the manual: {error}\nhint: name a directory that is there and may be written"
            ),
        ),
    }
}

fn page() -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(Cli::command()).render(&mut page)?;
    Ok(page)
}

fn pages(dir: &Path) -> io::Result<()> {
    clap_mangen::generate_to(Cli::command(), dir)
}
