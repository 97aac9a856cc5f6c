//! The HTTP APIs of Consul and Nomad as a gateway reads them: questions with an answer, and blocking queries that tell of changes.

mod answer;
mod connection;
mod error;
mod hold_off;
mod limits;
mod login;
mod rights;
mod token;
mod watch;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;

pub use answer::{Answer, null_is_default};
pub use error::{ClientError, Error};
pub use rights::Right;
pub use token::TokenId;
pub use watch::Watch;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls_pki_types::ServerName;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use connection::{Agent, Failure, LARGE_AT_ONCE, Reply};
use hold_off::HoldOff;
use limits::Limits;
use token::{Held, Tokens};

use crate::config::{self, ConsulAddress, Secret, Token};
use crate::tls;
use crate::tls::key::KeyFile;
use crate::tls::verify::Proof;

/// What stands in a path or a query as it is (RFC 3986 §2.3).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Answers larger than this are read as JSON away from the threads that move bytes: 8 MB take 40 ms and more.
const LARGE: usize = 64 * 1024;

/// How many plain reads of a client [apart](Client::apart) go on at once: an agent allows 200 connections for each address
/// of its clients, and there may be sixteen such clients.
const READS_APART: usize = 4;

/// Whose API it is. They are alike: paths under `/v1`, a token in a header, blocking queries by an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// Consul's.
    Consul,
    /// Nomad's.
    Nomad,
}

impl Api {
    /// What it is called in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Consul => "consul",
            Self::Nomad => "nomad",
        }
    }

    /// The header that carries the token.
    fn token_header(self) -> HeaderName {
        HeaderName::from_static(match self {
            Self::Consul => "x-consul-token",
            Self::Nomad => "x-nomad-token",
        })
    }
}

/// As it is called in messages.
impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An agent, and how it is asked.
#[derive(Clone, Copy, Debug)]
pub struct Server<'a> {
    /// Whose it is.
    pub api: Api,
    /// Where it listens.
    pub address: &'a ConsulAddress,
    /// Whether it is spoken to over TLS.
    pub https: bool,
    /// What is put before every path: empty, or `/prefix`.
    pub prefix: &'a str,
    /// The token, if one is needed.
    pub token: Option<&'a Token>,
    /// What is exchanged for a token, if that is how one is had.
    pub login: Option<&'a config::Login>,
    /// User and password for a server in front of it (HTTP basic authentication).
    pub basic_auth: Option<&'a (String, Secret)>,
    /// CAs of its certificate, PEM; empty means the system's.
    pub roots: &'a [PathBuf],
    /// The chain and key, PEM, that it is shown if it asks.
    pub certificate: Option<&'a (PathBuf, KeyFile)>,
    /// The name that it proves, if it is not the one in its address.
    pub server_name: Option<&'a str>,
}

/// A client of one agent. Clones share its connections and its bounds.
///
/// It speaks HTTP/1.1 over TCP or a UNIX socket, with TLS or without; follows no redirect and no proxy; and sends its token
/// in a header only.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    api: Api,
    agent: Arc<Agent>,
    /// The agent's address, for messages.
    name: String,
    /// What stands before every path.
    prefix: String,
    /// What every question says, but for the token.
    headers: HeaderMap,
    /// What of them no message may say.
    unsaid: Arc<[Secret]>,
    tokens: Arc<Tokens>,
    reads: Semaphore,
    hold_off: Arc<HoldOff>,
    /// Whether it is one [apart](Client::apart).
    is_apart: bool,
}

/// A question.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<'a> {
    /// The parts of the path after `/v1`, such as `["health", "service", name]`. They may hold anything: what could be
    /// taken for something else is escaped, a `/` too.
    pub path: &'a [&'a str],
    /// Keys and values after the `?`; escaped likewise.
    pub parameters: &'a [(&'a str, &'a str)],
    /// Whether the leader makes sure that it still is the leader (`?consistent`): slower, and never stale.
    pub consistent: bool,
}

