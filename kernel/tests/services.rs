//! What firmware and hypervisor offer, by scripted calls and a scripted CPUID: every service present,
//! every one denied by itself, and hosts that answer nonsense.

use gnomon_clock::{Fields, Period, Stamp, Ticks, page::flag};
use gnomon_kernel::services::Services;
use gnomon_kernel::services::counters::{Rate, Watch};
use gnomon_kernel::services::hypervisor::Processor;
use gnomon_kernel::services::smccc::{self, Call, Conduit, Ptp, Smccc, StolenTime};
use proptest::prelude::*;

const NO: u64 = u64::MAX;
/// A 32-bit function's −1 may leave anything in the upper half.
const SHORT_NO: u64 = 0x1234_5678_ffff_ffff;

const KVM_UID: [u64; 4] = [0xb66f_b428, 0xe911_c52e, 0x564b_caa9, 0x743a_004d];
/// What KVM with everything answers, by function and first argument (`ANY`: whatever that is).
const ANY: u64 = u64::MAX;
const EVERYTHING: [(u64, u64, [u64; 4]); 13] = [
    (0x8400_0000, ANY, [0x1_0001, 0, 0, 0]),
    (0x8000_0000, ANY, [0x1_0001, 0, 0, 0]),
    (0x8000_0001, 0x8000_8000, [1, 0, 0, 0]),
    (0x8000_0001, 0xc500_0020, [0, 0, 0, 0]),
    (0x8600_ff01, ANY, KVM_UID),
    (0x8600_0000, ANY, [3, 0, 0, 0]),
    (
        0x8600_0001,
        0,
        [0x18e9_4a1b, 0x8000_0001, 0x12, 0x3456_789a],
    ),
    (0x8400_0050, ANY, [0x1_0000, 0, 0, 0]),
    (0x8400_0051, 0xc400_0053, [0, 0, 0, 0]),
    (
        0x8400_0052,
        ANY,
        [0x00e0_210d, 0xeb11_8443, 0x4452_7080, 0x4c5a_4e55],
    ),
    (0xc400_0053, 192, [0, 0x1111, 0x2222, 0x3333]),
    (0xc500_0020, 0xc500_0021, [0, 0, 0, 0]),
    (0xc500_0021, ANY, [0x9_0000_0040, 0, 0, 0]),
];

/// A host that answers from the table, all but `denied`.
fn host(denied: &[u64], no: u64) -> impl FnMut([u64; 4]) -> [u64; 4] {
    move |[function, argument, ..]| {
        let found = EVERYTHING.iter().find(|(known, with, _)| {
            *known == function && [ANY, argument].contains(with) && !denied.contains(known)
        });
        found.map_or([no, 0, 0, 0], |(.., answer)| *answer)
    }
}

fn discover(call: Call<'_>) -> Smccc {
    static STOLEN: StolenTime = StolenTime::new(0, 0, 1_500_000);
    let rate = Rate {
        hertz: 62_500_000,
        unit: 1,
        source: "CNTFRQ",
    };
    Smccc::discover(Some((Conduit::Hvc, call)), Some(rate), |_| Some(&STOLEN))
}

fn listed(services: &dyn Services) -> Vec<String> {
    let mut out = String::new();
    services.list(&mut out).expect("a String takes everything");
    out.lines().map(str::to_owned).collect()
}

const ALL: [&str; 9] = [
    "conduit     hvc",
    "psci        1.1",
    "smccc       1.1",
    "arch        workaround 1, pv time",
    "vendor      KVM, 28b46fb6-2ec5-11e9-a9ca-4b564d003a74",
    "kvm         0x3 0x0 0x0 0x0, features, ptp",
    "ptp         virtual counter",
    "trng        1.0, 0d21e000-4384-11eb-8070-5244554e5a4c",
    "pv time     at 0x900000040, 1500000 ns stolen",
];

#[test]
fn all_services() {
    let found = discover(&mut host(&[], NO));
    assert_eq!(listed(&found), ALL);
    assert!(found.has_ptp() && found.has_entropy());
    assert_eq!(found.stolen(), Some(1_500_000));
}

