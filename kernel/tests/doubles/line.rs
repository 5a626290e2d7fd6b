//! A serial line that is memory: what was typed, what was shown, and how much more of that is taken.

use core::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use gnomon_kernel::console::SerialPort;

#[derive(Clone, Default)]
pub(crate) struct Line(pub(crate) Rc<RefCell<LineState>>);

#[derive(Default)]
pub(crate) struct LineState {
    typed: VecDeque<u8>,
    pub(crate) shown: Vec<u8>,
    room: Option<usize>,
}

impl SerialPort for Line {
    fn receive(&mut self) -> Option<u8> {
        self.0.borrow_mut().typed.pop_front()
    }
    fn send(&mut self, bytes: &[u8]) -> usize {
        let mut line = self.0.borrow_mut();
        let taken = bytes.len().min(line.room.unwrap_or(usize::MAX));
        line.room = line.room.map(|room| room - taken);
        line.shown.extend_from_slice(&bytes[..taken]);
        taken
    }
}

impl Line {
    /// Types.
    pub(crate) fn type_in(&self, bytes: &[u8]) {
        self.0.borrow_mut().typed.extend(bytes);
    }

    /// Takes what was shown.
    pub(crate) fn shown(&self) -> Vec<u8> {
        core::mem::take(&mut self.0.borrow_mut().shown)
    }

    /// So many bytes more are taken; without a number, any.
    pub(crate) fn set_room(&self, room: Option<usize>) {
        self.0.borrow_mut().room = room;
    }
}
