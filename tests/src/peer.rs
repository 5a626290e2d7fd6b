//! What Gnomon is compared with: Debian's Linux with chrony, in the same machine, with the same page, whose
//! time chrony takes from `ptp_vmclock`. What else it has to do is in [`busy`](crate::busy).

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::fs;
use std::time::Instant;

use gnomon_qemu::machine::{Arch, Machine, Net};

use crate::built;
use crate::console::PROMPT;
use crate::guest::{self, Guest};
use crate::load::Load;
use crate::netns::Netns;
use crate::ntp::{Client, HEADER, Reply, V4_CLIENT, cookie, request};

/// How often a guest that boots is asked.
const ASK: Duration = Duration::from_millis(4);
/// How long it may take until it answers.
const GIVE_UP: Duration = Duration::from_mins(1);
/// How far a right answer may be off, in 2⁻³² s: 10 ms.
const OFF: i64 = (1 << 32) / 100;

/// A guest on a tap interface of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// Our image.
    Gnomon,
    /// Linux with chrony.
    Linux,
}

impl Contender {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Gnomon, Self::Linux];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gnomon => "Gnomon",
            Self::Linux => "Linux + chrony",
        }
    }

    /// The words on its command line with which it has something to do [beside NTP](crate::busy).
    #[must_use]
    pub const fn beside(self) -> &'static str {
        match self {
            Self::Gnomon => "",
            Self::Linux => "busy=yes",
        }
    }

    /// What its console says when it has answered a line.
    #[must_use]
    pub const fn prompt(self) -> &'static str {
        match self {
            Self::Gnomon => PROMPT,
            Self::Linux => "peer> ",
        }
    }

    const fn interface(self) -> &'static str {
        match self {
            Self::Gnomon => "gt0",
            Self::Linux => "gt1",
        }
    }

    const fn subnet(self) -> u8 {
        match self {
            Self::Gnomon => 7,
            Self::Linux => 8,
        }
    }

    const fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 7, self.subnet(), 2)
    }

    /// Makes its interface. The network knows where the guest is before it does, so that no request waits
    /// for an answer to an ARP request.
    pub fn prepare(self, netns: &Netns) {
        netns.add_tap(self.interface(), &format!("10.7.{}.1/24", self.subnet()));
        let address = self.address().to_string();
        let (done, said) = netns.run(
            "ip",
            &[
                "neigh",
                "replace",
                &address,
                "lladdr",
                "52:54:00:12:34:56",
                "nud",
                "permanent",
                "dev",
                self.interface(),
            ],
        );
        assert!(done, "ip neigh: {said}");
    }

    fn machine(self, words: &str) -> Machine {
        let address = self.address();
        let machine = match self {
            Self::Gnomon => guest::machine().append(format!("ip={address}/24 {words}")),
            Self::Linux => Machine::new(Arch::X86_64)
                .kernel(built("peer/vmlinuz", "make bench-peer"))
                .memory(256)
                .arg("-initrd")
                .arg(built("peer/initrd", "make bench-peer"))
                .append(format!(
                    "console=ttyS0 quiet loglevel=0 address={address}/24 {words}"
                )),
        };
        machine.net(Net::Tap(self.interface().to_owned()))
    }

    /// Starts it with these words on its command line, and returns it when it answers rightly, with how
    /// long that took from before QEMU was started.
    ///
    /// # Errors
    /// What there is to say when it does not in time: on a machine with much else to do, chrony may never
    /// select its clock.
    pub fn start(self, netns: &Netns, words: &str) -> Result<(Guest, Duration), String> {
        let client = netns.enter(|| Client::of((self.address(), 123).into()));
        let start = Instant::now();
        let guest = netns.enter(|| Guest::start(self.machine(words)));
        let mut asked = Vec::new();
        loop {
            let cookie = cookie();
            asked.push((cookie, crate::ntp::host_time().0));
            client.send(&request(V4_CLIENT, cookie));
            if let Some((bytes, arrived)) = client.receive(Instant::now() + ASK)
                && bytes.len() == HEADER
            {
                let reply = Reply::decode(&bytes);
                let sent = asked.iter().find(|(cookie, _)| *cookie == reply.origin);
                if sent.is_some_and(|(_, sent)| is_right(&reply, *sent, arrived)) {
                    return Ok((guest, start.elapsed()));
                }
            }
            if start.elapsed() > GIVE_UP {
                let (name, report) = (self.name(), guest.publisher().report());
                let said = guest.serial_log();
                return Err(format!(
                    "{name} has not answered for {GIVE_UP:?}; {report:?}; it said:\n{said}"
                ));
            }
        }
    }

    /// Where its HTTP server is.
    #[must_use]
    pub fn http(self) -> SocketAddr {
        (self.address(), 80).into()
    }

    /// A source of requests for it.
    #[must_use]
    pub fn load(self, netns: &Netns) -> Load {
        netns.enter(|| Load::of((self.address(), 123).into()))
    }
}

/// The processor time that a process has used so far, all its threads together, in microseconds.
#[must_use]
pub fn cpu_micros(pid: u32) -> f64 {
    micros_of(&format!("/proc/{pid}/stat"))
}

/// The same of QEMU's main loop, which is its first thread, and of the busiest of the others, which is the virtual CPU.
#[must_use]
pub fn cpu_micros_of_main_loop_and_cpu(pid: u32) -> [f64; 2] {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let threads = threads.map(|thread| thread.expect("readable").file_name());
    let main_loop = pid.to_string();
    let others = threads.filter(|thread| thread.to_str() != Some(&main_loop));
    let micros = |thread: &str| micros_of(&format!("/proc/{pid}/task/{thread}/stat"));
    let cpu = others.map(|thread| micros(&thread.to_string_lossy()));
    [micros(&main_loop), cpu.fold(0.0, f64::max)]
}

fn micros_of(stat: &str) -> f64 {
    let stat = fs::read_to_string(stat).expect("it runs");
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    // utime and stime, proc_pid_stat(5), in hundredths of a second on every Linux of today.
    let ticks = fields.split_ascii_whitespace().skip(11).take(2);
    let ticks = ticks.map(|field| field.parse::<u32>().expect("a number"));
    10_000.0 * f64::from(ticks.sum::<u32>())
}

/// The reply has time, and it is not off by more than a server may be that has just begun.
fn is_right(reply: &Reply, sent: u64, arrived: u64) -> bool {
    let after = |late: u64, early: u64| late.wrapping_sub(early).cast_signed();
    reply.leap != 3
        && (1..16).contains(&reply.stratum)
        && after(reply.receive, sent) > -OFF
        && after(reply.receive, arrived) < OFF
}
