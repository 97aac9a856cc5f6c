//! Encrypted keys: what opens them, and what is refused before any work is done.

use pkcs8::der::asn1::{AnyRef, OctetStringRef};
use pkcs8::der::{Encode, Tag};
use pkcs8::pkcs5::pbes2::{Pbkdf2Params, ScryptParams};
use pkcs8::pkcs5::scrypt;

use super::*;
use crate::tls::test_certs::Ca;

const SALT: [u8; 16] = [7; 16];

fn passphrase(text: &str) -> Passphrase {
    Passphrase::first_line(Zeroizing::new(text.as_bytes().to_vec())).unwrap()
}

fn key() -> Vec<u8> {
    let pem = Ca::new("ca").issue(&["a.example.com"]).key_pem;
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    data_encoding::BASE64.decode(body.as_bytes()).unwrap()
}

fn encrypted(parameters: Parameters, key: &[u8], passphrase: &str) -> Vec<u8> {
    let data = parameters.encrypt(passphrase, key).unwrap();
    info(parameters, &data)
}

fn info(parameters: Parameters, data: &[u8]) -> Vec<u8> {
    let info = EncryptedPrivateKeyInfoRef {
        encryption_algorithm: EncryptionScheme::Pbes2(parameters),
        encrypted_data: OctetStringRef::new(data).unwrap(),
    };
    info.to_der().unwrap()
}

fn pbkdf2(iterations: u32) -> Parameters {
    Parameters::generate_pbkdf2_sha256_aes256cbc(iterations, &SALT, [9; 16]).unwrap()
}

fn work(kdf: Kdf) -> Result<(), NotOpened> {
    let parameters = Parameters { kdf, ..pbkdf2(1) };
    Encrypted::read(&info(parameters, &[0; 32])).map(drop)
}

#[test]
fn the_right_passphrase_opens_a_key_and_no_other_does() {
    let key = key();
    let scrypt = Parameters::generate_scrypt_aes128cbc(
        scrypt::Params::new(10, 8, 1).unwrap(),
        &SALT,
        [9; 16],
    );
    for parameters in [pbkdf2(2), scrypt.unwrap()] {
        let der = encrypted(parameters, &key, "open sesame");
        let encrypted = Encrypted::read(&der).unwrap();
        let opened = encrypted.open(&passphrase("open sesame")).unwrap();
        assert_eq!(opened.der().secret_der(), key);
        assert_eq!(format!("{opened:?}"), "MASKED");
        // Of so many one has a padding that is right by chance.
        for number in 0..600 {
            let wrong = passphrase(&format!("wrong {number}"));
            assert_eq!(encrypted.open(&wrong).err(), Some(NotOpened::Passphrase));
            if matches!(encrypted.parameters.kdf, Kdf::Scrypt(_)) && number == 5 {
                break;
            }
        }
    }
}

#[test]
fn more_work_than_can_be_meant_is_refused_before_it_is_done() {
    let most = Pbkdf2Params::hmac_sha256(MOST_ITERATIONS, &SALT).unwrap();
    assert_eq!(work(most.into()), Ok(()));
    for iteration_count in [MOST_ITERATIONS + 1, 1 << 31, u32::MAX] {
        let kdf = Pbkdf2Params {
            iteration_count,
            ..most
        };
        let refused = work(kdf.into()).unwrap_err().to_string();
        let says =
            format!("the key is encrypted with {iteration_count} iterations of PBKDF2, more");
        assert!(refused.starts_with(&says), "{refused}");
    }
    let usual = scrypt::Params::new(14, 8, 1).unwrap();
    let usual = ScryptParams::from_params_and_salt(usual, &SALT).unwrap();
    assert_eq!(work(usual.into()), Ok(()));
    let large = [(1 << 18, 8, 1), (1 << 40, 8, 1), (u64::MAX, u16::MAX, 1)];
    let slow = (1 << 14, 8, MOST_LANES + 1);
    for (cost_parameter, block_size, parallelization) in large.into_iter().skip(1).chain([slow]) {
        let kdf = ScryptParams {
            cost_parameter,
            block_size,
            parallelization,
            ..usual
        };
        let refused = work(kdf.into()).unwrap_err().to_string();
        assert!(refused.contains("256 MiB"), "{refused}");
    }
}

#[test]
fn what_is_not_opened_is_named() {
    // A cipher, in PBES2, and a scheme of its own.
    for (oid, name) in FOREIGN {
        let oid = ObjectIdentifier::new(oid).unwrap();
        let null = AnyRef::NULL;
        let own = AlgorithmIdentifierRef {
            oid,
            parameters: Some(null),
        };
        let both = [pbkdf2(1).kdf.to_der().unwrap(), own.to_der().unwrap()].concat();
        let inside = AlgorithmIdentifierRef {
            oid: PBES2,
            parameters: Some(AnyRef::new(Tag::Sequence, &both).unwrap()),
        };
        for algorithm in [own, inside] {
            let mut body = algorithm.to_der().unwrap();
            body.extend(OctetStringRef::new(&[0; 16]).unwrap().to_der().unwrap());
            let der = AnyRef::new(Tag::Sequence, &body).unwrap();
            let refused = Encrypted::read(&der.to_der().unwrap()).err().unwrap();
            let legacy = !name.starts_with("3DES");
            let name = name.to_owned();
            assert_eq!(refused, NotOpened::Algorithm { name, legacy });
        }
    }
}

#[test]
fn what_is_no_encrypted_key_is_damaged_wherever_it_is_cut() {
    let der = encrypted(pbkdf2(1), &key(), "open sesame");
    for length in 0..der.len() {
        let error = Encrypted::read(&der[..length]).err();
        assert_eq!(error, Some(NotOpened::Damaged), "{length}");
    }
    assert_eq!(Encrypted::read(b"garbage").err(), Some(NotOpened::Damaged));
}
