//! A host that does to the guest what only a host can: garbage in the page, lies in the rings, interrupts without end
//! and without a beginning. What is served is right or nothing, the guest goes on, and it says what it saw.
#![expect(
    clippy::cast_possible_truncation,
    reason = "random bits, of which some are taken"
)]

use core::time::Duration;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Instant;

use gnomon_clock::Fields;
use gnomon_tests::guest::{Guest, TakenPage, machine};
use gnomon_tests::ntp::{Client, Reply};
use gnomon_tests::temporary::Temporary;
use gnomon_tests::vhost_net::{Conduct, VhostNet};
use gnomon_tests::{Arch, PATIENCE, arch};
use serde_json::{Value, json};

gnomon_tests::on_both![
    garbage_at_full_speed_is_never_served,
    constants_that_change_at_full_speed_bring_no_wrong_time,
    time_that_goes_back_is_told,
    impossible_errors_are_told,
    device_that_lies_in_its_rings_is_reset,
    device_that_writes_when_it_must_not_is_survived,
    device_that_takes_nothing_is_reset,
    device_that_stops_is_survived,
    interrupts_without_end_and_without_a_beginning,
    device_that_asks_to_be_reset_is_reset,
];

/// Where these fields of the page begin.
const SEQ_COUNT: usize = 0x0c;
const TIME_SEC: usize = 0x48;

/// How long a host goes on with it.
const LENGTH: Duration = Duration::from_secs(1);

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        for (shift, factor) in [(30, 0xbf58_476d_1ce4_e5b9), (27, 0x94d0_49bb_1331_11eb)] {
            mixed = (mixed ^ mixed >> shift).wrapping_mul(factor);
        }
        mixed ^ mixed >> 31
    }

    /// A page in which everything is garbage but what tells that it is one. It is next to impossible that it could
    /// be used.
    fn fields(&mut self) -> Fields {
        let mut bytes = [0; gnomon_clock::page::LEN];
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(&self.next().to_le_bytes()[..part.len()]);
        }
        Fields::from_bytes(&bytes)
    }
}

/// Asks while `disturb` is called over and over; returns how many replies had time and how many had none. `disturb`
/// leaves the page as it was.
fn ask_meanwhile(client: &Client, kisses: &[&str], mut disturb: impl FnMut()) -> (u32, u32) {
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let end = Instant::now() + LENGTH;
            let (mut timed, mut without) = (0, 0);
            while Instant::now() < end {
                let reply = client.ask();
                if reply.leap == 3 {
                    reply.assert_no_time(kisses);
                    without += 1;
                } else {
                    reply.assert_right();
                    timed += 1;
                }
            }
            (timed, without)
        });
        while !asking.is_finished() {
            disturb();
        }
        asking.join().expect("every reply is right or without time")
    })
}

/// A guest that goes by its page alone, and the page.
fn with_its_page() -> (Guest, Client, TakenPage) {
    let (guest, client) = Guest::serving_with(machine().append("source=vmclock"));
    let page = guest.take_page();
    (guest, client, page)
}

fn garbage_at_full_speed_is_never_served() {
    let (mut guest, client, mut page) = with_its_page();
    let mut random = Random(u64::from(arch() == Arch::Aarch64));
    let valid = page.valid;
    let constants = valid.to_bytes();
    // Garbage alone.
    let mut pages = 0_u32;
    page.publish(&random.fields());
    let (timed, without) = ask_meanwhile(&client, &["INIT", "STEP"], || {
        page.publish(&random.fields());
        page.poke(0, &random.next().to_le_bytes());
        page.poke(8, &random.next().to_le_bytes()[..4]);
        pages += 1;
    });
    assert_eq!(timed, 0, "of {pages} pages");
    assert!(without > 0 && pages > 100, "{without} {pages}");
    assert!(guest.time().is_err());
    // By turns with a page that is right.
    page.poke(0, &constants[..12]);
    let turns = ask_meanwhile(&client, &["INIT", "STEP"], || {
        page.publish(&random.fields());
        page.publish(&valid);
    });
    // What is taken back before its update has ended, however good it looks.
    let hour_ahead = valid.time_sec + 3600;
    let mut seq_count = page.fields().seq_count;
    let unfinished = ask_meanwhile(&client, &["INIT"], || {
        seq_count |= 1;
        page.poke(SEQ_COUNT, &seq_count.to_le_bytes());
        page.poke(TIME_SEC, &hour_ahead.to_le_bytes());
        page.poke(TIME_SEC, &valid.time_sec.to_le_bytes());
        seq_count = seq_count.wrapping_add(1);
        page.poke(SEQ_COUNT, &seq_count.to_le_bytes());
    });
    assert!(unfinished.0 > 0, "{unfinished:?}");
    page.publish(&valid);
    client.ask_until_right().assert_right();
    wait_logged(&guest, "] time: no time: ");
    println!(
        "{}: {without} replies without time from {pages} pages of garbage; by turns with a right one {} right, {} \
         without time; with updates that are taken back {} and {}",
        arch().name(),
        turns.0,
        turns.1,
        unfinished.0,
        unfinished.1
    );
}

