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

mod find;
mod firmware;
mod glue;
mod info;
mod layout;
mod pvh;
mod text;

use core::cell::RefCell;
use core::fmt::{self, Write};
use core::panic::PanicInfo;

use gnomon_arch::cell::TakeCell;
use gnomon_arch::machine::counter::Tsc;
use gnomon_arch::machine::interrupt::Interrupts;
use gnomon_arch::machine::io::Com1;
use gnomon_arch::machine::timer::{Alarm, Uptime};
use gnomon_arch::machine::{power, trap};
use gnomon_clock::Clock;
use gnomon_kernel::config::Config;
use gnomon_kernel::console::Console;
use gnomon_kernel::net::stack::Storage;
use gnomon_kernel::report;
use gnomon_kernel::serve::responder;
use gnomon_kernel::service::{Found, Memory, Service};

use crate::firmware::Firmware;
use crate::glue::{Pc, Port, Uart};
use crate::text::Text;

/// What the NTP server remembers of its clients.
static CLIENTS: TakeCell<responder::Memory> = TakeCell::new(responder::Memory::new());

/// Where the entry code goes once it is in long mode, with the physical address of the loader's
/// start info.
extern "C" fn start(start_info: u32) -> ! {
    trap::install(|frame| last_words(format_args!("{frame}")));
    let boot = pvh::read(start_info);
    let mmu = RefCell::new(layout::own_address_space());
    let firmware = Firmware {
        mmu: &mmu,
        memory: boot.memory(),
    };
    let tables = firmware.tables(boot.rsdp);

    let uptime = Uptime::new(tables.as_ref().ok().and_then(find::pm_timer));
    let mut log = Log {
        console: Console::new(Com1::open().map(Uart)),
        uptime,
    };
    let config = Config::parse(boot.command_line(), &mut |warning| log.line(&warning));
    let page = find::page(config.vmclock, &tables, boot.memory(), &mmu);
    let tables = tables.ok();
    let interrupts = Interrupts::new(&mut mmu.borrow_mut()).unwrap_or_else(|why| fatal(&why));
    let (nic, network) = find::network(tables.as_ref(), &mmu, interrupts.message());
    let soft_off = tables.as_ref().and_then(find::soft_off);

    let network = Text::<128>::of(&network);
    let found = Found {
        machine: "x86_64, PVH",
        page: page.place(),
        nic: network.as_str(),
    };
    let Log { console, uptime } = log;
    let machine = Pc {
        uptime,
        alarm: Alarm::default(),
        interrupts,
        soft_off,
    };
    let clock = Clock::new(page.page, Tsc);
    let memory = Memory {
        stack: &mut Storage::default(),
        clients: CLIENTS.take().unwrap_or_else(|| fatal(&"entered twice")),
    };
    Service::new(
        machine,
        clock,
        nic.map(Port),
        memory,
        console,
        config,
        found,
    )
    .run()
}

/// The console while the service does not have it yet.
struct Log {
    console: Console<Uart>,
    uptime: Uptime,
}

impl Log {
    fn line(&mut self, message: &dyn fmt::Display) {
        let since = self.uptime.nanoseconds();
        // The console's queue takes everything or drops it: nothing to report, and nobody to report it to.
        let _ = report::log(&mut self.console, since, format_args!("{message}"));
    }
}

/// Prints on a console of its own, whatever state the other one is in.
fn last_words(text: fmt::Arguments<'_>) {
    let mut console = Console::new(Com1::open().map(Uart));
    let _ = writeln!(console, "\n{text}");
    console.drain(1_000_000);
}

/// Says why the image cannot run, and ends in failure.
fn fatal(why: &dyn fmt::Display) -> ! {
    last_words(format_args!("cannot start: {why}"));
    power::fail()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    last_words(format_args!("{info}"));
    power::fail()
}
