//! What an operator may do through the admin interface, and who counts as one.

use std::sync::Arc;

use aws_lc_rs::constant_time;
use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};

use super::Shared;
use crate::config::Token;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// Somebody who can reach the address.
    Tcp,
    /// A process of this machine, of this user; `None` where the system does not tell.
    Unix(Option<u32>),
}

/// Reads the configuration again, and answers when it serves, or is refused.
pub(super) async fn reload(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> (StatusCode, String) {
    if let Err(why) = permitted(peer, &headers, shared.sources.token.load_full()).await {
        return (StatusCode::FORBIDDEN, format!("{why}\n"));
    }
    if shared.shutdown.is_draining() {
        let why = "the gateway is stopping: its configuration is not read again\n";
        return (StatusCode::SERVICE_UNAVAILABLE, why.to_owned());
    }
    match shared.sources.reload.done("POST /v1/reload").await {
        Ok(()) => (StatusCode::OK, "the new configuration serves\n".to_owned()),
        Err(why) => {
            let text =
                format!("the new configuration is refused, the one before serves on:\n{why}\n");
            (StatusCode::UNPROCESSABLE_ENTITY, text)
        }
    }
}

/// Whether this peer may change anything: over a UNIX socket root and the gateway's own user; over TCP whoever has the
/// token. A page in a browser never may.
async fn permitted(
    peer: Peer,
    headers: &HeaderMap,
    token: Option<Arc<Token>>,
) -> Result<(), String> {
    // Browsers send it with every POST (Fetch Standard §3.2), and nothing else does.
    if headers.contains_key(header::ORIGIN) {
        return Err("a web page may not do this".to_owned());
    }
    match (peer, token) {
        (Peer::Unix(Some(uid)), _) if uid == 0 || uid == own_uid() => Ok(()),
        (Peer::Unix(_), None) => {
            Err("over this socket root and the gateway's own user may do this".to_owned())
        }
        (Peer::Tcp, None) => Err(
            "over TCP this needs a token: set `admin_token_file`, or use a UNIX socket as `admin`, or send SIGHUP"
                .to_owned(),
        ),
        (Peer::Tcp | Peer::Unix(_), Some(token)) => {
            // Its file is read each time, so that a new token needs no reload.
            let read = tokio::task::spawn_blocking(move || token.read()).await;
            let token = read.map_err(|_| "the gateway is stopping".to_owned())?;
            let token = token.map_err(|error| format!("`admin_token_file`: {error}"))?;
            match bearer(headers) {
                Some(given) if is_same(given, token.reveal()) => Ok(()),
                Some(_) => Err("this is not the token".to_owned()),
                None => Err("send the token: `Authorization: Bearer TOKEN`".to_owned()),
            }
        }
    }
}

/// The token of a request (RFC 6750 §2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// In a time that does not tell how much of it is right.
fn is_same(given: &str, token: &str) -> bool {
    constant_time::verify_slices_are_equal(given.as_bytes(), token.as_bytes()).is_ok()
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Secret;

    async fn may(peer: Peer, token: Option<&str>, headers: &[(&str, &str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: header::HeaderName = name.parse().unwrap();
            map.insert(name, value.parse().unwrap());
        }
        let token = token.map(|token| Arc::new(Token::Value(Secret::new(token.to_owned()))));
        permitted(peer, &map, token).await.is_ok()
    }

    #[tokio::test]
    async fn over_tcp_the_token_decides() {
        let right = [("authorization", "Bearer s3cret")];
        assert!(may(Peer::Tcp, Some("s3cret"), &right).await);
        assert!(
            may(
                Peer::Tcp,
                Some("s3cret"),
                &[("authorization", "bearer s3cret")]
            )
            .await
        );
        for wrong in [
            "Bearer s3cre",
            "Bearer s3crets",
            "Bearer ",
            "Basic s3cret",
            "s3cret",
        ] {
            assert!(
                !may(Peer::Tcp, Some("s3cret"), &[("authorization", wrong)]).await,
                "{wrong}"
            );
        }
        assert!(!may(Peer::Tcp, Some("s3cret"), &[]).await);
        assert!(
            !may(Peer::Tcp, None, &right).await,
            "without a token nobody may"
        );
    }

    #[tokio::test]
    async fn over_a_socket_the_user_decides_or_the_token() {
        assert!(may(Peer::Unix(Some(0)), None, &[]).await);
        assert!(may(Peer::Unix(Some(own_uid())), Some("s3cret"), &[]).await);
        let (other, right) = (Peer::Unix(Some(4711)), [("authorization", "Bearer s3cret")]);
        assert!(!may(other, None, &right).await);
        assert!(may(other, Some("s3cret"), &right).await);
        assert!(!may(Peer::Unix(None), Some("s3cret"), &[]).await);
    }

    #[tokio::test]
    async fn a_web_page_never_may() {
        let page = [
            ("authorization", "Bearer s3cret"),
            ("origin", "http://127.0.0.1:9443"),
        ];
        assert!(!may(Peer::Tcp, Some("s3cret"), &page).await);
        assert!(!may(Peer::Unix(Some(0)), None, &[("origin", "null")]).await);
    }
}
