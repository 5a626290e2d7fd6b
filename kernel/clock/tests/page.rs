//! The layout of the page, and its seqlock from both ends, alone and in threads.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use gnomon_clock::page::{ATTEMPTS, COUNTER_INVALID, LEN, MAGIC, Misplaced, VERSION, flag};
use gnomon_clock::{
    Busy, ClockStatus, CounterId, Fields, LeapIndicator, PageMemory, SmearingHint, TimeType,
    VmclockPage, Writer,
};
use proptest::prelude::*;

/// Different bytes everywhere, so that a field at a wrong place shows.
fn distinct() -> Fields {
    Fields {
        magic: MAGIC,
        size: 0x1716_1514,
        version: 0x1918,
        counter_id: 0x1a,
        time_type: 0x1b,
        seq_count: 0x1f1e_1d1c,
        disruption_marker: 0x2726_2524_2322_2120,
        flags: 0x2f2e_2d2c_2b2a_2928,
        clock_status: 0x32,
        leap_second_smearing_hint: 0x33,
        tai_offset_sec: 0x3534,
        leap_indicator: 0x36,
        counter_period_shift: 0x37,
        counter_value: 0x3f3e_3d3c_3b3a_3938,
        counter_period_frac_sec: 0x4746_4544_4342_4140,
        counter_period_esterror_rate_frac_sec: 0x4f4e_4d4c_4b4a_4948,
        counter_period_maxerror_rate_frac_sec: 0x5756_5554_5352_5150,
        time_sec: 0x5f5e_5d5c_5b5a_5958,
        time_frac_sec: 0x6766_6564_6362_6160,
        time_esterror_nanosec: 0x6f6e_6d6c_6b6a_6968,
        time_maxerror_nanosec: 0x7776_7574_7372_7170,
        vm_generation_counter: 0x7f7e_7d7c_7b7a_7978,
    }
}

#[test]
fn every_field_is_at_its_offset_in_little_endian_order() {
    let mut expected: [u8; LEN] = core::array::from_fn(|i| 0x10 + u8::try_from(i).unwrap_or(0));
    expected[..4].copy_from_slice(b"VCLK");
    expected[0x20..0x22].fill(0);
    assert_eq!(distinct().to_bytes(), expected);
    assert_eq!(Fields::from_bytes(&expected), distinct());
    assert_eq!(LEN, 112);
}

#[test]
fn a_negative_tai_offset_is_twos_complement() {
    let fields = Fields {
        tai_offset_sec: -37,
        ..Fields::stock()
    };
    let bytes = fields.to_bytes();
    assert_eq!(bytes[0x24..0x26], [0xdb, 0xff]);
    assert_eq!(Fields::from_bytes(&bytes).tai_offset_sec, -37);
}

#[test]
fn codes_and_flags_are_those_of_the_abi() {
    fn known<T: TryFrom<u8, Error = u8> + core::fmt::Display>(names: &[&str]) {
        for code in 0..=u8::MAX {
            match (T::try_from(code), names.get(usize::from(code))) {
                (Ok(value), Some(name)) => assert_eq!(value.to_string(), *name),
                (Err(unknown), None) => assert_eq!(unknown, code),
                _ => panic!("code {code}"),
            }
        }
    }
    known::<CounterId>(&["ARM CNTVCT", "x86 TSC"]);
    known::<TimeType>(&["UTC", "TAI", "monotonic", "smeared", "maybe smeared"]);
    known::<ClockStatus>(&[
        "unknown",
        "initializing",
        "synchronized",
        "freerunning",
        "unreliable",
    ]);
    known::<LeapIndicator>(&[
        "none",
        "insert at month end",
        "delete at month end",
        "inside the inserted second",
        "inserted at last month end",
        "deleted at last month end",
    ]);
    known::<SmearingHint>(&["strict", "noon linear", "UTC-SLS"]);

    let in_order = [
        flag::TAI_OFFSET_VALID,
        flag::DISRUPTION_SOON,
        flag::DISRUPTION_IMMINENT,
        flag::PERIOD_ESTERROR_VALID,
        flag::PERIOD_MAXERROR_VALID,
        flag::TIME_ESTERROR_VALID,
        flag::TIME_MAXERROR_VALID,
        flag::TIME_MONOTONIC,
        flag::VM_GEN_COUNTER_PRESENT,
        flag::NOTIFICATION_PRESENT,
    ];
    for (bit, flag) in in_order.into_iter().enumerate() {
        assert_eq!(flag, 1 << bit);
        let fields = Fields {
            flags: flag,
            ..Fields::stock()
        };
        assert!(fields.has(flag) && !fields.has(flag | 1 << 63));
    }
}

