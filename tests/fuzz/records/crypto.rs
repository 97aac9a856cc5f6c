//! Cryptography that is cheap and does the same every time: the records are sealed for real, everything else is make-believe.

use std::cell::RefCell;
use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::crypto::cipher::{
    AeadKey, Iv, KeyBlockShape, MessageDecrypter, MessageEncrypter, OutboundChunks,
    OutboundOpaqueMessage, OutboundPlainMessage, Tls12AeadAlgorithm, Tls13AeadAlgorithm,
    UnsupportedOperationError,
};
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret,
    SupportedKxGroup,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use rustls::{
    CipherSuiteCommon, ConnectionTrafficSecrets, ContentType, DigitallySignedStruct,
    DistinguishedName, Error, NamedGroup, SignatureAlgorithm, SignatureScheme,
    SupportedCipherSuite, Tls12CipherSuite, Tls13CipherSuite,
};

const SCHEME: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;

/// So many records wear out a key that is meant to wear out.
const WORN: u64 = 12;

/// What becomes of a record of the hostile peer before it is sealed.
#[derive(Debug)]
pub(crate) enum Forgery {
    /// The next with words is another one altogether.
    Instead(ContentType, Vec<u8>),
    /// So many without words pass, then the byte at this place, counted round and round, is changed by these bits.
    Flip { pass: usize, at: usize, bits: u8 },
}

impl Forgery {
    /// What is left of it when a record has passed.
    fn passed(self, words: bool) -> Self {
        match self {
            Self::Flip { pass, at, bits } if !words => Self::Flip {
                pass: pass - 1,
                at,
                bits,
            },
            forgery => forgery,
        }
    }
}

thread_local! {
    static FORGERY: RefCell<Option<Forgery>> = const { RefCell::new(None) };
    static RANDOM: RefCell<u64> = const { RefCell::new(0) };
}

/// Makes the next run draw the numbers that this one has drawn.
pub(crate) fn start_again() {
    RANDOM.with_borrow_mut(|state| *state = 0);
    FORGERY.with_borrow_mut(|forgery| *forgery = None);
}

/// Plans a forgery, or takes back what has not come about; tells whether something was planned.
pub(crate) fn plan(forgery: Option<Forgery>) -> bool {
    FORGERY.with_borrow_mut(|planned| std::mem::replace(planned, forgery).is_some())
}

/// The cryptography of one side. Its keys may wear out soon, its records may be forged; a server may want another key
/// exchange than the one that clients try first.
pub(crate) fn provider(worn: bool, forging: bool, other_group: bool) -> Arc<CryptoProvider> {
    static SUITES: LazyLock<[[SupportedCipherSuite; 2]; 4]> = LazyLock::new(|| {
        [(false, false), (false, true), (true, false), (true, true)]
            .map(|(worn, forging)| [suite_1_3(worn, forging), suite_1_2(worn, forging)])
    });
    let mut kx_groups: Vec<&'static dyn SupportedKxGroup> = vec![&Group(NamedGroup::X25519)];
    match other_group {
        true => kx_groups = vec![&Group(NamedGroup::secp256r1)],
        false => kx_groups.push(&Group(NamedGroup::secp256r1)),
    }
    Arc::new(CryptoProvider {
        cipher_suites: SUITES[2 * usize::from(worn) + usize::from(forging)].to_vec(),
        kx_groups,
        secure_random: &Counted,
        ..aws_lc_rs::default_provider()
    })
}

/// A certificate of this length, and a key to it.
pub(crate) fn certificate(length: usize) -> Arc<SingleCertAndKey> {
    let chain = vec![CertificateDer::from(vec![0x30; length])];
    Arc::new(CertifiedKey::new(chain, Arc::new(Signature)).into())
}

fn suite_1_3(worn: bool, forging: bool) -> SupportedCipherSuite {
    let SupportedCipherSuite::Tls13(real) = cipher_suite::TLS13_AES_128_GCM_SHA256 else {
        unreachable!("a suite of TLS 1.3");
    };
    let forger: &'static Forger<dyn Tls13AeadAlgorithm> =
        Box::leak(Box::new(Forger(real.aead_alg)));
    SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
        common: common(&real.common, worn),
        aead_alg: if forging { forger } else { real.aead_alg },
        ..*real
    })))
}

