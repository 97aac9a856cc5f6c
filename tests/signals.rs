//! What SIGTERM and SIGINT do to a process: in a test binary of its own, as handlers belong to the whole process.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use portcullis::lifecycle::{Reload, Shutdown, signals};

fn send(signal: &str) {
    let kill = format!("kill -{signal} {}", std::process::id());
    assert!(
        Command::new("sh")
            .args(["-c", &kill])
            .status()
            .unwrap()
            .success()
    );
}

#[tokio::test]
async fn the_first_signal_drains_and_the_second_cuts() {
    let shutdown = Shutdown::new();
    let (reload, mut wishes) = Reload::new();
    let signals = signals(shutdown.clone(), reload).unwrap();
    // Before anybody listens: the handlers are there since the call.
    send("TERM");
    send("HUP");
    let signals = tokio::spawn(signals);
    assert_eq!(wishes.recv().await.unwrap().by, "SIGHUP");
    shutdown.draining().await;
    assert!(!signals.is_finished());
    send("INT");
    shutdown.cutting().await;
    signals.await.unwrap();
}
