//! The block of ssh's configuration that sends a domain through a gateway: made, quoted, put in and taken out again.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::name::HostPattern;

const BEGIN: &str = "# >>> portcullis: ";
const END: &str = "# <<< portcullis: ";

/// A block for one domain.
#[derive(Clone, Debug)]
pub struct Block {
    /// Whose names.
    pub domain: HostPattern,
    /// This program, by its absolute path: ssh may be started where PATH is another.
    pub program: PathBuf,
    /// The flags of `connect`, each word as the program is to get it.
    pub flags: Vec<String>,
    /// Use the gateway only where the target itself cannot be reached.
    pub only_away: bool,
    /// Share one connection among sessions.
    pub control_master: bool,
}

/// A text that no line of ssh's configuration can hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unquotable {
    /// Nowhere in it.
    #[error(
        "{0:?} cannot stand in ssh's configuration: it holds a line break or another control character"
    )]
    Anywhere(String),
    /// Not behind `Match exec`, where releases of ssh disagree on what a backslash or a quote inside quotes means.
    #[error(
        "{0:?} cannot stand in a `Match exec` of ssh's (--only-away): it holds a quote or a backslash"
    )]
    InMatch(String),
}

/// A file whose blocks are not whole: nothing is changed in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Damaged {
    /// From 1 on.
    pub line: usize,
    /// What is wrong there.
    pub what: String,
}

impl Block {
    /// The lines, each with its end.
    pub fn text(&self) -> Result<String, Unquotable> {
        let domain = &self.domain;
        let program = quoted(&self.program.display().to_string())?;
        let mut command = format!("{program} connect");
        for flag in &self.flags {
            command.push(' ');
            command.push_str(&quoted(flag)?);
        }
        // In quotes: what stands for a token is not quoted by ssh, and a shell reads it.
        command.push_str(" -- '%h' '%p'");
        let scope = match self.only_away {
            false => format!("Host {domain}"),
            true => {
                let probe = format!("{program} probe -- '%h:%p'");
                if probe.contains(['"', '\\']) {
                    return Err(Unquotable::InMatch(self.program.display().to_string()));
                }
                format!("Match host \"{domain}\" !exec \"{probe}\"")
            }
        };
        let away = match self.only_away {
            false => "",
            true => {
                "# The gateway is used only where the machine itself does not answer within a second.\n"
            }
        };
        let alias = match domain {
            HostPattern::Exact(name) => format!("    HostKeyAlias {name}\n"),
            // ssh keeps a key by the name that was typed; `%h` is no token there, and would be one name for all.
            _ => String::new(),
        };
        let sharing = match self.control_master {
            true => {
                "    ControlMaster auto\n    ControlPath ~/.ssh/cm-%C\n    ControlPersist 10m\n"
            }
            false => {
                "    # One connection for many sessions, each of which then starts at once (or: --control-master):\n    #ControlMaster auto\n    #ControlPath ~/.ssh/cm-%C\n    #ControlPersist 10m\n"
            }
        };
        Ok(format!(
            "{BEGIN}{domain}\n\
             # Written by portcullis ssh-config, and taken away by it: --domain '{domain}' --remove\n\
             # It stands first, because ssh takes the first value that it finds.\n\
             {away}{scope}\n    ProxyCommand {command}\n{alias}    ServerAliveInterval 15\n    ServerAliveCountMax 3\n{sharing}\
             # What follows is for every host again.\n\
             Match all\n\
             {END}{domain}\n"
        ))
    }
}

/// A word for `$SHELL -c`, with ssh's own tokens taken from it.
fn quoted(word: &str) -> Result<String, Unquotable> {
    if word.chars().any(char::is_control) {
        return Err(Unquotable::Anywhere(word.to_owned()));
    }
    let doubled = word.replace('%', "%%");
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:,%".contains(c);
    Ok(match !word.is_empty() && word.chars().all(is_plain) {
        true => doubled,
        false => format!("'{}'", doubled.replace('\'', r"'\''")),
    })
}

/// The file with this block in it: where it stands already if nothing of it changes, else before all that is not ours.
/// What is not ours is carried over byte by byte, whatever its encoding is.
///
/// # Errors
/// The file's blocks are not whole.
pub fn installed(file: &[u8], block: &Block, text: &str) -> Result<Vec<u8>, Damaged> {
    let ours = ours(file)?;
    let mut same = ours.iter().filter(|found| found.is_for(&block.domain));
    if let (Some(only), None) = (same.next(), same.next())
        && file.get(only.start..only.end) == Some(text.as_bytes())
    {
        return Ok(file.to_owned());
    }
    let file = removed(file, &block.domain)?;
    // Of ours the one for fewer names goes first, as ssh takes the first value.
    let mut at = 0;
    for found in self::ours(&file)? {
        let between = file.get(at..found.start).unwrap_or_default();
        if !between.trim_ascii().is_empty() || rank(&found.domain) < rank(&block.domain.to_string())
        {
            break;
        }
        at = after(&file, found.end);
    }
    let (before, behind) = file.split_at_checked(at).unwrap_or((&[], &file));
    let gap = if behind.is_empty() { "" } else { "\n" };
    let lead = if before.is_empty() || before.ends_with(b"\n\n") {
        ""
    } else {
        "\n"
    };
    Ok([
        before,
        lead.as_bytes(),
        text.as_bytes(),
        gap.as_bytes(),
        behind,
    ]
    .concat())
}

