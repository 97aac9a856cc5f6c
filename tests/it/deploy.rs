//! The configurations inside the files of `deploy/`: good ones, which drain before their scheduler kills.

use std::fs;
use std::path::Path;
use std::time::Duration;

use portcullis::config::{self, Config};

use crate::authority::Authority;

/// What a stop takes at most beyond its deadline.
const AFTER: Duration = Duration::from_secs(5);

/// The configuration inside a file, with its certificates in the authority's folder.
fn load(authority: &Authority, file: &str, configuration: &str) -> Config {
    let certificates = authority.folder().join("certificates");
    fs::create_dir_all(&certificates).unwrap();
    authority.issue_files("certificates/tls", &["ssh.vm.example.com"]);
    let here = configuration.replace(
        "/etc/portcullis/certificates",
        certificates.to_str().unwrap(),
    );
    let checked = config::parse(&here, &authority.folder().join("portcullis.toml"))
        .unwrap_or_else(|mistakes| panic!("{file}: {mistakes}"));
    assert_eq!(checked.certificates.len(), 1, "{file}");
    assert_eq!(checked.config.routes.len(), 1, "{file}");
    assert_eq!(checked.config.listeners[0].address.port(), 8443, "{file}");
    checked.config
}

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// The seconds that stand behind `key`.
fn seconds(text: &str, key: &str) -> Duration {
    let line = text
        .lines()
        .find(|line| line.trim().starts_with(key))
        .unwrap();
    let digits: String = line.chars().filter(char::is_ascii_digit).collect();
    Duration::from_secs(digits.parse().unwrap())
}

#[test]
fn the_nomad_job_has_a_good_configuration_and_time_to_drain() {
    let file = "deploy/nomad/portcullis.nomad.hcl";
    let job = read(file);
    let (_, template) = job.split_once("<<EOF\n").unwrap();
    let (configuration, _) = template.split_once("\nEOF\n").unwrap();
    let config = load(&Authority::new(), file, configuration);
    assert!(
        config.limits.drain_delay + config.limits.drain + AFTER <= seconds(&job, "kill_timeout")
    );
}

#[test]
fn the_kubernetes_deployment_has_a_good_configuration_and_time_to_drain() {
    let file = "deploy/k8s/portcullis.yaml";
    let manifest = read(file);
    let (_, rest) = manifest.split_once("portcullis.toml: |\n").unwrap();
    let (block, _) = rest.split_once("\n---\n").unwrap();
    let configuration: String = block
        .lines()
        .map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line)))
        .collect();
    let config = load(&Authority::new(), file, &configuration);
    assert!(
        config.limits.drain_delay + config.limits.drain + AFTER
            <= seconds(&manifest, "terminationGracePeriodSeconds")
    );
}