/// Each denial alone takes away exactly its own line.
#[test]
fn each_denial_is_without_consequence_for_the_others() {
    let rows: [(&[u64], usize, &str); 9] = [
        (&[0x8400_0000], 1, "psci        absent"),
        (&[0x8000_0000], 2, "smccc       absent"),
        (&[0x8000_0001], 3, "arch        absent"),
        (&[0x8600_ff01], 4, "vendor      absent"),
        (&[0x8600_0000], 5, "kvm         absent"),
        (&[0x8600_0001], 6, "ptp         absent"),
        (&[0x8400_0050], 7, "trng        absent"),
        (&[0xc500_0020], 8, "pv time     absent"),
        (&[0xc500_0021], 8, "pv time     absent"),
    ];
    for no in [NO, SHORT_NO] {
        for (denied, row, line) in rows {
            let mut expected = ALL;
            expected[row] = line;
            assert_eq!(
                listed(&discover(&mut host(denied, no))),
                expected,
                "{denied:x?}"
            );
        }
    }
    let found = discover(&mut host(&[0x8400_0051], NO));
    assert!(!found.has_entropy());
    assert!(listed(&found)[7].starts_with("trng        1.0, without RND64, "));
    let found = discover(&mut host(&[0x8400_0052], NO));
    assert!(found.has_entropy());
    assert_eq!(listed(&found)[7], "trng        1.0");
}

#[test]
fn nothing_but_psci() {
    let all: Vec<u64> = EVERYTHING
        .iter()
        .skip(1)
        .map(|(function, ..)| *function)
        .collect();
    let found = discover(&mut host(&all, NO));
    let rows = listed(&found);
    assert_eq!(rows[..2], ALL[..2]);
    assert!(
        rows[2..].iter().all(|row| row.ends_with("  absent")),
        "{rows:?}"
    );
    assert!(!found.has_ptp() && !found.has_entropy());
    assert_eq!(found.stolen(), None);
}

#[test]
fn without_a_conduit_nothing_is_called() {
    let found = Smccc::discover(None, None, |_| panic!("maps"));
    let rows = listed(&found);
    assert_eq!(rows.len(), ALL.len());
    assert!(rows.iter().all(|row| row.ends_with("  absent")), "{rows:?}");
    assert_eq!(found.rate(), None);
}

/// The numbers of a vendor who is not KVM are not called by KVM's meaning.
#[test]
fn a_stranger_is_not_asked_for_services_of_kvm() {
    let mut kvm = host(&[], NO);
    let mut called = Vec::new();
    let mut call = |registers: [u64; 4]| {
        called.push(registers[0]);
        match registers[0] {
            0x8600_ff01 => [1, 2, 3, 4],
            _ => kvm(registers),
        }
    };
    let rows = listed(&discover(&mut call));
    assert_eq!(rows[4], "vendor      01000000-0200-0000-0300-000004000000");
    assert_eq!(
        [&rows[5], &rows[6]],
        ["kvm         absent", "ptp         absent"]
    );
    assert_eq!(rows[7..], ALL[7..], "the rest is there");
    assert!(!called.contains(&0x8600_0000) && !called.contains(&0x8600_0001));
}

#[test]
fn the_hosts_time_with_our_counter() {
    assert_eq!(
        smccc::ptp(&mut host(&[], NO)),
        Some(Ptp {
            nanoseconds: 0x18e9_4a1b_8000_0001,
            counter: 0x12_3456_789a
        })
    );
    let mut asked = [0; 4];
    let denied = smccc::ptp(&mut |registers| {
        asked = registers;
        [SHORT_NO, 0, 0, 0]
    });
    assert_eq!(denied, None);
    assert_eq!(asked, [0x8600_0001, 0, 0, 0], "the virtual counter");
}

