//! `portcullis check`: says everything that is wrong with a configuration, without starting anything.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use super::passphrase::{self, Asking, PassphraseArgs};
use super::stdout;
use crate::config::{Checked, Diagnostic, Level};
use crate::net::limits::files;
use crate::{config, log};

/// The exit code of a configuration that cannot be used, as of a command line that cannot.
const BROKEN: u8 = 2;

/// Check a configuration and every file it names.
///
/// Exits 0 if `serve` would start with it, 2 if not.
#[derive(Debug, clap::Args)]
#[command(after_help = passphrase::HELP_UNASKED.trim_start())]
pub struct CheckArgs {
    /// The configuration.
    #[arg(
        long,
        short,
        value_name = "FILE",
        env = "PORTCULLIS_CONFIG",
        default_value = "portcullis.toml"
    )]
    pub config: PathBuf,

    /// What opens encrypted keys that name no passphrase of their own: nobody is asked
    #[command(flatten)]
    pub passphrase: PassphraseArgs,
}

/// Runs the command: mistakes and warnings go to stderr, a line that says all is well to stdout.
pub fn run(args: CheckArgs) -> ExitCode {
    let outcome = check(&args, log::colours_stderr());
    // A reader that has gone does not change what was found.
    let _ = io::stderr().write_all(outcome.err.as_bytes());
    stdout::end(stdout::say(outcome.out.as_bytes()), outcome.code)
}

/// What the command says, and its exit code.
#[derive(Debug)]
struct Outcome {
    code: u8,
    out: String,
    err: String,
}

fn check(args: &CheckArgs, colour: bool) -> Outcome {
    let given = match args.passphrase.given(Asking::Never) {
        Ok(given) => given,
        Err(error) => {
            return Outcome {
                code: BROKEN,
                out: String::new(),
                err: format!("{}\n", passphrase::told(&error)),
            };
        }
    };
    match config::load_with(&args.config, &given).map(with_room) {
        Ok(checked) => Outcome {
            code: 0,
            out: format!(
                "{}: ok, {}, {}{}\n",
                args.config.display(),
                count(checked.config.routes.len(), "route"),
                count(checked.certificates.len(), "certificate"),
                match checked.config.tunnels.len() {
                    0 => String::new(),
                    number => format!(", {}", count(number, "tunnel")),
                }
            ),
            err: checked.warnings.render(colour),
        },
        Err(diagnostics) => Outcome {
            code: BROKEN,
            out: String::new(),
            err: diagnostics.render(colour),
        },
    }
}

/// Warns of more connections than fit. It is no error: `serve` may have another limit of open files elsewhere.
fn with_room(mut checked: Checked) -> Checked {
    let limits = &checked.config.limits;
    if let Err(error) = files::suffice(limits, files::highest_limit()) {
        checked.warnings.list.push(Diagnostic {
            level: Level::Warning,
            span: None,
            message:
                "`limits.connections` allows more than the open files of this shell have room for"
                    .to_owned(),
            help: Some(error.to_string()),
        });
    }
    checked
}

fn count(number: usize, word: &str) -> String {
    match number {
        1 => format!("1 {word}"),
        _ => format!("{number} {word}s"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn args(config: PathBuf) -> CheckArgs {
        CheckArgs {
            config,
            passphrase: PassphraseArgs::default(),
        }
    }

    fn outcome(text: &str) -> (u8, String, String) {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("portcullis.toml");
        std::fs::write(&config, text).unwrap();
        let outcome = check(&args(config), false);
        let folder = format!("{}/", folder.path().display());
        let shown = |text: String| text.replace(&folder, "");
        (outcome.code, shown(outcome.out), shown(outcome.err))
    }

    #[test]
    fn a_good_configuration_is_said_to_be_on_stdout() {
        let (code, out, err) = outcome(
            "[routes.vm]\nhost = \"ssh.example.com\"\npassthrough = true\nupstream = \"10.0.0.5:22\"\n",
        );
        assert_eq!((code, err.as_str()), (0, ""));
        assert_eq!(out, "portcullis.toml: ok, 1 route, 0 certificates\n");
    }

    #[test]
    fn tunnels_are_counted_where_there_are_some_and_need_no_routes() {
        let (code, out, err) =
            outcome("[tunnels.a]\nlisten = \"127.0.0.1:8899\"\nto = \"a.example.com:8443\"\n");
        assert_eq!((code, err.as_str()), (0, ""));
        assert_eq!(
            out,
            "portcullis.toml: ok, 0 routes, 0 certificates, 1 tunnel\n"
        );
    }

    #[test]
    fn warnings_are_shown_and_are_no_failure() {
        let (code, out, err) = outcome("");
        assert_eq!(code, 0);
        assert_eq!(out, "portcullis.toml: ok, 0 routes, 0 certificates\n");
        assert!(err.starts_with("warning: there are no `routes`"), "{err}");
        assert!(
            err.ends_with("warning: 1 warning in portcullis.toml\n"),
            "{err}"
        );
    }

    #[test]
    fn a_broken_configuration_exits_2_and_says_why_on_stderr() {
        let (code, out, err) = outcome("lisen = []\n");
        assert_eq!((code, out.as_str()), (2, ""));
        assert!(err.starts_with("error: unknown key `lisen`"), "{err}");
    }

    #[test]
    fn a_file_that_is_not_there_exits_2_with_the_reason_and_a_remedy() {
        let config = PathBuf::from("/nonexistent/portcullis.toml");
        let Outcome { code, err, .. } = check(&args(config), false);
        assert_eq!(code, 2);
        assert!(err.contains("No such file or directory"), "{err}");
        assert!(err.contains("help: give the path"), "{err}");
        assert!(err.contains("/nonexistent/portcullis.toml"), "{err}");
    }

    #[test]
    fn what_is_checked_is_what_serve_would_read() {
        let program = <crate::cli::Cli as clap::CommandFactory>::command();
        let config = |command: &str| {
            let command = program.find_subcommand(command).unwrap();
            let mut arguments = command.get_arguments();
            let config = arguments.find(|argument| argument.get_id() == "config");
            let config = config.unwrap();
            let defaults = config.get_default_values().to_vec();
            (config.get_env().map(ToOwned::to_owned), defaults)
        };
        assert_eq!(config("check"), config("serve"));
        assert_eq!(config("routes"), config("serve"));
    }
}
