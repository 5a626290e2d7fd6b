//! Who is answered: lists of address prefixes.
//!
//! The **longest** prefix that holds the client's address decides; where the same prefix is both
//! allowed and denied, it is denied. An address that no prefix holds is answered as long as nothing
//! was allowed by name, and not answered as soon as something was.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The prefixes that a list has room for.
pub const CAPACITY: usize = 32;

/// Addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The bits, from the most significant on, and zeros.
    bits: u128,
    length: u8,
    family: Family,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Prefix {
    /// The first `length` bits of `network`; `None` when there are not that many, or when bits
    /// beyond them are set.
    #[must_use]
    pub fn new(network: IpAddr, length: u8) -> Option<Self> {
        let (bits, width, family) = aligned(network);
        let rest = bits & !mask(length);
        (length <= width && rest == 0).then_some(Self {
            bits,
            length,
            family,
        })
    }

    /// Reads `ADDR/LEN`, or `ADDR` for that one address.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('/') {
            None => {
                let address: IpAddr = text.parse().ok()?;
                Self::new(address, aligned(address).1)
            }
            Some((address, length)) => {
                let digits = length.bytes().all(|byte| byte.is_ascii_digit());
                let length = length.parse().ok().filter(|_| digits)?;
                Self::new(address.parse().ok()?, length)
            }
        }
    }

    /// Whether `address` begins with these bits.
    #[must_use]
    pub fn holds(&self, address: IpAddr) -> bool {
        let (bits, _, family) = aligned(address);
        self.matches(bits, family)
    }

    fn matches(&self, bits: u128, family: Family) -> bool {
        family == self.family && bits & mask(self.length) == self.bits
    }
}

/// `ADDR/LEN`.
impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.family {
            Family::V4 => {
                let bits = u32::try_from(self.bits >> 96).unwrap_or(0);
                write!(f, "{}/{}", Ipv4Addr::from_bits(bits), self.length)
            }
            Family::V6 => write!(f, "{}/{}", Ipv6Addr::from_bits(self.bits), self.length),
        }
    }
}

/// What is to be done with the addresses of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Answer them.
    Allow,
    /// Do not.
    Deny,
}

/// The prefixes with their rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessList {
    entries: [Option<(Prefix, Rule)>; CAPACITY],
    /// What holds for an address in no prefix.
    otherwise: Rule,
    closed: bool,
}

impl AccessList {
    /// Everybody is answered.
    pub const OPEN: Self = Self {
        entries: [None; CAPACITY],
        otherwise: Rule::Allow,
        closed: false,
    };

    /// Adds prefixes from a list `ADDR/LEN,ADDR,...`. On `None`, when one is malformed or there is no
    /// room for all, nothing was added.
    pub fn add(&mut self, list: &str, rule: Rule) -> Option<()> {
        let mut changed = *self;
        for text in list.split(',') {
            let prefix = Prefix::parse(text)?;
            let free = changed.entries.iter_mut().find(|entry| entry.is_none())?;
            *free = Some((prefix, rule));
        }
        if rule == Rule::Allow {
            changed.otherwise = Rule::Deny;
        }
        *self = changed;
        Some(())
    }

    /// From here on nobody is answered: what to do when the lists could not be understood.
    pub const fn close(&mut self) {
        self.closed = true;
    }

    /// Whether a client at `address` is answered.
    #[must_use]
    pub fn permits(&self, address: &IpAddr) -> bool {
        // Nearly always there is no list at all.
        match (&self.entries[0], self.closed) {
            (None, closed) => !closed,
            (Some(_), true) => false,
            (Some(_), false) => self.decides_for(address),
        }
    }

    /// Out of line, to keep the way of most requests short.
    #[inline(never)]
    fn decides_for(&self, address: &IpAddr) -> bool {
        let (bits, _, family) = aligned(*address);
        let longest = self
            .entries
            .iter()
            .map_while(Option::as_ref)
            .filter(|(prefix, _)| prefix.matches(bits, family))
            .map(|(prefix, rule)| (prefix.length, *rule == Rule::Deny))
            .max();
        !longest.map_or(self.otherwise == Rule::Deny, |(_, denied)| denied)
    }
}

