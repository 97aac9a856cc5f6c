//! What a configuration means, and what is said of one that is broken: the key, the place, the remedy.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;

use portcullis::config::{self, Checked, Diagnostics, Level};
use tempfile::TempDir;

mod catalog;
mod consul;
mod corpus;
mod environment;
mod health_check;
mod meaning;
mod middlewares;
mod nomad;
mod places;
mod proxy_protocol;
mod report;
mod sections;
mod strange;
mod transports;
mod upstream_tls;
mod values;
mod weighted;

/// A key that nobody uses, encrypted by `openssl pkcs8 -topk8`.
const ENCRYPTED: &str = "\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAjH+w6KFWrpBwICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEMkZS5LXAp5Cf9iycmZVbT8EgZBg
cfxlhnxtBq3Lm5gWCsERKT3SK1hhFGvicZauA7kKoFkXbz5XYU1vdhgpWsBjujdW
SUFeEK1SbttZM2kQxER5kRBQpBqKN94/7aCtHceDnRHDglPFFHxR9SQD8lg32Dmn
/gCsKkQgS/Zd5ysfP+u3+P2WcaH48cz5Dbn8QjQAWempxtyFjqMAz2si7+NsI5U=
-----END ENCRYPTED PRIVATE KEY-----
";

/// A folder with every file that the examples and the cases below name.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    let names = ["ssh.vm.example.com", "*.vm.example.com", "*.example.com"];
    let edge = certificate(&names, rcgen::IsCa::NoCa);
    write("edge.pem", &edge.0);
    write("edge.key", &edge.1);
    write("certificates/edge.crt", &edge.0);
    write("certificates/edge.key", &edge.1);
    write(
        "other.key",
        &certificate(&["other.example.com"], rcgen::IsCa::NoCa).1,
    );
    let gateway = certificate(&[], rcgen::IsCa::NoCa);
    write("gateway.pem", &gateway.0);
    write("gateway.key", &gateway.1);
    let mut old = rcgen::CertificateParams::new(Vec::new()).unwrap();
    old.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let old = signed(old);
    write("old.pem", &old.0);
    write("old.key", &old.1);
    let ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = certificate(&["ca.example.com"], ca).0;
    write("clients-ca.pem", &ca);
    write("internal-ca.pem", &ca);
    write("note.txt", "not a certificate\n");
    write("half/new.crt", &edge.0);
    write("half/new.key", "not a key\n");
    write("encrypted.key", ENCRYPTED);
    write(
        "old-form.key",
        "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n",
    );
    write("readable.key", &edge.1);
    let readable = folder.path().join("readable.key");
    fs::set_permissions(readable, fs::Permissions::from_mode(0o644)).unwrap();
    fs::create_dir(folder.path().join("empty")).unwrap();
    folder
}

fn certificate(names: &[&str], is_ca: rcgen::IsCa) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
    let mut parameters = rcgen::CertificateParams::new(names).unwrap();
    parameters.is_ca = is_ca;
    signed(parameters)
}

fn signed(parameters: rcgen::CertificateParams) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn parse(folder: &TempDir, text: &str) -> Result<Checked, Diagnostics> {
    config::parse(text, &folder.path().join("portcullis.toml"))
}

fn good(text: &str) -> Checked {
    parse(&folder(), text).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

/// As shown to a person, the folder's name left out.
fn shown(folder: &TempDir, diagnostics: &Diagnostics) -> String {
    let prefix = format!("{}/", folder.path().display());
    diagnostics.to_string().replace(&prefix, "")
}

/// Takes the marks « and » out of a text, and says where they stood.
fn unmark(marked: &str) -> (String, Range<usize>) {
    let start = marked.find('«').expect("no «");
    let text = marked.replacen('«', "", 1);
    let end = text.find('»').expect("no »");
    (text.replacen('»', "", 1), start..end)
}

/// Line and column of a byte, from 1, counted apart from the code under test.
fn line_and_column(text: &str, byte: usize) -> String {
    let lines: Vec<&str> = text[..byte].split('\n').collect();
    format!(
        "{}:{}",
        lines.len(),
        lines[lines.len() - 1].chars().count() + 1
    )
}

/// Each case: a text with its one mistake marked, the key that is to be named, and a part of the remedy.
fn expect(level: Level, cases: &[(&str, &str, &str)]) {
    let folder = folder();
    for (marked, key, remedy) in cases {
        let (text, span) = unmark(marked);
        let diagnostics = match parse(&folder, &text) {
            Ok(checked) if level == Level::Warning => checked.warnings,
            Ok(_) => panic!("accepted:\n{marked}"),
            Err(diagnostics) => diagnostics,
        };
        let report = shown(&folder, &diagnostics);
        let of_level: Vec<_> = diagnostics
            .list
            .iter()
            .filter(|one| one.level == level)
            .collect();
        assert_eq!(of_level.len(), 1, "one mistake in\n{marked}\n{report}");
        let one = of_level[0];
        assert_eq!(
            one.span,
            Some(span.clone()),
            "the place in\n{marked}\n{report}"
        );
        assert!(
            one.message.contains(&format!("`{key}`")),
            "the key {key} in\n{report}"
        );
        let help = one.help.as_deref().unwrap_or_default();
        assert!(help.contains(remedy), "the remedy {remedy} in\n{report}");
        let place = line_and_column(&text, span.start);
        assert!(
            report.contains(&format!("--> portcullis.toml:{place}\n")),
            "{place} in\n{report}"
        );
    }
}

/// A route that is good, to be put below what is not.
const ROUTE: &str = "[routes.vm]\nhost = \"ssh.vm.example.com\"\nupstream = \"10.0.0.5:22\"\n";
