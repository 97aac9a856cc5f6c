//! What `[consul]` means, completed from the environment as every client of Consul reads it.

use std::net::IpAddr;
use std::path::Path;

use super::address::{self, Parsed};
use super::section::Section;
use super::security::Security;
use super::{Consul, ConsulAddress, Secret, Token};
use crate::config::Environment;
use crate::config::decode::{List, Typed};
use crate::config::diagnostic::{Findings, NOWHERE};
use crate::config::files;
use crate::config::value::{Wrong, choice, read};
use crate::rule::Syntax;

/// What is written, and what completes it.
pub(super) struct Reader<'a> {
    pub(super) section: &'a Section,
    pub(super) folder: &'a Path,
    pub(super) environment: &'a Environment,
}

/// Where Consul is asked.
pub(super) struct Agent {
    /// What says so.
    pub(super) place: Typed<()>,
    pub(super) address: ConsulAddress,
    pub(super) https: bool,
    prefix: String,
}

/// Reads the section. What is broken is reported, and its default stands in for it.
pub(in crate::config) fn consul(
    section: &Section,
    folder: &Path,
    environment: &Environment,
    findings: &mut Findings<'_>,
) -> Consul {
    let reader = Reader {
        section,
        folder,
        environment,
    };
    reader.refuse_enterprise(findings);
    let agent = reader.agent(findings);
    let token = reader.token(findings);
    let basic_auth = environment.read("CONSUL_HTTP_AUTH", findings);
    let basic_auth = basic_auth.map(|typed| {
        let (user, password) = typed.value.split_once(':').unwrap_or((&typed.value, ""));
        (user.to_owned(), Secret::new(password.to_owned()))
    });
    if !agent.https && !is_local(&agent.address) && (token.is_some() || basic_auth.is_some()) {
        let (key, address) = (&agent.place.key, &agent.address);
        findings.warning(
            Some(agent.place.span.clone()),
            format!("`{key}`: {address} is spoken to over plain HTTP: whoever is on the way can read the token, and use it"),
            "write https://, or ask an agent on this machine",
        );
    }
    let Security {
        roots,
        certificate,
        server_name,
    } = reader.security(&agent, findings);
    Consul {
        address: agent.address,
        https: agent.https,
        prefix: agent.prefix,
        token,
        basic_auth,
        roots,
        certificate,
        server_name,
        mesh_identity: section
            .mesh_identity
            .as_ref()
            .and_then(|typed| service_name(typed, findings)),
        entry_points: entry_points(section.entry_points.as_ref(), findings),
        allow_default_from_tags: section
            .allow_default_from_tags
            .as_ref()
            .is_some_and(|typed| typed.value),
        catalog: section.catalog.meaning(section.names_identity, findings),
        default_rule_syntax: section
            .default_rule_syntax
            .as_ref()
            .and_then(|typed| read(typed, findings, |text| choice(text, &RULE_SYNTAXES)))
            .unwrap_or_default(),
    }
}

/// As Traefik's `core.defaultRuleSyntax` has them.
const RULE_SYNTAXES: [(&str, Syntax); 2] = [("v3", Syntax::V3), ("v2", Syntax::V2)];

/// A name of a service, as Consul may hold it; anything visible but a `/`, which no name in the mesh can have.
pub(in crate::config) fn service_name(
    typed: &Typed<String>,
    findings: &mut Findings<'_>,
) -> Option<String> {
    read(typed, findings, |text| {
        if (1..=253).contains(&text.chars().count())
            && text.chars().all(|c| is_visible(c) && c != '/')
        {
            return Ok(text.clone());
        }
        Err(Wrong::new(
            format!("{text:?} is not the name of a service"),
            "write 1 to 253 visible characters without `/`, such as \"web\"",
        ))
    })
}

/// What `escape_debug` shows as it is, and quotes.
pub(super) fn is_visible(c: char) -> bool {
    !c.is_whitespace() && (c.escape_debug().len() == 1 || matches!(c, '"' | '\'' | '\\'))
}

