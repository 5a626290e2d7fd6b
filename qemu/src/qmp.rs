//! QEMU's machine protocol (QMP): one JSON value per line over a stream, commands answered in
//! order, events in between. (QEMU `docs/interop/qmp-spec.rst`.)
//!
//! Every answer carries the host's counters at which its command was sent and at which it arrived:
//! these bracket what QEMU did in between, which is how the guest's counter is tied to the host's.

use core::fmt;
use core::time::Duration;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use serde_json::{Value, json};

use crate::host::Counters;

/// How long QEMU may take over one command.
const PATIENCE: Duration = Duration::from_mins(1);
/// A longer line is not QMP: QEMU's longest answers are a few hundred KiB.
const LONGEST_LINE: usize = 16 << 20;

/// A connection to a QMP monitor.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    received: Received,
    last_id: u64,
}

/// An event, such as `STOP`.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its name.
    pub name: String,
    /// QEMU's time stamp: the host's `CLOCK_REALTIME` in µs since 1970, rounded down.
    pub stamp: Option<i64>,
    /// What it tells.
    pub data: Value,
    /// After its arrival.
    pub arrived: Counters,
    /// Its place among everything that has arrived.
    pub order: u64,
}

/// What a command returned.
#[derive(Clone, Debug, PartialEq)]
pub struct Return {
    /// The value, often an empty object.
    pub value: Value,
    /// Before the command was sent.
    pub sent: Counters,
    /// After the answer's arrival.
    pub arrived: Counters,
    /// Its place among everything that has arrived: what has a lower one, QEMU had said before.
    pub order: u64,
}

impl Qmp {
    /// Connects to the monitor that listens on the socket at `path`.
    ///
    /// # Errors
    /// When nobody listens there, or it is not a QMP monitor.
    pub fn connect(path: &Path) -> Result<Self, QmpError> {
        Self::new(UnixStream::connect(path)?)
    }

    /// Takes the monitor's greeting on a fresh connection and enters command mode.
    ///
    /// # Errors
    /// When the other side is not a QMP monitor, or is already taken by another client.
    pub fn new(stream: UnixStream) -> Result<Self, QmpError> {
        let mut qmp = Self {
            stream,
            received: Received::default(),
            last_id: 0,
        };
        let deadline = Instant::now() + PATIENCE;
        let greeting = qmp.answer(deadline)?;
        if greeting.value.get("QMP").is_none() {
            return Err(QmpError::Protocol("no greeting"));
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command. Events that arrive meanwhile are kept for [`next_event`](Self::next_event).
    ///
    /// # Errors
    /// [`QmpError::Command`] when QEMU refuses it, others when the connection is of no more use.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers write json!({..}) in place"
    )]
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Return, QmpError> {
        self.last_id += 1;
        let request = json!({ "execute": command, "arguments": arguments, "id": self.last_id });
        let line = format!("{request}\n");
        let sent = Counters::now();
        self.stream.write_all(line.as_bytes())?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Answer {
                mut value,
                arrived,
                order,
            } = self.answer(deadline)?;
            let id = value.get("id").and_then(Value::as_u64);
            match value.get_mut("return").map(Value::take) {
                Some(value) if id == Some(self.last_id) => {
                    return Ok(Return {
                        value,
                        sent,
                        arrived,
                        order,
                    });
                }
                // QEMU loses the id of a command that it cannot parse.
                None if id.is_none_or(|id| id == self.last_id) => {
                    return Err(refusal(command, &value));
                }
                // To an earlier command, whose asker has given up.
                _ => {}
            }
        }
    }

    /// Runs a command of the human monitor and returns what it prints.
    ///
    /// # Errors
    /// As for [`execute`](Self::execute).
    pub fn monitor(&mut self, line: &str) -> Result<String, QmpError> {
        let answer = self.execute("human-monitor-command", json!({ "command-line": line }))?;
        match answer.value {
            Value::String(text) => Ok(text),
            _ => Err(QmpError::Protocol("a monitor command returned no text")),
        }
    }

    /// The next event, if one arrives in time.
    ///
    /// # Errors
    /// When the connection has ended or carries something else than QMP.
    pub fn next_event(&mut self, timeout: Duration) -> Result<Option<Event>, QmpError> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(event) = self.received.events.pop_front() {
                return Ok(Some(event));
            }
            if !self.receive(deadline)? {
                return Ok(None);
            }
        }
    }

    /// Events that have been received and not been taken yet.
    pub fn pending(&self) -> impl Iterator<Item = &Event> {
        self.received.events.iter()
    }

    /// The process that listened on the socket at the other end.
    #[must_use]
    pub fn peer_pid(&self) -> Option<u32> {
        let peer = socket_peercred(&self.stream).ok()?;
        u32::try_from(peer.pid.as_raw_nonzero().get()).ok()
    }

    fn answer(&mut self, deadline: Instant) -> Result<Answer, QmpError> {
        loop {
            if let Some(answer) = self.received.answers.pop_front() {
                return Ok(answer);
            }
            if !self.receive(deadline)? {
                return Err(QmpError::Timeout);
            }
        }
    }

    /// Takes what has arrived; `false` when nothing does in time.
    fn receive(&mut self, deadline: Instant) -> Result<bool, QmpError> {
        // Not a read timeout of the socket: that is rounded up to the kernel's clock tick.
        if !readable(
            &self.stream,
            deadline.saturating_duration_since(Instant::now()),
        )? {
            return Ok(false);
        }
        let mut chunk = [0; 16 << 10];
        let length = self.stream.read(&mut chunk)?;
        let arrived = Counters::now();
        match chunk.get(..length) {
            Some([]) | None => Err(QmpError::Closed),
            Some(bytes) => self.received.take(bytes, arrived).map(|()| true),
        }
    }
}

