//! Encrypted keys as openssl writes them: what opens each, what is refused, and what opens it in `serve` and `connect`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use portcullis::config::{self, Checked, Diagnostics};

use crate::authority::Authority;
use crate::peers;
use crate::support::run;

mod agents;
mod descriptors;
mod memory;
mod reload;
mod signals;
mod sources;
mod terminal;

/// The passphrase of every key that does not say otherwise.
const PASSPHRASE: &str = "open sesame 5f3e";

/// Whom every certificate names.
const NAME: &str = "vm.example.test";

/// openssl, and an authority with a certificate in `edge.pem` and its key in `plain.key`.
struct Scene {
    openssl: PathBuf,
    authority: Authority,
}

impl Scene {
    /// None where openssl is not here, which is told.
    fn new() -> Option<Self> {
        let openssl = peers::require("openssl", "openssl")?;
        let authority = Authority::new();
        let issued = authority.issue(&[NAME]);
        authority.write("edge.pem", &issued.certificate.pem());
        authority.write("plain.key", &issued.key.serialize_pem());
        let scene = Self { openssl, authority };
        scene.passphrase("passphrase", PASSPHRASE);
        Some(scene)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.authority.folder().join(name)
    }

    /// Writes a passphrase into a file that only its owner may read; twice, as openssl takes one line for what it reads and
    /// one for what it writes.
    fn passphrase(&self, name: &str, text: &str) {
        let path = self.authority.write(name, &format!("{text}\n{text}\n"));
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Runs openssl in the folder; it must succeed.
    fn openssl(&self, arguments: &str) {
        let mut command = Command::new(&self.openssl);
        command.args(arguments.split_whitespace());
        let done = run(command.current_dir(self.authority.folder()), b"");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "openssl {arguments}: {said}");
    }

    /// Encrypts the key into this file, with more arguments for `openssl pkcs8 -topk8`.
    fn encrypt(&self, name: &str, arguments: &str) {
        self.openssl(&format!(
            "pkcs8 -topk8 -in plain.key -out {name} -passout file:passphrase {arguments}"
        ));
    }

    /// Loads a configuration whose certificate has this key, with more keys beside it.
    fn load(&self, key: &str, more: &str) -> Result<Checked, Diagnostics> {
        self.load_pair("edge.pem", key, more)
    }

    fn load_pair(&self, chain: &str, key: &str, more: &str) -> Result<Checked, Diagnostics> {
        let text = format!(
            "admin = false\n[[certificates]]\nchain = \"{chain}\"\nkey = \"{key}\"\n{more}\n"
        );
        config::load(&self.authority.write("portcullis.toml", &text))
    }

    /// What is said of a configuration that is refused.
    #[track_caller]
    fn refused(&self, key: &str, more: &str) -> String {
        let told = self.load(key, more).unwrap_err().to_string();
        let folder = format!("{}/", self.authority.folder().display());
        told.replace(&folder, "")
    }
}

const FROM_FILE: &str = "key_passphrase_file = \"passphrase\"";

