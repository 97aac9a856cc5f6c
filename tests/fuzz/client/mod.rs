//! What the reader of a person's own file promises, whatever the text.

use std::path::Path;
use std::time::{Duration, Instant};

use portcullis::config::{Diagnostics, parse_client};
use portcullis::name::HostName;

/// Far more than any text may take.
const LONGEST: Duration = Duration::from_secs(10);

/// Reads the input, and panics where a promise is not kept:
///
/// - it is a file of domains, of which each name finds one at most and the same one each time; or there is an error;
/// - what is insecure trusts nobody besides;
/// - every mistake has a message, a remedy, and a place inside the text or none;
/// - the report shows nothing that could command a terminal, and all of it ends soon.
pub(crate) fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if std::env::var_os("PORTCULLIS_TELL").is_some() {
        eprintln!("{text}");
    }
    let begin = Instant::now();
    let path = Path::new("/nonexistent/client.toml");
    for home in [None, Some(Path::new("/nonexistent/home"))] {
        match parse_client(&text, path, home) {
            Ok(file) => {
                for domain in &file.domains {
                    let trusts = !(domain.ca.is_empty() && domain.pins.is_empty());
                    assert!(!(domain.insecure && trusts), "{text:?}");
                    let name = domain.pattern.to_string().replace('*', "any");
                    if let Ok(name) = HostName::parse(&name) {
                        assert!(file.find(&name).is_some(), "{name} in {text:?}");
                    }
                }
            }
            Err(mistakes) => is_told(&mistakes, &text),
        }
    }
    let took = begin.elapsed();
    assert!(took < LONGEST, "{took:?} for {text:?}");
}

fn is_told(mistakes: &Diagnostics, text: &str) {
    assert!(mistakes.errors() > 0, "{text:?}");
    for one in &mistakes.list {
        let is_inside = |span: &std::ops::Range<usize>| text.get(span.clone()).is_some();
        assert!(
            one.span.as_ref().is_none_or(is_inside),
            "{one:?} in {text:?}"
        );
        assert!(!one.message.is_empty(), "{text:?}");
        let has_help = one.help.as_ref().is_some_and(|help| !help.is_empty());
        assert!(has_help, "{one:?} in {text:?}");
    }
    let report = mistakes.render(false);
    let commands = |c: char| c.is_control() && c != '\n';
    assert!(!report.contains(commands), "{report:?}");
}
