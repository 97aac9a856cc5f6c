//! From what is typed to what it means: every mistake at once, each with its place and its remedy.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::{self, Read};
#[cfg(unix)]
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

#[cfg(unix)]
use rustix::fs::OFlags;
use toml::de::DeTable;

use super::decode::{List, Typed};
use super::diagnostic::Findings;
use super::file::{File, TlsOptions};
use super::upstreams::Own;
use super::value::{self, Wrong, choice, read};
use super::{
    Config, Diagnostic, Diagnostics, Environment, Level, Log, LogFormat, Middleware, Source,
    ciphers, consul, files, limits, listen, nomad, routes, state, syntax, transports, tunnels,
    upstreams,
};
use crate::retry;
use crate::tls::files::{Certificate, OwnCertificate};
use crate::tls::options::{ClientAuth, Options, Version};
use crate::tls::passphrase::Given;
use crate::watch::Files;

/// A configuration that is good, with what an operator should still know.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What it means.
    pub config: Config,
    /// The edge certificates, as they were read while checking.
    pub certificates: Vec<Certificate>,
    /// What upstreams, the peers of tunnels and agents are shown, each file once, as it was read while checking.
    pub own_certificates: Vec<OwnCertificate>,
    /// Warnings, never errors; and what it was read from.
    pub warnings: Diagnostics,
    /// What the process was given for keys that name no passphrase: it reads the next configuration too.
    pub given: Given,
    /// The programs that are run to read it, and will be to read it again.
    pub programs: BTreeSet<PathBuf>,
    /// Whether no key is written in it: all of it is what is done unless something is.
    pub is_blank: bool,
    /// Where it is read again.
    pub source: Source,
}

/// Reads and checks a file; relative paths in it start at its folder, and the environment of this process completes it.
///
/// An encrypted key must name its passphrase.
pub fn load(path: &Path) -> Result<Checked, Diagnostics> {
    load_with(path, &Given::default())
}

/// The same for a process that was given passphrases.
pub fn load_with(path: &Path, given: &Given) -> Result<Checked, Diagnostics> {
    read_as(path, std::fs::read(path), given)
}

/// The same for a file that serves already. It must be a regular one: a FIFO in its place would keep whoever reads it waiting,
/// and every later change with him.
pub fn reload(path: &Path, given: &Given) -> Result<Checked, Diagnostics> {
    read_as(path, read_regular(path), given)
}

fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    let mut options = OpenOptions::new();
    options.read(true);
    // Of a regular file it means nothing.
    #[cfg(unix)]
    options.custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let mut file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read_as(path: &Path, bytes: io::Result<Vec<u8>>, given: &Given) -> Result<Checked, Diagnostics> {
    let mut files = Files::default();
    files.note(path);
    if let Some(path) = given.watched() {
        files.note(path);
    }
    let unreadable = |message: String, help: &str| Diagnostics {
        path: path.to_owned(),
        text: String::new(),
        list: vec![Diagnostic {
            level: Level::Error,
            span: None,
            message,
            help: Some(help.to_owned()),
        }],
        files: files.clone(),
        may_pass: false,
    };
    let bytes = bytes.map_err(|error| Diagnostics {
        may_pass: retry::may_pass(&error),
        ..unreadable(
            format!("the configuration cannot be read: {error}"),
            "give the path of a TOML file that this user may read; config/minimal.toml shows the smallest",
        )
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error
            .as_bytes()
            .iter()
            .take(good)
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        unreadable(
            format!("the configuration is not UTF-8 text: the first wrong byte is in line {line}"),
            "save it as UTF-8",
        )
    })?;
    check(&text, path, &Environment::of_process(), files, given)
}

/// Checks a text as if it stood in `path`, which need not exist, in an empty environment. The files it names are read.
pub fn parse(text: &str, path: &Path) -> Result<Checked, Diagnostics> {
    parse_with(text, path, &Environment::default())
}

/// The same, completed from this environment where the text has a `[consul]` or `[nomad]` section.
pub fn parse_with(
    text: &str,
    path: &Path,
    environment: &Environment,
) -> Result<Checked, Diagnostics> {
    check(text, path, environment, Files::default(), &Given::default())
}

/// The same in an empty environment, for a process that was given passphrases.
pub(super) fn parse_given(text: &str, path: &Path, given: &Given) -> Result<Checked, Diagnostics> {
    check(text, path, &Environment::default(), Files::default(), given)
}

