//! The prompt on the serial console.

use core::fmt;

pub mod line;

/// Turns every `\n` into CR LF, which is what a serial terminal needs to start a new line.
///
/// Everything in this crate writes plain `\n`; whoever owns the UART wraps it in this, once.
#[derive(Debug)]
pub struct Crlf<W>(
    /// The raw console.
    pub W,
);

impl<W: fmt::Write> fmt::Write for Crlf<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (at, line) in text.split('\n').enumerate() {
            if at > 0 {
                self.0.write_str("\r\n")?;
            }
            self.0.write_str(line)?;
        }
        Ok(())
    }
}
