//! Resource templates: the bytes of `_CRS` (ACPI 6.5 §6.4), as far as memory, interrupts and ports are concerned.

use core::fmt;

use super::hardware::{Interrupt, Line};

/// The resources that a template lists, in order. After an error nothing follows.
///
/// A template is complete only with its end tag; the iterator yields [`Malformed::NoEnd`] when there is none, so a caller
/// that reads to the end without an error has seen all of it.
pub fn resources(template: &[u8]) -> impl Iterator<Item = Result<Resource, Malformed>> {
    let mut rest = Some(template);
    core::iter::from_fn(move || {
        let bytes = rest.take()?;
        let Some(descriptor) = Descriptor::read(bytes) else {
            return Some(Err(if bytes.is_empty() {
                Malformed::NoEnd
            } else {
                Malformed::Truncated
            }));
        };
        if descriptor.tag == tag::END {
            let used = template.len() - descriptor.rest.len();
            let sum = template
                .get(..used)
                .unwrap_or_default()
                .iter()
                .fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
            // A zero in place of the checksum means that there is none.
            let checked = descriptor
                .body
                .first()
                .is_some_and(|checksum| *checksum != 0);
            return (checked && sum != 0).then_some(Err(Malformed::Checksum));
        }
        let resource = descriptor.resource();
        if resource.is_ok() {
            rest = Some(descriptor.rest);
        }
        Some(resource)
    })
}

/// The interrupts that a template lists, each of every descriptor that has several. They end where it is malformed.
pub fn lines(template: &[u8]) -> impl Iterator<Item = Line> {
    const EDGE: u8 = 1 << 1;
    const LOW: u8 = 1 << 2;
    let mut rest = template;
    let descriptors = core::iter::from_fn(move || {
        let descriptor = Descriptor::read(rest)?;
        rest = descriptor.rest;
        (descriptor.tag != tag::END).then_some(descriptor)
    });
    let interrupts = descriptors.filter(|descriptor| descriptor.tag == tag::INTERRUPT);
    interrupts.flat_map(|descriptor| {
        let (flags, count, numbers) = match descriptor.body {
            [flags, count, numbers @ ..] => (*flags, *count, numbers),
            _ => (0, 0, &[][..]),
        };
        let (numbers, _) = numbers.as_chunks();
        numbers.iter().take(count.into()).map(move |number| Line {
            number: u32::from_le_bytes(*number),
            edge: flags & EDGE != 0,
            low: flags & LOW != 0,
        })
    })
}

/// One resource of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Addresses in memory space.
    Memory(Memory),
    /// An interrupt, by its number in the machine (the first, where a descriptor has several).
    Interrupt(Interrupt),
    /// I/O ports: the first, where the descriptor leaves no choice.
    Ports(u16),
    /// Anything else (bus numbers, older interrupts...), by its tag: the whole first byte of a large descriptor, the type
    /// (0..=15) of a small one.
    Other(u8),
}

/// A memory resource as described; [`Memory::window`] makes sense of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Lowest address: the base, if it is fixed.
    pub minimum: u64,
    /// Highest address; or highest base, as ACPI has it for the descriptors without an address space (compilers disagree).
    pub maximum: u64,
    /// Bytes.
    pub length: u64,
    /// Offset between this address and the one on the other side of a bridge.
    pub translation: u64,
}

impl Memory {
    /// Address and length in bytes, where the description leaves no choice.
    ///
    /// # Errors
    ///
    /// [`Malformed::NotFixed`] when the limits and the length leave several positions or none,
    /// [`Malformed::Translated`] when the address is one behind a bridge.
    pub fn window(&self) -> Result<(u64, u64), Malformed> {
        if self.translation != 0 {
            return Err(Malformed::Translated);
        }
        let base_is_fixed = self.minimum == self.maximum;
        let fills_its_range = self.maximum.checked_sub(self.minimum) == self.length.checked_sub(1);
        // An empty range at one address is fixed too; its length is for the caller to judge.
        if base_is_fixed || fills_its_range {
            Ok((self.minimum, self.length))
        } else {
            Err(Malformed::NotFixed)
        }
    }
}

/// Why a template cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A descriptor is longer than what is left of the template, or too short for its kind.
    Truncated,
    /// There is no end tag.
    NoEnd,
    /// The end tag has a checksum, and it is wrong.
    Checksum,
    /// A memory resource has no single position.
    NotFixed,
    /// A memory resource is translated by a bridge.
    Translated,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "its resources are cut short",
            Self::NoEnd => "its resources have no end tag",
            Self::Checksum => "its resources have a wrong checksum",
            Self::NotFixed => "its memory is not at a fixed address",
            Self::Translated => "its memory address is translated by a bridge",
        })
    }
}

