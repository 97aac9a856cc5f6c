//! A client that is gone without a word, as when a laptop is closed: its tunnel ends by keepalive, and no sooner.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::hello_bytes::{framed, named};
use crate::network;
use crate::upstream::Upstream;

/// An address that can be taken away; in a network of the test's own it is nobody else's.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);

/// By default it takes two minutes of silence (60 s, then six probes 10 s apart); here two seconds.
#[test]
fn a_tunnel_whose_client_has_vanished_is_found_by_keepalive() {
    network::of_its_own(
        "hostile::vanished::a_tunnel_whose_client_has_vanished_is_found_by_keepalive",
        async {
            ip(&["addr", "add", &format!("{CLIENT}/32"), "dev", "lo"]);
            let upstream = Upstream::echo().await;
            let tables = format!(
                "limits.keepalive = {{ idle = \"1s\", interval = \"1s\", count = 1 }}\n\
                 [routes.pass]\nhost = \"pass.example.test\"\npassthrough = true\nupstream = \"{}\"\n",
                upstream.address
            );
            let mut gateway = Gateway::start(&Authority::new(), &tables).await;
            let mut stays = gateway.connect().await;
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind((IpAddr::V4(CLIENT), 0).into()).unwrap();
            let mut goes = socket.connect(gateway.address).await.unwrap();
            let hello = framed(&named("pass.example.test"), &[]);
            let mut echoed = vec![0; hello.len()];
            for tcp in [&mut stays, &mut goes] {
                tcp.write_all(&hello).await.unwrap();
                tcp.read_exact(&mut echoed).await.unwrap();
            }
            // Nothing comes from there any more, and nothing gets there.
            ip(&["addr", "del", &format!("{CLIENT}/32"), "dev", "lo"]);
            ip(&["route", "add", "blackhole", &format!("{CLIENT}/32")]);
            let record = gateway.ended().await;
            assert!(
                record["client"].as_str().unwrap().starts_with("10.99.0.1:"),
                "{record}"
            );
            assert_eq!(record["reason"], "client_reset", "{record}");
            // Who is only silent answers each probe, and stays for as long as it likes.
            stays.write_all(b"here").await.unwrap();
            stays.read_exact(&mut echoed[..4]).await.unwrap();
            assert!(gateway.has_no_more_records());
        },
    );
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {arguments:?}");
}
