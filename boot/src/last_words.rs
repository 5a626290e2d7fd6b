//! The last words: what has failed and where, on the console; after them the run ends as `on_panic=` chose.
//!
//! They rely on nothing of the service: the UART is written to byte by byte, whatever state its driver was in.
//! They are said once. A failure in the middle of them gets one line that cannot fail, and one in
//! that gets nothing, so that no report can loop.

use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use gnomon_arch::failure::{Access, Ending, Fault};
use gnomon_arch::machine::trap::{Frame, ends_in_call};
use gnomon_arch::machine::{io, power};
use gnomon_kernel::config::OnPanic;
use gnomon_kernel::discover::Window;

use crate::layout;

/// Reports that have been begun.
static REPORTS: AtomicU8 = AtomicU8::new(0);
/// The latest uptime in nanoseconds that anybody asked for; zero for none.
static UPTIME: AtomicU64 = AtomicU64::new(0);
/// Where the vmclock page is; zero for nowhere.
static PAGE: AtomicU64 = AtomicU64::new(0);

/// Addresses of calls that are shown.
const CALLS: usize = 12;
const PER_LINE: usize = 4;
/// How often in all the UART may take nothing until the rest is given up.
const PATIENCE: u32 = 1_000_000;

/// Notes the time since the start, for a report that may come.
pub(crate) fn note_uptime(nanos: Option<u64>) {
    UPTIME.store(nanos.unwrap_or(0), Ordering::Relaxed);
}

/// Notes where the vmclock page is.
pub(crate) fn note_page(window: Option<Window>) {
    let address = window.map_or(0, |window| window.address);
    PAGE.store(address, Ordering::Relaxed);
}

/// What `on_panic=` means to the machine.
pub(crate) const fn ending(on_panic: OnPanic) -> Ending {
    match on_panic {
        OnPanic::Exit => Ending::Exit,
        OnPanic::Halt => Ending::Halt,
        OnPanic::Reboot => Ending::Reboot,
    }
}

/// Reports an exception.
pub(crate) fn exception(frame: &Frame) {
    report(&frame, frame.fault(), frame.stack_pointer());
}

/// Reports a panic, and ends.
pub(crate) fn panicked(info: &PanicInfo<'_>) -> ! {
    let here = 0_u8;
    report(&format_args!("{info}\n"), None, &raw const here as u64);
    power::fail()
}

/// Says why the image cannot run, and ends in failure.
pub(crate) fn fatal(why: &dyn fmt::Display) -> ! {
    let here = 0_u8;
    let text = format_args!("cannot start: {why}\n");
    report(&text, None, &raw const here as u64);
    power::fail()
}

/// Prints all there is to tell: `what`, which ends its line, the memory that was at fault, and from `stack` on who has
/// called.
fn report(what: &dyn fmt::Display, fault: Option<Fault>, stack: u64) {
    let reports = REPORTS.load(Ordering::Relaxed);
    REPORTS.store(reports.saturating_add(1), Ordering::Relaxed);
    let mut out = Words {
        uart: io::Uart::steal(),
        patience: PATIENCE,
    };
    match reports {
        0 => {}
        1 => return out.put(b"\r\nfailed again while reporting that\r\n"),
        _ => return,
    }
    // The UART takes everything or drops it: nothing to report, and nobody to report it to.
    let _ = write!(out, "\n{what}");
    if let Some(fault) = fault {
        let _ = writeln!(out, "  {}", Sentence(fault));
    }
    let _ = match UPTIME.load(Ordering::Relaxed) {
        0 => writeln!(out, "  uptime unknown"),
        nanos => {
            let micros = nanos / 1000;
            let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
            writeln!(out, "  uptime {seconds}.{rest:06} s")
        }
    };
    for (number, address) in callers(stack).take(CALLS).enumerate() {
        let before = match number {
            0 => "  called from ",
            _ if number % PER_LINE == 0 => "\n              ",
            _ => " ",
        };
        let _ = write!(out, "{before}{address:016x}");
    }
    out.put(b"\r\n");
}

/// The console, with nothing in between.
struct Words {
    uart: Option<io::Uart>,
    patience: u32,
}

impl Words {
    fn put(&mut self, mut bytes: &[u8]) {
        let Some(uart) = &mut self.uart else { return };
        while let (Some(_), 1..) = (bytes.first(), self.patience) {
            match uart.send(bytes) {
                0 => self.patience -= 1,
                sent => bytes = bytes.get(sent..).unwrap_or_default(),
            }
        }
    }
}

impl Write for Words {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for line in text.split_inclusive('\n') {
            match line.strip_suffix('\n') {
                Some(line) => {
                    self.put(line.as_bytes());
                    self.put(b"\r\n");
                }
                None => self.put(line.as_bytes()),
            }
        }
        Ok(())
    }
}

/// Says what an access to memory was, and why it was refused.
struct Sentence(Fault);

impl fmt::Display for Sentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { address, access } = self.0;
        let verb = match access {
            Access::Read => "read from",
            Access::Write => "write to",
            Access::Execute => "execution of",
        };
        let why = match (layout::place(address), access) {
            (Some("stack guard"), _) => {
                "stack overflow: the guard page below the stack is not mapped"
            }
            (Some("page zero"), _) => "null pointer: page zero is not mapped",
            (Some("text"), Access::Write) => "code is never writable",
            (Some("constants"), Access::Write) => "constants are never writable",
            (Some("constants"), Access::Execute) => "constants are never executable",
            (Some("data"), Access::Execute) => "data is never executable",
            (Some("stack"), Access::Execute) => "the stack is never executable",
            (None, Access::Write) if is_page(address) => {
                "the vmclock page is the host's, and read-only here"
            }
            _ => "nothing is mapped there for that",
        };
        write!(f, "{verb} {address:#x}: {why}")
    }
}

fn is_page(address: u64) -> bool {
    let page = PAGE.load(Ordering::Relaxed);
    page != 0 && address.wrapping_sub(page) < 4096
}

/// Addresses on the stack that lie behind a call, the latest first: those that functions return to, and among them
/// some that they have returned to already.
fn callers(stack: u64) -> impl Iterator<Item = u64> {
    /// The longest call is this long.
    const LONGEST: u64 = 7;
    layout::stack_from(stack).filter(|address| {
        let code = address
            .checked_sub(LONGEST)
            .and_then(|start| layout::text(start, LONGEST));
        code.is_some_and(ends_in_call)
    })
}
