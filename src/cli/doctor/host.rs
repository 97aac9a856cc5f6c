//! The doctor on a gateway's host: its configuration, and then what that needs.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::super::passphrase::{self, Asking, PassphraseArgs};
use super::super::way::USAGE;
use super::Telling;
use crate::client::way::TIMEOUT;
use crate::config;
use crate::serve;
use crate::status::step::{Finding, Step};

const CONFIGURATION: &str = "configuration";

/// So many warnings of a configuration are told one by one.
const WARNINGS: usize = 10;

/// Looks at everything that a gateway with this configuration needs.
pub(super) fn examine(
    path: &Path,
    passphrase: &PassphraseArgs,
    patience: Option<Duration>,
    mut telling: Telling,
    runtime: &Runtime,
) -> ExitCode {
    let given = match passphrase.given(Asking::Never) {
        Ok(given) => given,
        Err(error) => {
            let report = passphrase::report(&error);
            telling.tell(Step::fail(CONFIGURATION, report.message, report.hint));
            return telling.end(USAGE, "nothing was looked at");
        }
    };
    let checked = match config::load_with(path, &given) {
        Ok(checked) => checked,
        Err(mistakes) => {
            let (what, hint) = mistakes.first();
            let hint = match hint.is_empty() {
                true => "portcullis check tells every mistake in it".to_owned(),
                false => format!("{hint}; portcullis check tells every mistake in it"),
            };
            telling.tell(Step::fail(CONFIGURATION, what, hint));
            return telling.end(USAGE, "no gateway starts with this configuration");
        }
    };
    let (routes, tunnels) = (checked.config.routes.len(), checked.config.tunnels.len());
    telling.tell(Step::ok(
        CONFIGURATION,
        format!(
            "{}: routes {routes}, certificates {}, tunnels {tunnels}",
            path.display(),
            checked.certificates.len()
        ),
    ));
    for warning in checked.warnings.list.iter().take(WARNINGS) {
        let hint = warning.help.as_deref();
        let hint = hint.unwrap_or("portcullis check shows the place");
        telling.tell(Step::warn(CONFIGURATION, warning.message.as_str(), hint));
    }
    let patience = patience.unwrap_or(TIMEOUT);
    runtime.block_on(serve::examine(checked, patience, &mut |step| {
        telling.tell(step)
    }));
    match telling.count(Finding::Fail) {
        0 => telling.end(0, "a gateway can run here"),
        1 => telling.end(1, "1 thing fails"),
        many => {
            let summary = format!("{many} things fail");
            telling.end(1, &summary)
        }
    }
}
