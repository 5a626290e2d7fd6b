//! The prompt on the serial console: bytes in, text out.
//!
//! Nothing here knows the UART. Everything writes plain `\n`; whoever owns the UART wraps it in
//! its [`Console`](crate::console::Console), which
//! makes that CR LF.

use core::fmt::{self, Write};

use gnomon_clock::{Busy, Clock, Counter, Fields, Ticks};

use crate::report::View;
use crate::smoke::tap::Tap;
use crate::smoke::{CHECKS, beside};
use crate::text::Text;

pub mod command;
mod commands;
mod history;
pub mod line;

use command::Command;
use line::{Event, LineEditor};

/// What stands before the line being typed.
pub const PROMPT: &str = "gnomon> ";

/// The prompt and the line being typed behind it.
#[derive(Debug, Default)]
pub struct Shell {
    editor: LineEditor,
    /// How often the time is still to be printed.
    times: u16,
    /// The smoke test, while it is told.
    smoke: Option<Tap>,
}

/// What a command asks of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Restart it.
    Reboot,
    /// Switch it off.
    PowerOff,
}

/// What boot has noted of the machine, line by line; what does not fit is cut.
#[derive(Debug)]
pub struct Facts {
    /// What describes it, and what was found there.
    pub description: Text<1024>,
    /// The functions on PCI.
    pub pci: Text<1024>,
    /// The memory map.
    pub memory: Text<1024>,
}

impl Facts {
    /// Nothing.
    pub const NONE: Self = Self {
        description: Text::EMPTY,
        pci: Text::EMPTY,
        memory: Text::EMPTY,
    };
}

/// Everything that commands can look at.
#[derive(Clone, Copy, Debug)]
pub struct Desk<'a> {
    /// What there is to tell at this moment.
    pub view: View<'a>,
    /// What boot has noted.
    pub facts: &'a Facts,
    /// For measurements of its own.
    pub meter: &'a dyn Meter,
}

/// Where the [`Desk`] of each moment comes from.
pub trait Subject {
    /// As of now.
    fn desk(&mut self) -> Desk<'_>;
}

/// The counter and the page, to be looked at as often as one likes.
pub trait Meter {
    /// Reads the counter.
    fn read(&self) -> Ticks;
    /// Reads the page, if there is one.
    fn fields(&self) -> Option<Result<Fields, Busy>>;
}

impl<C: Counter> Meter for Clock<'_, C> {
    fn read(&self) -> Ticks {
        self.stamp().ticks
    }

    fn fields(&self) -> Option<Result<Fields, Busy>> {
        Clock::fields(self)
    }
}

impl fmt::Debug for dyn Meter + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meter")
    }
}

impl Shell {
    /// A shell that has not been shown yet: call [`prompt`](Self::prompt).
    #[must_use]
    pub const fn new() -> Self {
        Self {
            editor: LineEditor::new(),
            times: 0,
            smoke: None,
        }
    }

    /// Shows the prompt and what has been typed so far: at the start, and again after a log line
    /// was printed in the middle of it.
    ///
    /// # Errors
    /// What `out` returns.
    pub fn prompt(&self, out: &mut dyn Write) -> fmt::Result {
        if self.is_busy() {
            return Ok(());
        }
        out.write_str(PROMPT)?;
        self.editor.show(out)
    }

    /// Takes one byte from the console: echoes it, and when it completes a command, runs that on
    /// what the `subject` is at the moment.
    ///
    /// What cannot be written to `out` is lost, and nothing else: there is nobody to tell.
    pub fn feed(
        &mut self,
        byte: u8,
        out: &mut dyn Write,
        subject: &mut dyn Subject,
    ) -> Option<Action> {
        let command = match self.editor.push(byte, out) {
            Event::None => return None,
            Event::Rejected(why) => {
                let _ = writeln!(out, "{why}");
                return None;
            }
            Event::Line(line) => match Command::parse(line) {
                Ok(command) => command,
                Err(unknown) => {
                    let _ = writeln!(out, "{unknown}");
                    None
                }
            },
            Event::Cancelled | Event::Discarded => None,
        };
        if let Some(command) = command {
            let _ = command::run(command, &subject.desk(), out);
            match command {
                Command::Reboot => return Some(Action::Reboot),
                Command::PowerOff => return Some(Action::PowerOff),
                Command::Time(times) => self.times = times.saturating_sub(1),
                Command::Smoke => self.smoke = Tap::begin(out, CHECKS).ok(),
                _ => {}
            }
        }
        let _ = self.prompt(out);
        None
    }

    /// Whether a command has more to print: see [`go_on`](Self::go_on).
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        self.times > 0 || self.smoke.is_some()
    }

    /// Prints the next line of a command that has more to print, and behind the last one the prompt. What is typed
    /// can wait meanwhile.
    pub fn go_on(&mut self, out: &mut dyn Write, subject: &mut dyn Subject) {
        if let Some(tap) = &mut self.smoke {
            let number = usize::try_from(tap.told()).unwrap_or(usize::MAX);
            if let Some((check, outcome)) = beside::check(number, &subject.desk()) {
                let _ = tap.tell(out, check, &outcome);
            } else {
                let _ = tap.end(out);
                self.smoke = None;
                let _ = self.prompt(out);
            }
            return;
        }
        if let Some(times) = self.times.checked_sub(1) {
            let _ = command::run(Command::Time(1), &subject.desk(), out);
            self.times = times;
            let _ = self.prompt(out);
        }
    }
}
