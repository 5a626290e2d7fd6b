//! One line of console input, edited and echoed byte by byte, in a fixed buffer.
//!
//! Commands are printable ASCII, so that is all a line may hold. Anything else (control bytes,
//! bytes above 0x7e) and any line longer than [`LineEditor::MAX`] spoils the line it is in:
//! that is reported once, at the byte that spoils it, and the rest of the line is swallowed in
//! silence up to its end. So a megabyte of noise costs one line of answer per line of noise, and the
//! first Enter brings the prompt back.
//!
//! | Input | Does |
//! |---|---|
//! | CR, LF, CR LF | ends the line |
//! | left, right, Home or `^A`, End or `^E` | move the cursor |
//! | Backspace, DEL; Delete | remove the character before, after the cursor |
//! | `^W`; `^U`; `^K` | remove the word before, all before, all after the cursor |
//! | up or `^P`, down or `^N` | show the line before, after, of the last eight |
//! | `^C` | gives the line up and starts a new one |
//! | Tab | is a space |
//! | other escape sequences | nothing |
//!
//! The echo is for any terminal: printable characters, backspaces and line ends only.

use core::fmt;

use super::history::{History, Kept};

/// The line being typed.
#[derive(Debug)]
pub struct LineEditor {
    buffer: [u8; Self::MAX],
    len: usize,
    /// Where the next character goes, at most `len`.
    cursor: usize,
    history: History,
    state: State,
    /// The last byte was a CR: an LF right after it belongs to the same line end.
    after_cr: bool,
}

/// What a byte of input led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Nothing that the caller must act on.
    None,
    /// The line is complete: printable ASCII, possibly empty. The next byte starts a new one.
    Line(&'a str),
    /// The line was given up with `^C`: show a new prompt.
    Cancelled,
    /// The line is spoilt. Say so once; nothing more comes of it until [`Event::Discarded`].
    Rejected(Rejection),
    /// The end of a spoilt line: show a new prompt.
    Discarded,
}

/// Why a line was refused. `Display` is one clear line (without the line end).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// More than [`LineEditor::MAX`] characters.
    TooLong,
    /// A byte that is not printable ASCII and not an editing key.
    NotText(
        /// That byte.
        u8,
    ),
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "line longer than {} characters", LineEditor::MAX)?,
            Self::NotText(byte) => write!(f, "byte 0x{byte:02x} is not text")?,
        }
        f.write_str(", ignored up to the next Enter")
    }
}

impl LineEditor {
    /// The longest line, in characters.
    pub const MAX: usize = 128;

