//! `portcullis probe`: whether a machine can be reached directly, for ssh's `Match exec`.

use std::process::ExitCode;
use std::time::Duration;

use super::connect::{fail, timeout};
use crate::client::gateway::{Gateway, race};

/// How it is used.
const EXAMPLES: &str = "\
Exit codes: 0 if a connection was made, 1 if not (without a word), 2 for a wrong HOST.

Example, in ~/.ssh/config (portcullis ssh-config --only-away writes it):
  Match host \"*.vm.example.com\" !exec \"portcullis probe -- '%h:%p'\"
      ProxyCommand portcullis connect --gateway gate.example.com -- '%h' '%p'";

/// Connects to HOST without a gateway, and closes the connection. It sends nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ProbeArgs {
    /// The machine; the port is 22 if none is given
    #[arg(value_name = "HOST[:PORT]", value_parser = target)]
    pub target: Gateway,

    /// For finding and dialling it
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = timeout)]
    pub timeout: Duration,
}

/// Runs the command.
pub fn run(args: ProbeArgs) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &format!("portcullis: cannot start: {error}")),
    };
    let reached = runtime.block_on(async {
        let connect = async { race(args.target.resolve().await.ok()?).await.ok() };
        tokio::time::timeout(args.timeout, connect).await
    });
    // A thread may wait for DNS longer than anybody.
    runtime.shutdown_background();
    match reached {
        Ok(Some(_)) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn target(text: &str) -> Result<Gateway, String> {
    Gateway::parse(text, 22).map_err(|error| error.to_string())
}
