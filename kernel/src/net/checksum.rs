//! The Internet checksum (RFC 1071): of IPv4's header, UDP and `ICMPv6`.
//!
//! It is the complement of a sum modulo 0xffff of 16-bit words, and 2^64 leaves 1 behind when divided by
//! 0xffff: so eight bytes are added at a time, and what is carried out is added again. The bytes are taken in
//! the order in which the machine has them, for then the sum's bytes are in that order, too (§2 (B)).

/// The sum of an even number of bytes, and any number at its end, modulo 2^64 − 1. It is zero only if all
/// of them are.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(super) struct Sum(u64);

impl Sum {
    /// Of bytes, as many as the compiler knows: in line.
    #[expect(
        clippy::inline_always,
        reason = "a few instructions for the few bytes that there are on a reply's way"
    )]
    #[inline(always)]
    pub(super) fn of(bytes: &[u8]) -> Self {
        let (words, tail) = bytes.as_chunks::<8>();
        let mut last = [0; 8];
        last.iter_mut().zip(tail).for_each(|(to, from)| *to = *from);
        words
            .iter()
            .fold(Self(u64::from_ne_bytes(last)), |sum, word| {
                sum.plus(Self(u64::from_ne_bytes(*word)))
            })
    }

    /// Of any bytes.
    #[inline(never)]
    pub(super) fn of_many(bytes: &[u8]) -> Self {
        Self::of(bytes)
    }

    /// Of a number in a header, below 2^32 by its caller's construction.
    #[inline]
    pub(super) fn of_number(number: usize) -> Self {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        Self(u32::from_ne_bytes(number.to_be_bytes()).into())
    }

    #[inline]
    pub(super) const fn plus(self, other: Self) -> Self {
        let (sum, carry) = self.0.overflowing_add(other.0);
        Self(sum.wrapping_add(carry as u64))
    }

    /// Whether this is the sum of something with its checksum.
    #[inline]
    pub(super) const fn is_verified(self) -> bool {
        self.0 != 0 && self.0.is_multiple_of(MODULUS)
    }

    /// The field that makes something with this sum, which is not zero, verified.
    #[inline]
    pub(super) fn checksum(self) -> [u8; 2] {
        let checksum = self.udp_checksum();
        if checksum == [0xff; 2] {
            [0; 2]
        } else {
            checksum
        }
    }

    /// The same for UDP, where zero would say "no checksum": RFC 768 sends its other representation.
    #[inline]
    pub(super) fn udp_checksum(self) -> [u8; 2] {
        let complement = MODULUS - self.0 % MODULUS;
        u16::try_from(complement).unwrap_or(u16::MAX).to_ne_bytes()
    }
}

/// Ones' complement.
const MODULUS: u64 = 0xffff;

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// Word by word, as RFC 1071 has it.
    fn expected(bytes: &[u8]) -> u16 {
        let words = bytes.chunks(2).map(|pair| {
            let low = pair.get(1).copied().unwrap_or(0);
            u32::from(u16::from_be_bytes([pair[0], low]))
        });
        let sum = words.fold(0_u32, |sum, word| {
            let sum = sum + word;
            (sum & 0xffff) + (sum >> 16)
        });
        !u16::try_from(sum).expect("folded")
    }

    #[test]
    fn zero_has_two_representations() {
        let all = Sum::of(&[0xff; 16]);
        assert!(all.is_verified());
        assert_eq!((all.checksum(), all.udp_checksum()), ([0; 2], [0xff; 2]));
        assert!(!Sum::of(&[0; 16]).is_verified());
        assert!(!Sum::of(&[0xff; 15]).is_verified());
    }

    proptest! {
        #[test]
        fn it_is_that_of_rfc_1071(
            first in prop::collection::vec(any::<u8>(), 0..40),
            second in prop::collection::vec(prop::sample::select([0, 1, 0x80, 0xfe, 0xff].as_slice()), 0..90),
            number in 0_u16..,
        ) {
            let first = &first[..first.len() / 2 * 2];
            let bytes: Vec<u8> =
                [first, &number.to_be_bytes(), &second].concat();
            let sum = Sum::of(first)
                .plus(Sum::of_number(number.into()))
                .plus(Sum::of_many(&second));
            prop_assume!(bytes.iter().any(|byte| *byte != 0));
            let checksum = sum.checksum();
            prop_assert_eq!(u16::from_be_bytes(checksum), expected(&bytes));
            prop_assert!(sum.plus(Sum::of(&checksum)).is_verified());
            prop_assert!(sum.plus(Sum::of(&sum.udp_checksum())).is_verified());
            prop_assert_eq!(sum.is_verified(), expected(&bytes) == 0);
            let wrong = u16::from_be_bytes(checksum) ^ 0x40;
            prop_assert!(!sum.plus(Sum::of(&wrong.to_be_bytes())).is_verified());
        }
    }
}
