//! What the launcher reads of files, of QEMU and of its memory: any bytes give a value or a sentence, soon, and nothing
//! is believed that does not fit together.

use core::cell::Cell;
use core::time::Duration;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::LazyLock;

use dtoolkit::fdt::Fdt;
use dtoolkit::{Node, Property};
use gnomon_qemu::elf::{self, ElfError, ReadAt};
use gnomon_qemu::host::HostCounter;
use gnomon_qemu::leap_table::LeapTable;
use gnomon_qemu::memory::{Process, mapped_images};
use gnomon_qemu::qmp::Qmp;
use gnomon_qemu::scenario::{LONGEST, Scenario};
use gnomon_qemu::{tree, vmstate};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::json;

/// Changes of single bytes, anywhere.
fn damage() -> impl Strategy<Value = Vec<(Index, u8)>> {
    vec(any::<(Index, u8)>(), 0..6)
}

fn damaged(whole: &[u8], damage: &[(Index, u8)], end: Option<Index>) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for (at, byte) in damage {
        bytes[at.index(whole.len())] = *byte;
    }
    bytes.truncate(end.map_or(whole.len(), |end| end.index(whole.len())));
    bytes
}

/// A word of a scenario, or something like one.
fn word() -> impl Strategy<Value = String> {
    const WORDS: &str = "wait freeze flip odd half stop update quiet reset honest end say repeat interval date step rate \
        widen scale offset leap status smear flags generation marker set none next insert delete utc tai +1h -300ppm \
        1.5s 0ns 9999d 5ms 60min 37 10 0x7f 18446744073709551615 -1 +tai_offset_valid magic time_sec tai_offset_sec \
        2016-12-31T23:59:50Z 9999-12-31T23:59:59.999999999Z 1970-01-01T00:00:00Z # ±";
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    prop_oneof![
        8 => select(words).prop_map(str::to_owned),
        1 => any::<u64>().prop_map(|number| number.to_string()),
        1 => "\\PC{0,12}",
    ]
}

/// A statement with a number, or with something like one.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        "date (1|20)[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-9.±]{0,4}Z",
        "(wait|step|widen|interval|rate) [+-]?[0-9]{0,20}[.]?[0-9]{0,10}(ns|us|ms|s|min|h|d|ppm|ppb)",
        "(repeat|offset|generation|marker|set [a-z_]{3,8}) [+-]?(0x)?[0-9a-f]{0,24}",
    ]
}

/// Words in lines.
fn words() -> impl Strategy<Value = String> {
    let line = vec(word(), 1..4).prop_map(|words| words.join(" ")).boxed();
    // The first mistake ends it: one line alone, or more.
    let lines = prop_oneof![vec(line.clone(), 1), vec(line, 0..24)];
    lines.prop_map(|lines| lines.join("\n"))
}

fn assert_scenario(text: &str) -> Result<(), TestCaseError> {
    match Scenario::parse(text) {
        Ok(scenario) => {
            prop_assert!(scenario.duration() <= LONGEST);
            prop_assert!(scenario.first_date().is_none_or(|date| date.seconds() >= 0));
            let _ = scenario.first_scale();
        }
        Err(error) => {
            let lines = text.lines().count();
            prop_assert!((0..=lines).contains(&error.line), "{error}: {lines}");
            prop_assert!(error.to_string().starts_with("line "));
        }
    }
    Ok(())
}

/// What QEMU might say.
const SAID: [&str; 12] = [
    "{\"return\": {}, \"id\": 1}",
    "{\"return\": {}, \"id\": 2}",
    "{\"return\": [[[[[]]]]], \"id\": 2}",
    "{\"return\": {}, \"id\": -1}",
    "{\"return\": {}}",
    "{\"error\": {\"desc\": \"no\"}, \"id\": 2}",
    "{\"error\": 7}",
    "{\"event\": \"STOP\", \"timestamp\": {\"seconds\": 9223372036854775807, \"microseconds\": 999999}}",
    "{\"event\": \"STOP\", \"timestamp\": {\"seconds\": -1, \"microseconds\": -1}, \"data\": null}",
    "{\"event\": 7}",
    "",
    "null",
];
const GREETING: &str = "{\"QMP\": {}}\n{\"return\": {}, \"id\": 1}\n";

/// Our own memory, of which some reads give something else.
struct Lying {
    memory: Process,
    /// Which read, and what its bytes are changed by.
    lies: Vec<(u32, [u8; 64])>,
    reads: Cell<u32>,
}

impl ReadAt for Lying {
    type Error = <Process as ReadAt>::Error;

