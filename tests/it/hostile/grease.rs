//! Hellos with a value that nobody knows wherever one may stand (RFC 8701), as browsers send them.

use crate::hello_bytes::{self as hello, Extension, HANDSHAKE, framed};
use crate::scene::Scene;

/// Values that are kept for this, two bytes each (RFC 8701 §2).
const GREASE: [u16; 4] = [0x0a0a, 0x5a5a, 0xcaca, 0xfafa];

#[tokio::test]
async fn a_value_that_nobody_knows_is_passed_over_wherever_it_stands() {
    let mut scene = Scene::with("").await;
    for (name, route) in [("open.example.test", "open"), ("pass.example.test", "pass")] {
        for value in GREASE {
            let bytes = framed(&greased(value, name), &[]);
            let told = scene.tell_all(&bytes).await;
            assert_eq!(told.record["route"], route, "{value:x}: {}", told.record);
            assert_eq!(told.record["sni"], name);
            match route {
                "pass" => assert!(told.answer == bytes, "what goes through is not touched"),
                _ => assert_eq!(told.answer[..3], [HANDSHAKE, 3, 3], "{value:x}"),
            }
        }
    }
    assert_eq!(scene.dials(), GREASE.len());
}

/// With the value among the suites, the groups, the signatures, the versions, the shares, the modes and the protocols, and
/// for an extension at the beginning and at the end.
fn greased(value: u16, name: &str) -> Vec<u8> {
    let [high, low] = value.to_be_bytes();
    let mut extensions = vec![
        Extension(value, vec![]),
        hello::server_name(&[(0, name.as_bytes())]),
        Extension(10, vec![0, 4, high, low, 0, 29]),
        Extension(11, vec![1, 0]),
        Extension(13, vec![0, 8, high, low, 4, 3, 8, 4, 4, 1]),
        hello::alpn(&[&[high, low][..], b"h2"]),
        Extension(43, vec![6, high, low, 3, 4, 3, 3]),
        Extension(45, vec![2, low, 1]),
    ];
    let share = [&[0, 41, high, low, 0, 1, 0, 0, 29, 0, 32][..], &[9; 32]].concat();
    extensions.push(Extension(51, share));
    extensions.push(Extension(value ^ 0x1010, vec![0]));
    let plain = hello::message(0x0303, &extensions);
    // Behind the header, the version, the random bytes and an empty session stand the suites.
    let at = 4 + 2 + 32 + 1;
    let [more, ..] = &plain[at + 1..] else {
        panic!("no suites");
    };
    let body = [&plain[4..at], &[0, more + 2, high, low], &plain[at + 2..]].concat();
    let [_, length @ ..] = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[1][..], &length, &body].concat()
}
