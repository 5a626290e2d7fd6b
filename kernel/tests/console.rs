//! What people see: the boot report, every command, and a shell under garbage.

use core::cell::Cell;
use core::fmt::Write;
use core::net::Ipv4Addr;
use std::sync::LazyLock;

#[path = "console/shell.rs"]
mod shell;
mod told;

use gnomon_clock::page::flag;
use gnomon_clock::{
    Audit, Busy, ClockStatus, CounterId, Fields, LeapIndicator, NoTime, Smear, Source, Stamp,
    Ticks, TimeType, Timeline, Unusable,
};
use gnomon_kernel::config::{Idle, Smearing};
use gnomon_kernel::duty::{Conditions, Duty, OnViolation, Withheld};
use gnomon_kernel::net;
use gnomon_kernel::net::inet6::{Address6, Origin};
use gnomon_kernel::report::{self, SmearView, View};
use gnomon_kernel::services::counters::Watch;
use gnomon_kernel::shell::command::{self, Command};
use gnomon_kernel::shell::{Action, Desk, Facts, Meter, PROMPT, Shell, Subject};
use gnomon_kernel::text::Text;
use proptest::prelude::*;
use told::{C1, NOON};

fn good_page() -> Fields {
    Fields {
        seq_count: 42,
        disruption_marker: 0xfeed,
        ..told::good_page()
    }
}

fn view(fields: &Fields) -> View<'static> {
    let mut view = told::view(fields);
    view.idle = Idle::Adaptive;
    if let Ok(net) = &mut view.net {
        net.frames = net::Counters {
            lies: 0,
            received: 9,
            sent: 8,
            ntp: 7,
            stack: 2,
            dropped: 1,
            kicks: 6,
        };
    }
    view
}

/// A counter that goes on by 100 at each read, and back once.
struct Reads(Cell<u64>);

impl Meter for Reads {
    fn read(&self) -> Ticks {
        let next = self.0.get() + 1;
        self.0.set(next);
        Ticks(if next == 500 { 0 } else { next * 100 })
    }
    fn fields(&self) -> Option<Result<Fields, Busy>> {
        Some(Ok(good_page()))
    }
}

/// The same good page all day long.
struct Good;

impl Subject for Good {
    fn desk(&mut self) -> Desk<'_> {
        desk(&view(&good_page()))
    }
}

static FACTS: LazyLock<Facts> = LazyLock::new(|| Facts {
    description: Text::of(&"described   by a test"),
    pci: Text::of(&"00:01.0     1af4:1041\n00:02.0     1af4:1045"),
    memory: Text::EMPTY,
});

