//! Whether what is to be measured does what it is measured for.

use anyhow::{Context, ensure};
use tokio::time::timeout;

use crate::connection::{Load, PATIENCE, To};
use crate::server::{ECHO, NAME};
use crate::tls::Proof;

/// Messages of these lengths come back byte for byte: about one TLS record, and more than one read.
const LENGTHS: [usize; 6] = [1, 64, 16_384, 16_385, 65_537, 200_000];

/// Whom to ask, and what to expect.
#[derive(clap::Args)]
pub(crate) struct Check {
    #[command(flatten)]
    to: To,
    /// The upstream that must answer
    #[arg(long)]
    upstream: String,
}

impl Check {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let load = Load::new(&self.to, Proof::Asked)?;
        timeout(PATIENCE, self.name(&load))
            .await
            .context("no name in time")??;
        timeout(PATIENCE, echo(&load))
            .await
            .context("no echo in time")?
    }

    async fn name(&self, load: &Load) -> anyhow::Result<()> {
        let mut connection = load.open(&[NAME]).await?;
        let name = String::from_utf8(connection.rest().await?)?;
        ensure!(
            name == self.upstream,
            "`{name}` has answered, not `{}`",
            self.upstream
        );
        Ok(())
    }
}

async fn echo(load: &Load) -> anyhow::Result<()> {
    let mut connection = load.open(&[ECHO]).await?;
    // No period that a buffer's size is a multiple of.
    let mut bytes = (0_u8..251).cycle();
    for length in LENGTHS {
        let message: Vec<u8> = bytes.by_ref().take(length).collect();
        let mut back = vec![0; length];
        connection.send(&message).await?;
        connection.receive(&mut back).await?;
        ensure!(
            message == back,
            "of {length} bytes, others came back than were sent"
        );
    }
    let rest = connection.close().await?;
    ensure!(
        rest.is_empty(),
        "{} bytes came that nobody sent",
        rest.len()
    );
    Ok(())
}
