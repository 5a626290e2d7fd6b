//! A running QEMU.

use core::time::Duration;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::sleep;
use std::time::Instant;

use gnomon_clock::Fields;
use serde_json::{Value, json};

use crate::child::{Child, End};
use crate::machine::{Ports, StartError};
use crate::memory::{GuestPage, MemoryError};
use crate::publish::{PublishError, Publisher};
use crate::qmp::{Qmp, QmpError};
use crate::serial::{Serial, SerialError};
use crate::worker::{INCOMING, machine_state};

/// How long QEMU may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(5);

/// How long what comes from another QEMU may take.
const LOADING: Duration = Duration::from_mins(1);
/// How often it is asked for.
const LOOK: Duration = Duration::from_millis(5);

/// A running QEMU, which ends when this is dropped.
#[derive(Debug)]
pub struct Vm {
    // In the order in which they have to go: whoever talks to QEMU, then QEMU.
    pub(crate) publisher: Option<Publisher>,
    pub(crate) qmp: Qmp,
    pub(crate) serial: Option<Serial>,
    /// The serial line goes to standard output.
    pub(crate) interactive: bool,
    pub(crate) ports: Option<Ports>,
    pub(crate) page: Option<u64>,
    /// QEMU has no device for it, and marks nothing.
    pub(crate) page_is_ours: bool,
    /// Memory is on its way, with a page that QEMU will not mark.
    pub(crate) incoming: bool,
    pub(crate) child: Child,
}

impl Vm {
    pub(crate) fn finish_start(mut self, paused: bool) -> Result<Self, StartError> {
        if !paused {
            self.cont()?;
        }
        Ok(self)
    }

    /// A QMP connection of one's own.
    pub fn qmp(&mut self) -> &mut Qmp {
        &mut self.qmp
    }

    /// The publisher, if there is one.
    #[must_use]
    pub fn publisher(&self) -> Option<&Publisher> {
        self.publisher.as_ref()
    }

