//! The agent that a section names, Consul's or Nomad's: where it listens, how it is known, and as whom it is asked.

mod address;
mod security;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use address::Parsed;

use super::decode::{List, Typed};
use super::diagnostic::{Findings, NOWHERE};
use super::value::{choice, read};
use super::{ConsulAddress, Environment, Secret, Token, files, passphrase};
use crate::tls::key::KeyFile;

/// An agent, and how it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Where it listens.
    pub address: ConsulAddress,
    /// Whether it is spoken to over TLS.
    pub https: bool,
    /// What is put before every path, if the API stands behind another server: empty, or `/prefix`.
    pub prefix: String,
    /// The token, if one is needed.
    pub token: Option<Token>,
    /// User and password for a server in front of the API (HTTP basic authentication).
    pub basic_auth: Option<(String, Secret)>,
    /// CAs of the agent's certificate, PEM; empty means the system's.
    pub roots: Vec<PathBuf>,
    /// The chain and key, PEM, that is shown to an agent which asks for one.
    pub certificate: Option<(PathBuf, KeyFile)>,
    /// The name that the agent proves, if it is not the one in its address.
    pub server_name: Option<String>,
}

/// What differs between the agents of one program and another: the section, its variables, and where one listens.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) section: &'static str,
    /// Of an agent on this machine.
    pub(super) port: u16,
    pub(super) address: &'static str,
    pub(super) token: &'static str,
    /// Names a file with the token.
    pub(super) token_file: Option<&'static str>,
    pub(super) auth: &'static str,
    /// Asks for TLS where the address does not.
    pub(super) ssl: Option<&'static str>,
    /// Asks, by this word, for an agent that is not verified.
    pub(super) unverified: (&'static str, bool),
    pub(super) ca_file: &'static str,
    pub(super) ca_folder: &'static str,
    pub(super) chain: &'static str,
    pub(super) key: &'static str,
    pub(super) server_name: &'static str,
    /// What a person who gave a bad address should write.
    pub(super) address_help: &'static str,
    /// A name that an agent proves.
    pub(super) name_example: &'static str,
    /// And for a bad token.
    pub(super) token_help: &'static str,
}

/// What is typed of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written<'a> {
    pub(super) address: &'a Option<Typed<String>>,
    pub(super) token: &'a Option<Typed<Secret>>,
    pub(super) token_file: &'a Option<Typed<String>>,
    pub(super) roots: &'a Option<List<Typed<String>>>,
    pub(super) chain: &'a Option<Typed<String>>,
    pub(super) key: &'a Option<Typed<String>>,
    pub(super) passphrase: &'a passphrase::Keys,
    pub(super) server_name: &'a Option<Typed<String>>,
}

/// What stands in for the address and the token where neither the file nor a variable has them.
#[derive(Clone, Debug, Default)]
pub(super) struct Fallback {
    pub(super) socket: Option<PathBuf>,
    /// Goes before the variable with the token, which is as old as the process.
    pub(super) token_file: Option<PathBuf>,
}

/// What is written, and what completes it.
pub(super) struct Reader<'a> {
    pub(super) program: &'static Program,
    pub(super) written: Written<'a>,
    pub(super) fallback: Fallback,
    pub(super) folder: &'a Path,
    pub(super) environment: &'a Environment,
}

/// Where the agent is asked.
struct Place {
    /// What says so.
    said: Typed<()>,
    address: ConsulAddress,
    https: bool,
    prefix: String,
}

