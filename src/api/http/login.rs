//! Logging in: a JWT becomes an ACL token of Consul, and that another one before it expires.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, StatusCode, Uri};
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::Deserializer;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};

use super::connection::Reply;
use super::token::{Held, Stamp};
use super::{Error, Shared, answer, refused};
use crate::config::{self, Secret};
use crate::log::escape;
use crate::retry::Backoff;

/// How long a login may take. 10 s: the servers write the token down, and an election in between takes as long.
const LOGIN: Duration = Duration::from_secs(10);

/// How long a stop waits for the token to be no more. 1 s: without a logout it expires by itself.
const LOGOUT: Duration = Duration::from_secs(1);

/// The pauses between logins that fail, or whose tokens are refused: each writes to Consul's servers.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A token that has served for so long was good: if it is refused now, another one is asked for at once.
///
/// It is how long a right that is missing may stay missing, too: what a token may do is settled when it is made.
const GOOD: Duration = Duration::from_secs(60);

/// Who logs in, and the token of the last login.
#[derive(Debug)]
pub(super) struct Login {
    wanted: config::Login,
    granted: Mutex<Option<Granted>>,
    /// Held by who logs in: others go on with the last token, if there is one.
    tries: tokio::sync::Mutex<Tries>,
    /// Why the last try failed.
    trouble: Mutex<Option<String>>,
}

/// A token that was had by login.
#[derive(Clone, Debug)]
struct Granted {
    held: Held,
    since: Instant,
    /// When it is time for another one, and when it is no token any more; `None` if it does not expire.
    ends: Option<(Instant, Instant)>,
    /// The file of the JWT that it was had for.
    jwt: Option<Stamp>,
}

#[derive(Debug)]
struct Tries {
    /// No try any more.
    has_ended: bool,
    /// No try before.
    not_before: Instant,
    pauses: Backoff,
}

/// What `/v1/acl/login` answers: a token, and what it may do.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(rename = "SecretID", deserialize_with = "secret")]
    secret: Secret,
    #[serde(rename = "AccessorID", default)]
    accessor: String,
    create_time: Option<String>,
    expiration_time: Option<String>,
    policies: Option<Box<RawValue>>,
    roles: Option<Box<RawValue>>,
    service_identities: Option<Box<RawValue>>,
    node_identities: Option<Box<RawValue>>,
    templated_policies: Option<Box<RawValue>>,
}

impl Login {
    pub(super) fn new(wanted: config::Login) -> Self {
        Self {
            wanted,
            granted: Mutex::default(),
            tries: tokio::sync::Mutex::new(Tries {
                has_ended: false,
                not_before: Instant::now(),
                pauses: Backoff::new(PAUSES.0, PAUSES.1),
            }),
            trouble: Mutex::default(),
        }
    }

    /// The token as it is now; another one, if it is time, or the JWT has changed.
    pub(super) async fn current(&self, shared: &Shared) -> Result<Held, Error> {
        let stamp = self.stamp().await;
        let is_due = |granted: &Granted| {
            let is_time = granted.ends.is_some_and(|(soon, _)| soon <= Instant::now());
            is_time || (stamp.is_some() && stamp != granted.jwt)
        };
        if let Some(granted) = self.valid() {
            if is_due(&granted)
                && let Ok(mut tries) = self.tries.try_lock()
            {
                self.renew(&mut tries, shared).await;
            }
        } else {
            let mut tries = self.tries.lock().await;
            // Another question may have logged in meanwhile.
            if self.valid().is_none() {
                self.renew(&mut tries, shared).await;
            }
        }
        self.valid().map(|granted| granted.held).ok_or_else(|| {
            let trouble = self.trouble().unwrap_or_default();
            Error::Login { reason: trouble }
        })
    }

    /// Another token than the one that was refused, if there is one or it may be that a login gives one.
    pub(super) async fn other_than(
        &self,
        refused: &Held,
        is_unknown: bool,
        shared: &Shared,
    ) -> Option<Held> {
        let mut tries = self.tries.lock().await;
        let granted = self.valid();
        let is_same = |granted: &Granted| granted.held.secret == refused.secret;
        if let Some(granted) = granted.filter(is_same) {
            // What a token is in another datacenter, or is not, says nothing of it in the agent's.
            if shared.is_apart || (!is_unknown && granted.since.elapsed() < GOOD) {
                return None;
            }
            self.renew(&mut tries, shared).await;
            if is_unknown && self.valid().is_some_and(|granted| is_same(&granted)) {
                *self.lock() = None;
                let trouble = self.trouble.lock();
                let mut trouble = trouble.unwrap_or_else(PoisonError::into_inner);
                trouble.get_or_insert_with(|| "the token of the last one is not known".to_owned());
            }
        }
        let other = self.valid().filter(|granted| !is_same(granted));
        other.map(|granted| granted.held)
    }

    /// Why there is no token, or not another one though it is time.
    pub(super) fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock();
        trouble.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets the token be none. Takes a second at most; what fails is left to its expiry.
    pub(super) async fn end(&self, shared: &Shared) {
        // Whoever logs in at the moment has a second, too, and his token is left to expire.
        if let Ok(mut tries) = timeout(LOGOUT, self.tries.lock()).await {
            tries.has_ended = true;
        }
        let granted = self.lock().take();
        if let Some(granted) = granted {
            self.log_out(&granted.held, shared).await;
        }
    }