fn desk(view: &View<'static>) -> Desk<'static> {
    Desk {
        view: *view,
        facts: &FACTS,
        meter: Box::leak(Box::new(Reads(Cell::new(0)))),
    }
}

fn output(command: Command, view: &View<'_>) -> String {
    let mut out = String::new();
    let desk = Desk {
        view: *view,
        facts: &FACTS,
        meter: &Reads(Cell::new(0)),
    };
    command::run(command, &desk, &mut out).expect("a String takes everything");
    assert!(out.ends_with('\n') && !out.contains('\r'), "{out}");
    assert!(
        out.lines()
            .all(|line| line.trim_end() == line && !line.is_empty()),
        "{out}"
    );
    out
}

const TIME: &str = "2026-11-20T12:05:31.500000000Z ± 41.3 µs  TAI-UTC 37  synchronized";

#[test]
fn the_boot_report() {
    let mut out = String::new();
    report::boot(&mut out, &view(&good_page())).expect("a String takes everything");
    assert_eq!(
        out,
        format!(
            "Gnomon {}\n\
             machine   x86_64, PVH, 16 MiB\n\
             page      \\_SB.VCLK (AMZNC10C) at 0xfeffb000, 4096 bytes\n\
             counter   x86 TSC at 2400.000 MHz\n\
             network   virtio-net, PCI 00:02.0, 52:54:00:12:34:0a, 10.0.2.15/24 by DHCP via 10.0.2.2\n\
             {TIME}\n",
            env!("CARGO_PKG_VERSION"),
        )
    );
}

#[test]
fn the_boot_report_of_a_machine_with_nothing() {
    let nothing = View {
        uptime: None,
        reading: Err(NoTime::NoPage),
        page: Err("no vmclock device in the ACPI tables"),
        fields: None,
        net: Err("no virtio-net device"),
        ..view(&good_page())
    };
    let mut out = String::new();
    report::boot(&mut out, &nothing).expect("a String takes everything");
    let lines: Vec<&str> = out.lines().skip(2).collect();
    assert_eq!(
        lines,
        [
            "page      none: no vmclock device in the ACPI tables",
            "counter   x86 TSC, rate unknown",
            "network   none: no virtio-net device",
            "no time: no vmclock page",
        ]
    );
    assert_eq!(output(Command::Page, &nothing), "no vmclock page\n");
    assert_eq!(
        output(Command::Net, &nothing),
        "no network: no virtio-net device\n"
    );
    let status = output(Command::Status, &nothing);
    assert!(
        status.contains("time        no time: no vmclock page\n"),
        "{status}"
    );
    assert!(status.contains("uptime      unknown\n"), "{status}");
}

#[test]
fn time_in_one_line() {
    assert_eq!(
        output(Command::Time(1), &view(&good_page())),
        format!("{TIME}\n")
    );

    for source in Source::ALL {
        let mut other = view(&good_page());
        if let Ok(reading) = &mut other.reading {
            reading.origin = gnomon_clock::Origin::Own(source);
        }
        let expected = format!("{TIME}, by {}\n", source.name());
        assert_eq!(output(Command::Time(1), &other), expected);
    }

    let mut tai_only = good_page();
    tai_only.flags &= !flag::TAI_OFFSET_VALID;
    assert_eq!(
        output(Command::Time(1), &view(&tai_only)),
        "2026-11-20T12:06:08.500000000 TAI ± 41.3 µs  TAI-UTC unknown  synchronized\n"
    );

    let mut utc_only = tai_only;
    utc_only.time_type = TimeType::Utc as u8;
    utc_only.time_sec -= 37;
    utc_only.clock_status = ClockStatus::Freerunning as u8;
    assert_eq!(
        output(Command::Time(1), &view(&utc_only)),
        "2026-11-20T12:05:31.500000000Z ± 41.3 µs  TAI-UTC unknown  freerunning\n"
    );

    assert_eq!(
        output(Command::Time(1), &view(&Fields::stock())),
        "no time: the page carries no time\n"
    );
}

#[test]
fn every_field_of_a_good_page() {
    let expected = "\
magic                                 0x4b4c4356          VCLK
size                                  4096                bytes of the region
version                               1
counter_id                            1                   x86 TSC
time_type                             1                   TAI
seq_count                             42
disruption_marker                     0xfeed
flags                                 0x151               TAI_OFFSET_VALID PERIOD_MAXERROR_VALID TIME_MAXERROR_VALID VM_GEN_COUNTER_PRESENT
clock_status                          2                   synchronized
leap_second_smearing_hint             0                   strict
tai_offset_sec                        -37                 TAI-UTC 37
leap_indicator                        0                   none
counter_period_shift                  31
counter_value                         0x123456789abcdef1
counter_period_frac_sec               0xe5109ec205d7bea7  0.416666666 ns per tick, 2400000000.000 Hz
counter_period_esterror_rate_frac_sec 0x0                 not given
counter_period_maxerror_rate_frac_sec 0x2ee999587a702     ± 50.000 ppm
time_sec                              1795176368          2026-11-20T12:06:08.500000000 TAI
time_frac_sec                         0x8000000000000000
time_esterror_nanosec                 0                   not given
time_maxerror_nanosec                 41200               ± 41.2 µs
vm_generation_counter                 0x7
";
    assert_eq!(output(Command::Page, &view(&good_page())), expected);
}

#[test]
fn every_field_of_an_odd_page() {
    let odd = Fields {
        magic: 0xdead_beef,
        size: 0x50,
        version: 9,
        counter_id: 0xff,
        time_type: 77,
        seq_count: u32::MAX - 1,
        flags: u64::MAX,
        clock_status: 200,
        leap_second_smearing_hint: 3,
        tai_offset_sec: 37,
        leap_indicator: 9,
        counter_period_shift: 255,
        counter_period_frac_sec: u64::MAX,
        counter_period_esterror_rate_frac_sec: u64::MAX,
        time_sec: u64::MAX,
        ..good_page()
    };
    let out = output(Command::Page, &view(&odd));
    for line in [
        "magic                                 0xdeadbeef          not a vmclock page",
        "size                                  80                  bytes of the region",
        "counter_id                            255                 invalid: the page carries no time",
        "time_type                             77                  not a known code (77)",
        "clock_status                          200                 not a known code (200)",
        "leap_second_smearing_hint             3                   not a known code (3)",
        "tai_offset_sec                        37                  TAI-UTC 37, with the sign of vmclock 1.0",
        "leap_indicator                        9                   not a known code (9)",
        "counter_period_frac_sec               0xffffffffffffffff  0.000000000 ns per tick",
        "counter_period_esterror_rate_frac_sec 0xffffffffffffffff  ± 1000000.000 ppm",
        "time_sec                              18446744073709551615  out of range",
        "time_maxerror_nanosec                 41200               not given",
        "vm_generation_counter                 0x7                 not given",
    ] {
        assert!(
            out.lines().any(|shown| shown == line),
            "{line}\nnot in\n{out}"
        );
    }
    assert!(
        out.contains(" NOTIFICATION_PRESENT unknown 0xfffffffffffffc00\n"),
        "{out}"
    );
    assert_eq!(out.lines().count(), 22);

    let zero = Fields {
        counter_period_frac_sec: 0,
        tai_offset_sec: 5,
        ..good_page()
    };
    let out = output(Command::Page, &view(&zero));
    assert!(
        out.contains("0x0                 0.000000000 ns per tick\n"),
        "{out}"
    );
    assert!(
        out.contains("5                   not a TAI offset\n"),
        "{out}"
    );
    let slow = Fields {
        counter_period_shift: 0,
        counter_period_frac_sec: 1 << 63,
        ..good_page()
    };
    let out = output(Command::Page, &view(&slow));
    assert!(
        out.contains("500000000.000000000 ns per tick, 2.000 Hz\n"),
        "{out}"
    );

    for odd in [true, false] {
        let busy = Busy { odd };
        let view = View {
            fields: Some(Err(busy)),
            ..view(&good_page())
        };
        assert_eq!(output(Command::Page, &view), format!("{busy}\n"));
    }
}

#[test]
fn status_of_a_good_day() {
    assert_eq!(
        output(Command::Status, &view(&good_page())),
        format!(
            "time        {TIME}\n\
             page        \\_SB.VCLK (AMZNC10C) at 0xfeffb000, 4096 bytes\n\
             host clock  synchronized\n\
             marker      0xfeed\n\
             generation  0x7\n\
             updated     2026-11-20T12:05:31.500000000Z\n\
             serving     time\n\
             audit       updates 0, disruptions 0, violations 0, on_violation=alarm\n\
             uptime      12.345 s\n\
             idle        adaptive, asleep 0.0 %, wake-ups 0, in vain 0, polls 0\n\
             tables      limited clients 0 of 1024, departures 0 of 1024, connections 0 of 4\n\
             ntp         stratum 1, precision 2^-24 s\n\
             answered    6: time 5, INIT 0, STEP 1, XDSP 0, RATE 0, XAUD 0, XHLD 0, XDRN 0\n\
             of these    interleaved 0, authenticated 0, F323 0\n\
             unanswered  2: length 0, version 0, mode 2, mac 0, extension 0, stale 0, utc step 0, access 0, limit 0, unauthenticated 0\n"
        )
    );
}

/// A change to the good page, and the notes that it brings.
type Row = (fn(&mut Fields), &'static [&'static str]);