/// The file without the blocks of this domain.
///
/// # Errors
/// The file's blocks are not whole.
pub fn removed(file: &[u8], domain: &HostPattern) -> Result<Vec<u8>, Damaged> {
    let mut rest = file.to_owned();
    for found in ours(file)?
        .iter()
        .rev()
        .filter(|found| found.is_for(domain))
    {
        rest.drain(found.start..after(file, found.end));
    }
    Ok(rest)
}

/// Longer ones are for fewer names, and one name for the fewest.
fn rank(domain: &str) -> (bool, usize) {
    (!domain.starts_with('*'), domain.len())
}

/// Where the empty line behind a block ends, if one is there.
fn after(file: &[u8], end: usize) -> usize {
    let rest = file.get(end..).unwrap_or_default();
    let line = lines(rest).next().unwrap_or_default();
    match line.trim_ascii().is_empty() {
        true => end + line.len(),
        false => end,
    }
}

/// A block in a file, by its bytes.
struct Found {
    domain: String,
    start: usize,
    end: usize,
}

impl Found {
    fn is_for(&self, domain: &HostPattern) -> bool {
        self.domain == domain.to_string()
    }
}

/// Its lines, each with its end.
fn lines(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    file.split_inclusive(|byte| *byte == b'\n')
}

/// Our blocks, in the order of the file.
fn ours(file: &[u8]) -> Result<Vec<Found>, Damaged> {
    let damaged = |line: usize, what: fmt::Arguments<'_>| Damaged {
        line,
        what: what.to_string(),
    };
    let mut found = Vec::new();
    let mut open: Option<(usize, usize, &str)> = None;
    let mut at = 0;
    for (index, line) in lines(file).enumerate() {
        let number = index + 1;
        // What is no text is no line of ours.
        let text = str::from_utf8(line).unwrap_or_default().trim();
        if let Some(domain) = text.strip_prefix(BEGIN.trim_end()) {
            if let Some((first, _, domain)) = open {
                return Err(damaged(
                    first,
                    format_args!(
                        "the block for {domain} begins here and does not end before line {number}"
                    ),
                ));
            }
            open = Some((number, at, domain.trim()));
        } else if let Some(domain) = text.strip_prefix(END.trim_end()) {
            let domain = domain.trim();
            match open.take() {
                Some((_, start, begun)) if begun == domain => found.push(Found {
                    domain: domain.to_owned(),
                    start,
                    end: at + line.len(),
                }),
                _ => {
                    return Err(damaged(
                        number,
                        format_args!("a block for {domain} ends here that has not begun"),
                    ));
                }
            }
        }
        at += line.len();
    }
    match open {
        Some((first, _, domain)) => Err(damaged(
            first,
            format_args!("the block for {domain} begins here and does not end"),
        )),
        None => Ok(found),
    }
}

