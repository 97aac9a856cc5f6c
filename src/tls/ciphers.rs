//! Cipher suites as OpenSSL lists them (`openssl-ciphers(1)`), over those that are built in.

use rustls::CipherSuite;
use rustls::crypto::CryptoProvider;

use Authentication::{Ecdsa, Rsa};
use Encryption::{Aes128, Aes256, ChaCha20};

/// The suites that a list allows: a part of those that are built in, in its order.
///
/// As in OpenSSL a list that names suites of TLS 1.2 alone leaves TLS 1.3 as it is: all of its suites are sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ciphers {
    /// In the order of the list; a server takes the client's.
    suites: Vec<CipherSuite>,
}

/// Parts of a list that bring nothing, for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unused {
    /// As they are written.
    pub parts: Vec<String>,
    /// Why they bring nothing.
    pub why: Why,
}

/// Why a part of a list brings nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its suites encrypt nothing, authenticate nobody, or use what is broken.
    Broken,
    /// The key exchange is RSA's: whoever gets the key later reads what was recorded.
    NoForwardSecrecy,
    /// Encryption in CBC mode with a MAC of its own.
    Cbc,
    /// Diffie-Hellman over finite fields.
    FiniteField,
    /// A cipher, or a way of authentication, that is not built in.
    NotBuiltIn,
    /// What it says of keys and signatures is not the list's to say here.
    Level,
    /// OpenSSL has no such word.
    Unknown,
}

impl Why {
    /// The reason, for a sentence that begins with the parts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Broken => "broken, or without encryption or authentication",
            Self::NoForwardSecrecy => "RSA key exchange has no forward secrecy",
            Self::Cbc => "CBC mode is open to padding oracles",
            Self::FiniteField => "finite-field Diffie-Hellman (DHE) is not built in, ECDHE is",
            Self::NotBuiltIn => "not built in",
            Self::Level => "keys and signatures are always held to OpenSSL's level 2",
            Self::Unknown => "no such cipher",
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Authentication {
    Ecdsa,
    Rsa,
    /// TLS 1.3: the suite does not say.
    Any,
}

#[derive(Clone, Copy, PartialEq)]
enum Encryption {
    Aes128,
    Aes256,
    ChaCha20,
}

/// A suite that is built in, by OpenSSL's name.
struct Suite {
    suite: CipherSuite,
    name: &'static str,
    authentication: Authentication,
    encryption: Encryption,
}

const fn suite(
    suite: CipherSuite,
    name: &'static str,
    authentication: Authentication,
    encryption: Encryption,
) -> Suite {
    Suite {
        suite,
        name,
        authentication,
        encryption,
    }
}

/// All that are built in; of each version in the order that an alias such as `HIGH` brings them in.
#[rustfmt::skip]
const SUITES: [Suite; 9] = [
    suite(CipherSuite::TLS13_AES_128_GCM_SHA256, "TLS_AES_128_GCM_SHA256", Authentication::Any, Aes128),
    suite(CipherSuite::TLS13_AES_256_GCM_SHA384, "TLS_AES_256_GCM_SHA384", Authentication::Any, Aes256),
    suite(CipherSuite::TLS13_CHACHA20_POLY1305_SHA256, "TLS_CHACHA20_POLY1305_SHA256", Authentication::Any, ChaCha20),
    suite(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, "ECDHE-ECDSA-AES128-GCM-SHA256", Ecdsa, Aes128),
    suite(CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, "ECDHE-RSA-AES128-GCM-SHA256", Rsa, Aes128),
    suite(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, "ECDHE-ECDSA-AES256-GCM-SHA384", Ecdsa, Aes256),
    suite(CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, "ECDHE-RSA-AES256-GCM-SHA384", Rsa, Aes256),
    suite(CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, "ECDHE-ECDSA-CHACHA20-POLY1305", Ecdsa, ChaCha20),
    suite(CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, "ECDHE-RSA-CHACHA20-POLY1305", Rsa, ChaCha20),
];

impl Ciphers {
    /// Reads a list: names and aliases with `:`, `,` or a space between, `+` for "and", and `!`, `-`, `+` and `@STRENGTH`
    /// as in OpenSSL. With it comes what in it brings nothing. No suite may be left.
    pub fn parse(list: &str) -> (Self, Vec<Unused>) {
        let mut suites: Vec<&Suite> = Vec::new();
        let mut killed: Vec<CipherSuite> = Vec::new();
        let mut unused = Vec::new();
        let parts = list.split([':', ',', ' ', ';']);
        for part in parts.filter(|part| !part.is_empty()) {
            let operator = part.chars().next().filter(|c| ['!', '-', '+'].contains(c));
            let words = part.strip_prefix(['!', '-', '+']).unwrap_or(part);
            let meant = |suite: &&Suite| words.split('+').all(|word| suite.is(word));
            match operator {
                Some('!') => {
                    killed.extend(SUITES.iter().filter(meant).map(|suite| suite.suite));
                    suites.retain(|suite| !killed.contains(&suite.suite));
                }
                Some('-') => suites.retain(|suite| !meant(suite)),
                Some(_) => suites.sort_by_key(|suite| meant(suite)),
                None if part == "@STRENGTH" => {
                    suites.sort_by_key(|suite| suite.encryption == Aes128);
                }
                None => {
                    let before = suites.len();
                    let is_new =
                        |suite: &&Suite| !suites.iter().any(|one| one.suite == suite.suite);
                    let more = SUITES.iter().filter(meant);
                    let more = more.filter(|suite| !killed.contains(&suite.suite) && is_new(suite));
                    let more: Vec<_> = more.collect();
                    suites.extend(more);
                    if suites.len() == before && !SUITES.iter().any(|suite| meant(&suite)) {
                        note(&mut unused, part);
                    }
                    continue;
                }
            }
            // To forbid what is not there is done already; to forbid what does not exist is a slip.
            if words
                .split('+')
                .any(|word| why(word) == Why::Unknown && !is_known(word))
            {
                note(&mut unused, part);
            }
        }
        let suites = suites.iter().map(|suite| suite.suite).collect();
        (Self { suites }, unused)
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.suites.is_empty()
    }

