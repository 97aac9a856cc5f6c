//! The token that questions carry, and the file that it may come from.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use aws_lc_rs::digest::{Context, SHA256};
use data_encoding::BASE64URL_NOPAD;
use hyper::header::HeaderValue;
use serde::{Deserialize, Serialize};

use super::login::Login;
use super::{Api, Error, Server, Shared};
use crate::config::{Secret, Token, TokenError};

/// As whom a question was asked: equal for the same token, and for no token at all. Reveals nothing of the token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub struct TokenId(Option<u64>);

impl TokenId {
    /// Whether it was asked without a token of ours: as nobody, or as whom the agent takes such a question to come from.
    pub fn is_anonymous(self) -> bool {
        self.0.is_none()
    }

    /// A fingerprint: 64 bits of a SHA-256. A token is a UUID by chance: whoever sees the fingerprint, on the disk too, can
    /// try no tokens against it.
    ///
    /// A workload identity of Nomad is renewed, and another one after each start: whose it is says as whom is asked.
    pub(crate) fn of(api: Api, token: &Secret) -> Self {
        let mut text = Context::new(&SHA256);
        text.update(format!("a token of {api}: ").as_bytes());
        let subject = match api {
            Api::Nomad => subject(token.reveal()),
            Api::Consul => None,
        };
        text.update(subject.as_deref().unwrap_or(token.reveal()).as_bytes());
        let sum = text.finish();
        let sum = sum.as_ref().iter().take(8);
        Self(Some(sum.fold(0, |id, byte| id << 8 | u64::from(*byte))))
    }
}

/// The subject of a JWT (RFC 7519 §4.1.2), unverified: Nomad says `REGION:NAMESPACE:JOB:GROUP:TASK:IDENTITY`.
fn subject(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        sub: String,
    }
    let mut parts = token.split('.');
    let (_, claims, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
        return None;
    };
    let claims = BASE64URL_NOPAD.decode(claims.as_bytes()).ok()?;
    let Claims { sub } = serde_json::from_slice(&claims).ok()?;
    Some(sub)
}

/// A token, ready to be sent.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// For the header of the API; marked as sensitive.
    pub(super) header: HeaderValue,
    pub(super) id: TokenId,
    /// To be masked where it comes back.
    pub(super) secret: Secret,
}

/// Where the token comes from.
#[derive(Debug)]
pub(super) enum Tokens {
    None,
    Value(Box<Held>),
    File(Arc<File>),
    Login(Box<Login>),
}

/// A token in a file, as it was last read.
#[derive(Debug)]
pub(super) struct File {
    api: Api,
    path: PathBuf,
    read: Mutex<(Held, Option<Stamp>)>,
}

/// What changes when a file is written again, or another is put in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: SystemTime,
    length: u64,
    inode: u64,
}

impl Tokens {
    pub(super) fn new(server: &Server<'_>) -> Result<Self, TokenError> {
        let (api, token) = (server.api, server.token);
        if let Some(login) = server.login {
            return Ok(Self::Login(Box::new(Login::new(login.clone()))));
        }
        Ok(match token {
            None => Self::None,
            Some(token @ Token::Value(_)) => Self::Value(Box::new(Held::read(api, token)?)),
            Some(token @ Token::File(path)) => {
                let stamp = Stamp::of(path);
                Self::File(Arc::new(File {
                    api,
                    path: path.clone(),
                    read: Mutex::new((Held::read(api, token)?, stamp)),
                }))
            }
        })
    }

    /// The token as it is now. A file is read again if it has changed; one that holds none keeps the last.
    ///
    /// # Errors
    /// It is had by login, and there is none.
    pub(super) async fn current(&self, shared: &Shared) -> Result<Option<Held>, Error> {
        Ok(match self {
            Self::None => None,
            Self::Value(held) => Some((**held).clone()),
            Self::File(file) => Some(file.look(false).await),
            Self::Login(login) => Some(login.current(shared).await?),
        })
    }

