//! Finds a symbol in an ELF64 image as the loader laid it out in a process's memory.
//!
//! The symbol table is reached as the dynamic linker reaches it (program headers, `PT_DYNAMIC`,
//! `DT_GNU_HASH`), so it does not matter whether the file still exists, was started through its own
//! `ld.so`, or was stripped of its section headers. (System V gABI, "Program Loading and Dynamic
//! Linking"; the GNU hash table as glibc's `elf/dl-lookup.c` reads it.) Every value read is treated
//! as hostile: all loops are bounded, all arithmetic wraps or is checked.

use core::fmt;

/// Something that can be read at addresses, such as another process's memory.
pub trait ReadAt {
    /// What goes wrong.
    type Error;

    /// Fills the whole buffer from `address` on.
    ///
    /// # Errors
    /// When any byte of it cannot be read.
    fn read_at(&self, address: u64, buffer: &mut [u8]) -> Result<(), Self::Error>;
}

/// Why a symbol's address is not known.
#[derive(Debug, PartialEq, Eq)]
pub enum ElfError<E> {
    /// The memory cannot be read.
    Memory(E),
    /// What was found is not a 64-bit little-endian ELF image with a dynamic GNU hash table.
    Format(&'static str),
    /// The image does not define the symbol.
    NotFound,
}

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_NULL: u64 = 0;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_GNU_HASH: u64 = 0x6fff_fef5;
/// More program headers, dynamic entries or symbols in one hash bucket than any real image has.
const LIMIT: u64 = 4096;
const PROGRAM_HEADER: u64 = 56;
const SYMBOL: u64 = 24;

/// The address of the defined dynamic symbol `name` in the image whose first page lies at `base`.
///
/// # Errors
/// When the memory cannot be read, does not hold such an image, or the image does not define the
/// symbol.
pub fn symbol<M: ReadAt>(memory: &M, base: u64, name: &str) -> Result<u64, ElfError<M::Error>> {
    let header: [u8; 64] = read(memory, base)?;
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Err(ElfError::Format("not a 64-bit little-endian ELF image"));
    }
    let (bias, dynamic) = program_headers(memory, base, &header)?;
    let tables = Tables::find(memory, bias, dynamic)?;

    // Header of the hash table: buckets, number of the first hashed symbol, words of the Bloom
    // filter (8 bytes each, skipped).
    let hash_header: [u8; 16] = read(memory, tables.hash)?;
    let [buckets, first, bloom_words] = [0, 4, 8].map(|at| u64::from(le32(&hash_header, at)));
    if buckets == 0 {
        return Err(ElfError::Format("an empty hash table"));
    }
    let hash = gnu_hash(name);
    let buckets_at = tables.hash.wrapping_add(16).wrapping_add(bloom_words * 8);
    let chains_at = buckets_at.wrapping_add(buckets * 4);
    let bucket: [u8; 4] = read(
        memory,
        buckets_at.wrapping_add(u64::from(hash) % buckets * 4),
    )?;
    let start = u64::from(u32::from_le_bytes(bucket));
    if start < first {
        return Err(ElfError::NotFound); // an empty bucket
    }
    for index in start..start + LIMIT {
        let chain: [u8; 4] = read(memory, chains_at.wrapping_add((index - first) * 4))?;
        let chain = u32::from_le_bytes(chain);
        // The lowest bit of a chain's hash marks its end.
        if chain | 1 == hash | 1 {
            let symbol: [u8; 24] = read(memory, tables.symbols.wrapping_add(index * SYMBOL))?;
            let defined = le16(&symbol, 6) != 0;
            if defined
                && named(
                    memory,
                    tables.strings.wrapping_add(le32(&symbol, 0).into()),
                    name,
                )?
            {
                return Ok(bias.wrapping_add(le64(&symbol, 8)));
            }
        }
        if chain & 1 == 1 {
            return Err(ElfError::NotFound);
        }
    }
    Err(ElfError::Format("an endless hash chain"))
}

/// The load bias (run-time address minus link-time address) and the run-time address of the dynamic
/// section.
fn program_headers<M: ReadAt>(
    memory: &M,
    base: u64,
    header: &[u8; 64],
) -> Result<(u64, u64), ElfError<M::Error>> {
    let (at, size, count) = (le64(header, 32), le16(header, 54), le16(header, 56));
    if u64::from(size) != PROGRAM_HEADER || u64::from(count) > LIMIT {
        return Err(ElfError::Format("strange program headers"));
    }
    let (mut bias, mut dynamic) = (None, None);
    for index in 0..u64::from(count) {
        let entry: [u8; 56] = read(
            memory,
            base.wrapping_add(at).wrapping_add(index * PROGRAM_HEADER),
        )?;
        let (offset, address) = (le64(&entry, 8), le64(&entry, 16));
        match le32(&entry, 0) {
            PT_LOAD if offset == 0 => bias = Some(base.wrapping_sub(address)),
            PT_DYNAMIC => dynamic = Some(address),
            _ => {}
        }
    }
    let bias = bias.ok_or(ElfError::Format("no segment holds the ELF header"))?;
    let dynamic = dynamic.ok_or(ElfError::Format("no dynamic section"))?;
    Ok((bias, bias.wrapping_add(dynamic)))
}

/// Run-time addresses of the tables the dynamic section names.
struct Tables {
    hash: u64,
    strings: u64,
    symbols: u64,
}