impl Reader<'_> {
    /// A value that is written, or else that of a variable.
    pub(super) fn either(
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

    fn agent(&self, findings: &mut Findings<'_>) -> Agent {
        let typed = self.either(&self.section.address, "CONSUL_HTTP_ADDR", findings);
        let parsed = typed.as_ref().and_then(|typed| {
            if typed.value.contains('@') {
                findings.conceal(typed.span.clone());
            }
            read(typed, findings, |text| address::parse(text))
        });
        let parsed = parsed.unwrap_or_else(Parsed::default);
        let asked_for = self.switch("CONSUL_HTTP_SSL", findings);
        let https = match parsed.https {
            // As for Consul's clients: a variable that asks for TLS is not outdone by another, only by what is written.
            Some(false) if self.section.address.is_none() => asked_for.unwrap_or(false),
            Some(https) => https,
            None => asked_for.unwrap_or(false),
        };
        if https && self.switch("CONSUL_HTTP_SSL_VERIFY", findings) == Some(false) {
            findings.warning(
                None,
                "`CONSUL_HTTP_SSL_VERIFY` is not obeyed: the agent's certificate is always verified",
                "name the CA that it comes from: `roots` in [consul], or CONSUL_CACERT",
            );
        }
        let place = match typed {
            Some(typed) => typed.place(),
            None => Typed {
                key: "consul.address".to_owned(),
                value: (),
                span: NOWHERE,
            },
        };
        Agent {
            place,
            address: parsed.address,
            https,
            prefix: parsed.prefix,
        }
    }

    /// The token. Of two variables the file's is taken, as Consul's own library does.
    fn token(&self, findings: &mut Findings<'_>) -> Option<Token> {
        let Section {
            token, token_file, ..
        } = self.section;
        let (place, token) = if let Some(typed) = token {
            (typed.place(), Token::Value(typed.value.clone()))
        } else if let Some(typed) = token_file {
            let path = files::path(typed, self.folder, findings)?;
            (typed.place(), Token::File(path))
        } else if let Some(typed) = self.environment.read("CONSUL_HTTP_TOKEN_FILE", findings) {
            let path = files::path(&typed, Path::new(""), findings)?;
            (typed.place(), Token::File(path))
        } else {
            let typed = self.environment.read("CONSUL_HTTP_TOKEN", findings)?;
            (typed.place(), Token::Value(Secret::new(typed.value)))
        };
        if let Err(error) = token.read() {
            findings.error(
                place.span,
                format!("`{}`: {error}", place.key),
                "give the SecretID of an ACL token; none is needed where Consul has no ACLs",
            );
        }
        Some(token)
    }

    /// Services of other namespaces and partitions have other names in the mesh: they must not be taken for ours.
    fn refuse_enterprise(&self, findings: &mut Findings<'_>) {
        for name in ["CONSUL_NAMESPACE", "CONSUL_PARTITION"] {
            let typed = self.environment.read(name, findings);
            if let Some(typed) = typed.filter(|typed| typed.value != "default") {
                findings.error(
                    NOWHERE,
                    format!(
                        "`{name}`: {:?} is not supported yet: only \"default\" is",
                        typed.value
                    ),
                    "unset it",
                );
            }
        }
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

/// The entry points of tags that are ours; `https` and `websecure` if none are written, the names in Traefik's examples.
fn entry_points(list: Option<&List<Typed<String>>>, findings: &mut Findings<'_>) -> Vec<String> {
    let Some(list) = list else {
        return ["https", "websecure"].map(str::to_owned).to_vec();
    };
    if list.is_empty {
        findings.missing(
            list.span.clone(),
            format!(
                "`{}` is an empty list: no router that names its entry points would be taken",
                list.key
            ),
            "leave it out for [\"https\", \"websecure\"], or write a name",
        );
    }
    let mut names: Vec<String> = Vec::new();
    for typed in &list.value {
        let name = read(typed, findings, |text| {
            if text.is_empty() || !text.chars().all(|c| is_visible(c) && c != ',') {
                return Err(Wrong::new(
                    format!("{text:?} is not the name of an entry point"),
                    "write one name, as it stands in `traefik.tcp.routers.NAME.entrypoints`",
                ));
            }
            if names.contains(text) {
                return Err(Wrong::new(
                    format!("{text:?} is listed twice"),
                    "remove one of the two",
                ));
            }
            Ok(text.clone())
        });
        names.extend(name);
    }
    names
}
