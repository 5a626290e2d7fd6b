//! The serial console: output that never makes the service wait, input one byte at a time.

use core::fmt;

/// A UART, as the machine offers it. Neither call waits.
pub trait SerialPort {
    /// Takes a received byte, if there is one.
    fn receive(&mut self) -> Option<u8>;
    /// Hands over as many of `bytes` as fit now; returns how many.
    fn send(&mut self, bytes: &[u8]) -> usize;
}

/// Where output waits for a slow reader: too much for a stack.
pub type Queue = [u8; QUEUE];

const QUEUE: usize = 8192;
/// Bytes that are handed over before everything else gets its turn: on an emulated UART each is a trip to the host, and
/// while the virtual CPU is on one, QEMU carries no frames.
pub const BURST: usize = 8;
/// What a reader sees in place of output that did not fit.
const LOST: &[u8] = b"\r\n[output lost: the console is not being read]\r\n";

/// Formats into a queue and feeds the UART from it; line ends become CR LF.
///
/// What is formatted waits for [`pump`](Self::pump), which whoever runs the console calls in between other things. A
/// console that nobody reads fills the queue; what comes then is lost and said to be lost. An NTP reply never waits for
/// a terminal.
pub struct Console<'q, S> {
    port: Option<S>,
    queue: &'q mut Queue,
    head: usize,
    length: usize,
    lost: bool,
    is_stuck: bool,
}

impl<'q, S: SerialPort> Console<'q, S> {
    /// A console on `port`; without one, output goes nowhere and nothing is ever received.
    pub const fn new(port: Option<S>, queue: &'q mut Queue) -> Self {
        Self {
            port,
            queue,
            head: 0,
            length: 0,
            lost: false,
            is_stuck: false,
        }
    }

    /// Gives the UART some of what is waiting, [`BURST`] bytes at most and no more than it takes now; returns how many.
    pub fn pump(&mut self) -> usize {
        let Some(port) = &mut self.port else {
            self.length = 0;
            return 0;
        };
        let mut sent = 0;
        if self.length > 0 {
            let end = (self.head + self.length.min(BURST)).min(QUEUE);
            let waiting = self.queue.get(self.head..end).unwrap_or_default();
            sent = port.send(waiting).min(self.length);
            self.is_stuck = sent == 0;
            self.head = (self.head + sent) % QUEUE;
            self.length -= sent;
        }
        if self.lost && self.length == 0 {
            self.lost = false;
            self.append(LOST);
        }
        sent
    }

    /// Takes a received byte, if there is one.
    pub fn receive(&mut self) -> Option<u8> {
        self.port.as_mut()?.receive()
    }

    /// Whether output is still waiting for the UART.
    #[must_use]
    pub const fn is_waiting(&self) -> bool {
        self.length > 0
    }

    /// Whether the UART took nothing of it when it was last offered some: it will not do so at once.
    #[must_use]
    pub const fn is_stuck(&self) -> bool {
        self.is_waiting() && self.is_stuck
    }

    /// How many more bytes can wait.
    #[must_use]
    pub const fn room(&self) -> usize {
        QUEUE - self.length
    }

    /// Drops the UART: nothing is printed or received from here on (`serial=off`).
    pub fn close(&mut self) {
        self.port = None;
        self.length = 0;
    }

    /// Queues bytes as they are, all of them or none, and gives the UART the first of what is waiting.
    pub fn write(&mut self, bytes: &[u8]) {
        self.append(bytes);
        self.pump();
    }

    /// Throws away what the UART has not taken yet, and ends the line: what is lost is not to become whole by what
    /// follows.
    pub fn spoil(&mut self) {
        self.length = 0;
        self.lost = false;
        self.append(b"\r\n");
    }

    /// Waits until everything is out or the UART has refused `patience` times in a row. For when nothing else is
    /// served: before that begins, and for the last words.
    pub fn drain(&mut self, patience: u32) {
        let mut refusals = 0;
        while (self.length > 0 || self.lost) && refusals < patience {
            refusals = match self.pump() {
                0 => refusals + 1,
                _ => 0,
            };
        }
    }

