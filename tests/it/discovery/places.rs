//! Questions that are asked of one of Consul's catalogs, and what is made of a namespace and a partition.

use portcullis::config::Place;
use serde_json::json;

use super::Watched;
use crate::fake_consul::{FakeConsul, Fault};

fn team() -> Place {
    Place {
        namespace: Some("team".to_owned()),
        partition: Some("west".to_owned()),
        label: Some("team".into()),
        ..Place::default()
    }
}

#[tokio::test]
async fn each_question_says_the_namespace_and_the_partition_and_so_do_ids() {
    let fake = FakeConsul::start().await;
    fake.change(|world| {
        super::faults::register(world, "web");
        let mut entry = world.services["web"][0].clone();
        entry["Service"]["Namespace"] = json!("team");
        entry["Service"]["Partition"] = json!("west");
        let tags = entry["Service"]["Tags"].as_array_mut().unwrap();
        tags.push(json!("traefik.consulcatalog.connect=true"));
        let mut sidecar = entry.clone();
        sidecar["Service"]["Kind"] = json!("connect-proxy");
        sidecar["Service"]["ID"] = json!("web-sidecar");
        sidecar["Service"]["Proxy"] = json!({ "DestinationServiceName": "web" });
        world.services.insert("web".to_owned(), json!([entry]));
        world.connect.insert("web".to_owned(), json!([sidecar]));
    });
    let mut config = fake.config();
    config.places = vec![team()];
    let mut watched = Watched::start(&config);
    watched.until_ready().await;
    let asked = fake.asked();
    assert!(asked.len() >= 4, "{asked:?}");
    for question in asked {
        let said = question.contains("ns=team&partition=west");
        assert!(said || question.contains("/status/"), "{question}");
    }
    let web = &watched.services["web"];
    assert_eq!(web.key.place.as_deref(), Some("team"));
    assert_eq!(&*web.upstreams[0].name, "web@consul-team");
    assert!(web.routes[0].name.ends_with("@consul-team"), "{web:?}");
    let mesh = web.upstreams[0].mesh.as_ref().unwrap();
    let id = mesh.spiffe_id("example.org").unwrap();
    assert_eq!(
        id.as_str(),
        "spiffe://example.org/ap/west/ns/team/dc/dc1/svc/web"
    );
    assert_eq!(
        mesh.server_name("example.org"),
        "web.team.west.dc1.internal-v1.example.org"
    );
}

#[tokio::test]
async fn a_first_catalog_that_is_refused_is_waited_for_and_a_further_one_is_not() {
    let fake = FakeConsul::start().await;
    fake.fail(
        "ns=team",
        Fault::Status(
            400,
            "Invalid query parameter: \"ns\" - Namespaces are a Consul Enterprise feature",
        ),
    );
    for is_further in [false, true] {
        let mut config = fake.config();
        config.places = vec![Place {
            is_further,
            ..team()
        }];
        let mut watched = Watched::start(&config);
        let says =
            |watched: &Watched| format!("{:?}", watched.state).contains("leave `namespaces`");
        watched.until("it says what to do", says).await;
        let is_ready = !matches!(watched.state, portcullis::status::State::NotReady(_));
        assert_eq!(is_ready, is_further, "{:?}", watched.state);
    }
}
