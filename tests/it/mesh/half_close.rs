//! Half-close through the mesh, where the sidecar keeps it: Envoy does, and Consul's own does not.

use rustls::version::TLS13;
use tokio::sync::mpsc::unbounded_channel;

use super::{Mesh, Proxy, routed, tagged, tags};
use crate::authority::Authority;
use crate::half_close::{as_upstream, every_case_through};
use crate::upstream::Upstream;

#[tokio::test(flavor = "multi_thread")]
async fn where_the_gateway_ends_tls_the_end_of_one_direction_leaves_the_other_through_envoy() {
    let (well, went_well) = unbounded_channel();
    let upstream = Upstream::tcp(move |tcp| as_upstream(tcp, well.clone())).await;
    let host = "half.example.test";
    let service = routed("half", host, upstream.address);
    let Some((mut mesh, _sidecar)) = Mesh::before(Proxy::Envoy, service, Authority::new()).await
    else {
        return;
    };
    let Mesh {
        gateway, client, ..
    } = &mut mesh;
    every_case_through(gateway, client, host, "terminate", went_well).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_tls_goes_through_the_mesh_untouched_so_does_the_end_of_each_direction() {
    let authority = Authority::new();
    let host = "half.example.test";
    let issued = authority.issue(&[host]);
    let (well, went_well) = unbounded_channel();
    let upstream = Upstream::tls(issued.server(&[&TLS13]), move |tls| {
        as_upstream(tls, well.clone())
    })
    .await;
    let mut tags = tags("half", host);
    tags.push("traefik.tcp.routers.half.tls.passthrough=true".to_owned());
    let service = tagged("half", upstream.address, &tags);
    let Some((mut mesh, _sidecar)) = Mesh::before(Proxy::Envoy, service, authority).await else {
        return;
    };
    let Mesh {
        gateway, client, ..
    } = &mut mesh;
    every_case_through(gateway, client, host, "pass", went_well).await;
}
