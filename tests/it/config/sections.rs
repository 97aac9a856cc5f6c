//! Broken sections: addresses, certificates, option sets, routes, upstreams.

use portcullis::config::Level;

use super::{expect, folder, parse, shown};

#[test]
fn our_own_addresses_are_checked() {
    expect(
        Level::Error,
        &[
            ("listen = «[]»\n", "listen", "leave it out"),
            ("listen = [«\"8443\"»]\n", "listen[0]", "\":8443\""),
            (
                "listen = [«\"localhost:443\"»]\n",
                "listen[0]",
                "\"127.0.0.1:443\" or \"[::1]:443\"",
            ),
            (
                "listen = [«\"192.0.2.1\"»]\n",
                "listen[0]",
                "\"192.0.2.1:8443\"",
            ),
            (
                "listen = [\":8443\", «\"0.0.0.0:8443\"»]\n",
                "listen[1]",
                "remove one of the two",
            ),
            ("admin = «\":9443\"»\n", "admin", "insecure_admin = true"),
            (
                "admin = «\"127.0.0.1:8443\"»\n",
                "admin",
                "a port of its own",
            ),
            ("listen = «[\":9443\"]»\n", "admin", "a port of its own"),
            ("admin = «\"unix:\"»\n", "admin", "a path from the root"),
        ],
    );
    let long = format!("admin = \"unix:/{}\"\n", "a".repeat(120));
    let report = shown(&folder(), &parse(&folder(), &long).unwrap_err());
    assert!(report.contains("121 bytes, more than the 107"), "{report}");
}

#[test]
fn certificates_that_cannot_be_used_are_told_apart() {
    expect(
        Level::Error,
        &[
            (
                "[[certificates]]\nchain = «\"no.pem\"»\nkey = \"edge.key\"\n",
                "certificates[0].chain",
                "path",
            ),
            (
                "[[certificates]]\nchain = \"edge.pem\"\nkey = «\"no.key\"»\n",
                "certificates[0].key",
                "path",
            ),
            (
                "[[certificates]]\nchain = «\"note.txt\"»\nkey = \"edge.key\"\n",
                "certificates[0].chain",
                "",
            ),
            (
                "[[certificates]]\nchain = \"edge.pem\"\nkey = «\"other.key\"»\n",
                "certificates[0].key",
                "name the key",
            ),
            (
                "«[[certificates]]»\nchain = \"edge.pem\"\n",
                "certificates[0].key",
                "add `key = \"edge.key\"`",
            ),
            (
                "[[certificates]]\nchain = \"edge.pem\"\nkey = \"edge.key\"\n«directory» = \"certificates\"\n",
                "directory",
                "give each its own [[certificates]]",
            ),
            (
                "[[certificates]]\ndirectory = «\"empty\"»\n",
                "certificates[0].directory",
                "write NAME.crt",
            ),
            (
                "[[certificates]]\ndirectory = «\"nowhere\"»\n",
                "certificates[0].directory",
                "path",
            ),
            (
                "[[certificates]]\ndirectory = «\"~/certs\"»\n",
                "certificates[0].directory",
                "a path from the root",
            ),
            (
                "[[certificates]]\ndirectory = «\"\"»\n",
                "certificates[0].directory",
                "a path from the root",
            ),
        ],
    );
}

#[test]
fn a_pair_of_which_both_files_are_missing_is_told_of_both() {
    let folder = folder();
    let text = "[[certificates]]\nchain = \"no.pem\"\nkey = \"no.key\"\n";
    let report = shown(&folder, &parse(&folder, text).unwrap_err());
    assert!(report.contains("portcullis.toml:2:9"), "{report}");
    assert!(report.contains("portcullis.toml:3:7"), "{report}");
}

#[test]
fn what_is_of_no_use_in_a_list_of_ciphers_is_a_warning() {
    for (options, remedy) in [
        (
            "ciphers = «\"HIGH:AES128-SHA:AES256-SHA\"»",
            "remove it from the list",
        ),
        (
            "ciphers = «\"HIGH:ECDHE-RSA-AES256-GCM-SHA348\"»",
            "did you mean ECDHE-RSA-AES256-GCM-SHA384?",
        ),
        (
            "min_version = \"1.3\"\nciphers = «\"HIGH\"»",
            "TLS_AES_128_GCM_SHA256",
        ),
    ] {
        let text = format!(
            "[routes.a]\nhost = \"ssh.vm.example.com\"\nupstream = \"10.0.0.5:22\"\n\
             [[certificates]]\nchain = \"edge.pem\"\nkey = \"edge.key\"\n[tls.options.default]\n{options}\n"
        );
        let key = "tls.options.default.ciphers";
        expect(Level::Warning, &[(&text, key, remedy)]);
    }
}

