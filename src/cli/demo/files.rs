//! The demo's folder: a CA whose key is never written, the certificates it has issued, and two configurations.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

/// The host of the route that the gateway terminates.
pub(super) const ECHO: &str = "echo.portcullis.test";
/// The host of the one that it passes through.
pub(super) const PASS: &str = "pass.portcullis.test";
/// The host of the one to the sshd.
pub(super) const SSH: &str = "ssh.portcullis.test";

/// A folder for its owner only, removed when this is dropped.
pub(super) struct Files {
    folder: PathBuf,
}

/// What stands behind the gateway.
pub(super) struct Upstreams {
    pub(super) echo: SocketAddr,
    /// It ends TLS itself.
    pub(super) pass: SocketAddr,
    pub(super) sshd: Option<SocketAddr>,
}

impl Files {
    /// Makes the folder, and in it `ca.pem` and the certificates with their keys: `edge` the gateway's, `pass` the upstream's.
    pub(super) fn create() -> anyhow::Result<Self> {
        let files = Self {
            folder: make_folder()?,
        };
        let ca = authority()?;
        files.write_file("ca.pem", &ca.pem())?;
        for (name, hosts) in [("edge", [ECHO, SSH].as_slice()), ("pass", &[PASS])] {
            let (certificate, key) = issue(&ca, hosts)?;
            files.write_file(&format!("{name}.pem"), &certificate)?;
            files.write_file(&format!("{name}.key"), &key)?;
        }
        Ok(files)
    }

    /// Where they are.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes the gateway's configuration.
    pub(super) fn write(
        &self,
        listen: SocketAddr,
        admin: SocketAddr,
        upstreams: &Upstreams,
    ) -> anyhow::Result<PathBuf> {
        let Upstreams { echo, pass, sshd } = upstreams;
        let mut text = format!(
            "\
# The configuration of `portcullis demo`: an ordinary one.
listen = [\"{listen}\"]
admin = \"{admin}\"

[[certificates]]
chain = \"edge.pem\"
key = \"edge.key\"

[routes.echo]
host = \"{ECHO}\"
upstream = \"{echo}\"

[routes.pass]
host = \"{PASS}\"
passthrough = true
upstream = \"{pass}\"
"
        );
        if let Some(sshd) = sshd {
            text += &format!("\n[routes.ssh]\nhost = \"{SSH}\"\nupstream = \"{sshd}\"\n");
        }
        self.write_file("portcullis.toml", &text)
    }

    /// Writes the configuration of the upstream that ends TLS itself, and hands the bytes to the echo.
    pub(super) fn write_inner(&self, echo: SocketAddr) -> anyhow::Result<PathBuf> {
        let text = format!(
            "\
# What stands behind the passed-through route of `portcullis demo`: it ends TLS itself.
listen = [\"127.0.0.1:0\"]
admin = false

[[certificates]]
chain = \"pass.pem\"
key = \"pass.key\"

[routes.pass]
host = \"{PASS}\"
upstream = \"{echo}\"
"
        );
        self.write_file("pass.toml", &text)
    }

    fn write_file(&self, name: &str, content: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.join(name);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        options
            .open(&path)
            .and_then(|mut file| file.write_all(content.as_bytes()))
            .with_context(|| path.display().to_string())?;
        Ok(path)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // What cannot be removed belongs to nobody else, and holds nothing that lives on.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A folder that did not exist before, whatever others have put where it could have been.
fn make_folder() -> anyhow::Result<PathBuf> {
    let parent = std::env::temp_dir();
    let mut number = std::process::id();
    loop {
        let folder = parent.join(format!("portcullis-demo-{number}"));
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                number = number.wrapping_add(1);
            }
            Err(error) => return Err(error).context(folder.display().to_string()),
        }
    }
}

fn authority() -> anyhow::Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let name = format!("portcullis demo {}", std::process::id());
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

/// A certificate for these hosts and its key, both as PEM.
fn issue(
    ca: &CertifiedIssuer<'static, KeyPair>,
    hosts: &[&str],
) -> anyhow::Result<(String, String)> {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, ca)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_files_are_their_owners_only_and_go_with_the_demo() {
        let files = Files::create().unwrap();
        let folder = files.folder().to_owned();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        for name in ["ca.pem", "edge.pem", "edge.key", "pass.pem", "pass.key"] {
            assert_eq!(mode(&folder.join(name)), 0o600, "{name}");
        }
        let other = Files::create().unwrap();
        assert_ne!(folder, other.folder(), "two in one process do not meet");
        drop(files);
        assert!(!folder.exists());
        assert!(other.folder().exists());
    }

    #[test]
    fn the_configurations_are_found_good_without_a_warning() {
        let files = Files::create().unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let there = "127.0.0.1:22".parse().unwrap();
        for sshd in [None, Some(there)] {
            let upstreams = Upstreams {
                echo: there,
                pass: there,
                sshd,
            };
            let path = files.write(any, any, &upstreams).unwrap();
            let checked = crate::config::load(&path).unwrap();
            assert!(checked.warnings.list.is_empty(), "{}", checked.warnings);
            assert_eq!(checked.config.routes.len(), 2 + usize::from(sshd.is_some()));
            fs::remove_file(path).unwrap();
        }
        let checked = crate::config::load(&files.write_inner(there).unwrap()).unwrap();
        assert!(checked.warnings.list.is_empty(), "{}", checked.warnings);
    }
}
