//! Which routes never get a client, since others take all of theirs: for a listing, not for the data path.

use std::collections::HashMap;
use std::ptr;
use std::sync::Arc;

use super::{Bucket, Entry, Precedence, Table};
use crate::name::WildcardDepth;
use crate::rule::{Key, Syntax};
use crate::snapshot::{Listeners, Route, Source};

/// How much is looked at for all routes of a listing together, in rules, a long one counting more.
///
/// 4,000,000: a fraction of a second. 100,000 names and some hundred regular expressions take less; what takes more
/// are thousands of regular expressions beside thousands of names, each of which has to be tried on each.
pub(super) const MOST: usize = 4_000_000;

/// Finds out by which route each of a table's is hidden. What it learns of one serves for the next.
#[derive(Debug)]
pub struct Shadows<'t> {
    table: &'t Table,
    /// For the buckets that more than one route stands in.
    indexes: HashMap<*const Bucket, Index<'t>>,
    pub(super) left: usize,
}

/// What is known of a bucket.
#[derive(Debug, Default)]
struct Index<'t> {
    /// Those of one rule, in the order of precedence.
    same: HashMap<(Syntax, &'t str), Vec<&'t Entry>>,
    /// Those that take every client the bucket stands for, in the order of precedence.
    whole: Vec<&'t Entry>,
}

impl Table {
    /// What is known of the routes that get no client; made for one listing.
    pub fn shadows(&self) -> Shadows<'_> {
        Shadows {
            table: self,
            indexes: HashMap::new(),
            left: MOST,
        }
    }
}

impl<'t> Shadows<'t> {
    /// A route that takes every client which this one could have had, if there is one: it precedes it, and where it
    /// stands in the index it asks nothing more of a client, or exactly the same.
    pub fn of(&mut self, route: &Route) -> Option<&'t Arc<Route>> {
        let mut shadow = None;
        for key in route.rule.keys() {
            shadow = Some(&self.at(route, &key)?.route);
        }
        shadow
    }

    /// Whether as much was looked at as there was to look at: if not, a route that is hidden may look as if it were not.
    pub fn is_complete(&self) -> bool {
        self.left > 0
    }

    fn at(&mut self, route: &Route, key: &Key) -> Option<&'t Entry> {
        let seeker = Seeker {
            route,
            precedence: Precedence::of(route, key),
        };
        let table = self.table;
        let name = match key {
            Key::Exact(name) => Some(name),
            Key::Wildcard(_) | Key::Regexp | Key::Any => None,
        };
        let own = table.bucket(key);
        let others = table.buckets(name, WildcardDepth::One);
        let others = others.filter(|bucket| own.is_none_or(|own| !ptr::eq(*bucket, own)));
        own.and_then(|own| self.beside(&seeker, key, own))
            .or_else(|| {
                others
                    .into_iter()
                    .find_map(|bucket| self.above(&seeker, key, bucket))
            })
    }

    /// Looks among the routes that stand under the same key.
    fn beside(&mut self, seeker: &Seeker<'_>, key: &Key, bucket: &'t Bucket) -> Option<&'t Entry> {
        if let [only] = bucket.entries.as_slice()
            && ptr::eq(&*only.route, seeker.route)
        {
            return None;
        }
        if !self.indexes.contains_key(&ptr::from_ref(bucket)) {
            let mut index = Index::default();
            for entry in &bucket.entries {
                let rule = &entry.route.rule;
                if !self.pay(rule.text()) {
                    return None;
                }
                let same = index.same.entry((rule.syntax(), rule.text())).or_default();
                same.push(entry);
                if rule.covers(key) {
                    index.whole.push(entry);
                }
            }
            self.indexes.insert(bucket, index);
        }
        let rule = &seeker.route.rule;
        if !self.pay(rule.text()) {
            return None;
        }
        let index = self.indexes.get(&ptr::from_ref(bucket))?;
        let same = index.same.get(&(rule.syntax(), rule.text()));
        let lists = [same.map_or(&[][..], Vec::as_slice), &index.whole];
        let mut found = None;
        for list in lists {
            for &entry in list {
                if self.left == 0 {
                    return None;
                }
                self.left -= 1;
                if seeker.is_after(entry) {
                    found = [found, Some(entry)]
                        .into_iter()
                        .flatten()
                        .min_by(|a: &&Entry, b| a.precedence.cmp(&b.precedence));
                    break;
                }
            }
        }
        found
    }

    /// Looks among the routes under a key that is broader.
    fn above(&mut self, seeker: &Seeker<'_>, key: &Key, bucket: &'t Bucket) -> Option<&'t Entry> {
        for entry in &bucket.entries {
            if !self.pay(entry.route.rule.text()) {
                return None;
            }
            if seeker.is_after(entry) && entry.route.rule.covers(key) {
                return Some(entry);
            }
        }
        None
    }

    /// Takes from what is left what it costs to look at a rule; `false` if that is more than there is.
    fn pay(&mut self, rule: &str) -> bool {
        // A byte of a rule costs about a nanosecond, and so does the rest.
        self.left = self.left.saturating_sub(1 + rule.len() / 32);
        self.left > 0
    }
}

/// A route whose shadow is looked for, under one of its keys.
struct Seeker<'r> {
    route: &'r Route,
    precedence: Precedence,
}

impl Seeker<'_> {
    /// Whether the other route is asked first, wherever this one is asked.
    fn is_after(&self, other: &Entry) -> bool {
        let is_of_the_file = |route: &Route| route.source == Source::File;
        let precedes = match (is_of_the_file(&other.route), is_of_the_file(self.route)) {
            (true, false) if other.claim => true,
            // Where another route of the file claims the name, only those of the file count.
            (false, true) => false,
            _ => other.precedence < self.precedence,
        };
        let listeners = &other.route.listeners;
        precedes && (*listeners == Listeners::All || *listeners == self.route.listeners)
    }
}
