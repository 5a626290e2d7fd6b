//! QEMU's firmware configuration device, whose items are what they like: the directory, and the table loader over
//! whatever it names.

use std::cell::{Cell, RefCell};

use gnomon_arch::dev::fw_cfg::{Access, FwCfg};
use gnomon_kernel::discover::loader::{NAME, SCRIPT};
use gnomon_kernel::serve::auth::Keys;

use crate::input::Input;

/// Items by number; everything after them is one item without end.
struct Host<'a> {
    items: Vec<(u16, &'a [u8])>,
    at: Cell<(u16, usize)>,
    endless: RefCell<Input<'a>>,
}

impl Access for Host<'_> {
    fn select(&self, item: u16) {
        self.at.set((item, 0));
    }

    fn read(&self, into: &mut [u8]) {
        let (item, mut at) = self.at.get();
        let found = self.items.iter().find(|(its, _)| *its == item);
        let source = match found {
            Some((_, bytes)) => bytes.get(at..).unwrap_or_default(),
            None => self.endless.borrow_mut().take(into.len()),
        };
        let count = source.len().min(into.len());
        into[..count].copy_from_slice(&source[..count]);
        into[count..].fill(0);
        at += into.len();
        self.at.set((item, at));
    }
}

/// Input: how many items, their numbers and blocks; the rest for all others.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let count = input.u8() % 8;
    let items = (0..count).map(|_| (input.u16(), input.block())).collect();
    let host = Host {
        items,
        at: Cell::new((0, 0)),
        endless: RefCell::new(input),
    };
    let Some(device) = FwCfg::new(host) else {
        return;
    };
    for name in [SCRIPT, "opt/org.gnomon/ntp.keys", "", &"a".repeat(NAME)] {
        if let Some(file) = device.find(name) {
            let mut bytes = [0; 4096];
            let length = usize::try_from(file.length).unwrap_or(usize::MAX);
            device.read(file, &mut bytes[..length.min(4096)]);
            let mut keys = Keys::NONE;
            keys.parse_file(&bytes, &mut |_| {});
        }
    }
}
