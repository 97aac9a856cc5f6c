//! A gateway whose upstream turns out to be itself.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use portcullis::config::EndpointAddress;
use rustls::version::TLS13;

use crate::authority::Authority;
use crate::gateway::{Gateway, exchange};
use crate::hello_bytes;

/// As when the name of an upstream resolves to this machine: no look at the configuration could have told.
#[tokio::test]
async fn an_upstream_that_turns_out_to_be_the_gateway_itself_is_not_dialled() {
    let authority = Authority::new();
    let tables = "[routes.loop]\nhost = \"loop.test\"\npassthrough = true\nupstream = \"dial\"\n\
                  [upstreams.dial]\naddress = \"192.0.2.1:22\"\n";
    let mut checked = Gateway::load(&authority, tables);
    // The port is ours alone as long as this listens, on whatever loopback address.
    let reserved = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = reserved.local_addr().unwrap().port();
    let address = SocketAddr::from(([127, 0, 0, 77], port));
    checked.config.listeners[0].address = address;
    let upstream = checked.config.upstreams.get_mut("dial").unwrap();
    upstream.endpoints[0].address = EndpointAddress::Ip(address);
    let mut gateway = Gateway::serve(checked).await;
    let (_, hello) = hello_bytes::client(&Arc::new(authority.client(&[&TLS13])), "loop.test");
    let (answer, _) = exchange(gateway.connect().await, &hello_bytes::record(22, &hello)).await;
    assert_eq!(answer, b"");
    let record = gateway.ended().await;
    assert_eq!(record["reason"], "route_broken", "{record}");
    assert_eq!(record["route"], "loop");
    assert_eq!(record["fault"], "gateway");
    assert!(gateway.has_no_more_records());
}
