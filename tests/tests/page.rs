//! The vmclock page, as the guest sees it and whatever is in it.

use std::fs;

use gnomon_clock::page::flag;
use gnomon_clock::{ClockStatus, Fields};
use gnomon_tests::console::TimeLine;
use gnomon_tests::guest::{Guest, TakenPage, machine};
use gnomon_tests::ntp::Client;
use gnomon_tests::temporary::Temporary;
use gnomon_tests::{Arch, arch};
use serde_json::json;

gnomon_tests::on_both![
    guest_memory_holds_what_was_published,
    wrong_constants_leave_no_time,
    every_unusable_page_has_its_reason,
    every_usable_page_is_served,
    bound_reaches_clients_and_console_and_ends_at_16_seconds,
    update_that_never_ends_leaves_no_time,
    updates_without_a_pause_are_never_torn,
];

fn guest_memory_holds_what_was_published() {
    let (mut guest, _) = Guest::serving();
    let _page = guest.take_page();
    let fields = guest.publisher().report().fields.expect("written");
    let published = fields.to_bytes();

    let dump = guest.monitor(&format!("xp /112xb {:#x}", arch().page()));
    let bytes = dump
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("0x"))
        .map(|word| u8::from_str_radix(word, 16).expect("hexadecimal"));
    assert_eq!(bytes.collect::<Vec<u8>>(), published);

    let file = Temporary::new("page");
    let path = file.path();
    let arguments = json!({ "val": arch().page(), "size": 0x1000, "filename": path });
    guest.qmp().execute("pmemsave", arguments).expect("saves");
    let region = fs::read(path).expect("written");
    assert_eq!(region[..published.len()], published);
    assert!(region[published.len()..].iter().all(|byte| *byte == 0));

    // The guest itself decodes the same.
    let page = guest.command("page");
    let raw = |name: &str| {
        let line = page.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("{name}\n{page}"));
        line[name.len()..]
            .split_whitespace()
            .next()
            .map(str::to_owned)
    };
    for (name, value) in [
        ("magic", format!("{:#x}", fields.magic)),
        ("size", fields.size.to_string()),
        ("version", fields.version.to_string()),
        ("counter_id", fields.counter_id.to_string()),
        ("time_type", fields.time_type.to_string()),
        ("seq_count", fields.seq_count.to_string()),
        (
            "disruption_marker",
            format!("{:#x}", fields.disruption_marker),
        ),
        ("flags", format!("{:#x}", fields.flags)),
        ("clock_status", fields.clock_status.to_string()),
        (
            "leap_second_smearing_hint",
            fields.leap_second_smearing_hint.to_string(),
        ),
        ("tai_offset_sec", fields.tai_offset_sec.to_string()),
        ("leap_indicator", fields.leap_indicator.to_string()),
        (
            "counter_period_shift",
            fields.counter_period_shift.to_string(),
        ),
        ("counter_value", format!("{:#x}", fields.counter_value)),
        (
            "counter_period_frac_sec",
            format!("{:#x}", fields.counter_period_frac_sec),
        ),
        (
            "counter_period_esterror_rate_frac_sec",
            format!("{:#x}", fields.counter_period_esterror_rate_frac_sec),
        ),
        (
            "counter_period_maxerror_rate_frac_sec",
            format!("{:#x}", fields.counter_period_maxerror_rate_frac_sec),
        ),
        ("time_sec", fields.time_sec.to_string()),
        ("time_frac_sec", format!("{:#x}", fields.time_frac_sec)),
        (
            "time_esterror_nanosec",
            fields.time_esterror_nanosec.to_string(),
        ),
        (
            "time_maxerror_nanosec",
            fields.time_maxerror_nanosec.to_string(),
        ),
        (
            "vm_generation_counter",
            format!("{:#x}", fields.vm_generation_counter),
        ),
    ] {
        assert_eq!(raw(name), Some(value), "{name}\n{page}");
    }
}

/// A guest that asks nothing but the page: a real-time clock's time would be shown in its place.
fn serving_by_the_page() -> (Guest, Client) {
    Guest::serving_with(machine().append("source=vmclock"))
}

/// Under the same marker, so that the reason is the page's content alone.
fn assert_no_time(guest: &mut Guest, client: &Client, why: &str) {
    client.ask().assert_no_time(&["INIT"]);
    assert_eq!(guest.time(), Err(format!("no time: {why}")));
}

fn assert_time(guest: &mut Guest, client: &Client) -> TimeLine {
    client.ask().assert_right();
    guest.time().expect("time")
}