#[test]
fn every_form_that_openssl_encrypts_a_key_in_today_is_opened() {
    let Some(scene) = Scene::new() else { return };
    let forms = [
        "",
        "-iter 100000",
        "-v2 aes128",
        "-v2 aes-192-cbc",
        "-v2 aes-256-cbc -v2prf hmacWithSHA1",
        "-v2 aes-256-cbc -v2prf hmacWithSHA256",
        "-v2 aes-256-cbc -v2prf hmacWithSHA512",
        "-scrypt",
        "-scrypt -v2 aes128",
    ];
    for form in forms {
        scene.encrypt("edge.key", form);
        let checked = scene.load("edge.key", FROM_FILE);
        let checked = checked.unwrap_or_else(|mistakes| panic!("{form}: {mistakes}"));
        assert_eq!(checked.certificates.len(), 1, "{form}");
        assert!(checked.warnings.list.len() < 2, "{form}");
    }
    for kind in [
        "EC -pkeyopt ec_paramgen_curve:P-256",
        "RSA -pkeyopt rsa_keygen_bits:2048",
        "ED25519",
    ] {
        scene.openssl(&format!(
            "genpkey -algorithm {kind} -aes256 -out own.key -pass file:passphrase"
        ));
        scene.openssl(&format!(
            "req -x509 -new -key own.key -passin file:passphrase -out own.pem -subj /CN=own -addext subjectAltName=DNS:{NAME}"
        ));
        let checked = scene.load_pair("own.pem", "own.key", FROM_FILE);
        assert!(checked.is_ok(), "{kind}: {}", checked.unwrap_err());
    }
    // Both in one file.
    let both = [scene.path("own.key"), scene.path("own.pem")].map(|path| fs::read(path).unwrap());
    let both = String::from_utf8(both.concat()).unwrap();
    fs::write(scene.path("both.pem"), both).unwrap();
    let open = scene.load_pair("both.pem", "both.pem", FROM_FILE);
    assert!(open.unwrap_err().to_string().contains("chmod 600"));
    fs::set_permissions(scene.path("both.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(scene.load_pair("both.pem", "both.pem", FROM_FILE).is_ok());
}

#[test]
fn what_is_not_opened_is_named_with_a_line_that_converts_it() {
    let Some(scene) = Scene::new() else { return };
    let old = "-provider legacy -provider default";
    let mut forms = vec![
        ("-v1 PBE-SHA1-3DES", "3DES (PBE-SHA1-3DES)"),
        ("-v2 des3", "3DES (DES-EDE3-CBC)"),
    ];
    let mut listing = Command::new(&scene.openssl);
    let listed = run(
        listing.args(["list", "-providers", "-provider", "legacy"]),
        b"",
    );
    let has_legacy = listed.status.success();
    if has_legacy {
        forms.extend([
            ("-v1 PBE-MD5-DES", "DES (PBE-MD5-DES)"),
            ("-v1 PBE-SHA1-RC2-40", "RC2 (PBE-SHA1-RC2-40)"),
        ]);
    }
    for (form, name) in forms {
        let more = if name.starts_with("3DES") { "" } else { old };
        scene.encrypt("edge.key", &format!("{form} {more}"));
        let told = scene.refused("edge.key", FROM_FILE);
        let says = format!("the key is encrypted with {name}, which is not opened here");
        assert!(told.contains(&says), "{told}");
        convert(&scene, &told);
    }
    scene.openssl("ec -in plain.key -aes256 -passout file:passphrase -out edge.key");
    fs::set_permissions(scene.path("edge.key"), fs::Permissions::from_mode(0o600)).unwrap();
    let told = scene.refused("edge.key", FROM_FILE);
    assert!(told.contains("openssl's old way"), "{told}");
    convert(&scene, &told);
}

/// Runs the line that was told, and opens what it writes.
#[track_caller]
fn convert(scene: &Scene, told: &str) {
    let (_, line) = told.split_once("convert it: openssl ").unwrap();
    let line = line.lines().next().unwrap().trim();
    scene.openssl(&format!(
        "{line} -passin file:passphrase -passout file:passphrase"
    ));
    let loaded = scene.load("edge.key.new", FROM_FILE);
    assert!(loaded.is_ok(), "{}", loaded.unwrap_err());
}

#[test]
fn a_passphrase_that_does_not_open_its_key_or_is_not_there_is_told_where_it_is_named() {
    let Some(scene) = Scene::new() else { return };
    scene.encrypt("edge.key", "");
    scene.passphrase("wrong", "close sesame");
    let told = scene.refused("edge.key", "key_passphrase_file = \"wrong\"");
    assert!(
        told.contains("`certificates[0].key`: edge.key: the passphrase does not open the key"),
        "{told}"
    );
    let told = scene.refused("edge.key", "");
    assert!(
        told.contains("the key is encrypted, and there is no passphrase"),
        "{told}"
    );
    assert!(told.contains("`key_passphrase_command`"), "{told}");
    let told = scene.refused("edge.key", "key_passphrase_file = \"none\"");
    assert!(
        told.contains("`certificates[0].key_passphrase_file`: none: does not exist"),
        "{told}"
    );
    let told = scene.refused("edge.key", "key_passphrase_command = [\"/bin/false\"]");
    assert!(
        told.contains(
            "`certificates[0].key_passphrase_command`: /bin/false: has failed: exit status: 1"
        ),
        "{told}"
    );

    fs::set_permissions(scene.path("passphrase"), fs::Permissions::from_mode(0o644)).unwrap();
    let told = scene.refused("edge.key", FROM_FILE);
    assert!(
        told.contains("every user of this machine may read"),
        "{told}"
    );
    let line = told.split_once("run: ").unwrap().1.lines().next().unwrap();
    let mut shell = Command::new("sh");
    let done = run(
        shell
            .args(["-c", line])
            .current_dir(scene.authority.folder()),
        b"",
    );
    assert!(done.status.success(), "{line}");
    assert!(scene.load("edge.key", FROM_FILE).is_ok());

    // A key that is not encrypted needs none, whatever is named.
    assert!(
        scene
            .load("plain.key", "key_passphrase_command = [\"/bin/false\"]")
            .is_ok()
    );
}

#[test]
fn a_key_of_one_s_own_that_its_group_can_read_or_change_is_refused_as_ssh_does() {
    let Some(scene) = Scene::new() else { return };
    let Some(mut command) = by_nobody(&scene) else {
        return;
    };
    let key = scene.path("plain.key");
    let own = connecting(&scene, "127.0.0.1:1", &key);
    command.args(own).arg(NAME);
    let told = || {
        let done = run(&command, b"");
        let told = String::from_utf8(done.stderr).unwrap();
        (done.status.code().unwrap(), told)
    };
    let set = |mode| fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
    for (mode, says) in [
        (0o640, "its group may read this file"),
        (0o620, "its group may change this file"),
        (0o644, "every user of this machine may read this file"),
    ] {
        set(mode);
        let (code, told) = told();
        assert_eq!(code, 2, "{told}");
        assert!(told.contains(says), "{told}");
        let says = format!("\nhint: run: chmod 600 {}\n", key.display());
        assert!(told.contains(&says), "{told}");
    }
    // Root's, which the group of this user may read and not change.
    chown(&key, Some(0), None).unwrap();
    set(0o640);
    assert_eq!(told().0, 21);
    set(0o660);
    let (code, told) = told();
    assert!(code == 2 && told.contains("run: chmod 640"), "{told}");
}

#[test]
fn the_keys_of_a_directory_and_of_an_upstream_are_opened_too() {
    let Some(scene) = Scene::new() else { return };
    fs::create_dir(scene.path("all")).unwrap();
    fs::copy(scene.path("edge.pem"), scene.path("all/edge.pem")).unwrap();
    scene.encrypt("all/edge.key", "");
    let load = |text: &str| {
        let text = format!("admin = false\n{text}");
        config::load(&scene.authority.write("portcullis.toml", &text))
    };
    let directory = "[[certificates]]\ndirectory = \"all\"\n";
    let checked = load(directory).unwrap();
    let warned = checked.warnings.to_string();
    assert!(
        checked.certificates.is_empty() && warned.contains("there is no passphrase"),
        "{warned}"
    );
    let checked = load(&format!("{directory}{FROM_FILE}")).unwrap();
    assert_eq!(checked.certificates.len(), 1);

    let upstream = "[upstreams.db]\naddress = \"db.internal:1\"\n[upstreams.db.tls]\nroots = [\"ca.pem\"]\n\
                    chain = \"edge.pem\"\nkey = \"all/edge.key\"\n";
    let told = load(upstream).unwrap_err().to_string();
    assert!(
        told.contains("`upstreams.db.tls.key`") && told.contains("no passphrase"),
        "{told}"
    );
    load(&format!("{upstream}{FROM_FILE}")).unwrap();
    let alone = "[upstreams.db]\naddress = \"db.internal:1\"\n[upstreams.db.tls]\n";
    let told = load(&format!("{alone}{FROM_FILE}"))
        .unwrap_err()
        .to_string();
    assert!(told.contains("`upstreams.db.tls.key` is missing"), "{told}");
}

/// `portcullis` with these arguments.
fn portcullis(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(arguments);
    command
}

/// `portcullis` as an ordinary user, to whom all of the scene belongs. None where that cannot be done, which is told.
fn by_nobody(scene: &Scene) -> Option<Command> {
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        peers::skip("only root can become another user");
        return None;
    }
    // The one that was built may be where only root can go.
    let program = scene.path("program");
    fs::copy(env!("CARGO_BIN_EXE_portcullis"), &program).unwrap();
    let folder = scene.authority.folder();
    for entry in fs::read_dir(folder).unwrap() {
        chown(entry.unwrap().path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
    command
        .arg("env")
        .arg(format!("XDG_CONFIG_HOME={}", folder.display()));
    // A change of user takes back what kills it with the test.
    command.args(["setpriv", "--pdeathsig", "KILL", "--"]);
    command.arg(program);
    Some(command)
}

/// The arguments of `connect` to this gateway, with the scene's certificate and this key.
fn connecting(scene: &Scene, gateway: impl ToString, key: &Path) -> Vec<String> {
    let file = |name: &str| scene.path(name).display().to_string();
    let gateway = gateway.to_string();
    let mut arguments = vec!["connect", "--gateway", &gateway, "--ca"];
    let (ca, cert, key) = (file("ca.pem"), file("edge.pem"), key.display().to_string());
    arguments.extend([ca.as_str(), "--cert", &cert, "--key", &key]);
    arguments.into_iter().map(str::to_owned).collect()
}
