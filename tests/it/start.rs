//! What a gateway says instead of starting.

use std::net::TcpListener;
use std::process::{Command, Output};

use serde_json::Value;

use crate::authority::Authority;
use crate::support::{Child, run};

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

#[test]
fn an_admin_address_that_is_taken_is_told_as_that_with_what_moves_it() {
    let authority = Authority::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = format!("admin = \"{address}\"\nlisten = [\"127.0.0.1:0\"]\n");
    let serve = portcullis("serve", &authority, &config);
    assert_eq!(serve.status.code(), Some(1), "{serve:?}");
    let said = String::from_utf8(serve.stderr).unwrap();
    let told = format!("`admin`: cannot listen on {address}: Address already in use");
    assert!(said.contains(&told), "{said}");
    assert!(said.contains("or another address, moves it"), "{said}");
}

/// What a gateway says on stderr that is started with one key too many, and a filter with nonsense in it.
fn said(format: &str) -> String {
    let authority = Authority::new();
    let issued = authority.issue_files("edge", &["a.test"]);
    let key = issued.key.serialize_pem();
    authority.write("edge.pem", &(issued.certificate.pem() + &key));
    let config = format!(
        "listen = [\"127.0.0.1:0\"]\nadmin = false\nlog = {{ format = \"{format}\" }}\n\
         certificates = [{{ chain = \"edge.pem\", key = \"edge.key\" }}]\n"
    );
    let config = authority.write("portcullis.toml", &config);
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.arg("serve").arg("--config").arg(config);
    command.env("PORTCULLIS_LOG", "info,no=sense=at=all");
    let gateway = Child::spawn(&command);
    let listens = |line: &str| line.contains("listening").then_some(());
    gateway.wait_for("that it listens", listens);
    gateway.signal("TERM");
    let ended = gateway.finish();
    assert!(ended.status.success(), "{ended:?}");
    String::from_utf8(ended.stderr).unwrap()
}

#[test]
fn where_the_log_is_json_every_line_of_stderr_is_and_each_warning_names_its_place() {
    let said = said("json");
    let lines: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
        .collect();
    let warning = |word: &str| {
        let mut warnings = lines.iter().filter(|line| line["level"] == "WARN");
        let found = warnings.find(|line| line.to_string().contains(word));
        found.unwrap_or_else(|| panic!("{word} in {said}"))
    };
    let key = warning("holds a private key too");
    assert_eq!(key["line"], 4, "{key}");
    assert!(key["column"].as_u64() > Some(1), "{key}");
    assert!(key["help"].is_string(), "{key}");
    assert!(key["path"].as_str().unwrap().ends_with("portcullis.toml"));
    assert_eq!(warning("makes no sense")["directive"], "no=sense=at=all");
}

#[test]
fn where_the_log_is_text_warnings_are_drawn() {
    let said = said("text");
    assert!(said.contains("warning: ") && said.contains("^^^"), "{said}");
    assert!(said.contains("makes no sense"), "{said}");
}

#[test]
fn the_random_generator_is_the_kernels_child_and_ready_at_once() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_portcullis")).unwrap();
    // What measures the jitter of the clock, tens of milliseconds of CPU at each start: `.cargo/config.toml` leaves it out.
    let begins = |name: &[u8]| program.windows(name.len()).any(|bytes| bytes == name);
    assert!(begins(b"aws_lc_"), "no symbols to tell it by");
    assert!(!begins(b"jent_entropy"));
}