#[test]
fn random_bits() {
    let bits = smccc::entropy(&mut host(&[], NO)).expect("there are some");
    assert_eq!(bits[..3], [0x11, 0x11, 0]);
    assert_eq!(bits[16..19], [0x33, 0x33, 0]);
    assert_eq!(smccc::entropy(&mut host(&[0xc400_0053], NO)), None);
    // It has to wait for some, and does not wait for ever.
    for (dry, expected) in [(3, true), (u32::MAX, false)] {
        let mut left = dry;
        let mut calls = 0;
        let bits = smccc::entropy(&mut |_| {
            calls += 1;
            left = left.saturating_sub(1);
            match left {
                0 => [0, 1, 2, 3],
                _ => [0xffff_fffd, 0, 0, 0],
            }
        });
        assert_eq!(bits.is_some(), expected);
        assert!(calls <= 100, "{calls}");
    }
}

#[test]
fn stolen_time_in_the_wrong_place_or_layout() {
    static NEWER: StolenTime = StolenTime::new(1, 0, 5);
    static OTHER: StolenTime = StolenTime::new(0, 4, 5);
    fn at(address: u64, map: impl FnOnce(u64) -> Option<&'static StolenTime>) -> (String, Smccc) {
        let mut everything = host(&[], NO);
        let mut call = |registers: [u64; 4]| match registers[0] {
            0xc500_0021 => [address, 0, 0, 0],
            _ => everything(registers),
        };
        let found = Smccc::discover(Some((Conduit::Smc, &mut call)), None, map);
        (listed(&found)[8].clone(), found)
    }
    for denied in [0, NO, 0xffff_ffff, 1 << 63] {
        let (row, _) = at(denied, |_| panic!("maps {denied:#x}"));
        assert_eq!(row, "pv time     absent");
    }
    let (row, _) = at(0x9_0000_0008, |_| panic!("maps"));
    assert_eq!(
        row,
        "pv time     refused: nothing can be read at 0x900000008"
    );
    let (row, _) = at(0x9_0000_0040, |_| None);
    assert_eq!(
        row,
        "pv time     refused: nothing can be read at 0x900000040"
    );
    for layout in [&NEWER, &OTHER] {
        let (row, found) = at(0x9_0000_0040, |_| Some(layout));
        assert_eq!(
            row,
            "pv time     refused: the layout at 0x900000040 is not known"
        );
        assert_eq!(found.stolen(), None);
    }
}

proptest! {
    /// Whatever is answered: an end, and nothing mapped that is not aligned.
    #[test]
    fn any_answers(answers in prop::collection::vec(any::<[u64; 4]>(), 1..20), small in any::<bool>()) {
        let mut answers = answers.iter().cycle();
        let mut call = |_| {
            let answer = answers.next().copied().unwrap_or_default();
            if small { answer.map(|word| word % 3) } else { answer }
        };
        let found = Smccc::discover(Some((Conduit::Smc, &mut call)), None, |address| {
            assert!(address.is_multiple_of(64) && address != 0, "{address:#x}");
            None
        });
        prop_assert_eq!(listed(&found).len(), ALL.len());
        let _ = (smccc::ptp(&mut call), smccc::entropy(&mut call));
    }
}

/// CPUID by a table of leaves; what is not in it has the answer of leaf 0xd, as QEMU's TCG does it.
fn cpuid(table: &[(u32, [u32; 4])]) -> impl Fn(u32, u32) -> [u32; 4] {
    move |leaf, _| {
        let found = table.iter().find(|(number, _)| *number == leaf);
        found.map_or([0x21f, 0x240, 0xa88, 0], |(_, registers)| *registers)
    }
}

fn registers(highest: u32, signature: &[u8; 12]) -> [u32; 4] {
    let word = |at: usize| u32::from_le_bytes(signature[at..at + 4].try_into().expect("four"));
    [highest, word(0), word(4), word(8)]
}

const GUEST: u32 = 1 << 31;

fn processor(table: &[(u32, [u32; 4])]) -> Processor {
    Processor::discover(&cpuid(table))
}

