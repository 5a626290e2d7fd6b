//! The smoke test's machine: the kernel's `Bench` over the architecture's parts, and the end of the run.

use core::cell::RefCell;

use gnomon_arch::machine::interrupt::Interrupts;
use gnomon_arch::machine::io;
use gnomon_arch::machine::mmu::{Kind, Mmu};
use gnomon_arch::machine::power::{self, Power};
use gnomon_arch::machine::timer::{Alarm, Uptime};
use gnomon_arch::machine::{counter, trap};
use gnomon_kernel::console::Console;
use gnomon_kernel::discover::Window;
use gnomon_kernel::memory::MemoryRange;
use gnomon_kernel::services::Services;
use gnomon_kernel::services::counters::Rate;
use gnomon_kernel::smoke::machine::{Bench, Mapping, Nic, Notice};
use gnomon_kernel::smoke::{self, Subject};
use gnomon_kernel::source::rtc::Look;

use crate::find::Page;
use crate::glue::{self, Port, Uart};
use crate::platform::{Clocks, Notifier};
use crate::{layout, platform};

/// The machine under test.
pub(crate) struct Lab<'a> {
    pub(crate) memory: &'a [MemoryRange],
    pub(crate) mmu: &'a RefCell<Mmu>,
    pub(crate) page: &'a Page,
    pub(crate) uptime: Uptime,
    pub(crate) interrupts: Interrupts,
    pub(crate) alarm: Alarm,
    pub(crate) services: &'a dyn Services,
    pub(crate) clocks: &'a mut Clocks,
    pub(crate) notifier: Notifier,
    pub(crate) network: Nic<'a>,
}

impl Bench for Lab<'_> {
    fn memory(&self) -> &[MemoryRange] {
        self.memory
    }

    fn image(&self) -> (u64, u64) {
        layout::image()
    }

    fn page(&self) -> Option<Window> {
        self.page.window
    }

    fn mappings(&self, visit: &mut dyn FnMut(Mapping)) {
        let mmu = self.mmu.borrow();
        let mut see = |what, address, wanted| {
            visit(Mapping {
                what,
                address,
                wanted: words(wanted),
                found: words(mmu.kind(address)),
            });
        };
        layout::parts(&mut see);
        see("page zero", 0, None);
        if let Some(window) = self.page.window {
            see("vmclock page", window.address, Some(Kind::ReadOnly));
        }
    }

    fn undefined_instruction(&mut self) -> bool {
        trap::undefined_instruction()
    }

    fn uptime(&mut self) -> Option<u64> {
        self.uptime.nanoseconds()
    }

    fn independent_timer(&self) -> Option<&'static str> {
        platform::INDEPENDENT_TIMER
    }

    fn stated_rate(&self) -> Option<Rate> {
        self.services.rate()
    }

    fn set_alarm(&mut self, microseconds: u64) -> bool {
        self.alarm = Alarm::default();
        self.alarm.within(microseconds);
        self.interrupts.wake()
    }

    fn alarm_rang(&mut self) -> bool {
        self.interrupts.poll();
        self.alarm.rang()
    }

    fn uart_loopback(&mut self) -> Option<bool> {
        io::Uart::steal()?.loopback()
    }

    fn rtc(&mut self) -> Result<Look, &'static str> {
        self.clocks.look_at_rtc()
    }

    fn notice(&mut self) -> Notice {
        self.notifier.look(&self.interrupts)
    }

    fn end_notices(&mut self) {
        self.notifier.end(&self.interrupts);
    }

    fn nic(&self) -> Nic<'_> {
        self.network
    }
}

/// What became of the network device.
pub(crate) const fn device(runs: bool, is_refused: bool, words: &str) -> Nic<'_> {
    match (runs, is_refused) {
        (true, _) => Nic::Running(words),
        (false, true) => Nic::Refused(words),
        (false, false) => Nic::Absent(words),
    }
}

/// Runs the smoke test and ends the machine: powered off when nothing has failed; otherwise in failure, and where
/// that is not possible powered off as well, because whoever reads the stream knows how it went.
pub(crate) fn run(
    mut lab: Lab<'_>,
    nic: Option<glue::Nic>,
    mut console: Console<'_, Uart>,
    power: Power,
    seconds: u16,
) -> ! {
    let page = lab.page;
    let mut subject = Subject {
        bench: &mut lab,
        counter: counter::this_cpu(),
        page: page.mapped,
        place: page.place(),
        port: nic.map(Port),
    };
    match smoke::run(&mut subject, &mut console, seconds) {
        Ok(tally) if tally.not_ok == 0 => {}
        _ => power::exit_failed(),
    }
    power.off()
}

const fn words(kind: Option<Kind>) -> &'static str {
    match kind {
        Some(Kind::Text) => "read-execute",
        Some(Kind::ReadOnly) => "read-only",
        Some(Kind::Data) => "read-write",
        Some(Kind::Device) => "device",
        None => "not mapped",
    }
}
