//! The publisher against a real QEMU whose guest is the firmware alone. QEMU itself is the witness:
//! its monitor shows the page, and its device state the guest's counter.

use core::time::Duration;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::Instant;

use gnomon_clock::page::flag;
use gnomon_clock::{
    ClockStatus, Fields, PageMemory, Reading, Tai, Ticks, Timeline, Timestamp, Unusable,
};
use gnomon_qemu::elf::ReadAt;
use gnomon_qemu::host::{HostClock, HostCounter};
use gnomon_qemu::machine::{Arch, Machine, Net};
use gnomon_qemu::memory::Process;
use gnomon_qemu::page::{Reference, Scale};
use gnomon_qemu::publish::{Host, Options, Report};
use gnomon_qemu::qmp::{Qmp, QmpError};
use gnomon_qemu::vmstate::stopped_counter;
use gnomon_qemu::{Publisher, Vm, machine::Accel};
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::json;

/// Each of these is a test on either architecture.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod x86_64 {
            use gnomon_qemu::Arch;
            $(#[test] fn $name() { super::$name(Arch::X86_64); })*
        }
        mod aarch64 {
            use gnomon_qemu::Arch;
            $(#[test] fn $name() { super::$name(Arch::Aarch64); })*
        }
    };
}

on_both![
    page_seen_by_the_guest_is_what_was_published,
    published_time_is_the_hosts_at_the_guests_counter,
    bracket_alone_contains_the_exact_offset,
    own_stop_and_cont_change_marker_and_mapping,
    stop_and_cont_by_another_client_are_noticed,
    reset_is_a_disruption_and_the_counter_runs_on,
    updates_follow_each_other_within_their_bounds,
    foreign_write_is_adopted_as_a_disruption,
    attaches_to_a_running_machine_and_to_a_stopped_one,
    utc_page_and_utc_reference,
    guests_whose_counter_is_not_the_hosts_are_refused,
    machine_ends_with_its_owner_and_says_how,
];

const PATIENCE: Duration = Duration::from_mins(1);

/// On Arm with a counter that QEMU divides.
fn machine(arch: Arch) -> Machine {
    let machine = Machine::new(arch).net(Net::None);
    match arch {
        Arch::X86_64 => machine,
        Arch::Aarch64 => machine.cpu("cortex-a57"),
    }
}

fn start(machine: Machine) -> Vm {
    machine.start().unwrap_or_else(|error| panic!("{error}"))
}

fn publisher(vm: &Vm) -> &Publisher {
    vm.publisher().expect("publishing")
}

fn wait(publisher: &Publisher, what: &str, condition: impl Fn(&Report) -> bool) -> Report {
    publisher
        .wait(PATIENCE, condition)
        .unwrap_or_else(|| panic!("{what}: {:?}", publisher.report()))
}

fn wait_valid(publisher: &Publisher) -> Fields {
    wait(publisher, "valid", |report| report.valid)
        .fields
        .expect("written")
}

fn reading(arch: Arch, fields: &Fields, ticks: u64) -> Reading {
    let line = Timeline::from_page(fields, arch.counter_id()).expect("a page with time");
    line.at(Ticks(ticks)).expect("in range")
}

/// The guest's counter before QEMU divides it, which stops it for a moment if it runs; not through the
/// publisher's code.
fn guest_count(arch: Arch, qmp: &mut Qmp) -> u64 {
    let memory = memfd_create("test", MemfdFlags::CLOEXEC).expect("memfd");
    let path = format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd());
    let arguments = json!({ "filename": path, "live": false });
    qmp.execute("xen-save-devices-state", arguments)
        .expect("a device state");
    let mut bytes = [0; 64];
    let length = rustix::io::pread(&memory, &mut bytes, 0).expect("readable");
    stopped_counter(&bytes[..length], arch.host_counter()).expect("timers first")
}

/// The guest's counter.
fn guest_ticks(arch: Arch, qmp: &mut Qmp) -> u64 {
    let divisor = match arch {
        Arch::X86_64 => 1,
        Arch::Aarch64 => 16,
    };
    guest_count(arch, qmp) / divisor
}

/// Host TAI, with the earliest and latest it can be.
fn now() -> (Timestamp<Tai>, Timestamp<Tai>) {
    let clock = HostClock::new(HostCounter::Tsc).expect("a trusted counter");
    let [first, last] = [(); 2].map(|()| clock.sample().expect("a sample").time);
    (first, last)
}