#[test]
fn option_sets_are_checked() {
    expect(
        Level::Error,
        &[
            (
                "[tls.options.a]\nmin_version = «\"1.1\"»\n",
                "tls.options.a.min_version",
                "\"1.2\" or \"1.3\"",
            ),
            (
                "[tls.options.a]\nmin_version = \"1.3\"\nmax_version = «\"1.2\"»\n",
                "tls.options.a",
                "raise `max_version`",
            ),
            (
                "[tls.options.a]\nciphers = «\"DHE-RSA-AES256-SHA:AES128-SHA\"»\n",
                "tls.options.a.ciphers",
                "leave `ciphers` out",
            ),
            (
                "[tls.options.a]\nciphers = «\"\"»\n",
                "tls.options.a.ciphers",
                "leave `ciphers` out",
            ),
            (
                "[tls.options.a]\nciphers = «\"TLS_AES_128_GCM_SHA256\"»\n",
                "tls.options.a.ciphers",
                "`min_version = \"1.3\"`",
            ),
            (
                "[tls.options.a]\nalpn = [\"h2\", «\"acme-tls/1\"»]\n",
                "tls.options.a.alpn[1]",
                "remove it",
            ),
            (
                "[tls.options.a]\nalpn = [«\"portcullis/1\"»]\n",
                "tls.options.a.alpn[0]",
                "remove it",
            ),
            (
                "[tls.options.a]\nalpn = [«\"\"»]\n",
                "tls.options.a.alpn[0]",
                "1 to 255 bytes",
            ),
            (
                "[tls.options.a]\nalpn = [\"h2\", «\"h2\"»]\n",
                "tls.options.a.alpn[1]",
                "remove one",
            ),
            (
                "[tls.options.a]\nclient_auth = «\"require\"»\n",
                "tls.options.a.client_auth",
                "did you mean \"required\"?",
            ),
            (
                "[tls.options.a]\nclient_auth = «\"required\"»\n",
                "tls.options.a.client_ca",
                "add `client_ca",
            ),
            (
                "[tls.options.a]\nclient_ca = «[\"clients-ca.pem\"]»\n",
                "tls.options.a.client_ca",
                "(what Traefik takes it to mean)",
            ),
            (
                "[tls.options.a]\nclient_auth = \"optional\"\nclient_ca = «[]»\n",
                "tls.options.a.client_ca",
                "name the file of the CA",
            ),
            (
                "[tls.options.a]\nclient_auth = \"optional\"\nclient_ca = [«\"no.pem\"»]\n",
                "tls.options.a.client_ca[0]",
                "path",
            ),
            (
                "[tls.options.«\"a b\"»]\n",
                "tls.options.\"a b\"",
                "letters, digits",
            ),
        ],
    );
}