    /// Whether there is a suite of TLS 1.2.
    pub fn has_tls12(&self) -> bool {
        self.suites.iter().any(|suite| !is_tls13(*suite))
    }

    /// Whether there is a suite of TLS 1.3, by its name.
    pub fn has_tls13(&self) -> bool {
        self.suites.iter().copied().any(is_tls13)
    }

    /// Leaves of the provider's suites those of the list, in its order.
    pub(super) fn restrict(&self, provider: &mut CryptoProvider) {
        let place = |suite| self.suites.iter().position(|listed| *listed == suite);
        let any_tls13 = !self.has_tls13();
        provider.cipher_suites.retain(|suite| {
            place(suite.suite()).is_some() || (any_tls13 && is_tls13(suite.suite()))
        });
        provider
            .cipher_suites
            .sort_by_key(|suite| place(suite.suite()));
    }
}

impl Suite {
    /// Whether a word means this suite: its name, OpenSSL's or IANA's, or an alias, of which those of TLS 1.3 have none.
    fn is(&self, word: &str) -> bool {
        let iana = self.suite.as_str();
        if word == self.name || iana.is_some_and(|name| name == word) {
            return true;
        }
        !is_tls13(self.suite)
            && match word {
                "ALL" | "DEFAULT" | "HIGH" | "TLSv1.2" => true,
                "ECDHE" | "EECDH" | "kECDHE" | "kEECDH" => true,
                "ECDSA" | "aECDSA" => self.authentication == Ecdsa,
                "aRSA" => self.authentication == Rsa,
                "AES" | "AESGCM" => self.encryption != ChaCha20,
                "AES128" => self.encryption == Aes128,
                "AES256" => self.encryption == Aes256,
                "CHACHA20" => self.encryption == ChaCha20,
                _ => false,
            }
    }
}

fn is_tls13(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS13_AES_256_GCM_SHA384
            | CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
    )
}

fn is_known(word: &str) -> bool {
    SUITES.iter().any(|suite| suite.is(word))
}

fn note(unused: &mut Vec<Unused>, part: &str) {
    let words = part.trim_start_matches(['!', '-', '+']).split('+');
    let mut reasons = words.filter(|word| !is_known(word)).map(why);
    // Of `ECDHE+AES128+ECDSA+aRSA` each word is known, and nothing is all of it.
    let why = reasons.next().unwrap_or(Why::NotBuiltIn);
    match unused.iter_mut().find(|group| group.why == why) {
        Some(group) => group.parts.push(part.to_owned()),
        None => unused.push(Unused {
            parts: vec![part.to_owned()],
            why,
        }),
    }
}

