//! The bytes of a flattened device tree (Devicetree Specification 0.4, chapter 5).
//!
//! [`Blob::new`] checks everything once, so that no part of a malformed tree is believed; what walks it later would only end
//! early where something is wrong. It is our own because it is fast: a machine's tree is walked some twenty times
//! while the machine starts, and a reader that makes a checked string of every property's name takes ten times as long.

use core::fmt;

/// Bytes of the header.
const HEADER: usize = 40;
const MAGIC: u32 = 0xd00d_feed;
/// The version of the format that this is.
const VERSION: u32 = 17;

/// A tree that is well formed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blob<'a> {
    structure: &'a [u8],
    strings: &'a [u8],
    reservations: &'a [u8],
}

/// What is wrong with a device tree first, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// What there is.
    pub what: &'static str,
    /// The byte at which it is, from the start of the header, or of the structure block for what is in that.
    pub at: usize,
}

impl<'a> Blob<'a> {
    /// Checks `blob`, which must be exactly one tree.
    ///
    /// # Errors
    /// What is wrong with it first.
    pub(super) fn new(blob: &'a [u8]) -> Result<Self, Malformed> {
        let wrong = |at| move |what| Malformed { what, at: 4 * at };
        let word = |at: usize| {
            let word = blob.get(4 * at..).and_then(<[u8]>::first_chunk);
            word.map(|word| u32::from_be_bytes(*word))
                .ok_or_else(|| wrong(at)("a header that is too short"))
        };
        let size = |at: usize| word(at).map(|word| usize::try_from(word).unwrap_or(usize::MAX));
        if word(0)? != MAGIC {
            return Err(wrong(0)("no magic number"));
        }
        if size(1)? != blob.len() || blob.len() < HEADER {
            return Err(wrong(1)("a wrong total size"));
        }
        if !(word(6)?..=word(5)?).contains(&VERSION) {
            return Err(wrong(5)("an unknown version"));
        }
        let (structure, strings, reservations) = (size(2)?, size(3)?, size(4)?);
        let block = |start: usize, end: Option<usize>| blob.get(start..end?);
        let blob = Self {
            structure: block(structure, structure.checked_add(size(9)?))
                .filter(|_| structure.is_multiple_of(4))
                .ok_or_else(|| wrong(2)("a structure block out of place"))?,
            strings: block(strings, strings.checked_add(size(8)?))
                .filter(|strings| strings.last().is_none_or(|&last| last == 0))
                .ok_or_else(|| wrong(3)("a strings block out of place, or without an end"))?,
            reservations: block(reservations, Some(structure))
                .filter(|_| reservations.is_multiple_of(8))
                .ok_or_else(|| wrong(4)("memory reservations out of place"))?,
        };
        let (entries, _) = blob.reservations.as_chunks::<16>();
        if !entries.contains(&[0; 16]) {
            return Err(wrong(4)("memory reservations without an end"));
        }
        blob.check()?;
        Ok(blob)
    }

    /// Checks the structure block: one root, everything within it, properties before nodes.
    fn check(&self) -> Result<(), Malformed> {
        let mut rest = self.structure;
        let mut depth = 0_usize;
        let (mut properties_may_follow, mut is_over) = (false, false);
        loop {
            let at = self.structure.len() - rest.len();
            let wrong = |what| Err(Malformed { what, at });
            let Some(token) = Token::take(&mut rest) else {
                return wrong("a part that is cut off or unknown");
            };
            match token {
                Token::Begin(_) if is_over => return wrong("a second root"),
                Token::Begin(name) => {
                    let is_root = depth == 0;
                    if is_root != name.is_empty() || !name.iter().copied().all(is_in_names) {
                        return wrong("a node with a wrong name");
                    }
                    depth += 1;
                    properties_may_follow = true;
                }
                Token::Property { name, .. } => {
                    if !properties_may_follow {
                        return wrong("a property that is not at the start of a node");
                    }
                    if self.strings.get(name..).is_none_or(<[u8]>::is_empty) {
                        return wrong("a property without a name");
                    }
                }
                Token::End if depth == 0 => return wrong("an end of no node"),
                Token::End => {
                    depth -= 1;
                    is_over = depth == 0;
                    properties_may_follow = false;
                }
                Token::Nothing => {}
                Token::Stop if is_over => return Ok(()),
                Token::Stop => return wrong("an end before that of the root"),
            }
        }
    }

