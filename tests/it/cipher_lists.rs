//! Lists of cipher suites: to us each means what it means to OpenSSL, of the suites that we have.

use std::process::Command;

use portcullis::tls::ciphers::{Ciphers, names};

use crate::peers;

/// What people have in their files, every alias, and what few have ever written.
const LISTS: &[&str] = &[
    "HIGH:!aNULL:!MD5",
    "DEFAULT",
    "DEFAULT@SECLEVEL=1",
    "DEFAULT:@SECLEVEL=2",
    "DEFAULT:!ECDHE",
    "DEFAULT!AES128",
    "DEFAULT+AES256",
    "DEFAULT:+AES256",
    "ALL",
    "ALL@STRENGTH",
    "ALL:@STRENGTH",
    "ALL:!ADH:@STRENGTH",
    "ALL:!ADH:!LOW:!EXP:!MD5:@STRENGTH",
    "ALL:-AES256:ALL:@STRENGTH",
    "HIGH",
    "HIGH:DEFAULT",
    "HIGH:!DEFAULT",
    "HIGH:!ECDH",
    "HIGH:!ECDHE",
    "HIGH:!EECDH",
    "HIGH:!kECDHE",
    "HIGH:!kEECDH",
    "HIGH:!AECDH",
    "HIGH:!kRSA",
    "HIGH:!RSA",
    "HIGH:!aRSA",
    "HIGH:!ECDSA",
    "HIGH:!aECDSA",
    "HIGH:!AES",
    "HIGH:!AESGCM",
    "HIGH:!AES128",
    "HIGH:!AES256",
    "HIGH:!CHACHA20",
    "HIGH:!SHA",
    "HIGH:!SHA1",
    "HIGH:!SHA256",
    "HIGH:!SHA384",
    "HIGH:!TLSv1",
    "HIGH:!TLSv1.0",
    "HIGH:!TLSv1.2",
    "HIGH:!TLSv1.3",
    "HIGH:!SSLv3",
    "HIGH:!FIPS",
    "HIGH:!PSK",
    "HIGH:!BOGUS",
    "HIGH:!BOGUS+AES128",
    "HIGH:BOGUS",
    "HIGH:-BOGUS",
    "HIGH:+BOGUS",
    "HIGH:BOGUS!AES128",
    "HIGH:!ECDSA+aRSA",
    "FIPS",
    "TLSv1.2+FIPS",
    "FIPS+AES128",
    "FIPS:CHACHA20",
    "TLSv1.2",
    "TLSv1.2:!AES128",
    "TLSv1.3:HIGH",
    "TLSv1",
    "SSLv3",
    "ECDH",
    "EECDH",
    "ECDHE",
    "kECDHE",
    "kEECDH",
    "AES",
    "AES128",
    "AES256",
    "AESGCM",
    "CHACHA20",
    "aRSA",
    "RSA",
    "kRSA",
    "ECDSA",
    "aECDSA",
    "MEDIUM",
    "LOW",
    "eNULL",
    "aNULL",
    "CAMELLIA",
    "ARIA",
    "AESCCM",
    "DHE",
    "EDH+AESGCM",
    "PSK",
    "COMPLEMENTOFALL",
    "COMPLEMENTOFDEFAULT",
    "ECDH+AESGCM:ECDH+CHACHA20:ECDH+AES256:ECDH+AES128:!aNULL:!SHA1:!AESCCM",
    "EECDH+AESGCM:EDH+AESGCM",
    "EECDH+ECDSA+AESGCM EECDH+aRSA+AESGCM EECDH+ECDSA+SHA384 EECDH+aRSA+SHA384 EECDH !aNULL \
     !eNULL !LOW !3DES !MD5 !EXP !PSK !SRP !DSS !RC4",
    "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:ECDH+AESGCM:DH+AESGCM:ECDH+AES:DH+AES:\
     RSA+AESGCM:RSA+AES:!aNULL:!eNULL:!MD5:!DSS",
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:\
     ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:\
     DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256:\
     ECDHE-RSA-AES128-SHA256:AES128-SHA:DES-CBC3-SHA:!DSS",
    "ECDHE-ECDSA-AES256-GCM-SHA384,ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES128-GCM-SHA256;ECDHE-RSA-AES256-GCM-SHA384",
    ":::HIGH::!AES128::",
    "AESGCM+ECDSA:AESGCM+aRSA",
    "AES256+ECDHE:AES128+ECDHE",
    "ECDHE+AES128+ECDSA+aRSA",
    "AES256:HIGH:HIGH",
    "!AES256:ECDHE-RSA-AES256-GCM-SHA384",
    "!AES256:HIGH",
    "aRSA:+AES256:-CHACHA20:@STRENGTH",
    "!aRSA:ALL:-ECDSA:ALL",
    "ALL:-AES128:-ECDSA:ALL",
    "ALL:-ECDHE:AES128:ECDSA:ALL",
    "ALL:+ECDSA:+AES256",
    "CHACHA20:+aRSA:AESGCM:+ECDSA",
    "@STRENGTH:HIGH",
    "@SECLEVEL=0:ALL",
    "@SECLEVEL=1:ALL",
    "ALL:@SECLEVEL=3",
    "@SECLEVEL=4:ALL",
    "ALL:@SECLEVEL=5",
    "ALL:@SECLEVEL=6",
    "ALL:@BOGUS",
    "ALL:@STRENGTH+AES",
    "ALL:@STRENGTH!AES128",
    "ALL+@STRENGTH",
    "ALL:!@STRENGTH",
    "ALL:ECDHE+",
    "ALL:+",
    "ALL:!",
    "ALL:-é",
    "HIGH|ALL",
    "HIGH*",
    "HIGH!AES128",
    "HIGH!AES128!ECDSA",
    "ECDHE-RSA-AES256-GCM-SHA384!ALL",
    "ALL-ECDSA",
    "ecdh",
    "high",
    "cDEFAULT",
    " DEFAULT",
    "!",
    "+",
    ":",
];

#[test]
fn a_list_means_what_it_means_to_openssl() {
    let Some(openssl) = peers::require("openssl", "openssl") else {
        return;
    };
    let mut differ = Vec::new();
    for list in LISTS {
        let mut command = Command::new(&openssl);
        // Of TLS 1.3 a list says nothing there.
        let asked = command.args(["ciphers", "-s", "-tls1_2", list]).output();
        let asked = asked.unwrap();
        let told = String::from_utf8(asked.stdout).unwrap();
        let is_ours = |name: &&str| names().any(|ours| ours == *name);
        let theirs: Vec<_> = told.trim().split(':').filter(is_ours).collect();
        let (ciphers, unused) = Ciphers::parse(list);
        let is_refused = unused.iter().any(|group| group.why.is_fatal());
        let ours: Vec<_> = match is_refused {
            true => Vec::new(),
            false => ciphers.names().collect(),
        };
        if ours != theirs || is_refused && asked.status.success() {
            differ.push(format!("{list:?}: {ours:?}, to openssl {theirs:?}"));
        }
        // Whatever leaves us with less than is written is told.
        if ours.is_empty() && unused.is_empty() && !list.contains('!') && *list != ":" {
            differ.push(format!("{list:?}: not a word"));
        }
    }
    assert!(differ.is_empty(), "{differ:#?}");
}