fn constants_that_change_at_full_speed_bring_no_wrong_time() {
    let (mut guest, client, mut page) = with_its_page();
    let good = page.valid.to_bytes();
    let mut random = Random(7);
    let (timed, without) = ask_meanwhile(&client, &["INIT"], || {
        for (offset, length) in [(0, 4), (4, 4), (8, 2), (4, 4)] {
            let word = random.next();
            // Half of the sizes are those of a page, of which parts are said to be missing.
            let bytes = if offset == 4 && word >> 63 == 0 {
                (word as u32 % 0x80).to_le_bytes()
            } else {
                (word as u32).to_le_bytes()
            };
            page.poke(offset, &bytes[..length]);
            page.poke(offset, &good[offset..offset + length]);
        }
    });
    assert!(timed > 0 && without > 0, "{timed} {without}");
    client.ask().assert_right();
    guest.time().expect("time");
    println!("{}: {timed} right, {without} without time", arch().name());
}

/// Under one marker, that is: under another one it may.
fn time_that_goes_back_is_told() {
    let (mut guest, client, mut page) = with_its_page();
    let valid = page.valid;
    let mut violations = 0;
    for fields in [
        Fields {
            time_sec: valid.time_sec - 3600,
            ..valid
        },
        // The counter is said to have been where it will be in decades.
        Fields {
            counter_value: valid.counter_value.wrapping_add(1 << 60),
            ..valid
        },
    ] {
        page.publish(&fields);
        // The page is what there is to go by, if it can be: but nobody is left in the dark.
        violations = more_violations(&mut guest, violations);
        page.publish(&valid);
        violations = more_violations(&mut guest, violations);
        client.ask().assert_right();
    }
    wait_logged(&guest, "] audit: ");
    page.publish(&Fields {
        time_sec: 0,
        ..valid
    });
    guest.wait_said("] time: no time: time is out of range\r\n");
    client.ask().assert_no_time(&["INIT"]);
    drop(guest);

    // Who has asked for that is told no time by such a host.
    let strict = machine().append("source=vmclock on_violation=stop");
    let (mut guest, client) = Guest::serving_with(strict);
    let mut page = guest.take_page();
    let back = Fields {
        time_sec: page.valid.time_sec - 3600,
        ..page.valid
    };
    page.publish(&back);
    client.ask().assert_no_time(&["XAUD"]);
    let status = guest.command("status");
    assert!(status.contains("serving     no time, XAUD"), "{status}");
}

/// Waits until more than so many violations were counted, and returns how many.
fn more_violations(guest: &mut Guest, before: u64) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let audit = guest.command("audit");
        let now = count(&audit, "violations");
        if now > before {
            return now;
        }
        assert!(Instant::now() < deadline, "{audit}");
    }
}

/// Waits until the guest has ever said this.
fn wait_logged(guest: &Guest, words: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !guest.serial_log().contains(words) {
        assert!(Instant::now() < deadline, "{words}\n{}", guest.serial_log());
        thread::park_timeout(Duration::from_millis(10));
    }
}