#[test]
fn under_tcg_everything_is_absent() {
    let found = processor(&[
        (0, [0xd, 0, 0, 0]),
        (1, [0, 0, GUEST, 0]),
        (7, [0; 4]),
        (0x4000_0000, registers(0x4000_0001, b"TCGTCGTCGTCG")),
        (0x4000_0001, [0; 4]),
        (0x8000_0000, [0x8000_000a, 0, 0, 0]),
        (0x8000_0007, [0; 4]),
    ]);
    assert_eq!(
        listed(&found),
        [
            "hypervisor  TCGTCGTCGTCG, leaves to 0x40000001",
            "pvclock     absent",
            "pairing     absent",
            "steal time  absent",
            "tsc rate    absent",
            "invariant   absent",
            "rdseed      absent",
            "rdrand      absent",
        ]
    );
    assert_eq!((found.kvm(), found.rate()), (None, None));
}

const KVM: &[u8; 12] = b"KVMKVMKVM\0\0\0";

#[test]
fn under_kvm() {
    let found = processor(&[
        (0, [0x16, 0, 0, 0]),
        (1, [0, 0, GUEST | 1 << 30, 0]),
        (7, [0, 1 << 18, 0, 0]),
        (0x15, [0; 4]),
        (0x16, [2400, 0, 0, 0]),
        (0x4000_0000, registers(0x4000_0010, KVM)),
        (0x4000_0001, [1 << 3 | 1 << 5 | 1 << 24, 0, 0, 0]),
        (0x4000_0010, [2_596_134, 1_000_000, 0, 0]),
        (0x8000_0000, [0x8000_0008, 0, 0, 0]),
        (0x8000_0007, [0, 0, 0, 1 << 8]),
    ]);
    assert_eq!(
        listed(&found),
        [
            "hypervisor  KVMKVMKVM, leaves to 0x40000010",
            "pvclock     offered, stable",
            "pairing     may be tried",
            "steal time  offered",
            "tsc rate    2596134000 Hz by CPUID 0x40000010",
            "invariant   present",
            "rdseed      present",
            "rdrand      present",
        ]
    );
}

#[test]
fn kvm_behind_hyper_v_and_old_kvm() {
    let hyper_v = registers(0x4000_0005, b"Microsoft Hv");
    let found = processor(&[
        (0, [1, 0, 0, 0]),
        (1, [0, 0, GUEST, 0]),
        (0x4000_0000, hyper_v),
        (0x4000_0100, registers(0, KVM)),
        (0x4000_0101, [1 << 3, 0, 0, 0]),
    ]);
    let kvm = found.kvm().expect("KVM");
    assert_eq!((kvm.base, kvm.features), (0x4000_0100, 1 << 3));
    assert!(kvm.has_pvclock() && !kvm.pvclock_is_stable() && !kvm.has_steal_time());
    assert_eq!(
        listed(&found)[0],
        "hypervisor  Microsoft Hv, leaves to 0x40000005"
    );
}

/// Without the processor's word there is no hypervisor, whatever its leaves hold.
#[test]
fn no_hypervisor() {
    let found = processor(&[
        (0, [0x16, 0, 0, 0]),
        (1, [0; 4]),
        (0x15, [2, 216, 24_000_000, 0]),
        (0x4000_0000, registers(0x4000_0010, KVM)),
        (0x4000_0001, [u32::MAX; 4]),
    ]);
    assert_eq!((found.kvm(), found.hypervisor()), (None, None));
    assert_eq!(listed(&found)[4], "tsc rate    2592000000 Hz by CPUID 0x15");
}

#[test]
fn rates_are_believed_only_when_they_are_valid() {
    let rate = |highest: u32, leaf_15: [u32; 4], leaf_16: u32| {
        let found = processor(&[
            (0, [highest, 0, 0, 0]),
            (1, [0; 4]),
            (0x15, leaf_15),
            (0x16, [leaf_16, 0, 0, 0]),
        ]);
        found.rate().map(|rate| (rate.hertz, rate.unit))
    };
    assert_eq!(
        rate(0x16, [2, 216, 24_000_000, 0], 0),
        Some((2_592_000_000, 1))
    );
    assert_eq!(
        rate(0x16, [2, 216, 0, 0], 2600),
        Some((2_600_000_000, 1_000_000))
    );
    assert_eq!(
        rate(0x15, [2, 216, 0, 0], 2600),
        None,
        "leaf 0x16 does not exist"
    );
    assert_eq!(rate(0x14, [2, 216, 24_000_000, 0], 2600), None);
    assert_eq!(rate(0x16, [0, 216, 24_000_000, 0], 2600), None);
    assert_eq!(rate(0x16, [2, 0, 24_000_000, 0], 2600), None);
    assert_eq!(rate(0x16, [2, 216, 0, 0], 0), None);
    assert_eq!(
        rate(u32::MAX, [1, u32::MAX, u32::MAX, 0], 0).map(|(hertz, _)| hertz),
        Some(u64::from(u32::MAX) * u64::from(u32::MAX))
    );
}

