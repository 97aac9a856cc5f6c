//! `tcp.middlewares.NAME`: the keys of the middlewares that tags define.

use super::{Place, TagError, Wrong, list};

/// A `tcp.middlewares.NAME`, as it was written: of a whole one there is one kind, with what it says.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Middleware {
    /// The `sourcerange` of its `ipallowlist`.
    pub ip_allow_list: Option<Vec<String>>,
    /// The same of an `ipwhitelist`, which that was called before.
    pub ip_white_list: Option<Vec<String>>,
    /// The `amount` of its `inflightconn`, if it says one.
    pub in_flight_conn: Option<Option<i64>>,
}

impl Middleware {
    /// Takes in the tag whose key goes on with `path`.
    pub(super) fn take(&mut self, path: &[&str], place: &Place<'_>) -> Result<(), TagError> {
        match path {
            [] => {}
            ["ipallowlist"] => drop(self.ip_allow_list.get_or_insert_default()),
            ["ipwhitelist"] => drop(self.ip_white_list.get_or_insert_default()),
            ["inflightconn"] => drop(self.in_flight_conn.get_or_insert_default()),
            ["ipallowlist", "sourcerange"] => self.ip_allow_list = Some(list(place.value)),
            ["ipwhitelist", "sourcerange"] => self.ip_white_list = Some(list(place.value)),
            ["inflightconn", "amount"] => self.in_flight_conn = Some(Some(place.number()?)),
            _ => return Err(place.wrong(Wrong::Unknown)),
        }
        Ok(())
    }
}
