//! The section `[consul]` as it is typed.

use super::Secret;
use super::catalog::Keys;
use super::login;
use crate::config::decode::{Item, List, Typed};
use crate::config::diagnostic::Findings;
use crate::config::{passphrase, tags};

/// `[consul]`. `None` is a key that is absent, or wrong and reported.
#[derive(Debug, Default)]
pub(in crate::config) struct Section {
    pub(super) address: Option<Typed<String>>,
    pub(super) token: Option<Typed<Secret>>,
    pub(super) token_file: Option<Typed<String>>,
    pub(super) roots: Option<List<Typed<String>>>,
    pub(super) chain: Option<Typed<String>>,
    pub(super) key: Option<Typed<String>>,
    pub(super) passphrase: passphrase::Keys,
    pub(super) server_name: Option<Typed<String>>,
    pub(super) mesh_identity: Option<Typed<String>>,
    pub(super) login: Option<login::Keys>,
    pub(super) datacenters: Option<List<Typed<String>>>,
    pub(super) namespaces: Option<List<Typed<String>>>,
    pub(super) partition: Option<Typed<String>>,
    pub(super) tagging: tags::Keys,
    pub(super) catalog: Keys,
    /// A mesh identity is written, right or wrong.
    pub(in crate::config) names_identity: bool,
}

impl Section {
    /// Reads the section; one that is no table is reported, and stands there nevertheless.
    pub(in crate::config) fn read(item: Item<'_>, findings: &mut Findings<'_>) -> Self {
        let Some(mut table) = item.table(findings) else {
            return Self {
                names_identity: true,
                ..Self::default()
            };
        };
        if let (Some(token), Some(file)) = (table.place("token"), table.place("token_file")) {
            findings.error(
                if token.start > file.start {
                    token
                } else {
                    file
                },
                "`consul` has both `token` and `token_file`",
                "keep one: the file can be written anew without a restart",
            );
        }
        let section = Self {
            address: table.take("address", findings, Item::string),
            token: table.take("token", findings, Item::secret),
            token_file: table.take("token_file", findings, Item::string),
            roots: table.take("roots", findings, Item::strings),
            chain: table.take("chain", findings, Item::string),
            key: table.take("key", findings, Item::string),
            passphrase: passphrase::Keys::take(&mut table, findings),
            server_name: table.take("server_name", findings, Item::string),
            names_identity: table.has("mesh_identity"),
            mesh_identity: table.take("mesh_identity", findings, Item::string),
            login: table.take("login", findings, login::Keys::read),
            datacenters: table.take("datacenters", findings, Item::strings),
            namespaces: table.take("namespaces", findings, Item::strings),
            partition: table.take("partition", findings, Item::string),
            tagging: tags::Keys::read(&mut table, findings),
            catalog: Keys::read(&mut table, findings),
        };
        table.finish(findings);
        section
    }
}
