//! The time for programs: one JSON object (RFC 8259), the same on every line and in every answer that has it.
//!
//! | Member | Value |
//! |---|---|
//! | `utc` | RFC 3339 with nine digits, truncated; second 60 is an inserted one |
//! | `tai` | the same without a `Z`, on TAI |
//! | `tai_offset` | TAI − UTC in seconds, a number |
//! | `bound` | true time lies within ± so many ns of `utc`; a number, rounded up |
//! | `earliest`, `latest` | the ends of that interval in ns of UTC since 1970, POSIX-coded, rounded outward |
//! | `leap` | at the end of this UTC day a second is to `insert`, to `delete`, or `none` |
//! | `status` | the host's clock is `synchronized` or `freerunning` |
//! | `source` | `vmclock`, or the other source that tells the time |
//! | `marker`, `generation` | the page's disruption marker, and the generation of the machine |
//! | `counter` | the counter value at which all this holds |
//! | `kiss` | the kiss code that NTP clients get in place of the time; `null` while they get it |
//! | `why` | why, if there is more to say |
//!
//! Every member is always there, and `null` where it is not known or withheld: a time that NTP clients
//! would not get for the operator's sake is not told here either. (One whose bound has reached
//! 16 s is, for here the bound has room.) `earliest`, `latest`, `marker`, `generation` and `counter` have
//! 64 bits and are decimal strings, because many readers of JSON have numbers of 53 bits.

use core::fmt::{self, Display, Write};

use gnomon_clock::{Announcement, Bound, Reading, Span, Timestamp, Utc};

use crate::report::View;
use crate::serve::times::Told;
use crate::text::{Text, replace};

/// Writes the time as of `view`, without a line end.
///
/// # Errors
/// What `out` returns.
pub fn now(view: &View<'_>, out: &mut dyn Write) -> fmt::Result {
    let mut object = Object::begin(out)?;
    let reading = view.reading.as_ref().ok();
    let told = reading.filter(|_| view.withheld.is_none());
    time(&mut object, told)?;
    let leap = told
        .and_then(|told| told.utc)
        .map(|utc| leap(utc.announcement));
    object.text("leap", option(leap.as_ref()))?;
    object.text(
        "status",
        option(reading.map(|reading| reading.status).as_ref()),
    )?;
    object.text(
        "source",
        option(reading.map(|reading| reading.origin).as_ref()),
    )?;
    let page = view.fields.and_then(Result::ok);
    let (marker, generation) = match (reading, page) {
        (Some(reading), _) => (Some(reading.marker), reading.generation),
        (None, Some(page)) => (Some(page.disruption_marker), page.vm_generation()),
        (None, None) => (None, None),
    };
    object.text("marker", option(marker.as_ref()))?;
    object.text("generation", option(generation.as_ref()))?;
    object.text(
        "counter",
        option(reading.map(|reading| reading.ticks.0).as_ref()),
    )?;
    let kiss = match view.refusal() {
        Some(Told::Refusal(answer)) => Some(answer.kiss()),
        _ => None,
    };
    let kiss = kiss.as_ref().map(|kiss| kiss.escape_ascii());
    object.text("kiss", option(kiss.as_ref()))?;
    match &view.reading {
        Err(why) => object.text("why", Some(why))?,
        Ok(_) => object.text("why", option(view.withheld.as_ref()))?,
    }
    object.end()
}

/// Writes text as a JSON string.
///
/// # Errors
/// What `out` returns.
pub fn quoted(text: &dyn Display, out: &mut dyn Write) -> fmt::Result {
    out.write_char('"')?;
    write!(Escaped(out), "{text}")?;
    out.write_char('"')
}

/// What `now` has of the time itself.
fn time(object: &mut Object<'_>, told: Option<&Reading>) -> fmt::Result {
    let utc = told.and_then(|told| told.utc);
    object.text("utc", option(utc.as_ref()))?;
    let tai = told.and_then(|told| told.tai);
    let tai = tai.map(|tai| Text::<48>::of(&tai));
    // An instant of TAI names its scale at the end.
    let tai = tai.as_ref().and_then(|tai| tai.as_str().split(' ').next());
    object.text("tai", option(tai.as_ref()))?;
    let offset = told.and_then(|told| told.tai_offset);
    object.number(
        "tai_offset",
        offset.and_then(|offset| offset.try_into().ok()),
    )?;
    let bound = told.map(|told| told.bound);
    object.number("bound", bound.map(Bound::nanos))?;
    let ends = utc
        .zip(bound)
        .and_then(|(utc, bound)| ends(utc.time, bound));
    object.text(
        "earliest",
        option(ends.map(|(earliest, _)| earliest).as_ref()),
    )?;
    object.text("latest", option(ends.map(|(_, latest)| latest).as_ref()))
}

