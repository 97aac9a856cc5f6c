//! What a person sees of an answer: each state, what is too wide, what is hostile.

use serde_json::{Value, json};

use super::*;

fn route(name: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut route = json!({
        "name": name, "source": "consul", "rule": "HostSNI(`a.example`)", "action": "terminate",
        "upstream": { "name": name }, "endpoints": [{ "address": "10.0.0.5:22", "weight": 1 }],
    });
    change(&mut route);
    route
}

fn skipped(service: &str, instance: Option<&str>, note: bool) -> Value {
    json!({ "source": "consul", "service": service, "instance": instance, "router": "web",
        "reason": "there is no such key", "note": note })
}

fn drawn(routes: &[Value], skipped: &[Value], width: Option<usize>, colour: bool) -> String {
    let json = json!({ "generation": 7, "routes": routes, "skipped": skipped });
    let listing = Listing::read(json.to_string().as_bytes(), None).unwrap();
    let drawing = Drawing {
        title: "The gateway (generation 7).",
        listing: &listing,
        width,
        colour,
    };
    drawing.to_string()
}

#[test]
fn each_route_has_a_line_with_its_state_and_below_it_what_it_takes_and_where_it_leads() {
    let routes = [
        route("web@consul", |_| {}),
        route("mesh@consul", |route| {
            route["upstream"]["mesh"] = json!(true);
            route["upstream"]["spiffe"] = json!("spiffe://td/svc/mesh");
            route["middlewares"] = json!([{ "name": "office@file" }]);
        }),
    ];
    let expected = "\
The gateway (generation 7).

ROUTE        SOURCE  TLS   ENDPOINTS  STATE
web@consul   consul  ends  1          serves
    HostSNI(`a.example`)
    to 10.0.0.5:22
mesh@consul  consul  ends  1          serves
    HostSNI(`a.example`)
    to 10.0.0.5:22, in the mesh as spiffe://td/svc/mesh
    asks of its clients: middleware office@file

2 routes: 2 serve; 0 skipped.
";
    assert_eq!(drawn(&routes, &[], None, false), expected);
}