/// The constants, which a publisher never changes: written over, and put back.
fn wrong_constants_leave_no_time() {
    let (mut guest, client) = serving_by_the_page();
    let mut page = guest.take_page();
    let good = page.valid.to_bytes();
    let cases: [(usize, &[u8], &str); 9] = [
        (0, b"VCLX", "magic 0x584c4356 is not a vmclock page's"),
        (0, &[0; 4], "magic 0x00000000 is not a vmclock page's"),
        (8, &[0, 0], "vmclock version 0 is not known"),
        (8, &[2, 0], "vmclock version 2 is not known"),
        (8, &[1, 1], "vmclock version 257 is not known"),
        (
            4,
            &[0; 4],
            "region of 0 bytes is too small to hold the time",
        ),
        (
            4,
            &[0x57, 0, 0, 0],
            "region of 87 bytes is too small to hold the time",
        ),
        (10, &[0xff], "the page carries no time"),
        (10, &[7], "counter 7 is not known"),
    ];
    for (offset, bytes, why) in cases {
        page.poke(offset, bytes);
        assert_no_time(&mut guest, &client, why);
        page.poke(offset, &good[offset..offset + bytes.len()]);
        assert_time(&mut guest, &client);
    }
    // A region that ends right behind the time holds all that it takes; the errors are assumed then.
    page.poke(4, &[0x58, 0, 0, 0]);
    client.ask().assert_right();
    let line = guest.time().expect("time");
    assert!(line.bound >= 10_000_000, "{line:?}");
    let status = guest.command("status");
    assert!(
        status.contains("no maximum error of its time, 10 ms are assumed"),
        "{status}"
    );
}

/// What a publisher may write that has no time for us.
fn every_unusable_page_has_its_reason() {
    let (mut guest, client) = serving_by_the_page();
    let mut page = guest.take_page();
    let valid = page.valid;
    let counter = |counter_id| Fields {
        counter_id,
        ..valid
    };
    let kind = |time_type| Fields { time_type, ..valid };
    let status = |clock_status| Fields {
        clock_status,
        ..valid
    };
    let other_counter = match arch() {
        Arch::X86_64 => (counter(0), "counter ARM CNTVCT is not this machine's"),
        Arch::Aarch64 => (counter(1), "counter x86 TSC is not this machine's"),
    };
    let cases = [
        other_counter,
        (counter(0xff), "the page carries no time"),
        (kind(2), "monotonic time is not usable"),
        (kind(3), "smeared time is not usable"),
        (kind(4), "maybe smeared time is not usable"),
        (kind(5), "time type 5 is not known"),
        (status(0), "clock status unknown"),
        (status(1), "clock status initializing"),
        (status(4), "clock status unreliable"),
        (status(5), "clock status 5 is not known"),
        (
            Fields {
                leap_indicator: 6,
                ..valid
            },
            "leap indicator 6 is not known",
        ),
        (
            Fields {
                counter_period_shift: 128,
                ..valid
            },
            "period shift 128 is above 127",
        ),
        (
            Fields {
                counter_period_frac_sec: 0,
                ..valid
            },
            "counter period is zero",
        ),
        (
            Fields {
                time_sec: u64::MAX,
                ..valid
            },
            "time is out of range",
        ),
    ];
    for (fields, why) in cases {
        page.publish(&fields);
        guest.wait_said(&format!("] time: no time: {why}\r\n"));
        assert_no_time(&mut guest, &client, why);
    }
    page.publish(&valid);
    assert_time(&mut guest, &client);
}

