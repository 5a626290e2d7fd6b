//! `counter`, `bench`, and what boot has noted of the machine.

use core::fmt::{self, Display, Write};

use gnomon_clock::{CounterId, Fields, Period, Timeline};

use crate::median::median;
use crate::report;
use crate::services::counters::PageRate;
use crate::shell::Desk;
use crate::text::Text;

/// Reads of the counter for `counter`. They take a fraction of a millisecond.
const READS: u32 = 1000;
/// How often `bench` does each thing: NTP clients wait meanwhile.
const ROUNDS: usize = 20;

pub(in crate::shell) fn counter(desk: &Desk<'_>, out: &mut dyn Write) -> fmt::Result {
    let view = &desk.view;
    writeln!(out, "counter     {}", view.counter)?;
    let page = view.fields.and_then(Result::ok);
    if let Some(page) = page
        && report::hertz(page.counter_period_frac_sec, page.counter_period_shift).is_some()
    {
        writeln!(out, "page        {}", PageRate(&page))?;
    }
    match view.services.rate() {
        Some(rate) => writeln!(out, "machine     {rate}")?,
        None => writeln!(out, "machine     does not tell its rate")?,
    }
    if let Some((hertz, off)) = view.sources.calibrated() {
        writeln!(out, "pm timer    {hertz} Hz ± {off} ppm")?;
    }
    let invariant = match (view.counter, view.services.is_invariant()) {
        (CounterId::ArmVcnt, _) => "by architecture",
        (_, Some(true)) => "yes",
        (_, Some(false)) => "not promised",
        (_, None) => "unknown",
    };
    writeln!(out, "invariant   {invariant}")?;
    let (mut back, mut same, mut longest, mut moved) = (0_u32, 0_u32, 0, 0_u64);
    let mut last = desk.meter.read();
    for _ in 0..READS {
        let now = desk.meter.read();
        match now.since(last) {
            ..0 => back += 1,
            0 => same += 1,
            step => {
                longest = longest.max(step);
                moved = moved.saturating_add(step.unsigned_abs());
            }
        }
        last = now;
    }
    let mean = i64::try_from(moved / u64::from(READS)).unwrap_or(i64::MAX);
    let period = page.as_ref().and_then(period);
    writeln!(
        out,
        "read        {}, longest {}",
        Cost(mean, period),
        Cost(longest, period)
    )?;
    writeln!(
        out,
        "monotonic   of {READS} reads {back} were behind the one before, {same} the same"
    )
}

pub(in crate::shell) fn bench(desk: &Desk<'_>, out: &mut dyn Write) -> fmt::Result {
    let fields = desk.view.fields.and_then(Result::ok);
    let period = fields.as_ref().and_then(period);
    let mut row = |name: &str, step: &dyn Fn()| {
        let mut costs = [0_i64; ROUNDS];
        for cost in &mut costs {
            let before = desk.meter.read();
            step();
            *cost = desk.meter.read().since(before);
        }
        let median = median(&mut costs);
        let [.., longest] = costs;
        let (median, longest) = (Cost(median, period), Cost(longest, period));
        writeln!(out, "{name:<12}{median}, longest {longest}")
    };
    row("nothing", &|| {})?;
    row("counter", &|| {
        core::hint::black_box(desk.meter.read());
    })?;
    row("page", &|| {
        core::hint::black_box(desk.meter.fields());
    })?;
    let Some(fields) = fields else {
        return Ok(());
    };
    let counter = desk.view.counter;
    row("line", &|| {
        let _line = core::hint::black_box(Timeline::from_page(&fields, counter));
    })?;
    let Ok(line) = Timeline::from_page(&fields, counter) else {
        return Ok(());
    };
    row("time", &|| {
        let _time = core::hint::black_box(line.at(desk.meter.read()));
    })?;
    row("text", &|| {
        core::hint::black_box(Text::<96>::of(&report::TimeLine(&desk.view.reading)));
    })
}

/// What boot noted, line by line.
pub(in crate::shell) fn fact<const N: usize>(text: &Text<N>, out: &mut dyn Write) -> fmt::Result {
    match text.as_str() {
        "" => writeln!(out, "nothing is known of that"),
        text => text.lines().try_for_each(|line| writeln!(out, "{line}")),
    }
}

fn period(page: &Fields) -> Option<Period> {
    Period::new(page.counter_period_frac_sec, page.counter_period_shift).ok()
}

/// So many ticks, and how long they are.
struct Cost(i64, Option<Period>);

impl Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(period) => {
                let nanos = period.span(self.0).as_nanos_floor();
                write!(f, "{} ticks ({nanos} ns)", self.0)
            }
            None => write!(f, "{} ticks", self.0),
        }
    }
}