    fn read_at(&self, address: u64, buffer: &mut [u8]) -> Result<(), Self::Error> {
        let number = self.reads.replace(self.reads.get() + 1);
        self.memory.read_at(address, buffer)?;
        for (_, change) in self.lies.iter().filter(|(its, _)| *its == number) {
            for (byte, change) in buffer.iter_mut().zip(change) {
                *byte ^= change;
            }
        }
        Ok(())
    }
}

/// Where libc lies in this process, how often it is read for the symbol, and where that is.
static LIBC: LazyLock<(u64, u32, u64)> = LazyLock::new(|| {
    let images = mapped_images(std::process::id()).expect("our own maps");
    let found = images.iter().find_map(|base| {
        let (outcome, reads) = look_up(*base, Vec::new());
        outcome.ok().map(|address| (*base, reads, address))
    });
    found.expect("libc is mapped")
});
const SYMBOL: &str = "adjtimex";

fn look_up(base: u64, lies: Vec<(u32, [u8; 64])>) -> (Result<u64, String>, u32) {
    let memory = Lying {
        memory: Process::open(std::process::id()).expect("our own memory"),
        lies,
        reads: Cell::new(0),
    };
    let outcome = elf::symbol(&memory, base, SYMBOL);
    let outcome = outcome.map_err(|error: ElfError<_>| error.to_string());
    (outcome, memory.reads.get())
}

/// A device state whose timers come behind another device's section.
fn state(ticks: u64, clock: u64, before: &[u8]) -> Vec<u8> {
    let mut file = b"QEVM\0\0\0\x03".to_vec();
    if !before.is_empty() {
        file.extend(b"\x04\0\0\0\0\x03gic");
        file.extend(before);
    }
    file.extend(b"\x04\0\0\0\x07\x05timer\0\0\0\0\0\0\0\x02");
    for field in [ticks, 0, clock] {
        file.extend(field.to_be_bytes());
    }
    file.extend(b"\x7e\0\0\0\x07");
    file
}

/// The tree of QEMU's own machine.
const TREE: &[u8] = include_bytes!("../../tests/fuzz/corpus/device_tree/virt");
const PAGE: u64 = 0x5_0000_0000;

