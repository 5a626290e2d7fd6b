//! Images as the linker writes them, and packed ones: ELF for `x86_64`, flat files for aarch64.

use gnomon_pack::{Header, Tables};

use crate::encode::pack;

/// Unpacker and packed bytes must be less than this: the unpacker's memory begins there.
const LIMIT: usize = 256 << 10;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const ELF_HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;

/// What comes of it, and what became of it: single bytes and copies.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) file: Vec<u8>,
    pub(crate) steps: [usize; 2],
}

/// Packs the image of whichever architecture.
///
/// # Errors
/// What is wrong with the image or the unpacker, in words.
pub(crate) fn packed(unpacker: &[u8], image: &[u8]) -> Result<Packed, &'static str> {
    let packed = match (Elf::new(unpacker), Elf::new(image)) {
        (Some(unpacker), Some(image)) => of_elf(&unpacker, &image),
        (None, None) if is_arm(unpacker) && is_arm(image) => of_flat(unpacker, image),
        _ => return Err("image and unpacker must both be ELF files or arm64 Images"),
    }?;
    if packed.file.len() >= LIMIT {
        return Err("the packed image is too long");
    }
    Ok(packed)
}

/// An arm64 Image: the unpacker goes on with the packed bytes.
fn of_flat(unpacker: &[u8], image: &[u8]) -> Result<Packed, &'static str> {
    let (payload, steps) = payload::<4>(image, 0, 0)?;
    Ok(Packed {
        file: [unpacker, &payload].concat(),
        steps,
    })
}

/// Where an Arm image says that it is one (Linux's "Booting arm64").
fn is_arm(image: &[u8]) -> bool {
    image.get(56..60) == Some(b"ARM\x64")
}

/// An ELF file with two segments: the memory of the image, which the loader clears, and the unpacker with the packed bytes.
fn of_elf(unpacker: &Elf<'_>, image: &Elf<'_>) -> Result<Packed, &'static str> {
    let (place, end) = image.span().ok_or("the image has no segments")?;
    let mut bytes = Vec::new();
    for segment in image.segments(PT_LOAD) {
        let at = usize::try_from(segment.address - place).map_err(|_| "a strange address")?;
        bytes.resize(bytes.len().max(at + segment.bytes.len()), 0);
        bytes[at..at + segment.bytes.len()].copy_from_slice(segment.bytes);
    }
    let entry = image.note_entry().ok_or("the image has no PVH note")?;
    let entry = entry.checked_sub(place).ok_or("a strange entry")?;
    let (payload, steps) = payload::<1>(&bytes, place, entry)?;

    let mut own = unpacker.segments(PT_LOAD);
    let (Some(own), None) = (own.next(), own.next()) else {
        return Err("the unpacker must have one segment");
    };
    let note = unpacker.segments(PT_NOTE).next();
    let note = note.ok_or("the unpacker has no PVH note")?;
    if own.address < end {
        return Err("the image reaches into the unpacker's memory");
    }
    let own_bytes = [own.bytes, &payload].concat();

    // The file: its header, which the loader puts where the image will be, as a segment must have bytes; then the rest.
    let mut headers = Vec::new();
    let from = ELF_HEADER + 3 * PROGRAM_HEADER;
    let note_from = from as u64 + (note.address - own.address);
    for (kind, flags, offset, address, length, memory) in [
        (PT_LOAD, 6, 0, place, ELF_HEADER as u64, end - place),
        (
            PT_LOAD,
            7,
            from as u64,
            own.address,
            own_bytes.len() as u64,
            own.memory,
        ),
        (
            PT_NOTE,
            4,
            note_from,
            note.address,
            note.bytes.len() as u64,
            note.memory,
        ),
    ] {
        headers.extend(u32::to_le_bytes(kind));
        headers.extend(u32::to_le_bytes(flags));
        let align = if kind == PT_NOTE { 4 } else { 8 };
        for word in [offset, address, address, length, memory, align] {
            headers.extend(u64::to_le_bytes(word));
        }
    }
    let mut file = unpacker.0[..ELF_HEADER].to_vec();
    file[32..40].copy_from_slice(&(ELF_HEADER as u64).to_le_bytes());
    // No section headers.
    file[40..48].fill(0);
    file[58..64].fill(0);
    file[56..58].copy_from_slice(&3_u16.to_le_bytes());
    file.extend(headers);
    file.extend(own_bytes);
    Ok(Packed { file, steps })
}

/// Header and packed bytes, which have been unpacked once to see that they become the image.
fn payload<const PLACES: usize>(
    image: &[u8],
    place: u64,
    entry: u64,
) -> Result<(Vec<u8>, [usize; 2]), &'static str> {
    let packed = pack(image, PLACES);
    let number = |length: usize| u32::try_from(length).map_err(|_| "the image is too long");
    let header = Header {
        words: number(packed.words.len())?,
        length: number(image.len())?,
        place,
        entry,
    };
    let payload = [&header.to_words(&packed.words)[..], &packed.words].concat();
    let (checked, words) = Header::check(&payload).ok_or("the seal does not hold")?;
    let mut unpacked = vec![0; image.len()];
    let outcome = Tables::<PLACES>::new().unpack(words, &mut unpacked[..], image.len());
    if checked != header || outcome.is_none() || unpacked != image {
        return Err("what was packed does not become the image again");
    }
    let bytes = payload.iter().flat_map(|word| word.to_le_bytes());
    Ok((bytes.collect(), packed.steps))
}

/// A 64-bit little-endian ELF file.
struct Elf<'a>(&'a [u8]);

/// A part of an ELF file.
struct Segment<'a> {
    address: u64,
    bytes: &'a [u8],
    memory: u64,
}

impl<'a> Elf<'a> {
    fn new(file: &'a [u8]) -> Option<Self> {
        file.starts_with(b"\x7fELF\x02\x01").then_some(Self(file))
    }

    /// The segments of a kind that are whole.
    fn segments(&self, kind: u32) -> impl Iterator<Item = Segment<'a>> {
        let file = self.0;
        let table = long(file, 32).unwrap_or(0);
        let number = file
            .get(56..58)
            .map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
        let headers = file
            .get(table..)
            .unwrap_or(&[])
            .chunks_exact(PROGRAM_HEADER);
        let headers = headers.take(number.into());
        headers
            .filter(move |header| header[..4] == kind.to_le_bytes())
            .filter_map(move |header| {
                let (offset, length) = (long(header, 8)?, long(header, 32)?);
                Some(Segment {
                    address: long(header, 24)? as u64,
                    bytes: file.get(offset..offset.checked_add(length)?)?,
                    memory: long(header, 40)? as u64,
                })
            })
    }

    /// First address of all segments in memory, and the one behind their last.
    fn span(&self) -> Option<(u64, u64)> {
        let start = self
            .segments(PT_LOAD)
            .map(|segment| segment.address)
            .min()?;
        let ends = self
            .segments(PT_LOAD)
            .map(|segment| segment.address.saturating_add(segment.memory));
        Some((start, ends.max()?))
    }

    /// What the PVH note says: its name is "Xen", its type 18, and it holds 32 or 64 bits.
    fn note_entry(&self) -> Option<u64> {
        let note = self.segments(PT_NOTE).next()?.bytes;
        if note.get(8..16)? != b"\x12\0\0\0Xen\0" {
            return None;
        }
        Some(u32::from_le_bytes(*note.get(16..)?.first_chunk()?).into())
    }
}

fn long(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?)).ok()
}
