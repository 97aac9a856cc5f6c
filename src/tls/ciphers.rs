//! Cipher suites as OpenSSL lists them (`openssl-ciphers(1)`), over those that are built in.

use rustls::CipherSuite;
use rustls::crypto::CryptoProvider;

mod suites;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
mod why;

use suites::{SUITES, Suite, is_known, is_tls13};
pub use why::Why;

/// The suites that a list allows: a part of those that are built in, in its order.
///
/// As in OpenSSL a list that names suites of TLS 1.2 alone leaves TLS 1.3 as it is: all of its suites are sound. Those that it
/// forbids by name are forbidden.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ciphers {
    /// In the order of the list; a server takes the client's.
    suites: Vec<CipherSuite>,
    /// Of TLS 1.3, where the list names none of it: those that it does not take away.
    unnamed: Vec<CipherSuite>,
}

/// Parts of a list that bring nothing, for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unused {
    /// As they are written.
    pub parts: Vec<String>,
    /// Why they bring nothing.
    pub why: Why,
}

impl Ciphers {
    /// Reads a list: names and aliases with `:`, `,` or a space between, `+` for "and", and `!`, `-`, `+` and `@` as in OpenSSL.
    /// With it come those of its parts that bring nothing. No suite may be left.
    pub fn parse(list: &str) -> (Self, Vec<Unused>) {
        let mut reading = Reading {
            on: Vec::new(),
            off: SUITES.iter().collect(),
            unnamed: SUITES.iter().filter(|suite| suite.is_tls13()).collect(),
            unused: Vec::new(),
        };
        reading.read(list);
        let Reading {
            on,
            mut unnamed,
            unused,
            ..
        } = reading;
        if on.iter().any(|suite| suite.is_tls13()) {
            unnamed.clear();
        }
        let numbers = |suites: Vec<&Suite>| suites.iter().map(|suite| suite.suite).collect();
        let ciphers = Self {
            suites: numbers(on),
            unnamed: numbers(unnamed),
        };
        (ciphers, unused)
    }

    /// Whether it names none.
    pub fn is_empty(&self) -> bool {
        self.suites.is_empty()
    }

    /// Whether there is a suite of TLS 1.2.
    pub fn has_tls12(&self) -> bool {
        self.suites.iter().any(|suite| !is_tls13(*suite))
    }

    /// Whether there is a suite of TLS 1.3, named or not.
    pub fn has_tls13(&self) -> bool {
        !self.unnamed.is_empty() || self.suites.iter().copied().any(is_tls13)
    }

    /// Whether it leaves TLS 1.3 as it is.
    pub fn leaves_tls13(&self) -> bool {
        let all = SUITES.iter().filter(|suite| suite.is_tls13());
        self.unnamed.len() == all.count()
    }

    /// What it names, in its order, by OpenSSL's names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let named = |number: &CipherSuite| SUITES.iter().find(|one| one.suite == *number);
        self.suites.iter().filter_map(named).map(|suite| suite.name)
    }

    /// Leaves of the provider's suites those of the list, in its order.
    pub(super) fn restrict(&self, provider: &mut CryptoProvider) {
        let place = |suite| self.suites.iter().position(|listed| *listed == suite);
        provider.cipher_suites.retain(|suite| {
            place(suite.suite()).is_some() || self.unnamed.contains(&suite.suite())
        });
        provider
            .cipher_suites
            .sort_by_key(|suite| place(suite.suite()));
    }
}

/// A list that is read from its beginning, as OpenSSL does it (ssl_cipher_process_rulestr in ssl_ciph.c).
struct Reading {
    /// What it allows by now.
    on: Vec<&'static Suite>,
    /// What a word may still bring, in the order in which it does. What is forbidden is in neither.
    off: Vec<&'static Suite>,
    /// Of TLS 1.3, whether it is on or off: what was not taken away.
    unnamed: Vec<&'static Suite>,
    unused: Vec<Unused>,
}

