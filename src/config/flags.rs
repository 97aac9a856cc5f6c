//! A tunnel that is typed as flags: the same checks as for a file, and mistakes that name the flags.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::check::{self, Checked};
use super::diagnostic::Diagnostics;
use crate::tls::passphrase::Given;

/// The tunnel of a command line.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--listen`.
    pub listen: Vec<String>,
    /// `--to`.
    pub to: Option<String>,
    /// `--server-name`.
    pub server_name: Option<String>,
    /// `--gateway`.
    pub gateway: Option<String>,
    /// The name behind it.
    pub name: Option<String>,
    /// `--ca`.
    pub roots: Vec<PathBuf>,
    /// `--cert` and `--key`.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// `--alpn`.
    pub alpn: Vec<String>,
    /// `--allow-uid`.
    pub allow_uids: Vec<u32>,
    /// `--mode`.
    pub mode: Option<String>,
    /// `--insecure-listen`.
    pub insecure_listen: bool,
    /// `--admin`; `None` is no admin interface.
    pub admin: Option<String>,
    /// `--timeout`.
    pub timeout: Option<String>,
    /// Where relative paths start.
    pub folder: PathBuf,
}

/// What a mistake calls the keys, and what the flags are called. The longer ones first.
const FLAGS: &[(&str, &str)] = &[
    (
        "`tunnels.tunnel` has neither `to` nor `gateway` nor `upstream`",
        "there is neither `--to` nor `--gateway`",
    ),
    (
        "`to = \"master.example.com:8443\"`, or `gateway = \"gate.example.com:8443\"` and the `name` behind it",
        "`--to master.example.com:8443`, or `--gateway gate.example.com` and the NAME behind it",
    ),
    (
        "such as \"h2\"; an empty list turns ALPN off",
        "such as \"h2\", or leave it out",
    ),
    (
        "as in `listen = \"unix:/run/portcullis/clusterd.sock\"`",
        "as in `--listen unix:/run/portcullis/clusterd.sock`",
    ),
    ("tunnels.tunnel.tls.roots", "--ca"),
    ("tunnels.tunnel.tls.chain", "--cert"),
    ("tunnels.tunnel.tls.key", "--key"),
    ("tunnels.tunnel.server_name", "--server-name"),
    ("tunnels.tunnel.insecure_listen", "--insecure-listen"),
    ("tunnels.tunnel.allow_uids", "--allow-uid"),
    ("tunnels.tunnel.listen", "--listen"),
    ("tunnels.tunnel.gateway", "--gateway"),
    ("tunnels.tunnel.alpn", "--alpn"),
    ("tunnels.tunnel.name", "NAME"),
    ("tunnels.tunnel.mode", "--mode"),
    ("tunnels.tunnel.to", "--to"),
    ("limits.dial_timeout", "--timeout"),
    ("write `insecure_listen = true`", "add `--insecure-listen`"),
    (
        "write `insecure_admin = true`",
        "use `--config` with a file that has `insecure_admin = true`",
    ),
    ("`server_name = \"…\"`", "`--server-name NAME`"),
    ("`server_name`", "`--server-name`"),
    ("`allow_uids`", "`--allow-uid`"),
    ("`listen`", "`--listen`"),
    ("`admin`", "`--admin`"),
    ("`mode`", "`--mode`"),
];

impl Flags {
    /// Checks them as if they stood in a file, and reads the files they name.
    ///
    /// # Errors
    /// Every mistake at once.
    pub(super) fn check(&self, given: &Given) -> Result<Checked, Diagnostics> {
        let path = self.folder.join("portcullis.toml");
        let checked = check::parse_given(&self.text(), &path, given);
        match checked {
            Ok(mut checked) => {
                by_flag(&mut checked.warnings);
                Ok(checked)
            }
            Err(mut mistakes) => {
                by_flag(&mut mistakes);
                Err(mistakes)
            }
        }
    }

    /// The file that says the same.
    fn text(&self) -> String {
        let mut text = match &self.admin {
            Some(admin) => format!("admin = {}\n", quoted(admin)),
            None => "admin = false\n".to_owned(),
        };
        let list = |values: &mut dyn Iterator<Item = String>| {
            let values: Vec<String> = values.collect();
            format!("[{}]", values.join(", "))
        };
        let file = |path: &Path| quoted(&path.display().to_string());
        // Writing into a String does not fail.
        if let Some(timeout) = &self.timeout {
            let _ = writeln!(text, "limits.dial_timeout = {}", quoted(timeout));
        }
        let listen = list(&mut self.listen.iter().map(|address| quoted(address)));
        let _ = writeln!(text, "[tunnels.tunnel]\nlisten = {listen}");
        for (key, value) in [
            ("to", &self.to),
            ("server_name", &self.server_name),
            ("gateway", &self.gateway),
            ("name", &self.name),
            ("mode", &self.mode),
        ] {
            if let Some(value) = value {
                let _ = writeln!(text, "{key} = {}", quoted(value));
            }
        }
        if !self.alpn.is_empty() {
            let alpn = list(&mut self.alpn.iter().map(|name| quoted(name)));
            let _ = writeln!(text, "alpn = {alpn}");
        }
        if !self.allow_uids.is_empty() {
            let uids = list(&mut self.allow_uids.iter().map(u32::to_string));
            let _ = writeln!(text, "allow_uids = {uids}");
        }
        if self.insecure_listen {
            text.push_str("insecure_listen = true\n");
        }
        if !self.roots.is_empty() {
            let roots = list(&mut self.roots.iter().map(|path| file(path)));
            let _ = writeln!(text, "tls.roots = {roots}");
        }
        if let Some((chain, key)) = &self.certificate {
            let _ = writeln!(text, "tls.chain = {}\ntls.key = {}", file(chain), file(key));
        }
        text
    }
}

