//! Texts, hellos, PROXY headers and status frames that nobody would write: those that are kept for the fuzz targets, and new ones like them.

use std::process::Command;

use crate::peers;
use crate::records::{run_kept, run_like_those_kept};

#[path = "../fuzz/client/mod.rs"]
mod client;
#[path = "../fuzz/config/mod.rs"]
mod config;
#[path = "../fuzz/constraint/mod.rs"]
mod constraint;
#[path = "../fuzz/frame/mod.rs"]
mod frame;
#[path = "../fuzz/hello/mod.rs"]
mod hello;
#[path = "../fuzz/proxy_header/mod.rs"]
mod proxy_header;
#[path = "../fuzz/rule/mod.rs"]
mod rule;
#[path = "../fuzz/tags/mod.rs"]
mod tags;
#[path = "../fuzz/template/mod.rs"]
mod template;

/// A second or two of one processor for each target, where `tools/fuzz` spends minutes.
const TRIES: usize = 2000;

/// Of the same for each target, where every test is wanted.
const SECONDS: &str = "60";

#[test]
fn the_hellos_that_are_kept_and_those_like_them_break_no_promise() {
    run_kept("hello", hello::run);
    run_like_those_kept("hello", TRIES, hello::run);
}

#[test]
fn the_rules_that_are_kept_and_those_like_them_break_no_promise() {
    run_kept("rule", rule::run);
    run_like_those_kept("rule", TRIES, rule::run);
}

#[test]
fn the_constraints_that_are_kept_and_those_like_them_break_no_promise() {
    run_kept("constraint", constraint::run);
    run_like_those_kept("constraint", TRIES, constraint::run);
}

#[test]
fn the_templates_that_are_kept_and_those_like_them_break_no_promise() {
    run_kept("template", template::run);
    run_like_those_kept("template", TRIES, template::run);
}

#[test]
fn the_tags_that_are_kept_and_those_like_them_break_no_promise() {
    run_kept("tags", tags::run);
    run_like_those_kept("tags", TRIES, tags::run);
}

#[test]
fn the_configurations_that_are_kept_and_those_like_them_break_no_promise() {
    run_kept("config", config::run);
    run_like_those_kept("config", TRIES, config::run);
}

#[test]
fn the_files_of_persons_that_are_kept_and_those_like_them_break_no_promise() {
    run_kept("client", client::run);
    run_like_those_kept("client", TRIES, client::run);
}

#[test]
fn the_proxy_headers_that_are_kept_and_those_like_them_break_no_promise() {
    run_kept("proxy_header", proxy_header::run);
    run_like_those_kept("proxy_header", TRIES, proxy_header::run);
}

#[test]
fn the_status_frames_that_are_kept_and_those_like_them_break_no_promise() {
    run_kept("frame", frame::run);
    run_like_those_kept("frame", TRIES, frame::run);
}

#[test]
fn no_target_finds_what_breaks_a_promise_in_a_minute() {
    if !peers::long() {
        return;
    }
    if peers::require("c++", "c++").is_none() {
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/fuzz");
    let done = Command::new(script)
        .args(["all", "--time", SECONDS])
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
}
