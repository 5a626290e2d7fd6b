//! Device trees: any blob is refused with a reason, or answers everything that is asked of it.

use gnomon_kernel::config::Config;
use gnomon_kernel::discover::described::Description;
use gnomon_kernel::discover::fdt::{self, Tree};
use gnomon_kernel::memory::MemoryKind;

use crate::acpi::describe;
use crate::aml::MAP;

/// Input: the blob.
///
/// # Panics
/// The tree, or what is made of it, is not as it must be.
pub fn run(data: &[u8]) {
    if let Some(header) = data.first_chunk() {
        assert!(fdt::length(header).is_none_or(|length| length <= fdt::LENGTH_MAX));
    }
    let tree = match Tree::new(data) {
        Ok(tree) => tree,
        Err(bad) => {
            assert!(!bad.to_string().is_empty());
            return;
        }
    };
    if let Some(line) = tree.command_line() {
        let _ = Config::parse(line, &mut |_| {});
    }
    assert!(tree.seeds().all(|seed| (1..=256).contains(&seed.len())));
    let mut ranges = Vec::new();
    tree.memory(|range| ranges.push(range));
    for (number, range) in ranges.iter().enumerate() {
        assert!(range.length > 0);
        let is_free = range.kind == MemoryKind::Usable;
        let others = ranges
            .iter()
            .take(number)
            .filter(|other| other.kind == MemoryKind::Reserved);
        for other in others.filter(|_| is_free) {
            assert!(
                !other.overlaps(range.start, range.length),
                "RAM that is reserved"
            );
        }
    }
    let _ = (tree.fw_cfg(), tree.rtc());
    describe(&Description::Tree(tree));
    match tree.vmclock(None, &MAP) {
        // A node's word is enough for RAM: the page is carved out of it.
        Ok(found) => assert_eq!(found.window.check(&[]), Ok(())),
        Err(why) => assert!(!why.to_string().is_empty()),
    }
}
