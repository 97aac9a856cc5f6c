//! What the demo shows: what runs, and commands that can be pasted as they stand.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::files::{ECHO, PASS, SSH};

/// The narrowest terminal that is common; one column less, as some wrap at the last.
const WIDTH: usize = 79;

/// What is to be shown.
pub(super) struct Screen {
    /// This program's own path: absolute, so that the commands work from any folder.
    pub(super) program: PathBuf,
    pub(super) listen: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) folder: PathBuf,
    /// Where an sshd was looked for.
    pub(super) tried_sshd: SocketAddr,
    /// Whether there was one.
    pub(super) has_sshd: bool,
}

impl fmt::Display for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            listen,
            admin,
            folder,
            ..
        } = self;
        writeln!(f, "A gateway listens on {listen}. Behind it:\n")?;
        writeln!(f, "  {ECHO}   an echo; the gateway ends TLS")?;
        writeln!(f, "  {PASS}   an echo that ends TLS itself; passed through")?;
        if self.has_sshd {
            writeln!(f, "  {SSH}    this machine's sshd; the gateway ends TLS")?;
        }
        writeln!(
            f,
            "\nIts configuration and its CA are in {}",
            folder.display()
        )?;
        writeln!(
            f,
            "\nIn another terminal, an echo through `portcullis connect`:\n"
        )?;
        writeln!(f, "{}", self.connect())?;
        writeln!(f, "\nThe other one through openssl:\n")?;
        writeln!(f, "{}", self.openssl())?;
        if self.has_sshd {
            writeln!(f, "\nssh:\n\n{}", self.ssh())?;
        } else {
            writeln!(
                f,
                "\n(No ssh: no sshd answers at {}. --sshd names another.)",
                self.tried_sshd
            )?;
        }
        writeln!(
            f,
            "\nThe routes as the gateway sees them:\n\n  curl http://{admin}/v1/routes"
        )?;
        writeln!(
            f,
            "\nEach connection leaves a line below. Ctrl-C ends the demo, and its files go.\n"
        )
    }
}

impl Screen {
    fn connect(&self) -> String {
        let mut words = vec!["echo hello |".to_owned()];
        words.extend(self.tunnel(ECHO));
        wrapped(&words)
    }

    fn openssl(&self) -> String {
        let words = [
            // It ends with its input, and not with the answer: the answer has a second to come.
            "(echo hello; sleep 1) |".to_owned(),
            "openssl s_client -quiet -no_ign_eof".to_owned(),
            format!("-connect {}", self.listen),
            format!("-servername {PASS}"),
            format!("-verify_hostname {PASS}"),
            "-verify_return_error".to_owned(),
            "-verify_quiet".to_owned(),
            format!("-CAfile {}", quoted(&self.ca())),
        ];
        wrapped(&words)
    }

    fn ssh(&self) -> String {
        let mut command = self.tunnel("%h");
        for word in command.iter_mut().rev().skip(1) {
            // ssh takes a percent sign for the start of a token.
            *word = within_quotes(&word.replace('%', "%%"));
        }
        if let Some(first) = command.first_mut() {
            first.insert_str(0, "ssh -o ProxyCommand=\"");
        }
        if let Some(last) = command.last_mut() {
            last.push('"');
        }
        command.push(SSH.to_owned());
        wrapped(&command)
    }

    fn tunnel(&self, host: &str) -> Vec<String> {
        vec![
            format!("{} connect", quoted(&self.program)),
            format!("--gateway {}", self.listen),
            format!("--ca {}", quoted(&self.ca())),
            host.to_owned(),
        ]
    }

    fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }
}

/// The words as one command over as many lines as it needs. A backslash joins them, between double quotes too.
fn wrapped(words: &[String]) -> String {
    let mut text = String::from(" ");
    let mut column = text.len();
    for word in words {
        let ends_line = " \\".len();
        if column > "    ".len() && column + 1 + word.chars().count() + ends_line > WIDTH {
            text.push_str(" \\\n   ");
            column = "   ".len();
        }
        text.push(' ');
        text.push_str(word);
        column += 1 + word.chars().count();
    }
    text
}

/// A path as a shell takes it for one word.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%".contains(c);
    if text.chars().all(is_plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A text as it stands between double quotes (POSIX, Shell Command Language 2.2.3).
fn within_quotes(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        if matches!(c, '"' | '$' | '`' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn screen(program: &str) -> Screen {
        Screen {
            program: program.into(),
            listen: "127.0.0.1:8443".parse().unwrap(),
            admin: "127.0.0.1:9443".parse().unwrap(),
            folder: "/tmp/portcullis-demo-12345".into(),
            tried_sshd: "127.0.0.1:22".parse().unwrap(),
            has_sshd: true,
        }
    }

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        let text = screen("/home/anna/portcullis/target/release/portcullis").to_string();
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(text.lines().count() < 40, "{text}");
    }

    #[test]
    fn without_an_sshd_it_says_where_it_looked() {
        let without = Screen {
            has_sshd: false,
            ..screen("portcullis")
        };
        let text = without.to_string();
        assert!(text.contains("no sshd answers at 127.0.0.1:22"), "{text}");
        assert!(
            !text.contains("ProxyCommand") && !text.contains(SSH),
            "{text}"
        );
    }

    #[test]
    fn a_path_that_a_shell_would_take_apart_is_quoted_for_each_shell_it_passes() {
        let odd = screen("/o'hare & sons/100%/$x\"/portcullis");
        let printed = |command: &str| {
            let command = command.trim_start();
            let script = format!("ssh() {{ printf '%s\\n' \"$@\"; }}\n{command}");
            let done = std::process::Command::new("sh")
                .args(["-c", &script])
                .output()
                .unwrap();
            String::from_utf8(done.stdout).unwrap()
        };
        let seen = printed(&odd.ssh());
        let proxy = seen
            .lines()
            .nth(1)
            .unwrap()
            .strip_prefix("ProxyCommand=")
            .unwrap();
        // ssh replaces the tokens and hands the rest to a shell.
        let proxy = proxy.replace("%%", "%").replace("%h", SSH);
        let words = printed(&format!("ssh {proxy}"));
        assert_eq!(
            words.lines().collect::<Vec<_>>(),
            [
                "/o'hare & sons/100%/$x\"/portcullis",
                "connect",
                "--gateway",
                "127.0.0.1:8443",
                "--ca",
                "/tmp/portcullis-demo-12345/ca.pem",
                SSH
            ]
        );
        assert_eq!(seen.lines().nth(2), Some(SSH));
    }
}