/// An address as the first bits of 128, how many they are, and its family.
fn aligned(address: IpAddr) -> (u128, u8, Family) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32, Family::V4),
        IpAddr::V6(address) => (address.to_bits(), 128, Family::V6),
    }
}

fn mask(length: u8) -> u128 {
    u128::MAX
        .checked_shl(128_u32.saturating_sub(u32::from(length)))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::format;
    use std::string::ToString;

    use proptest::prelude::*;

    use super::*;

    fn list(rules: &[(&str, Rule)]) -> AccessList {
        let mut list = AccessList::OPEN;
        for (text, rule) in rules {
            list.add(text, *rule).expect(text);
        }
        list
    }

    fn permits(list: &AccessList, address: &str) -> bool {
        list.permits(&address.parse().expect(address))
    }

    /// Every prefix of an address holds exactly the addresses that differ from it beyond the
    /// prefix, and nothing of the other family.
    fn at_every_length(address: IpAddr, flip: impl Fn(u8) -> IpAddr, width: u8, other: IpAddr) {
        for length in 0..=width {
            let (bits, ..) = aligned(address);
            let network = match address {
                IpAddr::V4(_) => {
                    let bits = u32::try_from((bits & mask(length)) >> 96).expect("32 bits");
                    IpAddr::V4(Ipv4Addr::from_bits(bits))
                }
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits & mask(length))),
            };
            let prefix = Prefix::new(network, length).expect("a prefix");
            assert_eq!(Prefix::parse(&prefix.to_string()), Some(prefix));
            let mut allowed = AccessList::OPEN;
            let mut denied = AccessList::OPEN;
            assert!(allowed.add(&prefix.to_string(), Rule::Allow).is_some());
            assert!(denied.add(&prefix.to_string(), Rule::Deny).is_some());
            let check = |address: IpAddr, inside| {
                assert_eq!(prefix.holds(address), inside, "{prefix} {address}");
                assert_eq!(allowed.permits(&address), inside, "{prefix} {address}");
                assert_eq!(denied.permits(&address), !inside, "{prefix} {address}");
            };
            check(address, true);
            check(network, true);
            check(other, false);
            for bit in 0..width {
                check(flip(bit), bit >= length);
            }
            // One more bit than the width is no prefix; nor is a bit beyond the length.
            assert_eq!(Prefix::new(address, width + 1), None);
            if length < width && address != network {
                assert_eq!(Prefix::new(address, length), None, "{address}/{length}");
            }
        }
    }

    #[test]
    fn every_prefix_length() {
        let six = |bits: u128| IpAddr::V6(Ipv6Addr::from_bits(bits));
        let four = |bits: u32| IpAddr::V4(Ipv4Addr::from_bits(bits));
        for bits in [0xc0a8_07e1, 0, u32::MAX] {
            let flip = |bit| four(bits ^ 1_u32 << (31 - bit));
            at_every_length(four(bits), flip, 32, six(u128::from(bits) << 96));
        }
        for bits in [0x2001_0db8_85a3_08d3_1319_8a2e_0370_7348, 0, u128::MAX] {
            let flip = |bit| six(bits ^ 1_u128 << (127 - bit));
            at_every_length(six(bits), flip, 128, four(0));
        }
    }

    #[test]
    fn the_longest_prefix_wins_whatever_the_order() {
        use Rule::{Allow, Deny};
        let rules = [
            ("10.0.0.0/8", Allow),
            ("10.1.0.0/16", Deny),
            ("10.1.2.0/24", Allow),
            ("10.1.2.3", Deny),
            ("2001:db8::/32", Allow),
        ];
        for turn in 0..rules.len() {
            let mut rules = rules;
            rules.rotate_left(turn);
            let list = list(&rules);
            for (address, expected) in [
                ("10.9.9.9", true),
                ("10.1.9.9", false),
                ("10.1.2.9", true),
                ("10.1.2.3", false),
                ("11.0.0.1", false),
                ("2001:db8::1", true),
                ("2001:db9::1", false),
            ] {
                assert_eq!(permits(&list, address), expected, "{address}");
            }
        }
    }

    #[test]
    fn what_no_prefix_holds() {
        use Rule::{Allow, Deny};
        assert!(permits(&AccessList::OPEN, "192.0.2.1"));
        assert!(permits(&list(&[("10.0.0.0/8", Deny)]), "192.0.2.1"));
        assert!(permits(&list(&[("10.0.0.0/8", Deny)]), "2001:db8::1"));
        assert!(!permits(&list(&[("10.0.0.0/8", Allow)]), "192.0.2.1"));
        assert!(!permits(&list(&[("10.0.0.0/8", Allow)]), "2001:db8::1"));
        // Everybody but one: the shortest prefix of all is an answer, too.
        let but_one = list(&[("0.0.0.0/0,::/0", Allow), ("192.0.2.1", Deny)]);
        assert!(permits(&but_one, "192.0.2.2") && !permits(&but_one, "192.0.2.1"));
        // The same prefix on both sides.
        let both = list(&[("10.0.0.0/8", Deny), ("10.0.0.0/8", Allow)]);
        assert!(!permits(&both, "10.0.0.1"));
    }

    #[test]
    fn a_list_that_is_not_understood_changes_nothing() {
        for text in [
            "",
            ",",
            "10.0.0.0/8,",
            "10.0.0.0/8,,10.1.0.0/16",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/256",
            "10.0.0.1/8",
            "10.0.0/8",
            "::/129",
            "::1/64",
            "example",
            "10.0.0.0/8 ",
            "10.0.0.0/8,x",
        ] {
            let mut list = AccessList::OPEN;
            assert_eq!(list.add(text, Rule::Deny), None, "{text}");
            assert_eq!(list, AccessList::OPEN, "{text}");
        }
    }

    #[test]
    fn a_full_list_says_so() {
        let mut list = AccessList::OPEN;
        for number in 0..CAPACITY {
            let text = format!("10.0.{number}.0/24");
            assert_eq!(list.add(&text, Rule::Deny), Some(()), "{text}");
        }
        assert_eq!(list.add("10.1.0.0/24", Rule::Deny), None);
        assert!(!permits(&list, "10.0.31.1") && permits(&list, "10.1.0.1"));
    }

    #[test]
    fn a_closed_list_permits_nobody() {
        let mut closed = list(&[("10.0.0.0/8", Rule::Allow)]);
        closed.close();
        assert!(!permits(&closed, "10.0.0.1"));
        let mut closed = AccessList::OPEN;
        closed.close();
        assert!(!permits(&closed, "10.0.0.1"));
    }

    proptest! {
        /// Against the rule as it is told: sort by length, the first that holds decides.
        #[test]
        fn any_lists(
            rules in prop::collection::vec((any::<u32>(), 0_u8..=32, any::<bool>()), 0..CAPACITY),
            near in 0_usize..CAPACITY,
            far: u32,
        ) {
            let mut list = AccessList::OPEN;
            let mut model = std::vec::Vec::new();
            for (bits, length, allow) in &rules {
                let network = bits & u32::try_from(mask(*length) >> 96).expect("32 bits");
                let rule = if *allow { Rule::Allow } else { Rule::Deny };
                let text = format!("{}/{length}", Ipv4Addr::from_bits(network));
                prop_assert_eq!(list.add(&text, rule), Some(()));
                model.push((*length, network, *allow));
            }
            let address = rules.get(near).map_or(far, |(bits, ..)| bits ^ far >> 20);
            model.sort_by_key(|(length, _, allow)| (core::cmp::Reverse(*length), *allow));
            let expected = model
                .iter()
                .find(|(length, network, _)| {
                    (address ^ network).leading_zeros() >= u32::from(*length)
                })
                .map_or(!rules.iter().any(|(_, _, allow)| *allow), |(_, _, allow)| *allow);
            prop_assert_eq!(list.permits(&IpAddr::V4(Ipv4Addr::from_bits(address))), expected);
        }
    }
}
