//! Where the linker put the image, and the address space made from that.

use gnomon_arch::machine::mmu::{Kind, Mmu};

use crate::fatal;

unsafe extern "C" {
    static text_start: u8;
    static text_end: u8;
    static rodata_start: u8;
    static rodata_end: u8;
    static data_start: u8;
    static data_end: u8;
    static stack_bottom: u8;
    static stack_top: u8;
}

/// Maps the image, each part as what it is, and switches to the new tables. The guard page below
/// the stack and page zero stay unmapped, like everything else that nobody has asked for.
pub(crate) fn own_address_space() -> Mmu {
    let Some(mut mmu) = Mmu::take() else {
        fatal(&"the page tables are in use")
    };
    for (_, start, end, kind) in image_parts() {
        mmu.map(start, end - start, kind)
            .unwrap_or_else(|why| fatal(&why));
    }
    // SAFETY: text, constants, data and stack are all that running code touches, and they are mapped.
    unsafe { mmu.activate() };
    mmu
}

/// First address of the image, and of what lies behind its stack.
pub(crate) fn image() -> (u64, u64) {
    (&raw const text_start as u64, &raw const stack_top as u64)
}

/// Shows the first and last byte of each part of the image and how it should be mapped, and the guard page.
pub(crate) fn parts(visit: &mut dyn FnMut(&'static str, u64, Option<Kind>)) {
    for (name, start, end, kind) in image_parts() {
        visit(name, start, Some(kind));
        visit(name, end - 1, Some(kind));
    }
    visit("stack guard", &raw const stack_bottom as u64 - 1, None);
}

fn image_parts() -> [(&'static str, u64, u64, Kind); 4] {
    [
        (
            "text",
            &raw const text_start,
            &raw const text_end,
            Kind::Text,
        ),
        (
            "constants",
            &raw const rodata_start,
            &raw const rodata_end,
            Kind::ReadOnly,
        ),
        (
            "data",
            &raw const data_start,
            &raw const data_end,
            Kind::Data,
        ),
        (
            "stack",
            &raw const stack_bottom,
            &raw const stack_top,
            Kind::Data,
        ),
    ]
    .map(|(name, start, end, kind)| (name, start as u64, end as u64, kind))
}
