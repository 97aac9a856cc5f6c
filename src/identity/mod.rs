//! The gateway's identity in a mesh: the newest certificate and roots that are good and belong together, and how they fare.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;

use crate::state::written;
use crate::status::State;
use crate::tls::mesh::{Identity, Leaf};

pub mod consul;

/// The part of the status that tells of it.
pub const PART: &str = "mesh identity";

/// What a mesh trusts.
#[derive(Clone, Debug)]
struct Trust {
    /// Whose IDs its roots vouch for.
    domain: String,
    /// One at least.
    roots: Arc<RootCertStore>,
    /// Their PEM as it came, to be kept.
    text: Arc<[String]>,
}

/// An identity that was kept on the disk.
#[derive(Debug)]
struct Kept {
    trust: Trust,
    leaf: Leaf,
    /// When its source last confirmed it.
    confirmed: SystemTime,
}

/// What a source tells; an error says what is wrong, for people.
#[derive(Clone, Debug)]
enum Heard {
    Trust(Result<Trust, String>),
    Leaf(Result<Leaf, String>),
}

impl Heard {
    /// Whether it does not serve, so that it is to be asked for again: to wait for a change could be to wait for days.
    fn is_trouble(&self, now: SystemTime) -> bool {
        match self {
            Self::Trust(trust) => trust.is_err(),
            Self::Leaf(leaf) => leaf.as_ref().map_or(true, |leaf| leaf.not_after <= now),
        }
    }
}

/// Keeps what was last good, from whatever source: bad news never replaces it.
///
/// Certificate and roots come apart and in any order, in a rotation too. They are taken together, the newest of both, if
/// the certificate is of the trust domain whose roots they are; a pair that does not fit waits for its other half.
#[derive(Debug)]
pub struct Keeper {
    /// The service that we are in the mesh, for messages.
    service: String,
    /// The namespace that it is in (Consul Enterprise), where one is asked for.
    namespace: Option<String>,
    trust: Option<Trust>,
    leaf: Option<Leaf>,
    /// The pair that is served with.
    current: Option<(Leaf, Arc<Identity>)>,
    trust_trouble: Option<String>,
    leaf_trouble: Option<String>,
    /// When what is served with had been confirmed, if it is from the disk; until the source has told both halves.
    restored: Option<SystemTime>,
    /// Which halves the source has told.
    has_told: (bool, bool),
    /// Why nothing is served from the disk.
    refused: Option<String>,
    /// Why what is from the disk serves no longer.
    withheld: Option<String>,
}

impl Keeper {
    /// For the identity of this service of this namespace, by default the token's own; nothing has been heard yet.
    pub fn new(service: String, namespace: Option<String>) -> Self {
        Self {
            service,
            namespace,
            trust: None,
            leaf: None,
            current: None,
            trust_trouble: None,
            leaf_trouble: None,
            restored: None,
            has_told: (false, false),
            refused: None,
            withheld: None,
        }
    }

    /// For the identity of this service, which is asked for anew, and perhaps elsewhere: the last one stays until then.
    pub fn go_on(self, service: String, namespace: Option<String>) -> Self {
        let unheard = || Some("it is asked for anew".to_owned());
        Self {
            current: self.current,
            restored: self.restored,
            trust_trouble: unheard(),
            leaf_trouble: unheard(),
            ..Self::new(service, namespace)
        }
    }

    /// Whether there is an identity that serves.
    pub fn has_one(&self) -> bool {
        self.serving().is_some()
    }

    /// The identity, unless it is withheld.
    fn serving(&self) -> Option<&Arc<Identity>> {
        let current = self.current.as_ref().map(|(_, identity)| identity);
        current.filter(|_| self.withheld.is_none())
    }

    /// Withholds what is from the disk when it is too old, as its `age` was judged, or its leaf has expired; until it is
    /// judged otherwise, or the source has told.
    fn judge(&mut self, age: Result<(), String>, now: SystemTime) {
        let leaf = self.current.as_ref().map(|(leaf, _)| leaf);
        let expired = leaf.filter(|leaf| leaf.not_after <= now).map(|leaf| {
            let end = written(leaf.not_after);
            format!("the leaf on the disk expired at {end}")
        });
        let why = age.err().or(expired).filter(|_| self.restored.is_some());
        match (&self.withheld, why) {
            (Some(_), Some(_)) => {}
            (_, why) => self.withheld = why,
        }
    }

    /// Whether what is on the disk is refused, and missed.
    fn is_refused(&self) -> bool {
        self.withheld.is_some() || (self.refused.is_some() && self.current.is_none())
    }

    /// Takes in news; gives the identity if it is a new one.
    fn hear(&mut self, heard: Heard, now: SystemTime) -> Option<Arc<Identity>> {
        match heard {
            Heard::Trust(Ok(trust)) => {
                self.trust = Some(trust);
                self.trust_trouble = None;
                self.has_told.0 = true;
            }
            Heard::Trust(Err(trouble)) => self.trust_trouble = Some(trouble),
            Heard::Leaf(Ok(leaf)) if leaf.not_after <= now => {
                let end = written(leaf.not_after);
                self.leaf_trouble = Some(format!("it had expired at {end} when it came"));
            }
            Heard::Leaf(Ok(leaf)) => {
                self.leaf = Some(leaf);
                self.leaf_trouble = None;
                self.has_told.1 = true;
            }
            Heard::Leaf(Err(trouble)) => self.leaf_trouble = Some(trouble),
        }
        let joined = self.join(now);
        if self.has_told == (true, true) && self.trouble().is_none() {
            self.restored = None;
        }
        joined
    }