fn check(
    text: &str,
    path: &Path,
    environment: &Environment,
    files: Files,
    given: &Given,
) -> Result<Checked, Diagnostics> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut findings = Findings::new(text, files, given.clone());
    let (tree, errors) = DeTable::parse_recoverable(text);
    syntax::report(&errors, &mut findings);
    let is_blank = tree.get_ref().is_empty();
    let file = File::read(tree.get_ref(), &mut findings);
    let (config, certificates) = mean(&file, folder, environment, &mut findings);
    let is_broken = findings.has_errors();
    let (programs, own_certificates) = (findings.programs(), findings.own_certificates());
    let diagnostics = findings.finish(path.to_owned());
    if is_broken {
        return Err(diagnostics);
    }
    Ok(Checked {
        config,
        certificates,
        own_certificates,
        warnings: diagnostics,
        given: given.clone(),
        programs,
        is_blank,
        source: Source::File(path.to_owned()),
    })
}

/// What a file means. What is broken is reported and left out, so that all the rest is looked at too.
fn mean(
    file: &File,
    folder: &Path,
    environment: &Environment,
    findings: &mut Findings<'_>,
) -> (Config, Vec<Certificate>) {
    let listeners = listen::listeners(file, findings);
    let admin = listen::admin(file, &listeners, folder, findings);
    let tunnels_listen = tunnels::places_of(file, &listeners, admin.as_ref(), folder, findings);
    let admin_token = listen::admin_token(file, folder, findings);
    let certificates = files::certificates(&file.certificates, folder, findings);
    let tls_options = tls_options(file, folder, findings);
    let plain = tunnels::tcp(&tunnels_listen);
    let own = Own {
        listeners: &listeners,
        tunnels: &plain,
        admin: admin.as_ref(),
    };
    let limits = limits::limits(&file.limits, findings);
    let transports = transports::transports(file, folder, &limits, findings);
    let mut upstreams = upstreams::upstreams(file, own, &transports, folder, findings);
    let loaded = (!certificates.is_partial).then_some(&*certificates.loaded);
    let middlewares = middlewares(file, findings);
    let routes = routes::routes(file, own, &mut upstreams, loaded, findings);
    let tunnels = tunnels::tunnels(file, tunnels_listen, own, &mut upstreams, folder, findings);
    let consul = file.consul.as_ref();
    let consul = consul.map(|section| consul::consul(section, folder, environment, findings));
    if let Some(consul) = &consul {
        consul::locate(&mut upstreams, file, &consul.places, findings);
    }
    let nomad = file.nomad.as_ref();
    let nomad = nomad.map(|section| section.mean(folder, environment, findings));
    if let Some(nomad) = &nomad {
        nomad::locate(&mut upstreams, file, &nomad.namespaces, findings);
    }
    let log = log(file, findings);
    let state = state::state(&file.state, folder, environment, findings);
    let config = Config {
        listeners,
        admin,
        admin_token,
        certificates: certificates.files,
        tls_options,
        middlewares,
        routes,
        upstreams,
        tunnels,
        transports,
        limits,
        log,
        state,
        consul,
        nomad,
        sandbox: (file.insecure_no_sandbox.as_ref()).is_none_or(|switch| !switch.value),
    };
    (config, certificates.loaded)
}

/// The option sets, `default` always among them.
fn tls_options(
    file: &File,
    folder: &Path,
    findings: &mut Findings<'_>,
) -> BTreeMap<String, Options> {
    let mut sets = BTreeMap::from([("default".to_owned(), Options::default())]);
    for (name, typed) in &file.tls_options {
        read(name, findings, |text| value::name(text));
        let options = option_set(&name.key, typed, folder, findings);
        sets.insert(name.value.clone(), options);
    }
    sets
}

fn middlewares(file: &File, findings: &mut Findings<'_>) -> BTreeMap<String, Middleware> {
    let typed = file.middlewares.iter();
    let middlewares = typed.filter_map(|(name, section)| {
        read(name, findings, |text| value::name(text));
        Some((name.value.clone(), section.mean(findings)?))
    });
    middlewares.collect()
}

fn option_set(
    key: &str,
    typed: &TlsOptions,
    folder: &Path,
    findings: &mut Findings<'_>,
) -> Options {
    let default = Options::default();
    let mut version_of = |typed: &Option<Typed<String>>, default| {
        let typed = typed.as_ref();
        typed
            .and_then(|typed| read(typed, findings, |text| version(text)))
            .unwrap_or(default)
    };
    let min_version = version_of(&typed.min_version, default.min_version);
    let max_version = version_of(&typed.max_version, default.max_version);
    if let Some(max) = &typed.max_version
        && min_version > max_version
    {
        findings.error(
            max.span.clone(),
            format!("`{key}`: `max_version` is older than `min_version`: no client could connect"),
            "raise `max_version` to \"1.3\", or lower `min_version`",
        );
    }
    Options {
        min_version,
        max_version,
        ciphers: typed
            .ciphers
            .as_ref()
            .and_then(|list| ciphers::mean(list, min_version..=max_version, findings)),
        alpn: typed.alpn.as_ref().map(|list| alpn(list, findings)),
        client_auth: client_auth(key, typed, folder, findings),
    }
}

