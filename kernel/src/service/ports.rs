//! The serial ports that give the time to programs.

use core::fmt::Write;
use core::time::Duration;

use gnomon_clock::Counter;

use super::served::Core;
use super::{INPUT, Service};
use crate::config::Serial;
use crate::console::{Console, SerialPort};
use crate::json;
use crate::machine::Machine;
use crate::net::port::FramePort;
use crate::serial::beat::{Beat, Step};
use crate::serial::nmea::Sentences;

/// The longest answer in JSON, generously.
const ANSWER: usize = 1024;
/// How soon a UART that takes no more is offered the rest: a fast one has sent its FIFO's 16 bytes by then.
const OFFER: Duration = Duration::from_millis(1);

/// A serial port, and what runs on it.
pub(super) struct Port<'q, S> {
    pub(super) console: Console<'q, S>,
    pub(super) mode: Serial,
    beat: Beat,
    /// The disruption marker that holds for what is being sent.
    marker: u64,
    /// The last byte was a CR: an LF right after it belongs to the same line end.
    after_cr: bool,
}

impl<'q, S: SerialPort> Port<'q, S> {
    pub(super) const fn new(console: Console<'q, S>, mode: Serial) -> Self {
        Self {
            console,
            mode,
            beat: Beat::new(),
            marker: 0,
            after_cr: false,
        }
    }

    /// Whether there is something to tell at the top of a second.
    const fn beats(&self) -> bool {
        matches!(self.mode, Serial::Nmea | Serial::Json { period: Some(_) })
    }

    /// How long there is nothing to do, if nothing is received.
    fn rest(&self, uptime: Option<Duration>) -> Duration {
        let patience = match (self.console.is_waiting(), self.console.is_stuck()) {
            (true, true) => OFFER,
            (true, false) => Duration::ZERO,
            (false, _) => Duration::MAX,
        };
        match (self.beat.due(), uptime) {
            (Some(due), Some(uptime)) if self.beats() => due.saturating_sub(uptime).min(patience),
            _ => patience,
        }
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
        self.console.pump();
        match self.mode {
            Serial::Nmea => {
                // What anybody says here is not for us.
                let mut heard = 0;
                while heard < INPUT && self.console.receive().is_some() {
                    heard += 1;
                }
                self.tell_sentences(core) || heard == INPUT
            }
            Serial::Json { period } => {
                let near = period.is_some_and(|period| self.tell_object(core, period));
                self.answer(core) || near
            }
            Serial::Shell | Serial::Log | Serial::Off => false,
        }
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
            self.console.write(sentences.bytes());
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

    /// Answers the next request, if all of one has been received. Returns whether there may be more.
    fn answer<M: Machine, C: Counter, P: FramePort>(
        &mut self,
        core: &mut Core<'_, M, C, P>,
    ) -> bool {
        if self.console.room() < ANSWER {
            return false;
        }
        for _ in 0..INPUT {
            let Some(byte) = self.console.receive() else {
                return false;
            };
            let is_second_half = self.after_cr && byte == b'\n';
            self.after_cr = byte == b'\r';
            if matches!(byte, b'\r' | b'\n') && !is_second_half {
                self.tell_now(core);
                break;
            }
        }
        true
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
