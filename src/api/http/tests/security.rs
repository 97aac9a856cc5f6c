//! TLS to the agent, over TCP and UNIX sockets: who must prove what.

use std::path::PathBuf;

use rustls::ServerConfig;
use rustls::sign::SingleCertAndKey;

use super::*;
use crate::tls::options::{ClientAuth, Options};
use crate::tls::server::ServerPolicy;
use crate::tls::test_certs::{Ca, Issued, write};

/// A server with this certificate, which asks for one if `clients` is a CA file.
fn proving(certificate: &Issued, clients: Option<PathBuf>) -> Option<Arc<ServerConfig>> {
    let options = Options {
        client_auth: clients.map_or(ClientAuth::None, |file| ClientAuth::Required(vec![file])),
        ..Options::default()
    };
    let resolver = Arc::new(SingleCertAndKey::from(certificate.certified_key()));
    let policy = ServerPolicy::new(&options, resolver, None).unwrap();
    Some(Arc::clone(policy.config(&[])))
}

/// Speaks TLS to it, and trusts this CA.
fn trusting(server: &Server, roots: PathBuf) -> Consul {
    Consul {
        https: true,
        roots: vec![roots],
        ..server.consul()
    }
}

async fn refusal(consul: &Consul) -> String {
    let error = ask(&Client::new(consul).unwrap()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    error.to_string()
}

#[tokio::test]
async fn the_agent_must_prove_the_name_or_address_that_it_is_asked_at() {
    let directory = tempfile::tempdir().unwrap();
    let ca = Ca::new("agents");
    let roots = write(directory.path(), "ca.pem", ca.pem());
    let by_address = proving(&ca.issue(&["127.0.0.1"]), None);
    let server = Server::start_with(by_address, [good(1, "[]")]).await;
    let consul = trusting(&server, roots.clone());
    ask(&Client::new(&consul).unwrap()).await.unwrap();

    let named = proving(&ca.issue(&["server.dc1.consul"]), None);
    let mut server = Server::start_with(named, [good(1, "[]")]).await;
    let consul = trusting(&server, roots.clone());
    let wrong_name = refusal(&consul).await;
    assert!(wrong_name.contains("say by `server_name`"), "{wrong_name}");

    // The address stays; the certificate must prove the name that is written.
    let consul = Consul {
        server_name: Some("server.dc1.consul".to_owned()),
        ..consul
    };
    ask(&Client::new(&consul).unwrap()).await.unwrap();
    assert!(server.asked().await.contains(&server.address.to_string()));

    let stranger = write(directory.path(), "other.pem", Ca::new("agents").pem());
    let consul = Consul {
        roots: vec![stranger],
        ..consul
    };
    let unknown = refusal(&consul).await;
    assert!(unknown.contains("name the CA"), "{unknown}");
    let other_name = Consul {
        server_name: Some("server.dc2.consul".to_owned()),
        roots: vec![roots],
        ..consul
    };
    refusal(&other_name).await;
    assert_eq!(server.unseen(), 0, "nobody who proved nothing was asked");
}

#[tokio::test]
async fn what_does_not_speak_tls_is_told_as_such_and_given_up_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let roots = write(directory.path(), "ca.pem", Ca::new("agents").pem());
    let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::start([]).await;
    let consul = Consul {
        address: ConsulAddress::Tcp("127.0.0.1".into(), plain.local_addr().unwrap().port()),
        ..trusting(&server, roots)
    };
    let limits = Limits {
        connect: Duration::from_millis(200),
        ..Limits::default()
    };
    let client = Client::with_limits(&consul, limits).unwrap();
    let silent = ask(&client).await.unwrap_err().to_string();
    assert!(
        silent.ends_with("cannot be reached: no connection within 200ms"),
        "{silent}"
    );

    let answer = async {
        let (mut tcp, _) = plain.accept().await.unwrap();
        drop(tcp);
        (tcp, _) = plain.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut tcp, b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        tcp
    };
    let client = Client::new(&consul).unwrap();
    let (error, _tcp) = tokio::join!(ask(&client), answer);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("write http:// in its address"), "{error}");
}

#[tokio::test]
async fn a_certificate_is_shown_to_an_agent_that_asks() {
    let directory = tempfile::tempdir().unwrap();
    let (agents, clients) = (Ca::new("agents"), Ca::new("clients"));
    let roots = write(directory.path(), "agents.pem", agents.pem());
    let asked_for = write(directory.path(), "clients.pem", clients.pem());
    let asking = proving(&agents.issue(&["127.0.0.1"]), Some(asked_for));
    let server = Server::start_with(asking, [good(1, "[]")]).await;
    let consul = trusting(&server, roots);
    let error = ask(&Client::new(&consul).unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
    let (chain, key) = clients
        .issue(&["gateway"])
        .write(directory.path(), "gateway");
    let consul = Consul {
        certificate: Some((chain, key.into())),
        ..consul
    };
    ask(&Client::new(&consul).unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_unix_socket_is_asked_plainly_or_with_tls() {
    let directory = tempfile::tempdir().unwrap();
    let plain = directory.path().join("consul.sock");
    let mut server = Server::start_unix(&plain, None, [good(1, "[]"), good(1, "[]")]);
    let consul = Consul {
        address: ConsulAddress::Unix(plain),
        ..server.consul()
    };
    let client = Client::new(&consul).unwrap();
    ask(&client).await.unwrap();
    ask(&client).await.unwrap();
    let head = server.asked().await.to_ascii_lowercase();
    assert!(head.contains("host: localhost\r\n"), "{head}");

    // As Nomad gives it to a task in bridge mode.
    let ca = Ca::new("agents");
    let secure = directory.path().join("consul-tls.sock");
    let localhost = proving(&ca.issue(&["localhost"]), None);
    let server = Server::start_unix(&secure, localhost, [good(1, "[]")]);
    let consul = Consul {
        address: ConsulAddress::Unix(secure),
        server_name: Some("localhost".to_owned()),
        ..trusting(&server, write(directory.path(), "ca.pem", ca.pem()))
    };
    ask(&Client::new(&consul).unwrap()).await.unwrap();
    let other = Consul {
        server_name: Some("elsewhere".to_owned()),
        ..consul
    };
    refusal(&other).await;
}

#[tokio::test]
async fn a_client_that_could_not_work_is_not_made() {
    let server = Server::start([]).await;
    let bad_roots = Consul {
        https: true,
        roots: vec!["/nonexistent/ca.pem".into()],
        ..server.consul()
    };
    assert!(matches!(Client::new(&bad_roots), Err(ClientError::Tls(_))));
    let directory = tempfile::tempdir().unwrap();
    let roots = write(directory.path(), "ca.pem", Ca::new("agents").pem());
    let bad_name = Consul {
        server_name: Some("a b".to_owned()),
        ..trusting(&server, roots)
    };
    assert!(matches!(
        Client::new(&bad_name),
        Err(ClientError::ServerName(_))
    ));
    let bad_host = Consul {
        address: ConsulAddress::Tcp("a\r\nX-Evil: 1".to_owned(), 8500),
        ..server.consul()
    };
    assert!(matches!(
        Client::new(&bad_host),
        Err(ClientError::Address(_))
    ));
    let bad_prefix = Consul {
        prefix: "/a b".to_owned(),
        ..server.consul()
    };
    assert!(matches!(
        Client::new(&bad_prefix),
        Err(ClientError::Address(_))
    ));
}