impl Reader<'_> {
    /// Reads it. What is broken is reported, and its default stands in for it.
    pub(super) fn agent(&self, findings: &mut Findings<'_>) -> Agent {
        let place = self.place(findings);
        let token = self.token(findings);
        let basic_auth = self.environment.read(self.program.auth, findings);
        let basic_auth = basic_auth.map(|typed| {
            let (user, password) = typed.value.split_once(':').unwrap_or((&typed.value, ""));
            (user.to_owned(), Secret::new(password.to_owned()))
        });
        if !place.https && !is_local(&place.address) && (token.is_some() || basic_auth.is_some()) {
            let (key, address) = (&place.said.key, &place.address);
            findings.warning(
                Some(place.said.span.clone()),
                format!("`{key}`: {address} is spoken to over plain HTTP: whoever is on the way can read the token, and use it"),
                "write https://, or ask an agent on this machine",
            );
        }
        let security = self.security(&place, findings);
        Agent {
            address: place.address,
            https: place.https,
            prefix: place.prefix,
            token,
            basic_auth,
            roots: security.roots,
            certificate: security.certificate,
            server_name: security.server_name,
        }
    }

    /// A value that is written, or else that of a variable.
    fn either(
        &self,
        written: &Option<Typed<String>>,
        variable: &str,
        findings: &mut Findings<'_>,
    ) -> Option<Typed<String>> {
        written
            .clone()
            .or_else(|| self.environment.read(variable, findings))
    }

    /// A variable that says yes or no.
    fn switch(&self, variable: &str, findings: &mut Findings<'_>) -> Option<bool> {
        let typed = self.environment.read(variable, findings)?;
        // What Go's strconv.ParseBool takes.
        let words = [
            ("true", true),
            ("false", false),
            ("1", true),
            ("0", false),
            ("t", true),
            ("f", false),
        ];
        read(&typed, findings, |text| {
            choice(&text.to_ascii_lowercase(), &words)
        })
    }

    fn place(&self, findings: &mut Findings<'_>) -> Place {
        let Program { section, port, .. } = *self.program;
        let typed = self.either(self.written.address, self.program.address, findings);
        let parsed = typed.as_ref().and_then(|typed| {
            if typed.value.contains('@') {
                findings.conceal(typed.span.clone());
            }
            read(typed, findings, |text| address::parse(text, self.program))
        });
        let parsed = parsed.unwrap_or_else(|| match &self.fallback.socket {
            Some(path) if typed.is_none() => Parsed::socket(path.clone()),
            _ => Parsed::local(port),
        });
        let asked_for = self.program.ssl;
        let asked_for = asked_for.and_then(|variable| self.switch(variable, findings));
        let https = match parsed.https {
            // As for Consul's clients: a variable that asks for TLS is not outdone by another, only by what is written.
            Some(false) if self.written.address.is_none() => asked_for.unwrap_or(false),
            Some(https) => https,
            None => asked_for.unwrap_or(false),
        };
        let (variable, unverified) = self.program.unverified;
        if https && self.switch(variable, findings) == Some(unverified) {
            findings.warning(
                None,
                format!("`{variable}` is not obeyed: the agent's certificate is always verified"),
                format!(
                    "name the CA that it comes from: `roots` in [{section}], or {}",
                    self.program.ca_file
                ),
            );
        }
        let said = match typed {
            Some(typed) => typed.place(),
            None => Typed {
                key: format!("{section}.address"),
                value: (),
                span: NOWHERE,
            },
        };
        Place {
            said,
            address: parsed.address,
            https,
            prefix: parsed.prefix,
        }
    }

    /// The token. Of two variables the file's is taken, as Consul's own library does.
    fn token(&self, findings: &mut Findings<'_>) -> Option<Token> {
        let Written {
            token, token_file, ..
        } = self.written;
        let variable = |name: Option<&str>, findings: &mut Findings<'_>| {
            name.and_then(|name| self.environment.read(name, findings))
        };
        let (place, token) = if let Some(typed) = token {
            (typed.place(), Token::Value(typed.value.clone()))
        } else if let Some(typed) = token_file {
            let path = files::path(typed, self.folder, findings)?;
            (typed.place(), Token::File(path))
        } else if let Some(typed) = variable(self.program.token_file, findings) {
            let path = files::path(&typed, Path::new(""), findings)?;
            (typed.place(), Token::File(path))
        } else if let Some(path) = &self.fallback.token_file {
            let place = Typed {
                key: format!("{}.token_file", self.program.section),
                value: (),
                span: NOWHERE,
            };
            (place, Token::File(path.clone()))
        } else {
            let typed = variable(Some(self.program.token), findings)?;
            (typed.place(), Token::Value(Secret::new(typed.value)))
        };
        if let Err(error) = token.read() {
            findings.error(
                place.span,
                format!("`{}`: {error}", place.key),
                self.program.token_help,
            );
        }
        Some(token)
    }
}

fn is_local(address: &ConsulAddress) -> bool {
    match address {
        ConsulAddress::Unix(_) => true,
        ConsulAddress::Tcp(host, _) => match host.parse::<IpAddr>() {
            Ok(ip) => ip.to_canonical().is_loopback(),
            Err(_) => host == "localhost",
        },
    }
}
