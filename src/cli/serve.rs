//! `portcullis serve`: runs a gateway until a signal ends it.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::passphrase::{self, Asking, PassphraseArgs};
use crate::config::{Checked, ListenAddress};
use crate::lifecycle::{Early, Handed, NotListening, Notify, Reload, Shutdown, Sockets};
use crate::log::AccessLog;
use crate::sandbox::{Extent, Sandbox, SandboxError, Writable};
use crate::tls::passphrase::Given;
use crate::{config, lifecycle, log, serve, state};

/// Exits 0 after a stop that was asked for, also where it had to cut connections; 1 when the gateway cannot start, or a part
/// of it dies; 2 when the configuration is wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = [STATUSES, passphrase::HELP].join("\n"))]
pub struct ServeArgs {
    /// The configuration
    #[arg(
        long,
        short,
        env = "PORTCULLIS_CONFIG",
        default_value = "portcullis.toml"
    )]
    pub config: PathBuf,

    /// What opens encrypted keys that name no passphrase of their own
    #[command(flatten)]
    pub passphrase: PassphraseArgs,
}

/// Whoever stops a gateway has what it wanted when it has stopped: systemd, Nomad and Kubernetes take any other status for a
/// failure. How many were cut is told by the log.
const STATUSES: &str = "\
SIGTERM and SIGINT drain, a second one cuts at once; SIGHUP reads the configuration again.

Exit statuses:
  0  stopped as it was told to, also before it served, and where the drain's deadline or a second signal cut connections
  1  it cannot start, or a part of it has died of a defect
  2  the configuration is wrong";

/// Runs the command.
pub fn run(args: ServeArgs) -> ExitCode {
    let source = config::Source::File(args.config);
    let load = |_: Result<&Sockets, &NotListening>, given: &Given| source.load(given);
    run_by(&args.passphrase, load, say)
}

/// Serves by what `load` reads, which may look at the sockets that were handed over; what is wrong with it is told by `tell`.
pub(super) fn run_by(
    passphrase: &PassphraseArgs,
    load: impl Fn(
        Result<&Sockets, &NotListening>,
        &Given,
    ) -> Result<config::Checked, config::Diagnostics>,
    tell: impl Fn(&config::Diagnostics),
) -> ExitCode {
    let early = match Early::listen() {
        Ok(early) => early,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: cannot listen for signals: {error}");
            return ExitCode::FAILURE;
        }
    };
    // Before there is a second thread.
    let sockets = Sockets::from_env();
    let given = match passphrase.given(Asking::AtTerminal) {
        Ok(given) => given,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{}", passphrase::told(&error));
            return ExitCode::from(2);
        }
    };
    let mut checked = match load(sockets.as_ref(), &given) {
        Ok(checked) => checked,
        Err(diagnostics) => {
            tell(&diagnostics);
            return ExitCode::from(2);
        }
    };
    if let Err(mistakes) = checked.folders() {
        tell(&mistakes);
        return ExitCode::from(2);
    }
    // There is no thread yet: those to come inherit it.
    let sandbox = enter(&checked);
    given.stop_asking();
    if sandbox.as_ref().is_ok_and(Sandbox::has_dropped) {
        // As a reload will read it. What only a capability could read is better missed now than then.
        checked = match load(sockets.as_ref(), &given) {
            Ok(checked) => checked,
            Err(diagnostics) => {
                tell(&diagnostics);
                let _ = writeln!(io::stderr(), "{OUT_OF_REACH}");
                return ExitCode::from(2);
            }
        };
    }
    gateway(checked, sandbox, sockets, early)
}

/// What is wrong with a configuration that was good before the sandbox.
const OUT_OF_REACH: &str = "hint: root may read any file until its capabilities (CAP_DAC_OVERRIDE) are dropped, as they are before it serves; \
     give the files to the user that runs the gateway";

/// How long the tasks that are left may take to end. What hangs in a file, and nobody waits for, keeps the process no longer.
///
/// 500 ms: they end within a turn, and all of a stop has its bound.
const LAST_TASKS: Duration = Duration::from_millis(500);