#[test]
fn optional_fields_need_their_flag_and_their_size() {
    type Optional = fn(&Fields) -> Option<u64>;
    let cases: [(Optional, u64, u32, u64); 5] = [
        (
            Fields::period_esterror,
            flag::PERIOD_ESTERROR_VALID,
            0x40,
            0x4f4e_4d4c_4b4a_4948,
        ),
        (
            Fields::period_maxerror,
            flag::PERIOD_MAXERROR_VALID,
            0x48,
            0x5756_5554_5352_5150,
        ),
        (
            Fields::time_esterror,
            flag::TIME_ESTERROR_VALID,
            0x60,
            0x6f6e_6d6c_6b6a_6968,
        ),
        (
            Fields::time_maxerror,
            flag::TIME_MAXERROR_VALID,
            0x68,
            0x7776_7574_7372_7170,
        ),
        (
            Fields::vm_generation,
            flag::VM_GEN_COUNTER_PRESENT,
            0x70,
            0x7f7e_7d7c_7b7a_7978,
        ),
    ];
    for (field, flag, end, value) in cases {
        let with = |flags, size| {
            field(&Fields {
                flags,
                size,
                ..distinct()
            })
        };
        assert_eq!(with(flag, end), Some(value), "{end:#x}");
        assert_eq!(with(flag, end - 1), None, "{end:#x}");
        assert_eq!(with(!flag, end), None, "{end:#x}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 8 } else { 500 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn bytes_and_fields_are_the_same(bytes in proptest::collection::vec(any::<u8>(), LEN)) {
        let mut bytes: [u8; LEN] = bytes.try_into().expect("of that length");
        bytes[0x20..0x22].fill(0);
        bytes[0x0c] &= !1;
        let fields = Fields::from_bytes(&bytes);
        prop_assert_eq!(fields.to_bytes(), bytes);
        prop_assert_eq!(VmclockPage::new(&fields).snapshot(), Ok(fields));
    }
}

#[test]
fn a_snapshot_is_what_was_published() {
    let page = VmclockPage::new(&Fields::stock());
    let mut writer = Writer::new(&page, 0);
    assert_eq!(writer.publish(&distinct()), Ok(2));
    let constants = Fields::stock();
    let expected = Fields {
        magic: constants.magic,
        size: constants.size,
        version: constants.version,
        seq_count: 2,
        ..distinct()
    };
    assert_eq!(page.snapshot(), Ok(expected));
    assert_eq!(page.marker(), distinct().disruption_marker);
    assert_eq!(constants.version, VERSION);
    assert_eq!(constants.counter_id, COUNTER_INVALID);
}

/// Guest memory that remembers each write, and can be told to fail.
#[derive(Default)]
struct Log {
    writes: Vec<(usize, Vec<u8>)>,
    fail_at: Option<usize>,
}

impl PageMemory for &mut Log {
    type Error = &'static str;

    fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), &'static str> {
        if self.fail_at == Some(self.writes.len()) {
            return Err("no such process");
        }
        self.writes.push((offset, bytes.to_vec()));
        Ok(())
    }
}

#[test]
fn an_update_is_odd_then_body_then_even() {
    let mut log = Log::default();
    assert_eq!(Writer::new(&mut log, 0x100).publish(&distinct()), Ok(0x102));
    let bytes = distinct().to_bytes();
    let expected = [
        (0x0c, vec![0x01, 0x01, 0, 0]),
        (0x0a, bytes[0x0a..0x0c].to_vec()),
        (0x10, bytes[0x10..].to_vec()),
        (0x0c, vec![0x02, 0x01, 0, 0]),
    ];
    assert_eq!(log.writes, expected);
}

#[test]
fn the_count_wraps_and_survives_a_writer_that_died() {
    let page = VmclockPage::new(&Fields::stock());
    for (present, next) in [(u32::MAX - 1, 0), (u32::MAX, 2), (6, 8), (7, 10)] {
        assert_eq!(Writer::new(&page, present).publish(&distinct()), Ok(next));
        assert_eq!(page.snapshot().map(|fields| fields.seq_count), Ok(next));
    }
}