fn suite_1_2(worn: bool, forging: bool) -> SupportedCipherSuite {
    let SupportedCipherSuite::Tls12(real) = cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
    else {
        unreachable!("a suite of TLS 1.2");
    };
    let forger: &'static Forger<dyn Tls12AeadAlgorithm> =
        Box::leak(Box::new(Forger(real.aead_alg)));
    SupportedCipherSuite::Tls12(Box::leak(Box::new(Tls12CipherSuite {
        common: common(&real.common, worn),
        aead_alg: if forging { forger } else { real.aead_alg },
        ..*real
    })))
}

fn common(real: &CipherSuiteCommon, worn: bool) -> CipherSuiteCommon {
    CipherSuiteCommon {
        confidentiality_limit: if worn {
            WORN
        } else {
            real.confidentiality_limit
        },
        ..*real
    }
}

/// An AEAD whose records can be forged.
struct Forger<A: ?Sized + 'static>(&'static A);

impl Tls13AeadAlgorithm for Forger<dyn Tls13AeadAlgorithm> {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(ForgingEncrypter(self.0.encrypter(key, iv)))
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        self.0.decrypter(key, iv)
    }

    fn key_len(&self) -> usize {
        self.0.key_len()
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: Iv,
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.0.extract_keys(key, iv)
    }
}

impl Tls12AeadAlgorithm for Forger<dyn Tls12AeadAlgorithm> {
    fn encrypter(&self, key: AeadKey, iv: &[u8], extra: &[u8]) -> Box<dyn MessageEncrypter> {
        Box::new(ForgingEncrypter(self.0.encrypter(key, iv, extra)))
    }

    fn decrypter(&self, key: AeadKey, iv: &[u8]) -> Box<dyn MessageDecrypter> {
        self.0.decrypter(key, iv)
    }

    fn key_block_shape(&self) -> KeyBlockShape {
        self.0.key_block_shape()
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: &[u8],
        explicit: &[u8],
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.0.extract_keys(key, iv, explicit)
    }
}

struct ForgingEncrypter(Box<dyn MessageEncrypter>);

impl MessageEncrypter for ForgingEncrypter {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        number: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        let words = message.typ == ContentType::ApplicationData;
        let (typ, payload) = match FORGERY.take() {
            Some(Forgery::Instead(typ, payload)) if words => (typ, payload),
            Some(Forgery::Flip { pass: 0, at, bits }) if !words => {
                let mut payload = message.payload.to_vec();
                let at = at % payload.len().max(1);
                if let Some(byte) = payload.get_mut(at) {
                    *byte ^= bits;
                }
                (message.typ, payload)
            }
            planned => {
                let left = planned.map(|forgery| forgery.passed(words));
                plan(left);
                return self.0.encrypt(message, number);
            }
        };
        let forged = OutboundPlainMessage {
            typ,
            version: message.version,
            payload: OutboundChunks::Single(&payload),
        };
        self.0.encrypt(forged, number)
    }

    fn encrypted_payload_len(&self, length: usize) -> usize {
        self.0.encrypted_payload_len(length)
    }
}

/// Numbers that are random to nobody.
#[derive(Debug)]
struct Counted;

impl SecureRandom for Counted {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        RANDOM.with_borrow_mut(|state| {
            for chunk in buffer.chunks_mut(8) {
                chunk.copy_from_slice(&scattered(state).to_le_bytes()[..chunk.len()]);
            }
        });
        Ok(())
    }
}

/// The next number of SplitMix64, a generator with eight bytes of state.
pub(crate) fn scattered(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A key exchange by this name in which both sides know the secret beforehand.
#[derive(Debug)]
struct Group(NamedGroup);

impl SupportedKxGroup for Group {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        Ok(Box::new(Group(self.0)))
    }

    fn name(&self) -> NamedGroup {
        self.0
    }
}

impl ActiveKeyExchange for Group {
    fn complete(self: Box<Self>, _: &[u8]) -> Result<SharedSecret, Error> {
        Ok([7; 32].as_slice().into())
    }

    fn pub_key(&self) -> &[u8] {
        &[9; 32]
    }

    fn group(&self) -> NamedGroup {
        self.0
    }
}

/// A signature that says nothing.
#[derive(Debug)]
struct Signature;

impl SigningKey for Signature {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered
            .contains(&SCHEME)
            .then(|| Box::new(Self) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for Signature {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(vec![5; 64])
    }

    fn scheme(&self) -> SignatureScheme {
        SCHEME
    }
}

/// Takes every certificate and every signature.
#[derive(Debug)]
pub(crate) struct Believer;

impl ServerCertVerifier for Believer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SCHEME]
    }
}

impl ClientCertVerifier for Believer {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SCHEME]
    }
}
