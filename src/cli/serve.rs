//! `portcullis serve`: runs a gateway until a signal ends it.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::log::AccessLog;
use crate::{config, lifecycle, log, serve};

/// Exits 0 after a drain, 1 when the gateway cannot start, 2 when the configuration is wrong.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// The configuration
    #[arg(
        long,
        short,
        env = "PORTCULLIS_CONFIG",
        default_value = "portcullis.toml"
    )]
    pub config: PathBuf,
}

/// Runs the command.
pub fn run(args: ServeArgs) -> ExitCode {
    let checked = match config::load(&args.config) {
        Ok(checked) => checked,
        Err(diagnostics) => {
            show(&diagnostics);
            return ExitCode::from(2);
        }
    };
    show(&checked.warnings);
    gateway(checked.config)
}

/// Nothing, if nothing is wrong.
fn show(diagnostics: &config::Diagnostics) {
    // With stderr gone there is nobody to tell.
    let _ = std::io::stderr().write_all(diagnostics.render(log::colours_stderr()).as_bytes());
}

/// Runs a gateway with this configuration until SIGTERM or SIGINT.
fn gateway(config: config::Config) -> ExitCode {
    log::init(config.log.format);
    let access = AccessLog::start(config.log.format, Box::new(std::io::stdout()));
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async {
        let gateway = serve::start(config, access).await?;
        tokio::spawn(lifecycle::signals(gateway.shutdown())?);
        gateway.finished().await;
        anyhow::Ok(())
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "cannot start");
            ExitCode::FAILURE
        }
    }
}