    async fn log_out(&self, held: &Held, shared: &Shared) {
        let request = request(shared, "/v1/acl/logout", String::new()).map(|mut request| {
            let header = held.header.clone();
            let headers = request.headers_mut();
            headers.insert(shared.api.token_header(), header);
            request
        });
        let Ok(request) = request else { return };
        match timeout(LOGOUT, shared.agent.post(request, LOGOUT)).await {
            Ok(Ok(reply)) if reply.status == StatusCode::OK => {
                tracing::info!("logged out of consul");
            }
            Ok(Ok(Reply { status, .. })) => {
                tracing::warn!(
                    status = status.as_u16(),
                    "no logout from consul: the token is left to expire"
                );
            }
            Ok(Err(_)) | Err(_) => {
                tracing::warn!(
                    "no logout from consul: it does not answer, and the token is left to expire"
                );
            }
        }
    }

    /// Logs in, unless a try before was too short a while ago.
    async fn renew(&self, tries: &mut Tries, shared: &Shared) {
        let now = Instant::now();
        if tries.has_ended || now < tries.not_before {
            return;
        }
        let last = self.lock().clone();
        if last
            .as_ref()
            .is_some_and(|last| last.since.elapsed() >= GOOD)
        {
            tries.pauses.reset();
        }
        tries.not_before = now + tries.pauses.next();
        let trouble = match self.log_in(shared).await {
            Ok(granted) => {
                *self.lock() = Some(granted);
                // One that expires is left to: questions that wait with it go on.
                if let Some(last) = last.filter(|last| last.ends.is_none()) {
                    self.log_out(&last.held, shared).await;
                }
                None
            }
            Err(trouble) => Some(trouble),
        };
        let mut told = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(trouble) = &trouble
            && told.as_ref() != Some(trouble)
        {
            tracing::warn!("consul gives no ACL token by login: {trouble}");
        }
        *told = trouble;
    }

    async fn log_in(&self, shared: &Shared) -> Result<Granted, String> {
        /// Where tokens come from.
        const PATH: &str = "/v1/acl/login";
        // Before it is read: what is written meanwhile is seen the next time.
        let stamp = self.stamp().await;
        let wanted = self.wanted.clone();
        let read = tokio::task::spawn_blocking(move || wanted.jwt()).await;
        let read = read.map_err(|_| "the program is stopping".to_owned())?;
        let jwt = read.map_err(|error| error.to_string())?;
        let body = serde_json::json!({
            "AuthMethod": self.wanted.auth_method,
            "BearerToken": jwt.reveal(),
            "Meta": self.wanted.meta,
        });
        let request = request(shared, PATH, body.to_string())?;
        let asked = Instant::now();
        let reply = timeout(LOGIN, shared.agent.post(request, LOGIN)).await;
        let reply = reply.map_err(|_| format!("no answer within {LOGIN:?}"))?;
        let reply = reply.map_err(|failure| shared.error(failure, PATH).to_string())?;
        if reply.status != StatusCode::OK {
            return Err(refused(
                shared.api,
                &reply,
                [&jwt].into_iter().chain(shared.unsaid.iter()),
                PATH,
            )
            .to_string());
        }
        let answer: Answer = answer::decode(&reply.body)?;
        let ends = answer
            .life()?
            .map(|life| (asked + life * 2 / 3, asked + life));
        let mut held =
            Held::of(shared.api, answer.secret.clone()).map_err(|error| error.to_string())?;
        // Logins come and go; what counts for a doubt is what one may do.
        held.id = super::TokenId::of(shared.api, &Secret::new(answer.rights()));
        let accessor = escape(&answer.accessor);
        let method = &self.wanted.auth_method;
        tracing::info!(%accessor, method, life = ?ends.map(|(_, end)| end - asked), "logged in to consul");
        Ok(Granted {
            held,
            since: asked,
            ends,
            jwt: stamp,
        })
    }

    async fn stamp(&self) -> Option<Stamp> {
        let path = self.wanted.token_file.clone();
        let stamp = tokio::task::spawn_blocking(move || Stamp::of(&path)).await;
        stamp.ok().flatten()
    }

    /// The token of the last login, if it has not expired.
    fn valid(&self) -> Option<Granted> {
        let granted = self.lock().clone();
        granted.filter(|granted| granted.ends.is_none_or(|(_, end)| Instant::now() < end))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Granted>> {
        self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answer {
    /// How long the token lives, by the clock of those who made it.
    fn life(&self) -> Result<Option<Duration>, String> {
        let (Some(made), Some(ends)) = (&self.create_time, &self.expiration_time) else {
            return Ok(None);
        };
        let at = |text: &str| {
            let parsed: Result<Timestamp, _> = text.parse();
            parsed.map_err(|_| "it does not say when the token expires".to_owned())
        };
        let life = at(ends)?.duration_since(at(made)?);
        let life = Duration::try_from(life);
        life.map(Some)
            .map_err(|_| "the token has expired".to_owned())
    }

    /// What the token may do: the same text for the same rights.
    fn rights(&self) -> String {
        let rights = [
            &self.policies,
            &self.roles,
            &self.service_identities,
            &self.node_identities,
            &self.templated_policies,
        ];
        let rights = rights.map(|rights| rights.as_ref().map_or("null", |rights| rights.get()));
        format!("by login: {}", rights.join(" "))
    }
}

/// Something in JSON for this path, without a token.
pub(super) fn request(
    shared: &Shared,
    path: &str,
    body: String,
) -> Result<Request<Full<Bytes>>, String> {
    let uri =
        Uri::try_from(format!("{}{path}", shared.prefix)).map_err(|error| error.to_string())?;
    let mut request = Request::new(Full::from(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    *request.headers_mut() = shared.headers.clone();
    let json = hyper::header::HeaderValue::from_static("application/json");
    request.headers_mut().insert(CONTENT_TYPE, json);
    Ok(request)
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}