proptest! {
    /// Any CPUID: an end, and KVM only with its signature.
    #[test]
    fn any_cpuid(seed in any::<[u32; 4]>(), guest in any::<bool>()) {
        let found = Processor::discover(&|leaf, _| {
            let answer = seed.map(|word| word.rotate_left(leaf));
            if leaf == 1 { [0, 0, if guest { GUEST } else { 0 }, 0] } else { answer }
        });
        prop_assert_eq!(found.kvm(), None);
        prop_assert_eq!(listed(&found).len(), 8);
    }
}

fn page(hertz: u64) -> Fields {
    let period = Period::from_hertz(hertz).expect("a counter");
    Fields {
        counter_period_frac_sec: period.frac(),
        counter_period_shift: period.shift(),
        ..Fields::stock()
    }
}

fn stated(hertz: u64, unit: u64) -> Rate {
    Rate {
        hertz,
        unit,
        source: "test",
    }
}

#[test]
fn rates_that_contradict_the_page() {
    for (hertz, page_hertz, differs) in [
        (1_000_000_000, 1_000_000_000, false),
        (62_500_000, 62_500_000, false),
        (1_000_000_000, 1_000_990_000, false),
        (1_000_000_000, 999_010_000, false),
        (1_000_000_000, 1_001_010_000, true),
        (1_000_000_000, 998_990_000, true),
        (1_000_000_000, 62_500_000, true),
        (62_500_000, 1_000_000_000, true),
        (u64::MAX, 1_000_000_000, true),
        (10, 1_000_000_000, true),
        // To within one tick a second, one tick a second says nothing.
        (1, 1_000_000_000, false),
    ] {
        let rate = stated(hertz, 1);
        assert_eq!(
            rate.contradicts(&page(page_hertz)),
            differs,
            "{hertz} {page_hertz}"
        );
    }
    // What is stated in MHz says no more than that.
    assert!(!stated(100_000_000, 1_000_000).contradicts(&page(100_900_000)));
    assert!(stated(100_000_000, 1_000).contradicts(&page(100_900_000)));
    // A page that is that unsure of its period does not contradict.
    let unsure = Fields {
        flags: flag::PERIOD_MAXERROR_VALID,
        counter_period_maxerror_rate_frac_sec: page(1_002_000_000).counter_period_frac_sec / 500,
        ..page(1_002_000_000)
    };
    assert!(!stated(1_000_000_000, 1).contradicts(&unsure));
    assert!(stated(1_000_000_000, 1).contradicts(&page(1_002_000_000)));
    // A page that says nothing says nothing else; nor does a machine.
    assert!(!stated(1_000_000_000, 1).contradicts(&Fields::stock()));
    assert!(!stated(0, 1).contradicts(&page(1_000_000_000)));
}

proptest! {
    #[test]
    fn any_rate_and_page(hertz: u64, unit: u64, frac: u64, shift: u8, error: u64, flags: u64) {
        let page = Fields {
            counter_period_frac_sec: frac,
            counter_period_shift: shift,
            counter_period_maxerror_rate_frac_sec: error,
            flags,
            ..Fields::stock()
        };
        let _ = stated(hertz, unit).contradicts(&page);
    }
}

fn stamp(ticks: u64, marker: u64) -> Stamp {
    Stamp {
        ticks: Ticks(ticks),
        marker,
    }
}

