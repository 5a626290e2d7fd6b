//! The serial ports: the console, and those that give the time to programs.
//!
//! **How long they make anybody wait.** Each byte on an emulated UART is a trip to the host, and while the virtual CPU
//! is on one of them after the other, QEMU's main loop hardly gets a turn to carry frames. So a port moves [`BURST`]
//! bytes each way at most in one round of the service's loop, and is then left alone for [`PACE`], whoever wants
//! whatever of it: 16 bytes a millisecond, a little more than a real line of 115200 baud carries. What is to be said
//! waits in the console's queue meanwhile. A port whose turn has come gets it after one batch of frames, so that
//! a flood of them cannot silence it.

use core::fmt::Write;
use core::time::Duration;

use gnomon_clock::Counter;

use super::Service;
use super::served::Core;
use crate::config::Serial;
use crate::console::{BURST, Console, SerialPort};
use crate::json;
use crate::machine::Machine;
use crate::net::port::FramePort;
use crate::serial::beat::{Beat, Step};
use crate::serial::nmea::Sentences;
use crate::shell::Action;

/// The longest answer in JSON, generously.
const ANSWER: usize = 1024;
/// The most that one command says, generously.
const SAYING: usize = 4096;
/// How long a UART is left alone that has been given something, or has given something.
const PACE: Duration = Duration::from_micros(500);
/// How soon a UART that takes no more is offered the rest: a fast one has sent its FIFO's 16 bytes by then.
const OFFER: Duration = Duration::from_millis(1);
/// How often a UART that takes nothing is asked again before the last words are given up.
const PATIENCE: u32 = 1_000_000;

/// A serial port, and what runs on it.
pub(super) struct Port<'q, S> {
    pub(super) console: Console<'q, S>,
    pub(super) mode: Serial,
    beat: Beat,
    /// The disruption marker that holds for what is being sent.
    marker: u64,
    /// The last byte was a CR: an LF right after it belongs to the same line end.
    after_cr: bool,
    /// Until when the UART is left alone.
    rests_until: Option<Duration>,
    /// Bytes that may still be taken in this round.
    left: usize,
    /// There may be more of them.
    hears: bool,
}

impl<'q, S: SerialPort> Port<'q, S> {
    pub(super) const fn new(console: Console<'q, S>, mode: Serial) -> Self {
        Self {
            console,
            mode,
            beat: Beat::new(),
            marker: 0,
            after_cr: false,
            rests_until: None,
            left: 0,
            hears: false,
        }
    }

    /// Whether there is something to tell at the top of a second.
    const fn beats(&self) -> bool {
        matches!(self.mode, Serial::Nmea | Serial::Json { period: Some(_) })
    }

    /// How long the UART is still left alone.
    fn pause(&self, uptime: Option<Duration>) -> Duration {
        match (self.rests_until, uptime) {
            // On another host the timer may be behind.
            (Some(until), Some(uptime)) if until <= uptime + OFFER => until.saturating_sub(uptime),
            _ => Duration::ZERO,
        }
    }

    /// How long there is nothing to do, if nothing is received.
    fn rest(&self, uptime: Option<Duration>) -> Duration {
        let pause = self.pause(uptime);
        let patience = match (self.console.is_waiting(), self.console.is_stuck()) {
            // It may have received something meanwhile, and has said so.
            _ if !pause.is_zero() => pause,
            (true, true) if uptime.is_none() => OFFER,
            (true, _) => Duration::ZERO,
            (false, _) if self.hears => Duration::ZERO,
            (false, _) => Duration::MAX,
        };
        match (self.beat.due(), uptime) {
            (Some(due), Some(uptime)) if self.beats() => due.saturating_sub(uptime).min(patience),
            _ => patience,
        }
    }

    /// Gives the UART its turn, if it has been left alone for long enough.
    fn pump(&mut self, uptime: Option<Duration>) {
        self.left = 0;
        if !self.pause(uptime).is_zero() {
            return;
        }
        self.left = BURST;
        match (self.console.pump(), self.console.is_stuck()) {
            (0, false) => {}
            (0, true) => self.leave_alone(uptime, OFFER),
            _ => self.leave_alone(uptime, PACE),
        }
    }

    fn leave_alone(&mut self, uptime: Option<Duration>, pause: Duration) {
        self.rests_until = uptime.map(|uptime| uptime + pause);
    }

    /// Takes a received byte, if there is one and it is this port's turn.
    fn receive(&mut self, uptime: Option<Duration>) -> Option<u8> {
        self.left = self.left.checked_sub(1)?;
        let byte = self.console.receive();
        self.hears = byte.is_some();
        if self.hears {
            self.leave_alone(uptime, PACE);
        } else {
            self.left = 0;
        }
        byte
    }

    /// Sends what is waiting, and tells what is due. Returns whether it has to be looked at again at once.
    fn serve<M: Machine, C: Counter, P: FramePort>(
        &mut self,
        core: &mut Core<'_, M, C, P>,
    ) -> bool {
        if self.mode == Serial::Nmea
            && self.console.is_waiting()
            && core.clock.stamp().marker != self.marker
        {
            self.console.spoil();
        }
        self.pump(core.uptime);
        match self.mode {
            Serial::Nmea => {
                let near = self.tell_sentences(core);
                if !near {
                    self.ignore(core.uptime);
                }
                near
            }
            Serial::Json { period } => {
                let near = period.is_some_and(|period| self.tell_object(core, period));
                self.answer(core);
                near
            }
            Serial::Log | Serial::Off => {
                self.ignore(core.uptime);
                false
            }
            // `serve_shell` listens.
            Serial::Shell => false,
        }
    }