#[test]
fn what_keeps_a_route_from_serving_is_said() {
    let endpoint = json!({ "address": "10.0.0.5:22", "weight": 1, "check": "failing", "check_error": "no banner" });
    let routes = [
        route("a", |route| {
            route["action"] = json!("broken");
            route["broken_reason"] = json!("no option set `x`");
        }),
        route("b", |route| route["shadowed_by"] = json!({ "name": "a" })),
        route("c", |route| {
            route["endpoints"] = json!([]);
            route["upstream"]["empty"] = json!("all 3 instances are critical");
        }),
        route("d", |route| route["endpoints"] = json!([endpoint])),
        route("e", |route| {
            route["endpoints"] = json!([endpoint, { "address": "b:1", "weight": 1 }])
        }),
        route("f", |route| route["endpoints"][0]["weight"] = json!(0)),
    ];
    let text = drawn(&routes, &[], None, false);
    for said in [
        "refuses its clients: no option set `x`",
        "gets no client: a takes them all",
        "refuses its clients: all 3 instances are critical",
        "no endpoint works, all are tried: no banner",
        "1 of 2     serves",
        "6 routes: 1 serves, 1 failing, 2 empty, 1 shadowed, 1 refuses; 0 skipped.",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
}

#[test]
fn what_was_skipped_is_told_once_for_all_instances_and_apart_from_what_is_only_to_be_known() {
    let ids: Vec<String> = (1..=6).map(|id| format!("n/{id}")).collect();
    let mut all: Vec<Value> = (ids.iter())
        .map(|id| skipped("web", Some(id), false))
        .collect();
    all.push(skipped("wiki", None, true));
    let text = drawn(&[], &all, None, false);
    let expected = "\
The gateway (generation 7).

Skipped: 6
  web@consul, router web, 6 instances: n/1, n/2, n/3, n/4 and 2 more
      there is no such key

Notes: 1
  wiki@consul, router web
      there is no such key

No routes; 6 skipped.
";
    assert_eq!(text, expected);
}

#[test]
fn no_line_is_wider_than_the_terminal_and_nothing_is_lost() {
    let long = "HostSNI(`a.example`) || ".repeat(20) + &"x".repeat(200);
    let name = format!("{}@consul", "n".repeat(60));
    let routes = [
        route(&name, |route| route["rule"] = json!(long)),
        route("short@consul", |_| {}),
    ];
    let text = drawn(
        &routes,
        &[skipped(&"s".repeat(100), None, false)],
        Some(80),
        false,
    );
    for line in text.lines() {
        // A name alone may be: it can be copied so.
        assert!(width(line) <= 80 || line == name, "{line}");
    }
    let joined: String = text.split_whitespace().collect();
    let wanted: String = long.split_whitespace().collect();
    assert!(joined.contains(&wanted), "{text}");
    assert!(
        text.contains(&name) && joined.contains(&"s".repeat(100)),
        "{text}"
    );
    assert!(text.contains("\nshort@consul "), "{text}");
}

#[test]
fn colours_stand_around_states_only_and_a_strangers_bytes_move_no_cursor() {
    let routes = [route("a\x1b[2Jb", |route| {
        route["rule"] = json!("HostSNI(`\x1b]0;x\x07`)\nSTATE");
        route["warnings"] = json!(["\r\n\u{202e}w"]);
    })];
    let hostile = skipped("s\x1b[1m\n", Some("i\x08"), false);
    let plain = drawn(&routes, std::slice::from_ref(&hostile), Some(80), false);
    let strange = |text: &str| text.contains(['\x1b', '\x07', '\x08', '\r', '\u{202e}']);
    assert!(!strange(&plain), "{plain:?}");
    let coloured = drawn(&routes, &[hostile], Some(80), true);
    assert!(coloured.contains("\x1b[32mserves\x1b[0m"), "{coloured:?}");
    assert_eq!(
        coloured.replace("\x1b[32m", "").replace("\x1b[0m", ""),
        plain
    );
}

#[test]
fn a_gateway_of_another_version_may_say_more_or_less() {
    let text = drawn(
        &[json!({ "name": "a", "new": 1 })],
        &[json!({})],
        Some(80),
        false,
    );
    assert!(text.contains("1 route: 1 empty; 1 skipped."), "{text}");
}

#[test]
fn each_tunnel_has_a_line_as_a_route_has_with_where_it_listens() {
    let tunnel = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut tunnel = json!({
            "name": name, "listen": ["127.0.0.1:8899", "unix:/run/s"], "broken_reason": null,
            "upstream": { "name": format!("tunnels/{name}"), "tls": true, "server_name": "m.example" },
            "endpoints": [{ "address": "10.0.0.5:8443", "weight": 1 }],
        });
        change(&mut tunnel);
        tunnel
    };
    let tunnels = [
        tunnel("clusterd", &|_| {}),
        tunnel("gone", &|tunnel| {
            tunnel["endpoints"] = json!([]);
            tunnel["upstream"]["empty"] = json!("no address of m.example is known");
        }),
        tunnel("out", &|tunnel| {
            tunnel["endpoints"][0]["out_for_seconds"] = json!(7)
        }),
        tunnel("sick", &|tunnel| {
            tunnel["broken_reason"] = json!("no identity")
        }),
    ];
    let json = json!({ "routes": [route("web", |_| {})], "tunnels": tunnels }).to_string();
    let listing = Listing::read(json.as_bytes(), None).unwrap();
    assert!(!listing.is_all_usable());
    let drawing = Drawing {
        title: "t",
        listing: &listing,
        width: None,
        colour: false,
    };
    let text = drawing.to_string();
    let words: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    for line in [
        "TUNNEL SOURCE TLS ENDPOINTS STATE",
        "clusterd file - 1 serves",
        "listens on 127.0.0.1:8899, unix:/run/s",
        "gone file - 0 empty",
        "refuses its clients: no address of m.example is known",
        "out file - 0 of 1 failing",
        "sick file - 1 refuses",
        "refuses its clients: no identity",
        "1 route: 1 serves; 4 tunnels: 1 serves, 1 failing, 1 empty, 1 refuses; 0 skipped.",
    ] {
        let line: Vec<&str> = line.split_whitespace().collect();
        assert!(words.contains(&line), "{line:?} in\n{text}");
    }
    // They are the file's, and no service's.
    let of_consul = Listing::read(json.as_bytes(), Some("consul")).unwrap();
    assert!(of_consul.tunnels.is_empty());
    assert!(
        !Listing::read(json.as_bytes(), Some("file"))
            .unwrap()
            .tunnels
            .is_empty()
    );
}
