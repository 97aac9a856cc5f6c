//! The rights of the gateway's ACL token: those that the README names suffice, each is needed, and what is missing is told.

use super::{Host, Mesh, at, denying, plain_tags, tagged};
use crate::authority::Authority;
use crate::consul::{Consul, ITSELF, NODES, Options, RIGHTS, SERVICES, STRICT, Sidecar};

const NAME: &str = "vm.example.test";

/// A gateway whose token has these rights, and the service that it is to route. The agent denies what no policy allows, and
/// speaks TLS.
struct Scene {
    mesh: Mesh,
    token: String,
    host: Host,
    _sidecar: Sidecar,
}

impl Mesh {
    /// A gateway that is ready, with the rights that the README names and no more, beside an agent that denies all else and
    /// speaks TLS. These files of its own are lost before it starts.
    pub(super) async fn guarded(authority: Authority, tables: &str, lost: &[&str]) -> Option<Self> {
        let consul = Consul::strict()?;
        let keys = at(&consul);
        let mesh = Self::without(lost, authority, consul, &keys, tables).await;
        mesh.is_ready().await;
        Some(mesh)
    }
}

impl Scene {
    /// An agent of its own for each: one gives a leaf that it has to whoever may be nobody.
    async fn with(rights: &[&str]) -> Option<Self> {
        let (consul, host, sidecar) = denying(NAME).await?;
        let authority = Authority::new();
        let token = consul.token(&rights.join("\n"));
        authority.write("token", &format!("{token}\n"));
        let keys = at(&consul) + "token_file = \"token\"\n";
        Some(Self {
            mesh: Mesh::starting(authority, consul, &keys, "").await,
            token,
            host,
            _sidecar: sidecar,
        })
    }

    /// Waits until this is said by `/readyz`, `/v1/routes` and a metric.
    async fn tells(&self, state: &str, text: &str) {
        self.mesh.readyz_says(text).await;
        let what = format!("consul is {state}: {text}");
        self.mesh
            .told(&what, |routes| {
                let mut parts = routes.0["parts"].as_array().unwrap().iter();
                parts.any(|part| {
                    let said = part["text"].as_str();
                    part["name"] == "consul"
                        && part["state"] == state
                        && said.is_some_and(|said| said.contains(text))
                })
            })
            .await;
        let (_, metrics) = self.mesh.gateway.ask_admin("/metrics").await;
        let series = format!("portcullis_part_state{{part=\"consul\",state=\"{state}\"}} 1");
        assert!(metrics.contains(&series), "{metrics}");
    }

    /// Its policy says all that the README does.
    fn mend(&self) {
        let rights = RIGHTS.join("\n");
        self.mesh.consul.change_rights(&self.token, &rights);
    }

