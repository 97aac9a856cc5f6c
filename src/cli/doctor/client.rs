//! The doctor at a client's end: what says how the target is reached, and then the steps there.

use std::process::ExitCode;

use tokio::runtime::Runtime;

use super::super::way::{USAGE, WayArgs, environment};
use super::Telling;
use crate::client::connect::Connect;
use crate::client::doctor;
use crate::client::exit::Exit;
use crate::client::way::{self, Origin};
use crate::name::HostName;
use crate::status::step::{Finding, Step};

/// The first of all.
const CONFIGURATION: &str = "configuration";

/// Takes every step to the target.
pub(super) fn examine(
    args: WayArgs,
    target: HostName,
    mut telling: Telling,
    runtime: &Runtime,
) -> ExitCode {
    let typed = match args.typed() {
        Ok(typed) => typed,
        Err(report) => {
            telling.tell(Step::fail(CONFIGURATION, report.message, report.hint));
            return telling.end(USAGE, &format!("no way to {target} is tried"));
        }
    };
    let found = way::find_with_origin(typed, target.clone(), environment);
    let (connect, origin) = match found {
        Ok(found) => found,
        Err(lost) => {
            telling.tell(Step::fail(CONFIGURATION, lost.to_string(), lost.hint()));
            return telling.end(USAGE, &format!("no way to {target} is known"));
        }
    };
    telling.tell(Step::ok(CONFIGURATION, by_what(&connect, &origin)));
    let examined = runtime.block_on(doctor::examine(&connect, &mut |step| telling.tell(step)));
    let (exit, summary) = match (examined, telling.failed()) {
        (Ok(()), _) if telling.count(Finding::Unknown) == 2 => (
            Exit::Ended,
            format!("nothing fails on the way to {target}; whether it is up cannot be told"),
        ),
        (Ok(()), _) => (Exit::Ended, format!("{target} can be reached")),
        (Err(exit), Some(step)) => (
            exit,
            format!("{target} cannot be reached: it fails at {step}"),
        ),
        (Err(exit), None) => (exit, format!("{target} cannot be reached")),
    };
    telling.end(exit.code(), &summary)
}

/// What says how the target is reached.
fn by_what(connect: &Connect, origin: &Origin) -> String {
    let domain = origin.domain.as_ref().zip(origin.file.as_ref());
    let domain =
        domain.map(|(domain, file)| format!("[domains.\"{domain}\"] in {}", file.display()));
    let by = match (origin.is_typed, domain) {
        (true, None) => "as it is typed, or in PORTCULLIS_GATEWAY".to_owned(),
        (true, Some(domain)) if origin.is_another => format!(
            "as it is typed; {domain} is for another gateway: nothing of its ca, pin, cert, server_name and insecure counts"
        ),
        (true, Some(domain)) => format!("as it is typed; all else as {domain} says"),
        (false, Some(domain)) => format!("as {domain} says"),
        (false, None) => "by default".to_owned(),
    };
    let asked = match &connect.server_name {
        Some(name) => format!("; it is asked for {name}"),
        None => String::new(),
    };
    format!("the gateway {}, {by}{asked}", connect.gateway)
}