    /// The token of a file whatever its times say, or of another login, after the one that was sent was refused. `None` if
    /// there is no other.
    pub(super) async fn other_than(
        &self,
        refused: &Held,
        why: &Error,
        shared: &Shared,
    ) -> Option<Held> {
        match self {
            Self::None | Self::Value(_) => None,
            Self::File(file) => {
                let held = file.look(true).await;
                Some(held).filter(|held| held.secret != refused.secret)
            }
            Self::Login(login) => {
                let is_unknown = why.is_of_unknown_token();
                login.other_than(refused, is_unknown, shared).await
            }
        }
    }
}

impl File {
    /// Looks at the file away from the threads that move bytes: its disk may hang.
    async fn look(self: &Arc<Self>, even_if_unchanged: bool) -> Held {
        let file = Arc::clone(self);
        let looked = tokio::task::spawn_blocking(move || file.look_now(even_if_unchanged));
        match looked.await {
            Ok(held) => held,
            // The runtime is being shut down.
            Err(_) => self.lock().0.clone(),
        }
    }

    fn look_now(&self, even_if_unchanged: bool) -> Held {
        // Before it is read: what is written meanwhile is seen the next time.
        let stamp = Stamp::of(&self.path);
        let (held, last) = self.lock().clone();
        if stamp == last && !even_if_unchanged {
            return held;
        }
        let held = match Held::read(self.api, &Token::File(self.path.clone())) {
            Ok(held) => held,
            Err(error) => {
                if stamp != last {
                    let api = self.api;
                    tracing::warn!(%error, %api, "no new token: the last one stays in use");
                }
                held
            }
        };
        *self.lock() = (held.clone(), stamp);
        held
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Held, Option<Stamp>)> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn read(api: Api, token: &Token) -> Result<Self, TokenError> {
        Self::of(api, token.read()?)
    }

    pub(super) fn of(api: Api, secret: Secret) -> Result<Self, TokenError> {
        let header = HeaderValue::from_str(secret.reveal());
        let mut header = header.map_err(|error| TokenError {
            path: None,
            reason: error.to_string(),
        })?;
        header.set_sensitive(true);
        Ok(Self {
            header,
            id: TokenId::of(api, &secret),
            secret,
        })
    }
}

impl Stamp {
    /// `None` if there is no such file, or it may not be looked at.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            modified: metadata.modified().ok()?,
            length: metadata.len(),
            inode: metadata.ino(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> Secret {
        let claims = BASE64URL_NOPAD.encode(claims.as_bytes());
        Secret::new(format!("e30.{claims}.c2lnbmF0dXJl"))
    }

    #[test]
    fn a_workload_of_nomad_stays_the_same_asker_when_its_identity_is_renewed() {
        let of = |claims| TokenId::of(Api::Nomad, &jwt(claims));
        let first = of(r#"{"sub":"global:default:edge:edge:edge:default","exp":1}"#);
        let renewed = of(r#"{"sub":"global:default:edge:edge:edge:default","exp":2}"#);
        let other = of(r#"{"sub":"global:default:other:edge:edge:default","exp":1}"#);
        assert_eq!(first, renewed);
        assert_ne!(first, other);
        // What says nothing of whose it is, is what it is.
        assert_ne!(of(r#"{"exp":1}"#), of(r#"{"exp":2}"#));
        for strange in ["a.b", "a.!.c", "..", "a.b.c.d"] {
            let of = |text: &str| TokenId::of(Api::Nomad, &Secret::new(text.to_owned()));
            assert_ne!(of(strange), of(&format!("{strange}x")), "{strange}");
        }
        // Consul's are UUIDs.
        let of = |claims| TokenId::of(Api::Consul, &jwt(claims));
        assert_ne!(of(r#"{"sub":"a","exp":1}"#), of(r#"{"sub":"a","exp":2}"#));
    }
}