/// Why a word that means no suite here means none.
fn why(word: &str) -> Why {
    if word.starts_with("@SECLEVEL=") {
        return Why::Level;
    }
    let has = |piece: &str| word.split(['-', '_']).any(|one| one == piece);
    let any = |pieces: &[&str]| pieces.iter().any(|piece| has(piece));
    if any(&[
        "NULL", "aNULL", "eNULL", "ADH", "AECDH", "EXP", "EXPORT", "EXPORT40", "LOW", "MEDIUM",
        "DES", "3DES", "CBC3", "RC4", "RC2", "MD5", "IDEA", "SEED", "SSLv3", "anon",
    ]) {
        return Why::Broken;
    }
    if any(&["DH", "DHE", "EDH", "kDHE", "kEDH", "kDH", "kDHr", "kDHd"]) {
        return Why::FiniteField;
    }
    if any(&[
        "CCM",
        "CCM8",
        "AESCCM",
        "AESCCM8",
        "CAMELLIA",
        "CAMELLIA128",
        "CAMELLIA256",
        "ARIA",
        "ARIA128",
        "ARIA256",
        "ARIAGCM",
        "PSK",
        "kPSK",
        "aPSK",
        "kECDHEPSK",
        "kDHEPSK",
        "kRSAPSK",
        "SRP",
        "kSRP",
        "aSRP",
        "DSS",
        "aDSS",
        "GOST",
        "kGOST",
        "aGOST",
        "ECDH",
        "COMPLEMENTOFALL",
        "COMPLEMENTOFDEFAULT",
        "SUITEB128",
        "SUITEB192",
        "SUITEB128ONLY",
        "SUITEB128C2",
    ]) {
        return Why::NotBuiltIn;
    }
    let is_mac = matches!(
        word,
        "SHA" | "SHA1" | "SHA256" | "SHA384" | "TLSv1" | "TLSv1.0"
    );
    let ends_in_hash = ["-SHA", "-SHA256", "-SHA384"]
        .iter()
        .any(|end| word.ends_with(end));
    let is_ecdhe = word.starts_with("ECDHE-") || word.starts_with("TLS_ECDHE_");
    if is_mac || (is_ecdhe && (ends_in_hash && !has("GCM") || has("CBC"))) {
        return Why::Cbc;
    }
    let is_rsa = matches!(word, "RSA" | "kRSA") || word.starts_with("TLS_RSA_WITH_AES_");
    if is_rsa || (ends_in_hash && (word.starts_with("AES128-") || word.starts_with("AES256-"))) {
        return Why::NoForwardSecrecy;
    }
    Why::Unknown
}