#[test]
fn status_says_what_is_assumed_and_what_is_ahead() {
    let notes = |change: fn(&mut Fields)| {
        let mut fields = good_page();
        change(&mut fields);
        let out = output(Command::Status, &view(&fields));
        let notes: Vec<String> = out
            .lines()
            .filter_map(|line| line.strip_prefix("note        ").map(String::from))
            .collect();
        notes
    };
    let table: &[Row] = &[
        (|_| (), &[]),
        (
            |f| f.flags &= !flag::TIME_MAXERROR_VALID,
            &["the page gives no maximum error of its time, 10 ms are assumed"],
        ),
        (
            |f| f.flags &= !flag::PERIOD_MAXERROR_VALID,
            &["the page gives no maximum error of the counter's period, 50 ppm are assumed"],
        ),
        (
            |f| f.tai_offset_sec = 37,
            &["tai_offset_sec has the sign of vmclock 1.0, its magnitude is taken as TAI-UTC"],
        ),
        (
            |f| f.tai_offset_sec = 5,
            &[
                "the page gives no usable TAI offset, so UTC is not known and not served",
                "tai_offset_sec is flagged valid but is no TAI offset, it is ignored",
            ],
        ),
        (
            |f| {
                f.time_type = TimeType::Utc as u8;
                f.flags &= !flag::TAI_OFFSET_VALID;
            },
            &["the page gives UTC without a TAI offset, so TAI is not known"],
        ),
        (
            |f| f.clock_status = ClockStatus::Freerunning as u8,
            &["the host's clock is not synchronized at present, so the bound keeps growing"],
        ),
        (
            |f| f.flags |= flag::DISRUPTION_SOON,
            &["the host expects a disruption within the day"],
        ),
        (
            |f| f.flags |= flag::DISRUPTION_SOON | flag::DISRUPTION_IMMINENT,
            &["the host expects a disruption within the hour"],
        ),
        (
            |f| {
                f.time_sec = 1_798_675_200 + 3600 + 37; // 2026-12-31T01:00:00Z
                f.leap_indicator = LeapIndicator::PrePos as u8;
            },
            &["a second will be inserted at the end of this UTC day"],
        ),
        (
            |f| {
                f.time_sec = 1_798_675_200 + 3600 + 37;
                f.leap_indicator = LeapIndicator::PreNeg as u8;
            },
            &["a second will be left out at the end of this UTC day"],
        ),
        (
            |f| {
                f.time_sec = 1_798_761_600 + 37; // the start of 2026-12-31T23:59:60Z
                f.leap_indicator = LeapIndicator::Pos as u8;
            },
            &["this is an inserted second"],
        ),
        (|f| f.clock_status = ClockStatus::Unknown as u8, &[]),
    ];
    for (at, (change, expected)) in table.iter().enumerate() {
        assert_eq!(notes(*change), *expected, "row {at}");
    }
}

