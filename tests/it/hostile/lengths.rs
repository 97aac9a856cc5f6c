//! A hello with a lie in each of its lengths, one at a time: refused, and no upstream hears of it.

use serde_json::Value;

use crate::hello_bytes::HANDSHAKE;
use crate::scene::Scene;

/// A part of a hello.
enum Part {
    Bytes(Vec<u8>),
    /// A length in so many bytes, and what has it.
    Sized(&'static str, usize, Vec<Part>),
}

use Part::{Bytes, Sized};

/// What the length of some field is made to say, given the truth and the most that fits into it.
#[derive(Clone, Copy)]
struct Lie {
    what: &'static str,
    length: fn(usize, usize) -> usize,
}

const LIES: [Lie; 6] = [
    Lie {
        what: "nothing",
        length: |_, _| 0,
    },
    Lie {
        what: "one less",
        length: |truth, most| truth.checked_sub(1).unwrap_or(most),
    },
    Lie {
        what: "half",
        length: |truth, most| if truth > 1 { truth / 2 } else { most },
    },
    ONE_MORE,
    Lie {
        what: "a few more",
        length: |truth, most| (truth + 4).min(most),
    },
    Lie {
        what: "all there could be",
        length: |_, most| most,
    },
];

const ONE_MORE: Lie = Lie {
    what: "one more",
    length: |truth, _| truth + 1,
};

/// A hello of TLS 1.2 and 1.3 in one record (RFC 8446 §4.1.2, §5.1), with every kind of length that there is in one.
fn hello(name: &str) -> Vec<Part> {
    let byte = |byte: u8| Bytes(vec![byte]);
    let word = |word: u16| Bytes(word.to_be_bytes().to_vec());
    let extension = |kind: u16, what, body| {
        let kind = word(kind);
        [kind, Sized(what, 2, body)]
    };
    let extensions = [
        extension(
            0,
            "the names' extension",
            vec![Sized(
                "the list of names",
                2,
                vec![byte(0), Sized("the name", 2, vec![Bytes(name.into())])],
            )],
        ),
        extension(
            10,
            "the groups' extension",
            vec![Sized("the groups", 2, vec![word(29)])],
        ),
        extension(
            11,
            "the point formats' extension",
            vec![Sized("the point formats", 1, vec![byte(0)])],
        ),
        extension(
            13,
            "the signatures' extension",
            vec![Sized(
                "the signatures",
                2,
                vec![Bytes(vec![4, 3, 8, 4, 4, 1])],
            )],
        ),
        extension(
            16,
            "the protocols' extension",
            vec![Sized(
                "the protocols",
                2,
                vec![
                    Sized("the first protocol", 1, vec![Bytes(b"h2".to_vec())]),
                    Sized("the second protocol", 1, vec![Bytes(b"http/1.1".to_vec())]),
                ],
            )],
        ),
        extension(
            43,
            "the versions' extension",
            vec![Sized("the versions", 1, vec![word(0x0304), word(0x0303)])],
        ),
        extension(
            45,
            "the modes' extension",
            vec![Sized("the modes", 1, vec![byte(1)])],
        ),
        extension(
            51,
            "the shares' extension",
            vec![Sized(
                "the shares",
                2,
                vec![word(29), Sized("the share", 2, vec![Bytes(vec![9; 32])])],
            )],
        ),
    ];
    vec![
        Bytes(vec![HANDSHAKE, 3, 1]),
        Sized(
            "the record",
            2,
            vec![
                byte(1),
                Sized(
                    "the message",
                    3,
                    vec![
                        word(0x0303),
                        Bytes(vec![7; 32]),
                        Sized("the session", 1, vec![Bytes(vec![8; 32])]),
                        Sized("the suites", 2, vec![Bytes(vec![0x13, 0x01, 0xc0, 0x2b])]),
                        Sized("the compressions", 1, vec![byte(0)]),
                        Sized(
                            "the extensions",
                            2,
                            extensions.into_iter().flatten().collect(),
                        ),
                    ],
                ),
            ],
        ),
    ]
}

/// The bytes of these parts, with this lie about the length that has this number.
fn written(parts: &[Part], lie: Option<(usize, Lie)>, number: &mut usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        match part {
            Bytes(more) => bytes.extend(more),
            Sized(_, width, parts) => {
                let own = *number;
                *number += 1;
                let inner = written(parts, lie, number);
                let length = match lie {
                    Some((at, lie)) if at == own => {
                        (lie.length)(inner.len(), (1 << (8 * width)) - 1)
                    }
                    _ => inner.len(),
                };
                bytes.extend(&(length as u32).to_be_bytes()[4 - width..]);
                bytes.extend(inner);
            }
        }
    }
    bytes
}

/// What the lengths are of, by their numbers.
fn fields(parts: &[Part]) -> Vec<&'static str> {
    let each = parts.iter().flat_map(|part| match part {
        Bytes(_) => Vec::new(),
        Sized(what, _, parts) => [vec![*what], fields(parts)].concat(),
    });
    each.collect()
}

#[tokio::test]
async fn a_hello_with_a_lie_in_any_of_its_lengths_is_refused() {
    let mut scene = Scene::with("").await;
    for name in ["open.example.test", "pass.example.test"] {
        let parts = hello(name);
        let honest = written(&parts, None, &mut 0);
        let told = scene.tell_all(&honest).await;
        let dials = scene.dials();
        assert_eq!(told.record["sni"], name, "{}", told.record);
        let fields = fields(&parts);
        assert_eq!(fields.len(), 26);
        let mut wrong = Vec::new();
        for (number, field) in fields.into_iter().enumerate() {
            for lie in LIES {
                let bytes = written(&parts, Some((number, lie)), &mut 0);
                if bytes == honest {
                    continue;
                }
                let told = scene.tell_all(&bytes).await;
                let what = format!("{field} says {}: {}", lie.what, told.record);
                assert_eq!(told.record["route"], Value::Null, "{what}");
                assert_eq!(told.record["fault"], "client", "{what}");
                let reason = told.record["reason"].as_str().unwrap();
                // More was promised than came.
                let short =
                    ["the record", "the message"].contains(&field) && reason == "client_gone";
                // What is left of a name is another one, and what follows it no name.
                let other = field == "the name" && reason == "unknown_name";
                if !(short || other || reason == "bad_hello" || reason == "hello_too_large") {
                    wrong.push(what.clone());
                }
                assert_eq!(told.answer.is_empty(), short, "{what}");
                assert_eq!(scene.dials(), dials, "{what}");
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
    scene.serves_on().await;
}

/// One who waits behind his lie for what he has promised.
#[tokio::test]
async fn a_hello_that_promises_more_than_comes_ends_at_the_deadline() {
    let mut scene = Scene::with("limits.handshake_timeout = \"200ms\"").await;
    for number in [0, 1] {
        let bytes = written(
            &hello("open.example.test"),
            Some((number, ONE_MORE)),
            &mut 0,
        );
        let told = scene.tell(&bytes).await;
        let reason = told.record["reason"].as_str().unwrap();
        assert!(
            ["hello_timeout", "bad_hello"].contains(&reason),
            "{}",
            told.record
        );
        assert_eq!(told.record["route"], Value::Null);
    }
    assert_eq!(scene.dials(), 0);
}
