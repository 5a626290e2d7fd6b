//! `time` and `leap`.

use core::fmt::{self, Write};

use gnomon_clock::{Announcement, Leap, LeapIndicator, SmearingHint};

use super::Coded;
use crate::report::{TimeLine, View};

pub(in crate::shell) fn time(view: &View<'_>, out: &mut dyn Write) -> fmt::Result {
    writeln!(out, "{}", TimeLine(&view.reading))
}

pub(in crate::shell) fn leap(view: &View<'_>, out: &mut dyn Write) -> fmt::Result {
    let reading = match &view.reading {
        Ok(reading) => reading,
        Err(why) => return writeln!(out, "no time: {why}"),
    };
    match reading.tai_offset {
        Some(offset) => writeln!(out, "tai-utc     {offset} s")?,
        None => writeln!(out, "tai-utc     unknown")?,
    }
    if let Some(utc) = reading.utc {
        let announced = match utc.announcement {
            _ if utc.leap_second => "this is an inserted second",
            Announcement::None => "nothing for the end of this UTC day",
            Announcement::Insert => "23:59:60 comes at the end of this UTC day",
            Announcement::Delete => "23:59:59 is left out at the end of this UTC day",
        };
        writeln!(out, "announced   {announced}")?;
    }
    match reading.leap {
        Some(leap) => {
            let kind = match leap.kind {
                Leap::Insert => "inserted",
                Leap::Delete => "left out",
            };
            writeln!(out, "known       a second {kind} before {}", leap.month)?;
        }
        None => writeln!(out, "known       none")?,
    }
    if let Some(Ok(fields)) = &view.fields {
        let leap = Coded::<LeapIndicator>::new(fields.leap_indicator);
        let hint = Coded::<SmearingHint>::new(fields.leap_second_smearing_hint);
        writeln!(out, "page        indicator {leap}, smearing hint {hint}")?;
    }
    Ok(())
}
