//! `[upstreams.NAME.tls]`: what it means, and what is said of one that is broken.

use std::os::unix::fs::PermissionsExt;

use portcullis::config::{Level, UpstreamTls};
use portcullis::name::{HostName, SpiffeId};
use portcullis::tls::client::no_server_name;
use portcullis::tls::verify::{AltName, Proof};

use super::{ROUTE, expect, folder, good, parse};

const DB: &str = "spiffe://mesh.test/ns/default/dc/dc1/svc/db";

/// An upstream with these endpoints, and these keys in its `tls`.
fn text(endpoints: &str, keys: &str) -> String {
    format!("[upstreams.a]\nendpoints = {endpoints}\n[upstreams.a.tls]\n{keys}\n")
}

fn meaning(endpoints: &str, keys: &str) -> UpstreamTls {
    let config = good(&text(endpoints, keys)).config;
    config.upstreams["a"].tls.clone().unwrap()
}

#[test]
fn an_id_is_proven_whatever_the_hello_says() {
    let keys = format!("roots = [\"internal-ca.pem\"]\nspiffe = \"{DB}\"");
    let proof = Proof::Spiffe(SpiffeId::parse(DB).unwrap());
    for (endpoints, keys, server_name) in [
        ("[\"10.0.0.5:1\"]", keys.clone(), None),
        ("[\"a.x:1\", \"b.x:1\"]", keys.clone(), None),
        ("[\"a.x:1\", \"a.x:2\"]", keys.clone(), Some("a.x")),
        (
            "[\"a.x:1\"]",
            format!("{keys}\nserver_name = \"c.x\""),
            Some("c.x"),
        ),
    ] {
        let tls = meaning(endpoints, &keys);
        assert_eq!(tls.proof, proof);
        match server_name {
            Some(name) => assert_eq!(tls.server_name.to_str(), name),
            None => assert_eq!(tls.server_name, no_server_name(), "{endpoints}"),
        }
    }
}

#[test]
fn a_list_of_names_may_hold_dns_names_addresses_and_uris() {
    let keys = format!(
        "roots = [\"internal-ca.pem\"]\nsans = [\"DB.internal\", \"10.0.0.5\", \"2001:db8::5\", \"{DB}\", \"https://a/B\"]"
    );
    let tls = meaning("[\"10.0.0.5:1\"]", &keys);
    let expected = [
        AltName::Dns(HostName::parse("db.internal").unwrap()),
        AltName::Ip("10.0.0.5".parse().unwrap()),
        AltName::Ip("2001:db8::5".parse().unwrap()),
        AltName::Uri(DB.to_owned()),
        AltName::Uri("https://a/B".to_owned()),
    ];
    assert_eq!(tls.proof, Proof::AnyOf(expected.to_vec()));
    assert_eq!(tls.server_name, no_server_name());
    let public = meaning("[\"db.x:1\"]", "sans = [\"db.internal\"]");
    assert!(public.roots.is_empty());
    assert_eq!(public.server_name.to_str(), "db.x");
}

