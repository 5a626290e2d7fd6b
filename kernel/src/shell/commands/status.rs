//! `status`, `sources` and `audit`: what the time rests on.

use core::fmt::{self, Write};
use core::time::Duration;

use gnomon_clock::page::flag;
use gnomon_clock::{
    Announcement, ClockStatus, CounterId, Evidence, Fields, Notes, OperatorNote, Origin, Reading,
    Violation,
};

use super::{Coded, Seconds};
use crate::config::{Idle, Smearing};
use crate::duty::OnViolation;
use crate::http;
use crate::report::{Page, SmearLine, SmearView, TimeLine, View, Width};
use crate::serve::times::Told;
use crate::serve::{interleave, limit};
use crate::services::counters::PageRate;
use crate::source::{Entry, State};

pub(in crate::shell) fn status(view: &View<'_>, out: &mut dyn Write) -> fmt::Result {
    let fields = view.fields.and_then(Result::ok);
    writeln!(out, "time        {}", TimeLine(&view.reading))?;
    writeln!(out, "page        {}", Page(view))?;
    if let Some(fields) = fields {
        writeln!(
            out,
            "host clock  {}",
            Coded::<ClockStatus>::new(fields.clock_status)
        )?;
        writeln!(out, "marker      {:#x}", fields.disruption_marker)?;
        match fields.vm_generation() {
            Some(generation) => writeln!(out, "generation  {generation:#x}")?,
            None => writeln!(out, "generation  not given")?,
        }
    }
    if let Ok(reading) = &view.reading {
        if let Some(updated) = reading.reference_utc {
            writeln!(out, "updated     {updated}")?;
        }
        remarks(reading, out)?;
        operator_offset(reading, out)?;
    }
    if let Some(fields) = fields {
        warnings(&fields, out)?;
    }
    serving(view, out)?;
    write!(out, "audit       ")?;
    audit_summary(view, out)?;
    if let Some(evidence) = latest(view) {
        writeln!(out, "latest      {evidence}")?;
    }
    counter(view, out)?;
    if let Some(service) = &view.smear {
        let hint = view.reading.map(|reading| reading.smearing_hint);
        if service.asked == Smearing::Hint && hint == Ok(None) {
            writeln!(out, "note        the page's smearing hint is not known")?;
        }
        smear(service, out)?;
    }
    match view.uptime {
        Some(nanos) => {
            let millis = nanos / 1_000_000;
            writeln!(out, "uptime      {}.{:03} s", millis / 1000, millis % 1000)?;
        }
        None => writeln!(out, "uptime      unknown")?,
    }
    let idle = match view.idle {
        Idle::Adaptive => "adaptive",
        Idle::Halt => "halt",
        Idle::Poll => "poll",
    };
    let rested = &view.rested;
    let asleep = rested.per_mille_asleep().unwrap_or(0);
    writeln!(
        out,
        "idle        {idle}, asleep {}.{} %, wake-ups {}, in vain {}, polls {}",
        asleep / 10,
        asleep % 10,
        rested.wake_ups,
        rested.in_vain,
        rested.polls
    )?;
    let uptime = Duration::from_nanos(view.uptime.unwrap_or_default());
    writeln!(
        out,
        "tables      limited clients {} of {}, departures {} of {}, connections {} of {}",
        view.clients.limited(uptime),
        limit::CAPACITY,
        view.clients.departed(),
        interleave::CAPACITY,
        view.connections,
        http::CONNECTIONS
    )?;
    let server = &view.server;
    writeln!(
        out,
        "ntp         stratum {}, precision 2^{} s",
        server.stratum(),
        server.precision()
    )?;
    write!(out, "answered    ")?;
    counts(&view.ntp.answered(), out)?;
    write!(out, "of these    ")?;
    each(&view.ntp.particulars(), out)?;
    write!(out, "unanswered  ")?;
    counts(&view.ntp.silent(), out)
}

