//! The exit codes of `portcullis connect`: one for each thing that a script, or a person, would do something else about.

/// The widest that a line of `--help` may be, in columns.
const WIDTH: usize = 80;

macro_rules! exits {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $word:literal, $meaning:literal;)*) => {
        /// What a tunnel came to, as an exit code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Exit { $($(#[$doc])* $name = $code,)* }

        impl Exit {
            /// Every code there is, in ascending order.
            pub const ALL: &[Exit] = &[$(Exit::$name,)*];

            /// The number.
            pub fn code(self) -> u8 {
                match self { $(Exit::$name => $code,)* }
            }

            /// The word that stands in the JSON of a failure, as `reason`.
            pub fn as_str(self) -> &'static str {
                match self { $(Exit::$name => $word,)* }
            }

            /// What it means, in as few words as fit half a line.
            pub fn meaning(self) -> &'static str {
                match self { $(Exit::$name => $meaning,)* }
            }
        }
    };
}

exits! {
    /// The tunnel ended, or its user hung up.
    Ended = 0, "ended", "ended, or its user hung up";
    /// stdin or stdout failed.
    Stdio = 1, "stdio", "stdin or stdout failed";
    /// The arguments, or a file that they name.
    Usage = 2, "usage", "wrong arguments, or a file of theirs";
    /// This machine gives the process no thread or no descriptor.
    Shortage = 3, "shortage", "machine: gives no threads or files";
    /// The gateway cannot be reached, for a reason that has no code of its own.
    Unreachable = 10, "unreachable", "gateway: no way there";
    /// No TLS handshake with it: nothing in common, or an alert that has no code of its own.
    Handshake = 11, "handshake", "gateway: no TLS in common";
    /// Its certificate is from nobody who is trusted here, or is none for a server.
    Untrusted = 12, "untrusted", "its certificate: not trusted here";
    /// It has no route for the name.
    UnknownName = 13, "unknown_name", "gateway: does not know the name";
    /// It wants a client certificate, and none was shown.
    CertificateRequired = 14, "certificate_required", "your certificate: wanted";
    /// Nothing behind it took the connection.
    UpstreamDown = 15, "upstream_down", "target: down, or refuses";
    /// The tunnel was reset, by a network or a machine that failed.
    BrokeOff = 16, "broke_off", "tunnel: reset in mid-stream";
    /// The gateway's name has no address.
    NoAddress = 20, "no_address", "gateway: its name has no address";
    /// Nobody listens at its address and port.
    Refused = 21, "refused", "gateway: refuses connections";
    /// No answer from it in time.
    NoAnswer = 22, "no_answer", "gateway: does not answer";
    /// Something else than TLS is spoken there.
    NotTls = 23, "not_tls", "gateway: speaks no TLS";
    /// It took the connection, and then closed it, reset it or said nothing.
    HandshakeEnded = 24, "handshake_ended", "gateway: went silent, or hung up";
    /// Its certificate has expired.
    Expired = 25, "expired", "its certificate: expired";
    /// Its certificate is not valid yet, by this machine's clock.
    NotYetValid = 26, "not_yet_valid", "its certificate: not valid yet";
    /// Its certificate is for other names.
    WrongName = 27, "wrong_name", "its certificate: for another name";
    /// It does not accept the client certificate.
    CertificateRefused = 28, "certificate_refused", "your certificate: refused";
    /// The client certificate has expired.
    CertificateExpired = 29, "certificate_expired", "your certificate: expired";
    /// The route is not for who comes from here.
    NotAllowed = 30, "not_allowed", "gateway: not open to you";
    /// There are as many connections as the gateway lets there be.
    Limit = 31, "limit", "gateway: has too many connections";
    /// The gateway ended the tunnel in mid-stream.
    CutOff = 32, "cut_off", "tunnel: cut by the gateway";
    /// The mesh does not let the gateway in to the target.
    MeshDenial = 33, "mesh_denial", "target: denied by the mesh";
    /// The route cannot serve anybody.
    RouteBroken = 34, "route_broken", "gateway: the route is broken";
    /// The target did not prove to the gateway who it is.
    Unproven = 35, "unproven", "target: did not prove who it is";
    /// The HTTP proxy opens no way to the gateway.
    Proxy = 36, "proxy", "proxy: opens no way to the gateway";
    /// By Ctrl-C.
    Interrupted = 130, "interrupted", "interrupted";
}

/// The list that `portcullis connect --help` ends with, in two columns.
pub fn help() -> String {
    let half = WIDTH / 2;
    let cells: Vec<_> = list().collect();
    let (left, right) = cells.split_at(cells.len().div_ceil(2));
    let mut text = String::from("Exit codes:");
    for (line, left) in left.iter().enumerate() {
        let right = right.get(line).map_or("", String::as_str);
        text.push('\n');
        text.push_str(format!("{left:half$}{right}").trim_end());
    }
    text
}

/// Each code with its meaning, a line each.
pub fn list() -> impl Iterator<Item = String> {
    let codes = Exit::ALL.iter();
    codes.map(|exit| format!("{:>3} {}", exit.code(), exit.meaning()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_and_every_word_is_used_once_and_none_is_a_shell_s_or_ssh_s() {
        let codes: Vec<_> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        assert!(codes.is_sorted(), "{codes:?}");
        let words: BTreeSet<_> = Exit::ALL.iter().map(|exit| exit.as_str()).collect();
        let numbers: BTreeSet<_> = codes.iter().collect();
        assert_eq!(
            (words.len(), numbers.len()),
            (Exit::ALL.len(), Exit::ALL.len())
        );
        for exit in Exit::ALL {
            let code = exit.code();
            // From 126 on they are the shell's, but for the one of Ctrl-C, which means the same; 255 is ssh's own.
            assert!(code < 126 || *exit == Exit::Interrupted, "{code}");
        }
    }

    #[test]
    fn the_help_and_the_readme_tell_every_code() {
        let help = help();
        assert!(help.lines().all(|line| line.len() <= WIDTH), "{help}");
        let readme = include_str!("../../README.md");
        let table = readme.split("| code | reason | what is meant |").nth(1);
        let table = table.unwrap().split("\n\n").next().unwrap();
        let rows: Vec<_> = table.lines().filter(|row| row.contains('`')).collect();
        assert_eq!(rows.len(), Exit::ALL.len(), "{rows:#?}");
        for (exit, row) in Exit::ALL.iter().zip(rows) {
            let (code, word) = (exit.code(), exit.as_str());
            assert!(help.contains(&format!("{code:>3} {}", exit.meaning())));
            assert!(row.starts_with(&format!("| {code} | `{word}` | ")), "{row}");
        }
    }
}
