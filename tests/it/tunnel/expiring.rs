//! The certificates that tunnels show, and their end: told before it, and when it has come.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::CertificateParams;

use super::{VERIFIED, worker};
use crate::authority::Authority;
use crate::gateway::Gateway;
use crate::support::run;
use crate::upstream::Upstream;

/// A worker's certificate that began a day ago and ends then, in place of the one that it has.
fn ends(authority: &Authority, then: SystemTime) {
    let names = vec!["worker.example.test".to_owned()];
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = (SystemTime::now() - Duration::from_secs(86_400)).into();
    params.not_after = then.into();
    let issued = authority.sign(params);
    authority.write("worker.pem", &issued.certificate.pem());
    authority.write("worker.key", &issued.key.serialize_pem());
}

/// A worker's configuration, and its authority, whose `worker.pem` it shows.
async fn scene() -> (Authority, String) {
    let (authority, upstream) = (Authority::new(), Upstream::echo().await);
    authority.issue_files("worker", &["worker.example.test"]);
    let master = Gateway::start(&authority, &super::master(&authority, &upstream)).await;
    let tables = worker(&authority, &master, "listen = \"127.0.0.1:0\"\n", VERIFIED);
    (authority, tables)
}

#[tokio::test]
async fn a_certificate_that_ends_while_a_tunnel_runs_is_told_and_one_that_is_renewed_no_more() {
    let (authority, tables) = scene().await;
    let end = SystemTime::now() + Duration::from_secs(3);
    ends(&authority, end);
    let worker = Gateway::start(&authority, &tables).await;
    let path = authority.folder().join("worker.pem");
    let series = format!(
        "portcullis_own_certificate_not_after_seconds{{name=\"{}\"}}",
        path.display()
    );
    // Whole seconds, as a certificate has them.
    let seconds = end.duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(worker.metric(&series).await, Some(seconds));
    let told = format!(
        "own_certificates degraded: expired, and refused by whoever verifies it: {}",
        path.display()
    );
    loop {
        let (status, ready) = worker.ask_admin("/readyz").await;
        assert_eq!(status, 200, "{ready}");
        if ready.contains(&told) {
            break;
        }
        assert!(!ready.contains("own_certificates"), "{ready}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    authority.issue_files("worker", &["worker.example.test"]);
    worker.reload.done("the test").await.unwrap();
    let (_, ready) = worker.ask_admin("/readyz").await;
    assert!(!ready.contains("own_certificates"), "{ready}");
    assert_ne!(worker.metric(&series).await, Some(seconds));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_with_little_left_is_warned_of_and_its_time_is_shown_by_the_doctor() {
    let (authority, tables) = scene().await;
    let hours = |hours: u64| SystemTime::now() + Duration::from_secs(hours * 3600 + 60);
    let doctor = |authority: &Authority| {
        let mut doctor = super::program::portcullis("doctor");
        doctor
            .arg("--config")
            .arg(authority.folder().join("portcullis.toml"));
        String::from_utf8(run(&doctor, b"").stdout).unwrap()
    };
    let about = format!(
        "{}: shown to who is dialled; its key fits; ",
        authority.folder().join("worker.pem").display()
    );
    for (end, warning, told) in [
        (hours(24), None, "24 h left"),
        (
            hours(2),
            Some(", in 2 h: it is in the last tenth of its time"),
            "2 h left",
        ),
        (
            SystemTime::now() - Duration::from_secs(3600),
            Some(": the certificate expired at "),
            "expired 60 min ago",
        ),
    ] {
        ends(&authority, end);
        let warnings = Gateway::load(&authority, &tables).warnings;
        match warning {
            Some(warning) => {
                let said = &warnings.list[0].message;
                assert!(said.starts_with("`tunnels.clusterd.tls.chain`: "), "{said}");
                assert!(said.contains(warning), "{said}");
            }
            None => assert_eq!(warnings.list, []),
        }
        let said = doctor(&authority).replace('\n', " ");
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains(&format!("{about}{told}")), "{said}");
    }
}
