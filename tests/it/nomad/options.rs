//! The options of `[nomad]` with a real Nomad: what is exposed, and as whom and over what it is asked.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn services_without_routers_get_a_default_rule_where_their_tags_ask_and_the_constraints_hold()
{
    let Some(nomad) = block_in_place(|| Nomad::start(false)) else {
        return;
    };
    let echo = Upstream::echo().await;
    let of = |tags: &[&str]| -> Vec<String> { tags.iter().map(|&tag| tag.to_owned()).collect() };
    run(&nomad, "web", &echo, &of(&["edge", "gate.enable=true"]));
    run(&nomad, "silent", &echo, &of(&["edge"]));
    run(&nomad, "inner", &echo, &of(&["gate.enable=true"]));
    run(&nomad, "theirs", &echo, &tags("theirs"));
    let keys = format!(
        "address = \"{}\"\nregion = \"global\"\nconsistency = \"stale\"\nrefresh_interval = \"1s\"\n\
         prefix = \"gate\"\nexposed_by_default = false\nconstraints = \"Tag(`edge`)\"\n\
         default_rule = \"HostSNI(`{{{{ normalize .Name }}}}.example.test`)\"\n",
        nomad.address()
    );
    let edge = Edge::start(Authority::new(), &keys, &[]).await;
    edge.eventually("it is served", async || edge.serves("web").await)
        .await;
    for name in ["silent", "inner", "theirs"] {
        assert!(!edge.serves(name).await, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_is_not_joined_is_told_by_name() {
    let Some(nomad) = block_in_place(|| Nomad::start(false)) else {
        return;
    };
    let keys = format!("address = \"{}\"\nregion = \"mars\"\n", nomad.address());
    let edge = Edge::unready(Authority::new(), "", &keys, &[]).await;
    edge.eventually("it says what may help", async || {
        let (status, parts) = edge.readyz().await;
        status == 503 && parts.contains("nomad server members")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_https_each_proves_itself_to_the_other_and_a_token_that_is_revoked_takes_nothing_down()
{
    let Some(nomad) = block_in_place(Nomad::start_secure) else {
        return;
    };
    let echo = Upstream::echo().await;
    run(&nomad, "web", &echo, &tags("web"));
    block_in_place(|| nomad.reader_of(&["default", "prod"]));
    let in_prod = tags("inner");
    let in_prod: Vec<&str> = in_prod.iter().map(String::as_str).collect();
    block_in_place(|| nomad.run_in("prod", "inner", echo.address.port(), &in_prod));

    // What the README says that a token needs, for each namespace, and no more.
    let first = block_in_place(|| nomad.reader());
    let authority = Authority::new();
    authority.write("token", &first);
    let keys = format!(
        "address = \"{}\"\ntoken_file = \"token\"\nroots = [{:?}]\nchain = {:?}\nkey = {:?}\n\
         server_name = \"server.global.nomad\"\n",
        nomad.address(),
        nomad.file("ca.pem"),
        nomad.file("client.pem"),
        nomad.file("client.key"),
    );
    let edge = Edge::start(authority, &keys, &[]).await;
    edge.eventually("it is served", async || edge.serves("web").await)
        .await;
    assert!(!edge.serves("inner").await, "it is in another namespace");

    block_in_place(|| nomad.revoke(&first));
    // An answer that is waited for ends by the next change only.
    run(&nomad, "more", &echo, &tags("more"));
    edge.eventually("it is told that the token is refused", async || {
        let (_, parts) = edge.readyz().await;
        parts.contains("nomad degraded") && parts.contains("403")
    })
    .await;
    assert!(edge.serves("web").await && !edge.serves("more").await);

    let second = block_in_place(|| nomad.reader());
    edge.authority.write("token", &second);
    edge.eventually("the file is read again", async || {
        edge.readyz().await.1.contains("nomad ready") && edge.serves("more").await
    })
    .await;
    assert!(edge.serves("web").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_namespaces_need_read_job_on_each_and_their_services_go_by_both_names() {
    let Some(nomad) = block_in_place(|| Nomad::start(true)) else {
        return;
    };
    let echo = Upstream::echo().await;
    let token = block_in_place(|| nomad.reader_of(&["default", "prod"]));
    run(&nomad, "web", &echo, &tags("web"));
    let in_prod = tags("inner");
    let in_prod: Vec<&str> = in_prod.iter().map(String::as_str).collect();
    block_in_place(|| nomad.run_in("prod", "web", echo.address.port(), &in_prod));
    for namespaces in ["[\"default\", \"prod\"]", "[\"*\"]"] {
        let keys = format!(
            "address = \"{}\"\ntoken = \"{token}\"\nnamespaces = {namespaces}\n",
            nomad.address()
        );
        let edge = Edge::start(Authority::new(), &keys, &[]).await;
        edge.eventually("both are served", async || {
            edge.serves("web").await && edge.serves("inner").await
        })
        .await;
        let (_, routes) = edge.gateway.ask_admin("/v1/routes").await;
        assert!(routes.contains("\"web.prod/inner@nomad\""), "{routes}");
    }
}
