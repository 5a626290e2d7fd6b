//! The kernel's small interfaces, implemented over the machine's devices.

use core::time::Duration;

use gnomon_arch::dev::net::{Frame, Nic};
use gnomon_arch::dev::rtc::Rtc;
use gnomon_arch::machine::interrupt::Interrupts;
use gnomon_arch::machine::power::Power;
use gnomon_arch::machine::timer::{Alarm, Uptime};
use gnomon_arch::machine::{counter, io};
use gnomon_clock::Counter;
use gnomon_kernel::console::SerialPort;
use gnomon_kernel::machine::Machine;
use gnomon_kernel::net::port::{self, FramePort, PortCounters};
use gnomon_kernel::random::{Source, Take};
use gnomon_kernel::source::virtio_rtc::{ANSWER_MAX, RequestQueue};

use crate::last_words;
use crate::platform::Entropy;

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

/// Readings of the counter that go into the random pool.
const READS: usize = 8;

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
        let mut readings = [0; READS * 8];
        for bytes in readings.chunks_exact_mut(8) {
            bytes.copy_from_slice(&counter::this_cpu().read().0.to_le_bytes());
        }
        take(Source::Counter, &readings);
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

    fn send(&mut self, frame: PortFrame) {
        self.0.send(frame.0);
    }

    fn release(&mut self, frame: PortFrame) {
        self.0.release(frame.0);
    }

    fn kick(&mut self) {
        self.0.kick();
    }

    fn prepare_sleep(&mut self) -> bool {
        self.0.prepare_sleep()
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
