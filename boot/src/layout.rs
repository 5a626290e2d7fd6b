//! Where the linker put the image, and the address space made from that.

use gnomon_arch::machine::mmu::{Kind, Mmu, PAGE};

use crate::last_words::fatal;

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

/// Where the constants begin.
#[cfg(feature = "provoke")]
pub(crate) fn constants() -> u64 {
    &raw const rodata_start as u64
}

/// Shows the first and last byte of each part of the image and how it should be mapped, and the guard page.
pub(crate) fn parts(visit: &mut dyn FnMut(&'static str, u64, Option<Kind>)) {
    for (name, start, end, kind) in image_parts() {
        visit(name, start, Some(kind));
        visit(name, end - 1, Some(kind));
    }
    visit("stack guard", &raw const stack_bottom as u64 - 1, None);
}

/// What of the image lies at `address`, by the names of [`parts`], or page zero.
pub(crate) fn place(address: u64) -> Option<&'static str> {
    let guard = (&raw const stack_bottom as u64).wrapping_sub(address);
    match address {
        0..PAGE => Some("page zero"),
        _ if (1..=PAGE).contains(&guard) => Some("stack guard"),
        _ => image_parts()
            .into_iter()
            .find(|(_, start, end, _)| (*start..*end).contains(&address))
            .map(|(name, ..)| name),
    }
}

/// So many bytes of code from `start` on, if all of them are.
pub(crate) fn text(start: u64, length: u64) -> Option<&'static [u8]> {
    let end = start.checked_add(length)?;
    if start < &raw const text_start as u64 || end > &raw const text_end as u64 {
        return None;
    }
    let length = usize::try_from(length).ok()?;
    // SAFETY: the code is mapped, and nobody ever writes it.
    Some(unsafe { core::slice::from_raw_parts(start as *const u8, length) })
}

/// The words on the stack from `pointer` to its end, or all of them where the pointer has left it at its lower end.
pub(crate) fn stack_from(pointer: u64) -> impl Iterator<Item = u64> {
    let (bottom, top) = (&raw const stack_bottom as u64, &raw const stack_top as u64);
    let start = match pointer {
        _ if place(pointer) == Some("stack guard") => bottom,
        _ if (bottom..top).contains(&pointer) => pointer.next_multiple_of(8),
        _ => top,
    };
    (start..top).step_by(8).map(|address| {
        // SAFETY: the stack is mapped, its end aligned; nothing is assumed of what lies there.
        unsafe { (address as *const u64).read_volatile() }
    })
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