    /// The root and all below it, parents before children, each with its depth: the root's is 0.
    pub(super) fn nodes(&self) -> Nodes<'a> {
        Nodes {
            rest: self.structure,
            strings: self.strings,
            depth: 0,
            compatible: None,
        }
    }

    /// The memory that is reserved apart from the nodes: addresses and lengths.
    pub(super) fn reservations(&self) -> impl Iterator<Item = (u64, u64)> + use<'a> {
        let (entries, _) = self.reservations.as_chunks::<16>();
        entries.iter().map_while(|entry| {
            let (address, length) = entry.split_first_chunk()?;
            let length = length.first_chunk()?;
            let entry = (u64::from_be_bytes(*address), u64::from_be_bytes(*length));
            (entry != (0, 0)).then_some(entry)
        })
    }
}

/// Characters of a node's name (Devicetree Specification §2.2.1).
fn is_in_names(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b",._+-@".contains(&byte)
}

/// A node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'a> {
    name: &'a [u8],
    /// Its properties, and what follows them.
    properties: &'a [u8],
    strings: &'a [u8],
    compatible: &'a [u8],
}

impl<'a> Node<'a> {
    /// Its name, with the unit address.
    pub(super) fn name(&self) -> &'a str {
        str::from_utf8(self.name).unwrap_or_default()
    }

    /// Whether that is its name.
    pub(super) fn is_named(&self, name: &str) -> bool {
        self.name == name.as_bytes()
    }

    /// The value of its property `compatible`, of the first if there are several; empty without one.
    pub(super) fn compatible(&self) -> &'a [u8] {
        self.compatible
    }

    /// The value of this property, if it is among the first `limit`.
    pub(super) fn property(&self, wanted: &str, limit: usize) -> Option<&'a [u8]> {
        let mut rest = self.properties;
        let mut left = limit;
        while left > 0 {
            match Token::take(&mut rest)? {
                Token::Property { name, value } => {
                    if is_at(self.strings, name, wanted) {
                        return Some(value);
                    }
                    left -= 1;
                }
                Token::Nothing => {}
                Token::Begin(_) | Token::End | Token::Stop => break,
            }
        }
        None
    }
}

/// Whether the string at this place of the strings block is this one.
#[inline]
fn is_at(strings: &[u8], place: usize, wanted: &str) -> bool {
    let Some(string) = strings.get(place..) else {
        return false;
    };
    // Most differ in the first byte, which is faster to see than to call what compares.
    string.first() == wanted.as_bytes().first()
        && string.get(wanted.len()) == Some(&0)
        && string.starts_with(wanted.as_bytes())
}

/// A walk over nodes.
#[derive(Clone, Debug)]
pub(super) struct Nodes<'a> {
    rest: &'a [u8],
    strings: &'a [u8],
    depth: usize,
    /// Where the name `compatible` was found last: all nodes share it.
    compatible: Option<usize>,
}

impl<'a> Iterator for Nodes<'a> {
    type Item = (usize, Node<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match Token::take(&mut self.rest)? {
                Token::Begin(name) => {
                    let node = Node {
                        name,
                        properties: self.rest,
                        strings: self.strings,
                        compatible: self.pass_properties(),
                    };
                    let depth = self.depth;
                    self.depth += 1;
                    return Some((depth, node));
                }
                Token::End => self.depth = self.depth.checked_sub(1)?,
                Token::Property { .. } | Token::Nothing => {}
                Token::Stop => return None,
            }
        }
    }
}

impl<'a> Nodes<'a> {
    /// Leaves the properties of a node behind, and returns `compatible`, by which most walks go, on the way.
    #[inline]
    fn pass_properties(&mut self) -> &'a [u8] {
        let mut compatible = None;
        loop {
            let mut rest = self.rest;
            match Token::take(&mut rest) {
                Some(Token::Property { name, value }) => {
                    let is_known = self.compatible == Some(name);
                    if compatible.is_none() && (is_known || is_at(self.strings, name, "compatible"))
                    {
                        self.compatible = Some(name);
                        compatible = Some(value);
                    }
                }
                Some(Token::Nothing) => {}
                _ => return compatible.unwrap_or_default(),
            }
            self.rest = rest;
        }
    }
}

/// An element of the structure block (§5.4.1).
enum Token<'a> {
    Begin(&'a [u8]),
    End,
    /// The name is a place in the strings block.
    Property {
        name: usize,
        value: &'a [u8],
    },
    Nothing,
    Stop,
}

impl<'a> Token<'a> {
    /// Takes the next one; `None` where there is none that is whole.
    #[inline]
    fn take(rest: &mut &'a [u8]) -> Option<Self> {
        match word(rest)? {
            1 => {
                let length = rest.iter().position(|&byte| byte == 0)?;
                let name = rest.get(..length)?;
                *rest = rest.get((length + 1).next_multiple_of(4)..)?;
                Some(Self::Begin(name))
            }
            2 => Some(Self::End),
            3 => {
                let (length, name) = (word(rest)?, word(rest)?);
                let length = usize::try_from(length).ok()?;
                let value = rest.get(..length)?;
                *rest = rest.get(length.checked_next_multiple_of(4)?..)?;
                let name = usize::try_from(name).ok()?;
                Some(Self::Property { name, value })
            }
            4 => Some(Self::Nothing),
            9 => Some(Self::Stop),
            _ => None,
        }
    }
}

