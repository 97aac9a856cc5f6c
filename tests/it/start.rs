//! What a gateway says instead of starting.

use std::net::TcpListener;
use std::process::{Command, Output};

use crate::authority::Authority;
use crate::support::run;

fn portcullis(command: &str, authority: &Authority, config: &str) -> Output {
    let config = authority.write("portcullis.toml", config);
    let mut program = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    run(program.arg(command).arg("--config").arg(config), b"")
}

#[test]
fn serve_refuses_what_check_refuses_in_the_same_words_and_exits_2() {
    let authority = Authority::new();
    let broken = "admin = false\nlisten = [\"127.0.0.1:0\"]\n[routes.vm]\nhots = \"a.test\"\nupstream = \"10.0.0.5\"\n";
    let (serve, check) = (
        portcullis("serve", &authority, broken),
        portcullis("check", &authority, broken),
    );
    assert_eq!(serve.status.code(), Some(2), "{serve:?}");
    assert_eq!(check.status.code(), Some(2), "{check:?}");
    assert!(!check.stderr.is_empty());
    assert_eq!(
        String::from_utf8(serve.stderr).unwrap(),
        String::from_utf8(check.stderr).unwrap()
    );
}

#[test]
fn an_address_that_is_taken_is_named_and_ends_serve_with_1() {
    let authority = Authority::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let config = format!("admin = false\nlisten = [\"{address}\"]\n");
    let serve = portcullis("serve", &authority, &config);
    assert_eq!(serve.status.code(), Some(1), "{serve:?}");
    let said = String::from_utf8(serve.stderr).unwrap();
    assert!(
        said.contains(&format!("cannot listen on {address}")),
        "{said}"
    );
}
