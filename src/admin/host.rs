//! The `Host` check that keeps other people's web pages out of a loopback interface (DNS rebinding).

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Refuses requests for a name: a page on `http://evil.example` can make that name mean 127.0.0.1, and its
/// scripts could then read the answers. `localhost` and IP addresses cannot be made to mean something else.
pub(super) async fn check(request: Request, next: Next) -> Response {
    if is_local(request.uri(), request.headers()) {
        return next.run(request).await;
    }
    let text = "this address answers to `localhost` or an IP address in the Host header only, \
                so that no web page can read it through a name of its own\n";
    (StatusCode::MISDIRECTED_REQUEST, text).into_response()
}

/// No `Host` at all passes: browsers always send one, and HTTP/1.0 probes need not (RFC 9112 §3.2).
fn is_local(uri: &Uri, headers: &HeaderMap) -> bool {
    let in_uri = uri
        .authority()
        .is_none_or(|authority| is_local_host(authority.host()));
    let mut hosts = headers.get_all(header::HOST).iter();
    in_uri
        && hosts.all(|host| {
            let authority = Authority::try_from(host.as_bytes());
            authority.is_ok_and(|authority| is_local_host(authority.host()))
        })
}

fn is_local_host(host: &str) -> bool {
    let v6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    host.eq_ignore_ascii_case("localhost") || v6.unwrap_or(host).parse::<IpAddr>().is_ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn passes(uri: &str, hosts: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, host.parse().unwrap());
        }
        is_local(&uri.parse().unwrap(), &headers)
    }

    #[test]
    fn localhost_and_addresses_pass() {
        for host in [
            "localhost",
            "LocalHost:9443",
            "127.0.0.1",
            "127.0.0.1:9443",
            "[::1]",
            "[::1]:9443",
            "10.1.2.3",
        ] {
            assert!(passes("/", &[host]), "{host}");
        }
        assert!(passes("/", &[]));
        assert!(passes("http://localhost/livez", &["localhost"]));
    }

    #[test]
    fn names_do_not_pass_wherever_they_stand() {
        for host in [
            "evil.example",
            "evil.example:9443",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            "a b",
            "[::1",
        ] {
            assert!(!passes("/", &[host]), "{host}");
        }
        assert!(!passes("/", &["localhost", "evil.example"]));
        assert!(!passes("http://evil.example/", &["localhost"]));
        assert!(!passes("/", &["localhost@evil.example"]));
    }
}
