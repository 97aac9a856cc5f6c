//! What a watch has logged of its source: each news once, and other words for the same once in a while.

use std::time::{Duration, Instant};

/// While something is wrong, other words for it are logged once in so long.
const BETWEEN_WORDS: Duration = Duration::from_secs(10);

/// How a source fares, as far as it is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fares {
    /// It answers, and nothing is in doubt.
    Well,
    /// It does not answer.
    Failing,
    /// It answers, and something is wrong.
    Troubled,
}

/// What was logged last, and when.
#[derive(Debug, Default)]
pub(super) struct Logged(Option<(Fares, String, Instant)>);

impl Logged {
    /// Whether this is to be logged now, as it will be then.
    pub(super) fn is_news(&mut self, fares: Fares, words: &str) -> bool {
        let now = Instant::now();
        let is_news = self.0.as_ref().is_none_or(|(before, last, at)| {
            *before != fares || (last != words && now.duration_since(*at) >= BETWEEN_WORDS)
        });
        if is_news {
            self.0 = Some((fares, words.to_owned(), now));
        }
        is_news
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_is_logged_once_and_other_words_for_it_only_after_a_while() {
        let mut logged = Logged::default();
        assert!(logged.is_news(Fares::Troubled, "one"));
        assert!(!logged.is_news(Fares::Troubled, "one"));
        assert!(!logged.is_news(Fares::Troubled, "two"));
        let (_, _, at) = logged.0.as_mut().unwrap();
        *at = at.checked_sub(BETWEEN_WORDS).unwrap();
        assert!(!logged.is_news(Fares::Troubled, "one"));
        assert!(logged.is_news(Fares::Troubled, "two"));
        assert!(logged.is_news(Fares::Failing, "two"));
        assert!(logged.is_news(Fares::Well, ""));
        assert!(!logged.is_news(Fares::Well, ""));
    }
}
