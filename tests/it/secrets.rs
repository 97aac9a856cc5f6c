//! Keys, tokens and passwords: in nothing that is formatted, logged or served.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use portcullis::config::{self, Environment, LogFormat};
use portcullis::lifecycle::{Handed, Reload, Shutdown};
use portcullis::log::AccessLog;
use portcullis::serve;
use portcullis::tls::mesh::{Leaf, PemText};
use rustls::version::TLS13;
use serde_json::json;
use tokio_rustls::TlsConnector;

use crate::agent::{Agent, Reply};
use crate::authority::Authority;
use crate::identity::{self, LEAF, ROOTS};
use crate::program::Program;
use crate::support::wait_until;
use crate::upstream::Upstream;

const TOKEN: &str = "5a1f7c0e-of-consul";
const ADMIN_TOKEN: &str = "bearer-9d2e-of-the-admin";
const PASSWORD: &str = "pa55-of-basic-auth";

/// What must not be seen.
struct Secrets {
    words: Vec<String>,
    keys: Vec<Key>,
}

/// A P-256 key in PKCS#8, with its name.
struct Key {
    name: String,
    pem: String,
}

impl Secrets {
    fn new() -> Self {
        let mut words = vec![
            TOKEN.to_owned(),
            ADMIN_TOKEN.to_owned(),
            PASSWORD.to_owned(),
        ];
        // As `Authorization` has it.
        words.push(data_encoding::BASE64.encode(format!("user:{PASSWORD}").as_bytes()));
        Self {
            words,
            keys: Vec::new(),
        }
    }

    fn key(&mut self, name: &str, pem: &str) {
        self.keys.push(Key {
            name: name.to_owned(),
            pem: pem.to_owned(),
        });
    }

    /// The name of a secret that the text shows, as text, base64, hexadecimal or a list of bytes.
    fn shown_in(&self, text: &str) -> Option<String> {
        let word = self.words.iter().find(|word| text.contains(*word));
        let key = self.keys.iter().find(|key| key.is_shown_in(text));
        word.cloned().or(key.map(|key| key.name.clone()))
    }
}

impl Key {
    fn is_shown_in(&self, text: &str) -> bool {
        let lines = self.pem.lines().filter(|line| !line.starts_with('-'));
        let base64: String = lines.collect();
        let der = data_encoding::BASE64.decode(base64.as_bytes()).unwrap();
        // What stands before is the same in every such key (RFC 5208), what stands behind is public.
        let secret = &der[36..68];
        let hex = data_encoding::HEXLOWER.encode(secret);
        let list = format!("{:?}", &secret[8..16]);
        let list = list.trim_matches(['[', ']']);
        let flat = text.replace([' ', '\n'], "");
        text.contains(&base64[56..76])
            || text.to_lowercase().contains(&hex[..24])
            || flat.contains(&list.replace(' ', ""))
    }
}

/// A configuration with every secret that there can be, in the authority's folder; without the address to listen on.
fn configuration(
    authority: &Authority,
    agent: SocketAddr,
    upstream: SocketAddr,
) -> (String, Secrets) {
    let mut secrets = Secrets::new();
    for name in ["edge", "client", "consul"] {
        let issued = authority.issue_files(name, &["a.example.test", "b.example.test"]);
        secrets.key(name, &issued.key.serialize_pem());
        let file = authority.folder().join(format!("{name}.key"));
        std::fs::set_permissions(file, PermissionsExt::from_mode(0o600)).unwrap();
    }
    authority.write("admin-token", ADMIN_TOKEN);
    let text = format!(
        "admin = \"127.0.0.1:0\"\nadmin_token_file = \"admin-token\"\nlog = {{ format = \"json\" }}\n\
         certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n\
         [consul]\naddress = \"http://{agent}\"\ntoken = \"{TOKEN}\"\nmesh_identity = \"portcullis\"\n\
         [routes.a]\nhost = \"a.example.test\"\nupstream = \"{upstream}\"\n\
         [routes.b]\nhost = \"b.example.test\"\nupstream = \"b\"\n\
         [upstreams.b]\naddress = \"{upstream}\"\n\
         tls = {{ roots = [\"ca.pem\"], server_name = \"a.example.test\", chain = \"client.pem\", key = \"client.key\" }}\n"
    );
    (text, secrets)
}

/// An agent that gives an identity, and then says no to what it is asked, and repeats the token.
async fn agent(authority: &Authority, secrets: &mut Secrets) -> Agent {
    let agent = Agent::start().await;
    let leaf = identity::leaf(authority);
    secrets.key("leaf", leaf["PrivateKeyPEM"].as_str().unwrap());
    agent.reply(ROOTS, Reply::Good(1, identity::roots(authority)));
    agent.reply(LEAF, Reply::Good(1, leaf.clone()));
    // One whose key is not its own, and one that is no key: what is wrong with them is told.
    let other = identity::leaf(authority);
    secrets.key("leaf of another", other["PrivateKeyPEM"].as_str().unwrap());
    let mut wrong = leaf;
    wrong["PrivateKeyPEM"] = other["PrivateKeyPEM"].clone();
    agent.reply(LEAF, Reply::Good(2, wrong));
    agent.reply(LEAF, Reply::Good(3, json!([other])));
    agent.reply(
        LEAF,
        Reply::Bad(403, "token 5a1f7c0e-of-consul lacks permission"),
    );
    agent
}

