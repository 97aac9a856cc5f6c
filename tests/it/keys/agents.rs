//! The certificate that Consul and Nomad ask for, whose key is encrypted: what opens it stands beside it.

use std::path::Path;
use std::process::Output;

use tokio::task::block_in_place;

use super::{Scene, portcullis};
use crate::consul::{Consul, Http, Options};
use crate::nomad::agent::Nomad;
use crate::support::run;

impl Scene {
    /// Encrypts this key of an agent's into `agent.key`.
    fn lock(&self, key: &Path) {
        self.openssl(&format!(
            "pkcs8 -topk8 -in {} -out agent.key -passout file:passphrase",
            key.display()
        ));
    }

    /// What the agent in this section tells of, and no more.
    fn asked(&self, section: &str) -> Output {
        let text = format!("listen = [\"127.0.0.1:0\"]\nadmin = false\n{section}");
        let config = self.authority.write("portcullis.toml", &text);
        let config = config.to_str().unwrap();
        let mut command = portcullis(&["routes", "--dry-run", "--config", config]);
        for (name, _) in std::env::vars_os() {
            let known = name.to_string_lossy();
            if known.starts_with("CONSUL_") || known.starts_with("NOMAD_") {
                command.env_remove(name);
            }
        }
        run(&command, b"")
    }

    /// Whether the agent answers to each way to name the passphrase, and to none without or with a wrong one.
    #[track_caller]
    fn is_let_in(&self, section: &str, keys: &str) {
        let with = |passphrase: &str| {
            let tables = format!("[{section}]\n{keys}key = \"agent.key\"\n{passphrase}\n");
            self.asked(&tables)
        };
        let passphrase = self.path("passphrase").display().to_string();
        for passphrase in [
            "key_passphrase_file = \"passphrase\"",
            &format!("key_passphrase_command = [\"/bin/cat\", {passphrase:?}]"),
        ] {
            let done = with(passphrase);
            assert_eq!(done.status.code(), Some(0), "{passphrase}: {done:?}");
        }
        self.passphrase("wrong", "not it");
        for (passphrase, says) in [
            ("", format!("`{section}.key`: ")),
            (
                "key_passphrase_file = \"wrong\"",
                "the passphrase does not open".to_owned(),
            ),
            (
                "key_passphrase_file = \"none\"",
                format!("`{section}.key_passphrase_file`: "),
            ),
            (
                "key_passphrase_command = [\"/bin/false\"]",
                format!("`{section}.key_passphrase_command`: "),
            ),
        ] {
            let done = with(passphrase);
            let told = String::from_utf8(done.stderr).unwrap();
            assert_eq!(done.status.code(), Some(2), "{passphrase}: {told}");
            assert!(told.contains(&says), "{passphrase}: {told}");
        }
        let alone = format!("[{section}]\nkey_passphrase_file = \"passphrase\"\n");
        let told = String::from_utf8(self.asked(&alone).stderr).unwrap();
        let says = format!("`{section}.key_passphrase_file`: there is no key for it to open");
        assert!(told.contains(&says), "{told}");
    }
}

#[test]
fn a_consul_that_demands_a_certificate_is_shown_one_whose_key_a_passphrase_opens() {
    let Some(scene) = Scene::new() else { return };
    let options = Options {
        http: Http::MutualTls,
        ..Options::default()
    };
    let Some(consul) = Consul::start_with(options) else {
        return;
    };
    scene.lock(&consul.folder().join("client.key"));
    let way = consul.way();
    let keys = way.split_inclusive('\n');
    let keys: String = keys.filter(|line| !line.starts_with("key = ")).collect();
    scene.is_let_in("consul", &keys);
    // It lets in nobody who shows none.
    let unknown = keys.replace("chain = ", "# ");
    let done = scene.asked(&format!("[consul]\n{unknown}"));
    assert_eq!(done.status.code(), Some(1), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nomad_that_demands_a_certificate_is_shown_one_whose_key_a_passphrase_opens() {
    let Some(scene) = Scene::new() else { return };
    let Some(nomad) = block_in_place(Nomad::start_secure) else {
        return;
    };
    let token = block_in_place(|| nomad.reader());
    scene.lock(Path::new(&nomad.file("client.key")));
    let keys = format!(
        "address = \"{}\"\ntoken = \"{token}\"\nroots = [{:?}]\nchain = {:?}\n\
         server_name = \"server.global.nomad\"\n",
        nomad.address(),
        nomad.file("ca.pem"),
        nomad.file("client.pem"),
    );
    scene.is_let_in("nomad", &keys);
}
