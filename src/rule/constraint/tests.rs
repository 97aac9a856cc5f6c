//! What constraints say of tags, and how those that say nothing are refused.

use proptest::prelude::*;

use super::*;

fn holds(text: &str, tags: &[&str]) -> bool {
    let tags: Vec<Arc<str>> = tags.iter().map(|tag| Arc::from(*tag)).collect();
    Constraint::parse(text).unwrap().matches(&tags)
}

#[test]
fn a_tag_is_one_of_them_whole_and_in_its_case() {
    assert!(holds("Tag(`edge`)", &["x", "edge"]));
    assert!(holds(r#"Tag("edge")"#, &["edge"]));
    assert!(holds("Tag(`ü=1`)", &["ü=1"]));
    for none in [&["edge2"] as &[_], &["Edge"], &["an edge"], &[]] {
        assert!(!holds("Tag(`edge`)", none), "{none:?}");
    }
}

#[test]
fn a_regular_expression_may_match_anywhere_in_any_tag() {
    assert!(holds("TagRegex(`ed.e`)", &["x", "my edge"]));
    assert!(!holds("TagRegex(`^ed.e$`)", &["my edge"]));
    assert!(!holds("TagRegex(`a`)", &["A"]) && holds("TagRegex(`(?i)a`)", &["A"]));
    assert!(!holds("TagRegex(`a`)", &[]));
    assert!(holds("TagRegex(`^env=.+$`)", &["env=größe"]));
    assert!(holds("TagRegex(`^[^x]$`)", &["ü"]) && !holds(r"TagRegex(`^\w$`)", &["ü"]));
}

#[test]
fn operators_bind_as_in_go() {
    for (text, tags, expected) in [
        ("Tag(`a`) && Tag(`b`)", &["a", "b"] as &[_], true),
        ("Tag(`a`) && Tag(`b`)", &["a"], false),
        ("Tag(`a`) || Tag(`b`) && Tag(`c`)", &["a"], true),
        ("(Tag(`a`) || Tag(`b`)) && Tag(`c`)", &["a"], false),
        ("!Tag(`a`) && Tag(`b`)", &["b"], true),
        ("!(Tag(`a`) || Tag(`b`))", &["b"], false),
        ("!!Tag(`a`)", &["a"], true),
        ("!TagRegex(`^a`)", &["b", "ab"], false),
        (
            "  Tag ( `a` , )  /* that one */ ||\n Tag(`b`)\n",
            &["b"],
            true,
        ),
    ] {
        assert_eq!(holds(text, tags), expected, "{text} of {tags:?}");
    }
}

#[test]
fn a_mistake_is_told_with_its_place_and_a_remedy() {
    for (text, at, says) in [
        ("", "", "is empty"),
        ("Tag(``)", "``", "the argument of Tag is empty"),
        ("tag(`a`)", "tag", "no matcher `tag`"),
        ("Label(`a`, `b`)", "Label", "no matcher `Label`"),
        ("Tag", "Tag", "no argument"),
        ("Tag(a)", "a", "a text in backticks, found `a`"),
        ("Tag(`a`, `b`)", "`b`", "one argument"),
        ("Tag('a')", "'", "single quotes"),
        ("Tag(`a`", "", "found the end"),
        ("Tag(`a`) & Tag(`b`)", "&", "no operator"),
        ("Tag(`a`) Tag(`b`)", "Tag", "found `Tag`"),
        ("Tag(`a`)\n|| Tag(`b`)", "\n", "found the end of the line"),
        ("(Tag(`a`)", "(", "not closed"),
        ("Tag(`a`))", ")", "found `)`"),
        ("Tag(`a`) &&", "", "found the end"),
        ("TagRegex(`a**`)", "*", "follows another"),
        ("TagRegex(`(?=a)`)", "(?=", "look ahead"),
        ("TagRegex(`ü`)", "ü", "not ASCII"),
        ("HostSNI(`a`)", "HostSNI", "no matcher"),
    ] {
        let error = Constraint::parse(text).unwrap_err();
        assert!(error.message.contains(says), "{text}: {error:?}");
        assert_eq!(&text[error.span.clone()], at, "{text}: {error:?}");
        assert!(!error.help.unwrap().contains("HostSNI"), "{text}");
    }
}

#[test]
fn what_would_take_too_much_is_refused() {
    let nested = format!("{}Tag(`a`){}", "(".repeat(100), ")".repeat(100));
    assert!(holds(&nested, &["a"]));
    let error = Constraint::parse(&format!("({nested})")).unwrap_err();
    assert!(error.message.contains("nested"), "{error}");
    let long = format!("Tag(`{}`)", "a".repeat(LONGEST));
    let error = Constraint::parse(&long).unwrap_err();
    assert!(error.message.contains("bytes long"), "{error}");
    let large = vec!["TagRegex(`(a{1000}){1}`)"; 200].join(" || ");
    assert!(Constraint::parse(&large).is_err());
    assert!(holds(&format!("{}Tag(`a`)", "!".repeat(60_000)), &["a"]));
}

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(
            &[
                "Tag(`a`)",
                "TagRegex(`b+`)",
                "!",
                "(",
                ")",
                "&&",
                "||",
                " ",
                "\n",
                ",",
                "Tag(",
                "`",
                "\"",
                "ü"
            ][..]
        )
        .prop_map(str::to_owned),
        any::<String>(),
    ]
}

proptest! {
    #[test]
    fn nothing_causes_a_panic_and_every_place_is_inside(
        pieces in prop::collection::vec(piece(), 0..12),
        tags in prop::collection::vec(any::<String>(), 0..4),
    ) {
        let text = pieces.concat();
        let tags: Vec<Arc<str>> = tags.iter().map(|tag| tag.as_str().into()).collect();
        match Constraint::parse(&text) {
            Ok(constraint) => {
                let negated = Constraint::parse(&format!("!({text}\n)"));
                if let Ok(negated) = negated {
                    prop_assert_ne!(constraint.matches(&tags), negated.matches(&tags));
                }
            }
            Err(error) => prop_assert!(text.get(error.span.clone()).is_some(), "{error:?}"),
        }
    }
}
