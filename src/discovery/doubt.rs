//! Which disappearances from a catalog are believed: a bad answer must not take routes down.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::api::http::{Answer, TokenId};

/// Between two questions whether it is true, while something is doubted.
///
/// 5 s: longer than an election among servers, or the start of one.
pub(super) const ASKED_AGAIN: Duration = Duration::from_secs(5);

/// How long answers must agree on what is gone before it is believed against a doubt, where other services are listed.
///
/// 10 min: the agents of a cluster that was restored have told of their services again by then, and whoever gave the gateway
/// another token, or another policy, is still there to read what it says of them.
const AGREED: Duration = Duration::from_secs(10 * 60);

/// The same where none is left. 24 h: as long as what was kept on the disk is served by default. A gateway that shall see
/// nothing needs no source, so that this is a mistake, and of one that is made in the night somebody hears in the morning.
const AGREED_ON_NOTHING: Duration = Duration::from_secs(24 * 60 * 60);

/// As many names are told of a doubt.
const NAMES_SHOWN: usize = 3;

/// The services that would be missed, and those that are missing and not given up.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// With the answer that listed each last.
    seen: BTreeMap<Arc<str>, Sight>,
    /// Whether something was left out of the last answer that nothing was missing from.
    filtered: bool,
    missing: BTreeSet<Arc<str>>,
    /// Since when answers to this token, with this flag and this bound, have agreed that each of them is missing.
    agreed: BTreeMap<Arc<str>, Instant>,
    agreed_by: Option<(TokenId, bool, Duration)>,
    /// How long they must.
    bound: Duration,
    why: Option<Why>,
    /// The last answer that nothing was missing from.
    last: Option<Sight>,
    /// When the catalog was last asked for the sake of a doubt.
    asked: Option<Instant>,
    /// Since when each answer to that has listed none of the services, and could be believed.
    empty_since: Option<Instant>,
    /// Services that a watch before this one knew, until an answer that can be believed lists any.
    inherited: BTreeSet<Arc<str>>,
    /// As whom the last answer was asked that nothing was missing from, be it of before this process.
    token: Option<TokenId>,
}

/// Of an answer about the catalog, what it is compared with later.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Sight {
    index: u64,
    token: TokenId,
    /// Whether something was left out of it.
    filtered: bool,
}

/// Why it is not believed that a service is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Why {
    #[error("the server that answered knows no leader")]
    NoLeader,
    #[error("what ACLs hide from its token has changed")]
    Filtered,
    #[error("it was asked with another ACL token than before")]
    OtherToken,
    #[error("no ACL token was sent, and what no policy allows is hidden")]
    NoToken,
    #[error(
        "the answer is older than what was known (index {0} after {1}), as if the server had lost its data"
    )]
    Older(u64, u64),
    #[error("nothing is left, so it is asked again")]
    Empty,
}

impl Why {
    /// Whether answers that agree for long end the doubt. Who is not known gets an empty list for an answer, for ever.
    fn may_pass(self) -> bool {
        match self {
            Self::Filtered | Self::OtherToken | Self::Older(..) => true,
            Self::NoLeader | Self::NoToken | Self::Empty => false,
        }
    }
}

impl Doubts {
    /// Services that were listed by an answer of before this process: they are missed like others.
    pub(super) fn begin_with(&mut self, names: impl Iterator<Item = Arc<str>>, last: Sight) {
        self.seen = names.map(|name| (name, last)).collect();
        self.token = Some(last.token);
        self.filtered = last.filtered;
    }

    /// What a later answer is to be compared with; none while something is missing.
    pub(super) fn settled(&self) -> Option<Sight> {
        self.last.filter(|_| self.missing.is_empty())
    }

    /// Would miss these services, which were known by this token and flag before the watch was started anew.
    pub(super) fn inheriting(
        inherited: BTreeSet<Arc<str>>,
        token: Option<TokenId>,
        filtered: bool,
    ) -> Self {
        Self {
            inherited,
            token,
            filtered,
            ..Self::default()
        }
    }

