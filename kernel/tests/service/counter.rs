//! The counter held against what else is known of it: alarms, refusals, and what people are shown.

use super::*;

fn told(rig: &mut Rig) -> String {
    let reply = rig.ask().unwrap();
    match leap(&reply) {
        3 => String::from_utf8(reply[12..16].to_vec()).unwrap(),
        _ => String::from("time"),
    }
}

fn booted(words: &str, offset: Option<u64>) -> Rig {
    let mut rig = rig(&good(1, NOON), &format!("{STATIC} {words}"));
    rig.offset.set(offset);
    rig.pass(Duration::from_millis(5));
    rig.clear_screen();
    rig
}

#[test]
fn an_unannounced_move_of_the_counter() {
    for (words, served, alarm) in [
        ("", "time", true),
        ("on_violation=alarm", "time", true),
        ("on_violation=serve", "time", false),
        ("on_violation=stop", "XAUD", true),
    ] {
        let mut rig = booted(words, Some(5_000_000));
        assert_eq!(told(&mut rig), "time", "{words}");
        rig.offset.set(Some(9_000_000));
        // The very next reply, if asked.
        assert_eq!(told(&mut rig), served, "{words}");
        rig.pass(Duration::from_secs(1));
        assert_eq!(told(&mut rig), served, "{words}");
        let line = "] audit: CNTPCT-CNTVCT was ";
        assert_eq!(
            rig.screen().matches(line).count(),
            usize::from(alarm),
            "{}",
            rig.screen()
        );
        let status = rig.type_line("status");
        assert!(status.contains("unannounced changes 1\r\n"), "{status}");
        assert!(
            status.contains("moved       CNTPCT-CNTVCT was "),
            "{status}"
        );
        // A page under another marker is believed again.
        rig.publish(&good(2, NOON));
        rig.pass(Duration::from_secs(1));
        assert_eq!(told(&mut rig), "time", "{words}");
    }
}

#[test]
fn an_announced_move_of_the_counter() {
    let mut rig = booted("on_violation=stop", Some(0));
    rig.offset.set(Some(9_000_000));
    rig.publish(&good(2, NOON));
    rig.pass(Duration::from_secs(1));
    assert_eq!(told(&mut rig), "time");
    assert!(!rig.screen().contains("CNTPCT"), "{}", rig.screen());
    assert!(
        rig.type_line("status")
            .contains("unannounced changes 0\r\n")
    );
}

#[test]
fn no_physical_counter() {
    let mut rig = booted("on_violation=stop", None);
    assert_eq!(told(&mut rig), "time");
    let status = rig.type_line("status");
    // This rig's counter is a TSC, which has no other view.
    assert!(!status.contains("physical"), "{status}");
    assert!(
        status.contains("counter     1000000000 Hz by test\r\n"),
        "{status}"
    );
    assert!(
        status.contains("stolen      1234 ns of processor time\r\n"),
        "{status}"
    );
}

#[test]
fn a_rate_that_contradicts_the_page() {
    let mut rig = booted("", None);
    let period = Period::from_hertz(24_000_000).unwrap();
    rig.publish(&Fields {
        counter_period_frac_sec: period.frac(),
        counter_period_shift: period.shift(),
        ..good(2, NOON)
    });
    rig.pass(Duration::from_secs(1));
    let line = "counter: 1000000000 Hz by test, but 24000000.000 Hz by the page, which counts\r\n";
    assert_eq!(rig.screen().matches(line).count(), 1, "{}", rig.screen());
    assert_eq!(told(&mut rig), "time", "the page counts");
    let status = rig.type_line("status");
    let line =
        "counter     1000000000 Hz by test, but 24000000.000 Hz by the page, which counts\r\n";
    assert!(status.contains(line), "{status}");
    rig.clear_screen();
    rig.publish(&good(3, NOON));
    rig.pass(Duration::from_secs(1));
    let line = "counter: the page does not contradict it any more\r\n";
    assert_eq!(rig.screen().matches(line).count(), 1, "{}", rig.screen());
}

#[test]
fn services_are_listed() {
    let mut rig = booted("", None);
    let said = rig.type_line("services");
    assert!(
        said.contains("\r\nconduit     script\r\nrandom      boot entropy, identity\r\n"),
        "{said}"
    );
}