    /// QEMU's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// A descriptor that becomes readable when QEMU has ended.
    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.child.as_fd().try_clone_to_owned()
    }

    /// The UDP port of 127.0.0.1 that leads to the guest's NTP server.
    #[must_use]
    pub fn ntp_port(&self) -> Option<u16> {
        self.ports.map(|ports| ports.ntp)
    }

    /// The TCP port of 127.0.0.1 that leads to the guest's HTTP server.
    #[must_use]
    pub fn http_port(&self) -> Option<u16> {
        self.ports.map(|ports| ports.http)
    }

    /// The vmclock page, to be looked at, or written while the publisher is paused or not there.
    ///
    /// # Errors
    /// When there is no page, or QEMU has ended.
    pub fn page(&self) -> Result<GuestPage, MemoryError> {
        GuestPage::open(self.child.pid(), self.page.unwrap_or(0))
    }

    /// Publishes these fields under the seqlock, with the page's own magic, size and version. Pause
    /// the publisher first.
    ///
    /// # Errors
    /// When there is no page, or QEMU has ended.
    pub fn write_fields(&self, fields: &Fields) -> Result<u32, MemoryError> {
        self.page()?.publish(fields)
    }

    /// Stops the machine; its page is invalid before that.
    ///
    /// # Errors
    /// When QEMU refuses or has ended.
    pub fn stop(&mut self) -> Result<(), PublishError> {
        match &self.publisher {
            Some(publisher) => publisher.stop(),
            None => Ok(self.qmp.execute("stop", json!({})).map(drop)?),
        }
    }

    /// Lets the machine run; its page is valid after that.
    ///
    /// A machine that is being loaded (`-incoming`) runs when that is done: with a publisher some time
    /// later, without one this waits for it where QEMU has no device that would mark the page.
    ///
    /// # Errors
    /// When QEMU refuses or has ended.
    pub fn cont(&mut self) -> Result<(), PublishError> {
        if let Some(publisher) = &self.publisher {
            return publisher.cont();
        }
        if self.incoming {
            self.wait_loaded()?;
            self.page()?.raise_marker()?;
            self.incoming = false;
        }
        Ok(self.qmp.execute("cont", json!({})).map(drop)?)
    }

    /// Waits until what comes from another QEMU has come.
    fn wait_loaded(&mut self) -> Result<(), QmpError> {
        let deadline = Instant::now() + LOADING;
        while machine_state(&mut self.qmp)? == INCOMING {
            if Instant::now() >= deadline {
                return Err(QmpError::Timeout);
            }
            sleep(LOOK);
        }
        Ok(())
    }

    /// Resets the machine.
    ///
    /// # Errors
    /// When QEMU refuses or has ended.
    pub fn reset(&mut self) -> Result<(), PublishError> {
        match &self.publisher {
            Some(publisher) => publisher.reset(),
            None => Ok(self.qmp.execute("system_reset", json!({})).map(drop)?),
        }
    }

    /// The name of the pseudo-terminal that [`SerialTo::Pty`](crate::machine::SerialTo::Pty) has made.
    ///
    /// # Errors
    /// When QEMU refuses or has ended.
    pub fn pty(&mut self) -> Result<Option<String>, QmpError> {
        self.pty_of("serial")
    }

    /// The name of the pseudo-terminal that a character device of this label has made, such as `x` after
    /// `-chardev pty,id=x`.
    ///
    /// # Errors
    /// When QEMU refuses or has ended.
    pub fn pty_of(&mut self, label: &str) -> Result<Option<String>, QmpError> {
        let devices = self.qmp.execute("query-chardev", json!({}))?.value;
        let device = devices
            .as_array()
            .into_iter()
            .flatten()
            .find(|device| device.get("label").and_then(Value::as_str) == Some(label));
        let name = device
            .and_then(|device| device.get("filename"))
            .and_then(Value::as_str);
        Ok(name
            .and_then(|name| name.strip_prefix("pty:"))
            .map(str::to_owned))
    }

    /// Waits until the guest has said `pattern` after what was waited for last, and returns
    /// everything from there to the pattern's end.
    ///
    /// # Errors
    /// When it does not in time or has ended, with the end of what it said instead; or when the
    /// serial line goes somewhere else.
    pub fn wait_serial(&mut self, pattern: &str, timeout: Duration) -> Result<String, SerialError> {
        self.serial
            .as_mut()
            .ok_or(SerialError::Elsewhere)?
            .wait(pattern, timeout)
    }

    /// Says something to the guest. Its line editor expects `\r` at the end of a line.
    ///
    /// # Errors
    /// When QEMU has ended, or the serial line goes somewhere else.
    pub fn send_serial(&mut self, text: &str) -> Result<(), SerialError> {
        self.serial
            .as_mut()
            .ok_or(SerialError::Elsewhere)?
            .send(text.as_bytes())
    }

    /// The serial line, if what the guest says goes to standard output.
    pub(crate) fn interactive_line(&self) -> io::Result<Option<UnixStream>> {
        let serial = self.serial.as_ref().filter(|_| self.interactive);
        serial.map(Serial::line).transpose()
    }

    /// Waits until all of what the guest said is where it belongs; to be called after its end.
    pub(crate) fn finish_serial(&mut self) {
        if let Some(serial) = &mut self.serial {
            serial.finish();
        }
    }

    /// Everything the guest has said so far.
    #[must_use]
    pub fn serial_log(&self) -> String {
        self.serial.as_ref().map(Serial::log).unwrap_or_default()
    }

    /// What QEMU has said on its standard error.
    #[must_use]
    pub fn complaints(&self) -> String {
        self.child.complaints()
    }

    /// Waits until QEMU ends by itself; `None` when it does not in time.
    pub fn wait_exit(&mut self, timeout: Duration) -> Option<End> {
        self.child.wait(timeout)
    }

    /// Asks QEMU to end, and kills it if it does not within a few seconds.
    pub fn quit(&mut self) -> Option<End> {
        // A publisher may be in the middle of a command; QEMU serves one after the other.
        let _gone = self.qmp.execute("quit", json!({}));
        if self.child.wait(GRACE).is_none() {
            self.child.kill();
        }
        let end = self.child.wait(GRACE);
        self.finish_serial();
        end
    }
}