/// Looks at a counter of which the other view is `offset` ahead.
fn look(watch: &mut Watch, ticks: u64, offset: u64, marker: u64) -> bool {
    let physical = (ticks + 40).wrapping_add(offset);
    watch
        .look(stamp(ticks, marker), physical, stamp(ticks + 100, marker))
        .is_some()
}

#[test]
fn a_constant_offset_is_narrowed_down() {
    for offset in [0, 12_345, u64::MAX - 50, 1 << 63, (1 << 63) - 20] {
        let mut watch = Watch::new();
        for round in 0..1000_u64 {
            // Read early or late within the window.
            let (ticks, at) = (round * 1_000_000, round * 37 % 101);
            let physical = (ticks + at).wrapping_add(offset);
            let found = watch.look(stamp(ticks, 1), physical, stamp(ticks + 100, 1));
            assert_eq!(found, None);
        }
        let (middle, width) = watch.offset().expect("known");
        assert!(width <= 4, "{width}");
        let off = middle.cast_unsigned().wrapping_sub(offset).cast_signed();
        assert!(off.unsigned_abs() <= width, "{middle} is not {offset}");
        assert_eq!((watch.shifts(), watch.latest()), (0, None));
    }
}

#[test]
fn a_move_without_a_marker_is_found() {
    for (before, after) in [(0, 1_000), (1_000, 0), (0, u64::MAX - 500), (5, 1 << 63)] {
        let mut watch = Watch::new();
        assert!(!look(&mut watch, 1_000, before, 1));
        assert!(look(&mut watch, 2_000, after, 1), "{before} {after}");
        assert!(!look(&mut watch, 3_000, after, 1), "once");
        assert_eq!(watch.shifts(), 1);
        assert_eq!(watch.latest().expect("it").marker, 1);
    }
    let mut watch = Watch::new();
    look(&mut watch, 1_000, 0, 1);
    look(&mut watch, 2_000, 1_000, 1);
    let told = watch.latest().expect("it").to_string();
    assert_eq!(
        told,
        "CNTPCT-CNTVCT was -10 and is 990 ticks without a disruption, marker 0x1"
    );
}

#[test]
fn a_move_with_a_marker_is_none() {
    let mut watch = Watch::new();
    assert!(!look(&mut watch, 1_000, 0, 1));
    // Announced before, during and after the reading.
    assert!(!look(&mut watch, 2_000, 1_000_000, 2));
    let during = watch.look(stamp(3_000, 2), 9_000_000, stamp(3_100, 3));
    assert_eq!(during, None);
    assert!(!look(&mut watch, 4_000, 5_000_000, 3));
    // The counter itself going back is for the audit.
    assert_eq!(
        watch.look(stamp(9_000, 3), 5_009_000, stamp(8_000, 3)),
        None
    );
    assert!(!look(&mut watch, 10_000, 5_000_000, 3));
    assert_eq!(watch.shifts(), 0);
    assert!(
        look(&mut watch, 11_000, 5_010_000, 3),
        "and one that is not announced"
    );
}

proptest! {
    /// No offset, no window, and no place of the reading in it raises a false alarm; any move by more than both
    /// windows raises one.
    #[test]
    fn never_a_false_alarm(offset: u64, start: u64, looks in prop::collection::vec((0..1_u64 << 40, 0..10_000_u64, 0..=100_u64), 1..50), moved in 20_100..u64::MAX - 20_100) {
        let mut watch = Watch::new();
        let mut now = start;
        let mut window = |watch: &mut Watch, offset: u64, (pause, width, part): (u64, u64, u64)| {
            now = now.wrapping_add(pause);
            let at = now.wrapping_add(width * part / 100);
            let before = stamp(now, 7);
            now = now.wrapping_add(width);
            watch.look(before, at.wrapping_add(offset), stamp(now, 7))
        };
        for &one in &looks {
            prop_assert_eq!(window(&mut watch, offset, one), None);
        }
        let last = looks[0];
        prop_assert!(window(&mut watch, offset.wrapping_add(moved), last).is_some());
    }
}
