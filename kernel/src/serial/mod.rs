//! The time on a serial line: `serial=nmea`, `serial=json`, and the same for a second port with `serial2=`.
//!
//! What this can promise, and what it cannot:
//!
//! * **The top of the second.** The first byte of a second's first sentence is handed to the UART as soon as
//!   the clock has been seen to have passed the top of the second, and no later than [`LATE`] after it, or
//!   not at all. On a real UART the start bit of that byte goes out within a bit time then, for the
//!   transmitter is known to be empty. What a receiver does later (its FIFO's time-out, its interrupt, its
//!   operating system) nobody here can know; it is a millisecond as a rule.
//! * **The speed.** A real UART at 115200 baud takes 87 µs a byte and 7 ms for the two sentences. An emulated one
//!   ignores the speed and hands bytes over as the host's thread gets to them; it has no start bit. Its time is as
//!   good as the scheduling of that thread. It is given no more than 16 bytes a millisecond, whatever it would take, so
//!   that NTP clients do not wait for it.
//! * **A reader that does not read.** A sentence that cannot be sent at once is not sent later: what is left of it is
//!   thrown away at the next second, or when the disruption marker moves, and the line is ended, so that its checksum is
//!   missing. The bytes that the UART itself has taken (16, or 32 on Arm) cannot be had back; they are never a whole
//!   sentence.
//! * **The error.** NMEA has no field for it. Nothing is sent while the time may be off by half a second or more, and
//!   nothing while NTP clients are refused it. Who wants to know the bound takes `json`.
//! * **A request.** The stamp in a JSON answer is taken after the last byte of its request has been received, and before
//!   the first of the answer is sent; how long either was under way is for the asker to measure, from both ends.

pub mod beat;
pub mod nmea;

pub use beat::LATE;