impl Client {
    /// Reads the CAs, the certificate and the token, and asks nothing yet.
    pub fn new<'a>(server: impl Into<Server<'a>>) -> Result<Self, ClientError> {
        Self::with_limits(server, Limits::default())
    }

    fn with_limits<'a>(server: impl Into<Server<'a>>, limits: Limits) -> Result<Self, ClientError> {
        let server = server.into();
        let host = match server.address {
            ConsulAddress::Tcp(..) => server.address.to_string(),
            // As curl says it; nobody routes by it.
            ConsulAddress::Unix(_) => "localhost".to_owned(),
        };
        let address = || ClientError::Address(format!("{}{}", server.address, server.prefix));
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(&host).map_err(|_| address())?);
        let agent = concat!("portcullis/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        let mut unsaid = Vec::new();
        if let Some((user, password)) = server.basic_auth {
            let pair = format!("{user}:{}", password.reveal());
            let encoded = data_encoding::BASE64.encode(pair.as_bytes());
            let basic = HeaderValue::from_str(&format!("Basic {encoded}"));
            let mut basic = basic.map_err(|_| address())?;
            basic.set_sensitive(true);
            headers.insert(AUTHORIZATION, basic);
            unsaid = vec![Secret::new(encoded), password.clone()];
        }
        Uri::try_from(format!("{}/v1", server.prefix)).map_err(|_| address())?;
        Ok(Self(Arc::new(Shared {
            api: server.api,
            agent: Arc::new(Agent {
                address: server.address.clone(),
                tls: security(&server)?,
                idle: Default::default(),
                large: Arc::new(Semaphore::new(LARGE_AT_ONCE)),
                limits: limits.clone(),
            }),
            name: server.address.to_string(),
            prefix: server.prefix.to_owned(),
            headers,
            unsaid: unsaid.into(),
            tokens: Arc::new(Tokens::new(&server)?),
            reads: Semaphore::new(limits.reads),
            hold_off: Arc::default(),
            is_apart: false,
        })))
    }

    /// A client of the same agent, as whom this one asks, whose reads do not wait for this one's: as many as
    /// `READS_APART` at a time.
    pub fn apart(&self) -> Self {
        let Shared {
            api,
            agent,
            name,
            prefix,
            headers,
            unsaid,
            tokens,
            reads: _,
            hold_off,
            is_apart: _,
        } = &*self.0;
        Self(Arc::new(Shared {
            api: *api,
            agent: Arc::clone(agent),
            name: name.clone(),
            prefix: prefix.clone(),
            headers: headers.clone(),
            unsaid: Arc::clone(unsaid),
            tokens: Arc::clone(tokens),
            reads: Semaphore::new(READS_APART),
            hold_off: Arc::clone(hold_off),
            is_apart: true,
        }))
    }

    /// Whose agent it asks.
    pub fn api(&self) -> Api {
        self.0.api
    }

    /// Asks once. At most 16 such reads go on at a time; the others wait for their turn.
    pub async fn read<T>(&self, query: &Query<'_>) -> Result<Answer<T>, Error>
    where
        T: DeserializeOwned + Send + 'static,
    {
        // It is never closed.
        let _turn = self.0.reads.acquire().await.ok();
        let mut parameters = parameters(query.parameters);
        if query.consistent {
            parameters.push("consistent".to_owned());
        }
        let patience = self.0.agent.limits.answer;
        self.ask(&path(query.path), &parameters, patience).await
    }

    /// Asks, as whom the token says; once more if that is refused and its file holds another by now.
    async fn ask<T>(
        &self,
        path: &str,
        parameters: &[String],
        patience: Duration,
    ) -> Result<Answer<T>, Error>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let tokens = &self.0.tokens;
        let token = tokens.current(&self.0).await?;
        let asked_as = token.clone();
        let answer = self.ask_as(token, path, parameters, patience).await;
        match (answer, asked_as) {
            (Err(error), Some(held)) if error.is_denied() => {
                match tokens.other_than(&held, &error, &self.0).await {
                    Some(other) => self.ask_as(Some(other), path, parameters, patience).await,
                    None => Err(error),
                }
            }
            (answer, _) => answer,
        }
    }

    async fn ask_as<T>(
        &self,
        token: Option<Held>,
        path: &str,
        parameters: &[String],
        patience: Duration,
    ) -> Result<Answer<T>, Error>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let Shared {
            api, agent, prefix, ..
        } = &*self.0;
        let unexpected = |reason: String| Error::Unexpected {
            api: *api,
            path: path.to_owned(),
            reason,
        };
        let target = match parameters {
            [] => format!("{prefix}{path}"),
            _ => format!("{prefix}{path}?{}", parameters.join("&")),
        };
        let target = Uri::try_from(target);
        let target = target.map_err(|error| unexpected(format!("it was never asked: {error}")))?;
        let mut request = Request::new(Full::<Bytes>::default());
        *request.uri_mut() = target;
        *request.headers_mut() = self.0.headers.clone();
        if let Some(held) = &token {
            let headers = request.headers_mut();
            headers.insert(api.token_header(), held.header.clone());
        }
        if let Some(refusal) = self.0.hold_off.refusal() {
            return Err(refusal);
        }
        let reply = agent.ask(request, patience).await;
        let reply = reply.map_err(|failure| self.0.error(failure, path))?;
        if reply.status != StatusCode::OK {
            let token = token.as_ref().map(|held| &held.secret);
            let secrets = token.into_iter().chain(self.0.unsaid.iter());
            let error = refused(*api, &reply, secrets, path);
            self.0.hold_off.heed(reply.status, &reply.headers, &error);
            return Err(error);
        }
        let id = token.map(|held| held.id).unwrap_or_default();
        let value = value(reply.body).await.map_err(unexpected)?;
        drop(reply.turn);
        Ok(Answer::read(*api, &reply.headers, id).map(|()| value))
    }

    /// Why there is no token by login, or not another one though it is time.
    pub fn login_trouble(&self) -> Option<String> {
        match &self.0.tokens.as_ref() {
            Tokens::Login(login) => login.trouble(),
            Tokens::None | Tokens::Value(_) | Tokens::File(_) => None,
        }
    }

    /// Lets the token of the last login be none (`/v1/acl/logout`), if it was had by one. Takes a second at most.
    pub async fn log_out(&self) {
        if let Tokens::Login(login) = self.0.tokens.as_ref() {
            login.end(&self.0).await;
        }
    }
}