#[test]
fn what_cannot_prove_anything_is_an_error() {
    expect(
        Level::Error,
        &[
            (
                "[upstreams.a]\naddress = \"a:1\"\ntls = { roots = [\"internal-ca.pem\"], spiffe = «\"https://mesh.test/db\"» }\n",
                "upstreams.a.tls.spiffe",
                "such as \"spiffe://TRUST-DOMAIN/ns/default/dc/dc1/svc/db\"",
            ),
            (
                "[upstreams.a]\naddress = \"a:1\"\ntls = { roots = [\"internal-ca.pem\"], spiffe = «\"spiffe://mesh.test\"» }\n",
                "upstreams.a.tls.spiffe",
                "write the ID as the certificate has it",
            ),
            (
                "[upstreams.a]\naddress = \"a:1\"\ntls = { roots = [\"internal-ca.pem\"], spiffe = «[\"spiffe://mesh.test/db\"]» }\n",
                "upstreams.a.tls.spiffe",
                "write one string",
            ),
            (
                "[upstreams.a]\naddress = \"a:1\"\ntls = { spiffe = «\"spiffe://mesh.test/db\"» }\n",
                "upstreams.a.tls.spiffe",
                "roots = [\"mesh-ca.pem\"]",
            ),
            (
                "[upstreams.a]\naddress = \"a:1\"\ntls = { sans = [\"db.internal\", «\"spiffe://mesh.test/db\"»] }\n",
                "upstreams.a.tls.sans[1]",
                "roots = [\"mesh-ca.pem\"]",
            ),
            (
                "[upstreams.a]\naddress = \"a:1\"\ntls = { roots = [\"internal-ca.pem\"], spiffe = \"spiffe://mesh.test/db\", «sans» = [\"db\"] }\n",
                "upstreams.a.tls",
                "keep one",
            ),
            (
                "[upstreams.a]\naddress = \"10.0.0.5:1\"\ntls = { sans = «[]» }\n",
                "upstreams.a.tls.sans",
                "leave it out to check `server_name`",
            ),
            (
                "[upstreams.a]\naddress = \"10.0.0.5:1\"\ntls = { sans = «\"db.internal\"» }\n",
                "upstreams.a.tls.sans",
                "put it in brackets",
            ),
            (
                "[upstreams.a]\naddress = \"10.0.0.5:1\"\ntls = { sans = [\"10.0.0.5\", «\"*.internal\"»] }\n",
                "upstreams.a.tls.sans[1]",
                "\"db.internal\": a wildcard in the certificate covers it",
            ),
            (
                "[upstreams.a]\naddress = \"10.0.0.5:1\"\ntls = { sans = [«\"db.internal:5432\"»] }\n",
                "upstreams.a.tls.sans[0]",
                "without a port",
            ),
            (
                "[upstreams.a]\naddress = \"10.0.0.5:1\"\ntls = { sans = [«\"\"»] }\n",
                "upstreams.a.tls.sans[0]",
                "write a DNS name, an IP address or a URI",
            ),
            (
                "[upstreams.a]\naddress = \"10.0.0.5:1\"\ntls = { sans = [«\"https://a b\"»] }\n",
                "upstreams.a.tls.sans[0]",
                "without spaces",
            ),
            (
                "[upstreams.a]\naddress = \"10.0.0.5:1\"\ntls = { roots = [\"internal-ca.pem\"], sans = [«\"spiffe://mesh.test/a b\"»] }\n",
                "upstreams.a.tls.sans[0]",
                "write the ID as the certificate has it",
            ),
        ],
    );
}

#[test]
fn a_certificate_of_the_gateways_own_is_looked_at() {
    let keys = "roots = [\"internal-ca.pem\"]\nchain = \"gateway.pem\"\nkey = \"gateway.key\"";
    let (chain, key) = meaning("[\"a.x:1\"]", keys).certificate.unwrap();
    assert!(chain.ends_with("gateway.pem") && key.path.ends_with("gateway.key"));
    assert_eq!(meaning("[\"a.x:1\"]", "").certificate, None);
    expect(
        Level::Error,
        &[
            (
                "[upstreams.a]\naddress = \"a:1\"\n«[upstreams.a.tls]»\nchain = \"gateway.pem\"\n",
                "upstreams.a.tls.key",
                "add `key = \"gateway.key\"`",
            ),
            (
                "[upstreams.a]\naddress = \"a:1\"\n«[upstreams.a.tls]»\nkey = \"gateway.key\"\n",
                "upstreams.a.tls.chain",
                "add `chain = \"gateway.pem\"`",
            ),
            (
                "[upstreams.a]\naddress = \"a:1\"\n[upstreams.a.tls]\nchain = «\"no.pem\"»\nkey = \"gateway.key\"\n",
                "upstreams.a.tls.chain",
                "path",
            ),
            (
                "[upstreams.a]\naddress = \"a:1\"\n[upstreams.a.tls]\nchain = \"gateway.pem\"\nkey = «\"other.key\"»\n",
                "upstreams.a.tls.key",
                "name the key",
            ),
            (
                "[upstreams.a]\naddress = \"a:1\"\n[upstreams.a.tls]\nchain = «\"note.txt\"»\nkey = \"gateway.key\"\n",
                "upstreams.a.tls.chain",
                "",
            ),
        ],
    );
    let expired = format!(
        "{ROUTE}passthrough = true\n[upstreams.a]\naddress = \"a:1\"\n[upstreams.a.tls]\nchain = «\"old.pem\"»\nkey = \"old.key\"\n"
    );
    expect(
        Level::Warning,
        &[(
            &expired,
            "upstreams.a.tls.chain",
            "whoever asks for it will refuse it",
        )],
    );
}