#[test]
fn a_secret_is_found_however_it_is_shown() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut secrets = Secrets::new();
    secrets.key("key", &key.serialize_pem());
    let der = key.serialize_der();
    for shown in [
        format!("{der:?}"),
        format!("{der:#?}"),
        format!("{der:02x?}").replace(", ", ""),
        key.serialize_pem().replace('\n', ""),
    ] {
        assert_eq!(secrets.shown_in(&shown).as_deref(), Some("key"), "{shown}");
    }
    assert!(secrets.shown_in(&format!("token={TOKEN}")).is_some());
    let public = format!("{:?}{}", key.public_key_raw(), key.public_key_pem());
    assert_eq!(secrets.shown_in(&public), None);
}

#[tokio::test]
async fn what_holds_a_secret_shows_none_when_it_is_formatted() {
    let authority = Authority::new();
    let upstream = Upstream::echo().await;
    let silent = Agent::start().await;
    let (text, mut secrets) = configuration(&authority, silent.address, upstream.address);
    let text = format!("listen = [\"127.0.0.1:0\"]\n{text}");
    let path = authority.folder().join("portcullis.toml");
    let environment: Environment = [("CONSUL_HTTP_AUTH", format!("user:{PASSWORD}"))]
        .into_iter()
        .collect();
    let mut shown = format!("{environment:?}");

    let checked = config::parse_with(&text, &path, &environment);
    let checked = checked.unwrap_or_else(|mistakes| panic!("{mistakes}"));
    shown += &format!("{checked:?}{checked:#?}");
    // A report conceals what it shows; without one the text is whole.
    assert!(checked.warnings.list.is_empty(), "{}", checked.warnings);
    let consul = checked.config.consul.as_ref().unwrap();
    assert!(consul.token.is_some() && consul.basic_auth.is_some());
    let broken = text.replace("mesh_identity", "mesh_idnetity");
    let mistakes = config::parse_with(&broken, &path, &environment).unwrap_err();
    shown += &format!("{mistakes:?}{mistakes}");

    // The snapshot, with what TLS is made from, stands in the gateway.
    let log = AccessLog::start(LogFormat::Json, Box::new(std::io::sink()));
    let gateway = serve::start(
        checked,
        log,
        Shutdown::new(),
        Reload::new(),
        Handed::default(),
    );
    let gateway = gateway.await.unwrap();
    let held = format!("{gateway:?}{gateway:#?}");
    assert!(held.contains("a.example.test"), "{held}");
    shown += &held;

    let issued = identity::leaf(&authority);
    let pem = |source| PemText {
        source,
        text: issued[source].as_str().unwrap(),
    };
    secrets.key("leaf", pem("PrivateKeyPEM").text);
    let leaf = Leaf::from_pem(pem("CertPEM"), pem("PrivateKeyPEM")).unwrap();
    shown += &format!("{leaf:?}");
    let mismatched = Leaf::from_pem(
        pem("CertPEM"),
        PemText {
            source: "key",
            text: &secrets.keys[0].pem,
        },
    );
    shown += &format!("{:?}", mismatched.unwrap_err());

    assert_eq!(secrets.shown_in(&shown), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_tells_all_it_can_tells_no_secret() {
    let authority = Authority::new();
    let upstream = Upstream::echo().await;
    let (_, mut secrets) = configuration(&authority, upstream.address, upstream.address);
    let agent = agent(&authority, &mut secrets).await;
    let (tables, more) = configuration(&authority, agent.address, upstream.address);
    secrets.keys.extend(more.keys);
    let variables = [
        ("PORTCULLIS_LOG", "trace".to_owned()),
        ("CONSUL_HTTP_AUTH", format!("user:{PASSWORD}")),
    ];
    let program = Program::start_with(&authority, &tables, &variables);
    let mut told = String::new();

    // The agent has refused the token by then, and named it.
    let ready = || ask(program.admin, "GET /readyz", "");
    wait_until("the refusal is told", || {
        ready().contains("token MASKED lacks permission")
    });
    let client = TlsConnector::from(Arc::new(authority.client(&[&TLS13])));
    for name in ["a.example.test", "b.example.test", "none.example.test"] {
        let tcp = tokio::net::TcpStream::connect(program.listener)
            .await
            .unwrap();
        let _ = client.connect(name.try_into().unwrap(), tcp).await;
    }
    for token in [ADMIN_TOKEN, "wrong", PASSWORD] {
        told += &ask(program.admin, "POST /v1/reload", token);
    }
    assert!(told.contains(" 200 ") && told.contains(" 403 "), "{told}");
    // A mistake in the very line.
    let broken = tables.replace(&format!("\"{TOKEN}\""), &format!("\"{TOKEN} {TOKEN}"));
    let broken = format!("listen = [\"127.0.0.1:0\"]\n{broken}");
    authority.write("portcullis.toml", &broken);
    let refused = ask(program.admin, "POST /v1/reload", ADMIN_TOKEN);
    assert!(refused.contains("is refused"), "{refused}");
    told += &refused;
    for page in ["/", "/livez", "/readyz", "/metrics", "/v1/routes"] {
        told += &ask(program.admin, &format!("GET {page}"), "");
    }
    assert!(told.contains("mesh_identity_not_after"), "{told}");

    program.child.signal("TERM");
    program.child.signal("TERM");
    let output = program.child.finish();
    for said in [output.stdout, output.stderr] {
        told += &String::from_utf8(said).unwrap();
    }
    assert!(told.contains("the new configuration is refused"), "{told}");
    assert_eq!(secrets.shown_in(&told), None, "{told}");
}

/// What the admin interface answers.
fn ask(admin: SocketAddr, request: &str, token: &str) -> String {
    let mut tcp = TcpStream::connect(admin).unwrap();
    write!(
        tcp,
        "{request} HTTP/1.0\r\nAuthorization: Bearer {token}\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).unwrap();
    answer
}
