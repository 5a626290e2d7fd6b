//! Heads of requests, and the answers: every one of them read by somebody else.

mod told;

use core::time::Duration;

use gnomon_clock::Fields;
use gnomon_kernel::duty::Withheld;
use gnomon_kernel::http::answer::{Answer, BODY, HEAD};
use gnomon_kernel::http::history::{History, SAMPLES};
use gnomon_kernel::http::{Parser, Path, Refusal, Request, page};
use gnomon_kernel::report::View;
use gnomon_kernel::serve::ntp::Counters;
use proptest::prelude::*;
use serde_json::Value;

use crate::told::{good_page, view};

/// What becomes of these bytes, and how many were taken; `None` if more are waited for.
fn parse(bytes: &[u8]) -> Option<(Result<Request, Refusal>, usize)> {
    let mut parser = Parser::new();
    bytes
        .iter()
        .enumerate()
        .find_map(|(at, byte)| Some((parser.feed(*byte)?, at + 1)))
}

#[test]
fn heads_of_requests() {
    let get = |path| {
        Ok(Request {
            path,
            head_only: false,
        })
    };
    let long = |length: usize| format!("GET /{} HTTP/1.0\r\n\r\n", "x".repeat(length - 1));
    let many = |lines| format!("GET / HTTP/1.0\r\n{}\r\n", "A: b\r\n".repeat(lines));
    let big = |bytes: usize| format!("GET / HTTP/1.0\r\nA:{}\r\n\r\n", "b".repeat(bytes - 22));
    for (head, expected) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", get(Path::Page)),
        ("GET /now HTTP/1.0\r\n\r\n", get(Path::Now)),
        ("GET /status?a=/now HTTP/1.0\r\n\r\n", get(Path::Status)),
        ("GET /metrics HTTP/1.1\r\nhOsT:\r\n\r\n", get(Path::Metrics)),
        ("GET http://a.b:80/healthz HTTP/1.0\n\n", get(Path::Health)),
        ("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", get(Path::Page)),
        ("\r\nGET / HTTP/1.0\r\n\r\n", get(Path::Page)),
        (
            "HEAD / HTTP/1.1\r\nX: \t\u{e9}\r\nHost: x\r\nY:\r\n\r\n",
            Ok(Request {
                path: Path::Page,
                head_only: true,
            }),
        ),
        ("GET /Now HTTP/1.0\r\n\r\n", Err(Refusal::NotFound)),
        ("GET // HTTP/1.0\r\n\r\n", Err(Refusal::NotFound)),
        ("GET now HTTP/1.0\r\n\r\n", Err(Refusal::NotFound)),
        ("GET /%6eow HTTP/1.0\r\n\r\n", Err(Refusal::NotFound)),
        ("POST / HTTP/1.0\r\n\r\n", Err(Refusal::Method)),
        ("OPTIONS * HTTP/1.0\r\n\r\n", Err(Refusal::Method)),
        ("get / HTTP/1.0\r\n\r\n", Err(Refusal::Method)),
        ("GET / HTTP/1.1\r\n\r\n", Err(Refusal::Malformed)),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            Err(Refusal::Malformed),
        ),
        (
            "GET / HTTP/1.1\r\nHosts: a\r\n\r\n",
            Err(Refusal::Malformed),
        ),
        ("GET /\r\n", Err(Refusal::Malformed)),
        ("GET / \r\n", Err(Refusal::Malformed)),
        ("GET  / HTTP/1.0\r\n", Err(Refusal::Malformed)),
        ("GET / HTTP/1.0 \r\n", Err(Refusal::Malformed)),
        ("GET / http/1.0\r\n", Err(Refusal::Malformed)),
        ("GET / HTTP/2.0\r\n", Err(Refusal::Version)),
        ("GET / HTTP/1.2\r\n", Err(Refusal::Version)),
        (" GET / HTTP/1.0\r\n", Err(Refusal::Malformed)),
        ("\r\n\r\n", Err(Refusal::Malformed)),
        ("GET / HTTP/1.0\rX", Err(Refusal::Malformed)),
        ("GET / HTTP/1.0\r\nA : b\r\n", Err(Refusal::Malformed)),
        ("GET / HTTP/1.0\r\nA: b\r\n c\r\n", Err(Refusal::Malformed)),
        ("GET / HTTP/1.0\r\nA\r\n", Err(Refusal::Malformed)),
        ("GET / HTTP/1.0\r\n: a\r\n", Err(Refusal::Malformed)),
        ("GET / HTTP/1.0\r\nA: \0\r\n", Err(Refusal::Malformed)),
        ("G(T / HTTP/1.0\r\n", Err(Refusal::Malformed)),
        ("\x16\x03\x01\x02\0", Err(Refusal::Malformed)),
        (&long(256), Err(Refusal::NotFound)),
        (&long(257), Err(Refusal::Target)),
        ("ABCDEFGHIJKLMNOPQ / HTTP/1.0\r\n", Err(Refusal::Malformed)),
        (&many(62), get(Path::Page)),
        (&many(63), Err(Refusal::Head)),
        (&big(8192), get(Path::Page)),
        (&big(8193), Err(Refusal::Head)),
    ] {
        let outcome = parse(head.as_bytes()).map(|(outcome, _)| outcome);
        assert_eq!(outcome, Some(expected), "{head:?}");
        let all_but_one = &head.as_bytes()[..head.len() - 1];
        if expected.is_ok() {
            assert_eq!(parse(all_but_one), None, "{head:?}");
        }
    }
}

