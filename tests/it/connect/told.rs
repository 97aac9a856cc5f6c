//! Every failure that `portcullis connect` tells of, provoked, and its words as they stand in `told.txt`.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;

use portcullis::client::exit::Exit;

use super::{connect, to};
use crate::authority::Authority;
use crate::support::{Child, run};

mod handshakes;
mod routes;
mod streams;

/// Where `PORTCULLIS_WRITE_TOLD=FILE` writes what is told now, to be read and put in place of the kept one.
const REWRITE: &str = "PORTCULLIS_WRITE_TOLD";

/// What was told, failure by failure.
#[derive(Default)]
struct Book(Mutex<Vec<Page>>);

struct Page {
    what: &'static str,
    code: i32,
    words: String,
}

impl Book {
    /// The command fails, says two lines, and they are written down without what changes from run to run.
    fn write(&self, what: &'static str, authority: &Authority, gateway: SocketAddr, done: &Output) {
        let words = String::from_utf8(done.stderr.clone()).unwrap();
        assert_eq!(words.lines().count(), 2, "{what}: {words}");
        let port = gateway.port().to_string();
        let folder = authority.folder().display().to_string();
        let words = words.replace(&folder, "FOLDER").replace(&port, "PORT");
        self.0.lock().unwrap().push(Page {
            what,
            code: done.status.code().unwrap(),
            words: without_the_time(&words),
        });
    }

    /// Runs the command against this gateway and writes down what it says.
    fn tell(&self, what: &'static str, authority: &Authority, gateway: SocketAddr, more: &[&str]) {
        let command = to(connect(authority, gateway), more);
        self.write(what, authority, gateway, &run(&command, b""));
    }

    fn render(self) -> String {
        let mut pages = self.0.into_inner().unwrap();
        pages.sort_by_key(|page| (page.code, page.what));
        let render = |page: Page| format!("{} → {}\n{}\n", page.what, page.code, page.words);
        pages.into_iter().map(render).collect()
    }
}

/// The same with the clock's time left out.
fn without_the_time(words: &str) -> String {
    const SAYS: &str = "clock says ";
    match words.split_once(SAYS) {
        Some((before, after)) => format!(
            "{before}{SAYS}NOW{}",
            &after["2000-01-01 00:00 UTC".len()..]
        ),
        None => words.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failure_is_told_in_the_words_that_were_judged_and_with_a_code_of_its_own() {
    let book = Book::default();
    ways(&book).await;
    handshakes::tell(&book).await;
    routes::tell(&book).await;
    streams::tell(&book).await;
    let told = book.render();
    if let Some(file) = std::env::var_os(REWRITE) {
        std::fs::write(file, &told).unwrap();
    }
    assert!(
        told == include_str!("told.txt"),
        "told otherwise ({REWRITE}=FILE writes it):\n{told}"
    );

    let told: BTreeSet<_> = (told.lines())
        .filter_map(|line| line.rsplit_once(" → ")?.1.parse().ok())
        .collect();
    let silent = [Exit::Ended, Exit::Interrupted];
    let failures = Exit::ALL.iter().filter(|exit| !silent.contains(exit));
    assert_eq!(told, failures.map(|exit| exit.code()).collect());
}

/// What is in the way before anybody speaks.
async fn ways(book: &Book) {
    let authority = Authority::new();
    let closed = super::nobody();
    book.tell("nobody listens", &authority, closed, &["vm.example.test"]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(["connect", "--gateway", "127.0.0.1", "--ca"]);
    command.arg(authority.folder().join("absent.pem"));
    let done = run(&to(command, &["vm.example.test"]), b"");
    book.write("a file is missing", &authority, closed, &done);

    let command = to(connect(&authority, "255.255.255.255"), &["vm.example.test"]);
    let done = run(&command, b"");
    book.write("no network leads there", &authority, closed, &done);

    let (_deaf, _queued, address) = crate::upstreams::deaf().await;
    let patience = ["--timeout", "2s", "vm.example.test"];
    book.tell("no answer to a connection", &authority, address, &patience);

    let command = to(connect(&authority, "gate.invalid"), &["vm.example.test"]);
    let mut done = run(&command, b"");
    // The resolver's own words differ from machine to machine.
    done.stderr = shortened(&done.stderr, "gate.invalid: ");
    book.write("no such name", &authority, closed, &done);

    let proxy = super::proxies::answering(b"HTTP/1.1 403 Not this port\r\n\r\n").await;
    let url = format!("http://{}", proxy.address);
    let through = ["--proxy", url.as_str(), "vm.example.test"];
    let command = to(connect(&authority, "gate.invalid"), &through);
    let done = run(&command, b"");
    book.write("a proxy that refuses", &authority, proxy.address, &done);

    // What fails here is this side's.
    let gate = super::gate(&authority, crate::upstream::echo).await;
    let command = to(connect(&authority, gate.address), &["vm.example.test"]);
    let folder = File::open(authority.folder()).unwrap();
    let done = Child::spawn_with(&command, folder.into()).finish();
    book.write("stdin is a directory", &authority, gate.address, &done);
    let mut full = Command::new("sh");
    full.args(["-c", "exec \"$@\" > /dev/full", "sh"]);
    full.arg(command.get_program()).args(command.get_args());
    let done = run(&full, b"hello");
    book.write("stdout is full", &authority, gate.address, &done);
    let limits = (4..16).map(|limit| format!("-n {limit}"));
    let mut done = limits.map(|limit| run(&super::shortage::under(&limit, &[], &command), b""));
    let done = done.find(|done| String::from_utf8_lossy(&done.stderr).contains("no descriptor"));
    book.write(
        "no descriptor is left",
        &authority,
        gate.address,
        &done.unwrap(),
    );
}

/// The first line up to here and no further, then the second.
fn shortened(words: &[u8], until: &str) -> Vec<u8> {
    let words = String::from_utf8(words.to_vec()).unwrap();
    let (before, rest) = words.split_once(until).unwrap();
    let (_, hint) = rest.split_once('\n').unwrap();
    format!("{before}{until}…\n{hint}").into_bytes()
}

/// The command, showing this certificate.
fn showing(command: Command, folder: &Path, name: &str) -> Command {
    let mut command = command;
    for (flag, end) in [("--cert", "pem"), ("--key", "key")] {
        command.arg(flag).arg(folder.join(format!("{name}.{end}")));
    }
    command
}