    /// An empty line.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            buffer: [0; Self::MAX],
            len: 0,
            cursor: 0,
            history: History::new(),
            state: State::Text,
            after_cr: false,
        }
    }

    /// What has been typed so far of a line that is not complete.
    #[must_use]
    pub fn text(&self) -> &str {
        if self.state == State::Ended {
            ""
        } else {
            self.stored()
        }
    }

    /// Shows what has been typed so far, with the cursor in its place.
    ///
    /// # Errors
    /// What `echo` returns.
    pub fn show(&self, echo: &mut dyn fmt::Write) -> fmt::Result {
        let text = self.text();
        echo.write_str(text)?;
        (self.cursor..text.len()).try_for_each(|_| echo.write_char(BACK))
    }

    fn stored(&self) -> &str {
        // Only printable ASCII is ever stored, so neither default is reached.
        self.buffer
            .get(..self.len)
            .and_then(|text| core::str::from_utf8(text).ok())
            .unwrap_or("")
    }

    /// Takes one byte and echoes what it does to the screen, with `\n` for a line end (see
    /// [`Console`](crate::console::Console)).
    ///
    /// What `echo` refuses is not shown; the byte counts all the same.
    pub fn push(&mut self, byte: u8, echo: &mut dyn fmt::Write) -> Event<'_> {
        let second_half_of_line_end = self.after_cr && byte == b'\n';
        self.after_cr = byte == b'\r';
        if second_half_of_line_end {
            return Event::None;
        }
        if self.state == State::Ended {
            (self.len, self.cursor) = (0, 0);
            self.state = State::Text;
        }
        match self.state {
            State::Discarding => {
                if is_line_end(byte) {
                    self.state = State::Ended;
                    return Event::Discarded;
                }
                Event::None
            }
            // A control byte ends any escape sequence and has its usual meaning.
            State::Escape(sequence) if !byte.is_ascii_control() => {
                match sequence.next(byte) {
                    Ok(sequence) => self.state = State::Escape(sequence),
                    Err(key) => {
                        self.state = State::Text;
                        self.press(key, echo);
                    }
                }
                Event::None
            }
            State::Escape(_) | State::Text | State::Ended => self.edit(byte, echo),
        }
    }

    fn edit(&mut self, byte: u8, echo: &mut dyn fmt::Write) -> Event<'_> {
        self.state = State::Text;
        match byte {
            b'\r' | b'\n' => {
                self.state = State::Ended;
                let _ = echo.write_char('\n');
                self.history
                    .keep(self.buffer.get(..self.len).unwrap_or_default());
                Event::Line(self.stored())
            }
            CONTROL_C => {
                (self.len, self.cursor) = (0, 0);
                self.history.leave();
                let _ = echo.write_str("^C\n");
                Event::Cancelled
            }
            ESCAPE => {
                self.state = State::Escape(Sequence::Start);
                Event::None
            }
            b'\t' => self.insert(b' ', echo),
            b' '..=b'~' => self.insert(byte, echo),
            _ => match Key::of_control(byte) {
                Key::None => self.reject(Rejection::NotText(byte), echo),
                key => {
                    self.press(key, echo);
                    Event::None
                }
            },
        }
    }

    fn insert(&mut self, byte: u8, echo: &mut dyn fmt::Write) -> Event<'_> {
        let at = self.cursor;
        let Some(moved) = self.buffer.get_mut(at..=self.len) else {
            return self.reject(Rejection::TooLong, echo);
        };
        moved.rotate_right(1);
        if let Some(first) = moved.first_mut() {
            *first = byte;
        }
        self.len += 1;
        self.cursor += 1;
        self.redraw(at, (at, self.len - 1), echo);
        Event::None
    }

    /// Does what a key is for.
    fn press(&mut self, key: Key, echo: &mut dyn fmt::Write) {
        let (at, len) = (self.cursor, self.len);
        match key {
            Key::None => {}
            Key::Left => self.move_to(at.saturating_sub(1), echo),
            Key::Right => self.move_to(len.min(at + 1), echo),
            Key::Home => self.move_to(0, echo),
            Key::End => self.move_to(len, echo),
            Key::Backspace => self.remove(at.saturating_sub(1), at, echo),
            Key::Delete => self.remove(at, len.min(at + 1), echo),
            Key::Word => self.remove(self.word(), at, echo),
            Key::Before => self.remove(0, at, echo),
            Key::After => self.remove(at, len, echo),
            Key::Up => {
                let shown = self.buffer.get(..len).unwrap_or_default();
                let kept = self.history.older(shown).copied();
                self.replace(kept, echo);
            }
            Key::Down => {
                let kept = self.history.newer().copied();
                self.replace(kept, echo);
            }
        }
    }

    /// Where the word before the cursor starts.
    fn word(&self) -> usize {
        let before = self.buffer.get(..self.cursor).unwrap_or_default();
        let is_blank = |byte: &u8| *byte == b' ';
        let end = before.iter().rposition(|byte| !is_blank(byte));
        let word = before.get(..end.unwrap_or(0)).unwrap_or_default();
        word.iter().rposition(is_blank).map_or(0, |blank| blank + 1)
    }

    fn move_to(&mut self, cursor: usize, echo: &mut dyn fmt::Write) {
        let old = core::mem::replace(&mut self.cursor, cursor);
        times(old.saturating_sub(cursor), BACK, echo);
        // What is there is written again on the way forward.
        self.write(old, cursor, echo);
    }

    /// Removes a range that starts or ends at the cursor.
    fn remove(&mut self, start: usize, end: usize, echo: &mut dyn fmt::Write) {
        if start >= end || end > self.len {
            return;
        }
        let shown = (self.cursor, self.len);
        self.buffer.copy_within(end..self.len, start);
        self.len -= end - start;
        self.cursor = start;
        self.redraw(start, shown, echo);
    }

    fn replace(&mut self, line: Option<Kept>, echo: &mut dyn fmt::Write) {
        let shown = (self.cursor, self.len);
        let line = line.as_ref().map(Kept::bytes);
        let place = line.and_then(|line| Some((line, self.buffer.get_mut(..line.len())?)));
        if let Some((line, place)) = place {
            place.copy_from_slice(line);
            (self.len, self.cursor) = (line.len(), line.len());
            self.redraw(0, shown, echo);
        }
    }

    /// Shows the line as it is from `from` on, where another is `shown`: its cursor, not before `from`, and its length.
    fn redraw(&self, from: usize, shown: (usize, usize), echo: &mut dyn fmt::Write) {
        let (cursor, len) = shown;
        let gone = len.saturating_sub(self.len);
        times(cursor - from, BACK, echo);
        self.write(from, self.len, echo);
        times(gone, ' ', echo);
        times(self.len + gone - self.cursor, BACK, echo);
    }

    fn write(&self, from: usize, to: usize, echo: &mut dyn fmt::Write) {
        for &byte in self.buffer.get(from..to).unwrap_or_default() {
            // Here and below: what is not shown is lost, and the line is as it is.
            let _ = echo.write_char(char::from(byte));
        }
    }

    fn reject(&mut self, why: Rejection, echo: &mut dyn fmt::Write) -> Event<'_> {
        (self.len, self.cursor) = (0, 0);
        self.history.leave();
        self.state = State::Discarding;
        // The answer starts on a line of its own, after what has been echoed.
        let _ = echo.write_char('\n');
        Event::Rejected(why)
    }
}