impl core::error::Error for Malformed {}

/// A descriptor's frame (ACPI 6.5 §6.4.2, §6.4.3).
struct Descriptor<'a> {
    tag: u8,
    body: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Descriptor<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (lead, rest) = bytes.split_first()?;
        let (tag, length, rest) = if lead & 0x80 == 0 {
            (lead >> 3, usize::from(lead & 7), rest)
        } else {
            let (length, rest) = rest.split_first_chunk()?;
            (*lead, usize::from(u16::from_le_bytes(*length)), rest)
        };
        let (body, rest) = rest.split_at_checked(length)?;
        Some(Self { tag, body, rest })
    }

    fn resource(&self) -> Result<Resource, Malformed> {
        // Within the body: after the tag and the length.
        let number = |offset: usize, width: usize| {
            let bytes = self
                .body
                .get(offset..offset + width)
                .ok_or(Malformed::Truncated)?;
            Ok(bytes
                .iter()
                .rev()
                .fold(0_u64, |value, byte| value << 8 | u64::from(*byte)))
        };
        // Type, general flags, type flags; then granularity, minimum, maximum, translation, length of one width.
        let address_space = |first: usize, width: usize| {
            if number(0, 1)? != ADDRESS_SPACE_MEMORY {
                return Ok(Resource::Other(self.tag));
            }
            Ok(Resource::Memory(Memory {
                minimum: number(first + width, width)?,
                maximum: number(first + 2 * width, width)?,
                translation: number(first + 3 * width, width)?,
                length: number(first + 4 * width, width)?,
            }))
        };
        match self.tag {
            tag::INTERRUPT if number(1, 1)? > 0 => {
                const EDGE: u64 = 1 << 1;
                Ok(Resource::Interrupt(Interrupt {
                    number: narrow(number(2, 4)?)?,
                    edge: number(0, 1)? & EDGE != 0,
                }))
            }
            tag::PORTS if number(1, 2)? == number(3, 2)? => {
                Ok(Resource::Ports(narrow(number(1, 2)?)?))
            }
            tag::WORD_ADDRESS => address_space(3, 2),
            tag::DWORD_ADDRESS => address_space(3, 4),
            tag::QWORD_ADDRESS => address_space(3, 8),
            // Its revision and a reserved byte come before the granularity.
            tag::EXTENDED_ADDRESS => address_space(5, 8),
            tag::MEMORY_24 => {
                // In units of 256 bytes: bits 8 to 23 of an address.
                let (minimum, maximum) = (number(1, 2)?, number(3, 2)?);
                let last_of_unit = if minimum == maximum { 0 } else { 0xff };
                Ok(Resource::Memory(Memory {
                    minimum: minimum << 8,
                    maximum: maximum << 8 | last_of_unit,
                    length: number(7, 2)? << 8,
                    translation: 0,
                }))
            }
            tag::MEMORY_32 => Ok(Resource::Memory(Memory {
                minimum: number(1, 4)?,
                maximum: number(5, 4)?,
                length: number(13, 4)?,
                translation: 0,
            })),
            tag::MEMORY_32_FIXED => {
                let base = number(1, 4)?;
                Ok(Resource::Memory(Memory {
                    minimum: base,
                    maximum: base,
                    length: number(5, 4)?,
                    translation: 0,
                }))
            }
            other => Ok(Resource::Other(other)),
        }
    }
}

/// A number that was read from so many bytes.
fn narrow<T: TryFrom<u64>>(number: u64) -> Result<T, Malformed> {
    number.try_into().map_err(|_| Malformed::Truncated)
}

/// The resource type of an address space descriptor that means memory.
const ADDRESS_SPACE_MEMORY: u64 = 0;

mod tag {
    pub(super) const PORTS: u8 = 0x08;
    pub(super) const INTERRUPT: u8 = 0x89;
    pub(super) const END: u8 = 0x0f;
    pub(super) const MEMORY_24: u8 = 0x81;
    pub(super) const MEMORY_32: u8 = 0x85;
    pub(super) const MEMORY_32_FIXED: u8 = 0x86;
    pub(super) const DWORD_ADDRESS: u8 = 0x87;
    pub(super) const WORD_ADDRESS: u8 = 0x88;
    pub(super) const QWORD_ADDRESS: u8 = 0x8a;
    pub(super) const EXTENDED_ADDRESS: u8 = 0x8b;
}
