//! The gateway's identity in the mesh, from a real agent, and from one that answers what it should not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use portcullis::api::consul::Client;
use portcullis::config::{self, Catalog, ConsulAddress, Place, Secret, Tagging, Token};
use portcullis::identity::{self, Keeper};
use portcullis::name::SpiffeId;
use portcullis::snapshot::service::Change;
use portcullis::status::State;
use portcullis::tls::mesh::Identity;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, Receiver};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, Reply};
use crate::authority::Authority;
use crate::bao::Bao;
use crate::consul::{Consul, Options, meshed, service};
use crate::support::PATIENCE;
use crate::upstream::{Upstream, echo};
use crate::{peers, ports};

/// The service that the gateway is in the mesh. Nobody has registered it.
const EDGE: &str = "portcullis";

/// The changes that are told of an identity; ends with its owner.
struct Watched {
    changes: Receiver<Change>,
    tasks: JoinSet<()>,
}

impl Watched {
    fn start(address: SocketAddr, service: &str, token: Option<&str>) -> Self {
        Self::start_in(None, address, service, token)
    }

    /// One that is in a namespace.
    fn start_in(
        namespace: Option<&str>,
        address: SocketAddr,
        service: &str,
        token: Option<&str>,
    ) -> Self {
        let config = config::Consul {
            address: ConsulAddress::Tcp(address.ip().to_string(), address.port()),
            https: false,
            prefix: String::new(),
            token: token.map(|token| Token::Value(Secret::new(token.to_owned()))),
            login: None,
            places: vec![Place::default()],
            basic_auth: None,
            roots: Vec::new(),
            certificate: None,
            server_name: None,
            mesh_identity: None,
            tagging: Tagging::default(),
            catalog: Catalog::default(),
        };
        let client = Client::new(&config).unwrap();
        let (send, changes) = mpsc::channel(8);
        let mut tasks = JoinSet::new();
        let (keeper, stop) = (
            Keeper::new(service.to_owned(), namespace.map(str::to_owned)),
            CancellationToken::new(),
        );
        tasks.spawn(async move {
            drop(identity::consul::watch(client, keeper, None, send, stop).await)
        });
        Self { changes, tasks }
    }

    fn of(consul: &Consul, service: &str) -> Self {
        Self::start(agent_of(consul), service, None)
    }

    async fn next(&mut self) -> Change {
        // A leaf that was asked for before is renewed within half a minute.
        let change = timeout(2 * PATIENCE, self.changes.recv()).await;
        change.expect("nothing is told").unwrap()
    }

    /// The next identity, whatever the states before it.
    async fn identity(&mut self) -> Arc<Identity> {
        loop {
            if let Change::Identity(Some(identity)) = self.next().await {
                return identity;
            }
        }
    }

    /// What is told next, which is a state and no identity.
    async fn state(&mut self) -> String {
        match self.next().await {
            Change::State(part, State::Ready) if *part == *identity::PART => "ready".to_owned(),
            Change::State(part, State::Degraded(why)) if *part == *identity::PART => {
                format!("degraded: {why}")
            }
            Change::State(part, State::NotReady(why)) if *part == *identity::PART => {
                format!("not ready: {why}")
            }
            other => panic!("{other:?}"),
        }
    }
}

fn agent_of(consul: &Consul) -> SocketAddr {
    let address = consul.address();
    address.strip_prefix("http://").unwrap().parse().unwrap()
}

