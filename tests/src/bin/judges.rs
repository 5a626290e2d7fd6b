//! Prints what every judge makes of the guest, with time and without, and what a browser makes of its page:
//! `make judges`; with the word `page`, the latter only.
#![expect(clippy::print_stdout, reason = "a command talks to its user")]

use core::time::Duration;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use gnomon_tests::browser::{self, Look};
use gnomon_tests::guest::{Guest, machine};
use gnomon_tests::judge::capture::{self, examine};
use gnomon_tests::judge::{BUILT, PACKAGED, Trial};

fn main() -> ExitCode {
    let only_page = std::env::args().nth(1).is_some_and(|word| word == "page");
    let right = (only_page || ask_the_clients()) & look_at_the_page();
    if right {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Every NTP client, about a guest with time and one without.
fn ask_the_clients() -> bool {
    let judges = [PACKAGED, BUILT].concat();
    let mut right = true;
    for (what, with_time) in [("with time", true), ("without time", false)] {
        println!(
            "A guest {what}, which {}:",
            if with_time {
                "they accept"
            } else {
                "they refuse"
            }
        );
        let trial = Trial::start(machine(), with_time);
        for row in trial.ask(&judges) {
            println!("  {row}");
            right &= row.is_right();
        }
        let (ok, line) = match examine(&trial.into_frames()) {
            Ok(found) => (
                "ok",
                format!(
                    "nothing wrong in {} frames, {} of them replies",
                    found.frames, found.replies
                ),
            ),
            Err(faults) => ("WRONG", faults),
        };
        right &= ok == "ok";
        println!(
            "  {ok:<5}  {:<21}  {:<22}  finds {line}",
            "tshark",
            capture::version()
        );
    }
    right
}

/// A browser looks at the page, while somebody asks for the time so that there is something to see.
fn look_at_the_page() -> bool {
    println!("The page, in Chromium (screenshots are in build/judges):");
    let (guest, client) = Guest::serving();
    let port = guest.http_port().expect("user network");
    let end = Instant::now() + HISTORY;
    for burst in (5..50).cycle() {
        for _ in 0..burst {
            client.ask().assert_right();
        }
        if Instant::now() >= end {
            break;
        }
        thread::sleep(Duration::from_millis(200));
    }
    let mut right = true;
    for look in Look::ALL {
        let (ok, line) = match browser::look(port, &look) {
            Ok(shown) => ("ok", format!("shows {shown}")),
            Err(fault) => ("WRONG", fault),
        };
        right &= ok == "ok";
        println!("  {ok:<5}  {:<22}  {line}", look.name);
    }
    right
}

/// How much of a history there is to be seen.
const HISTORY: Duration = Duration::from_secs(20);
