//! What `[consul]` means, completed from the environment as every client of Consul reads it.

use std::path::Path;

use super::section::Section;
use super::{Consul, login, places};
use crate::config::Environment;
use crate::config::agent::{Fallback, Program, Reader, Written};
use crate::config::decode::Typed;
use crate::config::diagnostic::Findings;
use crate::config::tags::is_visible;
use crate::config::value::{Wrong, read};

/// An agent of Consul.
pub(in crate::config) static CONSUL: Program = Program {
    section: "consul",
    port: 8500,
    address: "CONSUL_HTTP_ADDR",
    token: "CONSUL_HTTP_TOKEN",
    token_file: Some("CONSUL_HTTP_TOKEN_FILE"),
    auth: "CONSUL_HTTP_AUTH",
    ssl: Some("CONSUL_HTTP_SSL"),
    unverified: ("CONSUL_HTTP_SSL_VERIFY", false),
    ca_file: "CONSUL_CACERT",
    ca_folder: "CONSUL_CAPATH",
    chain: "CONSUL_CLIENT_CERT",
    key: "CONSUL_CLIENT_KEY",
    server_name: "CONSUL_TLS_SERVER_NAME",
    address_help: "write \"127.0.0.1:8500\", \"https://consul.internal:8501\" or \"unix:///run/consul.sock\"",
    name_example: "\"server.dc1.consul\"",
    token_help: "give the SecretID of an ACL token; none is needed where Consul has no ACLs",
};

/// Reads the section. What is broken is reported, and its default stands in for it.
pub(in crate::config) fn consul(
    section: &Section,
    folder: &Path,
    environment: &Environment,
    findings: &mut Findings<'_>,
) -> Consul {
    let reader = Reader {
        program: &CONSUL,
        written: Written {
            address: &section.address,
            token: &section.token,
            token_file: &section.token_file,
            roots: &section.roots,
            chain: &section.chain,
            key: &section.key,
            passphrase: &section.passphrase,
            server_name: &section.server_name,
        },
        fallback: Fallback::default(),
        folder,
        environment,
    };
    let agent = reader.agent(findings);
    Consul {
        address: agent.address,
        https: agent.https,
        prefix: agent.prefix,
        login: login::meaning(
            section.login.as_ref(),
            agent.token.as_ref(),
            folder,
            findings,
        ),
        token: agent.token,
        basic_auth: agent.basic_auth,
        roots: agent.roots,
        certificate: agent.certificate,
        server_name: agent.server_name,
        places: places::Keys {
            datacenters: section.datacenters.as_ref(),
            namespaces: section.namespaces.as_ref(),
            partition: section.partition.as_ref(),
        }
        .places(environment, findings),
        mesh_identity: section
            .mesh_identity
            .as_ref()
            .and_then(|typed| service_name(typed, findings)),
        tagging: (section.tagging).mean(
            "every service of the catalog, Consul's own among them,",
            findings,
        ),
        catalog: section.catalog.meaning(section.names_identity, findings),
    }
}

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