#[test]
fn status_without_time_still_shows_the_page() {
    let mut fields = good_page();
    fields.clock_status = ClockStatus::Initializing as u8;
    fields.flags &= !flag::VM_GEN_COUNTER_PRESENT;
    let mut view = view(&fields);
    view.reading = Err(NoTime::Unusable {
        why: Unusable::Status(ClockStatus::Initializing),
        stepped: true,
    });
    view.idle = Idle::Poll;
    let out = output(Command::Status, &view);
    for line in [
        "time        no time: clock status initializing (after a disruption)",
        "host clock  initializing",
        "marker      0xfeed",
        "generation  not given",
        "idle        poll, asleep 0.0 %, wake-ups 0, in vain 0, polls 0",
    ] {
        assert!(
            out.lines().any(|shown| shown == line),
            "{line}\nnot in\n{out}"
        );
    }
}

/// A view of a page that has been observed, and judged under `conditions`.
fn judged(pages: &[Fields], conditions: Conditions) -> (Audit, Duty, Option<Withheld>) {
    let (mut audit, mut duty) = (Audit::new(), Duty::new(conditions));
    let mut withheld = None;
    for (seq, page) in (2..).step_by(2).zip(pages) {
        let timeline = Timeline::from_page(page, CounterId::X86Tsc).expect("a good page");
        audit.observe(seq, &timeline, Ticks(C1));
        withheld = duty.judge(&timeline.at(Ticks(C1)).expect("in range"), &audit, false);
    }
    (audit, duty, withheld)
}

