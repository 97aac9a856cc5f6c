//! nginx as people have it beside each process: on the worker's side, to a gateway; on the master's, behind a tunnel.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use super::{CALLS, Grpc, MASTER, NAME, authority, listens, records, tunnel};
use crate::authority::Authority;
use crate::peers;
use crate::ports;
use crate::program::Program;
use crate::support::{Child, wait_until};

/// nginx with this server, on a port of its own, which stands for `PORT`.
fn nginx(authority: &Authority, server: &str) -> Option<(Child, SocketAddr)> {
    let program = peers::pinned("nginx")?;
    let port = ports::free();
    // Without a master there is one process, which ends with the test. Messages of 16 MiB are more than it takes by itself.
    let config = format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nevents {{}}\nhttp {{\naccess_log off;\n\
         client_max_body_size 0;\nlimit_conn_zone $binary_remote_addr zone=connections:1m;\n\
         limit_req_zone $binary_remote_addr zone=requests:1m rate=20r/s;\n\
         server {{\n{server}}}\n}}\n"
    );
    let config = authority.write("nginx.conf", &config.replace("PORT", &port.to_string()));
    let mut command = Command::new(program);
    command.arg("-p").arg(authority.folder());
    command.args(["-e", "stderr", "-c"]).arg(config);
    let child = Child::spawn(&command);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    wait_until("nginx listens", || {
        assert!(!child.has_ended(), "{}", child.all());
        TcpStream::connect(address).is_ok()
    });
    Some((child, address))
}

#[test]
fn nginx_beside_a_worker_reaches_a_gateway_without_naming_it() {
    let Some(grpc) = Grpc::start() else { return };
    let authority = authority();
    let tables = MASTER.replace("SERVER", &grpc.address.to_string());
    let master = Program::start(&authority, &format!("admin = \"127.0.0.1:0\"\n{tables}"));
    let server = format!(
        "listen 127.0.0.1:PORT http2;\nlocation / {{\n\
         grpc_pass grpcs://{};\n\
         grpc_ssl_certificate worker.pem;\ngrpc_ssl_certificate_key worker.key;\n\
         grpc_ssl_trusted_certificate ca.pem;\n\
         grpc_ssl_verify on;\ngrpc_ssl_name {NAME};\n}}\n",
        master.listener
    );
    let Some((nginx, address)) = nginx(&authority, &server) else {
        return;
    };
    grpc.calls(address, &[&nginx, &master.child]);
    let records = records(master.child);
    assert!(records.len() >= CALLS.len(), "{records:?}");
    for record in &records {
        assert_eq!(
            (&record["route"], &record["alpn"]),
            (&"taskd".into(), &"h2".into())
        );
        assert!(record["sni"].is_null(), "{record}");
    }
}

#[test]
fn a_tunnel_reaches_nginx_beside_a_master() {
    let Some(grpc) = Grpc::start() else { return };
    let authority = authority();
    let server = format!(
        "listen 127.0.0.1:PORT ssl http2;\n\
         ssl_certificate master.pem;\nssl_certificate_key master.key;\n\
         ssl_client_certificate ca.pem;\nssl_verify_client on;\nssl_verify_depth 2;\n\
         limit_conn connections 20;\nlimit_req zone=requests burst=20 nodelay;\n\
         location / {{\ngrpc_pass grpc://{};\n}}\n",
        grpc.address
    );
    let Some((nginx, master)) = nginx(&authority, &server) else {
        return;
    };
    let worker = tunnel(&authority, master, "ca.pem", true);
    grpc.calls(listens(&worker), &[&nginx, &worker]);
    assert_eq!(records(worker).len(), CALLS.len());
    let refused = tunnel(&authority, master, "ca.pem", false);
    let (done, said) = grpc.call(listens(&refused), "unary");
    assert!(!done, "{said}");
}
