//! The page for people: `page.html`, and in its midst the time for those who have no script.

use core::fmt::{self, Write};

use crate::report::{Page, TimeLine, View};
use crate::text::{Text, replace};

const SOURCE: &[u8] = include_bytes!("page.html");
/// Where the time goes.
const MARK: &[u8] = b"{{time}}";

const PLACE: usize = {
    let mut at = 0;
    while !is_at(SOURCE, MARK, at) {
        at += 1;
    }
    at
};

/// What comes before the time.
pub const BEFORE: &[u8] = SOURCE.split_at(PLACE).0;
/// What comes after it.
pub const AFTER: &[u8] = SOURCE.split_at(PLACE + MARK.len()).1;

/// Bytes that the time takes, filled up with blanks, so that the length of the page is known before.
pub const PLAIN: usize = 512;

/// Bytes of the whole page.
pub const LENGTH: usize = BEFORE.len() + PLAIN + AFTER.len();

/// The time, what it rests on, and what was served, in a few lines of [`PLAIN`] bytes.
#[must_use]
pub fn plain(view: &View<'_>) -> Text<PLAIN> {
    let mut text = Text::EMPTY;
    // What has no room is cut; it is for reading.
    let _ = lines(view, &mut Escaped(&mut text));
    text.pad();
    text
}

#[inline(never)]
fn lines(view: &View<'_>, out: &mut dyn Write) -> fmt::Result {
    match view.withheld {
        None => writeln!(out, "{}", TimeLine(&view.reading))?,
        Some(why) => writeln!(out, "no time is served: {why}")?,
    }
    writeln!(out, "page     {}", Page(view))?;
    let audit = view.audit;
    let (updates, violations) = (audit.updates(), audit.violations());
    writeln!(out, "audit    {updates} updates, {violations} violations")?;
    write!(out, "replies  {}", view.ntp.replies())
}

/// Writes on as text of HTML.
struct Escaped<'w>(&'w mut dyn Write);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let special = |character| matches!(character, '<' | '&');
        replace(text, self.0, special, |character, out| {
            out.write_str(if character == '<' { "&lt;" } else { "&amp;" })
        })
    }
}

/// Whether `part` is in `whole` at that place. Reading beyond the end is an error of the build.
const fn is_at(whole: &[u8], part: &[u8], at: usize) -> bool {
    let mut index = 0;
    while index < part.len() {
        if whole[at + index] != part[index] {
            return false;
        }
        index += 1;
    }
    true
}
