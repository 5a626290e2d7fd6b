//! QEMU's debugger stub, for what the monitor does not show of an Arm processor: its system registers,
//! and an exception on demand. (GDB's remote serial protocol.)

use core::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use gnomon_qemu::qmp::Qmp;

use crate::PATIENCE;
use crate::temporary::Temporary;

/// A debugger that is attached to the first processor. The machine is stopped meanwhile.
#[derive(Debug)]
pub struct Gdb(UnixStream);

impl Gdb {
    /// The number of the program counter on aarch64.
    pub const PC: u32 = 32;

    /// Has QEMU listen, and attaches.
    #[must_use]
    pub fn attach(qmp: &mut Qmp) -> Self {
        let path = Temporary::new("gdb");
        let path = path.path();
        let line = format!("gdbserver unix:{},server=on,wait=off", path.display());
        qmp.monitor(&line).expect("QEMU runs");
        let stream = UnixStream::connect(path).expect("QEMU listens");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a valid time");
        let mut gdb = Self(stream);
        let halted = gdb.ask("?");
        assert!(
            halted.starts_with('T') || halted.starts_with('S'),
            "{halted}"
        );
        gdb
    }

    /// Reads a system register, such as `TTBR0_EL1`.
    pub fn system_register(&mut self, name: &str) -> u64 {
        let list = self.description("system-registers.xml");
        let wanted = format!("name=\"{name}\"");
        let line = list.split('<').find(|line| line.contains(&wanted));
        let line = line.unwrap_or_else(|| panic!("no {name}: {list}"));
        let (_, rest) = line.split_once("regnum=\"").expect("a number");
        let number = rest
            .split('"')
            .next()
            .and_then(|digits| digits.parse().ok());
        self.register(number.expect("a decimal number"))
    }

    /// Reads a register by its number.
    pub fn register(&mut self, number: u32) -> u64 {
        let value = self.ask(&format!("p{number:x}"));
        let swapped = u64::from_str_radix(&value, 16);
        swapped.expect("16 digits").swap_bytes()
    }

    /// Sets a register, and lets the machine go on without a debugger.
    pub fn set_and_go(mut self, number: u32, value: u64) {
        let set = self.ask(&format!("P{number:x}={:016x}", value.swap_bytes()));
        assert_eq!(set, "OK");
        assert_eq!(self.ask("D"), "OK");
    }

    /// One of the target's descriptions.
    fn description(&mut self, name: &str) -> String {
        // The stub reveals them only to those who ask for the whole.
        let _whole = self.file("target.xml");
        self.file(name)
    }

    fn file(&mut self, name: &str) -> String {
        let mut text = String::new();
        loop {
            let part = self.ask(&format!("qXfer:features:read:{name}:{:x},ff0", text.len()));
            text.push_str(part.get(1..).unwrap_or_default());
            if !part.starts_with('m') {
                return text;
            }
        }
    }

    fn ask(&mut self, request: &str) -> String {
        let mut packet = format!("${request}#");
        let sum = request.bytes().fold(0_u8, u8::wrapping_add);
        write!(packet, "{sum:02x}").expect("a string");
        self.0.write_all(packet.as_bytes()).expect("QEMU runs");
        while self.byte() != b'$' {}
        let mut answer = Vec::new();
        loop {
            match self.byte() {
                b'#' => break,
                // What the protocol needs itself.
                b'}' => answer.push(self.byte() ^ 0x20),
                byte => answer.push(byte),
            }
        }
        let _sum = (self.byte(), self.byte());
        self.0.write_all(b"+").expect("QEMU runs");
        String::from_utf8(answer).expect("text")
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.0.read_exact(&mut byte).expect("QEMU answers");
        byte[0]
    }
}