#[test]
fn routes_are_checked() {
    expect(
        Level::Error,
        &[
            (
                "«[routes.vm]»\nupstream = \"10.0.0.5:22\"\n",
                "routes.vm",
                "add `host = ",
            ),
            (
                "«[routes.vm]»\nhost = \"a.example.com\"\n",
                "routes.vm.upstream",
                "add `upstream = ",
            ),
            (
                "routes.«vm».host = \"a.example.com\"\n",
                "routes.vm.upstream",
                "add `upstream = ",
            ),
            (
                "[routes.vm]\nhost = \"a\"\n«rule» = \"HostSNI(`a`)\"\nupstream = \"10.0.0.5:22\"\n",
                "rule",
                "keep one",
            ),
            (
                "[routes.vm]\nhost = «\"10.0.0.5\"»\nupstream = \"10.0.0.5:22\"\n",
                "routes.vm.host",
                "a host name",
            ),
            (
                "[routes.vm]\nhost = «\"a b\"»\nupstream = \"10.0.0.5:22\"\n",
                "routes.vm.host",
                "a host name",
            ),
            (
                "[routes.vm]\nhost = [\"a\", «\"-\"»]\nupstream = \"10.0.0.5:22\"\n",
                "routes.vm.host[1]",
                "a host name",
            ),
            (
                "[routes.vm]\nhost = «[]»\nupstream = \"10.0.0.5:22\"\n",
                "routes.vm.host",
                "at least one",
            ),
            (
                "[routes.vm]\nhost = \"a\"\nupstream = «\"db\"»\n[upstreams.bd]\naddress = \"a:1\"\n",
                "routes.vm.upstream",
                "did you mean \"bd\"?",
            ),
            (
                "[routes.vm]\nhost = \"a\"\nupstream = «\"10.0.0.5\"»\n",
                "routes.vm.upstream",
                "an address with its port",
            ),
            (
                "[routes.vm]\nhost = \"a\"\nupstream = «\"10.0.0.5:ssh\"»\n",
                "routes.vm.upstream",
                "such as \"10.0.0.5:22\"",
            ),
            (
                "[routes.vm]\nhost = \"a\"\nupstream = «\"10.0.0.5:0\"»\n",
                "routes.vm.upstream",
                "the port of the service",
            ),
            (
                "[routes.vm]\nhost = \"a\"\nupstream = «\"https://a\"»\n",
                "routes.vm.upstream",
                "[upstreams.NAME.tls]",
            ),
            (
                "[routes.vm]\nhost = \"a\"\nupstream = «\"2001:db8::1\"»\n",
                "routes.vm.upstream",
                "[2001:db8::1]:22",
            ),
            (
                "[routes.vm]\nhost = \"a\"\ntls_options = «\"strct\"»\nupstream = \"a:1\"\n[tls.options.strict]\n",
                "routes.vm.tls_options",
                "did you mean \"strict\"?",
            ),
            (
                "[routes.vm]\nhost = \"a\"\npassthrough = true\ntls_options = «\"default\"»\nupstream = \"a:1\"\n",
                "routes.vm.tls_options",
                "remove one of the two",
            ),
            (
                "[routes.vm]\nhost = \"a\"\nupstream = «\"127.0.0.1:8443\"»\n",
                "routes.vm.upstream",
                "the service itself",
            ),
            (
                "[routes.vm]\nhost = \"a\"\nupstream = «\"localhost:8443\"»\n",
                "routes.vm.upstream",
                "the service itself",
            ),
            (
                "[routes.vm]\nhost = \"a\"\nupstream = «\"[::1]:8443\"»\n",
                "routes.vm.upstream",
                "the service itself",
            ),
            (
                "[routes.vm]\nhost = \"a\"\nupstream = «\"127.0.0.1:9443\"»\n",
                "routes.vm.upstream",
                "another service",
            ),
            (
                "listen = [\"192.0.2.1:443\"]\n[upstreams.a]\naddress = «\"192.0.2.1:443\"»\n",
                "upstreams.a.address",
                "the service itself",
            ),
            (
                "[routes.«\"vm@file\"»]\nhost = \"a\"\nupstream = \"a:1\"\n",
                "routes.\"vm@file\"",
                "letters, digits",
            ),
        ],
    );
}

#[test]
fn upstreams_are_checked() {
    expect(
        Level::Error,
        &[
            ("«[upstreams.a]»\n", "upstreams.a", "add `address = "),
            (
                "[upstreams.a]\nendpoints = «[]»\n",
                "upstreams.a.endpoints",
                "at least one address",
            ),
            (
                "[upstreams.a]\n«address» = \"a:1\"\nendpoints = [\"b:1\"]\n",
                "address",
                "keep one",
            ),
            (
                "[upstreams.a]\nendpoints = «[{ address = \"a:1\", weight = 0 }]»\n",
                "upstreams.a.endpoints",
                "a weight of 1 or more",
            ),
            (
                "[upstreams.a]\nendpoints = [\"b:1\", { address = \"a:1\", weight = «-1» }]\n",
                "upstreams.a.endpoints[1].weight",
                "from 0 to 65535",
            ),
            (
                "[upstreams.a]\naddress = \"10.0.0.5:1\"\ntls = «true»\n",
                "upstreams.a.tls.server_name",
                "add `server_name",
            ),
            (
                "[upstreams.a]\nendpoints = [\"a.x:1\", \"b.x:1\"]\n«[upstreams.a.tls]»\n",
                "upstreams.a.tls.server_name",
                "add `server_name",
            ),
            (
                "[upstreams.a]\naddress = \"a:1\"\ntls = { server_name = «\"a:1\"» }\n",
                "upstreams.a.tls.server_name",
                "without a port",
            ),
            (
                "[upstreams.a]\naddress = \"a:1\"\ntls = { roots = «[]» }\n",
                "upstreams.a.tls.roots",
                "trust the system's",
            ),
            (
                "[upstreams.a]\naddress = \"a:1\"\ntls.roots = [«\"note.txt\"»]\n",
                "upstreams.a.tls.roots[0]",
                "",
            ),
        ],
    );
}