proptest! {
    /// Any bytes lead to a request, a refusal, or the wish for more, after 8193 bytes at the latest.
    #[test]
    fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..9000)) {
        match parse(&bytes) {
            Some((_, taken)) => prop_assert!(taken <= 8193),
            None => prop_assert!(bytes.len() <= 8192),
        }
    }

    /// The same, of what looks like a request for longer.
    #[test]
    fn any_words_end(words in prop::collection::vec(
        prop::sample::select(vec!["GET", "HEAD", " ", "/", "now", "?", "HTTP/1.", "1", "0", "\r", "\n", "\r\n", "Host", ":", "x", "\t", "\u{e9}", "\0"]),
        0..400,
    )) {
        let text = ["GET / HTTP/1.1\r\n", &words.concat()].concat();
        if let Some((Ok(_), taken)) = parse(text.as_bytes()) {
            prop_assert!(text[..taken].ends_with('\n'));
            prop_assert!(text[..taken].to_ascii_lowercase().contains("\nhost:"));
        }
        let _ = parse(words.concat().as_bytes());
    }
}

/// Status, headers and body.
fn ask(path: Path, head_only: bool, view: &View<'_>, history: &History) -> (u16, String, String) {
    taken_apart(Ok(Request { path, head_only }), view, history)
}

fn taken_apart(
    request: Result<Request, Refusal>,
    view: &View<'_>,
    history: &History,
) -> (u16, String, String) {
    let mut answer = Answer::default();
    answer.fill(request, view, history);
    let head = String::from_utf8(answer.head().to_vec()).expect("text");
    let body = String::from_utf8(answer.body().to_vec()).expect("text");
    assert!(head.len() < HEAD && body.len() < BODY);
    let (first, rest) = head.split_once("\r\n").expect("a line");
    assert!(rest.ends_with("\r\n\r\n") && !rest[..rest.len() - 4].contains("\r\n\r\n"));
    let status = first.strip_prefix("HTTP/1.1 ").expect("a status");
    (status[..3].parse().expect("digits"), rest.to_owned(), body)
}

#[test]
fn each_path_has_its_type_and_its_length() {
    let view = view(&good_page());
    for (path, kind) in [
        (Path::Page, "text/html; charset=utf-8"),
        (Path::Now, "application/json"),
        (Path::Status, "application/json"),
        (Path::Metrics, "text/plain; version=0.0.4; charset=utf-8"),
        (Path::Health, "text/plain; charset=utf-8"),
    ] {
        let (status, head, body) = ask(path, false, &view, &History::new());
        assert_eq!(status, 200);
        assert!(
            head.contains(&format!("Content-Type: {kind}\r\n")),
            "{head}"
        );
        let length = if path == Path::Page {
            page::LENGTH
        } else {
            body.len()
        };
        assert!(
            head.contains(&format!("Content-Length: {length}\r\n")),
            "{head}"
        );
        let (status, same, nothing) = ask(path, true, &view, &History::new());
        assert_eq!((status, nothing.as_str()), (200, ""));
        assert_eq!(same, head, "HEAD is told what GET would be");
    }
}

#[test]
fn refusals_say_what_is_wrong() {
    for (refusal, code) in [
        (Refusal::Malformed, 400),
        (Refusal::NotFound, 404),
        (Refusal::Method, 405),
        (Refusal::Target, 414),
        (Refusal::Head, 431),
        (Refusal::Version, 505),
    ] {
        let (status, head, body) = taken_apart(Err(refusal), &view(&good_page()), &History::new());
        assert_eq!(status, code);
        assert!(body.starts_with(&code.to_string()), "{body}");
        assert_eq!(head.contains("Allow: GET, HEAD\r\n"), code == 405);
    }
}

#[test]
fn health_is_what_ntp_clients_get() {
    let health = |view: &View<'_>| ask(Path::Health, false, view, &History::new());
    assert_eq!(health(&view(&good_page())).0, 200);
    let (status, _, body) = health(&view(&Fields::stock()));
    assert_eq!(
        (status, body.as_str()),
        (503, "no time is served: the page carries no time\n")
    );
    let withheld = View {
        withheld: Some(Withheld::Drain),
        ..view(&good_page())
    };
    assert_eq!(health(&withheld).0, 503);
    let wide = Fields {
        time_maxerror_nanosec: 17_000_000_000,
        ..good_page()
    };
    assert_eq!(health(&view(&wide)).0, 503);
}

