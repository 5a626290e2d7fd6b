//! What is in the image, and what is not.

use std::collections::BTreeMap;
use std::fs;

use gnomon_qemu::End;
use gnomon_qemu::machine::STATUS_FAILURE;
use gnomon_tests::guest::{Guest, machine};
use gnomon_tests::icount::{Counted, Kind, Subject};
use gnomon_tests::temporary::Temporary;
use gnomon_tests::{Arch, arch, image, map::Map, plain_image};

gnomon_tests::on_both![
    everything_is_below_256_kib,
    damaged_image_does_not_run,
    nothing_can_be_allocated,
    a_reply_calls_nothing_that_panics_or_formats,
];

/// The packed image, with everything in it.
const BYTES: usize = 256 << 10;

fn everything_is_below_256_kib() {
    let [packed, plain] = [image(), plain_image()].map(|image| fs::read(image).expect("readable"));
    println!("{}: {} of {}", arch().name(), packed.len(), plain.len());
    assert!(packed.len() < BYTES, "{} bytes", packed.len());
    // It is packed, and not the plain one.
    assert!(packed.len() < plain.len());
}

/// One bit, in what is packed: at its beginning, in the middle, in its last words.
fn damaged_image_does_not_run() {
    let packed = fs::read(image()).expect("readable");
    for at in [packed.len() / 20, packed.len() / 2, packed.len() - 13] {
        let mut damaged = packed.clone();
        damaged[at] ^= 0x10;
        let file = Temporary::new("damaged");
        fs::write(file.path(), damaged).expect("there is room");
        let machine = machine().kernel(file.path()).publish(None);
        let (end, log) = Guest::run_to_its_end(machine);
        assert_eq!(end, Some(End::Status(STATUS_FAILURE)), "byte {at}");
        let said = match arch() {
            Arch::X86_64 => "image damaged\r\n",
            Arch::Aarch64 => "",
        };
        assert_eq!(log, said, "byte {at}");
    }
}

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
        let path = guest.path();
        let on_path = path.lines().map(|line| {
            let digits = line.strip_prefix("0x").expect(line);
            map.function(u64::from_str_radix(digits, 16).expect(line))
        });
        // The request may have been seen by who was waiting for it, on whose way back nothing is done for it.
        functions.extend(on_path.skip_while(|(_, name)| !name.contains("serve_frames")));
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
