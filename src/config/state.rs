//! The keys `state_dir`, `state_key_file` and `state_max_age`: what is typed, and what it means.

use std::path::Path;
use std::time::Duration;

use toml::de::DeValue;

use super::decode::{Item, Table, Typed};
use super::diagnostic::Findings;
use super::value::{self, read};
use super::{Environment, files};
use crate::state::{self, Settings};

/// What is typed; `None` is a key that is absent, or wrong and reported.
#[derive(Debug, Default)]
pub(super) struct Keys {
    dir: Option<Dir>,
    key_file: Option<Typed<String>>,
    max_age: Option<Typed<String>>,
}

/// `state_dir`.
#[derive(Debug)]
enum Dir {
    /// `false`.
    Off,
    Path(Typed<String>),
}

impl Keys {
    pub(super) fn take(root: &mut Table<'_>, findings: &mut Findings<'_>) -> Self {
        Self {
            dir: root.take("state_dir", findings, read_dir),
            key_file: root.take("state_key_file", findings, Item::string),
            max_age: root.take("state_max_age", findings, |item, findings| {
                item.quantity("s", findings)
            }),
        }
    }
}

fn read_dir(item: Item<'_>, findings: &mut Findings<'_>) -> Option<Dir> {
    match item.value() {
        DeValue::Boolean(false) => Some(Dir::Off),
        DeValue::String(_) => item.string(findings).map(Dir::Path),
        _ => item.wrong("a path or false", findings),
    }
}

