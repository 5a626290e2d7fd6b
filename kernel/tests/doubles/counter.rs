//! A counter of 1 GHz that moves on by a microsecond at each read, and can be told to do something then.

use core::cell::{Cell, RefCell};
use std::rc::Rc;

use gnomon_clock::{Counter, CounterId, Ticks};

#[derive(Clone, Default)]
pub(crate) struct Gigahertz(pub(crate) Rc<GigahertzState>);

#[derive(Default)]
pub(crate) struct GigahertzState {
    /// Ticks at the last read.
    pub(crate) ticks: Cell<u64>,
    /// What happens at the next read, before the counter moves.
    pub(crate) at_read: RefCell<Option<Box<dyn FnOnce()>>>,
}

impl Gigahertz {
    /// Does this at the next read.
    pub(crate) fn at_next_read(&self, action: impl FnOnce() + 'static) {
        *self.0.at_read.borrow_mut() = Some(Box::new(action));
    }
}

impl Counter for Gigahertz {
    const ID: CounterId = CounterId::X86Tsc;

    fn read(&self) -> Ticks {
        let action = self.0.at_read.borrow_mut().take();
        if let Some(action) = action {
            action();
        }
        self.0.ticks.set(self.0.ticks.get().wrapping_add(1000));
        Ticks(self.0.ticks.get())
    }
}
