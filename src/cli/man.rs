//! `portcullis man`: the manual, made from the same words as `--help`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

use clap::builder::{Resettable, StyledStr};
use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::Cli;
use super::connect::fail;
use super::stdout;
use crate::client::exit;

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
    let mut cli = Cli::command().disable_help_subcommand(true);
    cli.build();
    page_of(cli)
}

fn pages(dir: &Path) -> io::Result<()> {
    let mut cli = Cli::command().disable_help_subcommand(true);
    cli.build();
    let commands: Vec<Command> = cli.get_subcommands().cloned().collect();
    for command in commands.into_iter().chain([cli]) {
        let name = command.get_display_name().unwrap_or(command.get_name());
        let path = dir.join(format!("{name}.1"));
        fs::write(path, page_of(command)?)?;
    }
    Ok(())
}

/// The page of one command. Its usage, and what its help ends with, `clap_mangen` would tell otherwise than the help does.
fn page_of(mut command: Command) -> io::Result<Vec<u8>> {
    let usage = command.render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage).to_owned();
    let after = command.get_after_help().map(ToString::to_string);
    let command = command
        .override_usage(usage)
        .after_help(Resettable::<StyledStr>::Reset)
        // What hardly anybody needs is left out of a screen of help, and not of the manual.
        .mut_args(|arg| arg.hide(false));
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    for paragraph in after.unwrap_or_default().split("\n\n") {
        page.extend(section(paragraph.trim_matches('\n')).bytes());
    }
    Ok(page)
}

/// A paragraph of a help: examples and lists line by line, under a heading of their own, and all else as text.
fn section(paragraph: &str) -> String {
    let (heading, lines) = paragraph.split_once('\n').unwrap_or((paragraph, ""));
    let Some(heading) = heading.strip_suffix(':') else {
        return match paragraph.is_empty() {
            true => String::new(),
            false => format!(".SH NOTES\n{}\n", roff(paragraph)),
        };
    };
    let lines = match heading {
        // In a help they stand in two columns, which is as wide as a screen.
        "Exit codes" => exit::list().collect::<Vec<_>>().join("\n"),
        _ => lines.replace("\n  ", "\n").trim_start().to_owned(),
    };
    let heading = heading.to_uppercase();
    format!(
        ".SH \"{heading}\"\n.in 2n\n.nf\n{}\n.fi\n.in\n",
        roff(&lines)
    )
}

/// Text as it is, to be copied from the page to a shell, too (groff_char(7)).
fn roff(text: &str) -> String {
    let mut escaped = String::new();
    for line in text.lines() {
        // No line is a request.
        escaped.push_str("\\&");
        for c in line.chars() {
            match c {
                '\\' => escaped.push_str("\\e"),
                '-' => escaped.push_str("\\-"),
                '\'' => escaped.push_str("\\(aq"),
                '`' => escaped.push_str("\\(ga"),
                '~' => escaped.push_str("\\(ti"),
                '^' => escaped.push_str("\\(ha"),
                c => escaped.push(c),
            }
        }
        escaped.push('\n');
    }
    escaped.truncate(escaped.trim_end().len());
    escaped
}