    /// Queues all of `bytes`, or none of them.
    fn append(&mut self, bytes: &[u8]) {
        if bytes.len() > QUEUE - self.length {
            self.lost = true;
            return;
        }
        for &byte in bytes {
            if let Some(place) = self.queue.get_mut((self.head + self.length) % QUEUE) {
                *place = byte;
                self.length += 1;
            }
        }
    }
}

impl<S> fmt::Debug for Console<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console")
            .field("waiting", &self.length)
            .finish_non_exhaustive()
    }
}

impl<S: SerialPort> fmt::Write for Console<'_, S> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (number, line) in text.split('\n').enumerate() {
            if number > 0 {
                self.append(b"\r\n");
            }
            self.append(line.as_bytes());
        }
        Ok(())
    }

    /// Most of what is written so is padding.
    fn write_char(&mut self, character: char) -> fmt::Result {
        match character {
            '\n' => self.append(b"\r\n"),
            _ => self.append(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use core::fmt::Write;
    use std::vec::Vec;

    use super::*;

    /// Takes at most `room` bytes in all.
    struct Slow {
        out: Vec<u8>,
        room: usize,
    }

    impl SerialPort for Slow {
        fn receive(&mut self) -> Option<u8> {
            None
        }
        fn send(&mut self, bytes: &[u8]) -> usize {
            let count = bytes.len().min(self.room).min(16);
            self.room -= count;
            self.out.extend_from_slice(&bytes[..count]);
            count
        }
    }

    fn queue() -> &'static mut Queue {
        std::boxed::Box::leak(std::boxed::Box::new([0; QUEUE]))
    }

    fn console(room: usize) -> Console<'static, Slow> {
        let out = Vec::new();
        Console::new(Some(Slow { out, room }), queue())
    }

    fn out(console: &Console<'_, Slow>) -> std::string::String {
        std::string::String::from_utf8(console.port.as_ref().unwrap().out.clone()).unwrap()
    }

    #[test]
    fn line_ends_become_cr_lf() {
        let mut console = console(usize::MAX);
        writeln!(console, "a\n{}", 1).unwrap();
        assert_eq!(out(&console), "", "not before its turn");
        console.drain(1);
        assert_eq!(out(&console), "a\r\n1\r\n");
        assert!(!console.is_waiting());
    }

    #[test]
    fn a_stuck_reader_costs_output_not_time() {
        let mut console = console(10);
        for number in 0..2_000 {
            writeln!(console, "line {number}").unwrap();
        }
        assert!(console.is_waiting());
        console.drain(3);
        assert!(console.is_waiting() && console.is_stuck(), "gives up");
        console.port.as_mut().unwrap().room = usize::MAX;
        console.pump();
        let shown = out(&console).len();
        assert_eq!(shown, 10 + BURST, "not all at once");
        assert!(console.is_waiting() && !console.is_stuck());
        console.drain(3);
        let shown = out(&console);
        assert!(shown.starts_with("line 0\r\nline 1\r\n"));
        assert!(shown.ends_with("[output lost: the console is not being read]\r\n"));
        writeln!(console, "alive").unwrap();
        console.drain(1);
        assert!(out(&console).ends_with("alive\r\n"));
    }

    #[test]
    fn what_is_spoilt_does_not_become_whole() {
        let mut console = console(10);
        console.write(b"$GPRMC,120531.00,A*00\r\n");
        assert_eq!(out(&console), "$GPRMC,1", "the first of it at once");
        console.drain(1);
        assert_eq!(console.room(), QUEUE - 13);
        console.spoil();
        console.port.as_mut().unwrap().room = usize::MAX;
        console.write(b"$GP");
        console.drain(1);
        assert_eq!(out(&console), "$GPRMC,120\r\n$GP");
    }

    #[test]
    fn without_a_port_nothing_piles_up() {
        let mut console = Console::<Slow>::new(None, queue());
        writeln!(console, "x").unwrap();
        assert_eq!(console.pump(), 0);
        assert!(!console.is_waiting());
        assert_eq!(console.receive(), None);
    }
}
