//! The whole service over a machine, a wire and serial lines that are plain memory.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use gnomon_clock::{Clock, Fields, VmclockPage};
use gnomon_kernel::config::Config;
use gnomon_kernel::console::Console;
use gnomon_kernel::http;
use gnomon_kernel::machine::Machine;
use gnomon_kernel::net::stack::Storage;
use gnomon_kernel::random::{Source, Take};
use gnomon_kernel::serve::responder;
use gnomon_kernel::service::{Found, Memory, Service};
use gnomon_kernel::services::Nothing;
use gnomon_kernel::shell::Facts;
use gnomon_kernel::source::Table;

use crate::counter::Gigahertz;
use crate::line::Line;
pub(crate) use crate::wire::GUEST_MAC;
use crate::wire::Wire;
use crate::world::page;

/// The client's.
pub const CLIENT_MAC: [u8; 6] = [0x52, 0x55, 10, 0, 2, 2];
/// The guest's IPv4 address, where it has a fixed one.
pub const GUEST: [u8; 4] = [10, 0, 2, 15];
/// The client's.
pub const CLIENT: [u8; 4] = [10, 0, 2, 2];
/// How many rounds the service may say in a row that there may be more.
const ROUNDS: u32 = 20_000;

/// The machine was switched off or restarted: an end like any other, which no panic hook sees.
struct Off;

struct Host(Rc<Cell<Duration>>);

impl Machine for Host {
    fn uptime(&mut self) -> Option<Duration> {
        self.0.set(self.0.get() + Duration::from_micros(10));
        Some(self.0.get())
    }
    fn gather(&mut self, take: Take<'_>) {
        take(Source::Boot, b"a seed of this input");
    }
    fn physical_counter(&mut self) -> Option<u64> {
        None
    }
    fn sleep(&mut self, _: Duration) {}
    fn power_off(&mut self) -> ! {
        resume_unwind(Box::new(Off))
    }
    fn reboot(&mut self) -> ! {
        resume_unwind(Box::new(Off))
    }
}

/// A service with everything that it touches.
pub struct Rig<'a> {
    service: Service<'a, Host, Gigahertz, Wire, Line>,
    wire: Wire,
    uptime: Rc<Cell<Duration>>,
    /// Its counter.
    pub(crate) counter: Gigahertz,
    /// Its page.
    pub page: &'static VmclockPage,
    /// Its console.
    pub(crate) console: Line,
    /// Its other serial port.
    pub(crate) second: Line,
}

/// Starts a service and lets `with` play with it, until the machine is switched off.
///
/// # Panics
/// As `with` does, and where the command line is not understood.
pub fn with_rig(fields: &Fields, command_line: &str, with: impl FnOnce(Rig<'_>)) {
    let counter = Gigahertz::default();
    let (wire, console, second) = (Wire::default(), Line::default(), Line::default());
    let uptime = Rc::new(Cell::new(Duration::ZERO));
    let mut storage = Box::<Storage<'_>>::default();
    let mut clients = Box::<responder::Memory>::default();
    let mut connections = Box::<http::Memory>::default();
    let mut table = Box::<Table>::default();
    let mut queues = [[0; 8192]; 2];
    let [first_queue, second_queue] = &mut queues;
    let page = page(fields);
    let config = Config::parse(command_line, &mut |warning| panic!("{warning}"));
    let service = Service::new(
        Host(uptime.clone()),
        Clock::new(Some(page), counter.clone()),
        Some(wire.clone()),
        Memory {
            stack: &mut storage,
            clients: &mut clients,
            http: &mut connections,
            table: &mut table,
            sources: &mut [],
        },
        [
            Console::new(Some(console.clone()), first_queue),
            Console::new(Some(second.clone()), second_queue),
        ],
        config,
        Found {
            machine: "fuzz",
            page: Err("fuzz"),
            nic: "fuzz",
            absent: &[],
            services: &Nothing,
            facts: &Facts::NONE,
        },
    );
    let rig = Rig {
        service,
        wire,
        uptime,
        counter,
        page,
        console,
        second,
    };
    if let Err(cause) = catch_unwind(AssertUnwindSafe(|| with(rig)))
        && !cause.is::<Off>()
    {
        resume_unwind(cause);
    }
}

impl Rig<'_> {
    /// Lets the guest have `frames` and returns what it sends.
    ///
    /// # Panics
    /// It never comes to rest, or a buffer is lost.
    pub fn exchange(&mut self, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.wire
            .0
            .borrow_mut()
            .to_guest
            .extend(frames.iter().cloned());
        let mut rounds = 0;
        while self.service.turn() {
            rounds += 1;
            assert!(rounds < ROUNDS, "there is no end to it");
        }
        let mut wire = self.wire.0.borrow_mut();
        assert_eq!(wire.buffers_out, 0, "no buffer is lost");
        assert!(wire.pending.is_empty(), "everything sent was kicked");
        std::mem::take(&mut wire.from_guest)
    }

    /// Lets time pass, by the counter and by the timer, and the service have a look.
    pub fn pass(&mut self, time: Duration) -> Vec<Vec<u8>> {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let ticks = &self.counter.0.ticks;
        ticks.set(ticks.get().wrapping_add(nanos));
        self.uptime.set(self.uptime.get() + time);
        self.exchange(&[])
    }
}