/// The number behind this word.
fn count(text: &str, word: &str) -> u64 {
    let line = text.lines().find(|line| line.contains(word));
    let line = line.unwrap_or_else(|| panic!("{word}\n{text}"));
    let digits = line.split_once(word).map(|(_, rest)| rest.trim_start());
    let digits = digits.unwrap_or_default();
    let end = digits.find(|letter: char| !letter.is_ascii_digit());
    digits[..end.unwrap_or(digits.len())]
        .parse()
        .unwrap_or_else(|_| panic!("{word}\n{text}"))
}

/// A page that says it is exact to the last bit, and is not; and one whose errors are as large as can be.
fn impossible_errors_are_told() {
    let (mut guest, client, mut page) = with_its_page();
    let exact = Fields {
        time_esterror_nanosec: 0,
        time_maxerror_nanosec: 0,
        counter_period_esterror_rate_frac_sec: 0,
        counter_period_maxerror_rate_frac_sec: 0,
        ..page.valid
    };
    page.publish(&exact);
    // It has been looked at.
    client.ask().assert_right();
    // Half a millisecond on, which those errors do not leave room for.
    page.publish(&Fields {
        time_frac_sec: exact.time_frac_sec ^ 1 << 53,
        ..exact
    });
    guest.wait_said("audit: ");
    guest.wait_prompt();
    for errors in [
        Fields {
            counter_period_maxerror_rate_frac_sec: u64::MAX,
            ..page.valid
        },
        Fields {
            time_maxerror_nanosec: u64::MAX,
            counter_period_maxerror_rate_frac_sec: u64::MAX,
            ..page.valid
        },
        Fields {
            time_esterror_nanosec: u64::MAX,
            counter_period_esterror_rate_frac_sec: u64::MAX,
            ..page.valid
        },
    ] {
        page.publish(&errors);
        let reply = client.ask();
        if errors.time_maxerror_nanosec == u64::MAX {
            reply.assert_no_time(&["XDSP"]);
        } else {
            // A rate of error is one of how long ago the page is from, and estimates bind nobody.
            reply.assert_right();
        }
    }
    let valid = page.valid;
    page.publish(&valid);
    client.ask().assert_right();
}

/// A guest on a network device of ours.
fn with_own_device() -> (Guest, VhostNet) {
    let mut nic = VhostNet::new();
    let (guest, _) = Guest::boot(nic.attach(machine()));
    nic.ask_until_answered();
    (guest, nic)
}

/// Lets the device do this for a while, during which it is asked for the time and the console has to answer; then it is
/// honest again, and is waited for. Returns what `net` said in the end, and how many questions were answered meanwhile.
fn endure(
    guest: &mut Guest,
    nic: &mut VhostNet,
    conduct: Conduct,
    length: Duration,
) -> (String, u32) {
    nic.conduct(conduct);
    let end = Instant::now() + length;
    let mut answered = 0;
    while Instant::now() < end {
        answered += u32::from(nic.ask(Duration::from_millis(20)));
    }
    let line = guest.time();
    assert!(line.is_ok(), "{conduct:?}: {line:?}");
    nic.conduct(Conduct::Honest);
    nic.ask_until_answered();
    (guest.command("net"), answered)
}

fn device_that_lies_in_its_rings_is_reset() {
    let (mut guest, mut nic) = with_own_device();
    let (mut lies, mut resets) = (0, 0);
    for conduct in [
        Conduct::Length(0),
        Conduct::Length(12),
        Conduct::Length(2049),
        Conduct::Length(u32::MAX),
    ] {
        let (net, answered) = endure(&mut guest, &mut nic, conduct, LENGTH / 4);
        assert_eq!(answered, 0, "{conduct:?}");
        let now = before(&net, " ring entries that no honest device writes");
        assert!(now > lies, "{conduct:?}: {net}");
        lies = now;
        // Who has which buffer is as clear as before.
        assert!(!net.contains("resets"), "{conduct:?}: {net}");
    }
    for conduct in [
        Conduct::WrongId(128),
        Conduct::WrongId(u32::MAX),
        Conduct::Twice,
        Conduct::Ahead(0x4000),
        Conduct::Racing,
    ] {
        let (net, answered) = endure(&mut guest, &mut nic, conduct, LENGTH / 4);
        let now = before(&net, " ring entries that no honest device writes");
        assert!(now > lies, "{conduct:?}: {net}");
        lies = now;
        println!(
            "{}, {conduct:?}: {answered} answered meanwhile, {lies} lies so far",
            arch().name()
        );
        // Within a second or so.
        wait_net(&mut guest, |net| {
            net.contains("resets") && count(net, "resets") > resets
        });
        nic.ask_until_answered();
        resets = count(&guest.command("net"), "resets");
    }
    for _ in 0..200 {
        assert!(nic.ask(PATIENCE), "an honest device loses nothing");
    }
    let net = guest.command("net");
    assert!(
        net.contains("since its rings had entries that no honest device writes"),
        "{net}"
    );
    wait_logged(&guest, "] network: the device was reset, the ");
    assert!(u64::from(nic.begun()) > resets, "{} {net}", nic.begun());
    drop(guest);
}