/// Where the state is kept, if anywhere. systemd's `STATE_DIRECTORY` counts where the file says nothing: whoever wrote
/// `StateDirectory=` into a unit has asked for it.
pub(super) fn state(
    typed: &Keys,
    folder: &Path,
    environment: &Environment,
    findings: &mut Findings<'_>,
) -> Option<Settings> {
    let mut of_systemd = || {
        let mut all = environment.read("STATE_DIRECTORY", findings)?;
        // A unit may have several (systemd.exec(5)): the first is ours.
        let first = all.value.split(':').next().unwrap_or_default();
        all.value = first.to_owned();
        Some(all)
    };
    let dir = match &typed.dir {
        Some(Dir::Off) => None,
        Some(Dir::Path(typed)) => Some(typed.clone()),
        None => of_systemd(),
    };
    let key_file = typed.key_file.as_ref().and_then(|typed| {
        let path = files::place(typed, folder, findings)?;
        match state::check_key(&path) {
            Ok(None) => {}
            Ok(Some(warning)) => findings.warning(
                Some(typed.span.clone()),
                format!("`{}`: {warning}", typed.key),
                format!("`chmod o= {}`", path.display()),
            ),
            Err(error) => findings.error(
                typed.span.clone(),
                format!("`{}`: {error}", typed.key),
                "let that file hold a key, and be the gateway's own: `openssl rand -hex 32` makes one",
            ),
        }
        Some(path)
    });
    // What is older than a month names machines that are somebody else's; below a second nothing would ever be served.
    const BOUNDS: (Duration, Duration) =
        (Duration::from_secs(1), Duration::from_secs(30 * 24 * 3600));
    let max_age = typed.max_age.as_ref();
    let max_age = max_age.and_then(|typed| {
        read(typed, findings, |text| {
            value::duration(text, BOUNDS.0..=BOUNDS.1)
        })
    });
    let Some(dir) = dir else {
        let unused = [&typed.key_file, &typed.max_age];
        for typed in unused.into_iter().flatten() {
            findings.error(
                typed.span.clone(),
                format!(
                    "`{}` without `state_dir`: nothing is kept on the disk",
                    typed.key
                ),
                "add `state_dir = \"/var/lib/portcullis\"`, or remove it",
            );
        }
        return None;
    };
    let path = files::place(&dir, folder, findings)?;
    if let Err(error) = state::look(&path) {
        findings.error(
            dir.span.clone(),
            format!("`{}`: {error}", dir.key),
            "name a folder of this gateway's own; it is made if it is not there",
        );
    }
    Some(Settings {
        folder: path,
        key_file,
        max_age: max_age.unwrap_or(Settings::MAX_AGE),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::super::{Diagnostics, parse, parse_with};
    use super::*;

    fn read(folder: &Path, text: &str) -> Result<Option<Settings>, Diagnostics> {
        parse(text, &folder.join("portcullis.toml")).map(|checked| checked.config.state)
    }

    #[track_caller]
    fn refused(folder: &Path, text: &str, why: &str) {
        let told = read(folder, text).unwrap_err().to_string();
        assert!(told.contains(why), "{told}");
    }

    #[test]
    fn nothing_is_kept_unless_the_file_or_systemd_names_a_folder() {
        let folder = Path::new("/etc/portcullis");
        assert_eq!(read(folder, "").unwrap(), None);
        let state = read(folder, "state_dir = \"state\"").unwrap().unwrap();
        assert_eq!(state.folder, folder.join("state"));
        assert_eq!(state.max_age, Settings::MAX_AGE);
        let systemd = Environment::from_iter([("STATE_DIRECTORY", "/var/lib/a:/var/lib/b")]);
        let of = |text: &str| {
            let checked = parse_with(text, &folder.join("portcullis.toml"), &systemd).unwrap();
            checked.config.state.map(|state| state.folder)
        };
        assert_eq!(of(""), Some(PathBuf::from("/var/lib/a")));
        assert_eq!(of("state_dir = \"/c\""), Some(PathBuf::from("/c")));
        assert_eq!(of("state_dir = false"), None);
    }

    #[test]
    fn a_key_that_others_may_write_is_refused_and_one_that_all_may_read_is_warned_of() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("state.key");
        std::fs::write(&path, "f".repeat(64)).unwrap();
        let text = "state_dir = \"s\"\nstate_key_file = \"state.key\"";
        let with_mode = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            parse(text, &root.path().join("portcullis.toml"))
        };
        for mode in [0o666, 0o620, 0o602] {
            let told = with_mode(mode).unwrap_err().to_string();
            assert!(told.contains("can be written to by others"), "{told}");
            assert!(told.contains("chmod go-w"), "{told}");
        }
        let of_all = with_mode(0o644).unwrap().warnings.to_string();
        assert!(
            of_all.contains("every user of this machine may read the key"),
            "{of_all}"
        );
        for mode in [0o600, 0o640, 0o400] {
            let told = with_mode(mode).unwrap().warnings.to_string();
            assert!(!told.contains("may read the key"), "{told}");
        }
    }

    #[test]
    fn every_mistake_is_told_with_its_key() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path();
        let key = "f".repeat(64);
        std::fs::write(folder.join("good.key"), &key).unwrap();
        std::fs::write(folder.join("bad.key"), "password").unwrap();
        let good = "state_dir = \"s\"\nstate_key_file = \"good.key\"\nstate_max_age = \"2h\"";
        let state = read(folder, good).unwrap().unwrap();
        assert_eq!(state.max_age, Duration::from_secs(7200));
        assert_eq!(state.key_file, Some(folder.join("good.key")));
        let dir = "state_dir = \"s\"\n";
        let bad = format!("{dir}state_key_file = \"bad.key\"");
        refused(folder, &bad, "does not hold 32 bytes");
        assert!(
            !read(folder, &bad)
                .unwrap_err()
                .to_string()
                .contains("password")
        );
        refused(
            folder,
            &format!("{dir}state_key_file = \"none\""),
            "cannot be read",
        );
        refused(
            folder,
            &format!("{dir}state_max_age = \"31d\""),
            "state_max_age",
        );
        refused(
            folder,
            "state_max_age = \"1d\"",
            "`state_max_age` without `state_dir`",
        );
        refused(folder, "state_dir = true", "a path or false");
        refused(folder, "state_dir = \"good.key\"", "is not a folder");
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(folder, open).unwrap();
        refused(folder, "state_dir = \".\"", "chmod go-w");
    }
}
