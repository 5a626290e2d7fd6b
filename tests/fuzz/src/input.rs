//! What the fuzzer made up, read from the front; zeros behind its end.

/// The rest of an input.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// Whether nothing is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// At most `count` bytes, fewer at the end.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Bytes behind a length of 16 bits.
    pub fn block(&mut self) -> &'a [u8] {
        let length = self.u16();
        self.take(usize::from(length))
    }

    /// `N` bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    /// A byte.
    pub fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    /// Two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// Four bytes.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// A number of any size up to 64 bits: small ones are more likely than among eight bytes.
    pub fn number(&mut self) -> u64 {
        match self.u8() {
            small @ 0..=0x7f => u64::from(small),
            0x80..=0x9f => u64::from(self.u16()),
            0xa0..=0xbf => u64::from(self.u32()),
            0xc0..=0xdf => self.u64(),
            large => u64::from(large)
                .cast_signed()
                .wrapping_sub(0x100)
                .cast_unsigned(),
        }
    }
}

/// [`Input::block`] the other way round, for seeds.
///
/// # Panics
/// The block is longer than 65,535 bytes.
#[must_use]
pub fn block(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("a short block");
    [&length.to_le_bytes()[..], bytes].concat()
}
