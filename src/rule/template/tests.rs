//! What templates make of a service, and how those that nothing can be made of are refused.

use proptest::prelude::*;

use super::parse::LONGEST;
use super::*;

fn made(template: &str) -> String {
    let labels = BTreeMap::from([
        ("traefik.edge.host".to_owned(), "Git.Example.com"),
        ("traefik.empty".to_owned(), ""),
    ]);
    Template::parse(template).unwrap().rule("My.Web_1", &labels)
}

#[test]
fn the_examples_of_traefiks_documentation_are_understood() {
    for (template, rule) in [
        (
            "HostSNI(`{{ .Name }}.example.com`)",
            "HostSNI(`My.Web_1.example.com`)",
        ),
        ("HostSNI(`{{ normalize .Name }}`)", "HostSNI(`My-Web-1`)"),
        (
            "HostSNI(`{{ .Name }}.{{ index .Labels \"traefik.edge.host\"}}`)",
            "HostSNI(`My.Web_1.Git.Example.com`)",
        ),
        (
            "HostSNI(`{{ trimPrefix `My.` .Name }}`)",
            "HostSNI(`Web_1`)",
        ),
        ("HostSNI(`*`)", "HostSNI(`*`)"),
    ] {
        assert_eq!(made(template), rule, "{template}");
    }
}

#[test]
fn functions_take_arguments_pipes_and_parentheses() {
    for (template, text) in [
        ("{{.Name|lower}}", "my.web_1"),
        ("{{ .Name | normalize | lower }}", "my-web-1"),
        ("{{ lower (normalize .Name) }}", "my-web-1"),
        ("{{ .Name | trimSuffix \"_1\" }}", "My.Web"),
        ("{{ trimSuffix \"x\" .Name }}", "My.Web_1"),
        (
            "{{ \"traefik.edge.host\" | index .Labels | lower }}",
            "git.example.com",
        ),
        (
            "{{ index .Labels \"no such\" }}|{{ index .Labels `traefik.empty` }}",
            "|",
        ),
        ("{{ \"a\\\"\\\\b\" }}", "a\"\\b"),
        ("{{ (.Name) }}", "My.Web_1"),
        ("a {{- \" b \" -}} c", "a b c"),
        ("a  {{ `b` }} c", "a  b c"),
        ("} }} {", "} }} {"),
    ] {
        assert_eq!(made(template), text, "{template}");
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name_and_place() {
    for (template, at, says) in [
        ("", "", "is empty"),
        ("a {{ .Name", "{{", "not closed"),
        ("a {{ ", "{{", "not closed"),
        ("{{ if .Name }}x{{ end }}", "if", "`if` is not supported"),
        ("{{ range .Labels }}", "range", "`range` is not supported"),
        ("{{ $x := .Name }}", "$", "variables"),
        ("{{/* a */}}", "/", "comments"),
        ("{{ upper .Name }}", "upper", "the function `upper`"),
        ("{{ env \"HOME\" }}", "env", "the function `env`"),
        ("{{ .Port }}", ".Port", "there is no `.Port`"),
        ("{{ . }}", ".", "there is no `.`"),
        ("{{ .Labels }}", ".Labels", "no text"),
        ("{{ .Labels.a }}", ".Labels.a", "by a field"),
        ("{{ index .Name \"a\" }}", ".Name", "of .Labels"),
        ("{{ index .Labels }}", "index", "takes 1, not 0"),
        ("{{ lower .Name .Name }}", "lower", "takes 1, not 2"),
        ("{{ trimPrefix .Name }}", "trimPrefix", "takes 2, not 1"),
        ("{{ .Name .Name }}", ".Name ", "takes no arguments"),
        ("{{ .Name | .Name }}", ".Name ", "must be a function"),
        ("{{ (.Name }}", "(", "parenthesis"),
        ("{{ .Name ) }}", ")", "unexpected ')'"),
        ("{{ \"a }}", "\"", "not closed"),
        ("{{ \"\\x41\" }}", "\"", "escape"),
        ("{{ }}", "", "missing"),
        ("{{ 'a' }}", "'", "unexpected"),
    ] {
        let error = Template::parse(template).unwrap_err();
        assert!(error.message.contains(says), "{template}: {error:?}");
        assert_eq!(&template[error.span.clone()], at, "{template}: {error:?}");
        assert!(error.help.is_some());
    }
}

#[test]
fn what_is_made_is_no_longer_than_a_rule_that_is_refused_for_it() {
    let template =
        Template::parse("{{ index .Labels \"a\" }}{{ index .Labels \"a\" | lower }}").unwrap();
    let long = "ü".repeat(1 << 20);
    let made = template.rule("web", &BTreeMap::from([("a".to_owned(), long.as_str())]));
    assert!(
        made.len() > 64 << 10 || made.len() == 64 << 10,
        "{}",
        made.len()
    );
    assert!(super::super::Rule::parse(&made).is_err());
    let error = Template::parse(&"a".repeat(LONGEST + 1)).unwrap_err();
    assert!(error.message.contains("bytes long"), "{error}");
    let piped = format!("{{{{ .Name {} }}}}", "| lower ".repeat(500));
    assert_eq!(
        Template::parse(&piped).unwrap().rule("A", &BTreeMap::new()),
        "a"
    );
    let nested = |depth: usize| {
        let (open, close) = ("(".repeat(depth), ")".repeat(depth));
        Template::parse(&format!("{{{{ {open}.Name{close} }}}}"))
    };
    let error = nested(2000).unwrap_err();
    assert!(error.message.contains("nested"), "{error}");
    assert_eq!(nested(20).unwrap().rule("A", &BTreeMap::new()), "A");
}

#[test]
fn whether_labels_are_read_is_known() {
    let reads = |text: &str| Template::parse(text).unwrap().reads_labels();
    assert!(reads("{{ lower (index .Labels \"a\") }}"));
    assert!(!reads("{{ lower .Name }} index .Labels"));
}

#[test]
fn a_service_is_normalized_as_in_traefik() {
    for (service, name) in [
        ("my.web_app", "my-web-app"),
        ("..a--b//", "a-b"),
        ("Größe 2", "Größe-2"),
        ("--", ""),
    ] {
        assert_eq!(normalized(service), name);
    }
}

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(
            &[
                "{{",
                "}}",
                " ",
                "-",
                ".Name",
                ".Labels",
                "index ",
                "lower ",
                "trimSuffix ",
                "|",
                "(",
                ")",
                "`",
                "\"",
                "\\",
                "a",
                "ü",
                "\n"
            ][..]
        )
        .prop_map(str::to_owned),
        any::<String>(),
    ]
}

proptest! {
    #[test]
    fn nothing_causes_a_panic_every_place_is_inside_and_what_is_made_is_bounded(
        pieces in prop::collection::vec(piece(), 0..16),
        name in any::<String>(),
    ) {
        let text = pieces.concat();
        match Template::parse(&text) {
            Ok(template) => {
                let made = template.rule(&name, &BTreeMap::new());
                prop_assert!(made.len() <= CUT);
            }
            Err(error) => prop_assert!(text.get(error.span.clone()).is_some(), "{error:?}"),
        }
    }

    #[test]
    fn text_without_actions_is_itself(text in "[^{]{1,40}") {
        prop_assert_eq!(made(&text), text);
    }
}
