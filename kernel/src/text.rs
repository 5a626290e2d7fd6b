//! A few words of text in a fixed place, for what was found out and is told later.

use core::fmt::{self, Display, Write};

/// Up to `N` bytes of text; what does not fit is cut.
#[derive(Clone, Copy)]
pub struct Text<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Text<N> {
    /// No text.
    pub const EMPTY: Self = Self {
        bytes: [0; N],
        length: 0,
    };

    /// What `value` displays as.
    #[must_use]
    pub fn of(value: &dyn Display) -> Self {
        let mut text = Self::EMPTY;
        // The only error is lack of room, and then the text is cut.
        let _ = write!(text, "{value}");
        text
    }

    /// Fills what is left of its room with spaces.
    pub fn pad(&mut self) {
        if let Some(room) = self.bytes.get_mut(self.length..) {
            room.fill(b' ');
            self.length = N;
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..self.length).unwrap_or_default();
        core::str::from_utf8(bytes).unwrap_or("?")
    }
}

impl<const N: usize> Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<const N: usize> Write for Text<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        append(&mut self.bytes, &mut self.length, text)
    }
}

/// Writes behind the first `length` bytes as many characters as there is room for. Once for all lengths.
fn append(bytes: &mut [u8], length: &mut usize, text: &str) -> fmt::Result {
    let room = bytes.get_mut(*length..).unwrap_or_default();
    let (taken, left) = text
        .as_bytes()
        .split_at(text.floor_char_boundary(room.len()));
    if let Some(place) = room.get_mut(..taken.len()) {
        place.copy_from_slice(taken);
    }
    *length += taken.len();
    if left.is_empty() {
        Ok(())
    } else {
        Err(fmt::Error)
    }
}

/// Writes `text` piece by piece: each as it is, up to a character that is `special`, for which
/// `instead` writes something.
///
/// # Errors
/// What `out` returns.
pub(crate) fn replace(
    text: &str,
    out: &mut dyn Write,
    special: fn(char) -> bool,
    instead: fn(char, &mut dyn Write) -> fmt::Result,
) -> fmt::Result {
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(special) {
        let character = rest
            .get(before.len()..)
            .and_then(|from| from.chars().next());
        out.write_str(before)?;
        instead(character.unwrap_or_default(), out)?;
        rest = after;
    }
    out.write_str(rest)
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}
