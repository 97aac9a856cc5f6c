//! Where a client comes from: its socket's address, or what the PROXY header of a listed sender says.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::failure::Failure;
use super::hello::{HelloError, receive};
use crate::config::{AcceptProxy, AcceptProxyMode};
use crate::log::Record;
use crate::net::proxy_header::{Header, HeaderError, LONGEST};

/// Where a client comes from.
pub(super) struct Origin {
    /// The other end of the socket.
    peer: SocketAddr,
    /// What it says of the client, if it says something and is believed.
    header: Header,
}

/// Reads the header with which a connection may begin: with whatever has come behind it, or in its place where it need
/// not be there. The caller sets the deadline.
///
/// Only the listener's proxies are believed. From anybody else nothing is read here: where a header is required they are
/// refused, elsewhere it is no hello.
pub(super) async fn read(
    tcp: &mut TcpStream,
    peer: SocketAddr,
    accept: Option<&AcceptProxy>,
) -> Result<(Origin, Vec<u8>), Failure> {
    let header = Header::default();
    let without = Origin { peer, header };
    let Some(accept) = accept else {
        return Ok((without, Vec::new()));
    };
    let is_required = accept.mode == AcceptProxyMode::Required;
    if !accept.lists(peer.ip()) {
        return match is_required {
            true => Err(Failure::NotListed(peer.ip())),
            false => Ok((without, Vec::new())),
        };
    }
    // Nothing is allocated for a proxy that has said nothing.
    let silent = |_| Failure::Hello(HelloError::Gone { bytes: 0 });
    tcp.readable().await.map_err(silent)?;
    let mut bytes = Vec::new();
    loop {
        receive(tcp, &mut bytes, LONGEST)
            .await
            .map_err(Failure::Hello)?;
        match Header::parse(&bytes) {
            Ok(Some((header, length))) => {
                bytes.drain(..length);
                return Ok((Origin { peer, header }, bytes));
            }
            Ok(None) => {}
            Err(HeaderError::Absent) if !is_required => return Ok((without, bytes)),
            Err(error) => return Err(Failure::ProxyHeader(error)),
        }
    }
}

impl Origin {
    /// From now on the client is who the header says that it is.
    pub(super) fn record(&self, record: &mut Record) {
        if let Some(addresses) = &self.header.addresses {
            record.client = addresses.source.into();
            record.peer = Some(self.peer);
        }
        record.unique_id = self.header.unique_id.as_deref().map(Box::from);
    }

    /// Who the client is: whom the header tells of, or the other end.
    pub(super) fn client(&self) -> SocketAddr {
        let addresses = self.header.addresses.as_ref();
        addresses.map_or(self.peer, |addresses| addresses.source)
    }

    /// Where the client has connected to, if the header says so.
    pub(super) fn destination(&self) -> Option<SocketAddr> {
        Some(self.header.addresses?.destination)
    }
}
