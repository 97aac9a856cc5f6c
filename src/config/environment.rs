//! The variables of the environment that complete a configuration.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

use super::decode::Typed;
use super::diagnostic::{Findings, NOWHERE};

/// The variables of Consul's and Nomad's clients, `CONSUL_…` and `NOMAD_…`, and systemd's `STATE_DIRECTORY`. Others are left out.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// Those of this process.
    pub fn of_process() -> Self {
        let named = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            Some((name, value))
        });
        named.collect()
    }

    /// The value of a variable, as if it were typed in no line of the file. An empty one is none, as it is for every
    /// client of Consul.
    pub(super) fn read(&self, name: &str, findings: &mut Findings<'_>) -> Option<Typed<String>> {
        let value = self.0.get(name).filter(|value| !value.is_empty())?;
        let Some(text) = value.to_str() else {
            findings.error(
                NOWHERE,
                format!("`{name}` in the environment is not UTF-8 text"),
                "set it anew, or unset it",
            );
            return None;
        };
        Some(Typed {
            key: name.to_owned(),
            value: text.to_owned(),
            span: NOWHERE,
        })
    }
}

impl<N: Into<String>, V: Into<OsString>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let all = variables.into_iter();
        let named = all.map(|(name, value)| (name.into(), value.into()));
        Self(
            named
                .filter(|(name, _)| {
                    let prefixes = ["CONSUL_", "NOMAD_"];
                    prefixes.iter().any(|prefix| name.starts_with(prefix))
                        || name == "STATE_DIRECTORY"
                })
                .collect(),
        )
    }
}

/// The names only: a value may be a token.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