    /// Whether nothing that can be believed has been heard yet of what was known before.
    pub(super) fn is_inheriting(&self) -> bool {
        !self.inherited.is_empty()
    }

    /// As whom the last answer was asked that nothing was missing from, and whether something was left out of it.
    pub(super) fn asker(&self) -> (Option<TokenId>, bool) {
        (self.token, self.filtered)
    }

    /// Takes in what an answer about the catalog says of itself, and the services of interest that it lists; `is_listed`
    /// tells whether any other name is listed. `asked` says that the question was asked for the sake of a doubt, in
    /// consistent mode. Returns the services that are gone for good.
    pub(super) fn judge(
        &mut self,
        answer: &Answer<()>,
        listed: &BTreeSet<Arc<str>>,
        is_listed: impl Fn(&str) -> bool,
        asked: bool,
        now: Instant,
    ) -> Vec<Arc<str>> {
        if asked {
            self.asked = Some(now);
        }
        // What is listed and no longer of interest is not missed.
        self.seen
            .retain(|name, _| listed.contains(name) || !is_listed(name));
        let mut missing: Vec<_> = self
            .seen
            .iter()
            .filter(|(name, _)| !listed.contains(*name))
            .map(|(name, sight)| (Arc::clone(name), *sight))
            .collect();
        // Of what was known before, a list by a leader leaves nothing in doubt: whoever is not in it was not asked for under
        // the configuration of today. One without any of them may be of a Consul that has lost its data.
        if !listed.is_empty() && answer.known_leader {
            self.inherited.clear();
        }
        let before = Sight {
            index: 0,
            token: self.token.unwrap_or(answer.token),
            filtered: self.filtered,
        };
        let inherited = self.inherited.iter();
        let inherited = inherited.filter(|name| !is_listed(name) && !listed.contains(*name));
        let unseen = inherited.filter(|name| !self.seen.contains_key(*name));
        missing.extend(unseen.map(|name| (Arc::clone(name), before)));
        let sight = Sight {
            index: answer.index,
            token: answer.token,
            filtered: answer.filtered,
        };
        let seen = listed.iter().map(|name| (Arc::clone(name), sight));
        self.seen.extend(seen);

        self.bound = match listed.is_empty() {
            true => AGREED_ON_NOTHING,
            false => AGREED,
        };
        let bound = self.bound;
        let since = self.agreed_since(answer, &missing, now);
        let mut given_up = 0;
        let mut is_agreed = |name: &Arc<str>, why: Why| {
            let since = since.get(name).copied().unwrap_or(now);
            let is_agreed = asked && why.may_pass() && now - since >= bound;
            given_up += usize::from(is_agreed);
            is_agreed
        };
        let (mut gone, mut kept) = (Vec::new(), BTreeSet::new());
        self.why = None;
        if listed.is_empty() && !missing.is_empty() {
            self.why = self.why_not_empty(answer, &missing, asked, now);
            for (name, _) in missing {
                match self.why {
                    Some(why) if !is_agreed(&name, why) => kept.insert(name),
                    Some(_) | None => {
                        gone.push(name);
                        false
                    }
                };
            }
            self.why = self.why.filter(|_| !kept.is_empty());
        } else {
            self.empty_since = None;
            for (name, sight) in missing {
                match self.why_not_gone(answer, sight) {
                    Some(why) if !is_agreed(&name, why) => {
                        self.why.get_or_insert(why);
                        kept.insert(name);
                    }
                    Some(_) | None => gone.push(name),
                }
            }
        }
        if given_up > 0 {
            tracing::warn!(
                services = given_up,
                "services are gone that were served on in doubt: all answers since have agreed"
            );
        }
        self.missing = kept;
        self.agreed = since;
        self.agreed.retain(|name, _| self.missing.contains(name));
        for name in &gone {
            self.seen.remove(name);
            self.inherited.remove(name);
        }
        if self.missing.is_empty() {
            self.inherited.clear();
            self.token = Some(answer.token);
            self.filtered = answer.filtered;
            self.last = Some(sight);
            self.asked = None;
            self.empty_since = None;
        }
        gone
    }

