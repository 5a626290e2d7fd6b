//! What a guest costs its host while nobody asks it anything.

use core::time::Duration;
use std::fs;
use std::thread;
use std::time::Instant;

use gnomon_tests::guest::{Guest, machine};

gnomon_tests::on_both![an_idle_guest_sleeps_unless_it_was_told_not_to];

/// How long each is watched.
const WATCH: Duration = Duration::from_secs(4);

fn an_idle_guest_sleeps_unless_it_was_told_not_to() {
    let polls = cost("poll");
    for idle in ["halt", "adaptive"] {
        let sleeps = cost(idle);
        // It is some hundredths; what else the machine does takes from the other as well.
        assert!(sleeps < polls / 2.0, "{idle} {sleeps}, poll {polls}");
    }
}

/// The share of a processor that QEMU takes with an idle guest that has answered a while ago.
fn cost(idle: &str) -> f64 {
    let (mut guest, client) = Guest::serving_with(machine().append(format!("idle={idle}")));
    for _ in 0..100 {
        client.ask().assert_right();
    }
    let (begin, before) = (Instant::now(), processor_ticks(guest.pid()));
    thread::sleep(WATCH);
    let ticks = processor_ticks(guest.pid()) - before;
    let share = f64::from(ticks) / 100.0 / begin.elapsed().as_secs_f64();
    client.ask().assert_right();
    let status = guest.command("status");
    let line = status.lines().find(|line| line.starts_with("idle "));
    let line = line.unwrap_or_else(|| panic!("{status}"));
    println!("idle={idle}: {:.1} % of a host CPU; {line}", share * 100.0);
    assert!(
        line.starts_with(&format!("idle        {idle}, asleep ")),
        "{line}"
    );
    let wakes = !line.contains("wake-ups 0,");
    assert_eq!(wakes, idle != "poll", "{line}");
    assert!(!line.ends_with("polls 0"), "{line}");
    share
}

/// User and system time of a process and all its threads, in hundredths of a second (`proc(5)`; `USER_HZ` is
/// 100 on every architecture).
fn processor_ticks(pid: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    // The third field of all is the first one here; utime and stime are the 14th and 15th.
    let [user, system] = [fields[11], fields[12]].map(str::parse::<u32>);
    user.expect("a number") + system.expect("a number")
}