impl Reading {
    fn read(&mut self, list: &str) {
        let is_separator = |c: char| [':', ',', ' ', ';'].contains(&c);
        let whole = list.find(is_separator).unwrap_or(list.len());
        let (first, _) = list.split_at(whole);
        if first.starts_with("SUITEB") {
            return self.note(first, Why::SuiteB);
        }
        let mut rest = list;
        if let Some(behind) = list.strip_prefix("DEFAULT") {
            self.add(|suite| !suite.is_tls13());
            rest = behind;
        }
        loop {
            rest = rest.trim_start_matches(is_separator);
            if rest.is_empty() {
                return;
            }
            let (whole, _) = rest.split_at(rest.find(is_separator).unwrap_or(rest.len()));
            let operator = rest.chars().next().filter(|c| "!-+@".contains(*c));
            let words = whole.strip_prefix(['!', '-', '+', '@']).unwrap_or(whole);
            let is_of_words = |c: char| c.is_ascii_alphanumeric() || "-_.=+".contains(c);
            // What begins with another operator needs no separator.
            let end = words.find(|c| !is_of_words(c)).unwrap_or(words.len());
            let (words, _) = words.split_at(end);
            let part = match self.rule(operator, words, whole) {
                true => operator.map_or(0, char::len_utf8) + words.len(),
                false => whole.len(),
            };
            rest = rest.get(part..).unwrap_or_default();
        }
    }

    /// Does what a part says; whether what is written at it without a separator is a part of its own.
    fn rule(&mut self, operator: Option<char>, words: &str, whole: &str) -> bool {
        if operator == Some('@') {
            return self.special(words, whole);
        }
        if words.split('+').any(str::is_empty) {
            self.note(whole, Why::Malformed);
            return false;
        }
        let meant = |suite: &Suite| words.split('+').all(|word| suite.is(word));
        match operator {
            Some('!') => {
                self.on.retain(|suite| !meant(suite));
                self.off.retain(|suite| !meant(suite));
                self.unnamed.retain(|suite| !meant(suite));
            }
            Some('-') => {
                let taken: Vec<_> = self.on.extract_if(.., |suite| meant(suite)).collect();
                self.off.splice(..0, taken);
                self.unnamed.retain(|suite| !meant(suite));
            }
            Some(_) => self.on.sort_by_key(|suite| meant(suite)),
            None => self.add(meant),
        }
        let unknown = words.split('+').filter(|word| !is_known(word));
        let mut reasons = unknown.map(Why::of);
        // To forbid what is not there is done already; to forbid what does not exist is a slip.
        let slip = reasons
            .clone()
            .find(|why| matches!(why, Why::Unknown | Why::Place));
        if let Some(slip) = slip {
            self.note(whole, slip);
            return false;
        }
        if operator.is_none() && !SUITES.iter().any(meant) {
            // Of `ECDHE+AES128+ECDSA+aRSA` each word is known, and nothing is all of it.
            let why = reasons.next().unwrap_or(Why::NotBuiltIn);
            self.note(words, why);
        }
        true
    }

    /// `@STRENGTH` and `@SECLEVEL=`; whatever is written at it is thrown away.
    fn special(&mut self, words: &str, whole: &str) -> bool {
        let word = words.split('+').next().unwrap_or_default();
        if whole.len() > "@".len() + word.len() {
            self.note(whole, Why::Glued);
        }
        match word.strip_prefix("SECLEVEL=").map(str::as_bytes) {
            None if word == "STRENGTH" => self.on.sort_by_key(|suite| suite.is_aes128()),
            Some([level @ b'0'..=b'5']) => {
                // Level 4 is of 192 bits (SSL_CTX_set_security_level(3)).
                if *level >= b'4' {
                    for suites in [&mut self.on, &mut self.off, &mut self.unnamed] {
                        suites.retain(|suite| !suite.is_aes128());
                    }
                }
                if *level != b'2' {
                    self.note(whole, Why::Level);
                }
            }
            _ => self.note(whole, Why::Malformed),
        }
        false
    }

    fn add(&mut self, meant: impl Fn(&Suite) -> bool) {
        let added = self.off.extract_if(.., |suite| meant(suite));
        self.on.extend(added);
    }

    fn note(&mut self, part: &str, why: Why) {
        match self.unused.iter_mut().find(|group| group.why == why) {
            Some(group) => group.parts.push(part.to_owned()),
            None => self.unused.push(Unused {
                parts: vec![part.to_owned()],
                why,
            }),
        }
    }
}

/// OpenSSL's names of the suites that are built in.
pub fn names() -> impl Iterator<Item = &'static str> {
    SUITES.iter().map(|suite| suite.name)
}
