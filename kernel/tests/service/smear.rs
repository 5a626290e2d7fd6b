//! Smeared service: on which port, what it says, what the operator sees.

use gnomon_clock::LeapIndicator;

use super::*;

/// 2026-12-31T18:00:00Z in TAI: six hours into the smear from noon to noon.
const EVENING: u64 = 1_798_740_000 + 37;
/// By how much that smear is behind UTC then, in 2^-32 s: 21600/86401.
const QUARTER: u64 = (21_600 << 32) / 86_401;

/// A page on the last day of a month at whose end a second is inserted.
fn before_leap() -> Fields {
    Fields {
        leap_indicator: LeapIndicator::PrePos as u8,
        ..good(1, EVENING)
    }
}

fn stamp(reply: &[u8], offset: usize) -> u64 {
    u64::from_be_bytes(reply[offset..offset + 8].try_into().unwrap())
}

fn id(reply: &[u8]) -> &str {
    core::str::from_utf8(&reply[12..16]).unwrap()
}

/// The stamp less the second that it would be in without a smear.
fn off(reply: &[u8], offset: usize) -> i64 {
    stamp(reply, offset)
        .wrapping_sub(ntp_seconds(EVENING) << 32)
        .cast_signed()
}

#[test]
fn a_port_of_its_own_leaves_the_other_plain() {
    let mut rig = rig(
        &before_leap(),
        "ip=10.0.2.15/24 ntp.smear=noon ntp.smear.port=1123",
    );
    let plain = rig.ask().unwrap();
    assert_eq!((leap(&plain), plain[1], id(&plain)), (1, 1, "XVMC"));
    assert!((0..1 << 23).contains(&off(&plain, 32)), "within 2 ms");

    let smeared = rig.ask_port(1123).unwrap();
    assert_eq!((leap(&smeared), smeared[1], id(&smeared)), (0, 1, "XSMR"));
    for stamp in [32, 40] {
        let behind = off(&smeared, stamp) + QUARTER.cast_signed();
        assert!((-4096..1 << 23).contains(&behind), "{behind} at {stamp}");
    }
    assert!(stamp(&smeared, 16) <= stamp(&smeared, 32), "the reference");
    // The same error on its own scale: a quarter of a second is not in it.
    assert_eq!(smeared[8..12], plain[8..12]);

    let sent = rig.exchange(&[request_to(1124, &CLIENT_REQUEST)]);
    let kinds: Vec<_> = sent.iter().map(|frame| [frame[12], frame[13]]).collect();
    assert_eq!(
        kinds,
        [[8, 6]],
        "no other port: the stack asks whom to tell"
    );
}

#[test]
fn without_a_port_there_is_no_plain_service() {
    for (smear, reference_id) in [("noon", "XSMR"), ("sls", "XSLS")] {
        let mut rig = rig(
            &before_leap(),
            &format!("ip=10.0.2.15/24 ntp.smear={smear}"),
        );
        let reply = rig.ask().unwrap();
        assert_eq!((leap(&reply), id(&reply)), (0, reference_id));
        // UTC-SLS begins a quarter of an hour before midnight.
        let smeared = off(&reply, 32) < 0;
        assert_eq!(smeared, smear == "noon", "{smear}");
    }
    let mut off = rig(&before_leap(), "ip=10.0.2.15/24 ntp.smear=off");
    let reply = off.ask().unwrap();
    assert_eq!((leap(&reply), id(&reply)), (1, "XVMC"));
}

#[test]
fn the_hint_is_followed() {
    let mut rig = rig(&before_leap(), "ip=10.0.2.15/24 ntp.smear=hint");
    rig.exchange(&[]);
    for (hint, leap_indicator, reference_id, told) in [
        (1, 0, "XSMR", "smear: noon to noon by the page's hint"),
        (0, 1, "XVMC", "smear: strict UTC by the page's hint"),
        (2, 0, "XSLS", "smear: UTC-SLS by the page's hint"),
        (3, 1, "XVMC", "smear: strict UTC by the page's hint"),
    ] {
        let hinted = Fields {
            leap_second_smearing_hint: hint,
            ..before_leap()
        };
        rig.clear_screen();
        rig.publish(&hinted);
        let reply = rig.ask().unwrap();
        assert_eq!((leap(&reply), id(&reply)), (leap_indicator, reference_id));
        rig.pass(Duration::from_secs(2));
        let screen = rig.screen();
        assert!(screen.contains(told), "{told} not in {screen}");
    }
    let status = rig.type_line("status");
    assert!(
        status.contains("note        the page's smearing hint is not known")
            && status.contains("smear       strict UTC by the page's hint, port 123, refid XVMC"),
        "{status}"
    );
}

#[test]
fn the_operator_sees_both_bounds() {
    let mut rig = rig(
        &before_leap(),
        "ip=10.0.2.15/24 ntp.smear=noon ntp.smear.port=1123",
    );
    rig.exchange(&[]);
    let boot = rig.screen();
    assert!(
        boot.contains("smear     noon to noon, port 1123, refid XSMR\r\n"),
        "{boot}"
    );
    rig.pass(Duration::from_millis(3));
    let log = rig.screen();
    assert!(log.contains("smear: off UTC, for a leap second"), "{log}");
    let status = rig.type_line("status");
    for line in [
        "smear       noon to noon, port 1123, refid XSMR\r\n",
        "smeared     UTC -0.24999",
        " of smeared time, ± 250 ms of UTC\r\n",
    ] {
        assert!(status.contains(line), "{line} not in {status}");
    }
    let time = rig.type_line("time");
    assert!(
        time.contains("2026-12-31T18:00:00."),
        "the console's time is plain: {time}"
    );
}

#[test]
fn without_utc_there_is_nothing_to_smear() {
    let tai_only = Fields {
        flags: flag::TIME_MAXERROR_VALID | flag::PERIOD_MAXERROR_VALID,
        ..before_leap()
    };
    let mut rig = rig(
        &tai_only,
        "ip=10.0.2.15/24 ntp.smear=noon ntp.smear.port=1123",
    );
    for port in [123, 1123] {
        let reply = rig.ask_port(port).unwrap();
        assert_eq!((leap(&reply), reply[1], id(&reply)), (3, 0, "INIT"));
        assert_eq!(reply[16..24], [0; 8]);
    }
}

#[test]
fn what_the_stack_gets_for_the_second_port_meets_silence() {
    let mut rig = rig(
        &before_leap(),
        "ip=10.0.2.15/24 ntp.smear=noon ntp.smear.port=1123",
    );
    // A checksum of zero at the IP layer is wrong; a broadcast is for the stack, which swallows it.
    let mut broadcast = request_to(1123, &CLIENT_REQUEST);
    broadcast[..6].copy_from_slice(&[0xff; 6]);
    assert_eq!(rig.exchange(&[broadcast]), Vec::<Vec<u8>>::new());
}
