//! One `openssl` process with somebody at its terminal, which is a socket.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::block_in_place;

use super::super::gate::NAME;
use super::super::sockets;
use crate::support::Child;

/// How long a line is, its end included.
pub(super) const LINE: usize = 10;

/// `s_client` or `s_server`; dropped, it is killed.
pub(super) struct Program {
    child: Child,
    terminal: TcpStream,
    is_client: bool,
    updates: usize,
    /// What it has printed and nobody has asked for.
    printed: Vec<u8>,
}

impl Program {
    /// Connects to this address.
    pub(super) async fn client(openssl: &Path, old: bool, address: SocketAddr) -> Self {
        let mut command = Command::new(openssl);
        command.args(["s_client", "-quiet", "-no_ign_eof", version(old)]);
        // Nothing is verified, and the machine's own authorities take longer to read than all the rest.
        command.args(["-no-CAfile", "-no-CApath", "-no-CAstore"]);
        command.args(["-connect", &address.to_string(), "-servername", NAME]);
        Self::start(&command, true).await
    }

    /// Waits for one connection, with the certificate that `NAME.pem` holds; tells where.
    pub(super) async fn server(openssl: &Path, old: bool, folder: &Path) -> (Self, SocketAddr) {
        let mut command = Command::new(openssl);
        command.args(["s_server", "-accept", "127.0.0.1:0", "-naccept", "1"]);
        command.args([version(old), "-no-CAfile", "-no-CApath", "-no-CAstore"]);
        command.arg("-cert").arg(folder.join("peer.pem"));
        command.arg("-key").arg(folder.join("peer.key"));
        let mut server = Self::start(&command, false).await;
        loop {
            server.read().await.expect("an address");
            let said = String::from_utf8_lossy(&server.printed).into_owned();
            let mut lines = said
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'));
            let address = lines.find_map(|line| line.strip_prefix("ACCEPT ")?.trim().parse().ok());
            if let Some(address) = address {
                server.printed.clear();
                return (server, address);
            }
        }
    }

    async fn start(command: &Command, is_client: bool) -> Self {
        let (terminal, its) = sockets(None).await;
        let its = its.into_std().unwrap();
        its.set_nonblocking(false).unwrap();
        let child = block_in_place(|| Child::spawn_on_socket(command, its));
        Self {
            child,
            terminal,
            is_client,
            updates: 0,
            printed: Vec::new(),
        }
    }

    pub(super) async fn say(&mut self, text: &str) {
        self.terminal.write_all(text.as_bytes()).await.unwrap();
    }

    /// So many bytes of lines that came from the other end.
    pub(super) async fn hear(&mut self, count: usize) -> String {
        loop {
            let heard = self.lines();
            if heard.len() >= count {
                self.printed.clear();
                return heard;
            }
            self.read().await.expect("more lines");
        }
    }

    /// What more came from the other end, until the program has ended of itself.
    pub(super) async fn rest(mut self) -> String {
        while self.read().await.is_some() {}
        self.lines()
    }

    /// It ends at once, and says nothing.
    pub(super) fn kill(&self) {
        self.child.signal("KILL");
    }

    /// A letter at the beginning of what it reads is a command; all that was said before has arrived.
    pub(super) async fn update_keys(&mut self, asking: bool) {
        self.say(if asking { "K\n" } else { "k\n" }).await;
        if !self.is_client {
            // `s_server` reads commands first, and tells of them later.
            return;
        }
        self.updates += 1;
        let seen = Cell::new(0);
        block_in_place(|| {
            self.child.wait_for("that its keys are new", |line| {
                // Each look goes over all that it has said; this it said before.
                if line.starts_with("depth=") {
                    seen.set(0);
                }
                seen.set(seen.get() + usize::from(line == "KEYUPDATE"));
                (seen.get() == self.updates).then_some(())
            });
        });
    }

    async fn read(&mut self) -> Option<()> {
        let start = self.printed.len();
        self.printed.resize(start + (64 << 10), 0);
        // A program that was killed may reset its terminal.
        let read = self.terminal.read(&mut self.printed[start..]).await;
        let count = read.unwrap_or(0);
        self.printed.truncate(start + count);
        (count > 0).then_some(())
    }

    /// What it has printed without its own words.
    fn lines(&self) -> String {
        let mut said = String::from_utf8_lossy(&self.printed).into_owned();
        if self.is_client {
            return said;
        }
        for own in ["Read BLOCK\n", "SSL_do_handshake -> 1\n"] {
            said = said.replace(own, "");
        }
        let is_text = |line: &str| line.len() == LINE && line[..LINE - 1].parse::<u32>().is_ok();
        said.split_inclusive('\n')
            .filter(|line| is_text(line))
            .collect()
    }
}

fn version(old: bool) -> &'static str {
    if old { "-tls1_2" } else { "-tls1_3" }
}
