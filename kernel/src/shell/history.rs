//! The last lines, in a fixed place.

use super::line::LineEditor;

/// How many are kept.
const LINES: usize = 8;

/// A line of printable ASCII.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    bytes: [u8; LineEditor::MAX],
    length: usize,
}

impl Kept {
    const EMPTY: Self = Self {
        bytes: [0; LineEditor::MAX],
        length: 0,
    };

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn set(&mut self, line: &[u8]) {
        if let Some(place) = self.bytes.get_mut(..line.len()) {
            place.copy_from_slice(line);
            self.length = line.len();
        }
    }
}

/// The last lines, and which of them is shown.
#[derive(Debug)]
pub(super) struct History {
    lines: [Kept; LINES],
    /// Where the next one goes.
    next: usize,
    /// How many there are.
    count: usize,
    /// How many lines back the one is that is shown; 0 is the one being typed.
    back: usize,
    /// That, while another is shown.
    draft: Kept,
}

impl History {
    pub(super) const fn new() -> Self {
        Self {
            lines: [Kept::EMPTY; LINES],
            next: 0,
            count: 0,
            back: 0,
            draft: Kept::EMPTY,
        }
    }

    /// Keeps a line, unless it is empty or the same as the last one, and is back at the line being typed.
    pub(super) fn keep(&mut self, line: &[u8]) {
        self.back = 0;
        let last = self.at(1).map(Kept::bytes);
        if line.is_empty() || last == Some(line) {
            return;
        }
        if let Some(place) = self.lines.get_mut(self.next) {
            place.set(line);
        }
        self.next = (self.next + 1) % LINES;
        self.count = (self.count + 1).min(LINES);
    }

    /// Is back at the line being typed.
    pub(super) const fn leave(&mut self) {
        self.back = 0;
    }

    /// The line before the one that is shown, which is `shown`.
    pub(super) fn older(&mut self, shown: &[u8]) -> Option<&Kept> {
        if self.back >= self.count {
            return None;
        }
        if self.back == 0 {
            self.draft.set(shown);
        }
        self.back += 1;
        self.at(self.back)
    }

    /// The line after it.
    pub(super) fn newer(&mut self) -> Option<&Kept> {
        self.back = self.back.checked_sub(1)?;
        match self.back {
            0 => Some(&self.draft),
            back => self.at(back),
        }
    }

    /// So many lines back, at least one.
    fn at(&self, back: usize) -> Option<&Kept> {
        let is_kept = (1..=self.count).contains(&back);
        self.lines
            .get((self.next + LINES - back.min(LINES)) % LINES)
            .filter(|_| is_kept)
    }
}
