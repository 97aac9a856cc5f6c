//! The way to the gateway: TCP, and TLS in which it must prove the target's name.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::{AlertDescription, ClientConfig};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::failure::Failure;
use super::gateway::{self, Gateway};
use super::proxy;
use crate::config::HttpProxy;
use crate::name::HostName;
use crate::net;
use crate::tls::client::{self, Trust, Witness};
use crate::tls::key::KeyFile;
use crate::tls::options::PORTCULLIS;
use crate::tls::passphrase::Source;
use crate::tls::{self, HandshakeError};

/// What to connect to, and how.
#[derive(Clone, Debug)]
pub struct Connect {
    /// Whom to dial.
    pub gateway: Gateway,
    /// Whom to reach through it.
    pub target: HostName,
    /// The name to ask for and to have proven; the target's when `None`.
    pub server_name: Option<HostName>,
    /// Whom to take for the gateway.
    pub trust: Trust,
    /// PEM files with the certificate to show, chain and key, if the gateway asks for one.
    pub certificate: Option<(PathBuf, KeyFile)>,
    /// The HTTP proxy that connects to the gateway, if any.
    pub proxy: Option<HttpProxy>,
    /// The protocols to offer (RFC 7301); `portcullis/1` when empty.
    pub alpn: Vec<Vec<u8>>,
    /// For name, TCP and TLS together; and then for the gateway's word on what stands behind it.
    pub timeout: Duration,
    /// Notes what the gateway shows, and asks for, in its handshakes.
    pub witness: Arc<Witness>,
}

impl Connect {
    /// Opens the tunnel. What [`Trust`] says is verified, and the name, unless that is insecure.
    ///
    /// Where no protocols are chosen `portcullis/1` is offered, so that a gateway of ours can say what becomes of its dial. A
    /// server that refuses whoever offers what it does not know (RFC 7301 §3.2) is asked once more, without.
    ///
    /// Of the time so much has been `waited` before. What opens the key is forgotten as soon as that is open.
    pub async fn open(&mut self, waited: Duration) -> Result<Box<tls::Stream>, Failure> {
        let chosen = client::person(&self.trust, self.pair(), &self.alpn, &self.witness);
        let chosen = chosen.map_err(Failure::Files)?;
        // The tunnel may last for days, and nothing reads the key again.
        if let Some((_, key)) = &mut self.certificate {
            key.passphrase = Source::default();
        }
        let deadline = Instant::now() + self.timeout.saturating_sub(waited);
        if !self.alpn.is_empty() {
            return self.attempt(chosen, deadline).await;
        }
        let mut offering = ClientConfig::clone(&chosen);
        offering.alpn_protocols = vec![PORTCULLIS.to_vec()];

        match self.attempt(Arc::new(offering), deadline).await {
            Err(Failure::Handshake(HandshakeError::Tls(rustls::Error::AlertReceived(
                AlertDescription::NoApplicationProtocol,
            )))) => self.attempt(chosen, deadline).await,
            opened => opened,
        }
    }

    async fn attempt(
        &self,
        config: Arc<ClientConfig>,
        deadline: Instant,
    ) -> Result<Box<tls::Stream>, Failure> {
        let dialled = timeout_at(deadline, async {
            if let Some(proxy) = &self.proxy {
                let through = proxy::through(proxy, &self.gateway).await;
                return through.map_err(Failure::Proxy);
            }
            let addresses = self.gateway.resolve().await.map_err(Failure::Resolve)?;
            gateway::race(addresses).await.map_err(Failure::Unreachable)
        });
        let tcp = dialled.await.map_err(|_| Failure::DialTimeout)??;
        self.secure(tcp, config, deadline).await
    }

    /// TLS over a connection to the gateway.
    pub(super) async fn secure(
        &self,
        tcp: TcpStream,
        config: Arc<ClientConfig>,
        deadline: Instant,
    ) -> Result<Box<tls::Stream>, Failure> {
        let name = self.server_name().as_str().to_owned();
        let name = ServerName::try_from(name).map_err(|error| {
            Failure::Handshake(rustls::Error::General(error.to_string()).into())
        })?;
        match timeout_at(deadline, tls::Stream::connect(tcp, config, name)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(failed)) => {
                // So that the gateway hears why, and can log it.
                net::close(failed.tcp).await;
                Err(Failure::Handshake(failed.error))
            }
            Err(_) => Err(Failure::HandshakeTimeout),
        }
    }

    /// The files of the certificate to show.
    pub(super) fn pair(&self) -> Option<(&Path, &KeyFile)> {
        let certificate = self.certificate.as_ref();
        certificate.map(|(chain, key)| (chain.as_path(), key))
    }

    /// The name that is asked for and must be proven.
    pub fn server_name(&self) -> &HostName {
        self.server_name.as_ref().unwrap_or(&self.target)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_waited_before_counts_for_the_time_of_the_connection() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let long = Duration::from_secs(600);
        let mut connect = Connect {
            gateway: silent.local_addr().unwrap().to_string().parse().unwrap(),
            target: HostName::parse("vm.example").unwrap(),
            server_name: None,
            trust: Trust {
                insecure: true,
                ..Trust::default()
            },
            certificate: None,
            proxy: None,
            alpn: Vec::new(),
            timeout: long,
            witness: Arc::default(),
        };
        let opened = tokio::time::timeout(long / 60, connect.open(long)).await;
        assert!(matches!(
            opened,
            Ok(Err(Failure::DialTimeout | Failure::HandshakeTimeout))
        ));
    }
}