#[test]
fn a_failed_update_leaves_an_odd_count_until_the_next() {
    for fail_at in 1..4 {
        let mut log = Log {
            fail_at: Some(fail_at),
            ..Log::default()
        };
        let mut writer = Writer::new(&mut log, 4);
        assert_eq!(writer.publish(&distinct()), Err("no such process"));
        assert_eq!(log.writes[0], (0x0c, vec![5, 0, 0, 0]));
        assert!(log.writes[1..].iter().all(|(offset, _)| *offset != 0x0c));
    }

    // Memory that fails only once: the same writer ends what it began.
    let mut log = Log {
        fail_at: Some(2),
        ..Log::default()
    };
    let mut writer = Writer::new(FailsOnce(&mut log), 4);
    assert_eq!(writer.publish(&distinct()), Err("no such process"));
    assert_eq!(writer.publish(&distinct()), Ok(8));
    let counts = log.writes.iter().filter(|(offset, _)| *offset == 0x0c);
    assert!(counts.map(|(_, count)| count[0]).eq([5, 7, 8]));
}

struct FailsOnce<'a>(&'a mut Log);

impl PageMemory for FailsOnce<'_> {
    type Error = &'static str;

    fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), &'static str> {
        let result = (&mut *self.0).write(offset, bytes);
        if result.is_err() {
            self.0.fail_at = None;
        }
        result
    }
}

#[test]
fn writes_into_a_page_are_whole_fields() {
    let page = VmclockPage::new(&Fields::stock());
    let mut memory = &page;
    assert_eq!(
        memory.write(0x18, &[1, 0, 0, 0, 0, 0, 0, 0, 9, 9, 3]),
        Ok(())
    );
    let fields = page.snapshot().expect("even");
    assert_eq!((fields.flags, fields.clock_status), (1, 3));

    for (offset, length, at) in [
        (0x11, 8, 0x11),
        (0x10, 7, 0x10),
        (0x10, 12, 0x18),
        (0x25, 1, 0x25),
        (0x68, 9, 0x70),
        (0x70, 1, 0x70),
        (usize::MAX, 1, usize::MAX),
    ] {
        let result = memory.write(offset, &[0; 16][..length]);
        assert_eq!(
            result,
            Err(Misplaced { offset: at }),
            "{offset:#x}+{length}"
        );
    }
}

#[test]
fn a_stuck_update_ends_in_busy_and_recovers() {
    let page = VmclockPage::new(&Fields {
        seq_count: 3,
        ..Fields::stock()
    });
    let mut reads = 0;
    let stuck = page.snapshot_with(|| reads += 1);
    assert_eq!(stuck, Err(Busy { odd: true }));
    assert_eq!(
        reads, 0,
        "no counter read counts while an update is in progress"
    );
    assert_eq!(Writer::new(&page, 3).publish(&distinct()), Ok(6));
    assert!(page.snapshot().is_ok());
}

#[test]
fn a_writer_that_never_stops_ends_in_busy_and_recovers() {
    let page = VmclockPage::new(&Fields::stock());
    let mut count = 0_u32;
    let starved = page.snapshot_with(|| {
        count += 1;
        (&page).write(0x0c, &(2 * count).to_le_bytes())
    });
    assert_eq!(starved, Err(Busy { odd: false }));
    assert_eq!(count, ATTEMPTS);
    assert_eq!(
        page.snapshot().map(|fields| fields.seq_count),
        Ok(2 * ATTEMPTS)
    );
}

#[test]
fn a_snapshot_that_an_update_interrupts_is_taken_again() {
    let page = VmclockPage::new(&Fields::stock());
    let mut writer = Writer::new(&page, 0);
    let mut reads = 0;
    let (fields, value) = page
        .snapshot_with(|| {
            reads += 1;
            if reads < 3 {
                writer
                    .publish(&Fields {
                        disruption_marker: 1 + reads,
                        ..Fields::stock()
                    })
                    .expect("whole fields");
            }
            reads
        })
        .expect("two updates only");
    assert_eq!(
        (fields.seq_count, fields.disruption_marker, value),
        (4, 3, 3)
    );
}

