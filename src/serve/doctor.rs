//! `portcullis doctor` on a gateway's host: what a start needs, looked at one by one, and what would be served.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, SystemTime};

use rustix::fs::{Access, access};
use tokio::time::timeout;

mod holder;
mod outward;
mod ports;
mod remedy;
mod rights;
mod upstreams;

use super::{Found, dry_run};
use crate::config::{Checked, Config};
use crate::identity;
use crate::log::printable;
use crate::net::limits::files;
use crate::sandbox::{Extent, Sandbox};
use crate::state;
use crate::status::State;
use crate::status::step::Step;
use crate::tls::chain::{self, Described, Time};
use crate::tls::files::{Certificate, OwnCertificate};
use crate::tls::mesh::Identity;

/// The steps that tell of sources.
const CONSUL: &str = "Consul";
const NOMAD: &str = "Nomad";

/// The steps that tell what their tokens may do.
const CONSUL_RIGHTS: &str = "Consul rights";
const NOMAD_RIGHTS: &str = "Nomad rights";

/// How much more than its patience a start without listeners may take: it logs out at its end.
const GOODBYE: Duration = Duration::from_secs(3);

/// Looks at everything that a gateway with this configuration needs of this machine, of what it asks, and of what it dials.
///
/// Nothing is listened on, written or changed. Each step that waits for somebody has `patience`.
pub async fn examine(checked: Checked, patience: Duration, tell: &mut dyn FnMut(Step)) {
    let config = checked.config.clone();
    ports::look(&config, tell);
    if config.admin.is_none() {
        tell(Step::unknown(
            "port",
            "there is no `admin`: nobody can ask for /readyz, /metrics and the routes; admin = \"127.0.0.1:9443\" in the configuration lets programs of this machine ask",
        ));
    }
    tell(open_files(&config));
    tell(sandbox(&config));
    if let Some(settings) = &config.state {
        tell(folder(settings));
    }
    for certificate in &checked.certificates {
        tell(of(certificate));
    }
    for own in &checked.own_certificates {
        tell(of_own(own));
    }
    tell(clock(&checked.certificates));
    let not_answer = outward::ask(&config, patience, tell).await;
    let found = timeout(
        patience + GOODBYE,
        dry_run(checked, patience, |_part, _why| {}),
    );
    match found.await {
        Ok(Ok(found)) => {
            parts(&found, &config, &not_answer, tell);
            upstreams::dial(&found.snapshot, patience, tell).await;
        }
        Ok(Err(error)) => tell(Step::fail(
            "routes",
            format!("{error:#}"),
            "portcullis check tells every mistake in the configuration",
        )),
        Err(_) => tell(Step::fail(
            "routes",
            "what would be served was not found out in time",
            "--timeout waits longer",
        )),
    }
}

fn open_files(config: &Config) -> Step {
    let name = "open files";
    let highest = files::highest_limit();
    match files::suffice(&config.limits, highest) {
        Err(error) => Step::fail(
            name,
            "the limit of open files has no room for `limits.connections`",
            error.to_string(),
        ),
        Ok(()) => {
            let files = highest.map_or_else(|| "no limit".to_owned(), |files| files.to_string());
            let room = match files::room(highest) {
                usize::MAX => "any number of".to_owned(),
                room => room.to_string(),
            };
            Step::ok(
                name,
                format!("{files} at most: room for {room} connections"),
            )
        }
    }
}

fn sandbox(config: &Config) -> Step {
    let name = "sandbox";
    if !config.sandbox {
        return Step::warn(
            name,
            "off by `insecure_no_sandbox = true`",
            "take it out of the configuration, if nothing else stands against the sandbox",
        );
    }
    let extent = Sandbox::possible();
    match (extent, extent.lack()) {
        (Extent::Whole, _) | (_, None) => Step::ok(name, "the kernel has all of it (Landlock)"),
        (Extent::ButFiles, Some(lack)) => Step::warn(
            name,
            lack,
            "/sys/kernel/security/lsm must list landlock (else boot with it in `lsm=`), and a container's seccomp profile let it pass; until then ProtectSystem=strict in systemd, or a read-only root, limits writing",
        ),
        (_, Some(lack)) => Step::warn(name, lack, "Linux 6.2 or newer has it"),
    }
}

/// Whether this user could keep the last good state there. Who serves may be another.
fn folder(settings: &state::Settings) -> Step {
    let (name, path) = ("state", &settings.folder);
    let shown = path.display();
    let writable = |path: &std::path::Path| access(path, Access::WRITE_OK | Access::EXEC_OK);
    let hint = format!(
        "give it to the user that serves: chown USER {shown} (StateDirectory= in systemd does)"
    );
    match fs::metadata(path) {
        Ok(is) if !is.is_dir() => Step::fail(name, format!("{shown} is no folder"), hint),
        Ok(_) => match writable(path) {
            Ok(()) => Step::ok(name, format!("{shown} can be written")),
            Err(error) => Step::fail(name, format!("{shown} cannot be written: {error}"), hint),
        },
        Err(_) => {
            let above = path.ancestors().skip(1).find(|above| above.is_dir());
            match above.map(writable) {
                Some(Ok(())) => {
                    Step::ok(name, format!("{shown} is not there yet, and can be made"))
                }
                _ => Step::fail(
                    name,
                    format!("{shown} is not there, and cannot be made"),
                    hint,
                ),
            }
        }
    }
}

