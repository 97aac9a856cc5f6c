//! What the reader of configurations promises, whatever the text.

use std::path::Path;
use std::time::{Duration, Instant};

use portcullis::config::{self, Diagnostics, Environment, Level};

/// Far more than any text may take.
const LONGEST: Duration = Duration::from_secs(10);

/// Reads the input, and panics where a promise is not kept:
///
/// - it is a configuration, with warnings or without, or there is an error;
/// - every message has a remedy, and a place inside the text or none;
/// - the report can be drawn, shows nothing that could command a terminal, and counts what it tells;
/// - all of it ends soon.
pub(crate) fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if std::env::var_os("PORTCULLIS_TELL").is_some() {
        eprintln!("{text}");
    }
    let begin = Instant::now();
    // No file that it may name is there.
    let path = Path::new("/nonexistent/portcullis.toml");
    let nothing: Environment = std::iter::empty::<(&str, &str)>().collect();
    match config::parse_with(&text, path, &nothing) {
        Ok(checked) => {
            assert_eq!(checked.warnings.errors(), 0, "{text:?}");
            is_told(&checked.warnings, &text);
        }
        Err(diagnostics) => {
            assert!(diagnostics.errors() > 0, "{text:?}");
            is_told(&diagnostics, &text);
        }
    }
    assert!(
        begin.elapsed() < LONGEST,
        "{:?} for {text:?}",
        begin.elapsed()
    );
}

fn is_told(diagnostics: &Diagnostics, text: &str) {
    for one in &diagnostics.list {
        if let Some(span) = &one.span {
            assert!(
                text.get(span.clone()).is_some(),
                "{one:?} is not in {text:?}"
            );
        }
        assert!(!one.message.is_empty(), "{text:?}");
        assert!(
            one.help.as_ref().is_some_and(|help| !help.is_empty()),
            "{one:?} in {text:?}"
        );
    }
    let report = diagnostics.render(false);
    assert_eq!(report.is_empty(), diagnostics.list.is_empty(), "{text:?}");
    assert!(
        !report.contains(|c: char| c.is_control() && c != '\n'),
        "{report:?}"
    );
    let level = |level| {
        diagnostics
            .list
            .iter()
            .filter(|one| one.level == level)
            .count()
    };
    assert_eq!(level(Level::Error), diagnostics.errors());
    assert_eq!(level(Level::Warning), diagnostics.warnings());
}