#[test]
fn every_mistake_in_one_section_is_told_at_once() {
    let keys = "chain = \"no.pem\"\nkey = \"gateway.key\"\nsans = [\"a b\"]\nserver_name = \"a b\"\nroots = [\"no-ca.pem\"]";
    let mistakes = parse(&folder(), &text("[\"a.x:1\"]", keys)).unwrap_err();
    assert_eq!(mistakes.errors(), 4, "{mistakes}");
}

#[test]
fn a_list_of_ciphers_is_understood_as_in_a_set_of_options_but_needs_none_of_tls_1_2() {
    let ciphers = |list: &str| {
        let tls = meaning("[\"a.x:1\"]", &format!("ciphers = \"{list}\""));
        tls.ciphers.unwrap()
    };
    let both = ciphers("ECDHE-ECDSA-AES256-GCM-SHA384:TLS_AES_256_GCM_SHA384");
    assert!(both.has_tls12() && both.has_tls13());
    assert!(!ciphers("TLS_AES_256_GCM_SHA384").has_tls12());
    assert_eq!(meaning("[\"a.x:1\"]", "").ciphers, None);
    let key = "upstreams.a.tls.ciphers";
    let with = |list: &str| {
        format!(
            "{ROUTE}passthrough = true\n{}",
            text("[\"a.x:1\"]", &format!("ciphers = {list}"))
        )
    };
    expect(
        Level::Error,
        &[
            (
                &with("«\"AES128-SHA:RC4-MD5\"»"),
                key,
                "leave `ciphers` out",
            ),
            (
                "[tunnels.t]\nlisten = \"127.0.0.1:1\"\nto = \"a.x:1\"\n[tunnels.t.tls]\nciphers = «\"RC4-MD5\"»\n",
                "tunnels.t.tls.ciphers",
                "leave `ciphers` out",
            ),
            (
                "[transports.t.tls]\nserver_name = \"a.x\"\nciphers = «\"\"»\n",
                "transports.t.tls.ciphers",
                "leave `ciphers` out",
            ),
        ],
    );
    expect(
        Level::Warning,
        &[(
            &with("«\"HIGH:AES128-SHA\"»"),
            key,
            "remove it from the list",
        )],
    );
}

#[test]
fn a_certificate_that_is_for_servers_alone_is_warned_of_where_a_client_shows_it() {
    use rcgen::ExtendedKeyUsagePurpose::{Any, ClientAuth, ServerAuth};
    let folder = folder();
    let text = text("[\"db.x:1\"]", "chain = \"uses.pem\"\nkey = \"uses.key\"");
    for (uses, is_told) in [
        (vec![ServerAuth], true),
        (vec![ServerAuth, ClientAuth], false),
        (vec![Any], false),
        (vec![], false),
    ] {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.extended_key_usages = uses;
        let (chain, key) = super::signed(params);
        std::fs::write(folder.path().join("uses.pem"), chain).unwrap();
        let path = folder.path().join("uses.key");
        std::fs::write(&path, key).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
        let told = parse(&folder, &text).unwrap().warnings.to_string();
        let told = told.contains("the certificate is not for clients (extendedKeyUsage)");
        assert_eq!(told, is_told);
    }
}
