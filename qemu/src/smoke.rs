//! The other side of the guest's smoke test: listens to its TAP, does what it asks for, and says how it went.
//!
//! The guest is Gnomon with `smoke` on its command line. When it begins to watch the page, a scenario is played to it;
//! when it waits for a stop of the machine, the machine is stopped and goes on, and the guest is told for how long;
//! when it waits for a snapshot, one is saved and loaded.

use core::fmt;
use core::time::Duration;
use std::io;
use std::thread::sleep;
use std::time::Instant;

use crate::attend::Signals;
use crate::child::End;
use crate::publish::{PublishError, Report};
use crate::qmp::{QmpError, readable};
use crate::scenario::Scenario;
use crate::serial::SerialError;
use crate::vm::Vm;

/// How long the machine is stopped.
pub const STOP: Duration = Duration::from_secs(1);
/// What the guest says before it watches the page.
const WATCHING: &str = "# watching the page";
/// And when it is to be stopped.
const WAITING: &str = "# waiting for a stop";
/// And when a snapshot is to be loaded.
const WAITING_FOR_SNAPSHOT: &str = "# waiting for a snapshot";
/// How often the guest is told that a scenario is not over yet.
const SLICE: Duration = Duration::from_secs(1);
/// How often is looked whether somebody wants this to end.
const LOOK: Duration = Duration::from_millis(50);

/// What the guest has told so far, as a reader of TAP understands it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    planned: Option<u64>,
    told: u64,
    /// The names of the checks that failed.
    pub failed: Vec<String>,
    /// The names of the checks that were skipped.
    pub skipped: Vec<String>,
}

impl Stream {
    /// Takes a line.
    pub fn line(&mut self, line: &str) {
        if let Some(plan) = line.strip_prefix("1..") {
            self.planned = plan.parse().ok();
        }
        let (rest, is_ok) = match (line.strip_prefix("ok "), line.strip_prefix("not ok ")) {
            (Some(rest), _) => (rest, true),
            (None, Some(rest)) => (rest, false),
            (None, None) => return,
        };
        self.told += 1;
        let (number, description) = rest.split_once(" - ").unwrap_or((rest, ""));
        if number.parse() != Ok(self.told) {
            // Lines are missing, so that the plan can no longer be met.
            self.planned = None;
        }
        match description.split_once(" # SKIP") {
            Some((name, _)) if is_ok => self.skipped.push(name.to_owned()),
            _ if is_ok => {}
            _ => {
                let name = description.split(": ").next().unwrap_or_default();
                self.failed.push(name.to_owned());
            }
        }
    }

    /// Whether all that was planned has been told.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.planned == Some(self.told)
    }
}

/// How a smoke test went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every check is ok or skipped.
    Passed,
    /// At least one is not.
    Failed,
    /// The guest has not come to the end of its checks: it ended like this before, or was too slow, or
    /// somebody wanted this to end.
    Incomplete(Option<End>),
}

/// Follows the guest to its end, and ends it after `limit`. Every line that it says is given to `say`.
///
/// # Errors
/// When QEMU cannot be talked to.
pub fn follow(
    vm: &mut Vm,
    mut scenario: Option<Scenario>,
    signals: &Signals,
    limit: Duration,
    say: &mut dyn FnMut(&str),
) -> Result<(Verdict, Stream), SmokeError> {
    let mut stream = Stream::default();
    let begin = Instant::now();
    let mut end = None;
    loop {
        let line = match vm.wait_serial("\n", LOOK) {
            Ok(line) => line,
            // It has ended, and this is all that it has said.
            Err(_) if end.is_some() => break,
            Err(SerialError::NotSaid { .. }) => {
                end = vm.wait_exit(Duration::ZERO);
                if end.is_some() {
                    vm.finish_serial();
                } else if readable(signals, Duration::ZERO)? || begin.elapsed() >= limit {
                    break;
                }
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let line = line.trim_end();
        say(line);
        stream.line(line);
        if line.starts_with(WATCHING)
            && let (Some(scenario), Some(publisher)) = (scenario.take(), vm.publisher())
        {
            publisher.play(scenario)?;
        }
        if line.starts_with(WAITING) {
            let is_over = |report: &Report| report.scenario.is_none_or(|scenario| scenario.over);
            while let Some(publisher) = vm.publisher()
                && publisher.wait(SLICE, is_over).is_none()
                && begin.elapsed() < limit
            {
                // The guest looks on meanwhile, if it knows that somebody is there.
                vm.send_serial("wait\r")?;
            }
            let begin = Instant::now();
            vm.stop()?;
            sleep(STOP);
            vm.cont()?;
            let nanos = begin.elapsed().as_nanos();
            vm.send_serial(&format!("stopped {nanos}\r"))?;
        }
        if line.starts_with(WAITING_FOR_SNAPSHOT) {
            match vm.load_snapshot() {
                Ok(()) => vm.send_serial("loaded\r")?,
                // It waits no longer for what cannot be.
                Err(PublishError::Qmp(QmpError::Command { command, reason })) => {
                    say(&format!("# no snapshot: {command}: {reason}"));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    let verdict = match (stream.is_complete(), end) {
        (true, _) if !stream.failed.is_empty() => Verdict::Failed,
        (true, Some(End::Status(0))) => Verdict::Passed,
        (_, end) => Verdict::Incomplete(end),
    };
    if end.is_none() {
        vm.quit();
    }
    Ok((verdict, stream))
}

/// Why a smoke test cannot be followed.
#[derive(Debug)]
pub enum SmokeError {
    /// The serial line.
    Serial(SerialError),
    /// The publisher, or QEMU's monitor.
    Publish(PublishError),
    /// A descriptor.
    Io(io::Error),
}

impl From<SerialError> for SmokeError {
    fn from(error: SerialError) -> Self {
        Self::Serial(error)
    }
}

impl From<PublishError> for SmokeError {
    fn from(error: PublishError) -> Self {
        Self::Publish(error)
    }
}

impl From<io::Error> for SmokeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for SmokeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serial(error) => write!(f, "{error}"),
            Self::Publish(error) => write!(f, "{error}"),
            Self::Io(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for SmokeError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(text: &str) -> Stream {
        let mut stream = Stream::default();
        text.lines().for_each(|line| stream.line(line));
        stream
    }

    #[test]
    fn a_stream_is_read_as_tap() {
        let text = "TAP version 14\n1..3\n# words\nok 1 - a: b\nnot ok 2 - c d: e\n  ---\n  rule: \"ok 9\"\n  ...\n\
                    ok 3 - f # SKIP why\n";
        let read = stream(text);
        assert!(read.is_complete());
        assert_eq!(read.failed, ["c d"]);
        assert_eq!(read.skipped, ["f"]);
    }

    #[test]
    fn a_stream_that_breaks_off_or_lost_lines_is_not_complete() {
        assert!(!stream("").is_complete());
        assert!(!stream("1..2\nok 1 - a: b\n").is_complete());
        assert!(!stream("1..2\nok 1 - a: b\nok 3 - a: b\n").is_complete());
        assert!(!stream("ok 1 - a: b\n").is_complete());
        assert!(stream("1..1\nok 1 - a: b\n").is_complete());
    }
}
