//! Numbers in Prometheus' text format, version 0.0.4.

use core::fmt::{self, Write};

use gnomon_clock::{ClockStatus, Origin, Source, Violation};

use crate::report::View;

/// Writes all of them. What is not known has no sample.
#[inline(never)]
pub(super) fn metrics(view: &View<'_>, out: &mut dyn Write) -> fmt::Result {
    let reading = view.reading.as_ref().ok();
    let served = view.refusal().is_none();
    gauge(out, "time_served", "NTP clients get the time")?;
    value(out, "time_served", u64::from(served))?;
    if let Some(reading) = reading {
        let is_synchronized = reading.status == ClockStatus::Synchronized;
        gauge(out, "synchronized", "the host vouches for its clock")?;
        value(out, "synchronized", u64::from(is_synchronized))?;
        gauge(
            out,
            "bound_seconds",
            "true time is within this of what is served",
        )?;
        seconds(out, "bound_seconds", reading.bound.nanos())?;
        if let Some(offset) = reading.tai_offset {
            gauge(out, "tai_offset_seconds", "TAI-UTC")?;
            writeln!(out, "gnomon_tai_offset_seconds {offset}")?;
        }
    }
    gauge(out, "source", "what tells the time")?;
    let origins = Source::ALL.into_iter().map(Origin::Own);
    for origin in [Origin::Page].into_iter().chain(origins) {
        let is_in_use = reading.is_some_and(|reading| reading.origin == origin);
        let label: Label<'_> = ("source", &origin);
        sample(out, "source", label, u64::from(is_in_use))?;
    }
    if let Some(uptime) = view.uptime {
        gauge(out, "uptime_seconds", "time since the start")?;
        seconds(out, "uptime_seconds", uptime)?;
    }
    counter(out, "ntp_replies_total", "NTP replies, by what they told")?;
    for (kind, count) in view.ntp.answered() {
        sample(out, "ntp_replies_total", ("told", &kind), count)?;
    }
    counter(out, "ntp_unanswered_total", "NTP requests left unanswered")?;
    for (why, count) in view.ntp.silent() {
        sample(out, "ntp_unanswered_total", ("why", &why), count)?;
    }
    counter(out, "page_updates_total", "updates of the page looked at")?;
    value(out, "page_updates_total", view.audit.updates())?;
    counter(out, "disruptions_total", "new disruption markers")?;
    value(out, "disruptions_total", view.audit.disruptions())?;
    counter(out, "violations_total", "promises that the host broke")?;
    for violation in Violation::ALL {
        let label: Label<'_> = ("kind", &violation);
        sample(out, "violations_total", label, view.audit.count(violation))?;
    }
    counter(
        out,
        "source_alarms_total",
        "sources that began to contradict the time",
    )?;
    value(out, "source_alarms_total", view.sources.alarms())?;
    if let Ok(net) = &view.net {
        counter(out, "frames_total", "frames of the network device")?;
        for (way, count) in [
            ("received", net.frames.received),
            ("sent", net.frames.sent),
            ("dropped", net.frames.dropped),
        ] {
            sample(out, "frames_total", ("way", &way), count)?;
        }
    }
    Ok(())
}

/// A label and its value, which needs no escapes: they are all ours.
type Label<'a> = (&'static str, &'a dyn fmt::Display);

fn gauge(out: &mut dyn Write, name: &str, help: &str) -> fmt::Result {
    family(out, name, "gauge", help)
}

fn counter(out: &mut dyn Write, name: &str, help: &str) -> fmt::Result {
    family(out, name, "counter", help)
}

#[inline(never)]
fn family(out: &mut dyn Write, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(
        out,
        "# HELP gnomon_{name} {help}\n# TYPE gnomon_{name} {kind}"
    )
}

fn value(out: &mut dyn Write, name: &str, value: u64) -> fmt::Result {
    writeln!(out, "gnomon_{name} {value}")
}

#[inline(never)]
fn sample(out: &mut dyn Write, name: &str, label: Label<'_>, value: u64) -> fmt::Result {
    let (key, is) = label;
    writeln!(out, "gnomon_{name}{{{key}=\"{is}\"}} {value}")
}

fn seconds(out: &mut dyn Write, name: &str, nanos: u64) -> fmt::Result {
    let (whole, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    writeln!(out, "gnomon_{name} {whole}.{rest:09}")
}
