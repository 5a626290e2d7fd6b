//! PCI configuration space that answers as it likes.

use std::cell::{Cell, RefCell};

use gnomon_arch::dev::pci::{BarSpace, ConfigAccess, Function, Pci};

use crate::input::Input;

/// Answers in the order in which they are asked for, or again and again what was written.
struct Host<'a> {
    answers: RefCell<Input<'a>>,
    written: Cell<u32>,
    accesses: Cell<u64>,
}

impl ConfigAccess for Host<'_> {
    fn read32(&self, _: Function, _: u16) -> u32 {
        self.accesses.set(self.accesses.get() + 1);
        let mut answers = self.answers.borrow_mut();
        if answers.is_empty() {
            // A function everywhere, or nowhere.
            return self.written.get();
        }
        match answers.u8() {
            0 => 0,
            1 => u32::MAX,
            2 => self.written.get(),
            _ => answers.u32(),
        }
    }

    fn write32(&self, _: Function, _: u16, value: u32) {
        self.accesses.set(self.accesses.get() + 1);
        self.written.set(value);
    }
}

/// Input: answers.
///
/// # Panics
/// A place is where it must not be, or the work was not bounded.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let (first, function) = (input.u8(), Function(input.u16()));
    let (start, length) = (input.number(), input.number());
    let host = Host {
        answers: RefCell::new(input),
        written: Cell::new(0),
        accesses: Cell::new(0),
    };
    let pci = Pci(&host);
    assert!(pci.capabilities(function).count() <= 48);
    assert!(
        pci.capabilities(function)
            .all(|(at, _)| (0x40..0x100).contains(&at))
    );
    for index in [0, 1, 2, 3, 4, 5, 6, 255] {
        if let Some(bar) = pci.bar(function, index) {
            assert!(index < 6 && bar.length.is_power_of_two() && bar.address != 0);
            // Its last byte has an address.
            assert!(bar.address.checked_add(bar.length - 1).is_some());
        }
    }
    let mut space = BarSpace::new(start, length);
    for _ in 0..4 {
        pci.place_bars(function, &mut space);
    }
    let _ = pci.pin(function);
    pci.enable(function, true);
    let (mut buses, mut functions) = (0, 0);
    let reach = |bus: u8| {
        buses += 1;
        bus >= first && buses <= 4
    };
    pci.walk(first, reach, |_, vendor, _| {
        functions += 1;
        assert_ne!(vendor, 0xffff);
    });
    assert!(functions <= 4 * 256);
    assert!(host.accesses.get() < 20_000, "{}", host.accesses.get());
}
