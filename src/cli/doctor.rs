//! `portcullis doctor`: what is wrong, step by step, from a client's end.

use std::io::{self, Write};
use std::process::ExitCode;

mod client;
mod draw;

use super::connect::fail;
use super::way::{USAGE, WayArgs};
use crate::log;
use crate::name::HostName;
use crate::status::step::{Finding, Step};
use draw::Drawing;

const EXAMPLES: &str = "\
States: ok; warn, it works and should be looked at; fail; and ?, which cannot be
told from here. The exit code is connect's for the first failure (connect --help
lists them).

Examples:
  portcullis doctor --gateway gate.example.com db.vm.example.com
  portcullis doctor --json db.vm.example.com";

/// Takes every step of a connection to HOST through its gateway, as `connect` would, and tells how each one goes and how long
/// it takes. It sends the target nothing, and hangs up.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct DoctorArgs {
    /// The way there, for HOST.
    #[command(flatten)]
    pub way: WayArgs,

    /// One object of JSON: `end`, `about`, `ok`, `code`, `steps`
    #[arg(long)]
    pub json: bool,

    /// Whom to reach
    #[arg(value_name = "HOST", value_parser = HostName::parse)]
    pub host: Option<HostName>,
}

/// Runs the command.
pub fn run(args: DoctorArgs) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &format!("portcullis: cannot start: {error}")),
    };
    let code = match args.host {
        Some(host) => {
            let telling = Telling::new("client", host.to_string(), args.json);
            client::examine(args.way, host, telling, &runtime)
        }
        None => fail(
            USAGE,
            "portcullis: whom to reach?\nhint: portcullis doctor [--gateway HOST:PORT] HOST",
        ),
    };
    // A thread may wait for DNS longer than anybody.
    runtime.shutdown_background();
    code
}

/// Tells of steps when they are found, or of all at the end as JSON.
struct Telling {
    end: &'static str,
    about: String,
    json: bool,
    drawing: Drawing,
    steps: Vec<Step>,
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
        }
    }

    fn tell(&mut self, step: Step) {
        if !self.json {
            // A reader that has gone does not change what is found.
            let _ = write!(io::stdout(), "{}", self.drawing.step(&step));
        }
        self.steps.push(step);
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
    fn end(self, code: u8, summary: &str) -> ExitCode {
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
            let _ = writeln!(io::stdout(), "{text}");
        } else {
            let warnings = match self.count(Finding::Warn) {
                0 => String::new(),
                1 => "; 1 warning".to_owned(),
                many => format!("; {many} warnings"),
            };
            let _ = writeln!(io::stdout(), "\n{summary}{warnings}");
        }
        ExitCode::from(code)
    }
}