/// The page as the guest sees it: QEMU's own physical memory dump.
fn page_by_monitor(arch: Arch, qmp: &mut Qmp) -> Vec<u32> {
    let dump = format!("xp /28xw {:#x}", arch.page());
    let text = qmp.monitor(&dump).expect("a dump");
    let words = text
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("0x"));
    words
        .map(|word| u32::from_str_radix(word, 16).expect("hexadecimal"))
        .collect()
}

fn words(fields: &Fields) -> Vec<u32> {
    fields
        .to_bytes()
        .chunks(4)
        .map(|chunk| u32::from_le_bytes(chunk.try_into().expect("4")))
        .collect()
}

fn page_seen_by_the_guest_is_what_was_published(arch: Arch) {
    let mut vm = start(machine(arch));
    wait_valid(publisher(&vm));
    publisher(&vm).pause().expect("alive");
    let fields = publisher(&vm).report().fields.expect("written");
    assert_eq!(page_by_monitor(arch, vm.qmp()), words(&fields));
    assert_eq!(
        vm.page().expect("a page").fields().expect("readable"),
        fields
    );

    let id = arch.counter_id() as u8;
    assert_eq!((fields.counter_id, fields.time_type), (id, 1));
    assert_eq!(fields.tai_offset_sec, -37);
    assert!(fields.has(flag::TAI_OFFSET_VALID | flag::TIME_MAXERROR_VALID));
    assert!(fields.has(flag::PERIOD_MAXERROR_VALID | flag::TIME_ESTERROR_VALID));
    assert!(!fields.has(flag::TIME_MONOTONIC));
    assert!(fields.disruption_marker > 1, "QEMU starts at 1");
    assert_eq!(fields.seq_count % 2, 0);
}

fn published_time_is_the_hosts_at_the_guests_counter(arch: Arch) {
    let mut vm = start(machine(arch));
    wait(publisher(&vm), "ten updates", |report| report.updates >= 10);
    let report = publisher(&vm).report();
    let mapping = report.mapping.expect("running");
    println!(
        "mapping {mapping:?}, bound {:?}",
        report.fields.map(|f| f.time_maxerror_nanosec)
    );
    assert!(
        mapping.slot.is_some() && mapping.radius == 0,
        "proven: {mapping:?}"
    );

    // The witness stops the guest by itself, so keep the page that was valid while it ran.
    publisher(&vm).pause().expect("alive");
    let fields = vm.page().expect("a page").fields().expect("readable");
    let (earliest, _) = now();
    let counter = guest_ticks(arch, vm.qmp());
    let (_, latest) = now();
    let reading = reading(arch, &fields, counter);
    let tai = reading.tai.expect("known");
    let off = [earliest.since(tai), tai.since(latest)].map(|span| span.expect("near").units());
    let bound = i128::try_from(reading.bound.units()).expect("small");
    assert!(
        off.iter().all(|early| *early <= bound),
        "{earliest} {tai} {latest} {reading:?}"
    );
}

fn bracket_alone_contains_the_exact_offset(arch: Arch) {
    let options = Options {
        exact_mapping: false,
        ..Options::default()
    };
    let mut vm = start(machine(arch).publish(Some(options)));
    let wide = wait(publisher(&vm), "valid", |report| report.valid);
    let bracket = wide.mapping.expect("running");
    let error = wide.fields.expect("written").time_maxerror_nanosec;
    println!(
        "bracket only: radius {} ticks, bound {error} ns",
        bracket.radius
    );
    assert!(bracket.radius > 0 && bracket.slot.is_none());
    assert!(error > 1000 && error < 50_000_000, "{error} ns");

    // The guest's counter, read by a witness, lies where the mapping predicts it to within it.
    publisher(&vm).pause().expect("alive");
    let before = arch.host_counter().now();
    let counter = guest_count(arch, vm.qmp());
    let after = arch.host_counter().now();
    let started = counter.wrapping_sub(bracket.offset);
    let earliest = before - bracket.radius;
    let latest = after + bracket.radius;
    assert!(
        (earliest..=latest).contains(&started),
        "{earliest} {started} {latest}"
    );
}

