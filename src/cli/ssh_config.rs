//! `portcullis ssh-config`: the block of ssh's configuration that sends a domain through a gateway.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::connect::fail;
use super::way::{USAGE, environment};
use super::{passphrase, stdout};
use crate::client::gateway::Gateway;
use crate::client::replace::{NotReplaced, Replaceable};
use crate::client::ssh_config::{Block, Damaged, absolute, installed, removed};
use crate::client::way::{self, Lost, Typed};
use crate::name::{HostName, HostPattern};
use crate::stop;
use crate::tls::files::{FileError, Pair, load_roots};
use crate::tls::pin::Pin;

/// How it is used.
const EXAMPLES: &str = "\
Examples:
  portcullis ssh-config --gateway gate.test --domain '*.vm.test' --install
  ssh db.vm.test                  # scp, sftp, rsync and git find their way, too
  portcullis ssh-config --domain '*.vm.test' --remove";

/// Prints what ssh's configuration needs to reach the machines of a domain through a gateway, or installs it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct SshConfigArgs {
    /// Whose machines: '*.vm.example.com', or one name; may be repeated, each gets a block of its own
    #[arg(long, value_name = "DOMAIN", required = true, value_parser = domain)]
    pub domain: Vec<HostPattern>,

    /// The gateway; what client.toml says of the domain if none is given [env: PORTCULLIS_GATEWAY]
    #[arg(long, value_name = "HOST[:PORT]")]
    pub gateway: Option<Gateway>,

    /// Put the block into the file, in place of an earlier one; the file before is kept beside it
    #[arg(long)]
    pub install: bool,

    /// Take the block out of the file
    #[arg(long, conflicts_with = "install")]
    pub remove: bool,

    /// The file, in place of ~/.ssh/config
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Trust the CAs in this PEM file, and not the system's; may be repeated
    #[arg(long, value_name = "FILE")]
    pub ca: Vec<PathBuf>,

    /// Trust this key of the gateway's, sha256/BASE64; may be repeated
    #[arg(long, value_name = "PIN")]
    pub pin: Vec<Pin>,

    /// The certificate to show if the gateway asks for one (PEM, with its chain)
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,

    /// The certificate's key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,

    /// Use the gateway only where the machine itself does not answer within a second
    #[arg(long)]
    pub only_away: bool,

    /// Let sessions to one machine share a connection
    #[arg(long)]
    pub control_master: bool,
}

/// What keeps the command from its end, and what to do about it.
struct Refused {
    code: u8,
    message: String,
    hint: String,
}

/// Runs the command.
pub fn run(args: SshConfigArgs) -> ExitCode {
    let done = match args.install || args.remove {
        true => {
            // A signal that cannot be heard does what it does.
            let _ = stop::listen(&stop::AS_EVER);
            change(&args)
        }
        false => blocks(&args).map(|blocks| {
            // Printed, it may be for another machine.
            if let Err(error) = files(&args) {
                let told = passphrase::told(&error);
                let told = told.replacen("portcullis: ", "portcullis: warning: ", 1);
                let _ = writeln!(io::stderr(), "{told}");
            }
            let texts: Vec<_> = blocks.into_iter().map(|(_, text)| text).collect();
            texts.join("\n")
        }),
    };
    match done {
        Ok(said) => stdout::end(stdout::say(said.as_bytes()), 0),
        Err(Refused {
            code,
            message,
            hint,
        }) => fail(code, &format!("portcullis: {message}\nhint: {hint}")),
    }
}