/// OpenSSL's names of the suites that are built in.
pub fn names() -> impl Iterator<Item = &'static str> {
    SUITES.iter().map(|suite| suite.name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn named(list: &str) -> Vec<&'static str> {
        let (ciphers, _) = Ciphers::parse(list);
        let name =
            |suite: &CipherSuite| SUITES.iter().find(|one| one.suite == *suite).unwrap().name;
        ciphers.suites.iter().map(name).collect()
    }

    fn unused(list: &str) -> Vec<(String, Why)> {
        let unused = Ciphers::parse(list).1.into_iter();
        unused
            .map(|group| (group.parts.join(" "), group.why))
            .collect()
    }

    #[test]
    fn every_suite_that_is_built_in_has_openssls_name() {
        let built_in = super::super::provider();
        let mut built_in: Vec<_> = built_in
            .cipher_suites
            .iter()
            .map(|one| one.suite())
            .collect();
        let mut ours: Vec<_> = SUITES.iter().map(|suite| suite.suite).collect();
        built_in.sort_unstable_by_key(|suite| u16::from(*suite));
        ours.sort_unstable_by_key(|suite| u16::from(*suite));
        assert_eq!(built_in, ours);
    }

    #[test]
    fn a_list_is_obeyed_in_its_order() {
        assert_eq!(
            named("ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256"),
            [
                "ECDHE-ECDSA-AES256-GCM-SHA384",
                "ECDHE-RSA-AES128-GCM-SHA256"
            ]
        );
        assert_eq!(
            named("ECDHE+CHACHA20, aRSA+AESGCM !AES128 TLS_AES_256_GCM_SHA384"),
            [
                "ECDHE-ECDSA-CHACHA20-POLY1305",
                "ECDHE-RSA-CHACHA20-POLY1305",
                "ECDHE-RSA-AES256-GCM-SHA384",
                "TLS_AES_256_GCM_SHA384"
            ]
        );
        assert_eq!(
            named("aRSA:+AES128:-CHACHA20:@STRENGTH"),
            ["ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256"]
        );
        // What `!` has forbidden comes back by nothing, what `-` has taken away does.
        assert_eq!(named("!aRSA:ALL:-ECDSA:ALL").len(), 3);
        assert_eq!(named("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256").len(), 1);
        assert!(named("").is_empty());
    }

    /// nginx's own default, Mozilla's "intermediate", and a cluster's that names one suite first.
    #[test]
    fn lists_that_people_have_are_understood() {
        assert_eq!(named("HIGH:!aNULL:!MD5").len(), 6);
        assert_eq!(unused("HIGH:!aNULL:!MD5"), []);
        let list = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:\
                    ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:\
                    DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384:DHE-RSA-CHACHA20-POLY1305";
        assert_eq!(named(list).len(), 6);
        let [(parts, why)] = &unused(list)[..] else {
            panic!("{:?}", unused(list));
        };
        assert_eq!(*why, Why::FiniteField);
        assert_eq!(parts.split(' ').count(), 3);
    }

    #[test]
    fn what_brings_nothing_is_named_with_its_reason() {
        for (part, reason) in [
            ("ECDHE-RSA-AES256-SHA384", Why::Cbc),
            ("ECDHE-ECDSA-AES128-SHA", Why::Cbc),
            ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", Why::Cbc),
            ("SHA384", Why::Cbc),
            ("AES128-GCM-SHA256", Why::NoForwardSecrecy),
            ("AES256-SHA", Why::NoForwardSecrecy),
            ("kRSA+AESGCM", Why::NoForwardSecrecy),
            ("DHE-RSA-AES128-SHA", Why::FiniteField),
            ("EDH+AESGCM", Why::FiniteField),
            ("DES-CBC3-SHA", Why::Broken),
            ("ECDHE-RSA-DES-CBC3-SHA", Why::Broken),
            ("RC4-MD5", Why::Broken),
            ("ECDHE-ECDSA-AES128-CCM", Why::NotBuiltIn),
            ("ECDHE-PSK-CHACHA20-POLY1305", Why::NotBuiltIn),
            ("ECDHE-ECDSA-CAMELLIA128-SHA256", Why::NotBuiltIn),
            ("ECDSA+aRSA", Why::NotBuiltIn),
            ("@SECLEVEL=1", Why::Level),
            ("ECDHE-RSA-AES256-GCM-SHA348", Why::Unknown),
            ("!ANULL", Why::Unknown),
            ("-é", Why::Unknown),
        ] {
            assert_eq!(unused(part), [(part.to_owned(), reason)]);
            assert!(named(part).is_empty(), "{part}");
        }
        // Twice, or forbidden before, is no mistake.
        assert_eq!(unused("AES256:HIGH:HIGH"), []);
        assert_eq!(unused("!AES256:ECDHE-RSA-AES256-GCM-SHA384"), []);
    }

    #[test]
    fn of_a_version_of_which_nothing_is_named_tls_1_3_alone_keeps_its_suites() {
        let left = |list: &str| {
            let mut provider = (*super::super::provider()).clone();
            Ciphers::parse(list).0.restrict(&mut provider);
            let suites = provider.cipher_suites.iter().map(|suite| suite.suite());
            suites.collect::<Vec<_>>()
        };
        let of_tls12 = left("ECDHE-RSA-CHACHA20-POLY1305:ECDHE-RSA-AES128-GCM-SHA256");
        assert_eq!(of_tls12.iter().filter(|suite| is_tls13(**suite)).count(), 3);
        assert_eq!(
            of_tls12[3..],
            [
                CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
                CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
            ]
        );
        assert_eq!(
            left("TLS_AES_256_GCM_SHA384"),
            [CipherSuite::TLS13_AES_256_GCM_SHA384]
        );
    }
}