/// What a publisher may write that is usable in its own way.
fn every_usable_page_is_served() {
    let (mut guest, client) = Guest::serving();
    let mut page = guest.take_page();
    let valid = page.valid;
    let without = |flags: u64| Fields {
        flags: valid.flags & !flags,
        ..valid
    };
    for (code, name) in [
        (ClockStatus::Synchronized, "synchronized"),
        (ClockStatus::Freerunning, "freerunning"),
    ] {
        page.publish(&Fields {
            clock_status: code as u8,
            ..valid
        });
        assert_eq!(assert_time(&mut guest, &client).status, name);
    }
    // The sign of vmclock 1.0.
    page.publish(&Fields {
        tai_offset_sec: 37,
        ..valid
    });
    assert_eq!(assert_time(&mut guest, &client).tai_offset, 37);
    assert_remark(&mut guest, "tai_offset_sec has the sign of vmclock 1.0");
    // No greatest errors: assumed ones.
    page.publish(&without(flag::TIME_MAXERROR_VALID));
    assert!(assert_time(&mut guest, &client).bound >= 10_000_000);
    assert_remark(
        &mut guest,
        "no maximum error of its time, 10 ms are assumed",
    );
    page.publish(&without(flag::PERIOD_MAXERROR_VALID));
    assert_time(&mut guest, &client);
    assert_remark(
        &mut guest,
        "no maximum error of the counter's period, 50 ppm are assumed",
    );
    // UTC without an offset is UTC all the same.
    let utc_time = valid
        .time_sec
        .checked_add_signed(valid.tai_offset_sec.into());
    page.publish(&Fields {
        time_type: 0,
        time_sec: utc_time.expect("after 1970"),
        ..without(flag::TAI_OFFSET_VALID)
    });
    client.ask().assert_right();
    let line = guest.command("time");
    assert!(
        line.contains("Z ± ") && line.contains("  TAI-UTC unknown  "),
        "{line}"
    );
    // TAI without an offset is no UTC, so there is none to serve.
    page.publish(&without(flag::TAI_OFFSET_VALID));
    client.ask().assert_no_time(&["INIT"]);
    let line = guest.command("time");
    assert!(
        line.contains("  TAI-UTC unknown  ") && !line.contains("no time"),
        "{line}"
    );
    assert_remark(&mut guest, "so UTC is not known and not served");
    page.publish(&valid);
    assert_time(&mut guest, &client);
}

fn assert_remark(guest: &mut Guest, remark: &str) {
    let status = guest.command("status");
    assert!(status.contains(remark), "{remark}\n{status}");
}

fn bound_reaches_clients_and_console_and_ends_at_16_seconds() {
    let (mut guest, client) = Guest::serving();
    let mut page = guest.take_page();
    let with_error = |time_maxerror_nanosec| Fields {
        time_maxerror_nanosec,
        ..page.valid
    };
    let (second, too_much) = (with_error(1_000_000_000), with_error(u64::MAX));
    page.publish(&second);
    let reply = client.ask();
    reply.assert_right();
    assert!(reply.root_dispersion > 1 << 16, "{reply:?}");
    let line = guest.time().expect("time");
    assert!(line.bound >= 1_000_000_000, "{line:?}");
    page.publish(&too_much);
    client.ask().assert_no_time(&["XDSP"]);
}

fn update_that_never_ends_leaves_no_time() {
    let (mut guest, client) = Guest::serving();
    let mut page = guest.take_page();
    let seq_count = page.fields().seq_count;
    page.poke(0x0c, &(seq_count | 1).to_le_bytes());
    assert_no_time(&mut guest, &client, "page update does not end");
    assert_eq!(guest.command("page"), "page update does not end\n");
    // Whoever takes over ends it.
    let valid = page.valid;
    page.publish(&valid);
    assert_time(&mut guest, &client);
}

/// A page that changes all the time is read between two changes or not at all, never torn.
fn updates_without_a_pause_are_never_torn() {
    let (guest, client) = Guest::serving();
    let mut page: TakenPage = guest.take_page();
    let valid = page.valid;
    assert_ne!(valid.flags & flag::TAI_OFFSET_VALID, 0);
    // An hour by one field and a second by another: with one of them alone it is neither page.
    let ahead = Fields {
        time_sec: valid.time_sec + 3600,
        tai_offset_sec: valid.tai_offset_sec + 1,
        ..valid
    };
    let mut seq_count = page.fields().seq_count;
    let asked = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut times = 0;
            for _ in 0..500 {
                let reply = client.ask();
                if reply.leap == 3 {
                    reply.assert_no_time(&["INIT"]);
                    continue;
                }
                let shifted = reply.receive.wrapping_sub(reply.sent) > 1800 << 32
                    && reply.receive.wrapping_sub(reply.sent).cast_signed() > 0;
                reply.assert_right_shifted(if shifted { 3601 } else { 0 });
                times += 1;
            }
            times
        });
        while !asking.is_finished() {
            // One after the other, so that an update takes as long as a reading.
            for fields in [&ahead, &valid] {
                seq_count |= 1;
                page.poke(0x0c, &seq_count.to_le_bytes());
                page.poke(0x24, &fields.tai_offset_sec.to_le_bytes());
                page.poke(0x48, &fields.time_sec.to_le_bytes());
                seq_count = seq_count.wrapping_add(1);
                page.poke(0x0c, &seq_count.to_le_bytes());
            }
        }
        asking.join().expect("every reply is of one page")
    });
    assert!(asked > 0, "the page was read now and then");
}