proptest! {
    #[test]
    fn any_words_are_a_scenario_or_a_mistake(text in words(), damage in damage(), end in any::<Option<Index>>()) {
        if !text.is_empty() {
            let damaged = damaged(text.as_bytes(), &damage, end);
            assert_scenario(&String::from_utf8_lossy(&damaged))?;
        }
    }

    #[test]
    fn any_number_is_in_its_range_or_a_mistake(text in number()) {
        assert_scenario(&text)?;
    }

    #[test]
    fn any_text_is_a_scenario_or_a_mistake(bytes in vec(any::<u8>(), 0..400)) {
        assert_scenario(&String::from_utf8_lossy(&bytes))?;
    }

    /// However they are nested, and whatever their numbers.
    #[test]
    fn repetitions_are_bounded(
        times in vec(prop_oneof![4 => 1_u64..9, 1 => any::<u64>()], 1..20),
        open in 0_usize..2,
    ) {
        let mut lines: Vec<String> = times.iter().map(|times| format!("repeat {times}")).collect();
        lines.push("wait 1d".to_owned());
        lines.resize(lines.len() + times.len().saturating_sub(open), "end".to_owned());
        assert_scenario(&lines.join("\n"))?;
    }

    /// The other side hangs up in the end: by then there has been an answer or a sentence to everything.
    #[test]
    fn whatever_a_monitor_says(
        greets in any::<bool>(),
        said in vec(select(&SAID[..]), 0..12),
        damage in damage(),
        garbage in vec(any::<u8>(), 0..40),
    ) {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let mut bytes = said.join("\n").into_bytes();
        bytes.extend(garbage);
        bytes.push(b'\n');
        let bytes = damaged(&bytes, &damage, None);
        let lines = bytes.split(|byte| *byte == b'\n').count();
        let is_json = bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.trim_ascii().is_empty())
            .all(|line| serde_json::from_slice::<serde_json::Value>(line).is_ok());
        if greets {
            theirs.write_all(GREETING.as_bytes()).expect("it is short");
        }
        theirs.write_all(&bytes).expect("it is short");
        theirs.shutdown(Shutdown::Write).expect("a socket");
        let mut qmp = match Qmp::new(ours) {
            Ok(qmp) => qmp,
            Err(error) => {
                prop_assert!(!(greets && is_json), "{error}");
                prop_assert!(!error.to_string().is_empty());
                return Ok(());
            }
        };
        if let Err(error) = qmp.execute("query-status", json!({})) {
            prop_assert!(!error.to_string().is_empty());
        }
        let mut events = 0;
        while let Ok(Some(event)) = qmp.next_event(Duration::ZERO) {
            prop_assert!(!event.name.is_empty() || event.data.is_null());
            events += 1;
        }
        prop_assert!(events <= lines, "{events} events in {lines} lines");
    }

    /// A process whose memory says one thing now and another then.
    #[test]
    fn whatever_is_read_of_an_image(
        lies in vec((any::<Index>(), vec((0_usize..64, any::<u8>()), 1..4)), 0..4),
    ) {
        let (base, reads, address) = *LIBC;
        let lies: Vec<_> = lies
            .iter()
            .map(|(read, changes)| {
                let mut change = [0; 64];
                for (at, bits) in changes {
                    change[*at] = *bits;
                }
                (u32::try_from(read.index(reads as usize)).expect("few"), change)
            })
            .collect();
        let is_honest = lies.is_empty();
        let (outcome, reads) = look_up(base, lies);
        // As many program headers, entries and symbols as there may be.
        prop_assert!(reads < 4096 * 20, "{reads} reads");
        if is_honest {
            prop_assert_eq!(&outcome, &Ok(address));
        }
        if let Err(error) = outcome {
            prop_assert!(!error.is_empty());
        }
    }

    #[test]
    fn any_device_state_has_a_counter_or_a_sentence(
        ticks in any::<u64>(),
        clock in any::<u64>(),
        before in vec(any::<u8>(), 0..60),
        damage in damage(),
        end in any::<Option<Index>>(),
    ) {
        let whole = state(ticks, clock, &before);
        let bytes = damaged(&whole, &damage, end);
        for (counter, is) in [(HostCounter::Tsc, ticks), (HostCounter::Monotonic, clock)] {
            match vmstate::stopped_counter(&bytes, counter) {
                Ok(found) => prop_assert!(bytes != whole || found == is),
                Err(error) => {
                    prop_assert!(!error.to_string().is_empty());
                    prop_assert!(bytes != whole, "{error}");
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_no_device_state(bytes in vec(any::<u8>(), 0..200)) {
        for counter in [HostCounter::Tsc, HostCounter::Monotonic] {
            prop_assert!(vmstate::stopped_counter(&bytes, counter).is_err());
        }
    }

    /// What comes out is a tree with the page in it, not much larger than what went in.
    #[test]
    fn any_tree_is_added_to_or_refused(damage in damage(), end in any::<Option<Index>>(), interrupt in any::<Option<u32>>()) {
        let bytes = damaged(TREE, &damage, end.filter(|_| interrupt.is_some()));
        match tree::with_page(&bytes, PAGE, interrupt) {
            Ok(with) => {
                prop_assert!(with.len() < 2 * TREE.len(), "{}", with.len());
                let tree = Fdt::new(&with).expect("a tree");
                let node = tree.root().children().find(|node| node.name().starts_with("ptp@"));
                let property = node.and_then(|node| node.property("compatible").map(|value| value.value().to_vec()));
                prop_assert_eq!(property, Some(b"amazon,vmclock\0".to_vec()));
            }
            Err(error) => {
                prop_assert!(bytes != TREE, "{error}");
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }

    #[test]
    fn any_bytes_are_no_tree(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert!(tree::with_page(&bytes, PAGE, None).is_err());
    }

    /// A table is in order and says what it says of any second.
    #[test]
    fn any_text_is_a_leap_table_or_none(
        rows in vec(("(#@|#|)", any::<Index>(), 0_u32..80, "( |\t|)(#.*)?"), 0..20),
        seconds in vec(prop_oneof![0_i64..5_000_000_000, any::<i64>()], 20),
        second in any::<i64>(),
    ) {
        let lines: Vec<String> = rows
            .iter()
            .map(|(mark, at, offset, rest)| {
                let from = seconds[at.index(seconds.len())];
                format!("{mark}{from} {offset}{rest}")
            })
            .collect();
        match LeapTable::parse(&lines.join("\n")) {
            Ok(table) => {
                let offset = table.tai_minus_utc(second);
                prop_assert!(offset.is_none_or(|offset| (10..=60).contains(&offset)));
                prop_assert!(table.tai_minus_utc(i64::MAX).is_some());
                prop_assert!(!table.expired(i64::MIN));
            }
            Err(line) => prop_assert!(line.is_none_or(|line| (1..=rows.len()).contains(&line))),
        }
    }

    #[test]
    fn a_damaged_leap_table_is_refused_or_read(damage in damage(), second in any::<i64>()) {
        const TABLE: &str = "#\tcomment\n#$\t3676924800\n#@\t3928521600\n2272060800\t10\t# 1 Jan 1972\n\
            3644697600 36\n3692217600 37 # 1 Jan 2017\n";
        let bytes = damaged(TABLE.as_bytes(), &damage, None);
        if let Ok(table) = LeapTable::parse(&String::from_utf8_lossy(&bytes)) {
            prop_assert!(table.tai_minus_utc(second).is_none_or(|offset| (10..=60).contains(&offset)));
        }
    }
}