impl Tables {
    fn find<M: ReadAt>(memory: &M, bias: u64, dynamic: u64) -> Result<Self, ElfError<M::Error>> {
        // glibc adds the bias to these addresses in place when it loads an image, other loaders
        // leave them alone.
        let relocated = |address: u64| {
            if address < bias {
                bias.wrapping_add(address)
            } else {
                address
            }
        };
        let (mut hash, mut strings, mut symbols) = (None, None, None);
        for index in 0..LIMIT {
            let entry: [u8; 16] = read(memory, dynamic.wrapping_add(index * 16))?;
            let address = relocated(le64(&entry, 8));
            match le64(&entry, 0) {
                DT_NULL => break,
                DT_STRTAB => strings = Some(address),
                DT_SYMTAB => symbols = Some(address),
                DT_GNU_HASH => hash = Some(address),
                _ => {}
            }
        }
        match (hash, strings, symbols) {
            (Some(hash), Some(strings), Some(symbols)) => Ok(Self {
                hash,
                strings,
                symbols,
            }),
            _ => Err(ElfError::Format(
                "no GNU hash table, symbol table or string table",
            )),
        }
    }
}

/// Whether the NUL-terminated string at `address` is `name`.
fn named<M: ReadAt>(memory: &M, address: u64, name: &str) -> Result<bool, ElfError<M::Error>> {
    for (at, byte) in (0..).zip(name.bytes().chain([0])) {
        if read::<M, 1>(memory, address.wrapping_add(at))? != [byte] {
            return Ok(false);
        }
    }
    Ok(true)
}

fn gnu_hash(name: &str) -> u32 {
    name.bytes().fold(5381, |hash: u32, byte| {
        hash.wrapping_mul(33).wrapping_add(byte.into())
    })
}

fn read<M: ReadAt, const N: usize>(
    memory: &M,
    address: u64,
) -> Result<[u8; N], ElfError<M::Error>> {
    let mut bytes = [0; N];
    memory
        .read_at(address, &mut bytes)
        .map_err(ElfError::Memory)?;
    Ok(bytes)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .unwrap_or([0; N])
}

fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(field(bytes, at))
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}

impl<E: fmt::Display> fmt::Display for ElfError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(error) => write!(f, "the image cannot be read: {error}"),
            Self::Format(what) => f.write_str(what),
            Self::NotFound => f.write_str("the image does not define the symbol"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for ElfError<E> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Process, mapped_images};

    #[derive(Debug, PartialEq)]
    struct Outside;

    struct Bytes(Vec<u8>);

    impl ReadAt for Bytes {
        type Error = Outside;

        fn read_at(&self, address: u64, buffer: &mut [u8]) -> Result<(), Outside> {
            let start = usize::try_from(address).map_err(|_| Outside)?;
            let end = start.checked_add(buffer.len()).ok_or(Outside)?;
            buffer.copy_from_slice(self.0.get(start..end).ok_or(Outside)?);
            Ok(())
        }
    }

    /// A whole image with one symbol, `clock`, at 0x1234: header, two program headers, dynamic
    /// section, hash, symbols, strings.
    fn image() -> Vec<u8> {
        let mut image = vec![0; 0x200];
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"\x7fELF\x02\x01\x01");
        put(32, &64u64.to_le_bytes());
        put(54, &56u16.to_le_bytes());
        put(56, &2u16.to_le_bytes());
        put(64, &PT_LOAD.to_le_bytes());
        put(120, &PT_DYNAMIC.to_le_bytes());
        put(136, &0xb0u64.to_le_bytes());
        for (at, (tag, value)) in [
            (DT_GNU_HASH, 0x100u64),
            (DT_SYMTAB, 0x140),
            (DT_STRTAB, 0x180),
        ]
        .into_iter()
        .enumerate()
        {
            put(0xb0 + at * 16, &tag.to_le_bytes());
            put(0xb8 + at * 16, &value.to_le_bytes());
        }
        // One bucket, symbols from number 1, one Bloom word.
        for (at, word) in [1u32, 1, 1, 0, 0, 0, 1, gnu_hash("clock") | 1]
            .into_iter()
            .enumerate()
        {
            put(0x100 + at * 4, &word.to_le_bytes());
        }
        put(0x158, &1u32.to_le_bytes());
        put(0x15e, &7u16.to_le_bytes());
        put(0x160, &0x1234u64.to_le_bytes());
        put(0x181, b"clock\0");
        image
    }

    #[test]
    fn symbol_is_found_in_a_small_image() {
        assert_eq!(symbol(&Bytes(image()), 0, "clock"), Ok(0x1234));
        assert_eq!(symbol(&Bytes(image()), 0, "cloak"), Err(ElfError::NotFound));
    }

    #[test]
    fn symbol_is_found_in_a_running_program() {
        let me = Process::open(std::process::id()).expect("our own memory");
        let images = mapped_images(std::process::id()).expect("our own maps");
        let found = images
            .iter()
            .find_map(|base| symbol(&me, *base, "adjtimex").ok())
            .expect("libc is mapped");
        let code: [u8; 16] = read(&me, found).expect("code is readable");
        assert_ne!(code, [0; 16]);
    }

    #[test]
    fn damage_never_panics_or_hangs() {
        let whole = image();
        for end in 0..whole.len() {
            let _outcome = symbol(&Bytes(whole[..end].to_vec()), 0, "clock");
        }
        for at in 0..whole.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = byte;
                let _outcome = symbol(&Bytes(damaged), 0, "clock");
            }
        }
        let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..2000 {
            let mut damaged = whole.clone();
            for _ in 0..4 {
                noise = noise
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let at = usize::try_from(noise >> 33).expect("31 bits") % damaged.len();
                damaged[at] = noise.to_le_bytes()[3];
            }
            let _outcome = symbol(&Bytes(damaged), 0, "clock");
        }
        assert_eq!(
            symbol(&Bytes(vec![0; 64]), 0, "clock"),
            Err(ElfError::Format("not a 64-bit little-endian ELF image"))
        );
    }
}
