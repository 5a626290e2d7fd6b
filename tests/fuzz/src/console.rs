//! Serial input, on both ports and in every mode: whatever is typed, what is shown is text, and what programs are told is
//! what they understand.

use std::time::Duration;

use crate::input::Input;
use crate::network::{STATIC, assert_serves};
use crate::service::with_rig;
use crate::world::{Change, good, publish};

/// Input: what runs on the ports, and steps.
///
/// # Panics
/// Something else is shown, or the next client of NTP does not get the time.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let setting = input.u8();
    let first = [
        "shell", "shell", "shell", "shell", "nmea", "json,1", "json", "log",
    ][usize::from(setting % 8)];
    let second = ["off", "nmea", "json,2", "json"][usize::from(setting / 8 % 4)];
    let words = format!("{STATIC} ip6=auto serial={first} serial2={second}");
    with_rig(&good(1), &words, |mut rig| {
        let mut is_slow = false;
        let mut shown = [Vec::new(), Vec::new()];
        for _ in 0..48 {
            if input.is_empty() {
                break;
            }
            match input.u8() % 10 {
                0 => rig.second.type_in(input.block()),
                1 => {
                    is_slow = true;
                    rig.console.set_room(Some(usize::from(input.u8())));
                    rig.second.set_room(Some(usize::from(input.u8())));
                }
                2 => {
                    rig.console.set_room(None);
                    rig.second.set_room(None);
                }
                3 => publish(rig.page, &good(u64::from(input.u8()))),
                4 => Change::read(&mut input).store(rig.page),
                5 => {
                    rig.pass(Duration::from_millis(u64::from(input.u16())));
                }
                6 => {
                    rig.console.type_in(input.block());
                    rig.console.type_in(b"\r");
                }
                _ => rig.console.type_in(input.block()),
            }
            rig.exchange(&[]);
            shown[0].extend(rig.console.shown());
            shown[1].extend(rig.second.shown());
        }
        if !is_slow {
            for (shown, mode) in shown.iter().zip([first, second]) {
                let text = std::str::from_utf8(shown).expect("text");
                judge(text, mode);
            }
        }
        rig.console.set_room(None);
        rig.second.set_room(None);
        // Typed ahead, and it may be `poweroff`; in the end it is done.
        for _ in 0..8 {
            rig.pass(Duration::from_millis(10));
        }
        assert_serves(&mut rig);
    });
}

fn judge(text: &str, mode: &str) {
    let allowed = |c: char| !c.is_control() || matches!(c, '\r' | '\n' | '\x08' | '\x07' | '\x1b');
    assert!(text.chars().all(allowed), "{text:?}");
    // What has no end yet is not judged.
    let lines = text
        .split_inclusive("\r\n")
        .filter_map(|line| line.strip_suffix("\r\n"));
    match mode {
        // A sentence that is cut off has no checksum: the time changed while it waited.
        "nmea" => lines
            .filter_map(|line| line.split_once('*'))
            .for_each(|(inside, sum)| {
                let inside = inside.strip_prefix('$').expect("a sentence");
                assert!(inside.len() <= 76 && sum.len() <= 2, "{inside}");
                let expected = inside.bytes().fold(0, |sum, byte| sum ^ byte);
                assert!(format!("{expected:02X}").starts_with(sum), "{inside}");
            }),
        "off" => assert!(text.is_empty()),
        _ if mode.starts_with("json") => lines.filter(|line| !line.is_empty()).for_each(|line| {
            let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
            assert!(value.is_object());
        }),
        _ => {}
    }
}
