//! The status over HTTP, asked by this machine's own TCP, well-mannered and not.

use core::time::Duration;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Instant, SystemTime};

use gnomon_tests::PATIENCE;
use gnomon_tests::guest::{Guest, machine};
use serde_json::Value;

gnomon_tests::on_both![
    every_path_is_answered,
    hostile_clients_hold_up_nobody,
    without_time_it_says_so,
    off_is_off,
];

/// Connects and says this.
fn say(port: u16, text: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("QEMU listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    stream.set_nodelay(true).expect("TCP");
    // It may have been cut already.
    let _cut = stream.write_all(text);
    stream
}

/// Everything that is answered; nothing when the connection is cut.
fn ask(port: u16, text: &[u8]) -> String {
    let mut answer = Vec::new();
    match say(port, text).read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    String::from_utf8(answer).expect("text")
}

/// Status and body, asked again while all connections are taken.
fn get(port: u16, path: &str) -> (u16, String) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask(
            port,
            format!("GET {path} HTTP/1.1\r\nHost: gnomon\r\n\r\n").as_bytes(),
        );
        if let Some((head, body)) = answer.split_once("\r\n\r\n") {
            let status = head.strip_prefix("HTTP/1.1 ").expect("a status");
            let length = format!("Content-Length: {}", body.len());
            assert!(head.lines().any(|line| line == length), "{head}");
            return (status[..3].parse().expect("digits"), body.to_owned());
        }
        assert!(Instant::now() < deadline, "no answer to {path}: {answer:?}");
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

fn port(guest: &Guest) -> u16 {
    guest.http_port().expect("user network")
}

fn nanos(time: SystemTime) -> i128 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("after 1970");
    since.as_nanos().try_into().expect("a date")
}

fn every_path_is_answered() {
    let (guest, client) = Guest::serving();
    let port = port(&guest);
    for _ in 0..20 {
        let before = nanos(SystemTime::now());
        let (status, body) = get(port, "/now");
        let after = nanos(SystemTime::now());
        assert_eq!(status, 200);
        let now: Value = serde_json::from_str(&body).expect("JSON");
        let end = |name: &str| -> i128 {
            let digits = now[name].as_str().expect("a string");
            digits.parse().expect("digits")
        };
        assert!(
            before <= end("latest") && end("earliest") <= after,
            "{before} {now} {after}"
        );
        assert_eq!(
            (&now["kiss"], &now["source"]),
            (&Value::Null, &"vmclock".into())
        );
    }
    client.ask().assert_right();
    let (status, body) = get(port, "/status");
    let found: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(status, 200);
    assert!(
        found["ntp"]["answered"]["time"].as_u64() >= Some(1),
        "{found}"
    );
    let (status, body) = get(port, "/metrics");
    assert!(
        status == 200 && body.contains("\ngnomon_time_served 1\n"),
        "{body}"
    );
    assert_eq!(get(port, "/healthz"), (200, "time is served\n".to_owned()));
    assert_eq!(get(port, "/favicon.ico").0, 404);
    let (status, page) = get(port, "/");
    assert_eq!(status, 200);
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    assert!(
        page.contains("Z ± "),
        "the time, for those who have no script"
    );

    let head = ask(port, b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let length = format!("\r\nContent-Length: {}\r\n", page.len());
    assert!(
        head.contains(&length) && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    for (request, status) in [
        (
            &b"POST /now HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"[..],
            "405 ",
        ),
        (b"GET /now HTTP/1.1\r\n\r\n", "400 "),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400 "),
        (&[b"GET /", &[b'x'; 300][..]].concat(), "414 "),
        (
            &[b"GET / HTTP/1.1\r\nX: ", &[b'x'; 9000][..]].concat(),
            "431 ",
        ),
    ] {
        let answer = ask(port, request);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
    }
}

/// More connections than there is room for, of everybody who is known for it, and NTP all the while.
fn hostile_clients_hold_up_nobody() {
    let (guest, client) = Guest::serving();
    let port = port(&guest);
    let mut held = Vec::new();
    let mut answered = 0;
    for round in 0..40 {
        let words: &[u8] = match round % 4 {
            0 => b"",
            1 => b"GET / HT",
            // Asked for, never read.
            2 => b"GET / HTTP/1.0\r\n\r\n",
            _ => &[0xff; 3000],
        };
        held.push(say(port, words));
        for _ in 0..10 {
            client.ask().assert_right();
            answered += 1;
        }
    }
    assert_eq!(answered, 400);
    // They all still hang on, on this side, and the guest has got rid of them.
    assert_eq!(get(port, "/healthz").0, 200);
    drop(held);
    assert_eq!(get(port, "/now").0, 200);
    client.ask().assert_right();
}

fn without_time_it_says_so() {
    let (guest, _) = Guest::boot(machine().publish(None));
    let port = port(&guest);
    let (status, body) = get(port, "/healthz");
    assert_eq!(status, 503);
    assert!(body.starts_with("no time is served: "), "{body}");
    let now: Value = serde_json::from_str(&get(port, "/now").1).expect("JSON");
    assert_eq!((&now["utc"], &now["kiss"]), (&Value::Null, &"INIT".into()));
    assert!(get(port, "/").1.contains("no time: "));
    assert!(get(port, "/metrics").1.contains("\ngnomon_time_served 0\n"));
}

fn off_is_off() {
    let (guest, client) = Guest::serving_with(machine().append("http=off"));
    assert_eq!(ask(port(&guest), b"GET / HTTP/1.0\r\n\r\n"), "");
    client.ask().assert_right();
}
