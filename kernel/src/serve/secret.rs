//! Where a client is kept in a table of fixed size: by a hash under a secret of this boot, so that
//! nobody can choose addresses that fall on a victim's place.

use core::fmt;
use core::net::IpAddr;

/// A client's address in 128 bits: IPv6 as it is, IPv4 in a corner of the multicast range, where no
/// sender can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The network: of IPv6 the /64, of IPv4 the whole address.
    pub network: u64,
    /// The rest of an IPv6 address.
    pub host: u64,
}

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self {
                network: 0xff00_0000_0000_0000 | u64::from(address.to_bits()),
                host: 0,
            },
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                Self {
                    network: low(bits >> 64),
                    host: low(bits),
                }
            }
        }
    }
}

/// A secret of this boot.
#[derive(Clone, Copy)]
pub struct Secret {
    factors: [u128; 2],
    sum: u128,
}

impl Secret {
    /// A secret from a source of random numbers.
    pub fn new(mut random: impl FnMut() -> u64) -> Self {
        let mut wide = || u128::from(random()) << 64 | u128::from(random());
        Self {
            factors: [wide(), wide()],
            sum: wide(),
        }
    }

    /// A hash of two words, all of whose bits can be used.
    ///
    /// Multiply-add-shift by random factors (Dietzfelbinger): for any two different inputs, every pair
    /// of outputs is equally likely over the choice of the secret. Nothing that we send depends on
    /// the hashes, so the secret cannot be found by asking.
    #[must_use]
    pub const fn hash(&self, first: u64, second: u64) -> u64 {
        let sum = self
            .sum
            .wrapping_add(self.factors[0].wrapping_mul(first as u128))
            .wrapping_add(self.factors[1].wrapping_mul(second as u128));
        low(sum >> 64)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

const fn low(bits: u128) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "the low half is wanted")]
    let low = bits as u64;
    low
}

#[cfg(test)]
mod tests {
    extern crate std;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use std::format;

    use super::*;

    fn secret(seed: u64) -> Secret {
        let mut state = seed;
        Secret::new(|| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            state ^ state >> 29
        })
    }

    #[test]
    fn every_secret_is_another_hash() {
        let (one, two) = (secret(1), secret(2));
        let differ = (0..1000).filter(|&x| one.hash(x, 7) != two.hash(x, 7));
        assert_eq!(differ.count(), 1000);
    }

    #[test]
    fn neighbours_spread_evenly() {
        // Consecutive values of either word, over 128 places: each gets its share, within a factor.
        for seed in 1..20 {
            let secret = secret(seed);
            for swap in [false, true] {
                let mut places = [0_u32; 128];
                for x in 0..12_800 {
                    let hash = if swap {
                        secret.hash(x, 9)
                    } else {
                        secret.hash(9, x)
                    };
                    places[usize::try_from(hash >> 57).expect("seven bits")] += 1;
                }
                let (least, most) = (places.iter().min(), places.iter().max());
                assert!(least > Some(&20) && most < Some(&300), "{places:?}");
            }
        }
    }

    #[test]
    fn addresses_do_not_collide_across_families() {
        let four = Client::from(IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3)));
        assert_eq!(four.network, 0xff00_0000_0a01_0203);
        let six: Ipv6Addr = "2001:db8:1:2:3:4:5:6".parse().expect("an address");
        let six = Client::from(IpAddr::V6(six));
        assert_eq!(
            (six.network, six.host),
            (0x2001_0db8_0001_0002, 0x0003_0004_0005_0006)
        );
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", secret(3)), "Secret");
    }
}
