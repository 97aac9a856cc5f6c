//! What the decoder of tags promises, whatever a service says.

use std::sync::Arc;

use portcullis::discovery::tags::{Tags, decode};
use portcullis::discovery::terms::Terms;

/// Of a mistake that long only the beginning is shown.
const LONGEST: usize = 2_000;

/// Decodes the input, a tag a line, and panics where a promise is not kept:
///
/// - a mistake is told in a text that is short and shows no byte that could command a terminal;
/// - the order of tags with keys of their own says nothing, and what is none of ours neither;
/// - what has a router looks as if it had one, and who asks for the mesh is known to.
pub(crate) fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let tags: Vec<Arc<str>> = text.split('\n').map(Arc::from).collect();
    if std::env::var_os("PORTCULLIS_TELL").is_some() {
        eprintln!("{tags:#?}");
    }
    let terms = Terms::default();
    let decoded = decode(&tags, &terms);
    match &decoded {
        Err(error) => {
            let told = error.to_string();
            assert!(told.len() < LONGEST, "{} bytes of {tags:?}", told.len());
            assert!(!told.contains(char::is_control), "{told:?}");
        }
        Ok(found) => is_consistent(found.as_ref(), &tags, &terms),
    }
    let more = [
        &tags[..],
        &["http.routers.x.rule=y".into(), "some tag".into()],
    ]
    .concat();
    assert_eq!(decode(&more, &terms), decoded, "{tags:?}");
    let reversed: Vec<Arc<str>> = tags.iter().rev().cloned().collect();
    if !has_a_key_twice(&tags) {
        assert_eq!(decode(&reversed, &terms), decoded, "{tags:?}");
    }
}

fn is_consistent(found: Option<&Tags>, tags: &[Arc<str>], terms: &Terms) {
    let Some(found) = found else {
        return;
    };
    assert!(
        found.routers.is_empty() || terms.may_be_routed(tags, false),
        "{tags:?}"
    );
    assert!(!found.connect || terms.asks_for_mesh(tags), "{tags:?}");
    for name in found.routers.keys().chain(found.services.keys()) {
        assert!(
            !name.is_empty() && *name == name.to_ascii_lowercase(),
            "{name:?} in {tags:?}"
        );
    }
}

/// Whether two lines say the same key, in any case: the later one's value stands.
fn has_a_key_twice(tags: &[Arc<str>]) -> bool {
    let mut keys: Vec<String> = tags
        .iter()
        .filter_map(|tag| tag.split_once('='))
        .map(|(key, _)| key.trim().to_ascii_lowercase())
        .collect();
    let all = keys.len();
    keys.sort();
    keys.dedup();
    keys.len() < all
}