    /// Nothing else is needed, and no restart.
    async fn serves_when_mended(mut self) {
        self.mend();
        self.mesh.route("vm@consul").await;
        self.mesh.readyz_says("consul ready").await;
        self.mesh.readyz_says("mesh identity ready\n").await;
        assert_eq!(self.mesh.greets(NAME).await, "vm");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_that_the_readme_names_suffice() {
    let readme = include_str!("../../../README.md");
    let written: Vec<String> = readme
        .lines()
        .filter(|line| line.contains("{ policy = ") && line.ends_with('}'))
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(written, RIGHTS);
    let Some(mut scene) = Scene::with(&RIGHTS).await else {
        return;
    };
    scene.mesh.is_ready().await;
    scene.mesh.readyz_says("consul ready\n").await;
    assert_eq!(scene.mesh.greets(NAME).await, "vm");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_be_its_service_that_is_told() {
    let Some(scene) = Scene::with(&[SERVICES, NODES]).await else {
        return;
    };
    let text = "the token needs service:write on `portcullis`";
    scene.mesh.readyz_says(text).await;
    scene.serves_when_mended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_read_nodes_nothing_is_seen_and_that_is_told() {
    let Some(scene) = Scene::with(&[ITSELF, SERVICES]).await else {
        return;
    };
    scene
        .tells("not_ready", r#"`node_prefix "" { policy = "read" }`"#)
        .await;
    let (status, _) = scene.mesh.gateway.ask_admin("/readyz").await;
    assert_eq!(status, 503);
    scene.serves_when_mended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_read_services_that_is_told() {
    let Some(scene) = Scene::with(&[ITSELF, NODES]).await else {
        return;
    };
    scene
        .tells("degraded", r#"`service_prefix "" { policy = "read" }`"#)
        .await;
    scene.serves_when_mended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_read_its_sidecars_a_service_is_refused_and_says_why() {
    let services = r#"service "vm" { policy = "read" }"#;
    let Some(scene) = Scene::with(&[ITSELF, services, NODES]).await else {
        return;
    };
    let told = scene
        .mesh
        .told("why it is refused", |routes| {
            let route = routes.route("vm@consul");
            let why = route.and_then(|route| route["broken_reason"].as_str());
            why.is_some_and(|why| why.contains("its sidecars are not seen: ACLs hide"))
        })
        .await;
    let notes = told.skipped("vm");
    assert!(
        notes
            .iter()
            .any(|entry| entry["note"].to_string().contains("service:read")
                || entry["reason"].to_string().contains("service:read")),
        "{notes:?}"
    );
    scene.mend();
    // Without any change it would be read again within a minute.
    let tags = plain_tags("web", "web.example.test");
    let host = scene.host.address;
    scene.mesh.consul.register(&tagged("web", host, &tags));
    scene.serves_when_mended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_of_the_file_whose_service_is_hidden_says_so() {
    let Some(consul) = Consul::start_with(Options {
        gateway: false,
        ..STRICT
    }) else {
        return;
    };
    let host = Host::start("vm").await;
    consul.register(&tagged("vm", host.address, &[]));
    let authority = Authority::new();
    let services = r#"service "other" { policy = "read" }"#;
    let rights = [ITSELF, services, NODES].join("\n");
    let token = consul.token(&rights);
    let keys = at(&consul) + &format!("token = \"{token}\"\n");
    consul.register(&tagged("other", host.address, &[]));
    let tables = "[routes.vm]\nhost = \"vm.example.test\"\nupstream = \"vm\"\n\
        [upstreams.vm]\nservice = \"vm\"\nmesh = false\n";
    let mesh = Mesh::starting(authority, consul, &keys, tables).await;
    mesh.readyz_says("consul ready: ACLs hide some of consul's services")
        .await;
    mesh.told("why there is nothing", |routes| {
        let route = routes.route("vm");
        let empty = route.and_then(|route| route["upstream"]["empty"].as_str());
        empty.is_some_and(|empty| empty.contains("ACLs hide"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_rights_on_prefixes_hide_is_not_routed_and_all_else_is() {
    let services = r#"service_prefix "vm" { policy = "read" }"#;
    let rights = [ITSELF, services, NODES];
    let Some(Scene {
        mut mesh,
        host,
        _sidecar,
        ..
    }) = Scene::with(&rights).await
    else {
        return;
    };
    let hidden = plain_tags("secret", "secret.example.test");
    mesh.consul
        .register(&tagged("secret", host.address, &hidden));
    mesh.is_ready().await;
    mesh.readyz_says("consul ready: ACLs hide some of consul's services")
        .await;
    assert_eq!(mesh.greets(NAME).await, "vm");
    let seen = plain_tags("vm2", "vm2.example.test");
    mesh.consul.register(&tagged("vm2", host.address, &seen));
    mesh.route("vm2@consul").await;
    assert!(mesh.routes().await.route("secret@consul").is_none());
    let record = mesh.refuses("secret.example.test").await;
    assert_eq!(record["reason"], "unknown_name", "{record}");
}
