//! What only an attacker sends, and a gateway that serves on: refused or served as it is written, with one record each.

use std::sync::Arc;

use rustls::SupportedProtocolVersion;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::differential::forge::{self, Forge, Handshake};
use crate::hello_bytes::{framed, named};
use crate::scene::Scene;

mod breaks;
mod breaks_behind;
mod crowd;
mod floods;
mod grease;
mod lengths;
mod vanished;

impl Scene {
    /// A client of `open` whose handshake is still to be made, and who can then seal whatever it likes.
    fn attacker(&self, version: &'static SupportedProtocolVersion) -> Handshake {
        let mut config = self.authority.client_by(forge::provider(), &[version]);
        config.enable_secret_extraction = true;
        Handshake::client_of(&Arc::new(config), "open.example.test")
    }

    /// The same with its handshake made: a word has gone through to the upstream and back.
    async fn through(&self, version: &'static SupportedProtocolVersion) -> (TcpStream, Forge) {
        let mut tcp = self.gateway.connect().await;
        let mut handshake = self.attacker(version);
        handshake.make(&mut tcp).await;
        let mut forge = handshake.forge();
        let word = forge.data(b"word");
        tcp.write_all(&word).await.unwrap();
        let (mut received, mut echoed) = (vec![0; 1 << 16], Vec::new());
        while echoed.len() < 4 {
            let count = tcp.read(&mut received).await.unwrap();
            assert!(count > 0, "the gateway has ended it");
            echoed.extend(forge::text(forge.hear(&received[..count])));
        }
        assert_eq!(echoed, b"word");
        (tcp, forge)
    }

    /// That an honest client is served, after whatever was done to the gateway, and that nothing else was recorded.
    async fn serves_on(&mut self) {
        let bytes = framed(&named("pass.example.test"), &[]);
        let told = self.tell_all(&bytes).await;
        assert!(told.answer == bytes, "{}", told.record);
        assert_eq!(told.record["reason"], "closed");
    }
}
