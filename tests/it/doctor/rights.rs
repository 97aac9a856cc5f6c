//! The doctor beside real agents: their versions, and what the gateway's tokens may do there, right by right.

use tokio::task::block_in_place;

use super::{ANY, Found, Scene, nobody};
use crate::consul::{Consul, ITSELF, NODES, RIGHTS, SERVICES};
use crate::nomad::agent::{MANAGEMENT, Nomad};

/// What adds the right to read the jobs of this namespace.
fn read_job(namespace: &str) -> String {
    format!("namespace \"{namespace}\" {{ capabilities = [\"read-job\"] }}")
}

/// The rights of Consul that are told so, in their order.
fn rights(found: &Found, step: &str, state: &str) -> Vec<String> {
    let told = found.steps().iter();
    let told = told.filter(|one| one["step"] == step && one["state"] == state);
    told.map(|one| one["detail"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn each_right_that_the_readme_names_is_told_and_what_the_token_lacks_with_the_rule_to_add() {
    let scene = Scene::new();
    let Some(consul) = Consul::strict() else {
        return;
    };
    let with = |keys: &str| {
        let tables = format!("[consul]\nmesh_identity = \"portcullis\"\n{keys}");
        Found::by(scene.host(ANY, &tables))
    };
    let well = with(&consul.keys());
    well.exits(0)
        .tells("Consul", "ok", "answers (Consul 1.", "")
        .tells("Consul", "ok", "the leader is 127.0.0.1:", "")
        .tells("Consul", "ok", "consul: ready", "")
        .tells("identity", "ok", "/svc/portcullis, ", "")
        .tells("identity", "ok", " left, 1 root trusted", "");
    let had = RIGHTS.map(|rule| format!("the token has {rule}"));
    assert_eq!(rights(&well, "Consul rights", "ok"), had);

    for (lacking, state, without) in [
        (ITSELF, "fail", "the gateway cannot be that service"),
        (SERVICES, "warn", "of services that no other rule names"),
        (NODES, "warn", "of nodes that no other rule names"),
    ] {
        let rest: Vec<_> = RIGHTS.into_iter().filter(|rule| *rule != lacking).collect();
        let token = consul.token(&rest.join("\n"));
        let found = with(&(consul.way() + &format!("token = \"{token}\"\n")));
        assert!(!found.document.to_string().contains(&token));
        let lack = format!("the token lacks {lacking}: {without}");
        found.tells(
            "Consul rights",
            state,
            &lack,
            &format!("add to its policy: {lacking}"),
        );
        assert_eq!(
            rights(&found, "Consul rights", "ok").len(),
            2,
            "{:#}",
            found.document
        );
    }

    let unknown = "token = \"11111111-2222-3333-4444-555555555555\"\n";
    with(&(consul.way() + unknown)).exits(1).tells(
        "Consul rights",
        "fail",
        "ACL not found",
        "put a new one into its place",
    );
}

#[test]
fn where_consul_has_no_acls_no_right_is_missed() {
    let scene = Scene::new();
    let Some(consul) = Consul::start() else {
        return;
    };
    let tables = format!("[consul]\n{}", consul.way());
    Found::by(scene.host(ANY, &tables)).exits(0).tells(
        "Consul rights",
        "ok",
        "has no ACLs: no right is needed",
        "",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nomad_is_told_with_its_version_and_each_namespace_that_the_token_may_read_or_not() {
    let Some(nomad) = block_in_place(|| Nomad::start(true)) else {
        return;
    };
    let scene = Scene::new();
    let token = block_in_place(|| nomad.reader_of(&["default", "prod"]));
    let with = |token: &str, namespaces: &str| {
        let tables = format!(
            "[nomad]\naddress = \"{}\"\ntoken = \"{token}\"\nnamespaces = {namespaces}\n",
            nomad.address()
        );
        Found::by(scene.host(ANY, &tables))
    };
    for namespaces in ["[\"default\", \"prod\"]", "[\"*\"]"] {
        let found = with(&token, namespaces);
        found
            .exits(0)
            .tells("Nomad", "ok", "told to tokens with `agent:read` only", "")
            .tells("Nomad", "ok", "the leader is 127.0.0.1:", "")
            .tells("Nomad", "ok", "nomad: ready", "");
        let read = ["default", "prod"].map(|name| {
            format!(
                "services of the namespace {name} can be read ({})",
                read_job(name)
            )
        });
        assert_eq!(rights(&found, "Nomad rights", "ok"), read);
    }
    with(&token, "[\"default\", \"other\"]").exits(1).tells(
        "Nomad rights",
        "fail",
        &format!("the token lacks {}", read_job("other")),
        &format!("add to its policy: {}", read_job("other")),
    );
    with(MANAGEMENT, "[\"default\"]")
        .exits(0)
        .tells("Nomad", "ok", "answers (Nomad 1.", "");

    let tables = format!("[nomad]\naddress = \"http://{}\"\n", nobody());
    Found::by(scene.host(ANY, &tables)).exits(1).tells(
        "Nomad",
        "fail",
        "cannot be reached",
        "is the agent running",
    );
}
