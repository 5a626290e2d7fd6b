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
//! | Backspace, DEL | removes the last character |
//! | `^U` | removes the whole line |
//! | `^C` | gives the line up and starts a new one |
//! | Tab | is a space |
//! | arrow and function keys (escape sequences) | nothing |

use core::fmt;

/// The line being typed.
#[derive(Debug)]
pub struct LineEditor {
    buffer: [u8; Self::MAX],
    len: usize,
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
            self.len = 0;
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
                self.state = sequence.next(byte).map_or(State::Text, State::Escape);
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
                Event::Line(self.stored())
            }
            BACKSPACE | DELETE => {
                if self.len > 0 {
                    self.len -= 1;
                    let _ = echo.write_str(RUB_OUT);
                }
                Event::None
            }
            CONTROL_U => {
                for _ in 0..core::mem::take(&mut self.len) {
                    let _ = echo.write_str(RUB_OUT);
                }
                Event::None
            }
            CONTROL_C => {
                self.len = 0;
                let _ = echo.write_str("^C\n");
                Event::Cancelled
            }
            ESCAPE => {
                self.state = State::Escape(Sequence::Start);
                Event::None
            }
            b'\t' => self.append(b' ', echo),
            b' '..=b'~' => self.append(byte, echo),
            _ => self.reject(Rejection::NotText(byte), echo),
        }
    }

    fn append(&mut self, byte: u8, echo: &mut dyn fmt::Write) -> Event<'_> {
        let Some(free) = self.buffer.get_mut(self.len) else {
            return self.reject(Rejection::TooLong, echo);
        };
        *free = byte;
        self.len += 1;
        let _ = echo.write_char(char::from(byte));
        Event::None
    }

    fn reject(&mut self, why: Rejection, echo: &mut dyn fmt::Write) -> Event<'_> {
        self.len = 0;
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
    /// ESC [ and so many parameter bytes.
    Control(u8),
}

impl Sequence {
    /// The state after one more byte; `None` when the sequence is complete.
    fn next(self, byte: u8) -> Option<Self> {
        /// No key sends more parameter bytes than this: a "sequence" that goes on is noise.
        const LONGEST: u8 = 16;
        match (self, byte) {
            (Self::Start, b'[') => Some(Self::Control(0)),
            (Self::Start, b'O') => Some(Self::Single),
            (Self::Control(seen), b' '..=b'?') if seen < LONGEST => Some(Self::Control(seen + 1)),
            _ => None,
        }
    }
}

fn is_line_end(byte: u8) -> bool {
    byte == b'\r' || byte == b'\n'
}

const CONTROL_C: u8 = 0x03;
const BACKSPACE: u8 = 0x08;
const CONTROL_U: u8 = 0x15;
const ESCAPE: u8 = 0x1b;
const DELETE: u8 = 0x7f;
/// Steps back, overwrites the character and steps back again.
const RUB_OUT: &str = "\x08 \x08";

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
        assert_eq!(feed(&mut editor, b"\x1b[Ac\x15").1, "c\x08 \x08\x08 \x08");
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
