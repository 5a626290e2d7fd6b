//! The kernel's small interfaces, implemented over the machine's devices.

use core::time::Duration;

use gnomon_arch::dev::net::{self, Frame};
use gnomon_arch::dev::rng::Rng;
use gnomon_arch::dev::rtc::Rtc;
use gnomon_arch::dev::virtio::{self, Trouble};
use gnomon_arch::machine::interrupt::Interrupts;
use gnomon_arch::machine::power::Power;
use gnomon_arch::machine::timer::{Alarm, Uptime};
use gnomon_arch::machine::{counter, io};
use gnomon_clock::Counter;
use gnomon_kernel::console::SerialPort;
use gnomon_kernel::machine::Machine;
use gnomon_kernel::net::port::{self, FramePort, Health, PortCounters};
use gnomon_kernel::random::generator::{EntropyQueue, Progress, ROOM};
use gnomon_kernel::random::{Source, Take};
use gnomon_kernel::source::virtio_rtc::{ANSWER_MAX, RequestQueue};

use crate::last_words;
use crate::platform::{Entropy, Wire};

/// The console UART.
pub(crate) struct Uart(pub(crate) io::Uart);

impl SerialPort for Uart {
    fn receive(&mut self) -> Option<u8> {
        self.0.receive()
    }

    fn send(&mut self, bytes: &[u8]) -> usize {
        self.0.send(bytes)
    }
}

/// The machine proper.
pub(crate) struct Board {
    pub(crate) uptime: Uptime,
    pub(crate) alarm: Alarm,
    pub(crate) interrupts: Interrupts,
    pub(crate) power: Power,
    pub(crate) entropy: Entropy,
    /// The physical counter cannot be read.
    pub(crate) physical_is_denied: bool,
}

/// Readings of the counter that go into the random pool after the first, of each the byte that changes: with that
/// a block of its cipher.
const READS: usize = 6;

impl Machine for Board {
    fn uptime(&mut self) -> Option<Duration> {
        let nanos = self.uptime.nanoseconds();
        last_words::note_uptime(nanos);
        nanos.map(Duration::from_nanos)
    }

    #[inline(never)]
    fn gather(&mut self, take: Take<'_>) {
        self.entropy.gather(take);
        // Not random, but hard to know to the tick from elsewhere.
        let mut readings = [0; 8 + READS];
        let (first, others) = readings.split_at_mut(8);
        first.copy_from_slice(&counter::this_cpu().read().0.to_le_bytes());
        for byte in others {
            [*byte, ..] = counter::this_cpu().read().0.to_le_bytes();
        }
        take(Source::Counter, &readings);
    }

    fn gather_late(&mut self, take: Take<'_>) -> Progress {
        let device = self.entropy.device.as_mut();
        device.map_or(Progress::Done, |device| device.poll(take))
    }

    fn physical_counter(&mut self) -> Option<u64> {
        if self.physical_is_denied {
            return None;
        }
        let ticks = counter::physical();
        // Being refused may cost an exception: once is enough.
        self.physical_is_denied = ticks.is_none();
        ticks
    }

    fn power_timer(&mut self) -> Option<u32> {
        self.uptime.power_timer()
    }

    fn sleep(&mut self, limit: Duration) {
        self.alarm
            .within(u64::try_from(limit.as_micros()).unwrap_or(u64::MAX));
        self.interrupts.sleep();
    }

    fn power_off(&mut self) -> ! {
        self.power.off()
    }

    fn reboot(&mut self) -> ! {
        self.power.reboot()
    }
}

/// The driver of the network device.
pub(crate) type Nic = net::Nic<Wire>;

/// The network device.
pub(crate) struct Port(pub(crate) Nic);

/// A frame of it.
pub(crate) struct PortFrame(Frame);

impl port::Frame for PortFrame {
    fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.bytes_mut()
    }

    fn set_length(&mut self, length: usize) {
        self.0.set_length(length);
    }
}

impl FramePort for Port {
    type Frame = PortFrame;

    fn mac(&self) -> [u8; 6] {
        self.0.mac()
    }

    fn receive(&mut self) -> Option<PortFrame> {
        self.0.receive().map(PortFrame)
    }

    fn allocate(&mut self) -> Option<PortFrame> {
        self.0.allocate().map(PortFrame)
    }

    fn has_received(&self) -> bool {
        self.0.has_received()
    }

    fn has_sent(&mut self) -> bool {
        self.0.has_sent()
    }

    fn send(&mut self, frame: PortFrame) {
        self.0.send(frame.0);
    }

    fn release(&mut self, frame: PortFrame) {
        self.0.release(frame.0);
    }

    fn kick(&mut self) {
        self.0.kick();
    }

    fn prepare_sleep(&mut self, awaits_sent: bool) -> bool {
        self.0.prepare_sleep(awaits_sent)
    }

    fn wake(&mut self) {
        self.0.wake();
    }

    fn can_wake(&self) -> bool {
        self.0.wakes()
    }

    fn counters(&self) -> PortCounters {
        let counters = self.0.counters();
        PortCounters {
            received: counters.received,
            sent: counters.sent,
            dropped: counters.dropped,
            kicks: counters.kicks,
            lies: counters.lies,
        }
    }

    fn tend(&mut self) {
        self.0.tend();
    }

    fn health(&self) -> Health {
        let health = self.0.health();
        Health {
            resets: health.resets,
            trouble: health.trouble.map(Trouble::words),
            dead: health.dead.map(virtio::Error::words),
        }
    }
}

/// The request queue of a virtio real-time clock.
pub(crate) struct Requests(pub(crate) Rtc);

impl RequestQueue for Requests {
    fn send(&mut self, request: &[u8], room: usize) -> bool {
        self.0.send(request, room)
    }

    fn receive(&mut self, answer: &mut [u8; ANSWER_MAX]) -> Option<usize> {
        self.0.receive(answer)
    }
}

/// The queue of a virtio entropy device.
pub(crate) struct Numbers(pub(crate) Rng);

impl EntropyQueue for Numbers {
    fn ask(&mut self) -> bool {
        self.0.ask()
    }

    fn receive(&mut self, bytes: &mut [u8; ROOM]) -> Option<usize> {
        self.0.receive(bytes)
    }
}