    /// The question that was asked for the sake of a doubt has no answer.
    pub(super) fn unanswered(&mut self, now: Instant) {
        self.asked = Some(now);
        self.empty_since = None;
    }

    /// When the catalog is to be asked in consistent mode, for the sake of a doubt.
    pub(super) fn ask_at(&self, now: Instant) -> Option<Instant> {
        let doubted = !self.missing.is_empty();
        doubted.then(|| self.asked.map_or(now, |asked| asked + ASKED_AGAIN))
    }

    /// Whether a service is missing, and served on.
    pub(super) fn keep(&self, name: &str) -> bool {
        self.missing.contains(name)
    }

    /// What is doubted, for people; `source` is whose catalog it is.
    pub(super) fn told(&self, source: &str) -> Option<String> {
        let why = self.why?;
        let mut names: Vec<String> = (self.missing.iter().take(NAMES_SHOWN))
            .map(|name| format!("{name:?}"))
            .collect();
        if self.missing.len() > NAMES_SHOWN {
            names.push("…".to_owned());
        }
        let told = format!(
            "{source} no longer lists {} of {} services, which are served on as they were ({}): {why}",
            self.missing.len(),
            self.missing
                .iter()
                .chain(self.seen.keys())
                .collect::<BTreeSet<_>>()
                .len(),
            names.join(", ")
        );
        Some(match why.may_pass() {
            true => format!(
                "{told}; it is believed when all answers of {} minutes have said so",
                self.bound.as_secs() / 60
            ),
            false => told,
        })
    }

    /// Since when answers have agreed on each that is missing, this one included. What no leader vouches for says nothing.
    fn agreed_since(
        &mut self,
        answer: &Answer<()>,
        missing: &[(Arc<str>, Sight)],
        now: Instant,
    ) -> BTreeMap<Arc<str>, Instant> {
        let mut agreed = std::mem::take(&mut self.agreed);
        if !answer.known_leader {
            return agreed;
        }
        // Those that are left make it another answer, too: the clock of the others begins anew.
        let by = (answer.token, answer.filtered, self.bound);
        if self.agreed_by.replace(by) != Some(by) {
            agreed.clear();
        }
        let missing = missing.iter().map(|(name, _)| Arc::clone(name));
        missing
            .map(|name| {
                let since = agreed.get(&name).copied().unwrap_or(now);
                (name, since)
            })
            .collect()
    }

    /// Why one service that is missing among others is not given up.
    fn why_not_gone(&self, answer: &Answer<()>, sight: Sight) -> Option<Why> {
        if !answer.known_leader {
            Some(Why::NoLeader)
        } else if answer.filtered && !self.filtered {
            Some(Why::Filtered)
        } else if answer.token != sight.token {
            Some(Why::OtherToken)
        } else if answer.index < sight.index {
            Some(Why::Older(answer.index, sight.index))
        } else {
            None
        }
    }

    /// Why they are not given up when all are missing at once.
    fn why_not_empty(
        &mut self,
        answer: &Answer<()>,
        missing: &[(Arc<str>, Sight)],
        asked: bool,
        now: Instant,
    ) -> Option<Why> {
        let singly = missing
            .iter()
            .find_map(|(_, sight)| self.why_not_gone(answer, *sight));
        let why = if singly.is_some() {
            singly
        } else if answer.filtered != self.filtered {
            Some(Why::Filtered)
        } else if answer.token.is_anonymous() && answer.default_deny {
            Some(Why::NoToken)
        } else {
            None
        };
        if why.is_some() {
            self.empty_since = None;
            return why;
        }
        if !asked {
            return Some(Why::Empty);
        }
        let since = *self.empty_since.get_or_insert(now);
        (now - since < ASKED_AGAIN).then_some(Why::Empty)
    }
}

#[cfg(test)]
mod tests;
