//! `proxy_protocol` of listeners and upstreams: what it means, and what it must not say.

use portcullis::config::{AcceptProxyMode, Level, ProxyTlvs, ProxyVersion, SendProxy};

use super::{expect, good};

#[test]
fn a_listener_believes_the_networks_that_it_names() {
    let listen = |mode: &str| {
        let text = format!(
            "listen = [\":8443\", {{ address = \":443\", proxy_protocol = {{ from = [\"10.0.0.0/8\", \"::ffff:192.0.2.1\", \
             \"2001:db8::/32\"]{mode} }} }}]"
        );
        let listeners = good(&text).config.listeners;
        assert_eq!(listeners[0].accept_proxy, None);
        (*listeners[1].accept_proxy.clone().unwrap()).clone()
    };
    let accept = listen("");
    for (peer, is_listed) in [
        ("10.255.0.1", true),
        ("::ffff:10.0.0.1", true),
        ("192.0.2.1", true),
        ("2001:db8::7", true),
        ("192.0.2.2", false),
        ("11.0.0.1", false),
        ("2001:db9::7", false),
    ] {
        assert_eq!(accept.lists(peer.parse().unwrap()), is_listed, "{peer}");
    }
    assert_eq!(accept.mode, AcceptProxyMode::Required);
    let optional = listen(", mode = \"optional\"");
    assert_eq!(optional.mode, AcceptProxyMode::Optional);
}

#[test]
fn an_upstream_hears_what_is_asked_for() {
    let send = |text: &str| {
        let text = format!("[upstreams.a]\naddress = \"a:1\"\ntls = true\n{text}");
        good(&text).config.upstreams["a"].send_proxy
    };
    assert_eq!(send(""), None);
    let before = |version| SendProxy {
        version,
        inside_tls: false,
    };
    assert_eq!(
        send("proxy_protocol = \"v1\""),
        Some(before(ProxyVersion::V1))
    );
    let nothing = ProxyVersion::V2(ProxyTlvs::default());
    assert_eq!(send("proxy_protocol = \"v2\""), Some(before(nothing)));
    let tlvs = ProxyTlvs {
        ssl: true,
        cert_cn: true,
        crc32c: true,
        ..ProxyTlvs::default()
    };
    let some = SendProxy {
        version: ProxyVersion::V2(tlvs),
        inside_tls: true,
    };
    let text = "proxy_protocol = { version = \"v2\", inside_tls = true, tlvs = [\"cert-cn\", \"crc32c\"] }";
    assert_eq!(send(text), Some(some));
}

#[test]
fn in_the_mesh_a_header_goes_inside_tls() {
    let send = |mesh: bool| {
        let text = format!(
            "[consul]\nmesh_identity = \"portcullis\"\n[upstreams.a]\nservice = \"a\"\nmesh = {mesh}\nproxy_protocol = \"v1\"\n"
        );
        let upstreams = good(&text).config.upstreams;
        upstreams["a"].send_proxy.unwrap().inside_tls
    };
    assert!(send(true));
    assert!(!send(false));
}

#[test]
fn what_makes_no_sense_is_told_with_its_place() {
    let listen =
        |text: &str| format!("listen = [{{ address = \":443\", proxy_protocol = {text} }}]\n");
    let upstream =
        |text: &str| format!("[upstreams.a]\naddress = \"a:1\"\nproxy_protocol = {text}\n");
    let cases = [
        (listen("«true»"), "listen[0].proxy_protocol", "as in"),
        (
            "listen = [{ address = \":443\", «proxy_protocol» = {} }]\n".to_owned(),
            "listen[0].proxy_protocol.from",
            "add `from = ",
        ),
        (
            listen("{ from = «[]» }"),
            "listen[0].proxy_protocol.from",
            "networks of the proxies",
        ),
        (
            listen("{ from = [\"10.0.0.0/8\", «\"lb.internal\"»] }"),
            "listen[0].proxy_protocol.from[1]",
            "10.0.0.0/8",
        ),
        (
            listen("{ from = [«\"10.0.0.0/33\"»] }"),
            "listen[0].proxy_protocol.from[0]",
            "10.0.0.0/8",
        ),
        (
            listen("{ from = [«\"::/0\"»] }"),
            "listen[0].proxy_protocol.from[0]",
            "of a proxy in front",
        ),
        (
            listen("{ from = [\"10.0.0.0/8\"], mode = «\"requierd\"» }"),
            "listen[0].proxy_protocol.mode",
            "did you mean \"required\"?",
        ),
        (
            listen("{ from = [\"10.0.0.0/8\"], «trusted» = 1 }"),
            "trusted",
            "known here: from, mode",
        ),
        (
            "listen = [«{ proxy_protocol = { from = [\"10.0.0.0/8\"] } }»]\n".to_owned(),
            "listen[0].address",
            "add `address = ",
        ),
        (upstream("«\"v3\"»"), "upstreams.a.proxy_protocol", "v1, v2"),
        (upstream("«true»"), "upstreams.a.proxy_protocol", "\"v2\""),
        (
            upstream("{ version = \"v1\", tlvs = «[\"ssl\"]» }"),
            "upstreams.a.proxy_protocol.tlvs",
            "version = \"v2\"",
        ),
        (
            upstream("{ version = \"v2\", tlvs = [«\"unique_id\"»] }"),
            "upstreams.a.proxy_protocol.tlvs[0]",
            "did you mean \"unique-id\"?",
        ),
        (
            upstream("{ version = \"v2\", inside_tls = «true» }"),
            "upstreams.a.proxy_protocol.inside_tls",
            "add `tls`",
        ),
        (
            "[consul]\nmesh_identity = \"portcullis\"\n[upstreams.a]\nservice = \"a\"\n\
             proxy_protocol = { version = \"v2\", inside_tls = «false» }\n"
                .to_owned(),
            "upstreams.a.proxy_protocol.inside_tls",
            "to the service itself",
        ),
    ];
    let cases: Vec<(&str, &str, &str)> = cases
        .iter()
        .map(|(text, what, help)| (text.as_str(), *what, *help))
        .collect();
    expect(Level::Error, &cases);
}