/// What has to be said about a reading beside its line.
fn remarks(reading: &Reading, out: &mut dyn Write) -> fmt::Result {
    let Notes {
        default_time_error,
        default_period_error,
        positive_tai_offset,
        invalid_tai_offset,
        utc_without_tai_offset,
    } = reading.notes;
    let utc = reading.utc.as_ref();
    let announced = |kind| utc.is_some_and(|utc| utc.announcement == kind);
    for (holds, remark) in [
        (
            announced(Announcement::Insert),
            "a second will be inserted at the end of this UTC day",
        ),
        (
            announced(Announcement::Delete),
            "a second will be left out at the end of this UTC day",
        ),
        (
            utc.is_some_and(|utc| utc.leap_second),
            "this is an inserted second",
        ),
        (
            utc.is_none(),
            "the page gives no usable TAI offset, so UTC is not known and not served",
        ),
        (
            reading.status == ClockStatus::Freerunning,
            "the host's clock is not synchronized at present, so the bound keeps growing",
        ),
        (
            default_time_error,
            "the page gives no maximum error of its time, 10 ms are assumed",
        ),
        (
            default_period_error,
            "the page gives no maximum error of the counter's period, 50 ppm are assumed",
        ),
        (
            positive_tai_offset,
            "tai_offset_sec has the sign of vmclock 1.0, its magnitude is taken as TAI-UTC",
        ),
        (
            invalid_tai_offset,
            "tai_offset_sec is flagged valid but is no TAI offset, it is ignored",
        ),
        (
            utc_without_tai_offset,
            "the page gives UTC without a TAI offset, so TAI is not known",
        ),
    ] {
        if holds {
            writeln!(out, "note        {remark}")?;
        }
    }
    Ok(())
}

/// What became of the operator's `tai_offset=`.
fn operator_offset(reading: &Reading, out: &mut dyn Write) -> fmt::Result {
    match reading.operator {
        OperatorNote::NotGiven => Ok(()),
        OperatorNote::Used => writeln!(
            out,
            "note        TAI-UTC is that of the command line, for the page gives none"
        ),
        OperatorNote::Agrees => writeln!(
            out,
            "note        TAI-UTC of the page agrees with that of the command line"
        ),
        OperatorNote::Disagrees { operator } => writeln!(
            out,
            "note        TAI-UTC is that of the page, not {operator} as on the command line: \
             one of them is wrong"
        ),
    }
}

/// What a client that asks now is told, and how long the host's clock has been freerunning.
fn serving(view: &View<'_>, out: &mut dyn Write) -> fmt::Result {
    match view.refusal() {
        None => out.write_str("serving     time")?,
        Some(Told::Refusal(answer)) => {
            let kiss = answer.kiss();
            write!(out, "serving     no time, {}", kiss.escape_ascii())?;
        }
        Some(_) => out.write_str("serving     nothing")?,
    }
    match view.withheld {
        Some(why) => writeln!(out, ": {why}")?,
        None => writeln!(out)?,
    }
    let Some(freerunning) = view.duty.freerunning() else {
        return Ok(());
    };
    write!(out, "holdover    for {}", Seconds(freerunning))?;
    match view.duty.conditions().holdover_max {
        Some(limit) => writeln!(out, " of {limit} s allowed"),
        None => writeln!(out, ", without limit"),
    }
}

/// The page, then each source: whether it is in use, or why not.
pub(in crate::shell) fn sources(view: &View<'_>, out: &mut dyn Write) -> fmt::Result {
    let origin = view.reading.as_ref().ok().map(|reading| reading.origin);
    write!(out, "{:<12}", "vmclock")?;
    match (origin, view.fields, view.sources.choice().page) {
        (Some(Origin::Page), ..) => writeln!(out, "in use")?,
        (_, None, _) => writeln!(out, "{}", Page(view))?,
        (_, _, false) => writeln!(out, "not asked for by source=, its marker is watched")?,
        (Some(Origin::Own(_)), ..) => writeln!(out, "no time, its marker is watched")?,
        (None, ..) => match &view.reading {
            Err(why) => writeln!(out, "{why}")?,
            Ok(_) => writeln!(out, "no time")?,
        },
    }
    for entry in view.sources.entries() {
        source(&entry, origin, view, out)?;
    }
    writeln!(out, "alarms      {}", view.sources.alarms())
}

/// `virtio-rtc  in use, ± 61.2 µs, asked 0.312 s ago: PCI 00:05.0, clock 0 of 1, UTC`
fn source(
    entry: &Entry<'_>,
    origin: Option<Origin>,
    view: &View<'_>,
    out: &mut dyn Write,
) -> fmt::Result {
    write!(out, "{:<12}", entry.source.name())?;
    match entry.state {
        State::Absent(why) => return writeln!(out, "{why}"),
        State::Waiting => out.write_str("has not answered yet")?,
        State::Silent(why) => write!(out, "silent: {why}")?,
        State::Rejected(why) => write!(out, "not used: {why}")?,
        State::Learning => out.write_str("not enough answers for a line yet")?,
        State::Disagrees(difference) => write!(out, "contradicts: {difference}")?,
        State::Good if origin == Some(Origin::Own(entry.source)) => out.write_str("in use")?,
        State::Good => out.write_str("agrees, a better one is in use")?,
    }
    let now = view.reading.as_ref().ok();
    if let Some(reading) = now.and_then(|now| entry.line?.at(now.ticks).ok()) {
        let (bound, age) = (Width(reading.bound.nanos()), Seconds(reading.age));
        write!(out, ", ± {bound}, asked {age} ago")?;
    }
    match entry.about {
        "" => writeln!(out),
        about => writeln!(out, ": {about}"),
    }
}

