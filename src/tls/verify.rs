//! What a server must prove: a name, one of several names, or a SPIFFE ID; always with a chain to a trusted root.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::EndEntityCert;

use super::names::Names;
use super::signatures::Signatures;
use crate::name::{HostName, SpiffeId};

/// What a server's certificate must say, beyond its chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Proof {
    /// The name that was dialled (RFC 9525).
    #[default]
    ServerName,
    /// This ID, as the only URI among its subject alternative names (X.509-SVID §2).
    Spiffe(SpiffeId),
    /// One of these, among its subject alternative names; whatever name was dialled.
    AnyOf(Vec<AltName>),
}

/// A subject alternative name (RFC 5280 §4.2.1.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AltName {
    /// A DNS name; a certificate's wildcard stands for one label of it.
    Dns(HostName),
    /// An address.
    Ip(IpAddr),
    /// A URI, byte by byte.
    Uri(String),
}

impl fmt::Display for AltName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => name.fmt(f),
            Self::Ip(address) => address.fmt(f),
            Self::Uri(uri) => f.write_str(uri),
        }
    }
}

/// A trusted certificate of somebody else. What it says of itself is escaped, and cut where it is long.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongIdentity {
    /// It has the ID of another workload in the same trust domain.
    #[error("the peer is not {wanted}, but {found}")]
    Another {
        /// What it had to say.
        wanted: SpiffeId,
        /// What it says.
        found: String,
    },
    /// It has an ID of another trust domain.
    #[error("the peer is not {wanted}, but of another trust domain: {found}")]
    Foreign {
        /// What it had to say.
        wanted: SpiffeId,
        /// What it says.
        found: String,
    },
    /// It has no URI at all.
    #[error("the peer is not {wanted}: its certificate holds no URI, but {found}")]
    NoUri {
        /// What it had to say.
        wanted: SpiffeId,
        /// What it says.
        found: String,
    },
    /// It has more URIs than one, whichever they are: an ID stands alone (X.509-SVID §2).
    #[error("the peer is not {wanted} alone: its certificate holds {count} URIs: {found}")]
    SeveralUris {
        /// What it had to say, and nothing else.
        wanted: SpiffeId,
        /// How many there are.
        count: usize,
        /// What it says.
        found: String,
    },
    /// It has none of several names.
    #[error("the peer's certificate is not for {wanted}, but for {found}")]
    NoneOf {
        /// What it had to say.
        wanted: String,
        /// What it says.
        found: String,
    },
    /// What it says cannot be read.
    #[error("the names in the peer's certificate cannot be read")]
    Unreadable,
}

/// Verifies chains against these roots and then what the certificate says of itself, instead of a host name.
///
/// Not looked at: the common name, which is no name, and revocation, which a mesh replaces by short lives.
#[derive(Debug)]
pub(super) struct Verifier {
    demand: Demand,
    /// Any of which will do in its stead.
    others: Vec<Demand>,
    signatures: Signatures,
}

/// Roots and a proof, which a peer must meet together.
#[derive(Debug)]
struct Demand {
    roots: Arc<RootCertStore>,
    proof: Proof,
}

impl Verifier {
    /// For any proof but [`Proof::ServerName`], which is rustls's own.
    pub(super) fn new(roots: Arc<RootCertStore>, proof: Proof) -> Self {
        Self {
            demand: Demand { roots, proof },
            others: Vec::new(),
            signatures: Signatures::new(),
        }
    }

    /// The same, which takes a peer that meets these roots and this proof, too. The reason of a refusal stays that of the
    /// first.
    pub(super) fn or(mut self, roots: Arc<RootCertStore>, proof: Proof) -> Self {
        self.others.push(Demand { roots, proof });
        self
    }
}

impl Demand {
    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        signatures: Signatures,
    ) -> Result<(), Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            signatures.of_chains(),
        )?;
        self.check(end_entity).map_err(|wrong| {
            let other = CertificateError::Other(OtherError(Arc::new(wrong)));
            Error::InvalidCertificate(other)
        })
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), WrongIdentity> {
        let parsed = EndEntityCert::try_from(certificate).map_err(|_| WrongIdentity::Unreadable)?;
        let names = Names::of(certificate).ok_or(WrongIdentity::Unreadable)?;
        let wanted = match &self.proof {
            Proof::Spiffe(id) => return is_spiffe(&parsed, &names, id),
            Proof::AnyOf(wanted) => {
                if wanted.iter().any(|name| is_named(&parsed, name)) {
                    return Ok(());
                }
                let wanted: Vec<String> = wanted.iter().map(AltName::to_string).collect();
                wanted.join(" or ")
            }
            // Never asked for: who wants a name must not get less.
            Proof::ServerName => "the name that was dialled".to_owned(),
        };
        let found = names.to_string();
        Err(WrongIdentity::NoneOf { wanted, found })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verify =
            |demand: &Demand| demand.verify(end_entity, intermediates, now, self.signatures);
        verify(&self.demand).or_else(|refused| {
            let met = self.others.iter().any(|other| verify(other).is_ok());
            if met { Ok(()) } else { Err(refused) }
        })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.tls12(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.tls13(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.schemes()
    }
}

/// Two parsers must agree: webpki, which has verified the chain, passes over a URI that is no text.
fn is_spiffe(
    certificate: &EndEntityCert<'_>,
    names: &Names,
    wanted: &SpiffeId,
) -> Result<(), WrongIdentity> {
    let id = wanted.as_str();
    if certificate.valid_uri_names().eq([id]) && names.only_uri() == Some(id) {
        return Ok(());
    }
    let (wanted, found) = (wanted.clone(), names.to_string());
    let other = names.only_uri().and_then(|uri| SpiffeId::parse(uri).ok());
    Err(match (names.uris(), other) {
        (0, _) => WrongIdentity::NoUri { wanted, found },
        (1, Some(id)) if id.trust_domain() != wanted.trust_domain() => {
            WrongIdentity::Foreign { wanted, found }
        }
        (1, _) => WrongIdentity::Another { wanted, found },
        (count, _) => WrongIdentity::SeveralUris {
            wanted,
            count,
            found,
        },
    })
}

fn is_named(certificate: &EndEntityCert<'_>, name: &AltName) -> bool {
    let name = match name {
        AltName::Uri(uri) => return certificate.valid_uri_names().any(|found| found == uri),
        AltName::Ip(address) => Ok(ServerName::from(*address)),
        AltName::Dns(name) => ServerName::try_from(name.as_str()),
    };
    name.is_ok_and(|name| certificate.verify_is_valid_for_subject_name(&name).is_ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
