//! The catalogs of Consul that are read, and the login by which a token is had.

use portcullis::config::{Login, Place};

use super::consul::consul;
use super::{folder, parse, shown};

#[test]
fn the_catalogs_are_those_of_each_datacenter_and_each_namespace_and_have_names_of_their_own() {
    let places = |keys: &str| consul(&format!("[consul]\n{keys}"), &[]).places;
    let shown = |keys: &str| -> Vec<String> {
        let places = places(keys);
        let shown = places.iter().map(|place| {
            let label = place.label.as_deref().unwrap_or("-");
            format!("{label} {place}")
        });
        shown.collect()
    };
    assert_eq!(places(""), [Place::default()]);
    assert_eq!(
        shown("datacenters = [\"dc1\", \"dc2\"]\n"),
        ["- dc=dc1", "dc2 dc=dc2"]
    );
    assert_eq!(
        shown("namespaces = [\"team\", \"default\"]\npartition = \"west\"\n"),
        [
            "team ns=team&partition=west",
            "default ns=default&partition=west"
        ]
    );
    assert_eq!(
        shown("datacenters = [\"dc1\", \"dc2\"]\nnamespaces = [\"a\", \"b\"]\n"),
        [
            "a dc=dc1&ns=a",
            "b dc=dc1&ns=b",
            "dc2.a dc=dc2&ns=a",
            "dc2.b dc=dc2&ns=b"
        ]
    );
    let variables = [("CONSUL_NAMESPACE", "team"), ("CONSUL_PARTITION", "west")];
    let place = &consul("[consul]\n", &variables).places[0];
    assert_eq!(
        (place.label.as_deref(), place.to_string().as_str()),
        (None, "ns=team&partition=west")
    );
}

#[test]
fn an_upstream_says_where_its_service_is() {
    let folder = folder();
    let upstream = |keys: &str| {
        let text = format!(
            "{}[consul]\ndatacenters = [\"dc1\", \"dc2\"]\nnamespaces = [\"a\", \"b\"]\n\
             [upstreams.web]\nservice = \"web\"\n{keys}",
            super::ROUTE
        );
        let checked = parse(&folder, &text).map_err(|wrong| shown(&folder, &wrong))?;
        let service = checked.config.upstreams["web"].service.clone();
        Ok::<_, String>(service.unwrap().place.unwrap().to_string())
    };
    assert_eq!(upstream("").unwrap(), "a");
    assert_eq!(upstream("namespace = \"b\"\n").unwrap(), "b");
    assert_eq!(upstream("datacenter = \"dc2\"\n").unwrap(), "dc2.a");
    let wrong = upstream("datacenter = \"dc3\"\n").unwrap_err();
    assert!(
        wrong.contains("none of the `datacenters` in [consul]"),
        "{wrong}"
    );
}

#[test]
fn a_login_is_read_and_stands_beside_no_token() {
    let folder = folder();
    let login =
        "[consul.login]\nauth_method = \"jwt\"\ntoken_file = \"a.jwt\"\nmeta = { a = \"b\" }\n";
    let checked = parse(&folder, &format!("[consul]\n{login}")).unwrap();
    let expected = Login {
        auth_method: "jwt".to_owned(),
        token_file: folder.path().join("a.jwt"),
        meta: [("a".to_owned(), "b".to_owned())].into(),
    };
    assert_eq!(checked.config.consul.unwrap().login, Some(expected));
    for (text, wrong) in [
        (
            format!("[consul]\ntoken = \"a\"\n{login}"),
            "beside a token",
        ),
        (
            "[consul.login]\nauth_method = \"jwt\"\n".to_owned(),
            "`consul.login.token_file` is missing",
        ),
        (login.replace("jwt\"", "\""), "is empty"),
        (format!("{login}more = 1\n"), "unknown key `more`"),
    ] {
        let found = shown(&folder, &parse(&folder, &text).unwrap_err());
        assert!(found.contains(wrong), "{text}: {found}");
    }
}
