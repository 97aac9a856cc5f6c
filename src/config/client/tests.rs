//! A person's file: which domain is taken, what is read of it, and every mistake.

use super::*;

fn parse(text: &str) -> Result<ClientFile, Diagnostics> {
    let home = Some(Path::new("/home/me"));
    parse_client(text, Path::new("/etc/me/client.toml"), home)
}

fn found(file: &ClientFile, name: &str) -> Option<String> {
    let domain = file.find(&HostName::parse(name).unwrap());
    domain.map(|domain| domain.gateway.host.clone())
}

#[test]
fn the_narrowest_domain_is_taken() {
    let domains = [
        "*.example.com",
        "*.vm.example.com",
        "db.vm.example.com",
        "*",
    ];
    let text: Vec<_> = (domains.iter().zip(["a", "b", "c", "d"]))
        .map(|(domain, gateway)| format!("[domains.\"{domain}\"]\ngateway = \"{gateway}\"\n"))
        .collect();
    let file = parse(&text.concat()).unwrap();
    for (name, gateway) in [
        ("www.example.com", "a"),
        ("x.y.example.com", "a"),
        ("web.vm.example.com", "b"),
        ("deep.web.vm.example.com", "b"),
        ("db.vm.example.com", "c"),
        ("example.com", "d"),
        ("elsewhere.test", "d"),
    ] {
        assert_eq!(found(&file, name).as_deref(), Some(gateway), "{name}");
    }
    let file = parse(&text[..3].concat()).unwrap();
    assert_eq!(found(&file, "elsewhere.test"), None);
    assert_eq!(parse("").unwrap(), ClientFile::default());
}

#[test]
fn a_domain_has_what_is_written_and_paths_start_at_the_file_or_at_home() {
    let file = parse(
            "[domains.\"*.a.test\"]\ngateway = \"[::1]:443\"\nca = [\"ca.pem\", \"~/b.pem\", \"/c.pem\"]\n\
             pin = [\"sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\"]\ncert = \"me.pem\"\nkey = \"~/me.key\"\n\
             server_name = \"Gate.Test.\"\nalpn = [\"h2\"]\nproxy = \"none\"\ntimeout = \"1m30s\"\n",
        )
        .unwrap();
    let domain = &file.domains[0];
    assert_eq!(domain.gateway.to_string(), "[::1]:443");
    assert_eq!(
        domain.ca,
        ["/etc/me/ca.pem", "/home/me/b.pem", "/c.pem"].map(PathBuf::from)
    );
    assert_eq!(domain.pins.len(), 1);
    assert_eq!(
        domain.certificate,
        Some(("/etc/me/me.pem".into(), "/home/me/me.key".into()))
    );
    assert_eq!(domain.server_name.as_ref().unwrap().as_str(), "gate.test");
    assert_eq!(domain.alpn, [b"h2"]);
    assert_eq!(domain.proxy, Some(ProxyChoice::Direct));
    assert_eq!(
        (domain.insecure, domain.timeout),
        (false, Some(Duration::from_secs(90)))
    );
}

#[test]
fn every_mistake_is_told_at_once_with_its_key_and_no_password() {
    let wrong = "
            gateway = \"g\"
            [domains.\"*.a.test\"]
            gateway = \"gate:0\"
            ca = []
            pin = [\"sha1/x\"]
            cert = \"me.pem\"
            server_name = \"10.0.0.1\"
            alpn = [\"portcullis/1\"]
            proxy = \"https://me:secret@proxy:1\"
            timeout = \"2h\"
            colour = 1
            [domains.\"a.*.test\"]
            gateway = \"gate\"
            [domains.\"*.A.test\"]
            gateway = \"gate\"
            insecure = true
            ca = [\"a\"]
        ";
    let mistakes = parse(wrong).unwrap_err();
    let told = mistakes.to_string();
    for says in [
        "unknown key `gateway`",
        "`domains.\"*.a.test\".gateway`: \"0\" is no port",
        "`domains.\"*.a.test\".ca` is an empty list",
        "`domains.\"*.a.test\".pin[0]`: a pin is `sha256/`",
        "`domains.\"*.a.test\".key` is missing",
        "`domains.\"*.a.test\".server_name`: \"10.0.0.1\" is an IP address",
        "`domains.\"*.a.test\".alpn[0]`: portcullis/1 is offered by itself",
        "`domains.\"*.a.test\".proxy`: a proxy that is spoken to over TLS",
        "`domains.\"*.a.test\".timeout`: \"2h\" is out of range",
        "unknown key `colour`",
        "`domains.\"a.*.test\"`: \"a.*.test\" has a `*` in the wrong place",
        "is written twice",
        "`domains.\"*.A.test\".insecure` is true, and beside it",
        "13 errors in /etc/me/client.toml",
    ] {
        assert!(told.contains(says), "{says}\n{told}");
    }
    assert!(!told.contains("secret"), "{told}");
    for line in [
        "proxi = \"http://me:secret@p:1\"",
        "proxy = \"http://me:secret@p:1",
        "proxy = 'secret' 1",
    ] {
        let told = parse(&format!("[domains.\"*\"]\ngateway = \"g\"\n{line}\n"))
            .unwrap_err()
            .to_string();
        assert!(told.contains("prox") && !told.contains("secret"), "{told}");
    }
    let homeless = parse_client(
        "[domains.\"*\"]\ngateway = \"g\"\nca = [\"~/a\"]\n",
        Path::new("client.toml"),
        None,
    );
    let told = homeless.unwrap_err().to_string();
    assert!(told.contains("no home directory"), "{told}");
}

#[test]
fn a_file_of_ten_thousand_domains_is_read_in_time_and_a_twin_in_it_is_found() {
    let text: Vec<_> = (0..10_000)
        .map(|number| format!("[domains.\"vm{number}.a.test\"]\ngateway = \"gate\"\n"))
        .collect();
    let text = text.concat();
    let start = std::time::Instant::now();
    assert_eq!(parse(&text).unwrap().domains.len(), 10_000);
    let twin = format!("{text}[domains.\"VM0.a.test\"]\ngateway = \"gate\"\n");
    let told = parse(&twin).unwrap_err().to_string();
    assert!(told.contains("is written twice"), "{told}");
    let took = start.elapsed();
    assert!(took < std::time::Duration::from_secs(5), "{took:?}");
}