fn of(certificate: &Certificate) -> Step {
    let names: Vec<_> = (certificate.names.iter().take(5))
        .map(ToString::to_string)
        .collect();
    let more = match certificate.names.len() {
        all if all > names.len() => format!(" and {} more", all - names.len()),
        _ => String::new(),
    };
    let (from, until) = (certificate.not_before, certificate.not_after);
    let time = chain::time(from, until, SystemTime::now());
    let detail = format!(
        "{}: for {}{more}; its key fits; {}",
        certificate.source.display(),
        names.join(", "),
        chain::told(time)
    );
    timed(time, detail, "clients refuse it")
}

/// Of one that upstreams, the peers of tunnels or agents are shown.
fn of_own(own: &OwnCertificate) -> Step {
    let time = chain::time(own.not_before, own.not_after, SystemTime::now());
    let detail = format!(
        "{}: shown to who is dialled; its key fits; {}",
        own.source.display(),
        chain::told(time)
    );
    timed(time, detail, "whoever verifies it refuses it")
}

fn timed(time: Time, detail: String, refused: &str) -> Step {
    let name = "certificate";
    match time {
        Time::Left(_) => Step::ok(name, detail),
        Time::Short(_) => Step::warn(
            name,
            detail,
            "it is in the last tenth of its time: see why it is not renewed",
        ),
        Time::Over(_) => Step::fail(name, detail, format!("{refused}: get a new one")),
        Time::NotYet(_) => Step::fail(
            name,
            detail,
            format!("{refused} until then: is this machine's clock right?"),
        ),
    }
}

fn clock(certificates: &[Certificate]) -> Step {
    let now = SystemTime::now();
    let shown = jiff::Timestamp::try_from(now).unwrap_or_default();
    let shown = shown.strftime("%F %H:%M UTC");
    match certificates.iter().find(|one| one.not_before > now) {
        Some(early) => Step::warn(
            "clock",
            format!("{shown}, before {} begins", early.source.display()),
            "set it right (timedatectl), or wait",
        ),
        None if certificates.is_empty() => Step::ok("clock", shown.to_string()),
        None => Step::ok("clock", format!("{shown}; every certificate has begun")),
    }
}

/// What each part would say of itself in `/readyz`, and who the gateway is. Of those whose agent does `not_answer` that is known.
fn parts(
    found: &Found,
    config: &Config,
    not_answer: &BTreeSet<&'static str>,
    tell: &mut dyn FnMut(Step),
) {
    let id = found.identity.as_deref();
    for (part, state) in &found.parts {
        let (name, asked, hint) = match &**part {
            identity::PART => (
                "identity",
                CONSUL,
                "the token needs service:write on the name of mesh_identity; see the README on Consul's rights",
            ),
            part if part.starts_with("consul") => (
                CONSUL,
                CONSUL,
                "if the agent runs: are the token's rights those that the README lists?",
            ),
            part if part.starts_with("nomad") => (
                NOMAD,
                NOMAD,
                "if the agent runs: may the token read and list jobs in the namespaces?",
            ),
            "names" => (
                "names",
                "",
                "look at the DNS servers of this machine (/etc/resolv.conf)",
            ),
            _ => (
                "routes",
                "",
                "portcullis routes --dry-run shows them one by one",
            ),
        };
        if matches!(state, State::NotReady(_)) && not_answer.contains(asked) {
            continue;
        }
        let text = state.text().map(|text| printable(text, 1024));
        let told = match (&**part, &text) {
            ("names", None) => {
                "every name of an upstream has an address, if there are any".to_owned()
            }
            (part, Some(text)) => format!("{part}: {text}"),
            (part, None) => format!("{part}: ready"),
        };
        tell(match (state, id) {
            (State::Ready, Some(id)) if name == "identity" => who(name, id),
            (State::Ready | State::Noted(_), _) => Step::ok(name, told),
            (State::Degraded(_), _) => Step::warn(name, told, hint),
            (State::NotReady(_), _) => Step::fail(name, told, hint),
        });
    }
    let (routes, services) = (config.routes.len(), found.snapshot.services().len());
    let detail = format!("{routes} in the file; sources tell of services: {services}");
    tell(Step::ok("routes", detail));
}

/// The gateway's own name in the mesh, and how long its certificate has to go.
fn who(name: &'static str, identity: &Identity) -> Step {
    let roots = match identity.roots.len() {
        1 => "1 root".to_owned(),
        many => format!("{many} roots"),
    };
    let leaf = identity.certificate.cert.first();
    let Some(leaf) = leaf.and_then(Described::of) else {
        return Step::ok(name, format!("{}, {roots} trusted", identity.id));
    };
    let time = leaf.time(SystemTime::now());
    let detail = format!("{}, {}, {roots} trusted", identity.id, chain::told(time));
    match time {
        Time::Left(_) => Step::ok(name, detail),
        Time::Short(_) | Time::Over(_) => Step::warn(
            name,
            detail,
            "it should have been renewed: the log and /readyz of the gateway that runs say why not",
        ),
        Time::NotYet(_) => Step::fail(
            name,
            detail,
            "sidecars refuse it until then: is this machine's clock right, and the server's?",
        ),
    }
}
