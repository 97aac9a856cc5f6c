//! What holds of all tags, tried on random ones.

use proptest::prelude::*;

use super::*;

/// Tags that are nearly right.
fn tag() -> impl Strategy<Value = String> {
    let part = prop::sample::select(
        &[
            "tcp",
            "TCP",
            "routers",
            "services",
            "middlewares",
            "a",
            "B",
            "rule",
            "tls",
            "passthrough",
            "options",
            "priority",
            "entrypoints",
            "loadbalancer",
            "server",
            "port",
            "enable",
            "consulcatalog",
            "connect",
            "",
            "domains[0]",
            "main",
            "[",
            "]",
            "proxyprotocol",
        ][..],
    );
    let key = prop::collection::vec(part, 0..6).prop_map(|parts| parts.join("."));
    let value = prop_oneof![
        prop::sample::select(&["true", "false", "", "1", "22", "HostSNI(`a`)", "x@file"][..])
            .prop_map(str::to_owned),
        any::<String>(),
    ];
    let prefix = prop::sample::select(&["traefik.", "portcullis.", "Traefik.", "", "traefik"][..]);
    prop_oneof![
        (prefix, key, value).prop_map(|(prefix, key, value)| format!("{prefix}{key}={value}")),
        any::<String>(),
    ]
}

proptest! {
    #[test]
    fn no_tags_cause_a_panic_and_their_order_says_nothing(list in prop::collection::vec(tag(), 0..12)) {
        let mut list: Vec<Arc<str>> = list.iter().map(|tag| tag.as_str().into()).collect();
        // Of those that are written twice, the last counts.
        let mut seen = std::collections::HashSet::new();
        list.retain(|tag| seen.insert(tag.split('=').next().unwrap().to_ascii_lowercase()));
        let found = decode(&list, &Terms::default());
        list.reverse();
        prop_assert_eq!(&found, &decode(&list, &Terms::default()));
        if let Ok(Some(tags)) = found {
            prop_assert!(tags.routers.is_empty() || Terms::default().may_be_routed(&list, false));
            prop_assert!(!tags.connect || Terms::default().asks_for_mesh(&list));
        }
    }

    #[test]
    fn either_prefix_says_the_same(list in prop::collection::vec(tag(), 0..12)) {
        let with = |prefix: &str| -> Vec<Arc<str>> {
            let keys = list.iter().map(|tag| tag.trim_start_matches("traefik.").trim_start_matches("portcullis."));
            keys.map(|key| format!("{prefix}.{key}").into()).collect()
        };
        let (theirs, ours) = (decode(&with("traefik"), &Terms::default()), decode(&with("portcullis"), &Terms::default()));
        prop_assert_eq!(theirs.as_ref().ok(), ours.as_ref().ok());
        prop_assert_eq!(theirs.map_err(|e| e.why), ours.map_err(|e| e.why));
    }
}