#[inline]
fn word(rest: &mut &[u8]) -> Option<u32> {
    let (word, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u32::from_be_bytes(*word))
}

impl fmt::Display for Malformed {
    /// `a wrong total size, at byte 4`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, at byte {}", self.what, self.at)
    }
}

impl core::error::Error for Malformed {}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::borrow::ToOwned;
    use std::format;
    use std::string::{String, ToString};
    use std::vec::Vec;

    use super::*;
    use dtoolkit::fdt::{Fdt, FdtNode};
    use dtoolkit::{Node as _, Property as _};

    /// A node by another reader: depth, name, properties.
    type Told = (usize, String, Vec<(String, Vec<u8>)>);

    fn tell(depth: usize, node: FdtNode<'_>, all: &mut Vec<Told>) {
        let properties = node.properties();
        let properties =
            properties.map(|property| (property.name().to_owned(), property.value().to_vec()));
        all.push((depth, node.name().to_owned(), properties.collect()));
        for child in node.children() {
            tell(depth + 1, child, all);
        }
    }

    /// Compares what both readers make of it, if both take it. Returns whether they do.
    fn is_the_same(blob: &[u8]) -> bool {
        let (Ok(ours), Ok(theirs)) = (Blob::new(blob), Fdt::new(blob)) else {
            return false;
        };
        let mut told = Vec::new();
        tell(0, theirs.root(), &mut told);
        let mut nodes = ours.nodes();
        for (depth, name, properties) in &told {
            let (its_depth, node) = nodes.next().expect("as many");
            assert_eq!((its_depth, node.name()), (*depth, name.as_str()));
            assert!(node.is_named(name));
            for (name, _) in properties {
                // The first of that name counts.
                let first = properties.iter().find(|(other, _)| other == name);
                let value = first.map(|(_, value)| value.as_slice());
                assert_eq!(node.property(name, usize::MAX), value, "{name}");
            }
            assert_eq!(node.property("none", usize::MAX), None);
            let compatible = node.property("compatible", usize::MAX);
            assert_eq!(node.compatible(), compatible.unwrap_or_default());
        }
        assert!(nodes.next().is_none());
        let theirs = theirs.memory_reservations();
        assert!(
            ours.reservations()
                .eq(theirs.map(|range| (range.address(), range.size())))
        );
        true
    }

    fn fixtures() -> [Vec<u8>; 2] {
        ["qemu-virt-gicv2", "qemu-virt-gicv3-el2"].map(|name| {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/dt");
            std::fs::read(format!("{folder}/{name}.dtb")).expect(name)
        })
    }

    #[test]
    fn another_reader_sees_the_same() {
        for blob in fixtures() {
            assert!(is_the_same(&blob));
        }
    }

    #[test]
    fn changed_trees_are_the_same_or_refused() {
        let [blob, _] = fixtures();
        let mut same = 0;
        for at in (0..blob.len()).step_by(7) {
            for change in [0x01, 0x80, 0xff] {
                let mut blob = blob.clone();
                blob[at] ^= change;
                same += usize::from(is_the_same(&blob));
            }
        }
        assert!(same > 1000, "{same}");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let [blob, _] = fixtures();
        let changed = |at: usize, byte: u8| {
            let mut blob = blob.clone();
            blob[at] = byte;
            Blob::new(&blob).expect_err("refused").to_string()
        };
        assert_eq!(changed(0, 0), "no magic number, at byte 0");
        assert_eq!(changed(7, 1), "a wrong total size, at byte 4");
        assert_eq!(changed(23, 16), "an unknown version, at byte 20");
        assert_eq!(changed(11, 1), "a structure block out of place, at byte 8");
        assert_eq!(
            changed(19, 1),
            "memory reservations out of place, at byte 16"
        );
        let structure = usize::from(blob[10]) << 8 | usize::from(blob[11]);
        let start = "a part that is cut off or unknown, at byte 0";
        assert_eq!(changed(structure + 3, 7), start);
        let name = "a node with a wrong name, at byte 0";
        assert_eq!(changed(structure + 4, b'x'), name);
        let property = "a property that is not at the start of a node, at byte 0";
        let nothing = changed(structure + 3, 3);
        assert!([property, start].contains(&nothing.as_str()), "{nothing}");
        assert_eq!(changed(structure + 3, 2), "an end of no node, at byte 0");
        let early = "an end before that of the root, at byte 0";
        assert_eq!(changed(structure + 3, 9), early);
    }
}
