//! The sources of time beside the page: a virtio-rtc device, KVM's services and real-time clocks that answer as they
//! like, the lines that are drawn through what they say, and the clock that serves from these.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use gnomon_clock::{Clock, Counter, CounterId, Fields, Ticks};
use gnomon_kernel::source::kvm::{KvmClock, KvmHost, KvmPairing, KvmPtp, Shared};
use gnomon_kernel::source::rtc::{Cmos, CmosRegisters, Pl031, Pl031Registers, Rtc};
use gnomon_kernel::source::virtio_rtc::{ANSWER_MAX, RequestQueue, VirtioRtc};
use gnomon_kernel::source::{Choice, Driver, Sources, Table};

use crate::counter::Gigahertz;
use crate::input::Input;
use crate::vmclock_page::check;
use crate::world::{page, publish};

const SECOND: u64 = 1_000_000_000;
/// 2026-11-20T12:00:00Z in nanoseconds.
const NOON: u64 = 1_795_176_000 * SECOND;

/// What the host has to say, and the guest's counter.
#[derive(Clone)]
struct Host<'d> {
    answers: Rc<RefCell<Input<'d>>>,
    counter: Gigahertz,
}

impl Host<'_> {
    fn u8(&self) -> u8 {
        self.answers.borrow_mut().u8()
    }

    fn number(&self) -> u64 {
        self.answers.borrow_mut().number()
    }

    /// True time, or something else.
    fn nanos(&self) -> u64 {
        let now = NOON.wrapping_add(self.counter.0.ticks.get());
        match self.u8() % 8 {
            0 => self.number(),
            1 => now.wrapping_add(self.number()),
            _ => now,
        }
    }

    fn wait(&self) {
        let ticks = &self.counter.0.ticks;
        ticks.set(ticks.get().wrapping_add(u64::from(self.u8()) * 100));
    }
}

struct Queue<'d> {
    host: Host<'d>,
    asked: Option<([u8; 16], usize)>,
}

impl RequestQueue for Queue<'_> {
    fn send(&mut self, request: &[u8], room: usize) -> bool {
        assert!(request.len() <= 16 && room <= ANSWER_MAX);
        if self.asked.is_some() {
            return false;
        }
        let mut bytes = [0; 16];
        bytes[..request.len()].copy_from_slice(request);
        self.asked = Some((bytes, room));
        true
    }

    fn receive(&mut self, answer: &mut [u8; ANSWER_MAX]) -> Option<usize> {
        let (request, room) = self.asked?;
        self.host.wait();
        let mut words = [0_u64; 3];
        let shape = self.host.u8();
        if shape & 0x0f == 1 {
            return None;
        }
        match u16::from_le_bytes([request[0], request[1]]) {
            0x1000 => words[1] = u64::from(self.host.u8()),
            0x1001 | 0x1002 => words[1] = self.host.number(),
            _ => {
                words[1] = self.host.nanos();
                words[2] = self.host.counter.0.ticks.get();
            }
        }
        if shape & 0x0f == 2 {
            words = [(); 3].map(|()| self.host.number());
        }
        self.asked = None;
        for (place, word) in answer.as_chunks_mut().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        Some(match shape & 0xf0 {
            0x10 => usize::try_from(self.host.number()).unwrap_or(usize::MAX),
            _ => room,
        })
    }
}

/// The memory of KVM's services: one for the whole run.
static SHARED: Shared = Shared::new();

impl KvmHost for Host<'_> {
    fn pair(&mut self) -> i64 {
        self.wait();
        let nanos = self.nanos();
        let shape = self.u8();
        let words = [
            nanos / SECOND,
            nanos % SECOND,
            self.counter.0.ticks.get(),
            0,
        ];
        for (place, word) in SHARED.pairing.iter().zip(words) {
            let word = if shape & 7 == 1 { self.number() } else { word };
            place.store(word, Relaxed);
        }
        self.wait();
        if shape & 0x70 == 0x10 {
            self.number().cast_signed()
        } else {
            0
        }
    }

    fn write_wall_clock(&mut self) {
        self.wait();
        let nanos = self.nanos();
        let shape = self.u8();
        let version = SHARED.wall[0].load(Relaxed);
        let seconds = u32::try_from((nanos / SECOND) & 0xffff_ffff).unwrap_or(0);
        let rest = u32::try_from(nanos % SECOND).unwrap_or(0);
        let words = [version.wrapping_add(u32::from(shape & 3)), seconds, rest];
        for (place, word) in SHARED.wall.iter().zip(words) {
            let word = if shape & 0x70 == 0x10 {
                u32::from(self.u8())
            } else {
                word
            };
            place.store(word, Relaxed);
        }
        self.wait();
    }

    fn write_system_time(&mut self) {
        let shape = self.u8();
        let ticks = self.counter.0.ticks.get();
        let [low, high] =
            [ticks & 0xffff_ffff, ticks >> 32].map(|half| u32::try_from(half).unwrap_or(0));
        // 1 GHz: half of 2³², shifted to the left by one.
        let words = [
            2,
            0,
            low,
            high,
            0,
            0,
            1 << 31,
            u32::from_le_bytes([1, 1, 0, 0]),
        ];
        for (place, word) in SHARED.system.iter().zip(words) {
            let word = if shape & 7 == 1 {
                u32::try_from(self.number() & 0xffff_ffff).unwrap_or(0)
            } else {
                word
            };
            place.store(word, Relaxed);
        }
    }

    fn counter(&self) -> Ticks {
        self.counter.read()
    }

    fn shared(&self) -> &Shared {
        &SHARED
    }
}

