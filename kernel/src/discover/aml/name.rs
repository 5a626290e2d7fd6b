//! Names in the namespace and hardware identifiers.

use core::fmt;

/// Segments of a [`Path`]; what is named deeper is skipped with `Unread::Name`.
pub const SEGMENTS: usize = 12;

/// An absolute name in the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Unused ones are zero.
    segments: [[u8; 4]; SEGMENTS],
    length: u8,
}

/// A name as a table spells it, perhaps relative (ACPI 6.5 §20.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameString<'a> {
    /// Starts with `\`.
    pub(super) absolute: bool,
    /// Number of `^`.
    pub(super) up: usize,
    pub(super) segments: &'a [[u8; 4]],
}

/// A hardware identifier: the value of `_HID` and `_CID` (ACPI 6.5 §6.1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Id<'a> {
    /// Compressed: three letters and four hexadecimal digits in 32 bits.
    Eisa(u32),
    /// Spelled out.
    Text(&'a str),
}

impl Id<'_> {
    /// Whether this is the identifier spelled `text`, compressed or not.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        match self {
            Self::Eisa(id) => text.as_bytes() == eisa(*id),
            Self::Text(id) => *id == text,
        }
    }
}

impl fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eisa(id) => eisa(*id)
                .iter()
                .try_for_each(|byte| write!(f, "{}", char::from(*byte))),
            Self::Text(id) => f.write_str(id),
        }
    }
}

/// Spells out a compressed identifier: letters in 5 bits each, digits in 4, big-endian (ACPI 6.5 §19.3.4).
fn eisa(id: u32) -> [u8; 7] {
    let id = id.swap_bytes();
    let letter = |shift: u32| 0x40 + (id >> shift & 0x1f) as u8;
    let digit = |shift: u32| {
        b"0123456789ABCDEF"
            .get((id >> shift & 0xf) as usize)
            .copied()
            .unwrap_or(b'?')
    };
    [
        letter(26),
        letter(21),
        letter(16),
        digit(12),
        digit(8),
        digit(4),
        digit(0),
    ]
}

impl Path {
    /// The root, `\`.
    pub const ROOT: Self = Self {
        segments: [[0; 4]; SEGMENTS],
        length: 0,
    };

    /// The path below this one with one more segment, or `None` beyond [`SEGMENTS`].
    #[must_use]
    pub fn child(&self, segment: [u8; 4]) -> Option<Self> {
        let mut path = *self;
        path.enter(segment)?;
        Some(path)
    }

    /// Makes it the path below itself.
    #[inline]
    fn enter(&mut self, segment: [u8; 4]) -> Option<()> {
        *self.segments.get_mut(usize::from(self.length))? = segment;
        self.length += 1;
        Some(())
    }

    /// The path without its last segment; the root has no parent.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let mut path = *self;
        path.length = self.length.checked_sub(1)?;
        *path.segments.get_mut(usize::from(path.length))? = [0; 4];
        Some(path)
    }

    /// The segments from the root down, each of four characters padded with `_`.
    #[must_use]
    pub fn segments(&self) -> &[[u8; 4]] {
        self.segments.get(..self.len()).unwrap_or_default()
    }

    /// The last segment; the root has none.
    #[must_use]
    pub fn last(&self) -> Option<&[u8; 4]> {
        self.segments().last()
    }

    /// Whether `other` is this path or one of its ancestors.
    #[must_use]
    pub fn starts_with(&self, other: &Self) -> bool {
        self.segments().starts_with(other.segments())
    }

    /// Whether this is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.length == 0
    }

    /// Whether this is a scope that exists without being declared: the root and those of ACPI 6.5 §5.3.1.
    #[must_use]
    pub fn is_predefined(&self) -> bool {
        match self.segments() {
            [] => true,
            [segment] => predefined(*segment).is_some(),
            _ => false,
        }
    }

    /// Number of segments.
    pub(super) fn len(&self) -> usize {
        usize::from(self.length)
    }
}

impl fmt::Display for Path {
    /// As ASL writes it: `\_SB.VCLK`, without the padding of short segments.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\\")?;
        for (index, segment) in self.segments().iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            let padding = segment
                .iter()
                .rev()
                .take_while(|byte| **byte == b'_')
                .count();
            let shown = segment.len() - padding;
            // A segment of padding alone still has its first character.
            segment
                .iter()
                .take(shown.max(1))
                .try_for_each(|byte| write!(f, "{}", char::from(*byte)))?;
        }
        Ok(())
    }
}

impl NameString<'_> {
    /// The only segment of a name without prefix: the form that the search rules apply to.
    pub(super) fn lone_segment(&self) -> Option<[u8; 4]> {
        match self.segments {
            [segment] if !self.absolute && self.up == 0 => Some(*segment),
            _ => None,
        }
    }

    /// Whether its last segment is one of `segments`, if only those matter. A name without segments is its scope's.
    pub(super) fn is_wanted(&self, segments: Option<&[[u8; 4]]>) -> bool {
        match (segments, self.segments) {
            (Some(segments), [.., last]) => segments.contains(last),
            _ => true,
        }
    }

    /// The absolute name when spelled in `scope`; `None` above the root or beyond [`SEGMENTS`].
    pub(super) fn resolve(&self, scope: &Path) -> Option<Path> {
        let mut path = if self.absolute { Path::ROOT } else { *scope };
        for _ in 0..self.up {
            path = path.parent()?;
        }
        // In place: a path is long, and this is asked for every scope of every walk.
        for segment in self.segments {
            path.enter(*segment)?;
        }
        Some(path)
    }
}

/// The scopes that exist without being declared (ACPI 6.5 §5.3.1), as absolute paths.
pub(super) fn predefined(segment: [u8; 4]) -> Option<Path> {
    [*b"_SB_", *b"_GPE", *b"_PR_", *b"_SI_", *b"_TZ_"]
        .contains(&segment)
        .then(|| Path::ROOT.child(segment))?
}

/// Whether these four bytes are a name segment (ACPI 6.5 §20.2.2).
pub(super) fn is_segment(segment: [u8; 4]) -> bool {
    let [lead, rest @ ..] = segment;
    let is = |byte: u8, class| KINDS[usize::from(byte)] & class != 0;
    is(lead, LEAD) && rest.into_iter().all(|byte| is(byte, LEAD | DIGIT))
}

/// What a byte may be in a segment: this is asked for every name of every walk.
const LEAD: u8 = 1;
const DIGIT: u8 = 2;
static KINDS: [u8; 256] = {
    let mut kinds = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let kind = match byte as u8 {
            b'A'..=b'Z' | b'_' => LEAD,
            b'0'..=b'9' => DIGIT,
            _ => 0,
        };
        kinds[byte] = kind;
        byte += 1;
    }
    kinds
};