/// A path as the block names it: absolute, so that it is the same wherever ssh is started.
///
/// # Errors
/// It is no text, or there is no current directory.
pub fn absolute(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let absolute = std::path::absolute(path).map_err(|error| format!("{shown}: {error}"))?;
    let text = absolute.to_str().map(str::to_owned);
    text.ok_or_else(|| format!("{shown}: the path is not UTF-8 text, which ssh's configuration is"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(domain: &str) -> Block {
        Block {
            domain: HostPattern::parse(domain).unwrap(),
            program: PathBuf::from("/usr/bin/portcullis"),
            flags: vec!["--gateway".to_owned(), "gate:8443".to_owned()],
            only_away: false,
            control_master: false,
        }
    }

    fn install(file: &str, domain: &str) -> String {
        let block = block(domain);
        let file = installed(file.as_bytes(), &block, &block.text().unwrap());
        String::from_utf8(file.unwrap()).unwrap()
    }

    fn remove(file: &str, domain: &str) -> String {
        let file = removed(file.as_bytes(), &HostPattern::parse(domain).unwrap());
        String::from_utf8(file.unwrap()).unwrap()
    }

    #[test]
    fn a_block_says_all_that_ssh_needs() {
        let text = block("*.vm.example.com").text().unwrap();
        assert!(
            text.starts_with("# >>> portcullis: *.vm.example.com\n"),
            "{text}"
        );
        assert!(text.contains("\nHost *.vm.example.com\n    ProxyCommand /usr/bin/portcullis connect --gateway gate:8443 -- '%h' '%p'\n"), "{text}");
        assert!(
            text.ends_with("Match all\n# <<< portcullis: *.vm.example.com\n"),
            "{text}"
        );
        assert!(!text.contains("HostKeyAlias"), "{text}");
        let text = block("db.example.com").text().unwrap();
        assert!(text.contains("    HostKeyAlias db.example.com\n"), "{text}");
    }

    #[test]
    fn only_away_is_for_programs_whose_path_every_ssh_reads_alike() {
        let at = |program: &str| Block {
            program: program.into(),
            only_away: true,
            ..block("*.a.test")
        };
        let text = at("/opt/my 100% tools/portcullis").text().unwrap();
        let line = "\nMatch host \"*.a.test\" !exec \"'/opt/my 100%% tools/portcullis' probe -- '%h:%p'\"\n";
        assert!(text.contains(line), "{text}");
        for program in ["/it's", "/a\"b", "/a\\b"] {
            assert_eq!(
                at(program).text(),
                Err(Unquotable::InMatch(program.to_owned()))
            );
        }
    }

    #[test]
    fn a_word_is_quoted_for_the_shell_and_for_ssh() {
        for (word, line) in [
            ("gate:8443", "gate:8443"),
            ("/opt/my tools/portcullis", "'/opt/my tools/portcullis'"),
            ("/a'b", r"'/a'\''b'"),
            ("100%h", "100%%h"),
            ("[fe80::1%eth0]:8443", "'[fe80::1%%eth0]:8443'"),
            ("$(reboot)`\"", "'$(reboot)`\"'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word).unwrap(), line);
        }
        for word in ["a\nb", "a\rb", "\u{1b}"] {
            assert_eq!(quoted(word), Err(Unquotable::Anywhere(word.to_owned())));
        }
    }

    #[test]
    fn a_file_gets_its_block_once_and_first() {
        let own = "ServerAliveInterval 60\nHost other\n    User me\n";
        let once = install(own, "*.a.test");
        assert!(once.starts_with(BEGIN) && once.ends_with(own), "{once}");
        assert_eq!(install(&once, "*.a.test"), once);
        assert_eq!(remove(&once, "*.a.test"), own);
        assert_eq!(remove(own, "*.a.test"), own);
        assert_eq!(install("", "a.test"), block("a.test").text().unwrap());
        let changed = once.replace("gate:8443", "old:1");
        assert_eq!(install(&changed, "*.a.test"), once);
        let twice = format!("{once}{}", block("*.a.test").text().unwrap());
        assert_eq!(install(&twice, "*.a.test"), once);
    }

    #[test]
    fn blocks_of_several_domains_stand_the_narrowest_first() {
        let domains = ["*", "*.a.test", "x.a.test", "*.b.a.test"];
        let mut file = "Host other\n".to_owned();
        for domain in domains {
            file = install(&file, domain);
        }
        let order: Vec<_> = file
            .lines()
            .filter_map(|line| line.strip_prefix(BEGIN))
            .collect();
        assert_eq!(order, ["x.a.test", "*.b.a.test", "*.a.test", "*"]);
        for domain in domains {
            assert_eq!(install(&file, domain), file);
        }
        for domain in domains {
            file = remove(&file, domain);
        }
        assert_eq!(file, "Host other\n");
    }

    #[test]
    fn a_damaged_file_is_refused_with_the_line() {
        let whole = block("a.test").text().unwrap();
        let (begin, end) = ("# >>> portcullis: a.test\n", "# <<< portcullis: a.test\n");
        for (file, line, says) in [
            (format!("\n{begin}Host a\n"), 2, "does not end"),
            (
                format!("{begin}\n{begin}\n{end}"),
                1,
                "does not end before line 3",
            ),
            (
                format!("{whole}{end}"),
                whole.lines().count() + 1,
                "has not begun",
            ),
            (
                format!("{begin}# <<< portcullis: b.test\n"),
                2,
                "has not begun",
            ),
        ] {
            let block = block("a.test");
            let file = file.as_bytes();
            let damaged = installed(file, &block, &whole).unwrap_err();
            assert_eq!(damaged.line, line, "{damaged}");
            assert!(damaged.what.contains(says), "{damaged}");
            assert_eq!(removed(file, &block.domain), Err(damaged));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_taken_out_leaves_what_was_there(
            file in "([A-Za-z#]{0,8}[ \r]?\n){0,6}[a-z]{0,3}",
            domains in proptest::collection::vec(prop_oneof![Just("a.test"), Just("*.test"), Just("*.a.test")], 1..4),
        ) {
            let mut now = file.clone();
            for domain in &domains {
                now = install(&now, domain);
                prop_assert_eq!(&install(&now, domain), &now);
            }
            for domain in &domains {
                now = remove(&now, domain);
            }
            // An empty file gets no empty line behind a block; else what stood there does, to the byte.
            prop_assert_eq!(now, file);
        }
    }
}