impl CmosRegisters for Host<'_> {
    fn read(&mut self, register: u8) -> u8 {
        let good = match register {
            0x09 | 0x0a => 0x26,
            0x0b => 0x02,
            0x0d => 0x80,
            0x07 | 0x32 => 0x20,
            0x08 => 0x11,
            _ => 0x12,
        };
        if self.u8() & 0x3f == 1 {
            self.u8()
        } else {
            good
        }
    }
}

impl Host<'_> {
    /// The answer of the hypercall for PTP.
    fn pair(&self) -> [u64; 4] {
        let nanos = self.nanos();
        let ticks = self.counter.0.ticks.get();
        let words = [
            nanos >> 32,
            nanos & 0xffff_ffff,
            ticks >> 32,
            ticks & 0xffff_ffff,
        ];
        words.map(|word| {
            if self.u8() & 0x3f == 1 {
                self.number()
            } else {
                word
            }
        })
    }
}

impl Pl031Registers for Host<'_> {
    fn read(&mut self, _: usize) -> u32 {
        if self.u8() & 0x0f == 1 {
            u32::try_from(self.number() & 0xffff_ffff).unwrap_or(0)
        } else {
            u32::try_from(NOON / SECOND).unwrap_or(0)
        }
    }
}

/// Input: which sources, 16 steps, and answers as they are asked for.
///
/// # Panics
/// A reading is not what a reading must be, or is from across a disruption.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let which = input.u8();
    let steps: [u8; 16] = input.array();
    let host = Host {
        answers: Rc::new(RefCell::new(input)),
        counter: Gigahertz::default(),
    };
    SHARED
        .pairing
        .iter()
        .for_each(|word| word.store(0, Relaxed));
    SHARED
        .system
        .iter()
        .chain(&SHARED.wall)
        .for_each(|word| word.store(0, Relaxed));

    let mut marker = 1;
    let stock = |marker| Fields {
        disruption_marker: marker,
        counter_id: 1,
        ..Fields::stock()
    };
    let page = page(&stock(marker));
    let mut clock = Clock::new(Some(page), host.counter.clone());
    let queue = Queue {
        host: host.clone(),
        asked: None,
    };
    let mut virtio = VirtioRtc::new(queue, CounterId::X86Tsc, &"PCI 00:05.0");
    let mut pairing = KvmPairing(host.clone());
    let ask = host.clone();
    let mut ptp = KvmPtp(move |_| ask.pair());
    let mut kvm_clock = KvmClock::new(host.clone(), which & 0x80 != 0);
    let mut cmos = Rtc(Cmos::new(
        host.clone(),
        Some(0x32).filter(|_| which & 0x40 != 0),
    ));
    let mut pl031 = Rtc(Pl031(host.clone()));
    let drivers: [&mut dyn Driver; 5] = [
        &mut virtio,
        &mut pairing,
        &mut ptp,
        &mut kvm_clock,
        if which & 0x20 != 0 {
            &mut cmos
        } else {
            &mut pl031
        },
    ];
    let mut drivers: Vec<_> = (0..)
        .zip(drivers)
        .filter(|(bit, _)| which >> bit & 1 != 0)
        .map(|(_, driver)| driver)
        .collect();
    let mut table = Table::new();
    let choice = Choice::parse("auto,rtc").expect("a choice");
    let mut sources = Sources::new(choice, &mut table, &mut drivers, &[]);
    let mut uptime = Duration::ZERO;
    for step in steps {
        match step % 8 {
            0 => {
                marker += 1 + u64::from(step);
                publish(page, &stock(marker));
                // Whatever was known is no more.
                assert!(clock.reading().is_err(), "time from across a disruption");
            }
            1 => host
                .counter
                .0
                .ticks
                .set(host.counter.0.ticks.get().wrapping_add(host.number())),
            _ => {
                let pause = Duration::from_millis(u64::from(step) * 50);
                uptime += pause;
                let ticks = &host.counter.0.ticks;
                ticks.set(ticks.get().wrapping_add(u64::from(step) * 50_000_000));
            }
        }
        sources.follow(&mut clock, Some(uptime), || {
            (which & 0x10 != 0).then_some(SECOND)
        });
        assert!(
            sources
                .next()
                .is_none_or(|next| next <= uptime + Duration::from_secs(1 << 20))
        );
        if let Ok(now) = clock.reading() {
            assert_eq!(now.marker, marker);
            check(&now);
        }
        for entry in sources.table().entries() {
            let _ = format!("{entry:?}");
        }
    }
}