fn version(text: &str) -> Result<Version, Wrong> {
    match text {
        "1.0" | "1.1" => Err(Wrong::new(
            format!("TLS {text} is broken and forbidden (RFC 8996), and not built in"),
            "write \"1.2\" or \"1.3\"",
        )),
        _ => choice(text, &[("1.2", Version::Tls12), ("1.3", Version::Tls13)]),
    }
}

/// Protocol names (RFC 7301 §3.1): 1 to 255 bytes each. Two are not for the taking.
pub(super) fn alpn(list: &List<Typed<String>>, findings: &mut Findings<'_>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for typed in &list.value {
        let name = read(typed, findings, |text| match text.as_str() {
            "acme-tls/1" => Err(Wrong::new(
                "\"acme-tls/1\" is reserved: a CA proves a name with it (RFC 8737), which no route may answer",
                "remove it",
            )),
            "portcullis/1" => Err(Wrong::new(
                "\"portcullis/1\" is reserved: a gateway's clients, `portcullis connect` and tunnels by `gateway`, offer it of themselves",
                "remove it",
            )),
            text if !(1..=255).contains(&text.len()) => Err(Wrong::new(
                format!("a protocol name of {} bytes", text.len()),
                "write 1 to 255 bytes, such as \"h2\"; an empty list turns ALPN off",
            )),
            text if names.iter().any(|name| name == text) => Err(Wrong::new(
                format!("{text:?} is listed twice"),
                "remove one of the two",
            )),
            text => Ok(text.to_owned()),
        });
        names.extend(name);
    }
    names
}

fn client_auth(
    key: &str,
    typed: &TlsOptions,
    folder: &Path,
    findings: &mut Findings<'_>,
) -> ClientAuth {
    #[derive(Clone, Copy, PartialEq)]
    enum Asks {
        Nothing,
        Optional,
        Required,
    }
    let choices = [
        ("none", Asks::Nothing),
        ("optional", Asks::Optional),
        ("required", Asks::Required),
    ];
    let asks = typed.client_auth.as_ref().map(|typed| {
        let asks = read(typed, findings, |text| choice(text, &choices));
        (typed, asks)
    });
    let roots = typed.client_ca.as_ref().map(|list| {
        let roots = files::roots(list, folder, findings);
        (list, roots)
    });
    let is_written_wrong = matches!(asks, Some((_, None)));
    match (asks, roots) {
        (None | Some((_, Some(Asks::Nothing) | None)), Some((list, _))) if !is_written_wrong => {
            findings.error(
                list.span.clone(),
                format!("`{}` without `client_auth`: no client would be asked for a certificate", list.key),
                "add `client_auth = \"required\"` (what Traefik takes it to mean), or \"optional\"; or remove `client_ca`",
            );
            ClientAuth::None
        }
        (Some((_, Some(Asks::Optional | Asks::Required))), Some((list, _))) if list.is_empty => {
            findings.error(
                list.span.clone(),
                format!(
                    "`{}` is an empty list: no client could prove who it is",
                    list.key
                ),
                "name the file of the CA that issues the clients' certificates",
            );
            ClientAuth::None
        }
        (Some((auth, Some(Asks::Optional | Asks::Required))), None) => {
            findings.missing(
                auth.span.clone(),
                format!("`{key}.client_ca` is missing: `client_auth` asks for certificates that nothing could verify"),
                "add `client_ca = [\"clients-ca.pem\"]`",
            );
            ClientAuth::None
        }
        (Some((_, Some(Asks::Optional))), Some((_, roots))) => ClientAuth::Optional(roots),
        (Some((_, Some(Asks::Required))), Some((_, roots))) => ClientAuth::Required(roots),
        _ => ClientAuth::None,
    }
}

fn log(file: &File, findings: &mut Findings<'_>) -> Log {
    let choices = [
        ("auto", LogFormat::Auto),
        ("text", LogFormat::Text),
        ("json", LogFormat::Json),
    ];
    let format = file.log.format.as_ref();
    let format = format.and_then(|typed| read(typed, findings, |text| choice(text, &choices)));
    Log {
        format: format.unwrap_or_default(),
        access: file.log.access.as_ref().is_none_or(|access| access.value),
    }
}