/// The ends of the interval in ns since 1970, rounded outward, as far as they fit.
fn ends(utc: Timestamp<Utc>, bound: Bound) -> Option<(i64, i64)> {
    let units = i128::from(utc.seconds()) << 64 | i128::from(utc.fraction());
    let bound = i128::try_from(bound.units()).ok()?;
    let earliest = Span::from_units(units.checked_sub(bound)?).as_nanos_floor();
    // Up is down from the other side.
    let latest = -Span::from_units(-units.checked_add(bound)?).as_nanos_floor();
    Some((earliest.try_into().ok()?, latest.try_into().ok()?))
}

/// A number that every reader of JSON can hold.
fn number(value: Option<u64>, out: &mut dyn Write) -> fmt::Result {
    match value.filter(|value| *value < 1 << 53) {
        Some(value) => write!(out, "{value}"),
        None => out.write_str("null"),
    }
}

const fn leap(announcement: Announcement) -> &'static str {
    match announcement {
        Announcement::None => "none",
        Announcement::Insert => "insert",
        Announcement::Delete => "delete",
    }
}

/// An object that is being written, member after member. Names need no escapes, values get them.
/// Out of line, here and in the rest of HTTP: speed is of no importance, and size is.
pub(crate) struct Object<'w> {
    out: &'w mut dyn Write,
    is_empty: bool,
}

impl<'w> Object<'w> {
    #[inline(never)]
    pub(crate) fn begin(out: &'w mut dyn Write) -> Result<Self, fmt::Error> {
        out.write_char('{')?;
        let is_empty = true;
        Ok(Self { out, is_empty })
    }

    /// Writes a name, and lends what its value is to be written to.
    #[inline(never)]
    pub(crate) fn member(&mut self, name: &str) -> Result<&mut dyn Write, fmt::Error> {
        if !core::mem::take(&mut self.is_empty) {
            self.out.write_char(',')?;
        }
        self.out.write_char('"')?;
        self.out.write_str(name)?;
        self.out.write_str("\":")?;
        Ok(self.out)
    }

    /// A string, or `null`.
    #[inline(never)]
    pub(crate) fn text(&mut self, name: &str, value: Option<&dyn Display>) -> fmt::Result {
        let out = self.member(name)?;
        match value {
            Some(value) => quoted(value, out),
            None => out.write_str("null"),
        }
    }

    /// A number, or `null`, as for one of more than 53 bits.
    #[inline(never)]
    pub(crate) fn number(&mut self, name: &str, value: Option<u64>) -> fmt::Result {
        let out = self.member(name)?;
        number(value, out)
    }

    /// A list of numbers.
    pub(crate) fn numbers(
        &mut self,
        name: &str,
        values: &mut dyn Iterator<Item = Option<u64>>,
    ) -> fmt::Result {
        let out = self.member(name)?;
        let mut separator = '[';
        for value in values {
            out.write_char(separator)?;
            separator = ',';
            number(value, out)?;
        }
        out.write_str(if separator == '[' { "[]" } else { "]" })
    }

    #[inline(never)]
    pub(crate) fn end(self) -> fmt::Result {
        self.out.write_char('}')
    }
}

/// Something to display, if there is something.
pub(crate) fn option<T: Display>(value: Option<&T>) -> Option<&dyn Display> {
    value.map(|value| value as &dyn Display)
}

/// Writes on as the inside of a string.
struct Escaped<'w>(&'w mut dyn Write);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let special = |character| matches!(character, '"' | '\\' | '\0'..' ');
        replace(text, self.0, special, |character, out| match character {
            '"' => out.write_str("\\\""),
            '\\' => out.write_str("\\\\"),
            control => write!(out, "\\u{:04x}", u32::from(control)),
        })
    }
}
