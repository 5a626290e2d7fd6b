//! A generator that answers when it likes, or never: virtio-rng (virtio 1.3 §5.4).
//!
//! It is asked when the machine starts, and waited for shortly, and asked anew in each later life of the machine, while
//! the service goes on. Whatever was under way when a life ended is not taken: a copy of this machine may have the same.
//!
//! An answer may be shorter than what was asked for; the rest is then asked for, so that nobody can be kept
//! busy for longer than an answer a byte. One that is empty, too long, or nothing but zeros ends the asking until
//! the next life.

use super::{Source, Take};

/// Bytes that are asked for at a time, and needed in all.
pub const ROOM: usize = 32;

/// How often the first answer is looked for before the start goes on without it: some hundred µs, or some
/// milliseconds under emulation. QEMU's answers within tens of µs.
const LOOKS: u32 = 4096;

/// The device's queue, with room for one answer.
pub trait EntropyQueue {
    /// Asks for [`ROOM`] bytes; false while an answer is under way.
    fn ask(&mut self) -> bool;

    /// Takes the answer, if it has come: copies it, and returns how many bytes the device says that it wrote, which
    /// may be any number.
    fn receive(&mut self, bytes: &mut [u8; ROOM]) -> Option<usize>;
}

/// What a generator that takes its time has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// There is none, or it has given what it was asked for.
    #[default]
    Done,
    /// It has been asked, and has not answered.
    Awaited,
    /// It has answered with nothing, or with too much.
    Useless,
}

/// Such a generator.
#[derive(Debug)]
pub struct Generator<Q> {
    queue: Q,
    progress: Progress,
    /// What is under way was asked for in another life.
    is_stale: bool,
    /// It has not been waited for.
    is_new: bool,
    bytes: [u8; ROOM],
    filled: usize,
}

impl<Q: EntropyQueue> Generator<Q> {
    /// Asks for the first time.
    pub fn new(queue: Q) -> Self {
        let mut generator = Self {
            queue,
            progress: Progress::Done,
            is_stale: false,
            is_new: true,
            bytes: [0; ROOM],
            filled: 0,
        };
        generator.ask();
        generator
    }

    /// For a new life: waits a little for the answer to the first question, and else asks anew. What does not come
    /// at once, [`poll`](Self::poll) brings.
    pub fn gather(&mut self, take: Take<'_>) {
        if !core::mem::take(&mut self.is_new) {
            return self.ask();
        }
        for _ in 0..LOOKS {
            if self.poll(take) != Progress::Awaited {
                break;
            }
            core::hint::spin_loop();
        }
    }

    /// Brings what has come since. One answer a call.
    pub fn poll(&mut self, take: Take<'_>) -> Progress {
        if self.progress == Progress::Awaited {
            let mut bytes = [0; ROOM];
            if let Some(written) = self.queue.receive(&mut bytes) {
                self.progress = self.judge(&bytes, written, take);
            }
        }
        self.progress
    }

    fn ask(&mut self) {
        self.filled = 0;
        self.is_stale = !self.queue.ask();
        self.progress = Progress::Awaited;
    }

    fn judge(&mut self, bytes: &[u8; ROOM], written: usize, take: Take<'_>) -> Progress {
        if core::mem::take(&mut self.is_stale) {
            self.queue.ask();
            return Progress::Awaited;
        }
        let Some(answer) = bytes.get(..written).filter(|answer| !answer.is_empty()) else {
            return Progress::Useless;
        };
        let room = self.bytes.iter_mut().skip(self.filled);
        for (place, byte) in room.zip(answer) {
            *place = *byte;
            self.filled += 1;
        }
        if self.filled < ROOM {
            self.queue.ask();
            return Progress::Awaited;
        }
        let whole = core::mem::take(&mut self.bytes);
        // Memory that nobody has written.
        if whole == [0; ROOM] {
            return Progress::Useless;
        }
        take(Source::VirtioRng, &whole);
        Progress::Done
    }
}
