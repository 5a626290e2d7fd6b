//! What is in the image, and what is not.

use std::collections::BTreeMap;

use gnomon_tests::icount::{Counted, Kind, Subject};
use gnomon_tests::{Arch, arch, map::Map};

gnomon_tests::on_both![
    nothing_can_be_allocated,
    a_reply_calls_nothing_that_panics_or_formats,
];

/// There is no heap: not even the names of what would be one.
fn nothing_can_be_allocated() {
    let map = Map::of(arch());
    let is_heap = |name: &&str| {
        name.contains("__rust_alloc") || name.starts_with("alloc::") || name.contains("<alloc::")
    };
    let heap: Vec<&str> = map.names().filter(is_heap).collect();
    assert!(heap.is_empty(), "{heap:#?}");
    // The map is one, and has such names.
    let known = |part: &str| map.names().any(|name| name.contains(part));
    assert!(known("gnomon_kernel::") && known("core::fmt::") && known("memcpy"));
}

/// Every function that has a part in a reply, between the ring that gives the request and the notification.
fn a_reply_calls_nothing_that_panics_or_formats() {
    let map = Map::of(arch());
    let subject = match arch() {
        Arch::X86_64 => Subject::x86_64(),
        Arch::Aarch64 => Subject::aarch64(),
    };
    let (mut guest, _) = Counted::boot(subject);
    let mut functions = BTreeMap::new();
    for kind in Kind::ALL {
        // The first of a kind may find the guest without a stamp to go by.
        let _costs = guest.replies(kind, 2);
        for line in guest.path().lines() {
            let digits = line.strip_prefix("0x").expect(line);
            let address = u64::from_str_radix(digits, 16).expect(line);
            let (start, name) = map.function(address);
            functions.insert(start, name);
        }
    }
    assert!(
        functions.values().any(|name| name.contains("serve_frames")),
        "{functions:#x?}"
    );
    let is_bad = |name: &&str| {
        ["core::fmt", "panic", "_fail"]
            .iter()
            .any(|bad| name.contains(bad))
    };
    for (start, name) in &functions {
        assert!(!is_bad(name), "{name}");
        let bad: Vec<&str> = map.calls(*start).into_iter().filter(is_bad).collect();
        assert!(bad.is_empty(), "{name} calls {bad:#?}");
    }
    println!("{} functions: {:#?}", arch().name(), functions.values());
}
