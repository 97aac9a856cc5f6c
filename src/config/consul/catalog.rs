//! What of Consul's catalog is exposed, and how it is read: Traefik's options, by Traefik's names and defaults.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::decode::{Item, List, Table, Typed};
use crate::config::diagnostic::Findings;
use crate::config::tags::{self, REFRESH_DEFAULT};
use crate::config::upstreams::UNSUPPORTED;
use crate::config::value::{choice, read};

/// Which of the catalog's instances are dialled and how, and how it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalog {
    /// Whether a service is dialled through the mesh whose tags do not say (`consulcatalog.connect`). Default: false.
    pub connect_by_default: bool,
    /// In which states instances are dialled. Default: passing and warning.
    pub strict_checks: BTreeSet<CheckState>,
    /// Which server may answer.
    pub consistency: Consistency,
    /// Everything is read again so often in quiet times. Default: 60 s, as the address of a node changes without any index
    /// telling, and an agent may hang.
    pub refresh_interval: Duration,
    /// Which of an instance's tagged addresses is dialled, where it has that one. Default: the plain address.
    pub tagged_address: Option<AddressTag>,
    /// Whether loopback addresses of other nodes and link-local ones are dialled. Default: false, as here they mean
    /// something else.
    pub allow_local_addresses: bool,
    /// Whether Consul is asked what intentions allow, before anybody is denied. Default: false.
    pub check_intentions: bool,
}

impl Default for Catalog {
    fn default() -> Self {
        Self {
            connect_by_default: false,
            strict_checks: [CheckState::Passing, CheckState::Warning].into(),
            consistency: Consistency::Default,
            refresh_interval: REFRESH_DEFAULT,
            tagged_address: None,
            allow_local_addresses: false,
            check_intentions: false,
        }
    }
}

/// Consul's names of tagged addresses, but for `consul-virtual`, which only a transparent proxy can dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressTag {
    /// Inside the datacenter.
    Lan,
    /// The same over IPv4.
    LanIpv4,
    /// The same over IPv6.
    LanIpv6,
    /// From other datacenters.
    Wan,
    /// The same over IPv4.
    WanIpv4,
    /// The same over IPv6.
    WanIpv6,
}

impl AddressTag {
    /// As Consul writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::LanIpv4 => "lan_ipv4",
            Self::LanIpv6 => "lan_ipv6",
            Self::Wan => "wan",
            Self::WanIpv4 => "wan_ipv4",
            Self::WanIpv6 => "wan_ipv6",
        }
    }
}

/// The worst of an instance's checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckState {
    /// All pass.
    Passing,
    /// One warns.
    Warning,
    /// One fails.
    Critical,
    /// Somebody took it, or its node, out of service.
    Maintenance,
}

/// Which of Consul's servers may answer (Consul's "Consistency Modes").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// The leader, by what it believes.
    #[default]
    Default,
    /// Any: cheaper, there without a leader, and a moment late.
    Stale,
    /// The leader, after it has asked the others whether it is.
    Consistent,
}

/// These keys of `[consul]` as they are typed. `None` is a key that is absent, or wrong and reported.
#[derive(Debug, Default)]
pub(super) struct Keys {
    connect_by_default: Option<Typed<bool>>,
    strict_checks: Option<List<Typed<String>>>,
    consistency: Option<Typed<String>>,
    refresh_interval: Option<Typed<String>>,
    tagged_address: Option<Typed<String>>,
    allow_local_addresses: Option<Typed<bool>>,
    check_intentions: Option<Typed<bool>>,
}

/// Traefik's options that are called otherwise here, or have nothing to say, with what to do.
const TRAEFIKS: &[(&str, &str)] = &[
    (
        "connect_aware",
        "leave it out: a `mesh_identity` is what makes the gateway part of the mesh",
    ),
    ("service_name", "its name here is `mesh_identity`"),
    ("require_consistent", "write `consistency = \"consistent\"`"),
    ("stale", "write `consistency = \"stale\"`"),
    (
        "cache",
        "leave it out: changes are waited for, and no agent's cache is read",
    ),
    (
        "watch",
        "leave it out: changes are always waited for, and served within a fraction of a second",
    ),
    (
        "endpoint",
        "its keys stand in [consul] itself: `address`, `token`, `roots`, `chain`, `key`, `server_name`",
    ),
];

