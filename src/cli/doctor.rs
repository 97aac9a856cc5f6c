//! `portcullis doctor`: what is wrong, step by step, from a client's end or on a gateway's host.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

mod client;
mod draw;
mod host;

use super::way::WayArgs;
use super::{mistake, shortage, stdout};
use crate::client::exit::Exit;
use crate::client::report::Report;
use crate::log;
use crate::name::HostName;
use crate::status::step::{Finding, Step};
use draw::Drawing;

const EXAMPLES: &str = "\
Exit codes: connect's for a HOST; else 1, and 2 for a broken configuration.

Examples:
  portcullis doctor --gateway gate.example.com db.vm.example.com
  portcullis doctor --config /etc/portcullis/portcullis.toml --json";

/// Takes every step of a connection to HOST through its gateway, as `connect` would, and tells how each one goes and how long
/// it takes. It sends the target nothing, and hangs up.
///
/// Without HOST: looks at everything that a gateway on this machine needs.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct DoctorArgs {
    /// The way there, for HOST.
    #[command(flatten)]
    pub way: WayArgs,

    /// A gateway's configuration, as serve has it; without HOST
    #[arg(long, short, value_name = "FILE", conflicts_with = "host")]
    pub config: Option<PathBuf>,

    /// One object of JSON: `end`, `about`, `ok`, `code`, `steps`
    #[arg(long)]
    pub json: bool,

    /// Whom to reach
    #[arg(value_name = "HOST", value_parser = HostName::parse)]
    pub host: Option<HostName>,
}

/// Runs the command.
pub fn run(args: DoctorArgs) -> ExitCode {
    let json = args.json;
    match shortage::caught(|| examine(args)) {
        Ok(code) => code,
        Err(report) => mistake::end(&report, json),
    }
}

fn examine(args: DoctorArgs) -> io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let code = match args.host {
        Some(host) => {
            let telling = Telling::new("client", host.to_string(), args.json);
            client::examine(args.way, host, telling, &runtime)
        }
        None if is_for_a_host(&args.way) => {
            let hint = "portcullis doctor [--gateway HOST:PORT] HOST; without those flags it looks at a gateway's host";
            mistake::end(&Report::new(Exit::Usage, "whom to reach?", hint), args.json)
        }
        None => {
            let config = args
                .config
                .or_else(|| std::env::var_os("PORTCULLIS_CONFIG").map(Into::into));
            let config = config.unwrap_or_else(|| PathBuf::from("portcullis.toml"));
            let telling = Telling::new("gateway", config.display().to_string(), args.json);
            let (passphrase, patience) = (&args.way.passphrase, args.way.timeout);
            host::examine(&config, passphrase, patience, telling, &runtime)
        }
    };
    // A thread may wait for DNS longer than anybody.
    runtime.shutdown_background();
    Ok(code)
}

/// Whether flags were typed that mean nothing without a HOST.
fn is_for_a_host(way: &WayArgs) -> bool {
    let has_lists = [way.ca.len(), way.pin.len(), way.alpn.len()] != [0; 3];
    let has_files = way.cert.is_some() || way.client_config.is_some();
    let has_rest = way.gateway.is_some() || way.server_name.is_some() || way.proxy.is_some();
    has_lists || has_files || has_rest || way.insecure
}

/// Tells of steps when they are found, or of all at the end as JSON.
struct Telling {
    end: &'static str,
    about: String,
    json: bool,
    drawing: Drawing,
    steps: Vec<Step>,
    /// Whether all of it could be written so far.
    said: io::Result<()>,
}

/// Everything, for a program.
#[derive(serde::Serialize)]
struct Document<'a> {
    end: &'a str,
    about: &'a str,
    ok: bool,
    code: u8,
    steps: &'a [Step],
}

impl Telling {
    fn new(end: &'static str, about: String, json: bool) -> Self {
        Self {
            end,
            about,
            json,
            drawing: Drawing {
                width: draw::width(),
                colour: log::colours_stdout(),
            },
            steps: Vec::new(),
            said: Ok(()),
        }
    }

    fn tell(&mut self, step: Step) {
        if !self.json {
            let drawn = self.drawing.step(&step).to_string();
            self.say(&drawn);
        }
        self.steps.push(step);
    }

    fn say(&mut self, text: &str) {
        if self.said.is_ok() {
            self.said = stdout::say(text.as_bytes());
        }
    }

    /// How many there are of a kind.
    fn count(&self, state: Finding) -> usize {
        self.steps.iter().filter(|step| step.state == state).count()
    }

    /// The step that failed first.
    fn failed(&self) -> Option<&'static str> {
        let failed = self.steps.iter().find(|step| step.state == Finding::Fail);
        failed.map(|step| step.step)
    }

    /// Says what it all comes to; the command's exit code.
    fn end(mut self, code: u8, summary: &str) -> ExitCode {
        if self.json {
            let document = Document {
                end: self.end,
                about: &self.about,
                ok: code == 0,
                code,
                steps: &self.steps,
            };
            // Of texts and numbers nothing can fail.
            let text = serde_json::to_string_pretty(&document).unwrap_or_default();
            self.say(&format!("{text}\n"));
        } else {
            let warnings = match self.count(Finding::Warn) {
                0 => String::new(),
                1 => "; 1 warning".to_owned(),
                many => format!("; {many} warnings"),
            };
            self.say(&format!("\n{summary}{warnings}\n"));
        }
        stdout::end(self.said, code)
    }
}
