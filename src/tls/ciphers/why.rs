//! Why words of OpenSSL's mean no suite that is built in.

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
    /// It means something as the first word of a list alone.
    Place,
    /// What follows a word after `@` without a separator.
    Glued,
    /// It is of the profiles of RFC 6460, which are of groups and signatures too.
    SuiteB,
    /// No list of OpenSSL's has this.
    Malformed,
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
            Self::Place => "only as the first word, as in OpenSSL",
            Self::Glued => "what follows without a `:` is thrown away, as in OpenSSL",
            Self::SuiteB => {
                "Suite B asks for groups and signatures that a list cannot ask for here"
            }
            Self::Malformed => "OpenSSL takes no list with it either",
            Self::Unknown => "no such cipher",
        }
    }

    /// Whether the whole list says something else without such a part.
    pub fn is_fatal(self) -> bool {
        matches!(self, Self::SuiteB | Self::Malformed)
    }

    /// Why a word that means no suite here means none.
    pub(super) fn of(word: &str) -> Self {
        if word == "DEFAULT" {
            return Self::Place;
        }
        let has = |piece: &str| word.split(['-', '_']).any(|one| one == piece);
        let any = |pieces: &[&str]| pieces.iter().any(|piece| has(piece));
        if any(&[
            "NULL", "aNULL", "eNULL", "ADH", "AECDH", "EXP", "EXPORT", "EXPORT40", "LOW", "MEDIUM",
            "DES", "3DES", "CBC3", "RC4", "RC2", "MD5", "IDEA", "SEED", "SSLv3", "anon",
        ]) {
            return Self::Broken;
        }
        if any(&["DH", "DHE", "EDH", "kDHE", "kEDH", "kDH", "kDHr", "kDHd"]) {
            return Self::FiniteField;
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
            "COMPLEMENTOFALL",
            "COMPLEMENTOFDEFAULT",
            "SUITEB128",
            "SUITEB192",
            "SUITEB128ONLY",
            "SUITEB128C2",
        ]) {
            return Self::NotBuiltIn;
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
            return Self::Cbc;
        }
        let is_rsa = matches!(word, "RSA" | "kRSA") || word.starts_with("TLS_RSA_WITH_AES_");
        if is_rsa || (ends_in_hash && (word.starts_with("AES128-") || word.starts_with("AES256-")))
        {
            return Self::NoForwardSecrecy;
        }
        Self::Unknown
    }
}
