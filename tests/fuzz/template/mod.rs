//! What a template of rules promises, whatever its text.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use portcullis::rule::{Room, Rule, Syntax, Template};

/// Far more than any text may take: what is slower than that grows with more than the length of the text.
const LONGEST: Duration = Duration::from_secs(10);

/// What is made is no longer, in bytes, than a rule may be, but for a last character that makes it too long.
const MOST: usize = (64 << 10) + 4;

/// Parses the first line of the input, and makes a rule of it for the name and the labels in the others; panics where a
/// promise is not kept:
///
/// - a mistake has its place in the text, a message and a remedy;
/// - a template that was taken is the same when it is read again, and makes the same of the same;
/// - one that reads no labels makes the same whatever they are, and what is made is bounded;
/// - what is made is a rule or none, and all of it ends soon.
pub(crate) fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if std::env::var_os("PORTCULLIS_TELL").is_some() {
        eprintln!("{text}");
    }
    let begin = Instant::now();
    let mut lines = text.split('\n');
    let text = lines.next().unwrap_or_default();
    match Template::parse(text) {
        Err(error) => {
            let place = text.get(error.span.clone());
            assert!(place.is_some(), "{error:?} is not in {text:?}");
            assert!(!error.message.is_empty(), "{text:?}");
            assert!(error.help.is_some_and(|help| !help.is_empty()), "{text:?}");
        }
        Ok(template) => {
            let name = lines.next().unwrap_or("web");
            let labels = lines.filter_map(|line| line.split_once('='));
            let labels = labels.map(|(key, value)| (key.to_owned(), value)).collect();
            is_kept(&template, text, name, &labels);
        }
    }
    let took = begin.elapsed();
    assert!(took < LONGEST, "{took:?} for {text:?}");
}

fn is_kept(template: &Template, text: &str, name: &str, labels: &BTreeMap<String, &str>) {
    assert_eq!(template.text(), text);
    assert_eq!(Template::parse(text).as_ref(), Ok(template));
    let made = template.rule(name, labels);
    assert!(made.len() <= MOST, "{} bytes of {text:?}", made.len());
    assert_eq!(template.rule(name, labels), made, "{text:?}");
    if !template.reads_labels() {
        let bare = template.rule(name, &BTreeMap::new());
        assert_eq!(bare, made, "{text:?} of {labels:?}");
    }
    for syntax in [Syntax::V3, Syntax::V2] {
        let _ = Rule::parse_within(&made, syntax, &mut Room::default());
    }
}
