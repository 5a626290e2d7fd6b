//! AML: a namespace of at most two blocks, and everything that is asked of one.

use gnomon_kernel::discover::aml::Namespace;
use gnomon_kernel::discover::notification::Events;
use gnomon_kernel::discover::resource::{lines, resources};
use gnomon_kernel::discover::{Found, NotFound, vmclock_in};
use gnomon_kernel::memory::{MemoryKind, MemoryRange};

use crate::input::Input;

/// The memory map of a small PC.
pub const MAP: [MemoryRange; 3] = [
    MemoryRange {
        start: 0,
        length: 0x9_fc00,
        kind: MemoryKind::Usable,
    },
    MemoryRange {
        start: 0x10_0000,
        length: 0x3ee_0000,
        kind: MemoryKind::Usable,
    },
    MemoryRange {
        start: 0xfeff_b000,
        length: 0x5000,
        kind: MemoryKind::Reserved,
    },
];

/// Input: a block, and the rest as another.
///
/// # Panics
/// A template has more resources than bytes, or as [`exercise`] does.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let first = input.block();
    exercise(&[first, input.0]);
    // A template is read from wherever _CRS leads: here, from anywhere.
    assert!(resources(input.0).count() <= input.0.len() + 1);
    assert!(lines(input.0).count() <= input.0.len());
}

/// Asks everything that start-up and the console ask.
///
/// # Panics
/// Something was found that must not be, or the work was not bounded.
pub fn exercise(blocks: &[&[u8]]) {
    let namespace = Namespace::new(blocks);
    let found = vmclock_in(&namespace, &MAP);
    check(&found);
    let _ = namespace.soft_off();
    for entry in namespace.entries() {
        if let Some(object) = entry.object() {
            let _ = (namespace.evaluate(&object), object.path.to_string());
        }
    }
    // The smoke test alone asks this, of a namespace of its own.
    if let Some(device) = found.ok().and_then(|found| found.device) {
        let asked = Namespace::new(blocks);
        let _ = Events::in_namespace(&asked, &device);
        bounded(&asked, blocks);
    }
    bounded(&namespace, blocks);
}

/// Holds the work to what it may be.
fn bounded(namespace: &Namespace<'_>, blocks: &[&[u8]]) {
    // A spent budget ends a walk at its next step; what was charged beyond it is one scan of a package.
    let bytes: usize = blocks.iter().map(|block| block.len()).sum();
    let most = namespace.limit() + 64 * (bytes as u64 + 1);
    assert!(namespace.steps() <= most, "{} steps", namespace.steps());
}

/// What is found is a sane page outside RAM; what is not has a reason in words.
///
/// # Panics
/// It is not so.
pub fn check(result: &Result<Found, NotFound>) {
    match result {
        Ok(found) => {
            assert_eq!(found.window.check(&MAP), Ok(()));
            assert!(!found.to_string().is_empty());
        }
        Err(reason) => assert!(!reason.to_string().is_empty()),
    }
}