/// The number before these words.
fn before(text: &str, words: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_suffix(words));
    let number = line.and_then(|line| line.split_whitespace().last());
    let number = number.unwrap_or_else(|| panic!("{words}\n{text}"));
    number.parse().expect("a number")
}

fn wait_net(guest: &mut Guest, condition: impl Fn(&str) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let net = guest.command("net");
        if condition(&net) {
            return;
        }
        assert!(Instant::now() < deadline, "{net}");
        thread::park_timeout(Duration::from_millis(100));
    }
}

/// Whatever comes of the frames it spoils, they are frames.
fn device_that_writes_when_it_must_not_is_survived() {
    let (mut guest, mut nic) = with_own_device();
    nic.conduct(Conduct::Scribbling);
    let end = Instant::now() + 2 * LENGTH;
    while Instant::now() < end {
        nic.flood();
    }
    guest.time().expect("time");
    nic.conduct(Conduct::Honest);
    nic.forget();
    nic.ask_until_answered();
    let net = guest.command("net");
    assert!(!net.contains("resets"), "{net}");
}

/// The transmit ring is full then, and frames wait in the receive ring: for that nobody has to be awake.
fn device_that_takes_nothing_is_reset() {
    let (mut guest, mut nic) = with_own_device();
    nic.conduct(Conduct::Deaf);
    // More than the ring holds.
    for _ in 0..100 {
        nic.flood();
    }
    let sleeps = |guest: &mut Guest| count(&guest.command("status"), "wake-ups");
    let before = sleeps(&mut guest);
    thread::sleep(LENGTH);
    // A thousand a second, if this machine has the time.
    let asleep = sleeps(&mut guest) - before;
    assert!(asleep > 50, "{asleep}");
    guest.wait_said("] network: the device was reset, the 1. time, since it took no frames\r\n");
    guest.wait_prompt();
    guest.time().expect("time");
    nic.conduct(Conduct::Honest);
    nic.ask_until_answered();
    let net = guest.command("net");
    assert!(!net.contains("no honest device"), "{net}");
}

fn device_that_stops_is_survived() {
    let (mut guest, mut nic) = with_own_device();
    // For longer than a device that was given something to send may take for it.
    let (net, answered) = endure(&mut guest, &mut nic, Conduct::Silent, 7 * LENGTH);
    assert_eq!(answered, 0);
    // A device to which nobody talks is nothing unusual.
    assert!(!net.contains("resets"), "{net}");
    for _ in 0..200 {
        assert!(nic.ask(PATIENCE), "an honest device loses nothing");
    }
}

