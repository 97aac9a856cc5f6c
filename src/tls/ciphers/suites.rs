//! The cipher suites that are built in, and the words that mean them.

use rustls::CipherSuite;

use Authentication::{Ecdsa, Rsa};
use Encryption::{Aes128, Aes256, ChaCha20};

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
pub(super) struct Suite {
    pub(super) suite: CipherSuite,
    pub(super) name: &'static str,
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

/// All that are built in; of each version in the order in which OpenSSL's aliases, such as `HIGH`, bring them in.
#[rustfmt::skip]
pub(super) const SUITES: [Suite; 9] = [
    suite(CipherSuite::TLS13_AES_256_GCM_SHA384, "TLS_AES_256_GCM_SHA384", Authentication::Any, Aes256),
    suite(CipherSuite::TLS13_CHACHA20_POLY1305_SHA256, "TLS_CHACHA20_POLY1305_SHA256", Authentication::Any, ChaCha20),
    suite(CipherSuite::TLS13_AES_128_GCM_SHA256, "TLS_AES_128_GCM_SHA256", Authentication::Any, Aes128),
    suite(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, "ECDHE-ECDSA-AES256-GCM-SHA384", Ecdsa, Aes256),
    suite(CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, "ECDHE-RSA-AES256-GCM-SHA384", Rsa, Aes256),
    suite(CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, "ECDHE-ECDSA-CHACHA20-POLY1305", Ecdsa, ChaCha20),
    suite(CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, "ECDHE-RSA-CHACHA20-POLY1305", Rsa, ChaCha20),
    suite(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, "ECDHE-ECDSA-AES128-GCM-SHA256", Ecdsa, Aes128),
    suite(CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, "ECDHE-RSA-AES128-GCM-SHA256", Rsa, Aes128),
];

impl Suite {
    /// Whether a word means this suite: its name, OpenSSL's or IANA's, or an alias, of which those of TLS 1.3 have none.
    pub(super) fn is(&self, word: &str) -> bool {
        let iana = self.suite.as_str();
        if word == self.name || iana.is_some_and(|name| name == word) {
            return true;
        }
        !self.is_tls13()
            && match word {
                "ALL" | "HIGH" | "TLSv1.2" => true,
                "ECDH" | "ECDHE" | "EECDH" | "kECDHE" | "kEECDH" => true,
                "ECDSA" | "aECDSA" => self.authentication == Ecdsa,
                "aRSA" => self.authentication == Rsa,
                "AES" | "AESGCM" | "FIPS" => self.encryption != ChaCha20,
                "AES128" => self.encryption == Aes128,
                "AES256" => self.encryption == Aes256,
                "CHACHA20" => self.encryption == ChaCha20,
                _ => false,
            }
    }

    pub(super) fn is_tls13(&self) -> bool {
        is_tls13(self.suite)
    }

    pub(super) fn is_aes128(&self) -> bool {
        self.encryption == Aes128
    }
}

/// Whether a word means a suite that is built in.
pub(super) fn is_known(word: &str) -> bool {
    SUITES.iter().any(|suite| suite.is(word))
}

pub(super) fn is_tls13(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS13_AES_256_GCM_SHA384
            | CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
    )
}
