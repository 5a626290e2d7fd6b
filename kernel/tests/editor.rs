//! The line editor against a model of what people expect, on a model of a terminal.

use gnomon_kernel::shell::line::{Event, LineEditor};
use proptest::prelude::*;

/// A terminal that knows printable characters, backspace and line feed.
#[derive(Default)]
struct Screen {
    line: Vec<char>,
    cursor: usize,
}

impl core::fmt::Write for Screen {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for character in text.chars() {
            match character {
                '\x08' => self.cursor = self.cursor.checked_sub(1).expect("not left of the line"),
                '\n' => *self = Self::default(),
                ' '..='~' => {
                    if self.cursor == self.line.len() {
                        self.line.push(' ');
                    }
                    self.line[self.cursor] = character;
                    self.cursor += 1;
                }
                other => panic!("{other:?} is not for every terminal"),
            }
        }
        Ok(())
    }
}

impl Screen {
    fn text(&self) -> String {
        self.line.iter().collect()
    }
}

/// What is typed.
#[derive(Clone, Debug)]
enum Typed {
    Text(char),
    Key(&'static str),
}

const KEYS: [&str; 21] = [
    "\x1b[D",
    "\x1bOD",
    "\x1b[C",
    "\x1b[1;5C",
    "\x1b[H",
    "\x01",
    "\x1b[1~",
    "\x1b[F",
    "\x05",
    "\x1b[4~",
    "\x08",
    "\x7f",
    "\x1b[3~",
    "\x17",
    "\x15",
    "\x0b",
    "\x1b[A",
    "\x10",
    "\x1b[B",
    "\x0e",
    "\r",
];

/// The same with as little wit as possible.
#[derive(Default)]
struct Model {
    text: Vec<char>,
    cursor: usize,
    lines: Vec<Vec<char>>,
    back: usize,
    draft: Vec<char>,
}

impl Model {
    /// Takes a key; a complete line is returned.
    fn press(&mut self, typed: &Typed) -> Option<String> {
        let key = match typed {
            Typed::Text(character) => {
                self.text.insert(self.cursor, *character);
                self.cursor += 1;
                return None;
            }
            Typed::Key(key) => *key,
        };
        let len = self.text.len();
        match key {
            "\x1b[D" | "\x1bOD" => self.cursor = self.cursor.saturating_sub(1),
            "\x1b[C" | "\x1b[1;5C" => self.cursor = len.min(self.cursor + 1),
            "\x1b[H" | "\x01" | "\x1b[1~" => self.cursor = 0,
            "\x1b[F" | "\x05" | "\x1b[4~" => self.cursor = len,
            "\x08" | "\x7f" if self.cursor > 0 => {
                self.cursor -= 1;
                self.text.remove(self.cursor);
            }
            "\x1b[3~" if self.cursor < len => {
                self.text.remove(self.cursor);
            }
            "\x17" => {
                while self.cursor > 0 && self.text[self.cursor - 1] == ' ' {
                    self.cursor -= 1;
                    self.text.remove(self.cursor);
                }
                while self.cursor > 0 && self.text[self.cursor - 1] != ' ' {
                    self.cursor -= 1;
                    self.text.remove(self.cursor);
                }
            }
            "\x15" => {
                self.text.drain(..self.cursor);
                self.cursor = 0;
            }
            "\x0b" => self.text.truncate(self.cursor),
            "\x1b[A" | "\x10" if self.back < self.lines.len().min(8) => {
                if self.back == 0 {
                    self.draft.clone_from(&self.text);
                }
                self.show(self.back + 1);
            }
            "\x1b[B" | "\x0e" if self.back > 0 => self.show(self.back - 1),
            "\r" => {
                let line = core::mem::take(&mut self.text);
                (self.cursor, self.back) = (0, 0);
                if !line.is_empty() && self.lines.last() != Some(&line) {
                    self.lines.push(line.clone());
                }
                return Some(line.into_iter().collect());
            }
            _ => {}
        }
        None
    }

    fn show(&mut self, back: usize) {
        self.back = back;
        self.text = match back {
            0 => self.draft.clone(),
            _ => self.lines[self.lines.len() - back].clone(),
        };
        self.cursor = self.text.len();
    }
}

fn typed() -> impl Strategy<Value = Typed> {
    prop_oneof![
        3 => prop::sample::select(vec!['a', 'b', 'c', ' ', '~', '[']).prop_map(Typed::Text),
        2 => prop::sample::select(KEYS.to_vec()).prop_map(Typed::Key),
    ]
}

proptest! {
    #[test]
    fn it_does_what_the_model_does(input in prop::collection::vec(typed(), 0..120)) {
        let (mut editor, mut screen, mut model) = (LineEditor::new(), Screen::default(), Model::default());
        for typed in input {
            let mut line = None;
            let bytes = match &typed {
                Typed::Text(character) => character.to_string(),
                Typed::Key(key) => (*key).to_owned(),
            };
            for byte in bytes.bytes() {
                match editor.push(byte, &mut screen) {
                    Event::None => {}
                    Event::Line(complete) => line = Some(complete.to_owned()),
                    other => panic!("{other:?}"),
                }
            }
            prop_assert_eq!(line, model.press(&typed));
            let text: String = model.text.iter().collect();
            prop_assert_eq!(editor.text(), &text);
            let shown = screen.text();
            prop_assert_eq!(shown.trim_end(), text.trim_end());
            prop_assert_eq!(screen.cursor, model.cursor);
            // As after a log line.
            let mut again = Screen::default();
            editor.show(&mut again).expect("a screen takes everything");
            prop_assert_eq!((again.text(), again.cursor), (text, model.cursor));
        }
    }
}

#[test]
fn eight_lines_are_kept() {
    let (mut editor, mut out) = (LineEditor::new(), String::new());
    let mut feed = |input: &str| {
        for byte in input.bytes() {
            editor.push(byte, &mut out);
        }
        editor.text().to_owned()
    };
    for number in 0..12 {
        feed(&format!("line {number}\r\r"));
    }
    feed("half");
    for number in (4..12).rev() {
        assert_eq!(feed("\x1b[A"), format!("line {number}"));
    }
    assert_eq!(feed("\x1b[A"), "line 4", "no more");
    for number in 5..12 {
        assert_eq!(feed("\x1b[B"), format!("line {number}"));
    }
    assert_eq!(feed("\x1b[B"), "half");
    assert_eq!(feed("\x1b[B"), "half");
}
