//! `portcullis routes`: what a gateway routes, or would if it were started, and what was skipped and why.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

mod ask;
mod listing;
mod table;

use super::connect::timeout;
use super::passphrase::{self, Asking, PassphraseArgs};
use super::stdout;
use crate::config::Checked;
use crate::log::printable;
use crate::status::State;
use crate::{admin, config, log, serve};
use ask::{AskError, Operators};
use listing::Listing;
use table::Drawing;

/// What was found is not all usable.
const UNUSABLE: u8 = 3;

/// The most that is shown of what a part says of itself, in bytes.
const SHOWN: usize = 1024;

const STATUSES: &str = "\
Where no gateway runs, `--consul` (or another source) finds out what one would
route, as a start does. It listens nowhere, and dials no upstream.

Exit statuses:
  0  every route and tunnel serves, and nothing was skipped
  1  no gateway answers, or not all sources have in time
  2  the configuration, or the command line, is wrong
  3  something was skipped, or a route or tunnel serves nobody: it refuses, is
     shadowed, or has nothing to dial";

/// Shows every route with its rule, its endpoints and its state, every tunnel with where it listens, and what services ask for in vain: of the gateway that runs
/// with this configuration, or of one that would.
#[derive(Debug, clap::Args)]
#[command(after_help = [STATUSES, passphrase::HELP_UNASKED].join("\n"))]
pub struct RoutesArgs {
    /// The configuration, which says where the gateway's admin interface is
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

    /// Ask the gateway whose admin interface is here, and read no configuration: `unix:/PATH` or `http://HOST:PORT`
    #[arg(long, value_name = "ADDRESS", conflicts_with = "dry_run")]
    pub admin: Option<Operators>,

    /// Only what this source told of: consul, nomad or file
    #[arg(long, value_enum, value_name = "SOURCE", hide_possible_values = true)]
    pub source: Option<Source>,

    /// Short for `--source consul`
    #[arg(long, conflicts_with = "source")]
    pub consul: bool,

    /// Ask no gateway, also where one runs: find out what one would route that starts now
    #[arg(long)]
    pub dry_run: bool,

    /// The answer of `/v1/routes`, as JSON
    #[arg(long)]
    pub json: bool,

    /// How long the gateway, or the sources, may take
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = timeout)]
    pub timeout: Duration,
}

/// Who told of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Source {
    /// Consul's catalog.
    Consul,
    /// Nomad's services.
    Nomad,
    /// The configuration file.
    File,
}

impl Source {
    /// As `/v1/routes` says it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Consul => "consul",
            Self::Nomad => "nomad",
            Self::File => "file",
        }
    }
}

/// What was found.
struct Answer {
    /// Who has told it; none where it was found out.
    gateway: Option<Operators>,
    /// As `/v1/routes` has it.
    json: Vec<u8>,
    /// Whether it is all that there is.
    is_whole: bool,
}

/// Why there is nothing to show; told already, or to be told.
enum Failure {
    /// In the configuration.
    Mistakes(Box<config::Diagnostics>),
    /// What went wrong, and what to do.
    Other(String, &'static str),
}

/// Runs the command.
pub fn run(args: RoutesArgs) -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &format!("error: cannot start: {error}")),
    };
    let answer = runtime.block_on(answer(&args));
    // Reads of the disk that hang keep nobody waiting.
    runtime.shutdown_background();
    let answer = match answer {
        Ok(answer) => answer,
        Err(Failure::Mistakes(mistakes)) => {
            let mistakes = mistakes.render(log::colours_stderr());
            let hint =
                "hint: `--admin ADDRESS` asks a gateway that runs without reading a configuration";
            return fail(2, &format!("{}\n{hint}", mistakes.trim_end()));
        }
        Err(Failure::Other(what, hint)) => {
            return fail(1, &format!("error: {what}\nhint: {hint}"));
        }
    };
    match show(&args, &answer) {
        Ok((out, code)) => stdout::end(stdout::say(&out), code),
        Err(error) => fail(1, &format!("error: the answer makes no sense: {error}")),
    }
}

