//! What an expression over tags promises, whatever its text.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis::rule::Constraint;

/// Far more than any text may take: what is slower than that grows with more than the length of the text.
const LONGEST: Duration = Duration::from_secs(10);

/// Parses the first line of the input, and puts it to the other lines, which are tags; panics where a promise is not kept:
///
/// - a mistake has its place in the text, a message and a remedy;
/// - an expression that was taken is the same when it is read again, and its negation says the opposite of it;
/// - it says the same whatever the order of the tags, and all of it ends soon.
pub(crate) fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if std::env::var_os("PORTCULLIS_TELL").is_some() {
        eprintln!("{text}");
    }
    let begin = Instant::now();
    let (text, tags) = text.split_once('\n').unwrap_or((&text, ""));
    match Constraint::parse(text) {
        Err(error) => {
            let place = text.get(error.span.clone());
            assert!(place.is_some(), "{error:?} is not in {text:?}");
            assert!(!error.message.is_empty(), "{text:?}");
            assert!(error.help.is_some_and(|help| !help.is_empty()), "{text:?}");
        }
        Ok(constraint) => {
            let tags: Vec<Arc<str>> = tags.split('\n').map(Arc::from).collect();
            is_kept(&constraint, text, &tags);
        }
    }
    let took = begin.elapsed();
    assert!(took < LONGEST, "{took:?} for {text:?}");
}

fn is_kept(constraint: &Constraint, text: &str, tags: &[Arc<str>]) {
    assert_eq!(constraint.text(), text);
    assert_eq!(Constraint::parse(text).as_ref(), Ok(constraint));
    // One group more may be one too many, and a comment or a semicolon would end it.
    let negated = Constraint::parse(&format!("!({text})"));
    let reversed: Vec<Arc<str>> = tags.iter().rev().cloned().collect();
    for tags in [tags, &[], &reversed] {
        let matches = constraint.matches(tags);
        if let Ok(negated) = &negated {
            assert_ne!(negated.matches(tags), matches, "{text:?} of {tags:?}");
        }
    }
    assert_eq!(
        constraint.matches(tags),
        constraint.matches(&reversed),
        "{text:?} of {tags:?}"
    );
}