    /// Serves with what was kept on the disk, in place of the half, or both, that was not heard yet.
    ///
    /// # Errors
    /// It does not serve any more.
    fn restore(&mut self, kept: Kept, now: SystemTime) -> Result<Option<Arc<Identity>>, String> {
        if self.current.is_some() {
            return Ok(None);
        }
        let Kept {
            trust,
            leaf,
            confirmed,
        } = kept;
        if leaf.not_after <= now && self.leaf.is_none() {
            let end = written(leaf.not_after);
            return Err(format!("the leaf on the disk expired at {end}"));
        }
        self.trust.get_or_insert(trust);
        self.leaf.get_or_insert(leaf);
        let joined = self.join(now);
        self.restored = joined.as_ref().map(|_| confirmed);
        Ok(joined)
    }

    /// What is served with, if the source has told both halves of it and nothing else since.
    fn confirmed(&self) -> Option<(&Trust, &Leaf)> {
        if self.restored.is_some() || self.trouble().is_some() {
            return None;
        }
        self.current.as_ref()?;
        self.trust.as_ref().zip(self.leaf.as_ref())
    }

    /// How it fares.
    fn state(&self, now: SystemTime) -> State {
        let service = &self.service;
        let trouble = self.trouble();
        let Some((leaf, _)) = &self.current else {
            let trouble = trouble.unwrap_or_else(|| match self.leaf {
                None => format!("no leaf for `{service}` yet"),
                Some(_) => "no roots yet".to_owned(),
            });
            let refused = self.refused.iter().map(|why| format!("; {why}"));
            return State::NotReady(trouble + &refused.collect::<String>());
        };
        let and = |trouble: Option<String>| trouble.map_or_else(String::new, |t| format!("; {t}"));
        if let Some(why) = &self.withheld {
            return State::NotReady(format!("{why}{}", and(trouble)));
        }
        let (begin, end) = (written(leaf.not_before), written(leaf.not_after));
        if leaf.not_after <= now {
            let text = format!("the leaf for `{service}` expired at {end}{}", and(trouble));
            return State::Degraded(text);
        }
        if now < leaf.not_before {
            return State::Degraded(format!(
                "the leaf for `{service}` begins at {begin}: is this machine's clock right?"
            ));
        }
        if let Some(at) = self.restored {
            let at = written(at);
            return State::Degraded(format!(
                "the identity of `{service}` is from the disk, as it was at {at}, and valid until {end}{}",
                and(trouble)
            ));
        }
        match trouble {
            trouble if last_tenth(leaf) <= now => State::Degraded(format!(
                "the leaf for `{service}` expires at {end}, and no other has come{}",
                and(trouble)
            )),
            Some(trouble) => {
                State::Degraded(format!("{trouble}; the last good is valid until {end}"))
            }
            None => State::Ready,
        }
    }

    /// How long until the state changes without any news.
    fn next_change(&self, now: SystemTime) -> Option<Duration> {
        let (leaf, _) = self.current.as_ref()?;
        [leaf.not_before, last_tenth(leaf), leaf.not_after]
            .into_iter()
            .filter_map(|at| at.duration_since(now).ok())
            .filter(|left| !left.is_zero())
            .min()
    }

    fn join(&mut self, now: SystemTime) -> Option<Arc<Identity>> {
        let (trust, leaf) = (self.trust.as_ref()?, self.leaf.as_ref()?);
        if leaf.id.trust_domain() != trust.domain {
            return None;
        }
        if let Some((_, identity)) = &self.current
            && identity.certificate.cert == leaf.certificate.cert
            && identity.roots.roots == trust.roots.roots
        {
            return None;
        }
        let mut identity = Identity::new(leaf, Arc::clone(&trust.roots));
        identity.former = self.former(leaf, now);
        let identity = Arc::new(identity);
        self.current = Some((leaf.clone(), Arc::clone(&identity)));
        Some(identity)
    }

    /// The last good one in another trust domain than the leaf's.
    fn former(&self, leaf: &Leaf, now: SystemTime) -> Option<Arc<Identity>> {
        let (_, last) = self.current.as_ref()?;
        let former = match last.id.trust_domain() == leaf.id.trust_domain() {
            true => last.former.clone(),
            // Of those before it nobody asks any more.
            false => Some(Arc::new(Identity {
                former: None,
                ..Identity::clone(last)
            })),
        };
        former.filter(|former| former.not_after > now)
    }

    /// What is wrong with the newest that was heard.
    fn trouble(&self) -> Option<String> {
        let service = &self.service;
        let (new, yet) = match self.current {
            Some(_) => ("new ", ""),
            None => ("", " yet"),
        };
        if let Some(trouble) = &self.leaf_trouble {
            return Some(format!("no {new}leaf for `{service}`{yet}: {trouble}"));
        }
        if let Some(trouble) = &self.trust_trouble {
            return Some(format!("no {new}roots{yet}: {trouble}"));
        }
        let (trust, leaf) = (self.trust.as_ref()?, self.leaf.as_ref()?);
        let domain = leaf.id.trust_domain();
        (domain != trust.domain).then(|| {
            format!(
                "the leaf for `{service}` is of the trust domain {domain}, and the roots are those of {}",
                trust.domain
            )
        })
    }
}

/// A CA that renews in time has renewed before.
fn last_tenth(leaf: &Leaf) -> SystemTime {
    let life = leaf.not_after.duration_since(leaf.not_before);
    let tenth = life.unwrap_or_default() / 10;
    leaf.not_after.checked_sub(tenth).unwrap_or(leaf.not_after)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