#[test]
fn the_status_has_the_last_minute() {
    let view = view(&good_page());
    let mut history = History::new();
    let status = |history: &History| -> Value {
        let (status, _, body) = ask(Path::Status, false, &view, history);
        assert_eq!(status, 200);
        serde_json::from_str(&body).expect("JSON")
    };
    let found = status(&history);
    assert_eq!(found["history"]["bound"], serde_json::json!([]));
    assert_eq!(found["now"]["utc"], "2026-11-20T12:05:31.500000000Z");
    assert_eq!(
        found["page"],
        "\\_SB.VCLK (AMZNC10C) at 0xfeffb000, 4096 bytes"
    );
    for second in 1..=u64::try_from(SAMPLES).expect("few") + 5 {
        let uptime = Duration::from_secs(second);
        assert!(history.is_due(uptime));
        history.record(uptime, &view.reading, second * second);
        assert!(!history.is_due(uptime));
    }
    let found = status(&history);
    let replies = found["history"]["replies"].as_array().expect("a list");
    let replies: Vec<_> = replies.iter().filter_map(Value::as_u64).collect();
    let expected: Vec<_> = (6..=65).map(|second| 2 * second - 1).collect();
    assert_eq!(replies, expected, "the oldest first");
    assert_eq!(found["history"]["bound"][0], 41_201);
}

/// The largest numbers that there are leave nothing out.
#[test]
fn everything_has_room() {
    let max = u64::MAX;
    let most = Counters {
        time: max,
        init: max,
        step: max,
        dispersion: max,
        rate: max,
        violation: max,
        holdover: max,
        drain: max,
        length: max,
        version: max,
        mode: max,
        mac: max,
        extension: max,
        stale: max,
        utc_step: max,
        access: max,
        limit: max,
        unauthenticated: max,
        interleaved: max,
        authenticated: max,
        mono_root: max,
    };
    let place: &'static str = String::leak("\\".repeat(128));
    let mut view = View {
        ntp: most,
        uptime: Some(max),
        page: Ok(place),
        machine: place,
        ..view(&Fields {
            time_maxerror_nanosec: (1 << 53) - 2,
            ..good_page()
        })
    };
    if let Ok(net) = &mut view.net {
        net.nic = place;
        net.frames.received = max;
        net.frames.sent = max;
        net.frames.dropped = max;
    }
    let mut history = History::new();
    for second in 0..200 {
        // Differences of (2^53 - 1).
        let replies = second * ((1 << 53) - 1);
        history.record(Duration::from_secs(second), &view.reading, replies);
    }
    for path in [
        Path::Page,
        Path::Now,
        Path::Status,
        Path::Metrics,
        Path::Health,
    ] {
        let (status, _, body) = ask(path, false, &view, &history);
        println!("{path:?} {}", body.len());
        assert_ne!(status, 500, "{path:?}");
    }
    assert_eq!(page::plain(&view).as_str().len(), page::PLAIN);
}

#[test]
fn the_page_is_whole_and_loads_nothing() {
    let before = str::from_utf8(page::BEFORE).expect("text");
    let after = str::from_utf8(page::AFTER).expect("text");
    let hostile = View {
        page: Ok("<script>&"),
        ..view(&good_page())
    };
    let plain = page::plain(&hostile);
    assert!(
        plain
            .as_str()
            .starts_with("2026-11-20T12:05:31.500000000Z ± 41.3 µs")
    );
    assert!(plain.as_str().contains("&lt;script>&amp;"), "{plain}");
    let page = format!("{before}{plain}{after}");
    assert_eq!(page.len(), page::LENGTH);
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    // The icon's name space is a name.
    for elsewhere in page.match_indices("://").map(|(at, _)| &page[at..at + 14]) {
        assert_eq!(elsewhere, "://www.w3.org/");
    }
}

/// Prometheus' text format: every sample belongs to a family that was told before it.
#[test]
fn metrics_are_in_families() {
    let (_, _, body) = ask(Path::Metrics, false, &view(&good_page()), &History::new());
    let mut family = String::new();
    let mut samples = 0;
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert!(["gauge", "counter"].contains(&kind));
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            name.clone_into(&mut family);
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').expect("a sample");
            let name = name.split('{').next().expect("a name");
            assert_eq!(name, family);
            value.parse::<f64>().expect("a number");
            samples += 1;
        }
    }
    assert!(samples > 30, "{body}");
    assert!(
        body.contains("gnomon_bound_seconds 0.000041201\n"),
        "{body}"
    );
}