/// A page on which everything follows from `k`.
fn derived(k: u64) -> Fields {
    let byte = k.to_le_bytes()[0];
    Fields {
        counter_id: byte,
        time_type: !byte,
        disruption_marker: k,
        flags: !k,
        clock_status: byte,
        leap_second_smearing_hint: !byte,
        tai_offset_sec: i16::from(byte),
        leap_indicator: byte,
        counter_period_shift: !byte,
        counter_value: k << 32,
        counter_period_frac_sec: k.wrapping_mul(3),
        counter_period_esterror_rate_frac_sec: k.wrapping_mul(5),
        counter_period_maxerror_rate_frac_sec: k.wrapping_mul(7),
        time_sec: k.rotate_left(8),
        time_frac_sec: k.rotate_left(16),
        time_esterror_nanosec: k.rotate_left(24),
        time_maxerror_nanosec: k.rotate_left(40),
        vm_generation_counter: k.reverse_bits(),
        ..Fields::stock()
    }
}

/// A page with a counter beside it that changes in the middle of every update.
struct PageAndCounter<'a>(&'a VmclockPage, &'a AtomicU64);

impl PageMemory for PageAndCounter<'_> {
    type Error = Misplaced;

    fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), Misplaced> {
        if let (0x10, Some(marker)) = (offset, bytes.first_chunk()) {
            self.1.store(u64::from_le_bytes(*marker), Ordering::Relaxed);
        }
        self.0.write(offset, bytes)
    }
}

#[test]
fn threads_never_see_a_mixture() {
    const UPDATES: u64 = if cfg!(miri) { 40 } else { 200_000 };
    let page = VmclockPage::new(&derived(0));
    let counter = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = Writer::new(PageAndCounter(&page, &counter), 0);
            for k in 1..=UPDATES {
                writer.publish(&derived(k)).expect("whole fields");
                if k % 8 == 0 {
                    // Time between updates, as there is in life.
                    (0..20).for_each(|_| core::hint::spin_loop());
                }
            }
            done.store(true, Ordering::Release);
        });
        let readers: [_; 2] = core::array::from_fn(|_| {
            scope.spawn(|| {
                let mut last = 0;
                loop {
                    let finished = done.load(Ordering::Acquire);
                    if let Ok((fields, read)) =
                        page.snapshot_with(|| counter.load(Ordering::Relaxed))
                    {
                        let k = fields.disruption_marker;
                        let seq_count = u32::try_from(2 * k).expect("few updates");
                        assert_eq!(
                            fields,
                            Fields {
                                seq_count,
                                ..derived(k)
                            }
                        );
                        assert_eq!(read, k, "the counter was read outside the window");
                        assert!(k >= last, "an older page came back");
                        last = k;
                    }
                    if finished {
                        return last;
                    }
                }
            })
        });
        for reader in readers {
            assert_eq!(reader.join().expect("no mixture"), UPDATES);
        }
    });
}

#[test]
fn a_thread_that_never_stops_publishing_is_borne_and_outlived() {
    const READS: u32 = if cfg!(miri) { 3 } else { 2_000 };
    let page = VmclockPage::new(&derived(0));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut writer = Writer::new(&page, 0);
            let mut updates = 0;
            while !stop.load(Ordering::Relaxed) {
                updates += 1;
                writer.publish(&derived(updates)).expect("whole fields");
            }
            updates
        });
        while page.marker() == 0 {
            thread::yield_now();
        }
        for _ in 0..READS {
            let mut looks = 0;
            let snapshot = page.snapshot_with(|| looks += 1);
            assert!(looks <= ATTEMPTS, "the bound is a bound");
            // Whether it was starved or not, and never a mixture.
            if let Ok((fields, ())) = snapshot {
                let k = fields.disruption_marker;
                let expected = Fields {
                    seq_count: fields.seq_count,
                    ..derived(k)
                };
                assert_eq!(fields, expected);
            }
        }
        stop.store(true, Ordering::Relaxed);
        let updates = writer.join().expect("stops");
        let last = page.snapshot().map(|fields| fields.disruption_marker);
        assert_eq!(last, Ok(updates), "and then it is there at once");
    });
}

#[test]
fn a_page_can_be_shared() {
    fn shared<T: Sync + Send>() {}
    shared::<VmclockPage>();
}
