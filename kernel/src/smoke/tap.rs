//! The Test Anything Protocol, version 14: one line a check, and where one fails the rule that it broke.

use core::fmt::{self, Display, Write};

use crate::text::Text;

/// One line of evidence, or the reason why there is none.
pub type Evidence = Text<160>;

/// A check by its name, and the rule that it holds the machine to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// A few words, unlike every other check's.
    pub name: &'static str,
    /// What must hold, in a sentence without double quotes.
    pub rule: &'static str,
    /// Where that is written.
    pub source: &'static str,
}

/// What became of a check.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The rule holds, by this evidence.
    Ok(Evidence),
    /// The rule is broken.
    NotOk(Evidence),
    /// Nothing can be said, for this reason.
    Skip(Evidence),
}

impl Outcome {
    /// [`Ok`](Self::Ok) or [`NotOk`](Self::NotOk), with the same evidence.
    #[must_use]
    #[inline(never)]
    pub fn of(holds: bool, evidence: &dyn Display) -> Self {
        let evidence = Evidence::of(evidence);
        if holds {
            Self::Ok(evidence)
        } else {
            Self::NotOk(evidence)
        }
    }

    /// [`Ok`](Self::Ok).
    #[must_use]
    #[inline(never)]
    pub fn ok(evidence: &dyn Display) -> Self {
        Self::Ok(Evidence::of(evidence))
    }

    /// [`NotOk`](Self::NotOk).
    #[must_use]
    #[inline(never)]
    pub fn not_ok(evidence: &dyn Display) -> Self {
        Self::NotOk(Evidence::of(evidence))
    }

    /// [`Skip`](Self::Skip).
    #[must_use]
    #[inline(never)]
    pub fn skip(reason: &dyn Display) -> Self {
        Self::Skip(Evidence::of(reason))
    }
}

/// How many checks had which outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rules that hold.
    pub ok: u32,
    /// Rules that are broken.
    pub not_ok: u32,
    /// Checks that could not be made.
    pub skipped: u32,
}

/// A stream of TAP: how far it is. Where it goes is named with each line.
#[derive(Clone, Copy, Debug)]
pub struct Tap {
    tally: Tally,
}

impl Tap {
    /// Begins a stream of so many checks. Told first, so that a stream that breaks off is a failure.
    ///
    /// # Errors
    /// What `out` returns, here and below.
    pub fn begin(out: &mut dyn Write, checks: usize) -> Result<Self, fmt::Error> {
        write!(out, "TAP version 14\n1..{checks}\n")?;
        Ok(Self {
            tally: Tally::default(),
        })
    }

    /// Says something that is no outcome.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    #[inline(never)]
    pub fn comment(self, out: &mut dyn Write, words: &dyn Display) -> fmt::Result {
        writeln!(out, "# {words}")
    }

    /// How many outcomes have been told.
    #[must_use]
    pub const fn told(&self) -> u32 {
        self.tally.ok + self.tally.not_ok + self.tally.skipped
    }

    /// Tells an outcome.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    #[inline(never)]
    pub fn tell(&mut self, out: &mut dyn Write, check: &Check, outcome: &Outcome) -> fmt::Result {
        let Tally {
            ok,
            not_ok,
            skipped,
        } = &mut self.tally;
        let (count, prefix) = match outcome {
            Outcome::Ok(_) => (ok, "ok"),
            Outcome::NotOk(_) => (not_ok, "not ok"),
            Outcome::Skip(_) => (skipped, "ok"),
        };
        *count += 1;
        write!(out, "{prefix} {} - {}", self.told(), check.name)?;
        match outcome {
            Outcome::Ok(evidence) => writeln!(out, ": {}", Escaped(evidence.as_str())),
            Outcome::Skip(reason) => writeln!(out, " # SKIP {}", Escaped(reason.as_str())),
            Outcome::NotOk(evidence) => writeln!(
                out,
                ": {}\n  ---\n  rule: \"{}\"\n  source: \"{}\"\n  ...",
                Escaped(evidence.as_str()),
                check.rule,
                check.source
            ),
        }
    }

    /// Ends the stream with a line that says how it went.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub fn end(self, out: &mut dyn Write) -> Result<Tally, fmt::Error> {
        let Tally {
            ok,
            not_ok,
            skipped,
        } = self.tally;
        writeln!(out, "# {ok} ok, {not_ok} not ok, {skipped} skipped")?;
        Ok(self.tally)
    }
}

/// A description: `#` would begin a directive, and `\` is what escapes it.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            if matches!(character, '#' | '\\') {
                f.write_char('\\')?;
            }
            f.write_char(character)?;
        }
        Ok(())
    }
}