impl Default for LineEditor {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Text,
    /// Inside an escape sequence.
    Escape(Sequence),
    /// The line has been reported and stays readable until the next byte.
    Ended,
    /// The line is spoilt; everything up to its end is swallowed.
    Discarding,
}

/// How far an escape sequence (ECMA-48 §5) has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sequence {
    /// ESC.
    Start,
    /// ESC O: one more byte (function keys in application mode).
    Single,
    /// ESC [ and so many parameter bytes; the first is this one, if it is the only one.
    Control(u8, u8),
}

/// What is not a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    None,
    Left,
    Right,
    Home,
    End,
    Up,
    Down,
    Backspace,
    Delete,
    /// Removes the word before the cursor.
    Word,
    /// Removes everything before it.
    Before,
    /// Removes everything after it.
    After,
}

impl Key {
    const fn of_control(byte: u8) -> Self {
        match byte {
            0x01 => Self::Home,
            0x05 => Self::End,
            0x08 | 0x7f => Self::Backspace,
            0x0b => Self::After,
            0x0e => Self::Down,
            0x10 => Self::Up,
            0x15 => Self::Before,
            0x17 => Self::Word,
            _ => Self::None,
        }
    }

    /// By the last byte of a sequence, and its parameter if that is one byte.
    const fn of_sequence(last: u8, parameter: u8) -> Self {
        match (last, parameter) {
            (b'A', _) => Self::Up,
            (b'B', _) => Self::Down,
            (b'C', _) => Self::Right,
            (b'D', _) => Self::Left,
            (b'H', _) | (b'~', b'1' | b'7') => Self::Home,
            (b'F', _) | (b'~', b'4' | b'8') => Self::End,
            (b'~', b'3') => Self::Delete,
            _ => Self::None,
        }
    }
}

