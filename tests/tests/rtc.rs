//! A machine without a publisher, as most are: what KVM would offer is absent under TCG, and its real-time clock
//! is shown, and served only when asked for.

use core::time::Duration;
use std::thread;
use std::time::{Instant, SystemTime};

use gnomon_qemu::machine::Arch;
use gnomon_tests::console::TimeLine;
use gnomon_tests::guest::{Guest, machine};
use gnomon_tests::ntp::Reply;
use gnomon_tests::{PATIENCE, arch};

gnomon_tests::on_both![
    a_real_time_clock_is_shown_and_not_served,
    a_real_time_clock_is_served_when_asked_for,
];

/// What the bound of a real-time clock's time is never below, in nanoseconds.
const LEAST: u64 = 1_000_000_000;
fn a_real_time_clock_is_shown_and_not_served() {
    let (mut guest, _) = Guest::boot(machine().publish(None));
    let client = guest.client();
    let deadline = Instant::now() + PATIENCE;
    let rows = loop {
        client.ask().assert_no_time(&["INIT"]);
        let said = guest.command("sources");
        if row(&said, "rtc").contains(" ± ") {
            break said;
        }
        assert!(Instant::now() < deadline, "{said}");
        thread::park_timeout(Duration::from_millis(100));
    };
    let elsewhere = "none on this architecture";
    let expected = match arch() {
        Arch::X86_64 => ["no KVM", elsewhere, "no KVM"],
        Arch::Aarch64 => [elsewhere, "no KVM, or it denies the call", elsewhere],
    };
    for (name, why) in ["kvm", "kvm-ptp", "kvmclock"].into_iter().zip(expected) {
        assert_eq!(row(&rows, name), why, "{rows}");
    }
    let kind = match arch() {
        Arch::X86_64 => "CMOS, taken for UTC",
        Arch::Aarch64 => "PL031, taken for UTC",
    };
    let rtc = row(&rows, "rtc");
    assert!(rtc.ends_with(kind), "{rows}");
    let bound = rtc.strip_prefix("in use, ± ").and_then(|rest| {
        let seconds = rest.split_once(" s, asked ")?.0;
        seconds.parse::<f64>().ok()
    });
    assert!(bound.is_some_and(|seconds| seconds > 1.0), "{rows}");
    // The time is shown, and right.
    let before = SystemTime::now();
    let said = guest.command("time");
    let line = said.trim_end().replace("TAI-UTC unknown", "TAI-UTC 0");
    let time = TimeLine::parse(&line).unwrap_or_else(|| panic!("{said}"));
    time.assert_between(before, SystemTime::now());
    assert!(time.bound > LEAST.into(), "{said}");
    let (status, source) = (&*time.status, time.source.as_deref());
    assert_eq!((status, source), ("freerunning", Some("rtc")), "{said}");
    // And still nobody is told.
    client.ask().assert_no_time(&["INIT"]);
    let status = guest.command("status");
    assert!(
        status.contains("nobody vouches for a real-time clock"),
        "{status}"
    );
}

fn a_real_time_clock_is_served_when_asked_for() {
    let (mut guest, _) = Guest::boot(machine().publish(None).append("source=rtc"));
    let client = guest.client();
    let deadline = Instant::now() + PATIENCE;
    let first = loop {
        let reply = client.ask();
        if reply.leap != 3 {
            break reply;
        }
        reply.assert_no_time(&["INIT"]);
        assert!(Instant::now() < deadline, "{}", guest.command("sources"));
        thread::park_timeout(Duration::from_millis(200));
    };
    assert_right(&first);
    for _ in 0..20 {
        assert_right(&client.ask());
    }
    let said = guest.command("sources");
    assert!(row(&said, "rtc").starts_with("in use, ± "), "{said}");
    assert_eq!(row(&said, "kvm"), "not asked for by source=");
}

/// The truth is within the bound, which is more than a second, and the stratum is that of a clock which nobody
/// has set.
fn assert_right(reply: &Reply) {
    assert_eq!((reply.leap, reply.stratum), (0, 10), "{reply:?}");
    assert_eq!(&reply.reference_id, b"XRTC", "{reply:?}");
    assert!(reply.bound_nanos() > LEAST, "{reply:?}");
    let bound = i64::from(reply.root_dispersion) << 16;
    for stamp in [reply.receive, reply.transmit] {
        let early = reply.sent.wrapping_sub(stamp).cast_signed();
        let late = stamp.wrapping_sub(reply.arrived).cast_signed();
        assert!(early <= bound && late <= bound, "{reply:?}");
    }
}

/// What `sources` says of the one with this name.
fn row<'s>(said: &'s str, name: &str) -> &'s str {
    let row = said.lines().find_map(|line| {
        let (its, rest) = line.split_once(' ')?;
        (its == name).then(|| rest.trim_start())
    });
    row.unwrap_or_else(|| panic!("no {name}: {said}"))
}
