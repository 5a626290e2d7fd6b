//! Prints what every judge makes of the guest, with time and without, in which mode of NTP chronyd's offsets are spread
//! less, and what a browser makes of the guest's page: `make judges`; with the word `modes` or `page` only that.
#![expect(clippy::print_stdout, reason = "a command talks to its user")]

use core::time::Duration;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use gnomon_tests::browser::{self, Look};
use gnomon_tests::guest::{Guest, machine};
use gnomon_tests::judge::capture::{self, examine};
use gnomon_tests::judge::modes::{Comparison, Plan};
use gnomon_tests::judge::{BUILT, PACKAGED, Trial};
use gnomon_tests::{Arch, on};

fn main() -> ExitCode {
    let word = std::env::args().nth(1);
    let right = match word.as_deref() {
        Some("modes") => compare_the_modes(),
        Some("page") => look_at_the_page(),
        _ => ask_the_clients() & compare_the_modes() & look_at_the_page(),
    };
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

/// chronyd in basic and in interleaved mode, in turns, while others ask the guest as well.
fn compare_the_modes() -> bool {
    println!(
        "The spread of chronyd's offsets, a guest serving {} other requests/s meanwhile:",
        PLAN.others
    );
    let is_better = |arch: Arch| {
        (0..ATTEMPTS).any(|_| {
            let compared = on(arch, || Comparison::of(machine(), PLAN));
            let ok = if compared.is_better() { "ok" } else { "wider" };
            println!("  {ok:<5}  {:<21}  {compared}", arch.name());
            compared.is_better()
        })
    };
    Arch::ALL.map(is_better) == [true; 2]
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

/// What the modes are compared by. Their spreads are apart by a third, and known to about a tenth then.
const PLAN: Plan = Plan {
    others: 1000,
    turns: 9,
    samples: 32,
};
/// What somebody else on the machine has done to a comparison, he does not do this often in a row.
const ATTEMPTS: u32 = 3;
/// How much of a history there is to be seen.
const HISTORY: Duration = Duration::from_secs(20);