/// The smeared service, and how far it is off UTC.
fn smear(view: &SmearView, out: &mut dyn Write) -> fmt::Result {
    writeln!(out, "smear       {}", SmearLine(view))?;
    let Some((_, smeared)) = &view.now else {
        return Ok(());
    };
    writeln!(
        out,
        "smeared     UTC {:+}, ± {} of smeared time, ± {} of UTC",
        Seconds(smeared.offset),
        Width(smeared.bound.nanos()),
        Width(smeared.utc_bound.nanos())
    )
}

/// `updates 12, disruptions 1, violations 0, on_violation=alarm`
fn audit_summary(view: &View<'_>, out: &mut dyn Write) -> fmt::Result {
    let on_violation = match view.duty.conditions().on_violation {
        OnViolation::Serve => "serve",
        OnViolation::Alarm => "alarm",
        OnViolation::Stop => "stop",
    };
    writeln!(
        out,
        "updates {}, disruptions {}, violations {}, on_violation={on_violation}",
        view.audit.updates(),
        view.audit.disruptions(),
        view.audit.violations()
    )
}

/// The counter's rate and its two views, and the time that the host has stolen.
fn counter(view: &View<'_>, out: &mut dyn Write) -> fmt::Result {
    if let Some(rate) = view.services.rate() {
        write!(out, "counter     {rate}")?;
        match view.fields.and_then(Result::ok) {
            Some(page) if rate.contradicts(&page) => {
                writeln!(out, ", but {} by the page, which counts", PageRate(&page))?;
            }
            _ => writeln!(out)?,
        }
    }
    match (view.counter, view.watch.offset()) {
        (_, Some((offset, width))) => {
            let shifts = view.watch.shifts();
            writeln!(
                out,
                "physical    CNTPCT-CNTVCT {offset} ± {width} ticks, unannounced changes {shifts}"
            )?;
        }
        (CounterId::ArmVcnt, None) => writeln!(out, "physical    CNTPCT unavailable")?,
        _ => {}
    }
    if let Some(shift) = view.watch.latest() {
        writeln!(out, "moved       {shift}")?;
    }
    match view.services.stolen() {
        Some(stolen) => writeln!(out, "stolen      {stolen} ns of processor time"),
        None => Ok(()),
    }
}

/// What the latest violation rests on.
fn latest<'v>(view: &View<'v>) -> Option<&'v Evidence> {
    view.audit.evidence(view.duty.latest_violation()?)
}

pub(in crate::shell) fn audit(view: &View<'_>, out: &mut dyn Write) -> fmt::Result {
    audit_summary(view, out)?;
    for violation in Violation::ALL {
        let count = view.audit.count(violation);
        writeln!(out, "{count:<12}{violation}")?;
    }
    if view.counter == CounterId::ArmVcnt {
        let shifts = view.watch.shifts();
        writeln!(out, "{shifts:<12}counter moved without a disruption")?;
    }
    for evidence in Violation::ALL
        .iter()
        .filter_map(|violation| view.audit.evidence(*violation))
    {
        writeln!(out, "{evidence}")?;
    }
    Ok(())
}

/// What the host says is about to happen.
fn warnings(fields: &Fields, out: &mut dyn Write) -> fmt::Result {
    if fields.has(flag::DISRUPTION_IMMINENT) {
        writeln!(
            out,
            "note        the host expects a disruption within the hour"
        )
    } else if fields.has(flag::DISRUPTION_SOON) {
        writeln!(
            out,
            "note        the host expects a disruption within the day"
        )
    } else {
        Ok(())
    }
}

/// `12: time 10, INIT 2`
fn counts(rows: &[(&str, u64)], out: &mut dyn Write) -> fmt::Result {
    let total = rows
        .iter()
        .fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
    write!(out, "{total}: ")?;
    each(rows, out)
}

/// `time 10, INIT 2`
fn each(rows: &[(&str, u64)], out: &mut dyn Write) -> fmt::Result {
    for (at, (name, count)) in rows.iter().enumerate() {
        write!(out, "{}{name} {count}", if at == 0 { "" } else { ", " })?;
    }
    writeln!(out)
}