impl AsFd for Qmp {
    /// Readable when something has arrived that [`next_event`](Qmp::next_event) has not read yet.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Waits until the descriptor is readable (or ended); `false` when it was not in time.
pub(crate) fn readable(descriptor: &impl AsFd, timeout: Duration) -> io::Result<bool> {
    let timeout = Timespec::try_from(timeout).map_err(|_| ErrorKind::InvalidInput)?;
    match poll(
        &mut [PollFd::new(descriptor, PollFlags::IN)],
        Some(&timeout),
    ) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What has arrived, sorted.
#[derive(Debug, Default)]
struct Received {
    /// Bytes of a line that has not ended yet.
    partial: Vec<u8>,
    events: VecDeque<Event>,
    /// Everything else.
    answers: VecDeque<Answer>,
    /// How much has arrived.
    count: u64,
}

#[derive(Clone, Debug, PartialEq)]
struct Answer {
    value: Value,
    arrived: Counters,
    order: u64,
}

impl Received {
    fn take(&mut self, bytes: &[u8], arrived: Counters) -> Result<(), QmpError> {
        self.partial.extend(bytes);
        while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            if line.trim_ascii().is_empty() {
                continue;
            }
            let value =
                serde_json::from_slice(&line).map_err(|_| QmpError::Protocol("not JSON"))?;
            self.count += 1;
            let order = self.count;
            match event(&value, arrived, order) {
                Some(event) => self.events.push_back(event),
                None => self.answers.push_back(Answer {
                    value,
                    arrived,
                    order,
                }),
            }
        }
        if self.partial.len() > LONGEST_LINE {
            return Err(QmpError::Protocol("an endless line"));
        }
        Ok(())
    }
}

fn event(message: &Value, arrived: Counters, order: u64) -> Option<Event> {
    let name = message.get("event")?.as_str()?.to_owned();
    let part = |name| message.pointer(name).and_then(Value::as_i64);
    let seconds = part("/timestamp/seconds").and_then(|seconds| seconds.checked_mul(1_000_000));
    // QEMU writes −1 for both when it has no clock.
    let micros = part("/timestamp/microseconds").filter(|micros| (0..1_000_000).contains(micros));
    let stamp = seconds
        .zip(micros)
        .and_then(|(seconds, micros)| seconds.checked_add(micros));
    let data = message.get("data").cloned().unwrap_or(Value::Null);
    Some(Event {
        name,
        stamp,
        data,
        arrived,
        order,
    })
}

fn refusal(command: &str, message: &Value) -> QmpError {
    let reason = message.pointer("/error/desc").and_then(Value::as_str);
    let reason = reason.unwrap_or("no reason given").to_owned();
    QmpError::Command {
        command: command.to_owned(),
        reason,
    }
}

/// Why a command has no result, or there are no more events.
#[derive(Debug)]
pub enum QmpError {
    /// QEMU has closed the connection; usually it has ended.
    Closed,
    /// No answer within a minute.
    Timeout,
    /// The stream failed.
    Io(io::Error),
    /// The other side does not speak QMP.
    Protocol(&'static str),
    /// QEMU refused the command.
    Command {
        /// The command.
        command: String,
        /// QEMU's words.
        reason: String,
    },
}

impl From<io::Error> for QmpError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

impl fmt::Display for QmpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("QEMU has closed its monitor"),
            Self::Timeout => f.write_str("QEMU's monitor does not answer"),
            Self::Io(error) => write!(f, "QEMU's monitor: {error}"),
            Self::Protocol(what) => write!(f, "not a QMP monitor: {what}"),
            Self::Command { command, reason } => write!(f, "QEMU refuses `{command}`: {reason}"),
        }
    }
}

