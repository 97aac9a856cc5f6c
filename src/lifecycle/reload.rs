//! The wish that the configuration be read again, from wherever it comes.

use tokio::sync::{mpsc, oneshot};

/// As many wishes wait at once, and are granted together; others wait to ask.
///
/// 1,024: a storm of them is a handful of reloads, and takes less than 100 KiB.
const WAITING: usize = 1024;

/// Asks a gateway to read its configuration again. Cloning gives another handle of the same gateway.
#[derive(Clone, Debug)]
pub struct Reload(mpsc::Sender<Wish>);

/// One wish for a reload.
#[derive(Debug)]
pub struct Wish {
    /// Who asks, for the log: `SIGHUP`, `POST /v1/reload`, `a changed file`.
    pub by: &'static str,
    /// Hears how it went: nothing, or what is wrong.
    pub outcome: Option<oneshot::Sender<Result<(), String>>>,
}

impl Reload {
    /// A handle, and where its wishes arrive.
    pub fn new() -> (Self, mpsc::Receiver<Wish>) {
        let (wishes, arriving) = mpsc::channel(WAITING);
        (Self(wishes), arriving)
    }

    /// Asks, and waits for nothing. Where so many wishes wait already, one more changes nothing.
    pub fn ask(&self, by: &'static str) {
        let _ = self.0.try_send(Wish { by, outcome: None });
    }

    /// Asks, and waits until the configuration serves.
    ///
    /// # Errors
    /// What is wrong with it, for a person to read. The gateway goes on with the one before.
    pub async fn done(&self, by: &'static str) -> Result<(), String> {
        let gone = || "the gateway is stopping".to_owned();
        let (outcome, told) = oneshot::channel();
        let wish = Wish {
            by,
            outcome: Some(outcome),
        };
        self.0.send(wish).await.map_err(|_| gone())?;
        told.await.map_err(|_| gone())?
    }
}
