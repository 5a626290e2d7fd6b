//! The parts of a reply by themselves.

use proptest::prelude::*;

use super::*;

#[test]
fn the_precision_is_never_finer_than_reality() {
    for (nanos, precision) in [
        (0, -29),
        (1, -29),
        (2, -28),
        (3, -28),
        (4, -27),
        (30, -24),
        (59, -24),
        (60, -23),
        (1_000, -19),
        (1_000_000, -9),
        (250_000_000, -2),
        (500_000_000, -1),
        (u64::MAX, -1),
    ] {
        let server = Server::new(1, nanos);
        assert_eq!(server.precision(), precision, "{nanos} ns");
        if nanos <= 500_000_000 {
            assert!(server.interval >= Bound::from_nanos(nanos), "{nanos} ns");
        }
    }
}

#[test]
fn the_stratum_is_a_stratum() {
    for (asked, given) in [(0, 1), (1, 1), (2, 2), (15, 15), (16, 15), (255, 15)] {
        assert_eq!(Server::new(asked, 30).stratum(), given);
    }
}

#[test]
fn blurring_fills_exactly_the_bits_below_the_precision() {
    let (receive, transmit) = (0x0000_0001_0000_0001, 0x0000_0001_1234_5678);
    assert_eq!(blur(receive, transmit, 0xfff, 0), 0x0000_0001_1234_5000);
    assert_eq!(
        blur(receive, transmit, 0xfff, u64::MAX),
        0x0000_0001_1234_5ffe
    );
    assert_eq!(blur(receive, transmit, 0xfff, 0xabc), 0x0000_0001_1234_5abc);
    // Received in the same interval: what is left of it.
    assert_eq!(blur(0x1ff9, 0x1ffa, 0xfff, 0), 0x1ffa);
    assert_eq!(blur(0x1ff9, 0x1ffa, 0xfff, 2), 0x1ffe);
    // The last instant of an interval has no later one in it; nor has the end of the era.
    assert_eq!(blur(0x1fff, 0x1fff, 0xfff, 0xabc), 0x2000);
    assert_eq!(blur(u64::MAX, u64::MAX, 0xfff, 0xabc), 2);
}

proptest! {
    #[test]
    fn a_blurred_stamp_is_later_and_near(
        receive: u64,
        served in 0_u64..1 << 40,
        precision in -29_i8..=-1,
        random: u64,
    ) {
        let (receive, transmit) = (receive | 1, receive.wrapping_add(served));
        let mask = (1 << (32 - precision.unsigned_abs())) - 1;
        let stamp = blur(receive, transmit, mask, random);
        prop_assert!(stamp != 0 && stamp & 1 == 0);
        prop_assert!(stamp.wrapping_sub(receive).cast_signed() > 0);
        // One unit for the instant after the last, one for stepping over zero.
        prop_assert!(stamp.wrapping_sub(transmit).cast_signed().unsigned_abs() <= mask + 2);
    }
}