impl Keys {
    pub(super) fn read(table: &mut Table<'_>, findings: &mut Findings<'_>) -> Self {
        let keys = Self {
            connect_by_default: table.take("connect_by_default", findings, Item::boolean),
            strict_checks: table.take("strict_checks", findings, Item::strings),
            consistency: table.take("consistency", findings, Item::string),
            refresh_interval: table.take("refresh_interval", findings, |item, findings| {
                item.quantity("s", findings)
            }),
            tagged_address: table.take("tagged_address", findings, Item::string),
            allow_local_addresses: table.take("allow_local_addresses", findings, Item::boolean),
            check_intentions: table.take("check_intentions", findings, Item::boolean),
        };
        table.refuse(TRAEFIKS, findings);
        table.refuse(UNSUPPORTED, findings);
        keys
    }

    /// What they mean. `names_identity` says that there is a mesh identity, right or wrong.
    pub(super) fn meaning(&self, names_identity: bool, findings: &mut Findings<'_>) -> Catalog {
        let default = Catalog::default();
        let yes = |typed: &Option<Typed<bool>>| typed.as_ref().map(|typed| typed.value);
        let connect = self.connect_by_default.as_ref();
        if let Some(typed) = connect.filter(|typed| typed.value && !names_identity) {
            findings.error(
                typed.span.clone(),
                format!("`{}`: the gateway has no identity in the mesh", typed.key),
                "write `mesh_identity`, the service whose certificate it shows to sidecars",
            );
        }
        Catalog {
            connect_by_default: yes(&self.connect_by_default).unwrap_or(default.connect_by_default),
            strict_checks: self.strict_checks(findings),
            consistency: (self.consistency.as_ref())
                .and_then(|typed| read(typed, findings, |text| choice(text, CONSISTENCIES)))
                .unwrap_or_default(),
            refresh_interval: tags::refresh_interval(self.refresh_interval.as_ref(), findings),
            tagged_address: (self.tagged_address.as_ref())
                .and_then(|typed| read(typed, findings, |text| choice(text, ADDRESS_TAGS))),
            allow_local_addresses: yes(&self.allow_local_addresses)
                .unwrap_or(default.allow_local_addresses),
            check_intentions: self.check_intentions(names_identity, findings),
        }
    }

    /// Without an identity in the mesh there is nobody to ask for.
    fn check_intentions(&self, names_identity: bool, findings: &mut Findings<'_>) -> bool {
        let Some(typed) = self.check_intentions.as_ref().filter(|typed| typed.value) else {
            return false;
        };
        if !names_identity {
            findings.error(
                typed.span.clone(),
                format!("`{}`: the gateway has no identity in the mesh", typed.key),
                "write `mesh_identity`, the service whose certificate it shows to sidecars",
            );
        }
        names_identity
    }

    /// The states by Consul's names, in any case; `any` is all of them.
    fn strict_checks(&self, findings: &mut Findings<'_>) -> BTreeSet<CheckState> {
        let Some(list) = &self.strict_checks else {
            return Catalog::default().strict_checks;
        };
        if list.is_empty {
            findings.missing(
                list.span.clone(),
                format!(
                    "`{}` is an empty list: no instance would be dialled",
                    list.key
                ),
                "leave it out for [\"passing\", \"warning\"], or write [\"any\"]",
            );
        }
        let states = list.value.iter().filter_map(|typed| {
            read(typed, findings, |text| {
                choice(&text.to_ascii_lowercase(), STATES)
            })
        });
        states.flatten().copied().collect()
    }
}

const CONSISTENCIES: &[(&str, Consistency)] = &[
    ("default", Consistency::Default),
    ("stale", Consistency::Stale),
    ("consistent", Consistency::Consistent),
];

const ADDRESS_TAGS: &[(&str, AddressTag)] = &[
    ("lan", AddressTag::Lan),
    ("lan_ipv4", AddressTag::LanIpv4),
    ("lan_ipv6", AddressTag::LanIpv6),
    ("wan", AddressTag::Wan),
    ("wan_ipv4", AddressTag::WanIpv4),
    ("wan_ipv6", AddressTag::WanIpv6),
];

const STATES: &[(&str, &[CheckState])] = &[
    ("passing", &[CheckState::Passing]),
    ("warning", &[CheckState::Warning]),
    ("critical", &[CheckState::Critical]),
    ("maintenance", &[CheckState::Maintenance]),
    (
        "any",
        &[
            CheckState::Passing,
            CheckState::Warning,
            CheckState::Critical,
            CheckState::Maintenance,
        ],
    ),
];