impl Shared {
    fn error(&self, failure: Failure, path: &str) -> Error {
        let (api, agent, path) = (self.api, self.name.clone(), path.to_owned());
        match failure {
            Failure::Unreachable(reason) => Error::Unreachable { api, agent, reason },
            Failure::BrokenOff(reason) => Error::BrokenOff {
                api,
                agent,
                path,
                reason,
            },
            Failure::Timeout(after) => Error::Timeout {
                api,
                agent,
                path,
                after,
            },
            Failure::TooLarge => Error::TooLarge {
                api,
                path,
                most: self.agent.limits.bytes,
            },
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.0.name).finish()
    }
}

/// What verifies the agent, and the name that it must prove: the one that is written, or else that of its address.
fn security(
    server: &Server<'_>,
) -> Result<Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>, ClientError> {
    if !server.https {
        return Ok(None);
    }
    let name = match (server.server_name, server.address) {
        (Some(name), _) => name,
        (None, ConsulAddress::Tcp(host, _)) => host,
        (None, ConsulAddress::Unix(_)) => "localhost",
    };
    let proved = ServerName::try_from(name.to_owned())
        .map_err(|_| ClientError::ServerName(name.to_owned()))?;
    let certificate = server.certificate;
    let certificate = certificate.map(|(chain, key)| (chain.as_path(), key));
    let config = tls::client::config(server.roots, certificate, Proof::ServerName)?;
    Ok(Some((config, proved)))
}

fn path(parts: &[&str]) -> String {
    let mut path = "/v1".to_owned();
    for part in parts {
        path.push('/');
        path.extend(utf8_percent_encode(part, ESCAPED));
    }
    path
}

fn parameters(pairs: &[(&str, &str)]) -> Vec<String> {
    let escaped = |text| utf8_percent_encode(text, ESCAPED);
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| format!("{}={}", escaped(*key), escaped(*value)))
        .collect()
}

/// The beginning of a refusal. A server that repeats what it was sent does not put a secret into our log.
fn refused<'a>(
    api: Api,
    reply: &Reply,
    secrets: impl Iterator<Item = &'a Secret>,
    path: &str,
) -> Error {
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    let secrets = secrets.filter(|secret| !secret.reveal().is_empty());
    let text = secrets.fold(text, |text, secret| text.replace(secret.reveal(), "MASKED"));
    Error::Status {
        api,
        path: path.to_owned(),
        code: reply.status.as_u16(),
        text: error::shown(text),
    }
}

async fn value<T>(body: Vec<u8>) -> Result<T, String>
where
    T: DeserializeOwned + Send + 'static,
{
    if body.len() <= LARGE {
        return answer::decode(&body);
    }
    let decoded = tokio::task::spawn_blocking(move || answer::decode(&body)).await;
    decoded.unwrap_or_else(|_| Err("it could not be read: the program is stopping".to_owned()))
}