fn own_stop_and_cont_change_marker_and_mapping(arch: Arch) {
    let mut vm = start(machine(arch));
    let first = wait(publisher(&vm), "valid", |report| report.valid);
    let marker = first.fields.expect("written").disruption_marker;

    vm.stop().expect("stops");
    let page = vm.page().expect("a page").fields().expect("readable");
    assert_eq!(page.disruption_marker, marker + 1);
    assert_eq!(page.clock_status, ClockStatus::Unreliable as u8);
    let line = Timeline::from_page(&page, arch.counter_id());
    assert_eq!(line, Err(Unusable::Status(ClockStatus::Unreliable)));
    let stopped = guest_count(arch, vm.qmp());
    assert_eq!(guest_count(arch, vm.qmp()), stopped, "it stands still");
    // What was taken for the offset of the running counter is QEMU's variable for it: now that the
    // counter stands still, it holds the counter.
    let slot = first
        .mapping
        .and_then(|mapping| mapping.slot)
        .expect("proven");
    let mut bytes = [0; 8];
    let memory = Process::open(vm.pid()).expect("our child's");
    memory
        .read_at(slot.address(), &mut bytes)
        .expect("readable");
    assert_eq!(u64::from_le_bytes(bytes), stopped);

    vm.cont().expect("goes on");
    let second = wait(publisher(&vm), "valid again", |report| report.valid);
    let fields = second.fields.expect("written");
    assert_eq!(
        fields.disruption_marker,
        marker + 2,
        "the counter may have been read under the marker before the stop"
    );
    let (first, second) = (first.mapping.expect("ran"), second.mapping.expect("runs"));
    assert_ne!(first.offset, second.offset);
    assert_eq!(second.radius, 0, "proven again");
}

fn stop_and_cont_by_another_client_are_noticed(arch: Arch) {
    let mut vm = start(machine(arch));
    let first = wait(publisher(&vm), "valid", |report| report.valid);
    let marker = first.fields.expect("written").disruption_marker;
    vm.qmp().execute("stop", json!({})).expect("stops");
    wait(publisher(&vm), "invalid", |report| !report.valid);
    vm.qmp().execute("cont", json!({})).expect("goes on");
    let second = wait(publisher(&vm), "valid again", |report| report.valid);
    assert!(second.fields.expect("written").disruption_marker > marker);
    assert_ne!(
        first.mapping.expect("ran").offset,
        second.mapping.expect("runs").offset
    );

    // As fast as they come: the last word has to be right.
    for _ in 0..20 {
        vm.qmp().execute("stop", json!({})).expect("stops");
        vm.qmp().execute("cont", json!({})).expect("goes on");
    }
    // The publisher obeys only after it has handled what has happened.
    publisher(&vm).pause().expect("alive");
    publisher(&vm).unpause().expect("alive");
    let last = wait(publisher(&vm), "valid at last", |report| report.valid);
    assert_eq!(last.mapping.expect("runs").radius, 0);
    publisher(&vm).pause().expect("alive");
    let fields = vm.page().expect("a page").fields().expect("readable");
    let (earliest, _) = now();
    let counter = guest_ticks(arch, vm.qmp());
    let (_, latest) = now();
    let reading = reading(arch, &fields, counter);
    let (tai, bound) = (reading.tai.expect("known"), reading.bound);
    let middle = earliest.since(tai).expect("near").units() / 2
        + latest.since(tai).expect("near").units() / 2;
    let half = latest.since(earliest).expect("in order").units() / 2 + 2;
    let bound = i128::try_from(bound.units()).expect("small");
    assert!(
        middle.abs() <= half + bound,
        "{tai} is not within {earliest} {latest}"
    );
}

fn reset_is_a_disruption_and_the_counter_runs_on(arch: Arch) {
    let mut vm = start(machine(arch));
    let before = wait(publisher(&vm), "valid", |report| report.valid);
    let marker = before.fields.expect("written").disruption_marker;
    vm.reset().expect("resets");
    let after = wait(publisher(&vm), "valid under a new marker", |report| {
        report.valid
            && report
                .fields
                .is_some_and(|fields| fields.disruption_marker > marker)
    });
    // What makes it right to keep the mapping over a reset.
    assert_eq!(before.mapping, after.mapping);
    publisher(&vm).pause().expect("alive");
    let first = guest_count(arch, vm.qmp());
    vm.qmp().execute("system_reset", json!({})).expect("resets");
    assert!(guest_count(arch, vm.qmp()) > first);
}