/// Asks the gateway, or finds out.
async fn answer(args: &RoutesArgs) -> Result<Answer, Failure> {
    if let Some(address) = &args.admin {
        let asked = ask(address, args.timeout).await;
        return asked.map_err(|error| unanswered(address, &error));
    }
    let given = args.passphrase.given(Asking::Never).map_err(|error| {
        let hint = "its first line must be the passphrase; of a running gateway `--admin` asks without a configuration";
        Failure::Other(error.to_string(), hint)
    })?;
    let checked = config::load_with(&args.config, &given)
        .map_err(|wrong| Failure::Mistakes(Box::new(wrong)))?;
    if args.dry_run {
        return find_out(args, checked).await;
    }
    let Some(address) = checked.config.admin.as_ref().map(Operators::from) else {
        return Err(Failure::Other(
            "the configuration has no admin interface".to_owned(),
            "write `admin = \"127.0.0.1:9443\"` into it, in place of `admin = false` if that is there; `--dry-run` finds out what a gateway would route that starts now",
        ));
    };
    match ask(&address, args.timeout).await {
        Err(error) if error.is_nobody() && (args.consul || args.source.is_some()) => {
            // Before a gateway runs, nobody has to be told that none does.
            find_out(args, checked).await
        }
        asked => asked.map_err(|error| unanswered(&address, &error)),
    }
}

fn unanswered(address: &Operators, error: &AskError) -> Failure {
    let hint = match error.is_nobody() {
        true => "no gateway runs there; `--dry-run` finds out what one would route that starts now",
        false => "`--admin ADDRESS` names another; over a UNIX socket its owner and root may ask",
    };
    Failure::Other(format!("{address}: {error}"), hint)
}

/// What a gateway says that runs. What its parts say is told on stderr, where they are not well.
async fn ask(address: &Operators, patience: Duration) -> Result<Answer, AskError> {
    let json = address.get("/v1/routes", patience).await?;
    // What is ready is of no interest, and who asks may be here before the gateway is.
    let parts = address.get("/readyz", patience).await.unwrap_or_default();
    for line in String::from_utf8_lossy(&parts).lines() {
        if !line.ends_with(" ready") || line.ends_with(" not ready") {
            tell(&format!("the gateway says: {line}"));
        }
    }
    Ok(Answer {
        gateway: Some(address.clone()),
        json,
        is_whole: true,
    })
}

/// What a gateway would route that starts now with this configuration.
async fn find_out(args: &RoutesArgs, checked: Checked) -> Result<Answer, Failure> {
    let warnings = checked.warnings.render(log::colours_stderr());
    let _ = io::stderr().write_all(warnings.as_bytes());
    let found = serve::dry_run(checked, args.timeout, |part, why| {
        tell(&format!("{part} is not ready yet: {why}"));
    });
    let found = found.await.map_err(|error| {
        Failure::Other(
            format!("{error:#}"),
            "`portcullis check` tells every mistake in the configuration",
        )
    })?;
    for (part, state) in &found.parts {
        match state {
            State::Ready | State::Noted(_) => {}
            State::Degraded(what) => tell(&format!("{part}: {what}")),
            State::NotReady(why) => tell(&format!(
                "{part} is not ready after {:?}, and what it would tell is missing: {why}",
                args.timeout
            )),
        }
    }
    Ok(Answer {
        gateway: None,
        json: admin::routes::json(&found.snapshot, &found.parts),
        is_whole: found.is_whole(),
    })
}

/// The answer as it is written, and the exit status.
fn show(args: &RoutesArgs, answer: &Answer) -> Result<(Vec<u8>, u8), serde_json::Error> {
    let source = args.source.or(args.consul.then_some(Source::Consul));
    let listing = Listing::read(&answer.json, source.map(Source::as_str))?;
    let out = match (args.json, source) {
        (true, None) => answer.json.clone(),
        (true, Some(source)) => listing::only(&answer.json, source.as_str())?,
        (false, _) => {
            let only = source.map(|source| format!(", those of {} only", source.as_str()));
            let whose = match &answer.gateway {
                Some(address) => format!(
                    "of the gateway at {address}, generation {}",
                    listing.generation
                ),
                None => format!(
                    "that a gateway with {} would have if it started now",
                    args.config.display()
                ),
            };
            let drawing = Drawing {
                title: &format!("Routes {whose}{}.", only.unwrap_or_default()),
                listing: &listing,
                width: table::terminal_width(),
                colour: log::colours_stdout(),
            };
            drawing.to_string().into_bytes()
        }
    };
    let code = match (answer.is_whole, listing.is_all_usable()) {
        (false, _) => 1,
        (true, false) => UNUSABLE,
        (true, true) => 0,
    };
    Ok((out, code))
}

fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "warning: {}", printable(text, SHOWN));
}

fn fail(code: u8, message: &str) -> ExitCode {
    // With stderr gone there is nobody to tell.
    let _ = writeln!(io::stderr(), "{message}");
    ExitCode::from(code)
}