/// The blocks with their texts.
fn blocks(args: &SshConfigArgs) -> Result<Vec<(Block, String)>, Refused> {
    let wrong = |message: String| Refused {
        code: 2,
        message,
        hint: "name it otherwise, or move it to a place with a plain name".to_owned(),
    };
    let program = program().map_err(|error| Refused {
        code: 1,
        message: format!("cannot find where this program is: {error}"),
        hint: "start it by its absolute path".to_owned(),
    })?;
    let program = absolute(&program).map_err(wrong)?;
    let gateway = match args.gateway.clone() {
        None => way::gateway(environment).map_err(lost)?,
        typed => typed,
    };
    if gateway.is_none() {
        args.domain.iter().try_for_each(has_gateway)?;
    }
    let flags = flags(args, gateway.as_ref()).map_err(wrong)?;
    let blocks = args.domain.iter().map(|domain| {
        let block = Block {
            domain: domain.clone(),
            program: PathBuf::from(&program),
            flags: flags.clone(),
            only_away: args.only_away,
            control_master: args.control_master,
        };
        let text = block.text().map_err(|error| wrong(error.to_string()))?;
        Ok((block, text))
    });
    blocks.collect()
}

/// This program by the path that it was started by, or found by in PATH, if that is one from the root: what a profile or a
/// package links there stays when a new version comes, and where the links lead may not.
fn program() -> io::Result<PathBuf> {
    let running = env::current_exe()?;
    let started = PathBuf::from(env::args_os().next().unwrap_or_default());
    let mut paths = match started.components().count() {
        1 if !started.is_absolute() => {
            let folders = env::var_os("PATH").unwrap_or_default();
            let paths = env::split_paths(&folders).map(|folder| folder.join(&started));
            paths.collect()
        }
        _ => vec![started],
    }
    .into_iter();
    let file = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
    let is_ours = file(&running)?;
    let ours = paths.find(|path| path.is_absolute() && file(path).is_ok_and(|at| at == is_ours));
    Ok(ours.unwrap_or(running))
}

/// Without a flag the person's file must know the way, which `connect` asks anew each time. Of a pattern any name will do.
fn has_gateway(domain: &HostPattern) -> Result<(), Refused> {
    let name = domain.to_string().replace('*', "any");
    let name = HostName::parse(&name).map_err(|error| Refused {
        code: 2,
        message: error.to_string(),
        hint: "name a domain, such as '*.vm.example.com'".to_owned(),
    })?;
    match way::find(Typed::default(), name.clone(), environment) {
        Ok(_) => Ok(()),
        Err(none @ Lost::NoGateway { .. }) => Err(Refused {
            code: USAGE,
            message: format!("no gateway is named for {domain}"),
            hint: none.hint().replace(name.as_str(), &domain.to_string()),
        }),
        Err(other) => Err(lost(other)),
    }
}

fn lost(lost: Lost) -> Refused {
    Refused {
        code: USAGE,
        message: lost.to_string(),
        hint: lost.hint(),
    }
}

/// What `connect` is told. Its files by their absolute paths: ssh may be started anywhere.
fn flags(args: &SshConfigArgs, gateway: Option<&Gateway>) -> Result<Vec<String>, String> {
    let mut flags = Vec::new();
    let mut add = |flag: &str, value: String| flags.extend([format!("--{flag}"), value]);
    if let Some(gateway) = gateway {
        add("gateway", gateway.to_string());
    }
    for file in &args.ca {
        add("ca", absolute(file)?);
    }
    for pin in &args.pin {
        add("pin", pin.to_string());
    }
    for (flag, file) in [("cert", &args.cert), ("key", &args.key)] {
        if let Some(file) = file {
            add(flag, absolute(file)?);
        }
    }
    Ok(flags)
}

/// What `connect` would say of the files that are named, but for keys that a passphrase must open: nobody is asked for one.
fn files(args: &SshConfigArgs) -> Result<(), FileError> {
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    load_roots(&args.ca.iter().map(absolute).collect::<Vec<_>>())?;
    match (&args.cert, &args.key) {
        (Some(chain), Some(key)) => Pair::check(&absolute(chain), &absolute(key)),
        _ => Ok(()),
    }
}