/// The sandbox that this configuration needs.
fn enter(checked: &Checked) -> Result<Sandbox, SandboxError> {
    let config = &checked.config;
    if !config.sandbox {
        return Ok(Sandbox::off());
    }
    let tunnels = config.tunnels.values().flat_map(|tunnel| &tunnel.listen);
    let sockets = (config.admin.iter().chain(tunnels)).filter_map(|address| match address {
        ListenAddress::Unix(path) => Some(path.clone()),
        ListenAddress::Tcp(_) => None,
    });
    // In the sandbox it could not be made. What keeps it from being made, or used, is told by what would write there.
    let folder = config.state.as_ref().map(|settings| &settings.folder);
    let files = folder.filter(|folder| state::make(folder).is_ok() || folder.is_dir());
    let writable = Writable {
        files: files.into_iter().cloned().collect(),
        sockets: sockets.collect(),
    };
    let programs: Vec<_> = checked.programs.iter().cloned().collect();
    Sandbox::enter(writable, &programs)
}

/// Nothing, if nothing is wrong.
pub(super) fn say(diagnostics: &config::Diagnostics) {
    let text = diagnostics.render(log::colours_stderr());
    // With stderr gone there is nobody to tell, and no reason not to serve.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// What a person sees drawn, one message each.
fn warn(diagnostics: &config::Diagnostics) {
    let path = diagnostics.path.display();
    for one in &diagnostics.list {
        let (line, column) = diagnostics.place(one).unzip();
        tracing::warn!(%path, line, column, help = one.help, "{}", one.message);
    }
}

/// Runs a gateway with this configuration until SIGTERM or SIGINT.
fn gateway(
    checked: config::Checked,
    sandbox: Result<Sandbox, SandboxError>,
    sockets: Result<Sockets, NotListening>,
    early: Early,
) -> ExitCode {
    let config::Log { format, access } = checked.config.log;
    let diagnostics = log::init(format);
    match log::stderr_is_json(format) {
        true => warn(&checked.warnings),
        false => diagnostics.print(&checked.warnings.render(log::colours_stderr())),
    }
    if let Some(malformed) = sockets.as_ref().ok().and_then(Sockets::malformed) {
        tracing::warn!("{malformed}");
    }
    let sandbox = match sandbox {
        Ok(sandbox) => sandbox,
        // Without the sandbox it would not be there either.
        Err(error @ SandboxError::Directory { .. }) => {
            tracing::error!(%error, "cannot start");
            return ExitCode::FAILURE;
        }
        Err(error) => {
            tracing::error!(%error, "cannot start; `insecure_no_sandbox = true` does without the sandbox");
            return ExitCode::FAILURE;
        }
    };
    tell_extent(sandbox.extent(), &checked.programs);
    raise_file_limit();
    let access = match access {
        true => AccessLog::start(format, Box::new(io::stdout())),
        false => AccessLog::off(),
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async {
        // Before anybody is told that it listens: who is may send a signal at once.
        let shutdown = Shutdown::new();
        let (reload, wishes) = Reload::new();
        tokio::spawn(lifecycle::signals(shutdown.clone(), reload.clone())?);
        early.hand_over(&reload);
        let handed = Handed {
            sockets: sockets?,
            notify: Notify::from_env(),
            sandbox: Some(sandbox),
        };
        let gateway = serve::start(checked, access, shutdown, (reload, wishes), handed).await?;
        gateway.finished().await
    });
    // Its tasks end, and take along what they made, such as the file of the admin socket.
    runtime.shutdown_timeout(LAST_TASKS);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "cannot serve");
            ExitCode::FAILURE
        }
    }
}

/// What is lacking is told at every start.
fn tell_extent(sandbox: Extent, programs: &BTreeSet<PathBuf>) {
    match sandbox.lack() {
        None if !programs.is_empty() => tracing::info!(
            ?programs,
            "the sandbox is whole: no privileges, no core dumps, writing nowhere else, executing these programs only"
        ),
        None => tracing::info!(
            "the sandbox is whole: no privileges, no core dumps, writing nowhere else, executing nothing"
        ),
        Some(lack) => tracing::warn!(lack, "the sandbox is not whole"),
    }
}

/// Takes as many file descriptors as the system allows: the soft limit is kept at 1,024 for programs that use select(2),
/// and a tunnel takes two.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, current = limit.current, "cannot raise the limit of open files");
    }
}
