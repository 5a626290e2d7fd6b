//! A few words of text in a fixed place, for what boot found out.

use core::fmt::{self, Display, Write};

/// Up to `N` bytes of text; what does not fit is cut.
pub(crate) struct Text<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Text<N> {
    /// What `value` displays as.
    pub(crate) fn of(value: &dyn Display) -> Self {
        let mut text = Self {
            bytes: [0; N],
            length: 0,
        };
        // The only error is lack of room, and then the text is cut.
        let _ = write!(text, "{value}");
        text
    }

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
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
        for character in text.chars() {
            let end = self.length + character.len_utf8();
            let place = self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?;
            character.encode_utf8(place);
            self.length = end;
        }
        Ok(())
    }
}