#[test]
fn the_audit_of_an_honest_host() {
    let honest = [good_page(), good_page()];
    let (audit, duty, withheld) = judged(&honest, Conditions::DEFAULT);
    assert_eq!(withheld, None);
    let view = View {
        audit: &audit,
        duty: &duty,
        ..view(&good_page())
    };
    assert_eq!(
        output(Command::Audit, &view),
        "updates 2, disruptions 0, violations 0, on_violation=alarm\n\
         0           time left the interval given before\n\
         0           time stepped back\n\
         0           TAI-UTC changed without a leap second\n\
         0           sequence count went back\n\
         0           counter went back\n"
    );
}

#[test]
fn the_audit_of_a_host_that_steps() {
    let mut monotonic = good_page();
    monotonic.flags |= flag::TIME_MONOTONIC;
    let stepped = Fields {
        time_sec: NOON - 1,
        ..monotonic
    };
    let stop = Conditions {
        on_violation: OnViolation::Stop,
        ..Conditions::DEFAULT
    };
    let (audit, duty, withheld) = judged(&[monotonic, stepped], stop);
    let view = View {
        withheld,
        audit: &audit,
        duty: &duty,
        ..view(&stepped)
    };
    let readings = "seq 2 at counter 1311768467463790321: 2026-11-20T12:06:08.500000000 TAI \
                    ± 41201 ns, TAI-UTC 37; seq 4 at counter 1311768467463790321: \
                    2026-11-20T12:06:07.500000000 TAI ± 41201 ns, TAI-UTC 37";
    assert_eq!(
        output(Command::Audit, &view),
        format!(
            "updates 2, disruptions 0, violations 2, on_violation=stop\n\
             1           time left the interval given before\n\
             1           time stepped back\n\
             0           TAI-UTC changed without a leap second\n\
             0           sequence count went back\n\
             0           counter went back\n\
             time left the interval given before: {readings}\n\
             time stepped back: {readings}\n"
        )
    );
    let status = output(Command::Status, &view);
    for line in [
        "serving     no time, XAUD: the host has broken a promise under this disruption marker",
        "audit       updates 2, disruptions 0, violations 2, on_violation=stop",
        &format!("latest      time stepped back: {readings}"),
    ] {
        assert!(
            status.lines().any(|shown| shown == line),
            "{line}\nnot in\n{status}"
        );
    }
}

/// An hour before the leap second at the end of 2026, and one there is none of in truth.
fn before_leap(kind: LeapIndicator) -> Fields {
    Fields {
        time_sec: 1_798_761_600 - 3600 + 37,
        leap_indicator: kind as u8,
        ..good_page()
    }
}

#[test]
fn the_smeared_service_in_every_state() {
    let (noon, sls) = (Smear::NoonLinear, Smear::UtcSls);
    let of = |asked, page: &Fields, smear: Option<Smear>| {
        let reading = told::read(page).expect("a good page");
        let now = smear.and_then(|smear| Some((smear, smear.utc(&reading)?)));
        let view = View {
            smear: Some(SmearView {
                asked,
                port: 1123,
                now,
            }),
            ..view(page)
        };
        let mut boot = String::new();
        report::boot(&mut boot, &view).expect("a String takes everything");
        let line = boot
            .lines()
            .find_map(|line| line.strip_prefix("smear     "))
            .expect("a line at boot");
        let status = output(Command::Status, &view);
        assert!(
            status
                .lines()
                .any(|shown| shown.strip_prefix("smear       ") == Some(line)),
            "{status}"
        );
        let smeared = status
            .lines()
            .find_map(|line| line.strip_prefix("smeared     "));
        (String::from(line), smeared.map(String::from))
    };
    let insert = before_leap(LeapIndicator::PrePos);
    let delete = before_leap(LeapIndicator::PreNeg);
    for (asked, page, smear, line, smeared) in [
        (
            Smearing::Always(noon),
            &insert,
            Some(noon),
            "noon to noon, port 1123, refid XSMR",
            // (43200 - 3600 + 0.5)/86401 s
            Some("UTC -0.458333815 s, ± 41.3 µs of smeared time, ± 459 ms of UTC"),
        ),
        (
            Smearing::Always(noon),
            &delete,
            Some(noon),
            "noon to noon, port 1123, refid XSMR",
            // (43199 - 3599 + 0.5)/86399 s
            Some("UTC +0.458344425 s, ± 41.3 µs of smeared time, ± 459 ms of UTC"),
        ),
        (
            Smearing::Always(sls),
            &insert,
            Some(sls),
            "UTC-SLS, port 1123, refid XSLS",
            Some("UTC 0.000000000 s, ± 41.3 µs of smeared time, ± 41.3 µs of UTC"),
        ),
        (
            Smearing::Hint,
            &insert,
            Some(sls),
            "UTC-SLS by the page's hint, port 1123, refid XSLS",
            Some("UTC 0.000000000 s, ± 41.3 µs of smeared time, ± 41.3 µs of UTC"),
        ),
        (
            Smearing::Hint,
            &insert,
            None,
            "strict UTC by the page's hint, port 1123, refid XVMC",
            None,
        ),
        // Without time: what will be.
        (
            Smearing::Always(noon),
            &insert,
            None,
            "noon to noon, port 1123, refid XSMR",
            None,
        ),
    ] {
        assert_eq!(
            of(asked, page, smear),
            (String::from(line), smeared.map(String::from))
        );
    }
}

