//! Gnomon's image: from the loader's entry to the service.
//!
//! [`start`] is the whole story; each step is a line or two, and what it needs stands in
//! `gnomon_arch` (the machine) and `gnomon_kernel` (the service).
#![no_std]
#![no_main]
#![expect(
    unsafe_code,
    reason = "entry code, linker symbols, and references to memory that firmware describes"
)]
#![deny(clippy::float_arithmetic)]
// A panic is a dead clock.
#![cfg_attr(
    not(test),
    deny(
        clippy::expect_used,
        clippy::panic,
        clippy::todo,
        clippy::unimplemented,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

mod find;
mod glue;
mod last_words;
mod layout;
#[cfg(feature = "provoke")]
mod provoke;
mod smoke;

#[cfg(target_arch = "x86_64")]
#[path = "x86_64/mod.rs"]
mod platform;

#[cfg(target_arch = "aarch64")]
#[path = "aarch64/mod.rs"]
mod platform;

use core::cell::RefCell;
use core::fmt;
use core::mem::ManuallyDrop;
use core::panic::PanicInfo;

use gnomon_arch::cell::TakeCell;
use gnomon_arch::machine::timer::{Alarm, Uptime};
use gnomon_arch::machine::{counter, power, trap};
use gnomon_clock::{Clock, Source};
use gnomon_kernel::config::{Config, Serial};
use gnomon_kernel::console::{Console, Queue};
use gnomon_kernel::http;
use gnomon_kernel::net::stack::Storage;
use gnomon_kernel::report;
use gnomon_kernel::serve::responder;
use gnomon_kernel::service::{Found, Memory, Service};
use gnomon_kernel::source::{Driver, Table};

use crate::find::{Finding, Network};
use crate::glue::{Board, Port, Uart};
use crate::last_words::fatal;
use crate::platform::{Firmware, Handover, Hardware};
use crate::smoke::Lab;
use gnomon_kernel::shell::Facts;
use gnomon_kernel::text::Text;
use heapless::Vec;

/// What the NTP server remembers of its clients.
static CLIENTS: TakeCell<responder::Memory> = TakeCell::new(responder::Memory::new());

/// What the shell tells of the machine.
static FACTS: TakeCell<Facts> = TakeCell::new(Facts::NONE);
/// Where the output of the two serial ports waits.
static QUEUES: [TakeCell<Queue>; 2] = [const { TakeCell::new([0; _]) }; 2];
/// How many sources of time there are beside the page.
const COUNT: usize = Source::ALL.len();

/// The connections of HTTP.
static CONNECTIONS: TakeCell<http::Memory> = TakeCell::new(http::Memory::new());

/// What is learned of the sources of time beside the page.
static SOURCES: TakeCell<Table> = TakeCell::new(Table::new());

/// Where the entry code goes once Rust can run, with the physical address of the loader's words.
extern "C" fn start(handover: u64) -> ! {
    trap::install(last_words::exception);
    let handover = Handover::read(handover);
    let mmu = RefCell::new(layout::own_address_space());
    let firmware = Firmware::new(handover, &mmu);
    let hardware = Hardware::new(&firmware);

    let uptime = hardware.uptime();
    let mut log = Log {
        console: Console::new(hardware.console().map(Uart), claim(&QUEUES[0])),
        uptime,
    };
    let mut config = Config::parse(firmware.command_line(), &mut |warning| log.line(&warning));
    let power = hardware.power();
    power::on_failure(last_words::ending(config.on_panic), power);
    let keys = &mut config.policy.keys;
    find::ntp_keys(hardware.fw_cfg(), keys, &mut |warning| log.line(warning));
    let page = hardware.page(config.vmclock);
    last_words::note_page(page.window);
    let interrupts = hardware.interrupts(&mut |why| log.line(why));
    let second = match config.serial2 {
        Serial::Off => None,
        _ => hardware.second_port(&interrupts).or_else(|| {
            log.line(&"serial2: there is no second serial port");
            None
        }),
    };
    let facts = claim(&FACTS);
    let (nic, network) = hardware.network(&interrupts, &mut facts.pci);
    let (mut host_clock, host_random) = hardware.host_devices();
    find::memory(hardware.memory(), &mut facts.memory);
    hardware.describe(&mut facts.description);
    let services = hardware.services();
    let host_random = host_random.unwrap_or_else(|why| {
        log.line(&format_args!("virtio-rng: refused: {why}"));
        None
    });
    let entropy = hardware.entropy(&services, host_random);
    let mut clocks = hardware.clocks(&services);
    // The service never ends, and lists that could be dropped could not be lent to it.
    let mut sources: ManuallyDrop<Vec<&mut dyn Driver, COUNT>> = ManuallyDrop::default();
    let mut absent: ManuallyDrop<Vec<(Source, &str), COUNT>> = ManuallyDrop::default();
    // There is room for all that there are.
    let mut add = |finding| match finding {
        Finding::Present(driver) => drop(sources.push(driver)),
        Finding::Absent(source, why) => drop(absent.push((source, why))),
    };
    add(Finding::of(Source::VirtioRtc, &mut host_clock));
    clocks.each(&mut add);

    #[cfg(feature = "provoke")]
    provoke::as_asked(firmware.command_line(), &page);

    let is_refused = matches!(network, Network::Refused(..));
    let network = Text::<128>::of(&network);
    if let Some(seconds) = config.smoke {
        let lab = Lab {
            memory: hardware.memory(),
            mmu: &mmu,
            page: &page,
            uptime: log.uptime,
            alarm: Alarm::default(),
            services: &services,
            clocks: &mut clocks,
            notifier: hardware.notifier(&interrupts, page.window),
            interrupts,
            network: smoke::device(nic.is_some(), is_refused, network.as_str()),
        };
        smoke::run(lab, nic, log.console, power, seconds);
    }
    let found = Found {
        machine: hardware.name(),
        page: page.place(),
        nic: network.as_str(),
        absent: &absent,
        services: &services,
        facts,
    };
    let Log { console, uptime } = log;
    let machine = Board {
        uptime,
        alarm: Alarm::default(),
        interrupts,
        power,
        entropy,
        physical_is_denied: false,
    };
    let clock = Clock::new(page.mapped, counter::this_cpu());
    let memory = Memory {
        stack: &mut Storage::default(),
        clients: claim(&CLIENTS),
        http: claim(&CONNECTIONS),
        table: claim(&SOURCES),
        sources: &mut sources,
    };
    Service::new(
        machine,
        clock,
        nic.map(Port),
        memory,
        [console, Console::new(second.map(Uart), claim(&QUEUES[1]))],
        config,
        found,
    )
    .run()
}

/// The console while the service does not have it yet.
struct Log {
    console: Console<'static, Uart>,
    uptime: Uptime,
}

impl Log {
    fn line(&mut self, message: &dyn fmt::Display) {
        let since = self.uptime.nanoseconds();
        last_words::note_uptime(since);
        // The console's queue takes everything or drops it: nothing to report, and nobody to report it to.
        let _ = report::log(&mut self.console, since, format_args!("{message}"));
        // What the UART takes at once, for what follows may fail.
        self.console.drain(1);
    }
}

/// What there is one of, for whoever asks first.
fn claim<T>(cell: &'static TakeCell<T>) -> &'static mut T {
    cell.take().unwrap_or_else(|| fatal(&"entered twice"))
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    last_words::panicked(info)
}