fn interrupts_without_end_and_without_a_beginning() {
    let (mut guest, mut nic) = with_own_device();
    let in_vain = |guest: &mut Guest| count(&guest.command("status"), "in vain");
    let before = in_vain(&mut guest);
    let (_, answered) = endure(&mut guest, &mut nic, Conduct::Storming, LENGTH);
    assert!(answered > 0, "it goes on being answered");
    let storm = in_vain(&mut guest) - before;
    assert!(storm > 100, "{storm}");

    // Each is answered, late at first; then it is known.
    nic.conduct(Conduct::Mute);
    let deadline = Instant::now() + PATIENCE;
    while !guest
        .command("net")
        .contains("wake-ups    none by the device")
    {
        assert!(Instant::now() < deadline, "{}", guest.command("status"));
        for _ in 0..8 {
            // So that the guest has gone to sleep.
            thread::sleep(Duration::from_millis(10));
            assert!(nic.ask(PATIENCE), "without an interrupt it takes longer");
        }
    }
    wait_logged(&guest, "] network: the device does not wake the machine");
    nic.conduct(Conduct::Honest);
    let deadline = Instant::now() + PATIENCE;
    while guest
        .command("net")
        .contains("wake-ups    none by the device")
    {
        assert!(Instant::now() < deadline, "{}", guest.command("status"));
        assert!(nic.ask(PATIENCE), "an honest device loses nothing");
    }
    println!(
        "{}: in {LENGTH:?} of interrupts {storm} wake-ups in vain, {answered} questions answered",
        arch().name()
    );
}

/// Guest memory as a file.
struct Memory {
    path: Temporary,
    file: File,
}

impl Memory {
    fn new() -> Self {
        let path = Temporary::new("memory");
        let mut options = File::options();
        let options = options.read(true).write(true).create_new(true);
        let file = options.open(path.path()).expect("a file of our own");
        Self { path, file }
    }

    /// Writes at a physical address.
    fn write(&self, address: u64, bytes: &[u8]) {
        let start = match arch() {
            Arch::X86_64 => 0,
            Arch::Aarch64 => 1 << 30,
        };
        self.file
            .write_all_at(bytes, address - start)
            .expect("guest memory");
    }
}

/// QEMU's own device gives up when the driver has put nonsense into a ring: here somebody else does that.
fn device_that_asks_to_be_reset_is_reset() {
    let memory = Memory::new();
    let backend = format!(
        "memory-backend-file,id=file,size=32M,share=on,mem-path={}",
        memory.path.path().display()
    );
    let machine = ["-object", &backend, "-machine", "memory-backend=file"]
        .into_iter()
        .fold(machine(), gnomon_qemu::Machine::arg);
    let (mut guest, client) = Guest::serving_with(machine);
    for number in 1..=2 {
        let queue = queue(&mut guest, 0);
        let address = |name: &str| queue[name].as_u64().expect("an address");
        // Every buffer that the device may fill is nowhere.
        let (table, size) = (address("vring-desc"), address("vring-num"));
        memory.write(table, &vec![0; usize::try_from(size).expect("short") * 16]);
        let status = |guest: &mut Guest| device_status(guest);
        assert!(!status(&mut guest).contains("NEEDS_RESET"));
        let asked: Reply = client.ask();
        asked.assert_right();
        guest.wait_said(&format!(
            "] network: the device was reset, the {number}. time, since it asked to be reset\r\n"
        ));
        guest.wait_prompt();
        for _ in 0..100 {
            client.ask().assert_right();
        }
        let net = guest.command("net");
        assert!(
            net.contains(&format!(
                "resets      {number}, the last since it asked to be reset\n"
            )),
            "{net}"
        );
        assert!(
            !net.contains("dead") && !net.contains("no honest device"),
            "{net}"
        );
    }
    drop(guest);
}

/// The network device's path in QEMU's tree.
fn path(guest: &mut Guest) -> Value {
    let devices = guest.qmp().execute("x-query-virtio", json!({}));
    let devices = devices.expect("QEMU has one").value;
    let mut devices = devices.as_array().expect("a list").iter();
    let nic = devices.find(|device| device["name"] == "virtio-net");
    nic.expect("a network device")["path"].clone()
}

/// What QEMU knows of a queue of it.
fn queue(guest: &mut Guest, queue: u32) -> Value {
    let path = path(guest);
    let arguments = json!({ "path": path, "queue": queue });
    let found = guest
        .qmp()
        .execute("x-query-virtio-queue-status", arguments);
    found.expect("a queue").value
}

/// What its status is.
fn device_status(guest: &mut Guest) -> String {
    let path = path(guest);
    let arguments = json!({ "path": path });
    let found = guest.qmp().execute("x-query-virtio-status", arguments);
    found.expect("a status").value["status"].to_string()
}
