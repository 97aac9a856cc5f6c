//! Upstreams that stand for others by weight: what they mean, and what they must not name.

use portcullis::config::{Level, Member};

use super::{expect, good};

#[test]
fn an_upstream_may_stand_for_others_of_the_file_and_of_services() {
    let config = good(
        "[consul]\n[upstreams.blue]\naddress = \"a:1\"\n\
         [upstreams.both]\nweighted = [\"blue\", { upstream = \"web@consul\", weight = 0 }]\n",
    )
    .config;
    let both = &config.upstreams["both"];
    let member = |upstream: &str, weight| Member {
        upstream: upstream.to_owned(),
        weight,
    };
    assert_eq!(both.weighted, [member("blue", 1), member("web@consul", 0)]);
    assert!(both.endpoints.is_empty());
}

#[test]
fn what_is_weighted_names_each_upstream_once_and_none_that_is_weighted() {
    let blue = "[upstreams.blue]\naddress = \"a:1\"\n[upstreams.both]\n";
    let with = |text: &str| format!("{blue}{text}");
    let cases = [
        (
            "weighted = «[]»",
            "upstreams.both.weighted",
            "name at least one",
        ),
        (
            "weighted = «[{ upstream = \"blue\", weight = 0 }]»",
            "upstreams.both.weighted",
            "a weight of 1 or more",
        ),
        (
            "weighted = [\"blue\", «\"blue\"»]",
            "upstreams.both.weighted",
            "write it once",
        ),
        (
            "weighted = [«\"both\"»]",
            "upstreams.both.weighted[0]",
            "name the upstreams that it stands for",
        ),
        (
            "weighted = [«\"blue@file\"»]",
            "upstreams.both.weighted[0]",
            "did you mean \"blue\"",
        ),
        (
            "weighted = [«\"10.0.0.5:22\"»]",
            "upstreams.both.weighted[0]",
            "add an [upstreams.NAME] section",
        ),
        (
            "weighted = [«\"web@consul\"»]",
            "upstreams.both.weighted[0]",
            "add a line `[consul]`",
        ),
        (
            "weighted = [{ upstream = \"blue\", weight = «65536» }]",
            "upstreams.both.weighted[0].weight",
            "0 to 65535",
        ),
        (
            "weighted = [\"blue\"]\nproxy_protocol = «\"v2\"»",
            "upstreams.both.proxy_protocol",
            "write it at the upstreams",
        ),
        (
            "«address» = \"a:1\"\nweighted = [\"blue\"]",
            "upstreams.both",
            "keep one",
        ),
    ];
    for (text, key, remedy) in cases {
        expect(Level::Error, &[(&with(text), key, remedy)]);
    }
}
