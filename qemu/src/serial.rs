//! The guest's serial line.
//!
//! QEMU connects it to a socket of ours and waits when that is full, so nothing is lost.

use core::fmt;
use core::time::Duration;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// How much of what was said an error quotes, in bytes.
const TAIL: usize = 2000;

/// The line, with a thread that takes what the guest says.
#[derive(Debug)]
pub(crate) struct Serial {
    stream: UnixStream,
    heard: Arc<Heard>,
    /// What [`wait`](Self::wait) has returned already, in bytes.
    consumed: usize,
    in_memory: bool,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Heard {
    log: Mutex<Log>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Log {
    bytes: Vec<u8>,
    ended: bool,
}

impl Heard {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Serial {
    /// Keeps everything.
    pub(crate) fn to_memory(stream: UnixStream) -> io::Result<Self> {
        let heard = Arc::new(Heard::default());
        let listener = Arc::clone(&heard);
        Self::start(stream, heard, true, move |bytes| {
            listener.log().bytes.extend(bytes);
            listener.changed.notify_all();
            true
        })
    }

    /// Passes everything on at once.
    pub(crate) fn to(
        stream: UnixStream,
        mut sink: impl Write + Send + 'static,
    ) -> io::Result<Self> {
        Self::start(stream, Arc::default(), false, move |bytes| {
            sink.write_all(bytes).and_then(|()| sink.flush()).is_ok()
        })
    }

    fn start(
        stream: UnixStream,
        heard: Arc<Heard>,
        in_memory: bool,
        mut take: impl FnMut(&[u8]) -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let (mut input, end) = (stream.try_clone()?, Arc::clone(&heard));
        let body = move || {
            let mut chunk = [0; 4096];
            let mut listening = true;
            // A sink that fails must not stop the guest: what it says is thrown away from then on.
            while let Ok(length @ 1..) = input.read(&mut chunk) {
                listening = listening && take(chunk.get(..length).unwrap_or_default());
            }
            end.log().ended = true;
            end.changed.notify_all();
        };
        let thread = Some(thread::Builder::new().name("serial".into()).spawn(body)?);
        Ok(Self {
            stream,
            heard,
            consumed: 0,
            in_memory,
            thread,
        })
    }

    pub(crate) fn wait(&mut self, pattern: &str, timeout: Duration) -> Result<String, SerialError> {
        if !self.in_memory {
            return Err(SerialError::Elsewhere);
        }
        let consumed = self.consumed;
        let found = |log: &Log| {
            let mut windows = log.bytes.get(consumed..)?.windows(pattern.len().max(1));
            Some(windows.position(|window| window == pattern.as_bytes())? + pattern.len())
        };
        let waiting = |log: &mut Log| found(log).is_none() && !log.ended;
        let waited = self
            .heard
            .changed
            .wait_timeout_while(self.heard.log(), timeout, waiting);
        let (log, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if let Some(length) = found(&log) {
            self.consumed += length;
            let text = log
                .bytes
                .get(consumed..consumed + length)
                .unwrap_or_default();
            return Ok(String::from_utf8_lossy(text).into_owned());
        }
        let start = log.bytes.len().saturating_sub(TAIL);
        let tail = String::from_utf8_lossy(log.bytes.get(start..).unwrap_or_default()).into_owned();
        Err(SerialError::NotSaid {
            pattern: pattern.to_owned(),
            ended: log.ended,
            tail,
        })
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), SerialError> {
        self.stream.write_all(bytes).map_err(SerialError::Io)
    }

    /// A second handle to the line.
    pub(crate) fn line(&self) -> io::Result<UnixStream> {
        self.stream.try_clone()
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&self.heard.log().bytes).into_owned()
    }

    /// Waits until everything the guest has said is where it belongs; to be called after its end.
    pub(crate) fn finish(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _complete = thread.join();
        }
    }
}

impl Drop for Serial {
    fn drop(&mut self) {
        // Ends the thread's read; fails only when the connection has ended already.
        let _ended = self.stream.shutdown(Shutdown::Both);
        self.finish();
    }
}

/// Why something was not heard or said.
#[derive(Debug)]
pub enum SerialError {
    /// The guest has not said this.
    NotSaid {
        /// What was waited for.
        pattern: String,
        /// QEMU has ended.
        ended: bool,
        /// The last of what it did say.
        tail: String,
    },
    /// The serial line does not go to memory, or not through this program at all.
    Elsewhere,
    /// The connection fails.
    Io(io::Error),
}

impl fmt::Display for SerialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSaid {
                pattern,
                ended,
                tail,
            } => {
                let when = if *ended { "before it ended" } else { "in time" };
                write!(
                    f,
                    "the guest has not said {pattern:?} {when}; it said:\n{tail}"
                )
            }
            Self::Elsewhere => f.write_str("the serial line is not kept in memory"),
            Self::Io(error) => write!(f, "the serial line: {error}"),
        }
    }
}

impl core::error::Error for SerialError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_found_in_turn() {
        let (ours, mut guest) = UnixStream::pair().expect("a socket pair");
        let mut serial = Serial::to_memory(ours).expect("a thread");
        guest.write_all(b"one > two > thr").expect("connected");
        let patience = Duration::from_secs(10);
        assert_eq!(serial.wait("> ", patience).expect("said"), "one > ");
        assert_eq!(serial.wait("> ", patience).expect("said"), "two > ");
        guest.write_all(b"ee > \xff").expect("connected");
        assert_eq!(serial.wait("> ", patience).expect("said"), "three > ");
        serial.send(b"hello").expect("connected");
        let mut bytes = [0; 5];
        guest.read_exact(&mut bytes).expect("connected");
        assert_eq!(&bytes, b"hello");
        drop(guest);
        let error = serial
            .wait("four", patience)
            .expect_err("not said")
            .to_string();
        assert!(
            error.contains("before it ended") && error.contains("three > "),
            "{error}"
        );
        assert_eq!(serial.log(), "one > two > three > \u{fffd}");
    }

    #[test]
    fn nothing_is_lost_on_the_way_to_a_file() {
        let (ours, mut guest) = UnixStream::pair().expect("a socket pair");
        let (mut there, sink) = UnixStream::pair().expect("a socket pair");
        let mut serial = Serial::to(ours, sink).expect("a thread");
        assert!(matches!(
            serial.wait("x", Duration::ZERO),
            Err(SerialError::Elsewhere)
        ));
        let said: Vec<u8> = (0..300_000_u32)
            .map(|number| number.to_le_bytes()[0])
            .collect();
        let writer = thread::spawn({
            let said = said.clone();
            move || guest.write_all(&said).expect("connected")
        });
        let mut heard = vec![0; said.len()];
        there.read_exact(&mut heard).expect("connected");
        writer.join().expect("said everything");
        assert!(heard == said);
    }
}
