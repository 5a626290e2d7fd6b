//! The prompt on the serial console: bytes in, text out.
//!
//! Nothing here knows the UART. Everything writes plain `\n`; whoever owns the UART wraps it in
//! its [`Console`](crate::console::Console), which
//! makes that CR LF.

use core::fmt::{self, Write};

use crate::report::View;

pub mod command;
pub mod line;

use command::Command;
use line::{Event, LineEditor};

/// What stands before the line being typed.
pub const PROMPT: &str = "gnomon> ";

/// The prompt and the line being typed behind it.
#[derive(Debug, Default)]
pub struct Shell {
    editor: LineEditor,
}

/// What a command asks of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Restart it.
    Reboot,
    /// Switch it off.
    PowerOff,
}

impl Shell {
    /// A shell that has not been shown yet: call [`prompt`](Self::prompt).
    #[must_use]
    pub const fn new() -> Self {
        Self {
            editor: LineEditor::new(),
        }
    }

    /// Shows the prompt and what has been typed so far: at the start, and again after a log line
    /// was printed in the middle of it.
    ///
    /// # Errors
    /// What `out` returns.
    pub fn prompt(&self, out: &mut dyn Write) -> fmt::Result {
        write!(out, "{PROMPT}{}", self.editor.text())
    }

    /// Takes one byte from the console: echoes it, and when it completes a command, runs that on
    /// the `view` of the moment.
    ///
    /// What cannot be written to `out` is lost, and nothing else: there is nobody to tell.
    pub fn feed<'v>(
        &mut self,
        byte: u8,
        out: &mut dyn Write,
        view: impl FnOnce() -> View<'v>,
    ) -> Option<Action> {
        let action = match self.editor.push(byte, out) {
            Event::None => return None,
            Event::Rejected(why) => {
                let _ = writeln!(out, "{why}");
                return None;
            }
            Event::Line(line) => obey(line, out, view),
            Event::Cancelled | Event::Discarded => None,
        };
        if action.is_none() {
            let _ = out.write_str(PROMPT);
        }
        action
    }
}

/// Runs one line.
fn obey<'v>(line: &str, out: &mut dyn Write, view: impl FnOnce() -> View<'v>) -> Option<Action> {
    let command = match Command::parse(line) {
        Ok(command) => command?,
        Err(unknown) => {
            let _ = writeln!(out, "{unknown}");
            return None;
        }
    };
    let _ = command::run(command, &view(), out);
    match command {
        Command::Reboot => Some(Action::Reboot),
        Command::PowerOff => Some(Action::PowerOff),
        _ => None,
    }
}