impl Sequence {
    /// The state after one more byte, or the key when the sequence is complete.
    const fn next(self, byte: u8) -> Result<Self, Key> {
        /// No key sends more parameter bytes than this: a "sequence" that goes on is noise.
        const LONGEST: u8 = 16;
        match (self, byte) {
            (Self::Start, b'[') => Ok(Self::Control(0, 0)),
            (Self::Start, b'O') => Ok(Self::Single),
            (Self::Control(0, _), b' '..=b'?') => Ok(Self::Control(1, byte)),
            (Self::Control(seen, _), b' '..=b'?') if seen < LONGEST => {
                Ok(Self::Control(seen + 1, 0))
            }
            (Self::Control(_, parameter), b'@'..) => Err(Key::of_sequence(byte, parameter)),
            (Self::Single, _) => Err(Key::of_sequence(byte, 0)),
            _ => Err(Key::None),
        }
    }
}

fn is_line_end(byte: u8) -> bool {
    byte == b'\r' || byte == b'\n'
}

fn times(count: usize, character: char, echo: &mut dyn fmt::Write) {
    for _ in 0..count {
        let _ = echo.write_char(character);
    }
}

const CONTROL_C: u8 = 0x03;
const ESCAPE: u8 = 0x1b;
/// Moves the cursor to the left.
const BACK: char = '\x08';

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::{String, ToString};
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// Everything that came of the input, as text, and the echo.
    fn feed(editor: &mut LineEditor, input: &[u8]) -> (Vec<String>, String) {
        let mut events = Vec::new();
        let mut echo = String::new();
        for byte in input {
            match editor.push(*byte, &mut echo) {
                Event::None => {}
                Event::Line(line) => events.push(std::format!("line {line:?}")),
                Event::Cancelled => events.push("cancelled".into()),
                Event::Rejected(why) => events.push(why.to_string()),
                Event::Discarded => events.push("discarded".into()),
            }
        }
        (events, echo)
    }

    fn events(input: &[u8]) -> Vec<String> {
        feed(&mut LineEditor::new(), input).0
    }

    #[test]
    fn every_line_end_ends_one_line() {
        assert_eq!(
            events(b"time\rnet\nhelp\r\npage\r\r\n\n"),
            [
                "line \"time\"",
                "line \"net\"",
                "line \"help\"",
                "line \"page\"",
                "line \"\"",
                "line \"\"",
            ]
        );
        assert_eq!(events(b"\n\rx\r"), ["line \"\"", "line \"\"", "line \"x\""]);
    }

    #[test]
    fn editing_keys() {
        for (input, line) in [
            (&b"tine\x08\x08me\r"[..], "time"),
            (b"tine\x7f\x7fme\r", "time"),
            (b"\x08\x7f\x08a\x08\x08\x08b\r", "b"),
            (b"reboot\x15time\r", "time"),
            (b"\x15\r", ""),
            (b"a\tb\r", "a b"),
            (b"ti\x1b[Ame\x1b[1;5C\x1bOP\x1bx\x1b[15~\r", "time"),
            (b"tme\x1b[D\x1bODi\r", "time"),
            (b"imex\x01t\x05\x08\r", "time"),
            (b"xtime\x1b[H\x1b[3~\x1b[4~\x1b[3~\r", "time"),
            (b"a  b  \x17time\x1b[1~\x0b\x0btime\r", "time"),
            (b"x time\x1b[D\x1b[D\x1b[D\x1b[D\x15\r", "time"),
            (b"x y\x17\x17\x17time\r", "time"),
            (b"time\x1b\r", "time"),
            (b"timex\x1b[\x08\r", "time"),
            (b"\x1b\x1b[Atime\r", "time"),
        ] {
            assert_eq!(
                events(input),
                [std::format!("line {line:?}")],
                "{}",
                input.escape_ascii()
            );
        }
        assert_eq!(events(b"reboot\x03time\r"), ["cancelled", "line \"time\""]);
    }

    #[test]
    fn the_screen_follows() {
        let mut editor = LineEditor::new();
        assert_eq!(feed(&mut editor, b"ab\x08").1, "ab\x08 \x08");
        assert_eq!(editor.text(), "a");
        assert_eq!(feed(&mut editor, b"\x1b[Ac\x15").1, "c\x08\x08  \x08\x08");
        assert_eq!(feed(&mut editor, b"\x03").1, "^C\n");
        assert_eq!(feed(&mut editor, b"x\r\n").1, "x\n");
        assert_eq!(editor.text(), "", "a complete line is not being typed");
        assert_eq!(
            feed(&mut editor, b"\x08\x15").1,
            "",
            "nothing left to rub out"
        );
    }

    #[test]
    fn the_longest_line_fits_and_one_more_does_not() {
        let line = "x".repeat(LineEditor::MAX);
        assert_eq!(
            events(std::format!("{line}\r").as_bytes()),
            [std::format!("line {line:?}")]
        );
        assert_eq!(
            events(std::format!("{line}y\rtime\r").as_bytes()),
            [
                "line longer than 128 characters, ignored up to the next Enter",
                "discarded",
                "line \"time\"",
            ]
        );
    }

    #[test]
    fn a_megabyte_without_a_line_end_costs_one_answer() {
        let mut editor = LineEditor::new();
        let (events, echo) = feed(&mut editor, &std::vec![b'x'; 1 << 20]);
        assert_eq!(
            events,
            ["line longer than 128 characters, ignored up to the next Enter"]
        );
        assert_eq!(echo, "x".repeat(LineEditor::MAX) + "\n");
        assert_eq!(
            feed(&mut editor, b"\r\ntime\r\n").0,
            ["discarded", "line \"time\""]
        );
    }

    #[test]
    fn bytes_that_are_not_text_cost_one_answer_per_line() {
        for noise in [
            &b"\x00"[..],
            b"\xff\xfe\xfd",
            b"ab\x01cd\x02\x03\x08",
            "h\u{e9}".as_bytes(),
            b"\xc3",
        ] {
            let input = [noise, b"\r\ntime\r\n"].concat();
            let events = events(&input);
            assert_eq!(events.len(), 3, "{}: {events:?}", noise.escape_ascii());
            assert!(events[0].contains("is not text, ignored"), "{events:?}");
            assert_eq!(events[1..], ["discarded", "line \"time\""]);
        }
        assert_eq!(
            Rejection::NotText(7).to_string(),
            "byte 0x07 is not text, ignored up to the next Enter"
        );
    }

    #[test]
    fn an_endless_escape_sequence_is_text_again() {
        let input = [&b"\x1b["[..], &[b'1'; 4096], b"\r"].concat();
        assert_eq!(
            events(&input),
            [
                "line longer than 128 characters, ignored up to the next Enter",
                "discarded",
            ]
        );
    }

    #[test]
    fn a_failing_screen_does_not_lose_the_byte() {
        struct Broken;
        impl fmt::Write for Broken {
            fn write_str(&mut self, _: &str) -> fmt::Result {
                Err(fmt::Error)
            }
        }
        let mut editor = LineEditor::new();
        for byte in *b"time" {
            assert_eq!(editor.push(byte, &mut Broken), Event::None);
        }
        assert_eq!(feed(&mut editor, b"\r").0, ["line \"time\""]);
    }

    proptest! {
        /// Whatever comes in: at most one answer per line, and Enter always leads back to the prompt.
        #[test]
        fn any_noise_ends_at_enter(noise in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut editor = LineEditor::new();
            let (events, echo) = feed(&mut editor, &noise);
            let ends = noise.iter().filter(|byte| is_line_end(**byte)).count();
            let answers = events.iter().filter(|event| event.contains("ignored")).count();
            prop_assert!(answers <= ends + 1);
            prop_assert!(echo.chars().all(|c| c == '\n' || c == '\x08' || (' '..='~').contains(&c)));
            let (last, _) = feed(&mut editor, b"\r\ntime\r");
            prop_assert_eq!(last.last().map(String::as_str), Some("line \"time\""));
        }
    }
}
