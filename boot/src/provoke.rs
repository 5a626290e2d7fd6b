//! For tests alone, and in no image that is shipped: `provoke=KIND` on the command line makes the image do what must
//! end in a report (`tests/tests/failure.rs`).
#![expect(clippy::panic, reason = "that is what is asked for")]

use core::cell::UnsafeCell;
use core::fmt;
use core::hint::black_box;

use crate::find::Page;
use crate::layout;

/// Does what the command line asks for.
pub(crate) fn as_asked(command_line: &str, page: &Page) {
    let mut words = command_line.split_ascii_whitespace();
    let Some(kind) = words.find_map(|word| word.strip_prefix("provoke=")) else {
        return;
    };
    let (text, _) = layout::image();
    match kind {
        "panic" => panic!("asked to"),
        "panic-in-report" => panic!("{}", Panics),
        "fault-in-report" => panic!("{}", Faults),
        "stack" => drop(black_box(deeper(black_box(1)))),
        "frames" => drop(black_box(deeper_by_pages(black_box(1)))),
        "null" => read(0x10),
        "text" => write(text),
        "constants" => write(layout::constants()),
        "page" => write(page.window.map_or(0, |window| window.address) + 0x20),
        "data" => {
            static CODE: Data = Data(UnsafeCell::new([0; _]));
            // SAFETY: nobody else has it.
            unsafe { CODE.0.get().write_volatile(code()) };
            execute(CODE.0.get() as u64);
        }
        "stack-code" => {
            let code = black_box(code());
            execute(&raw const code as u64);
        }
        _ => panic!("provoke={kind} is not known"),
    }
    panic!("provoke={kind}: nothing has happened");
}

type Code = [u32; 4];

struct Data(UnsafeCell<Code>);

// SAFETY: there is one processor, and one place that uses it.
unsafe impl Sync for Data {}

extern "C" fn nothing() {}

/// The code of a function that does nothing.
fn code() -> Code {
    // SAFETY: code is readable, and goes on behind so short a function.
    unsafe { (nothing as *const Code).read_unaligned() }
}

/// Calls itself until the stack ends.
#[expect(unconditional_recursion, reason = "that is what it is for")]
fn deeper(depth: u64) -> u64 {
    black_box(deeper(black_box(depth + 1))) + 1
}

/// The same in steps that are longer than the guard page.
#[expect(unconditional_recursion, reason = "that is what it is for")]
fn deeper_by_pages(depth: u64) -> u64 {
    let frame = [black_box(depth); 1700];
    black_box(&frame);
    black_box(deeper_by_pages(black_box(depth + 1))) + frame.len() as u64
}

fn read(address: u64) {
    // SAFETY: none; it is to be refused.
    let _never = unsafe { (address as *const u32).read_volatile() };
}

fn write(address: u64) {
    // SAFETY: none; it is to be refused.
    unsafe { (address as *mut u32).write_volatile(0) };
}

fn execute(address: u64) {
    // SAFETY: none; it is to be refused.
    let function: extern "C" fn() = unsafe { core::mem::transmute(address) };
    function();
}

/// Panics while it is being printed.
struct Panics;

impl fmt::Display for Panics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("before the second panic\n")?;
        panic!("the second panic")
    }
}

/// Faults while it is being printed.
struct Faults;

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("before the fault\n")?;
        read(0x20);
        Ok(())
    }
}
