//! Prints what every judge makes of the guest, with time and without: `make judges`.
#![expect(clippy::print_stdout, reason = "a command talks to its user")]

use std::process::ExitCode;

use gnomon_tests::guest::machine;
use gnomon_tests::judge::capture::{self, examine};
use gnomon_tests::judge::{BUILT, PACKAGED, Trial};

fn main() -> ExitCode {
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
    if right {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