    /// Drops what is said where nobody listens.
    fn ignore(&mut self, uptime: Option<Duration>) {
        while self.receive(uptime).is_some() {}
    }

    fn tell_sentences<M: Machine, C: Counter, P: FramePort>(
        &mut self,
        core: &mut Core<'_, M, C, P>,
    ) -> bool {
        if !self.beat.is_due(core.uptime) {
            return false;
        }
        let reading = core.told();
        let utc = reading.as_ref().and_then(|reading| reading.utc.as_ref());
        let sentences = match self.beat.look(core.uptime, utc) {
            Step::Rest => return false,
            Step::Near => return true,
            Step::TellNothing => Some(Sentences::without_time()),
            Step::Tell => utc.and_then(Sentences::of),
        };
        if self.console.is_waiting() {
            // A second later, and nobody has read it.
            self.console.spoil();
        } else if let Some(sentences) = sentences {
            self.marker = match reading {
                Some(reading) => reading.marker,
                None => core.clock.stamp().marker,
            };
            // Its first byte is not to wait.
            self.console.write(sentences.bytes());
            self.leave_alone(core.uptime, PACE);
        }
        false
    }

    /// Tells an object that nobody asked for, if it is time.
    fn tell_object<M: Machine, C: Counter, P: FramePort>(
        &mut self,
        core: &mut Core<'_, M, C, P>,
        period: u16,
    ) -> bool {
        if !self.beat.is_due(core.uptime) {
            return false;
        }
        let reading = core.told();
        let utc = reading.as_ref().and_then(|reading| reading.utc.as_ref());
        let second = match self.beat.look(core.uptime, utc) {
            Step::Rest => return false,
            Step::Near => return true,
            Step::Tell => utc.map(|utc| utc.time.seconds().cast_unsigned()),
            Step::TellNothing => core.uptime.map(|uptime| uptime.as_secs()),
        };
        if second.is_some_and(|second| second.is_multiple_of(period.into())) {
            self.tell_now(core);
        }
        false
    }

    /// Answers the next request, if all of one has been received.
    fn answer<M: Machine, C: Counter, P: FramePort>(&mut self, core: &mut Core<'_, M, C, P>) {
        if self.console.room() < ANSWER {
            return;
        }
        while let Some(byte) = self.receive(core.uptime) {
            let is_second_half = self.after_cr && byte == b'\n';
            self.after_cr = byte == b'\r';
            if matches!(byte, b'\r' | b'\n') && !is_second_half {
                return self.tell_now(core);
            }
        }
    }

    fn tell_now<M: Machine, C: Counter, P: FramePort>(&mut self, core: &mut Core<'_, M, C, P>) {
        if self.console.room() < ANSWER {
            return;
        }
        // There is room, so nothing of it is lost.
        let _ = json::now(&core.view(), &mut self.console);
        let _ = self.console.write_char('\n');
    }
}

impl<M, C, P, S> Service<'_, M, C, P, S>
where
    M: Machine,
    C: Counter,
    P: FramePort,
    S: SerialPort,
{
    /// Tells the time where it is due. Returns whether that has to be looked at again at once.
    pub(super) fn serve_ports(&mut self) -> bool {
        let first = self.first.serve(&mut self.core);
        let has_second = self.second.mode != Serial::Off;
        has_second && self.second.serve(&mut self.core) || first
    }

    /// Takes what was typed, up to the end of a line, or prints the next line of a command that has more to print:
    /// nobody else waits for more than one of them. Returns whether it has to be looked at again at once.
    pub(super) fn serve_shell(&mut self) -> bool {
        let (port, uptime) = (&mut self.first, self.core.uptime);
        if port.mode != Serial::Shell {
            return false;
        }
        if self.shell.is_busy() {
            // Each line when the one before is out, so that what it tells is of the moment.
            if !port.console.is_waiting() {
                self.shell.go_on(&mut port.console, &mut self.core);
            }
            return !port.console.is_waiting();
        }
        // Whoever does not read is heard all the same: he may ask for a reboot.
        if port.console.room() < SAYING && !port.console.is_stuck() {
            return false;
        }
        while let Some(byte) = port.receive(uptime) {
            let action = self.shell.feed(byte, &mut port.console, &mut self.core);
            if let Some(action) = action {
                port.console.drain(PATIENCE);
                match action {
                    Action::PowerOff => self.core.machine.power_off(),
                    Action::Reboot => self.core.machine.reboot(),
                }
            }
            if byte == b'\r' || byte == b'\n' {
                break;
            }
        }
        false
    }

    /// How long there is nothing to do on the ports, if nothing is received.
    pub(super) fn rest_of_ports(&self) -> Duration {
        let uptime = self.core.uptime;
        let first = self.first.rest(uptime);
        match self.second.mode {
            Serial::Off => first,
            _ => first.min(self.second.rest(uptime)),
        }
    }
}