fn updates_follow_each_other_within_their_bounds(arch: Arch) {
    let options = Options {
        interval: Duration::from_millis(5),
        ..Options::default()
    };
    let vm = start(machine(arch).publish(Some(options)));
    let mut last = wait_valid(publisher(&vm));
    let mut checked = 0;
    let mut widest = 0;
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        let seq_count = last.seq_count;
        let report = wait(publisher(&vm), "the next update", |report| {
            report
                .fields
                .is_some_and(|fields| fields.seq_count != seq_count)
        });
        let next = report.fields.expect("written");
        if next.disruption_marker == last.disruption_marker && report.valid {
            // What a reader of the earlier page is told at the later reference contains the later.
            let [told, told_later] =
                [&last, &next].map(|fields| reading(arch, fields, next.counter_value));
            let apart = told_later
                .tai
                .expect("known")
                .since(told.tai.expect("known"));
            assert!(
                told.bound.contains(apart.expect("near")),
                "{told:?} {told_later:?}"
            );
            widest = widest.max(next.time_maxerror_nanosec);
            checked += 1;
        }
        last = next;
    }
    let report = publisher(&vm).report();
    println!(
        "{checked} updates, widest {widest} ns, kept {}, disruptions {}",
        report.kept, report.disruptions
    );
    assert!(checked > 30, "{checked} updates");
}

fn foreign_write_is_adopted_as_a_disruption(arch: Arch) {
    let vm = start(machine(arch));
    wait_valid(publisher(&vm));
    publisher(&vm).pause().expect("alive");
    let frozen = publisher(&vm).report();
    let theirs = Fields {
        disruption_marker: 1000,
        ..frozen.fields.expect("written")
    };
    let seq_count = vm.write_fields(&theirs).expect("writable");
    assert_eq!(publisher(&vm).report().updates, frozen.updates, "paused");
    publisher(&vm).unpause().expect("alive");
    let fields = wait_valid(publisher(&vm));
    assert_eq!(fields.disruption_marker, 1001);
    assert!(fields.seq_count > seq_count);

    // Without a pause as well: as QEMU does it when it loads a snapshot.
    let mut page = vm.page().expect("a page");
    page.write(0x10, &5000_u64.to_le_bytes()).expect("writable");
    let report = wait(publisher(&vm), "adopted", |report| {
        report.valid
            && report
                .fields
                .is_some_and(|fields| fields.disruption_marker > 5000)
    });
    assert_eq!(report.mapping.expect("runs").radius, 0);
}

fn attaches_to_a_running_machine_and_to_a_stopped_one(arch: Arch) {
    let socket = |name: &str| -> PathBuf {
        std::env::temp_dir().join(format!("gnomon-{}-{name}", std::process::id()))
    };
    for (name, paused) in [("running", false), ("stopped", true)] {
        let path = socket(name);
        let mut vm = start(machine(arch).publish(None).paused(paused).qmp_socket(&path));
        let stock = vm.page().expect("a page").fields().expect("readable");
        assert_eq!(stock.counter_id, gnomon_clock::page::COUNTER_INVALID);
        let qmp = Qmp::connect(&path).expect("listening");
        let pid = qmp.peer_pid().expect("a local socket");
        assert_eq!(pid, vm.pid());
        let host = Host::new(arch).expect("a trusted counter");
        let publisher = Publisher::attach(
            qmp,
            pid,
            host,
            Options::default(),
            Box::new(|line| println!("{line}")),
        )
        .unwrap_or_else(|error| panic!("{error}"));
        if paused {
            assert!(!publisher.report().valid);
            vm.cont().expect("goes on");
        }
        let report = wait(&publisher, "valid", |report| report.valid);
        assert_eq!(report.mapping.expect("runs").radius, 0);
        let status = vm
            .qmp()
            .execute("query-status", json!({}))
            .expect("alive")
            .value;
        assert_eq!(status["running"], true);

        // Whoever leaves does not leave a page behind that looks kept.
        drop(publisher);
        let page = vm.page().expect("a page").fields().expect("readable");
        assert!(Timeline::from_page(&page, arch.counter_id()).is_err());
        std::fs::remove_file(&path).expect("QEMU made it");
    }
}