/// Changes the file; what to say of it.
fn change(args: &SshConfigArgs) -> Result<String, Refused> {
    let blocks = match args.install {
        true => blocks(args)?,
        false => Vec::new(),
    };
    if args.install {
        files(args).map_err(|error| Refused {
            code: USAGE,
            message: error.to_string(),
            hint: (error.help).unwrap_or_else(|| "look at the files that are named".to_owned()),
        })?;
    }
    let path = match &args.file {
        Some(path) => path.clone(),
        None => usual_file()?,
    };
    let file = match args.install {
        true => Replaceable::read_or_make_folder(&path),
        false => Replaceable::read(&path),
    };
    let file = file.map_err(unusable)?;
    let damaged = |error: Damaged| Refused {
        code: 1,
        message: format!("{}: {error}", file.path.display()),
        hint: "mend or remove that block by hand; nothing was changed".to_owned(),
    };
    let mut content = file.content.clone();
    if args.remove {
        for domain in &args.domain {
            content = removed(&content, domain).map_err(damaged)?;
        }
    }
    for (block, new) in blocks {
        content = installed(&content, &block, &new).map_err(damaged)?;
    }
    let shown = file.path.display();
    if content == file.content {
        return Ok(match args.remove {
            true => format!("{shown} has no such block: nothing to remove\n"),
            false => format!("{shown} has it already: nothing to change\n"),
        });
    }
    let backup = file.replace(&content).map_err(unusable)?;
    let mut kept = backup.map_or_else(String::new, |backup| {
        format!("; the file before is {}", backup.display())
    });
    if file.other_names() > 0 {
        kept.push_str(", as it is under its other names (hard links)");
    }
    if args.file.is_none() && args.install {
        warn_of_another_home(&file.path);
    }
    Ok(match args.remove {
        true => format!("removed from {shown}{kept}\n"),
        false => format!("installed in {shown}{kept}\n"),
    })
}

fn unusable(error: NotReplaced) -> Refused {
    Refused {
        code: 1,
        message: error.to_string(),
        hint: error.hint().to_owned(),
    }
}

/// ssh goes by the user's entry and not by HOME. What root writes into a person's home is for that person's ssh.
fn warn_of_another_home(installed: &Path) {
    let owner = fs::metadata(installed).map(|file| file.uid());
    let users = [Some(rustix::process::geteuid().as_raw()), owner.ok()];
    let read = users.map(|user| Some(home_of(user?)?.join(".ssh").join("config")));
    let is_it = |file: &PathBuf| fs::canonicalize(file).is_ok_and(|file| file == installed);
    if let [Some(own), _] = &read
        && !read.iter().flatten().any(is_it)
    {
        let own = own.display();
        // With stderr gone there is nobody to warn.
        let _ = writeln!(
            io::stderr(),
            "portcullis: warning: ssh reads {own}, and not this file: it does not go by HOME\nhint: name it by --file {own}, or to ssh by -F {}",
            installed.display()
        );
    }
}

/// The home of a user, as far as the system's own file tells (passwd(5)).
fn home_of(user: u32) -> Option<PathBuf> {
    let users = fs::read("/etc/passwd").ok()?;
    users.split(|byte| *byte == b'\n').find_map(|line| {
        let fields: Vec<_> = line.split(|byte| *byte == b':').collect();
        let number = str::from_utf8(fields.get(2)?).ok()?;
        let home = Path::new(OsStr::from_bytes(fields.get(5)?));
        (number.parse() == Ok(user)).then(|| home.to_owned())
    })
}

fn usual_file() -> Result<PathBuf, Refused> {
    let home = env::home_dir().filter(|home| home.is_absolute());
    let home = home.ok_or_else(|| Refused {
        code: 1,
        message: "this user has no home directory".to_owned(),
        hint: "set HOME, or name the file: --file FILE".to_owned(),
    })?;
    Ok(home.join(".ssh").join("config"))
}

/// A pattern that ssh's `Host` and our names both understand.
fn domain(text: &str) -> Result<HostPattern, String> {
    match HostPattern::parse(text).map_err(|error| error.to_string())? {
        HostPattern::Never(text) => Err(format!("{text:?} is no host name")),
        pattern => Ok(pattern),
    }
}