#[test]
fn holdover_is_shown_with_its_limit() {
    let freerunning = Fields {
        clock_status: ClockStatus::Freerunning as u8,
        // A third of a second before it was read.
        counter_value: C1 - 800_000_000,
        ..good_page()
    };
    for (holdover_max, line) in [
        (None, "holdover    for 0.333333333 s, without limit"),
        (
            Some(3600),
            "holdover    for 0.333333333 s of 3600 s allowed",
        ),
    ] {
        let conditions = Conditions {
            holdover_max,
            ..Conditions::DEFAULT
        };
        let (audit, duty, withheld) = judged(&[freerunning], conditions);
        assert_eq!(withheld, None);
        let view = View {
            audit: &audit,
            duty: &duty,
            ..view(&freerunning)
        };
        let status = output(Command::Status, &view);
        assert!(status.lines().any(|shown| shown == line), "{status}");
    }
}

#[test]
fn the_network_in_every_state() {
    let mut view = view(&good_page());
    assert_eq!(
        output(Command::Net, &view),
        "device      virtio-net, PCI 00:02.0\n\
         mac         52:54:00:12:34:0a\n\
         address     10.0.2.15/24 by DHCP\n\
         gateway     10.0.2.2\n\
         frames      received 9 (ntp 7, stack 2), sent 8, dropped 1, kicks 6\n"
    );
    for (address, dhcp, expected) in [
        (
            Some((Ipv4Addr::new(192, 0, 2, 7), 32)),
            false,
            "address     192.0.2.7/32\n",
        ),
        (None, true, "address     no address yet, asking DHCP\n"),
        (None, false, "address     no address\n"),
    ] {
        let net = view.net.as_mut().expect("a device");
        (net.address, net.dhcp, net.gateway) = (address, dhcp, None);
        let out = output(Command::Net, &view);
        assert!(
            out.contains(expected) && out.contains("gateway     none\n"),
            "{out}"
        );
    }
    let net = view.net.as_mut().expect("a device");
    let of = |address: &str, prefix, origin, is_duplicate| {
        Some(Address6 {
            address: address.parse().expect("an address"),
            prefix,
            origin,
            is_duplicate,
        })
    };
    net.ipv6 = [
        of("fe80::1", 64, Origin::LinkLocal, false),
        of("2001:db8::1", 128, Origin::CommandLine, true),
        None,
        of("fd00::1", 64, Origin::Advertised, false),
    ];
    let out = output(Command::Net, &view);
    let lines = "ipv6        fe80::1/64\n\
                 ipv6        2001:db8::1/128, which another machine has: not used\n\
                 ipv6        fd00::1/64 by router advertisement\n";
    assert!(out.contains(lines), "{out}");
}