/// As TOML takes it: JSON's strings are among TOML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Nobody has typed the file: mistakes have no place in it.
pub(super) fn by_flag(diagnostics: &mut Diagnostics) {
    diagnostics.path = PathBuf::from("the command line");
    diagnostics.text.clear();
    for one in &mut diagnostics.list {
        one.span = None;
        one.message = translated(&one.message);
        one.help = one.help.as_deref().map(translated);
    }
}

fn translated(text: &str) -> String {
    let mut text = text.to_owned();
    for (key, flag) in FLAGS {
        text = text.replace(key, flag);
    }
    // Each one is a flag of its own.
    for flag in ["--listen", "--ca", "--alpn", "--allow-uid"] {
        while let Some((before, after)) = text.split_once(&format!("{flag}[")) {
            let Some((_, after)) = after.split_once(']') else {
                break;
            };
            text = format!("{before}{flag}{after}");
        }
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn flags() -> Flags {
        Flags {
            listen: vec!["127.0.0.1:8899".to_owned()],
            to: Some("master.example.test:8443".to_owned()),
            folder: "/nonexistent".into(),
            ..Flags::default()
        }
    }

    fn mistakes(flags: &Flags) -> Vec<(String, String)> {
        let mistakes = flags.check(&Given::default()).unwrap_err();
        let list = mistakes.list.into_iter();
        list.map(|one| (one.message, one.help.unwrap_or_default()))
            .collect()
    }

    #[test]
    fn flags_mean_what_the_same_keys_mean_in_a_file() {
        let flags = Flags {
            alpn: vec!["h2".to_owned()],
            mode: Some("0660".to_owned()),
            allow_uids: vec![7, 8],
            listen: vec![
                "unix:/run/x \"y\".sock".to_owned(),
                "unix:/run/y.sock".to_owned(),
            ],
            server_name: Some("m.test".to_owned()),
            timeout: Some("2s".to_owned()),
            ..flags()
        };
        let config = flags.check(&Given::default()).unwrap().config;
        let tunnel = &config.tunnels["tunnel"];
        assert_eq!(tunnel.listen[0].to_string(), "unix:/run/x \"y\".sock");
        assert_eq!((tunnel.mode, tunnel.listen.len()), (Some(0o660), 2));
        assert_eq!(tunnel.allow_uids.as_deref(), Some([7, 8].as_slice()));
        let tls = config.upstreams[&tunnel.upstream].tls.as_ref().unwrap();
        assert_eq!(tls.alpn, ["h2"]);
        assert_eq!(tls.server_name.to_str(), "m.test");
        assert_eq!(config.limits.dial.as_secs(), 2);
        assert!(config.listeners.is_empty() && config.admin.is_none());
    }

    #[test]
    fn mistakes_name_the_flag_and_every_one_is_told() {
        let flags = Flags {
            listen: vec!["0.0.0.0:8899".to_owned(), "nowhere".to_owned()],
            to: Some("master".to_owned()),
            roots: vec!["ca.pem".into()],
            timeout: Some("soon".to_owned()),
            ..flags()
        };
        let mistakes = mistakes(&flags);
        let all = format!("{mistakes:?}");
        for flag in [
            "`--listen`: 0.0.0.0:8899 is not a loopback",
            "add `--insecure-listen`",
        ] {
            assert!(all.contains(flag), "{all}");
        }
        for flag in [
            "`--listen`: \\\"nowhere\\\"",
            "`--to`: \\\"master\\\"",
            "`--ca`",
            "`--timeout`",
        ] {
            assert!(all.contains(flag), "{flag} in {all}");
        }
        assert!(
            !all.contains("tunnels.") && !all.contains("insecure_listen"),
            "{all}"
        );
    }

    #[test]
    fn a_tunnel_that_leads_nowhere_is_told_what_leads_somewhere() {
        let nowhere = Flags {
            to: None,
            ..flags()
        };
        let told = (
            "there is neither `--to` nor `--gateway`".to_owned(),
            "add `--to master.example.com:8443`, or `--gateway gate.example.com` and the NAME behind it"
                .to_owned(),
        );
        assert_eq!(mistakes(&nowhere), [told]);
    }

    #[test]
    fn a_gateway_without_a_name_and_a_mode_without_a_socket_are_told_by_their_flags() {
        let flags = Flags {
            to: None,
            gateway: Some("gate.test:8443".to_owned()),
            mode: Some("0660".to_owned()),
            ..flags()
        };
        let all = format!("{:?}", mistakes(&flags));
        assert!(all.contains("NAME` is missing"), "{all}");
        assert!(all.contains("`--mode` without a UNIX socket"), "{all}");
    }
}
