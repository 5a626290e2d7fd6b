//! Everything that there is to tell, as JSON.

use core::fmt::{self, Write};

use gnomon_clock::{Leap, Origin};

use super::history::History;
use crate::json::{self, Object, option};
use crate::report::{Page, VERSION, View};
use crate::source::State;

/// Writes the object and a line end.
pub(super) fn status(view: &View<'_>, history: &History, out: &mut dyn Write) -> fmt::Result {
    let reading = view.reading.as_ref().ok();
    let mut object = Object::begin(out)?;
    object.text("version", Some(&VERSION))?;
    json::now(view, object.member("now")?)?;
    object.text("machine", Some(&view.machine))?;
    object.text("page", Some(&Page(view)))?;
    object.number("uptime", view.uptime.map(|nanos| nanos / 1_000_000))?;
    let updated = reading.and_then(|reading| reading.reference_utc);
    object.text("updated", option(updated.as_ref()))?;
    let leap = reading.and_then(|reading| reading.leap);
    let leap = leap.map(|leap| (leap.month, leap.kind));
    let month = leap.map(|(month, _)| month);
    object.text("leap_before", option(month.as_ref()))?;
    let kind = leap.map(|(_, kind)| match kind {
        Leap::Insert => "insert",
        Leap::Delete => "delete",
    });
    object.text("leap_kind", option(kind.as_ref()))?;
    let expected = reading.map(|reading| reading.disruption);
    object.text("disruption_expected", option(expected.as_ref()))?;
    audit(view, &mut object)?;
    sources(view, &mut object)?;
    ntp(view, &mut object)?;
    network(view, &mut object)?;
    samples(history, &mut object)?;
    object.end()?;
    writeln!(out)
}

fn audit(view: &View<'_>, object: &mut Object<'_>) -> fmt::Result {
    let mut audit = Object::begin(object.member("audit")?)?;
    audit.number("updates", Some(view.audit.updates()))?;
    audit.number("disruptions", Some(view.audit.disruptions()))?;
    audit.number("violations", Some(view.audit.violations()))?;
    let latest = view.duty.latest_violation();
    audit.text("latest", option(latest.as_ref()))?;
    audit.number("alarms", Some(view.sources.alarms()))?;
    audit.number("counter_moves", Some(view.watch.shifts()))?;
    audit.end()
}

fn sources(view: &View<'_>, object: &mut Object<'_>) -> fmt::Result {
    let origin = view.reading.as_ref().ok().map(|reading| reading.origin);
    let mut sources = Object::begin(object.member("sources")?)?;
    let page = match (origin, view.fields) {
        (Some(Origin::Page), _) => "in use",
        (_, Some(_)) => "no time",
        (_, None) => "absent",
    };
    sources.text("vmclock", Some(&page))?;
    for entry in view.sources.entries() {
        let state = match entry.state {
            State::Absent(_) => "absent",
            State::Waiting => "waiting",
            State::Silent(_) => "silent",
            State::Rejected(_) => "rejected",
            State::Learning => "learning",
            State::Disagrees(_) => "contradicts",
            State::Good if origin == Some(Origin::Own(entry.source)) => "in use",
            State::Good => "agrees",
        };
        sources.text(entry.source.name(), Some(&state))?;
    }
    sources.end()
}

fn ntp(view: &View<'_>, object: &mut Object<'_>) -> fmt::Result {
    let mut ntp = Object::begin(object.member("ntp")?)?;
    ntp.number("stratum", Some(view.server.stratum().into()))?;
    let counts = [
        ("answered", &view.ntp.answered()[..]),
        ("particulars", &view.ntp.particulars()),
        ("unanswered", &view.ntp.silent()),
    ];
    for (name, counts) in counts {
        let mut object = Object::begin(ntp.member(name)?)?;
        for (name, count) in counts {
            object.number(name, Some(*count))?;
        }
        object.end()?;
    }
    ntp.end()
}

fn network(view: &View<'_>, object: &mut Object<'_>) -> fmt::Result {
    let Ok(net) = &view.net else {
        return object.number("network", None);
    };
    let mut network = Object::begin(object.member("network")?)?;
    network.text("device", Some(&net.nic))?;
    let address = net.address.map(|(address, _)| address);
    network.text("address", option(address.as_ref()))?;
    network.number("received", Some(net.frames.received))?;
    network.number("sent", Some(net.frames.sent))?;
    network.number("dropped", Some(net.frames.dropped))?;
    network.end()
}

/// Second by second, the oldest first.
fn samples(history: &History, object: &mut Object<'_>) -> fmt::Result {
    let mut lists = Object::begin(object.member("history")?)?;
    let mut bounds = history.samples().map(|sample| sample.bound);
    lists.numbers("bound", &mut bounds)?;
    let mut replies = history.samples().map(|sample| Some(sample.replies));
    lists.numbers("replies", &mut replies)?;
    lists.end()
}