fn utc_page_and_utc_reference(arch: Arch) {
    let options = Options {
        scale: Scale::Utc,
        ..Options::default()
    };
    let vm = start(machine(arch).publish(Some(options)));
    let fields = wait_valid(publisher(&vm));
    assert_eq!(fields.time_type, 0);
    assert_eq!(fields.tai_offset_sec, -37);
    let tai = reading(arch, &fields, fields.counter_value)
        .tai
        .expect("known");
    let (_, latest) = now();
    assert!(
        (0..10).contains(
            &latest
                .since(tai)
                .expect("near")
                .as_nanos_floor()
                .div_euclid(1_000_000_000)
        )
    );

    // What the kernel does not vouch for is not published as UTC.
    let sample = HostClock::new(HostCounter::Tsc)
        .expect("a trusted counter")
        .sample()
        .expect("a sample");
    let options = Options {
        reference: Reference::Utc,
        ..Options::default()
    };
    let vm = start(machine(arch).publish(Some(options)));
    if sample.kernel.synchronised {
        assert_eq!(
            wait_valid(publisher(&vm)).clock_status,
            ClockStatus::Synchronized as u8
        );
    } else {
        assert!(
            publisher(&vm)
                .wait(Duration::from_millis(500), |report| report.valid)
                .is_none()
        );
        let page = vm.page().expect("a page").fields().expect("readable");
        assert_eq!(page.clock_status, ClockStatus::Unreliable as u8);
    }
}

fn guests_whose_counter_is_not_the_hosts_are_refused(arch: Arch) {
    let error = machine(arch)
        .arg("-icount")
        .arg("shift=0")
        .start()
        .expect_err("refused")
        .to_string();
    assert!(error.contains("-icount"), "{error}");
    let options = Options {
        page: Some(0x1000_0000_0000),
        ..Options::default()
    };
    let error = machine(arch)
        .publish(Some(options))
        .start()
        .expect_err("refused")
        .to_string();
    assert!(
        error.contains("no vmclock page at 0x100000000000"),
        "{error}"
    );
    let error = machine(arch)
        .accel(Accel::Kvm)
        .start()
        .expect_err("refused")
        .to_string();
    assert!(error.contains("KVM"), "{error}");
}

/// On aarch64 the launcher makes the page wherever it is told to.
#[test]
fn firmwares_memory_is_no_page() {
    let options = Options {
        page: Some(0xf_0000),
        ..Options::default()
    };
    let error = machine(Arch::X86_64)
        .publish(Some(options))
        .start()
        .expect_err("refused")
        .to_string();
    assert!(error.contains("has no vmclock page there"), "{error}");
}

#[test]
fn port_in_use_and_nonsense_are_one_sentence() {
    let arch = Arch::X86_64;
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let user = machine(arch).net(Net::User { ntp: port, http: 0 });
    let error = user.start().expect_err("taken").to_string();
    assert!(
        error.contains(&format!("UDP port {port} of 127.0.0.1 is taken")),
        "{error}"
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let user = machine(arch).net(Net::User { ntp: 0, http: port });
    let error = user.start().expect_err("taken").to_string();
    assert!(
        error.contains(&format!("TCP port {port} of 127.0.0.1 is taken")),
        "{error}"
    );
    let error = machine(arch)
        .kernel("/no/such/image")
        .start()
        .expect_err("no image")
        .to_string();
    assert!(
        error.contains("/no/such/image") && !error.contains('\n'),
        "{error}"
    );
    let error = machine(arch)
        .arg("-no-such-option")
        .start()
        .expect_err("nonsense")
        .to_string();
    assert!(
        error.contains("no-such-option") && !error.contains('\n'),
        "{error}"
    );
}

fn machine_ends_with_its_owner_and_says_how(arch: Arch) {
    let mut vm = start(machine(arch));
    wait_valid(publisher(&vm));
    assert_eq!(vm.wait_exit(Duration::ZERO), None);
    assert_eq!(vm.quit(), Some(gnomon_qemu::End::Status(0)));
    wait(publisher(&vm), "ended", |report| report.ended);
    let error = vm
        .qmp()
        .execute("query-status", json!({}))
        .expect_err("gone");
    assert!(matches!(error, QmpError::Closed), "{error}");
    assert!(vm.stop().is_err());

    let vm = start(machine(arch));
    let process = format!("/proc/{}", vm.pid());
    assert!(std::path::Path::new(&process).exists());
    drop(vm);
    assert!(!std::path::Path::new(&process).exists());
}