/// Whether a server that proves this ID, and asks for ours, sends back what it got.
async fn reaches(identity: &Identity, address: SocketAddr, id: &str) -> Result<(), String> {
    let config = identity
        .client_config(&SpiffeId::parse(id).unwrap())
        .unwrap();
    let name = ServerName::try_from("unrelated.test").unwrap();
    let talk = async {
        let tcp = TcpStream::connect(address).await?;
        let mut stream = TlsConnector::from(config).connect(name, tcp).await?;
        stream.write_all(b"hello").await?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await?;
        assert_eq!(&answer, b"hello");
        std::io::Result::Ok(())
    };
    let done = timeout(PATIENCE, talk).await.expect("no answer");
    done.map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_real_agent_issues_opens_a_real_sidecar_and_that_one_only() {
    let Some(consul) = Consul::start() else {
        return;
    };
    let upstream = Upstream::echo().await;
    consul.register(&meshed(service("vm", upstream.address, &[]), ports::free()));
    let sidecar = consul.builtin_sidecar("vm");
    let mut watched = Watched::of(&consul, EDGE);
    assert_eq!(
        watched.state().await,
        format!("not ready: no leaf for `{EDGE}` yet")
    );
    let identity = watched.identity().await;
    assert_eq!(watched.state().await, "ready");
    assert_eq!(identity.id.as_str(), consul.spiffe_id(EDGE));
    assert!(!format!("{identity:?}").contains("PRIVATE"));
    let told = reaches(&identity, sidecar.address, &consul.spiffe_id("vm")).await;
    assert_eq!(told, Ok(()));
    let refused = reaches(&identity, sidecar.address, &consul.spiffe_id("other")).await;
    let (wanted, found) = (consul.spiffe_id("other"), consul.spiffe_id("vm"));
    let refused = refused.unwrap_err();
    assert!(
        refused.contains(&wanted) && refused.contains(&found),
        "{refused}"
    );

    drop(watched.changes);
    let ended = timeout(PATIENCE, watched.tasks.join_next()).await;
    ended
        .expect("it ends when nobody listens")
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_name_needs_escaping_gets_its_leaf() {
    let Some(consul) = Consul::start() else {
        return;
    };
    for name in ["Edge", "edge gate", "100%"] {
        let identity = Watched::of(&consul, name).identity().await;
        assert!(identity.id.is_service(name), "{}", identity.id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_ca_is_rotated_old_and_new_are_both_trusted() {
    let Some(consul) = Consul::start() else {
        return;
    };
    let Some(bao) = Bao::start() else {
        return;
    };
    let old = Upstream::tls(consul.leaf("vm").server(), echo).await;
    let id = consul.spiffe_id("vm");
    let mut watched = Watched::of(&consul, EDGE);
    let before = watched.identity().await;
    assert_eq!((before.certificate.cert.len(), before.roots.len()), (1, 1));
    assert_eq!(reaches(&before, old.address, &id).await, Ok(()));
    assert_eq!(watched.state().await, "ready");

    consul.use_vault_ca(&bao);
    let between = watched.identity().await;
    assert_eq!(between.roots.len(), 2);
    // One that was not asked for before comes from the new CA at once.
    let new = consul.leaf("vm2");
    assert_eq!(new.chain.len(), 3);
    let new = Upstream::tls(new.server(), echo).await;
    let new_id = consul.spiffe_id("vm2");
    let fresh = Watched::of(&consul, "fresh").identity().await;
    assert_eq!((fresh.certificate.cert.len(), fresh.roots.len()), (3, 2));
    for identity in [&between, &fresh] {
        assert_eq!(reaches(identity, old.address, &id).await, Ok(()));
        assert_eq!(reaches(identity, new.address, &new_id).await, Ok(()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_rotation_the_leaf_that_was_there_is_renewed_too() {
    if !peers::long() {
        return;
    }
    let Some(consul) = Consul::start() else {
        return;
    };
    let Some(bao) = Bao::start() else {
        return;
    };
    let mut watched = Watched::of(&consul, EDGE);
    let before = watched.identity().await;
    consul.use_vault_ca(&bao);
    let mut after = watched.identity().await;
    while after.certificate.cert == before.certificate.cert {
        after = watched.identity().await;
    }
    assert_eq!((after.certificate.cert.len(), after.roots.len()), (3, 2));
    let server = Upstream::tls(consul.leaf("vm").server(), echo).await;
    let id = consul.spiffe_id("vm");
    assert_eq!(reaches(&after, server.address, &id).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_may_not_be_the_service_is_told_what_it_lacks() {
    let acl = Options {
        acl: true,
        ..Options::default()
    };
    let Some(consul) = Consul::start_with(acl) else {
        return;
    };
    let rules = "service_prefix \"\" { policy = \"read\" } node_prefix \"\" { policy = \"read\" }";
    let reader = consul.token(rules);
    let mut watched = Watched::start(agent_of(&consul), EDGE, Some(&reader));
    watched.state().await;
    let told = watched.state().await;
    assert!(
        told.starts_with(&format!("not ready: no leaf for `{EDGE}` yet: "))
            && told.ends_with(&format!("the token needs service:write on `{EDGE}`")),
        "{told}"
    );
    assert!(!told.contains(&reader), "{told}");
    let writer = consul.token(&format!("service \"{EDGE}\" {{ policy = \"write\" }}"));
    let mut watched = Watched::start(agent_of(&consul), EDGE, Some(&writer));
    watched.identity().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_consul_is_away_the_identity_stays_and_another_cluster_gives_another() {
    let Some(mut consul) = Consul::start() else {
        return;
    };
    let mut watched = Watched::of(&consul, EDGE);
    let first = watched.identity().await;
    assert_eq!(watched.state().await, "ready");
    consul.kill();
    let told = watched.state().await;
    assert!(
        told.starts_with("degraded: ") && told.contains("the last good is valid until "),
        "{told}"
    );
    consul.restart_empty();
    // Old and new are never mixed, whatever comes first.
    let second = watched.identity().await;
    assert_ne!(second.id.trust_domain(), first.id.trust_domain());
    assert_eq!(second.id.as_str(), consul.spiffe_id(EDGE));
    assert_eq!(second.roots.len(), 1);
    assert_ne!(second.roots.roots, first.roots.roots);
}

pub(crate) const ROOTS: &str = "/v1/agent/connect/ca/roots";
pub(crate) const LEAF: &str = "/v1/agent/connect/ca/leaf/portcullis";
const ID: &str = "spiffe://one.consul/ns/default/dc/dc1/svc/portcullis";

pub(crate) fn roots(authority: &Authority) -> Value {
    let pem = std::fs::read_to_string(authority.folder().join("ca.pem")).unwrap();
    json!({ "TrustDomain": "one.consul", "Roots": [{ "RootCert": pem, "IntermediateCerts": null }] })
}

pub(crate) fn leaf(authority: &Authority) -> Value {
    leaf_with(authority, rcgen::CertificateParams::default())
}

fn leaf_with(authority: &Authority, mut params: rcgen::CertificateParams) -> Value {
    let uri = rcgen::SanType::URI(ID.try_into().unwrap());
    params.subject_alt_names = vec![uri];
    let issued = authority.sign(params);
    json!({
        "CertPEM": issued.certificate.pem(), "PrivateKeyPEM": issued.key.serialize_pem(), "ServiceURI": ID,
    })
}

#[tokio::test]
async fn what_an_agent_says_wrong_is_told_and_changes_nothing() {
    let authority = Authority::new();
    let (roots, leaf) = (roots(&authority), leaf(&authority));
    let agent = Agent::start().await;
    let mut watched = Watched::start(agent.address, EDGE, None);
    assert_eq!(
        watched.state().await,
        "not ready: no leaf for `portcullis` yet"
    );
    agent.reply(ROOTS, Reply::Good(1, roots.clone()));
    let not_ready = "not ready: no leaf for `portcullis` yet: ";
    let mut mismatched = leaf.clone();
    mismatched["PrivateKeyPEM"] = self::leaf(&authority)["PrivateKeyPEM"].clone();
    for (reply, told) in [
        (
            Reply::Bad(500, "error issuing cert: \u{1b}[31mno leader"),
            "error issuing cert: \\u{1b}[31mno leader",
        ),
        (Reply::Good(1, json!("text")), "not what was expected"),
        (
            Reply::Good(2, mismatched),
            "does not belong to the certificate",
        ),
    ] {
        agent.reply(LEAF, reply);
        let state = watched.state().await;
        assert!(
            state.starts_with(not_ready) && state.contains(told),
            "{state}"
        );
    }
    agent.reply(LEAF, Reply::Good(3, leaf.clone()));
    let first = watched.identity().await;
    assert_eq!(first.id.as_str(), ID);
    assert_eq!(watched.state().await, "ready");

    // The same again is told to nobody.
    agent.reply(LEAF, Reply::Good(4, leaf.clone()));
    agent.reply(ROOTS, Reply::Good(5, roots.clone()));
    agent.reply(
        ROOTS,
        Reply::Good(6, json!({ "TrustDomain": "one.consul", "Roots": null })),
    );
    let state = watched.state().await;
    assert!(
        state.starts_with("degraded: no new roots: consul lists none; the last good"),
        "{state}"
    );
    agent.reply(ROOTS, Reply::Good(7, roots.clone()));
    assert_eq!(watched.state().await, "ready");
    agent.reply(LEAF, Reply::Good(8, self::leaf(&authority)));
    let second = watched.identity().await;
    assert_ne!(second.certificate.cert, first.certificate.cert);
}

/// Consul Enterprise has them; the partition is that of the agent, which has no certificates for another.
#[tokio::test]
async fn the_certificate_of_a_namespace_is_asked_for_there_and_no_other_is_taken() {
    let authority = Authority::new();
    let agent = Agent::start().await;
    let mut watched = Watched::start_in(Some("team"), agent.address, EDGE, None);
    assert!(watched.state().await.starts_with("not ready: "));
    agent.reply(ROOTS, Reply::Good(1, roots(&authority)));
    agent.reply(LEAF, Reply::Good(1, leaf(&authority)));
    let state = watched.state().await;
    assert!(state.contains("another namespace than `team`"), "{state}");

    let mine = ID.replace("/ns/default/", "/ap/west/ns/team/");
    let mut params = rcgen::CertificateParams::default();
    let uri = mine.as_str().try_into().unwrap();
    params.subject_alt_names = vec![rcgen::SanType::URI(uri)];
    let issued = authority.sign(params);
    let leaf = json!({
        "CertPEM": issued.certificate.pem(), "PrivateKeyPEM": issued.key.serialize_pem(), "ServiceURI": mine,
    });
    agent.reply(LEAF, Reply::Good(2, leaf));
    assert_eq!(watched.identity().await.id.as_str(), mine);
    let asked = agent.asked();
    let mut leaves = asked.iter().filter(|target| target.starts_with(LEAF));
    assert!(leaves.all(|target| target.contains("ns=team")), "{asked:?}");
}

#[tokio::test]
async fn a_leaf_that_nobody_renews_is_told_in_time_and_at_its_end() {
    let authority = Authority::new();
    let agent = Agent::start().await;
    let mut watched = Watched::start(agent.address, EDGE, None);
    let now = SystemTime::now();
    let mut params = rcgen::CertificateParams::default();
    params.not_before = (now - Duration::from_secs(7)).into();
    params.not_after = (now + Duration::from_secs(3)).into();
    agent.reply(ROOTS, Reply::Good(1, roots(&authority)));
    agent.reply(LEAF, Reply::Good(1, leaf_with(&authority, params)));
    let identity = watched.identity().await;
    assert_eq!(watched.state().await, "ready");
    let leaf = "degraded: the leaf for `portcullis` ";
    let told = watched.state().await;
    assert!(told.starts_with(&format!("{leaf}expires at ")), "{told}");
    assert!(SystemTime::now() < identity.not_after);
    let told = watched.state().await;
    assert!(told.starts_with(&format!("{leaf}expired at ")), "{told}");
    assert!(SystemTime::now() >= identity.not_after);
}
