//! How the two sides of a connection are set up, out of the first bytes of an input.

/// The smallest limit that rustls sets to records, header and all.
const SMALLEST: usize = 32;

/// How the two sides are set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// The records are the server's, and the peer is a client.
    pub(crate) server: bool,
    /// TLS 1.2, else 1.3.
    pub(crate) old: bool,
    /// Nobody tampers with what the peer sends.
    pub(crate) honest: bool,
    /// The handshake is over when the steps begin.
    pub(crate) greeted: bool,
    /// The server asks for a certificate.
    pub(crate) mutual: bool,
    /// The keys of the records wear out soon, those of the peer do.
    pub(crate) worn: bool,
    pub(crate) peer_worn: bool,
    /// The server wants another key exchange than the one that the client tries first (TLS 1.3: HelloRetryRequest).
    pub(crate) retry: bool,
    /// How many tickets a server gives (TLS 1.3).
    pub(crate) tickets: usize,
    /// How long the certificates are.
    pub(crate) certificate: usize,
    /// The largest record of the peer.
    pub(crate) fragment: Option<usize>,
}

impl Setting {
    /// A message may be 64 KiB long with all that its records add to it, and this peer's may be longer.
    pub(crate) fn is_too_much(&self) -> bool {
        self.fragment == Some(SMALLEST)
    }

    pub(crate) fn parse(rest: &mut Rest<'_>) -> Self {
        let flags = rest.byte();
        let more = rest.byte();
        let honest = flags & 4 != 0;
        let (certificate, fragment) = match more & 0x30 {
            0 => (300, None),
            0x10 => (300, Some(64 + usize::from(rest.byte()))),
            0x20 if honest => (8 + usize::from(rest.byte()) * 160, Some(512)),
            0x20 => (8 + usize::from(rest.byte()) * 256, Some(SMALLEST)),
            _ => (8 + usize::from(rest.byte()) * 240, None),
        };
        Self {
            server: flags & 1 != 0,
            old: flags & 2 != 0,
            honest,
            greeted: flags & 8 != 0,
            mutual: flags & 16 != 0,
            // rustls does not change its keys while half a message has come: it owes an alert, and goes on with the old ones.
            worn: flags & 32 != 0 && (honest || flags & 2 != 0),
            // An end that TLS 1.2 makes of it would be another's close.
            peer_worn: flags & 64 != 0 && flags & 2 == 0,
            retry: flags & 128 != 0,
            tickets: usize::from(more & 3),
            certificate,
            fragment,
        }
    }
}

/// What is left of an input; nothing is zeros.
pub(crate) struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    pub(crate) fn short(&mut self) -> usize {
        u16::from_le_bytes([self.byte(), self.byte()]).into()
    }

    pub(crate) fn bytes(&mut self, length: u8) -> Vec<u8> {
        let length = usize::from(length).min(self.0.len());
        let (first, rest) = self.0.split_at(length);
        self.0 = rest;
        first.to_vec()
    }
}