impl core::error::Error for QmpError {}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::host::HostCounter;

    const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n";

    /// Plays QEMU: sends the first part of the script at once, each other after one line has been
    /// read, and hangs up after the last.
    fn monitor(script: &'static [&'static str]) -> UnixStream {
        let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
        thread::spawn(move || {
            for (index, part) in script.iter().enumerate() {
                let mut byte = [0];
                while index > 0 && byte != *b"\n" {
                    theirs.read_exact(&mut byte).expect("the test writes");
                }
                theirs.write_all(part.as_bytes()).expect("the test reads");
            }
        });
        ours
    }

    #[test]
    fn answers_and_events_are_told_apart() {
        let script = &[
            GREETING,
            "{\"return\": {}, \"id\": 1}\r\n",
            "{\"event\": \"STOP\", \"timestamp\": {\"seconds\": 3, \"microseconds\": 4}}\r\n\
             {\"timestamp\": {\"seconds\": -1, \"microseconds\": -1}, \"event\": \"RESUME\"}\r\n\
             {\"return\": {\"running\": true}, \"id\": 2}\r\n",
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}, \"id\": 3}\r\n",
        ];
        let mut qmp = Qmp::new(monitor(script)).expect("a greeting");
        let answer = qmp.execute("query-status", json!({})).expect("an answer");
        assert_eq!(answer.value, json!({ "running": true }));
        for counter in [HostCounter::Tsc, HostCounter::Monotonic] {
            assert!(answer.sent.of(counter) < answer.arrived.of(counter));
        }
        let mut next = || qmp.next_event(Duration::ZERO).expect("connected");
        let stop = next().expect("first event");
        assert_eq!((stop.name.as_str(), stop.stamp), ("STOP", Some(3_000_004)));
        let resume = next().expect("second event");
        assert_eq!((resume.name.as_str(), resume.stamp), ("RESUME", None));
        let error = qmp.execute("cont", json!({})).expect_err("refused");
        assert_eq!(error.to_string(), "QEMU refuses `cont`: no");
        let error = qmp
            .execute("cont", json!({}))
            .expect_err("the script is over");
        assert!(matches!(error, QmpError::Closed), "{error}");
    }

    #[test]
    fn garbage_is_refused() {
        for (script, words) in [
            (&["\u{0}\u{1}\u{2}\n"][..], "not JSON"),
            (&["{}\n"], "no greeting"),
            (&["[1, 2\n"], "not JSON"),
            (&["SSH-2.0\r\n"], "not JSON"),
            (&["null\n"], "no greeting"),
            (&[GREETING, "{\"error\": 7}\n"], "no reason given"),
            (&[GREETING, "{\"return\": 1, \"id\": 99}\n"], "closed"),
        ] {
            let error = Qmp::new(monitor(script)).expect_err("not QMP").to_string();
            assert!(error.contains(words), "{script:?}: {error}");
        }
    }

    #[test]
    fn lines_may_arrive_in_pieces_and_blank() {
        let mut received = Received::default();
        let now = Counters::now();
        for piece in ["\n \r\n{\"a", "\": 1}", "\n{\"event\": \"STOP\"}\n{"] {
            received.take(piece.as_bytes(), now).expect("JSON");
        }
        let answer = received.answers.front().expect("one answer");
        assert_eq!(answer.value, json!({ "a": 1 }));
        let event = received.events.front().expect("one event");
        assert!(answer.order < event.order && answer.arrived == event.arrived);
        assert_eq!(received.events.len(), 1);
        assert_eq!(received.partial, b"{");
    }

    #[test]
    fn endless_line_is_refused() {
        let endless = vec![b'x'; LONGEST_LINE + 1];
        let error = Received::default()
            .take(&endless, Counters::now())
            .expect_err("too long");
        assert!(matches!(error, QmpError::Protocol(_)), "{error}");
    }
}
